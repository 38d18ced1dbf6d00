"""Files as locks between processes, as the operating system keeps them."""

import os
import time
from contextlib import contextmanager

try:
    import fcntl
except ImportError:
    fcntl = None

#: Whether files can be locked here (not on Windows).
POSSIBLE = fcntl is not None
#: Seconds that who waits sleeps between looks.
LOOK = 0.05


@contextmanager
def locked(file, seconds=0.0):
    """While this lasts nobody else gets past the same line with the same file, which is open for writing.

    seconds : how long to wait for another who has it; then BlockingIOError.

    Yields whether it is locked: not where files cannot be.  The system ends a lock with its process, however that
    ends, and those forked from it meanwhile.
    """
    owner, is_locked = os.getpid(), POSSIBLE and _obtained(file, seconds)
    try:
        yield is_locked
    finally:
        # Closing the file is not enough where a process that was forked meanwhile has it open, too; one that was
        # forked inside does not have it to give back.
        if is_locked and owner == os.getpid():
            fcntl.flock(file, fcntl.LOCK_UN)


def _obtained(file, seconds):
    begun = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() - begun >= seconds:
                raise
        except OSError:
            return False  # This file system has no locks.
        time.sleep(LOOK)
