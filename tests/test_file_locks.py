"""Locks of files between those who open them, be it in one process or in several."""

import os
import time
from contextlib import ExitStack

import pytest

from eann_lite import file_locks
from eann_lite.file_locks import locked

pytestmark = pytest.mark.skipif(not file_locks.POSSIBLE, reason="files cannot be locked on this system")


@pytest.fixture
def files(tmp_path):
    with open(tmp_path / "lock", "ab") as one, open(tmp_path / "lock", "ab") as other:
        yield one, other


def test_one_at_a_time_has_a_file(files):
    one, other = files
    with locked(one) as is_locked:
        assert is_locked
        with pytest.raises(BlockingIOError), locked(other):
            pass
    with pytest.raises(ValueError, match="inside"), locked(other):
        raise ValueError("inside")
    with locked(one) as is_locked:
        assert is_locked


def test_who_waits_gives_up_after_the_seconds_said(files):
    begun = time.monotonic()
    with locked(files[0]), pytest.raises(BlockingIOError), locked(files[1], seconds=0.2):
        pass
    assert 0.2 <= time.monotonic() - begun < 20.0


def test_a_process_that_is_forked_inside_does_not_give_a_lock_back(files):
    with ExitStack() as inside:
        inside.enter_context(locked(files[0]))
        child = os.fork()
        if child == 0:
            try:
                inside.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(BlockingIOError), locked(files[1]):
            pass


def test_a_process_that_was_forked_inside_does_not_keep_a_lock(files):
    read_end, write_end = os.pipe()
    with locked(files[0]):
        child = os.fork()
        if child == 0:
            try:
                os.close(write_end)
                os.read(read_end, 1)  # Until the parent is done.
            finally:
                os._exit(0)
    try:
        with locked(files[1]) as is_locked:
            assert is_locked
    finally:
        os.close(read_end)
        os.close(write_end)
        os.waitpid(child, 0)
