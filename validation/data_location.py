"""Where validation finds the data and golden numbers that the repository does not carry."""

import os
from pathlib import Path


def shared_folder(given=None):
    """Folder that holds ``data/`` and ``golden/``: the argument, EANN_LITE_SHARED, or ``../shared``; None if absent."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(given or os.environ.get("EANN_LITE_SHARED") or beside)
    return folder if folder.is_dir() else None
