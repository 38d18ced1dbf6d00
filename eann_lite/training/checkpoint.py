"""The state of a fit on disk: written atomically, read back without a difference in any bit."""

import json

import numpy as np

from eann_lite.errors import InputError

FORMAT = 3


def save_checkpoint(path, header, arrays):
    """Write plain values (``header``, JSON) and arrays as one ``.npz``."""
    from eann_lite.io.atomic import write_atomically

    text = np.array(json.dumps(header | {"format": FORMAT}))
    write_atomically(path, lambda file: np.savez(file, header=text, **arrays))


def load_checkpoint(path):
    """(header, arrays) of a checkpoint; InputError when it is damaged or of another format."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(str(arrays.pop("header")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: the checkpoint cannot be read ({error}). Remove it and start the fit without --resume."
        ) from error
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: checkpoint format {header.get('format')}, expected {FORMAT}: written by another version.")
    return header, arrays
