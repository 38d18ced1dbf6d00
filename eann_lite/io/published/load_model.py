"""Any file or folder of the published packages -> ``Model``, and what was found where."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError
from eann_lite.io.published.archive import Archive, ScriptObject, Tensor
from eann_lite.io.published.canonical import canonical_model_arrays
from eann_lite.io.published.inputs import read_inputs

#: Names under which the trainers keep the parameters, and those that are no parameters.
STATES = ("reannparam", "eannparam")
#: Published default where ``input_nn`` does not say it.
ACTIVATION = "Relu_like"
SIGNS = {"+": 1, "-": -1}
#: The trainer keeps the cutoff in single precision, its input file does not.
SINGLE_PRECISION = 1e-6


class Finding(NamedTuple):
    """One thing that was read: name, value (plain), where it stood."""

    name: str
    value: object
    where: str


def load(path, density=None, nn=None, inta_sign=None):
    """``Model`` of a published file: ``PES.pt``, ``REANN.pth``, ``EANN.pth``, or a folder of the Fortran EANN.

    path : a TorchScript archive; a state dictionary as the trainers write it; or a folder with ``input`` and ``W_*``.
    density, nn : ``input_density`` and ``input_nn`` of a state dictionary (default: beside it, or in ``para/`` there).
    inta_sign : "+" or "-", the sign of inta in the exponent of a state dictionary.  Needed only for the REANN of
        2021/22 (``hyper`` with four axes), whose versions differ in it, where no PES file of the same training lies
        beside it; everywhere else the file tells.

    Units are those of the packages, eV and Angstrom.  What was found where is in
    ``model.provenance["import"]["findings"]``, what a person should know in ``["warnings"]``.  An offset per
    atom becomes the model's reference energies.  InputError for whatever is no such file, damaged, or a model that is
    not supported; nothing in a file is executed.
    """
    source = Path(path)
    if source.is_dir():
        from eann_lite.io.published.fortran import read_folder

        if density or nn or inta_sign:
            raise InputError(f"{os.fspath(path)} is a folder: density, nn and inta_sign belong to state dictionaries.")
        return read_folder(source)
    if inta_sign is not None and inta_sign not in SIGNS:
        raise InputError(f"inta_sign = {inta_sign!r}: expected '+' or '-'.")
    archive = Archive(path)
    content = archive.content()
    if isinstance(content, ScriptObject):
        if density or nn or inta_sign:
            raise InputError(
                f"{archive.where} is a TorchScript archive and says all itself: leave the other files out."
            )
        return _from_script(archive, content)
    return _from_state(archive, content, density, nn, inta_sign)


def make_model(specification, parameters, offset, kind, path, findings, warnings=()):
    """``Model`` with its origin; ``findings`` about its shape are added."""
    from eann_lite.model.model import Model

    constants = {"reference_energies": np.full(len(specification.elements), offset)}
    s = specification
    shape = [
        Finding("units", "eV, Angstrom", "those of the published packages; the file does not say them"),
        Finding("L", s.max_degree, "shapes of the arrays"),
        Finding("K", s.radial, "shapes of the arrays"),
        Finding("M", s.densities, "shapes of the arrays"),
        Finding("T", s.recursions, "number of recursion networks"),
        Finding("networks", s.network.text, "shapes of the arrays"),
    ]
    if s.recursions:
        shape.append(Finding("recursion networks", s.recursion_network.text, "shapes of the arrays"))
    rows = [finding._asdict() for finding in [*findings, *shape]]
    origin = {"file": os.fspath(path), "kind": kind, "sha256": digest(path), "findings": rows}
    origin["warnings"] = list(warnings)
    return Model(specification, parameters, constants, {"import": origin, "units": "eV, Angstrom"})


def digest(path):
    """SHA-256 of a file, or of all files of a folder in the order of their names."""
    total = hashlib.sha256()
    for file in sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]:
        if file.is_file():
            total.update(file.read_bytes())
    return total.hexdigest()


def _from_script(archive, root):
    from eann_lite.io.published import torchscript

    script = torchscript.Script(archive, root)
    for path in ("density", "nnmod"):
        if path not in script.objects:
            raise InputError(
                f"{archive.where} is a TorchScript archive of {root.kind}, which has no {path}: no REANN or EANN model."
            )
    torchscript.check_density(script)
    torchscript.check_networks(script)
    sign = torchscript.exponent_sign(script)
    offset, offset_where = torchscript.energy_offset(script)
    arrays = script.tensors()
    elements = _elements_of([name for name in script.objects if name.startswith("nnmod.")], archive.where)
    stated = script.state.get("atomtype")
    if isinstance(stated, list) and stated != elements:
        raise InputError(f"{archive.where}: atomtype is {stated}, but the networks are those of {elements}.")
    activations = [torchscript.activation(script, "nnmod")]
    if any(name.startswith("density.ocmod.memssage_") for name in script.objects):
        activations.append(torchscript.activation(script, "density.ocmod"))
    cutoff = _cutoff(arrays, archive.where)
    specification, parameters = canonical_model_arrays(arrays, elements, cutoff, sign, activations, archive.where)
    findings = [
        Finding("elements", elements, "order of the networks nnmod.elemental_nets"),
        Finding("cutoff", cutoff, "tensor density.cutoff"),
        Finding("exponents", f"exp({'-' if sign < 0 else ''}inta (r - rs)^2)", "code of density.gaussian"),
        Finding("offset per atom", offset, offset_where),
        _precision(arrays),
    ]
    return make_model(specification, parameters, offset, "TorchScript archive", archive.where, findings)


def _from_state(archive, content, density, nn, inta_sign):
    where = archive.where
    state, name = _state_of(content, where)
    arrays = {key: tensor.array(key) for key, tensor in state.items()}
    if "density.ef_para" in arrays:
        raise InputError(f"{where} is a model of the field package FIREANN: it is not supported. REANN and EANN are.")
    is_old = "density.hyper" not in arrays or arrays["density.hyper"].ndim == 4
    twin = _twin(where, arrays) if is_old else None
    sign, sign_where = _sign_of_state(arrays, name, inta_sign, twin, where)
    nn_path, density_path = (
        _beside(where, given, file) for given, file in ((nn, "input_nn"), (density, "input_density"))
    )
    nn_values, density_values = read_inputs(nn_path), read_inputs(density_path)
    if nn_values.get("start_table", 0) not in (0, 1):
        raise InputError(
            f"{nn_path}: start_table = {nn_values['start_table']} is a dipole or polarizability, no energy."
        )
    elements = _elements_of([key for key in arrays if key.startswith("nnmod.")], where)
    stated = density_values.get("atomtype")
    if stated is None or list(stated) != elements:
        raise InputError(f"{density_path}: atomtype is {stated}, but {where} has networks of {elements} in this order.")
    cutoff = _cutoff(arrays, where)
    if abs(float(density_values.get("cutoff", cutoff)) - cutoff) > SINGLE_PRECISION * cutoff:
        raise InputError(f"{density_path}: cutoff = {density_values['cutoff']}, but {where} was trained with {cutoff}.")
    activations = [nn_values.get(key, ACTIVATION) for key in ("activate", "oc_activate")]
    offset, offset_where, warnings = _offset_of_state(arrays, twin, is_old)
    specification, parameters = canonical_model_arrays(arrays, elements, cutoff, sign, activations, where)
    findings = [
        Finding("elements", elements, f"order of the networks nnmod.elemental_nets, and {density_path}"),
        Finding("cutoff", cutoff, "tensor density.cutoff"),
        Finding("exponents", f"exp({'-' if sign < 0 else ''}inta (r - rs)^2)", sign_where),
        Finding("offset per atom", offset, offset_where),
        Finding("activation", activations[0], str(nn_path) if "activate" in nn_values else "default of the package"),
        _precision(arrays),
    ]
    return make_model(specification, parameters, offset, f"state dictionary {name}", where, findings, warnings)


def _state_of(content, where):
    """({published name: Tensor} of the parameters, name of the entry that held it)."""
    name = "without a name"
    if isinstance(content, dict):
        for known in STATES:
            if known in content:
                content, name = content[known], known
                break
    tensors = isinstance(content, dict) and {
        str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)
    }
    if not tensors or len(tensors) < len(content):
        held = ", ".join(map(str, list(content)[:3])) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{where} holds no state dictionary of REANN or EANN, but {held or 'nothing'}. Expected the entry "
            f"{' or '.join(STATES)}, or tensors by name."
        )
    if "density.rs" not in tensors:
        raise InputError(
            f"{where} is a state dictionary of another model: density.rs is missing. Found {next(iter(tensors))}."
        )
    return tensors, name


def _sign_of_state(arrays, name, inta_sign, twin, where):
    """(sign of inta in the exponent, how that is known) of a state dictionary."""
    from eann_lite.io.published.torchscript import exponent_sign

    if inta_sign is not None:
        return SIGNS[inta_sign], "given"
    if twin is not None:
        return exponent_sign(twin), f"code of density.gaussian in {twin.where}"
    if "density.hyper" not in arrays:
        return -1, "EANN package: there is no density.hyper"
    if name == "eannparam":
        return -1, "EANN package: entry eannparam"
    if arrays["density.hyper"].ndim == 4:
        raise InputError(
            f"{where} is of the REANN of 2021/22 (density.hyper has four axes), whose versions compute exp(inta ...) "
            "or exp(-inta ...), and a state dictionary does not say which. Put the PES file of the same training "
            "beside it or import that, or look into gaussian of src/density.py and give --inta-sign + or -."
        )
    return 1, "REANN package: density.hyper with three axes"


def _offset_of_state(arrays, twin, is_old):
    """(offset per atom, where it was found, warnings) of a state dictionary."""
    from eann_lite.io.published.torchscript import energy_offset

    if "nnmod.initpot" in arrays:
        return float(arrays["nnmod.initpot"].ravel()[0]), "tensor nnmod.initpot", []
    if twin is not None:
        offset, found = energy_offset(twin)
        return offset, f"{found}, in {twin.where}", []
    if not is_old:
        return 0.0, "REANN package: part of the last biases", []
    warning = (
        "the state dictionary has no nnmod.initpot. Versions that keep the offset per atom outside the tensors add one "
        "to the energy: import the PES file of the same training if there is one"
    )
    return 0.0, "not in the file", [warning]


def _twin(where, arrays):
    """``Script`` of a TorchScript archive beside a state dictionary that has the same Gaussians; None without one."""
    from eann_lite.io.published.torchscript import Script, check_density

    for path in sorted(Path(where).parent.glob("*.pt")):
        try:
            archive = Archive(path)
            root = archive.content()
            if not isinstance(root, ScriptObject):
                continue
            script = Script(archive, root)
            check_density(script)
            for name in ("density.rs", "density.inta"):
                # Copies in single precision exist beside those in double precision.
                if not np.allclose(script.state[name].array(name), arrays[name], rtol=1e-6, atol=1e-6):
                    break
            else:
                return script
        except (InputError, KeyError, AttributeError, ValueError):
            continue
    return None


def _elements_of(names, where):
    """Elements in the order in which their energy networks stand in a file."""
    parts = [name.split(".") for name in names]
    elements = list(dict.fromkeys(part[2] for part in parts if len(part) > 2 and part[1] == "elemental_nets"))
    if not elements:
        raise InputError(f"{where}: there are no networks nnmod.elemental_nets: no REANN or EANN model.")
    return elements


def _cutoff(arrays, where):
    cutoff = arrays.get("density.cutoff", np.zeros(0))
    if cutoff.size != 1 or not float(cutoff.ravel()[0]) > 0:
        raise InputError(f"{where}: the tensor density.cutoff is missing or no positive number.")
    return float(cutoff.ravel()[0])


def _precision(arrays):
    kind = str(arrays["density.rs"].dtype)
    return Finding("precision", kind, "tensor density.rs; computed in float64 here")


def _beside(where, given, file):
    """Path of an input file: the given one, or beside the state dictionary, or in para/ there."""
    if given is not None:
        return Path(given)
    folder = Path(where).parent
    for path in (folder / file, folder / "para" / file):
        if path.is_file():
            return path
    flag = file.removeprefix("input_")
    raise InputError(
        f"{where} is a state dictionary and needs {file}, which is neither beside it nor in para/. Give --{flag} FILE."
    )
