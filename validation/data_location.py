"""Where validation finds the data and golden numbers that the repository does not carry."""

import os
from pathlib import Path


def shared_folder(given=None):
    """Folder that holds ``data/`` and ``golden/``: the argument, EANN_LITE_SHARED, or ``../shared``; None if absent."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(given or os.environ.get("EANN_LITE_SHARED") or beside)
    return folder if folder.is_dir() else None


def data_file(name, given=None):
    """Path of a data file: the one given, or ``data/name`` of the shared folder; without it the program ends."""
    if given is not None:
        if not Path(given).is_file():
            raise SystemExit(f"--data {given}: no such file. Give the path of {name}.")
        return Path(given)
    shared = shared_folder()
    path = None if shared is None else shared / "data" / name
    if path is None or not path.is_file():
        raise SystemExit(f"no {name}: give --data FILE, or set EANN_LITE_SHARED to the folder that holds data/{name}.")
    return path
