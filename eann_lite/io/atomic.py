"""Files that are either the old one or the new one, whatever happens while they are written."""

import os
from pathlib import Path

from eann_lite.errors import InputError


def write_atomically(path, write):
    """Write a file so that ``path`` holds the whole new content or, after any failure, what it held before.

    path : where the file goes, taken as it is given; a symbolic link stays one.
    write : function that gets an open binary file and writes the content.

    The content goes to a temporary file in the same folder, is brought to the disk, and then takes the place of the
    old file in one step.  A failure of any kind removes the temporary file.  What the operating system refuses (disk
    full, no permission, no such folder) becomes an InputError; other exceptions of ``write`` pass unchanged.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_atomically(path, lambda file: file.write(b"whole"))
    >>> path.read_bytes()
    b'whole'
    """
    target = Path(os.path.realpath(path))
    # Named by process: what a killed run left behind is at most one file, and no other run writes to it.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        kept = "The old file is kept. " if target.exists() else ""
        raise InputError(
            f"cannot write {os.fspath(path)}: {error.strerror or error}. {kept}"
            "Free disk space, or choose a folder that exists and can be written to."
        ) from error
    _bring_to_disk(target.parent)


def _bring_to_disk(folder):
    """Make a new name in a folder survive a power failure, where the system can do that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # Some network file systems cannot; the file itself is on the disk.
    finally:
        os.close(handle)
