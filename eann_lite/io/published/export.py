"""A model -> state dictionary that the published REANN code loads, and the input files that belong to it.

What the published form does not have is folded into what it has: the scaling of densities into the first weights and
biases, energy scale and reference energies into the last, a contraction by degrees into a learned one, silu into
``Relu_like`` with alpha = beta = 1.  Pair repulsion, tanh and blocks that do not add their input have no place there.
"""

import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from eann_lite.errors import InputError
from eann_lite.io.atomic import write_atomically
from eann_lite.io.published.arrays import to_published
from eann_lite.model.parameters import contraction_of, network_names

DATE = (1980, 1, 1, 0, 0, 0)
#: Arrays of a state that are no parameters, so the optimizer does not count them.
BUFFERS = ("density.cutoff", "density.index_para")
PUBLISHED_ACTIVATIONS = {"relu_like": "Relu_like", "tanh_like": "Tanh_like"}
#: Options of AdamW in a state that has not moved yet; the published trainer asks for some when it restarts.
ADAMW = {
    "lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-08, "weight_decay": 0.0, "amsgrad": False, "foreach": None,
    "maximize": False, "capturable": False, "differentiable": False, "fused": None,
}  # fmt: skip


def save_state(model, path):
    """Write ``model`` as ``REANN.pth`` and, in ``para/`` beside it, the ``input_nn`` and ``input_density`` it needs.

    The file holds the entries ``reannparam`` (float64) and ``optimizer`` (a fresh one), as the published trainer writes
    them.  Published code builds its modules in the default precision of PyTorch: set it to float64 before it loads
    the file, or numbers are cut to single precision.  Returns the paths that were written.

    InputError if the model has what the published form lacks (pair repulsion, tanh, blocks that do not add their
    input), or if other input files lie in ``para/`` already.
    """
    specification, parameters = folded(model)
    arrays = to_published(specification, parameters)
    degrees = np.arange(specification.max_degree + 1)
    arrays["density.cutoff"] = np.array([specification.cutoff])
    arrays["density.index_para"] = np.repeat(degrees, 3**degrees).astype(np.int64)
    target = Path(path)
    texts = {target.parent / "para" / name: text for name, text in input_texts(specification).items()}
    for file, text in texts.items():
        if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
            raise InputError(
                f"{file} is there already, for another model: choose another folder for --out, or move it."
            )
    (target.parent / "para").mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: file.write(archive_bytes(arrays)))
    for file, text in texts.items():
        write_atomically(file, lambda out, text=text: out.write(text.encode()))
    return [target, *texts]


def folded(model):
    """(Specification, parameters) of the same energies without scaling, references, fixed contraction, silu."""
    specification, constants = model.specification, model.constants
    parameters = {name: np.array(array) for name, array in model.parameters.items()}
    if specification.repulsion:
        raise InputError(
            f"the model has {specification.repulsion} repulsion, which the published REANN code lacks. Fit one without: "
            "`eann-lite fit --repulsion none` (auto, the default, takes zbl where training structures have close contacts)."
        )
    networks = {}
    for name in ("network", "recursion_network"):
        network = getattr(specification, name)
        used = name == "network" or specification.recursions
        if used and network.activation == "tanh":
            raise InputError(
                f"the {name} has the activation tanh; the published REANN code has Relu_like and Tanh_like. "
                "Fit one with `eann-lite fit --activation tanh_like`."
            )
        if used and network.blocks and not network.residual:
            raise InputError(f"blocks of the {name} do not add their input; those of the published REANN code do.")
        if used and network.layer_norm == "before":
            raise InputError(f"the {name} normalises before its activations; the published REANN code does after them.")
        networks[name] = replace(network, activation={"silu": "relu_like"}.get(network.activation, network.activation))
    parameters["contraction"] = contraction_of(specification, parameters)
    energy_scale, references = float(constants["energy_scale"]), constants["reference_energies"]
    for name, network, _, t, s in network_names(specification):
        if network.activation == "silu":
            for place in _activated(network):
                width = len(parameters[f"{name}.{place}.weight"])
                parameters[f"{name}.{place}.alpha"] = parameters[f"{name}.{place}.beta"] = np.ones(width)
        scale, shift = constants["density_scale"][t, s], constants["density_shift"][t, s]
        weight = parameters[f"{name}.input.weight"] * scale[:, None]
        parameters[f"{name}.input.weight"] = weight
        parameters[f"{name}.input.bias"] = parameters[f"{name}.input.bias"] - shift @ weight
        if t == specification.recursions:
            parameters[f"{name}.output.weight"] = energy_scale * parameters[f"{name}.output.weight"]
            parameters[f"{name}.output.bias"] = energy_scale * parameters[f"{name}.output.bias"] + references[s]
    return replace(specification, contraction="learned", **networks), parameters


