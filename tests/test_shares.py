"""Threads, the blocks that they share, and kernels that run on them."""

import os
import subprocess
import sys
from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eann_lite import compiled
from eann_lite.compiled import Kernel, compile_loops, helper, set_threads, threads_in_use
from eann_lite.errors import InputError
from eann_lite.kernels.shares import block_after, next_block, nothing_taken, run_workers


@pytest.mark.parametrize("threads", [0, -1, 10**6, 1.5, True])
def test_a_wrong_number_of_threads_is_refused_with_the_limit(threads):
    with pytest.raises(InputError, match="expected a whole number from 1 to"):
        set_threads(threads)


class Squares(NamedTuple):
    """What ``adding_squares`` reads and adds to."""

    x: np.ndarray
    y: np.ndarray


def adding_squares():
    """A kernel that adds x^2 to y, and fails where x is negative."""

    @compiled.helper
    def every_so_many(worker, workers, squares):
        x, y = squares.x, squares.y
        for n in range(worker, x.size, workers):
            if x[n] < 0.0:
                raise ValueError
            y[n] += x[n] * x[n]

    @compiled.Kernel
    def add_squares(threads, squares):
        run_workers(every_so_many, threads, threads[0], threads[0], squares)

    return lambda threaded, x, y: add_squares(threaded, Squares(x, y)), add_squares.compiled


@pytest.mark.parametrize("missing", [(), ("KernelCompiler",), ("KernelCompiler", "HelperCompiler")])
def test_kernels_do_their_work_once_with_threads_and_without_by_the_same_code(missing, empty_cache, monkeypatch):
    """Without what builds on Numba's own parts, too."""
    for name in missing:
        monkeypatch.setattr(compiled, name, None)
    (kernel, compiled_kernel), x = adding_squares(), np.arange(50.0)
    for threaded in (False, True):
        y = np.zeros(50)
        for _ in range(20):
            kernel(threaded, x, y)
        assert np.array_equal(y, 20 * x * x)
    assert len(compiled_kernel.signatures) == 1
    assert compiled._parallel_for(), "Numba starts threads in another way"


def test_work_that_fails_is_an_error_of_the_kernel(empty_cache):
    (kernel, _), x = adding_squares(), np.arange(50.0)
    x[7] = -1.0
    for threaded in (False, True):
        with pytest.raises(MemoryError, match="a kernel found no memory to work in"):
            kernel(threaded, x, np.zeros(50))


def test_kernels_of_few_blocks_leave_the_number_of_threads_as_it_is():
    code = """
import numpy as np
from eann_lite.compiled import threads_in_use
from tests.test_shares import sums_of_neighbours
for n_blocks in (2, 3, 7, 1):
    x = np.ones((5, n_blocks))
    sums_of_neighbours(True, x)
    assert (x == 2.0 ** np.arange(5)[:, None]).all(), x
    assert threads_in_use() == 4, threads_in_use()
"""
    here = os.path.dirname(os.path.dirname(__file__))
    environment = os.environ | {"PYTHONPATH": here, "NUMBA_NUM_THREADS": "4"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, cwd=here, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@compile_loops
def all_blocks_of_one_worker(workers, loop, worker, n_blocks):
    """What a worker gets of a loop that is alone, and the counts after it."""
    counts, blocks = nothing_taken(loop + 1, (workers, 0), workers), np.empty(n_blocks, np.int64)
    n = 0
    b = next_block(counts, loop, worker, n_blocks, -1)
    while b >= 0:
        blocks[n] = b
        n += 1
        b = next_block(counts, loop, worker, n_blocks, b)
    return blocks[:n], counts[loop, workers, 0]


@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 4), st.integers(0, 23))
def test_a_worker_takes_its_own_share_first_and_then_what_the_others_left(workers, loop, worker, n_blocks):
    """From the first block of a share on, or from the last one on in loops of odd number."""
    worker %= workers
    blocks, done = all_blocks_of_one_worker(workers, loop, worker, n_blocks)
    shares = [range(n_blocks * w // workers, n_blocks * (w + 1) // workers) for w in range(workers)]
    shares = [share if loop % 2 == 0 else share[::-1] for share in shares]
    assert blocks.tolist() == [b for w in range(workers) for b in shares[(worker + w) % workers]]
    assert done == n_blocks


@helper
def _sums_of_neighbours(worker, counts, x):
    for t in range(x.shape[0] - 1):
        b = next_block(counts, t, worker, x.shape[1], -1)
        while b >= 0:
            x[t + 1, b] = x[t, b - 1] + x[t, (b + 1) % x.shape[1]]
            b = next_block(counts, t, worker, x.shape[1], b)


@Kernel
def sums_of_neighbours(threads, x):
    """x[t + 1, b] = x[t, b - 1] + x[t, b + 1] around a ring: every loop reads what other workers wrote in the one before."""
    counts = nothing_taken(x.shape[0] - 1, threads, x.shape[1])
    run_workers(_sums_of_neighbours, threads, counts.shape[1] - 1, counts, x)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_loop_over_blocks_begins_when_the_one_before_is_done(threads):
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"this machine has {numba.config.NUMBA_NUM_THREADS} core")
    before = threads_in_use()
    set_threads(threads)
    try:
        for n_blocks in (1, 2, 3, 50):
            expected = np.zeros((200, n_blocks), np.int64)
            expected[0] = np.arange(n_blocks)
            for t in range(199):
                expected[t + 1] = (np.roll(expected[t], 1) + np.roll(expected[t], -1)) % 2**40
            for threaded in (False, True):
                found = np.zeros_like(expected)
                found[0] = np.arange(n_blocks)
                sums_of_neighbours(threaded, found)
                assert np.array_equal(found % 2**40, expected)
    finally:
        set_threads(before)


def test_threads_sleep_while_they_have_no_work_unless_the_environment_says_otherwise():
    code = (
        "import os; os.environ.update({settings}); from eann_lite.compiled import threads_in_use; seen = []\n"
        "import numba; start = numba.get_num_threads\n"
        "numba.get_num_threads = lambda: (seen.append(os.environ.get('OMP_WAIT_POLICY')), start())[1]\n"
        "threads_in_use(); print(seen[0], os.environ.get('OMP_WAIT_POLICY'))"
    )
    for settings, expected in (({}, "passive None"), ({"OMP_WAIT_POLICY": "active"}, "active active")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        command = [sys.executable, "-c", code.format(settings=settings)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


@compile_loops
def blocks_in_turn(loop, n_blocks, blocks, after):
    """Fill in the blocks that a worker alone takes in a loop, and of each which one is said to come after it."""
    counts, n = nothing_taken(loop + 1, (1, 0), n_blocks), 0
    b = next_block(counts, loop, 0, n_blocks, -1)
    while b >= 0:
        blocks[n], after[n], n = b, block_after(loop, b, n_blocks), n + 1
        b = next_block(counts, loop, 0, n_blocks, b)


@pytest.mark.parametrize("loop", [0, 1, 2, 3])
@pytest.mark.parametrize("n_blocks", [1, 2, 7])
def test_the_block_that_is_said_to_come_next_does(loop, n_blocks):
    blocks, after = np.full((2, n_blocks), -7)
    blocks_in_turn(loop, n_blocks, blocks, after)
    assert sorted(blocks) == list(range(n_blocks)) and after.tolist() == [*blocks[1:], -1]
