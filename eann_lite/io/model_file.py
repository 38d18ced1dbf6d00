"""The model file: a NumPy archive (``.npz``) that ``numpy.load(path, allow_pickle=False)`` opens.

| entry | content |
|---|---|
| ``header`` | one JSON text: format name and version, specification, elements, units, reference energies, provenance |
| ``parameter/<name>`` | trained arrays, float64; names and shapes as in ``model.parameters.parameter_shapes`` |
| ``constant/<name>`` | density_shift, density_scale (T+1, S, M), reference_energies (S,) in eV, energy_scale () |
| ``bounds/<name>`` | not in every file: center (S, M), whitening (S, M, M), atoms, thinnest (S,) of ``DensityBounds`` |

A file with bounds has format version 3 (2 before there was ``thinnest``, which is zero then); one without them is still
written as version 1, which older versions read.
Entries are stored uncompressed and carry a fixed date, so the same model always gives the same bytes.
"""

import io
import json
import math
import os
import shlex
import zipfile
import zlib

import numpy as np

from eann_lite.errors import InputError, ModelFileError
from eann_lite.io.atomic import write_atomically
from eann_lite.model.parameters import default_constants, parameter_shapes
from eann_lite.model.specification import Specification

FORMAT = "eann_lite model"
FORMAT_VERSION = 3
UNITS = {"energy": "eV", "length": "Angstrom"}
#: The earliest date that a zip archive can carry.
DATE = (1980, 1, 1, 0, 0, 0)
#: First byte of a pickle of protocol 2 or later.
PICKLE = b"\x80"