def _activated(network):
    """Linear maps of a network that an activation precedes."""
    return [f"block.{b}.{i}" for b in range(network.blocks) for i in range(len(network.links))] + ["output"]


def input_texts(specification):
    """{"input_nn", "input_density": text} that build the published modules of a specification."""
    s = specification
    nn = [
        "# networks of the model in REANN.pth, written by eann_lite",
        "start_table = 1", "table_coor = 0", "dtype = 'float64'", *_network_lines(s.network, ""),
        f"norbit = {s.densities}", f"oc_loop = {s.recursions}", *_network_lines(s.recursion_network, "oc_"),
    ]  # fmt: skip
    density = [
        "# densities of the model in REANN.pth, written by eann_lite",
        f"atomtype = {list(s.elements)}", f"cutoff = {s.cutoff!r}", f"nipsin = {s.max_degree}", f"nwave = {s.radial}",
        "neigh_atoms = 150",
    ]  # fmt: skip
    return {"input_nn": "\n".join(nn) + "\n", "input_density": "\n".join(density) + "\n"}


def _network_lines(network, prefix):
    return [
        f"{prefix}nl = {list(network.widths)}",
        f"{prefix}nblock = {network.blocks}",
        f"{prefix}dropout_p = {[0.0] * len(network.widths)}",
        f"{prefix}activate = {PUBLISHED_ACTIVATIONS.get(network.activation, 'Relu_like')!r}",
        f"{prefix}table_norm = {network.layer_norm is True}",
    ]


def archive_bytes(arrays):
    """Bytes of the archive that ``torch.save`` would write for {"reannparam": arrays, "optimizer": a fresh AdamW}."""
    places = [n for n, name in enumerate(name for name in arrays if name not in BUFFERS)]
    optimizer = {"state": {}, "param_groups": [{**ADAMW, "params": places}]}
    pickler = _Pickler()
    raw = pickler.pickled(
        {"reannparam": {name: np.ascontiguousarray(a) for name, a in arrays.items()}, "optimizer": optimizer}
    )
    members = {"data.pkl": raw, "byteorder": b"little", "version": b"3\n"}
    members |= {f"data/{n}": array.tobytes() for n, array in enumerate(pickler.storages)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"REANN/{name}", DATE), content)
    return buffer.getvalue()


class _Pickler:
    """Writes plain values and arrays in the pickle language, protocol 2, as ``torch.save`` does.

    ``storages`` are the arrays in the order of their members ``data/N``.  Python's own pickler would have to import
    the constructors that it names.
    """

    KINDS = {"<f8": "DoubleStorage", "<f4": "FloatStorage", "<i8": "LongStorage"}

    def __init__(self):
        self.storages = []

    def pickled(self, value):
        """Bytes of the pickle of a value."""
        return b"\x80\x02" + self._value(value) + b"."

    def _value(self, value):
        if value is None:
            return b"N"
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self._value, value)) + b"t"
        if isinstance(value, list):
            return b"](" + b"".join(map(self._value, value)) + b"e"
        if isinstance(value, dict):
            return b"}(" + b"".join(self._value(k) + self._value(v) for k, v in value.items()) + b"u"
        return self._tensor(value)

    def _tensor(self, array):
        kind = self.KINDS[array.dtype.str]
        storage = b"(" + self._value("storage") + _global("torch", kind) + self._value(str(len(self.storages)))
        storage += self._value("cpu") + self._value(array.size) + b"tQ"
        self.storages.append(array)
        strides = tuple(step // array.itemsize for step in array.strides)
        rest = self._value(0) + self._value(array.shape) + self._value(strides) + self._value(False)
        hooks = _global("collections", "OrderedDict") + b")R"
        return _global("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + rest + hooks + b"tR"


def _global(module, name):
    return f"c{module}\n{name}\n".encode()
