"""One fit at a time in a directory: two that write into one would leave a mixture of both."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path

from eann_lite.errors import InputError

try:
    import fcntl
except ImportError:
    fcntl = None

#: Name of the file that a fit holds locked in its directory.
LOCK = ".running"


@contextmanager
def alone_in(out):
    """While this lasts no other fit gets past the same line with the same directory (None: there is none).

    InputError where another fit has it.  The system ends a lock with its process, however that ends, and those forked
    from it, so the file that stays behind keeps nobody out.  Where files cannot be locked (Windows, some network file
    systems) nothing is done.
    """
    owner = os.getpid()
    file = None if out is None else _opened(Path(out))
    if file is None:
        yield
        return
    with file:
        locked = _locked(file, out)
        if locked:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            file.flush()
        try:
            yield
        finally:
            # Closing the file is not enough where a process that was forked meanwhile has it open, too; one that was
            # forked inside does not have it to give back.
            if locked and owner == os.getpid():
                fcntl.flock(file, fcntl.LOCK_UN)


def _opened(out):
    """The file to lock, or None where it cannot be had: whoever prepares the directory says why."""
    if fcntl is None:
        return None
    try:
        out.mkdir(parents=True, exist_ok=True)
        return open(out / LOCK, "ab+")
    except OSError:
        return None


def _locked(file, out):
    """Whether the lock could be had; InputError where another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        who = file.read(200).decode(errors="replace").strip() or "another process"
        raise InputError(
            f"output directory {out}: a fit is running in it ({who}). Wait for it to end, stop it, or choose another "
            "directory with out (--out)."
        ) from None
    except OSError:
        return False  # This file system has no locks.
    return True
