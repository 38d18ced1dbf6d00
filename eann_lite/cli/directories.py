"""Directories that a command writes into."""

import os
from pathlib import Path

from eann_lite.errors import InputError


def writable_directory(name):
    """Path of a directory, made if need be, in which a file can be written; else an InputError."""
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{name}: cannot make this directory: {error.strerror}. Give another one.") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{name}: this directory cannot be written to. Give another one.")
    return path