def save_model(model, path):
    """Write a ``Model`` to ``path`` (taken as given, whatever its suffix), whole or not at all.

    The same model gives the same bytes, and ``load`` gives back the same numbers bit for bit.  InputError if a
    parameter is not finite, or if the system refuses (disk full, no such folder); an old file at ``path`` then stays
    as it was.
    """
    arrays = {f"parameter/{name}": array for name, array in model.parameters.items()}
    arrays |= {f"constant/{name}": array for name, array in model.constants.items()}
    if model.bounds is not None:
        arrays |= {f"bounds/{name}": array for name, array in model.bounds._asdict().items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{name} of the model is not finite: it is not saved to {os.fspath(path)}. Fit it again.")
    entries = {"header": np.array(json.dumps(_header(model), indent=1, allow_nan=False))} | arrays

    def write(file):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, array in entries.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy", DATE), content.getvalue())

    write_atomically(path, write)


def load(path):
    """``Model`` from a model file.

    ModelFileError if there is no such file, if it is no model file, if it is damaged, if an array is missing or has
    another shape than the specification says, or if a newer eann_lite wrote it.  A model of the published PyTorch or
    Fortran code is no model file: ``eann-lite import`` makes one of it.  InputError for what is no path.

    >>> import tempfile
    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("H",), cutoff=4.0, densities=4)
    >>> path = tempfile.mkdtemp() + "/model.npz"
    >>> Model(specification, initial_parameters(specification, seed=0), provenance={"seed": 0}).save(path)
    >>> load(path).provenance
    {'seed': 0}
    """
    from eann_lite.extrapolation import DensityBounds, bounds_shapes
    from eann_lite.model.model import Model

    if not isinstance(path, (str, os.PathLike)):
        raise InputError(
            f"load({path!r}): a {type(path).__name__} is no path: expected the path of a model file, such as "
            '"fit/model.npz".'
        )
    where = os.fspath(path)
    entries = _read_entries(where)
    header = _checked_header(entries.pop("header", None), where)
    try:
        specification = Specification.from_dict(header["specification"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"model file {where}: its specification cannot be used: {error}") from error
    shapes = {f"parameter/{name}": shape for name, shape in parameter_shapes(specification).items()}
    shapes |= {f"constant/{name}": array.shape for name, array in default_constants(specification).items()}
    if any(name.startswith("bounds/") for name in entries):
        if header["format_version"] < 3:
            entries.setdefault("bounds/thinnest", np.zeros(len(specification.elements)))
        shapes |= {f"bounds/{name}": shape for name, shape in bounds_shapes(specification).items()}
    _check_arrays(entries, shapes, where)
    named = {"parameter": {}, "constant": {}, "bounds": {}}
    for entry, array in entries.items():
        kind, name = entry.split("/", 1)
        named[kind][name] = array
    bounds = DensityBounds(**named["bounds"]) if named["bounds"] else None
    return Model(specification, named["parameter"], named["constant"], header.get("provenance"), bounds)


def as_model(given, also=""):
    """``Model`` of a ``Model``, which is given back, or of the path of a model file.

    InputError for anything else, which names what ``also`` would have done, such as ``"a Specification"``.
    """
    from eann_lite.model.model import Model

    if isinstance(given, Model):
        return given
    if isinstance(given, (str, os.PathLike)):
        return load(given)
    expected = ", ".join(["expected a Model", *([also] if also else []), "or the path of a model file (model.npz)"])
    cure = "eann_lite.load reads such a file, eann_lite.fit makes one."
    if hasattr(given, "calculate"):
        cure = "Give the model that the calculator was made with."
    raise InputError(f"model = {given!r} is of type {type(given).__name__}: {expected}. {cure}")


def _header(model):
    specification = model.specification
    return {
        "format": FORMAT,
        "format_version": 1 if model.bounds is None else FORMAT_VERSION,
        "specification": specification.to_dict(),
        "elements": list(specification.elements),
        "units": UNITS,
        "reference_energies": dict(zip(specification.elements, model.constants["reference_energies"].tolist())),
        "provenance": plain_values(model.provenance),
    }


def plain_values(value):
    """The same value in JSON's types: NumPy arrays and numbers, tuples and paths converted, NaN and infinity None.

    >>> plain_values({"energy": np.float64(1.5), "shape": (2, 3), "stress": float("nan")})
    {'energy': 1.5, 'shape': [2, 3], 'stress': None}
    """
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain_values(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _read_entries(where):
    """All arrays of an archive by name, each checked against its checksum."""
    try:
        with open(where, "rb") as file:
            start = file.read(4)
            if start.startswith(PICKLE):
                raise ModelFileError(
                    f"{where} is a bare pickle, as PyTorch before 1.6 saved models; nothing reads it here, since a pickle "
                    f"is a program. Save it again with a newer PyTorch, then: {_import_command(where)}."
                )
            if not start.startswith(b"PK"):
                what = "is empty" if not start else "is no NumPy archive"
                raise ModelFileError(f"model file {where} {what}. Expected a file written by model.save or a fit.")
            with zipfile.ZipFile(file) as archive:
                # By names alone: nothing of it is unpickled.
                if any(name.split("/")[-1] == "data.pkl" for name in archive.namelist()):
                    raise ModelFileError(
                        f"{where} is a PyTorch archive, as the published REANN and EANN packages write their models, "
                        f"and no model file of eann_lite. Make one of it: {_import_command(where)}."
                    )
                # Reading a whole entry compares its checksum; reading only the array's bytes might not.
                contents = {info.filename: archive.read(info) for info in archive.infolist()}
        return {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
            for name, content in contents.items()
        }
    except FileNotFoundError as error:
        raise ModelFileError(f"model file {where} does not exist. Check the path.") from error
    except ModelFileError:
        raise
    except IsADirectoryError as error:
        raise ModelFileError(
            f"model file {where} cannot be read: it is a folder. Give the file in it, such as model.npz of a fit; of a "
            f"folder of the Fortran EANN, make a model file: {_import_command(where)}."
        ) from error
    except OSError as error:
        raise ModelFileError(f"model file {where} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(
            f"model file {where} is truncated or damaged ({error}). Copy it again from where it came, or fit it again."
        ) from error


def _import_command(where):
    return f"`eann-lite import {shlex.quote(where)} --out model.npz`"


def _checked_header(header, where):
    """Dictionary of the header; foreign formats and newer versions are errors."""
    foreign = f"{where} is a NumPy archive, but no model file of eann_lite. Expected a file written by model.save."
    if header is None or header.dtype.kind != "U" or header.shape != ():
        raise ModelFileError(foreign)
    try:
        header = json.loads(str(header))
    except ValueError as error:
        raise ModelFileError(f"model file {where}: its header is not JSON ({error}).") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFileError(foreign)
    version = header.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ModelFileError(
            f"model file {where} has format version {version}; this eann_lite reads up to {FORMAT_VERSION}. It was "
            "written by a newer eann_lite: upgrade with `pip install --upgrade eann_lite`."
        )
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ModelFileError(f"model file {where} has format version {version!r}; expected 1 to {FORMAT_VERSION}.")
    return header


def _check_arrays(arrays, shapes, where):
    """Exactly the arrays of ``shapes`` (name -> shape), real and finite."""
    missing = [name for name in shapes if name not in arrays]
    if missing:
        raise ModelFileError(f"model file {where}: {len(missing)} arrays are missing, the first is {missing[0]}.")
    for name, array in arrays.items():
        if name not in shapes:
            raise ModelFileError(f"model file {where}: array {name} does not belong to a model of its specification.")
        if array.dtype != np.float64 or array.shape != shapes[name]:
            raise ModelFileError(
                f"model file {where}: array {name} is {array.dtype} of shape {array.shape}, expected float64 of shape "
                f"{shapes[name]}."
            )
        if not np.isfinite(array).all():
            raise ModelFileError(f"model file {where}: array {name} holds a value that is not finite. Fit it again.")
