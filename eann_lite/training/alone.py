"""One fit at a time in a directory: two that write into one would leave a mixture of both."""

import os
import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path

from eann_lite import file_locks
from eann_lite.errors import InputError

#: Name of the file that a fit holds locked in its directory.
LOCK = ".running"


@contextmanager
def alone_in(out):
    """While this lasts no other fit gets past the same line with the same directory (None: there is none).

    InputError where another fit has it.  The file that stays behind keeps nobody out (``file_locks``).  Where files
    cannot be locked (Windows, some network file systems) nothing is done.
    """
    with ExitStack() as stack:
        if out is not None and file_locks.POSSIBLE:
            _claim(Path(out), stack)
        yield


def _claim(out, stack):
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(open(out / LOCK, "ab+"))
    except OSError:
        return  # Whoever prepares the directory says why.
    try:
        is_locked = stack.enter_context(file_locks.locked(file))
    except BlockingIOError:
        file.seek(0)
        who = file.read(200).decode(errors="replace").strip() or "another process"
        raise InputError(
            f"output directory {out}: a fit is running in it ({who}). Wait for it to end, stop it, or choose another "
            "directory with out (--out)."
        ) from None
    if is_locked:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
