"""Files of the published packages made by hand: states of several versions, TorchScript archives, what they compute."""

import io
import itertools
import zipfile

import numpy as np

from eann_lite.io.published.export import _global, _Pickler, archive_bytes

ELEMENTS = ("O", "H")
CUTOFF = 4.0
WATER = np.array([8, 1, 1, 1]), np.array([[0.0, 0, 0], [0.95, 0.1, 0], [-0.3, 0.9, 0.1], [1.2, 1.1, 1.6]])
#: Text of forward passes as TorchScript writes it, cut down to what an import looks at.
PES = """
class PES(Module):
  density : __torch__.model.GetDensity
  nnmod : __torch__.model.NNMod
  def forward(self: __torch__.pes.PES, cart: Tensor, neigh_list: Tensor, species: Tensor) -> Tensor:
    density = self.density
    density0 = (density).forward(cart, neigh_list, species, )
    nnmod = self.nnmod
    _0 = (nnmod).forward(density0, species, )
{last}
"""
PLAIN_SUM = "    return torch.sum(_0)"
WITH_OFFSET = """    nnmod0 = self.nnmod
    initpot = nnmod0.initpot
    output = torch.add(_0, initpot, alpha=1)
    return torch.sum(output)"""
#: The same, as the versions that return forces end: in branches, with annotated names.
WITH_FORCES = """    nnmod0 = self.nnmod
    output = torch.add(_0, nnmod0.initpot)
    varene = torch.sum(output)
    _1 = torch.autograd.grad([varene], [cart])
    grad = _1[0]
    if torch.__isnot__(grad, None):
      _3 = (torch.detach(varene), torch.neg(torch.detach(unchecked_cast(Tensor, grad))))
      _2 : Optional[Tuple[Tensor, Tensor]] = _3
    else:
      _2 = None
    return _2"""
MODEL = """
class GetDensity(Module):
  rs : Tensor
  def forward(self: __torch__.model.GetDensity, {arguments}cart: Tensor, neigh_list: Tensor, species: Tensor) -> Tensor:
    dist_vec = torch.sub(torch.select(cart, 0, 0), torch.select(cart, 0, 1))
    distances = torch.linalg_norm(dist_vec, None, [-1]){extra}
    return torch.einsum("ji,ik -> ijk", [(self).cutoff_cosine(distances, ), (self).gaussian(distances, species, )])
  def cutoff_cosine(self: __torch__.model.GetDensity, distances: Tensor) -> Tensor:
    cutoff = self.cutoff
    _0 = torch.mul(torch.reciprocal(cutoff), 3.1415926535897931)
    _1 = torch.mul(torch.{cosine}(torch.mul(distances, _0)), 0.5)
    return torch.square(torch.add(_1, 0.5))
  def gaussian(self: __torch__.model.GetDensity, distances: Tensor, species: Tensor) -> Tensor:
    inta = self.inta
    inta0 = {inta}
    rs = self.rs
    _2 = torch.mul(inta0, torch.square(torch.sub(distances, rs)))
    return torch.exp(_2)
class NNMod(Module):
  initpot : Final[float] = {constant}
  def forward(self: __torch__.model.NNMod, density: Tensor, species: Tensor) -> Tensor:
    output = torch.zeros([4, 1], dtype=None, layout=None, device=None)
    elemental_nets = self.elemental_nets
    O = elemental_nets.O
    _3 = (O).forward(torch.index_select(density, 0, species), )
    return torch.index_put_(output, [species], _3)
class ModuleDict(Module):
  training : bool
class Sequential(Module):
  training : bool
class Linear(Module):
  training : bool
class Dropout(Module):
  training : bool
class LayerNorm(Module):
  eps : Final[float] = {eps}
class ResBlock(Module):
  def forward(self: __torch__.model.ResBlock, x: Tensor) -> Tensor:
    return torch.add((self.resblock).forward(x, ), x)
class Relu_like(Module):
  def forward(self: __torch__.model.Relu_like, x: Tensor) -> Tensor:
    return torch.mul(self.alpha, torch.silu(torch.mul(x, self.beta)))
class Tanh_like(Module):
  def forward(self: __torch__.model.Tanh_like, x: Tensor) -> Tensor:
    _0 = torch.sqrt(torch.add(torch.square(torch.mul(x, self.beta)), 1.))
    return torch.div(torch.mul(self.alpha, x), _0)
"""


def random_state(rng, version="reann", recursions=1, norm=True, dropout=False):
    """Published arrays by name. version: reann, reann22 (a contraction for every step), eann, plain (no blocks).

    norm: layer normalisation, False, True (after the activations of blocks) or "before" (before all activations of
    blocks or of a plain perceptron, as in the EANN package).
    """
    k, degrees, m = 3, 2, {"reann": 4, "reann22": 4}.get(version, 6)
    state = {
        "density.rs": rng.uniform(0, 2, (2, k)),
        "density.inta": rng.normal(scale=0.2, size=(2, k)),
        "density.params": rng.normal(scale=0.5, size=(2, k)),
        "density.cutoff": np.array([CUTOFF]),
        "density.index_para": np.array([0, 1, 1, 1]),
    }
    if version == "reann":
        state["density.hyper"] = rng.normal(scale=0.4, size=(degrees, k, m))
    elif version == "reann22":
        state["density.hyper"] = rng.normal(scale=0.4, size=(recursions + 1, degrees, k, m))
    else:
        recursions = 0
    prefixes = [(f"density.ocmod.memssage_{t}.elemental_nets", k) for t in range(recursions)]
    for prefix, outputs in [*prefixes, ("nnmod.elemental_nets", 1)]:
        for element in ELEMENTS:
            name = f"{prefix}.{element}"
            if version == "plain":
                _perceptron(rng, state, name, [m, 5, 4, 5 if norm == "before" else 3], outputs, norm, dropout)
            else:
                _residual(rng, state, name, [m, 4, 5], outputs, norm, dropout)
    return state


def _linear(rng, state, name, inputs, outputs):
    state[f"{name}.weight"] = rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)
    state[f"{name}.bias"] = rng.normal(size=outputs)


def _activation(rng, state, name, width):
    state[f"{name}.alpha"], state[f"{name}.beta"] = rng.uniform(0.5, 1.5, (2, 1, width))


def _norm(rng, state, name, width):
    state[f"{name}.weight"], state[f"{name}.bias"] = rng.uniform(0.5, 1.5, width), rng.normal(size=width)


def _perceptron(rng, state, name, widths, outputs, norm, dropout):
    place = 0
    for width, following in zip(widths[:-1], widths[1:]):
        _linear(rng, state, f"{name}.{place}", width, following)
        if norm == "before":
            place += 1
            _norm(rng, state, f"{name}.{place}", following)
        _activation(rng, state, f"{name}.{place + 1}", following)
        place += 2 + dropout
    _linear(rng, state, f"{name}.{place}", widths[-1], outputs)


def _residual(rng, state, name, widths, outputs, norm, dropout):
    _linear(rng, state, f"{name}.0", *widths[:2])
    ring, place = [*widths[1:], widths[1]], 0
    layers = {False: (_activation,), True: (_activation, _norm), "before": (_norm, _activation)}[norm]
    for width, following in zip(ring[:-1], ring[1:]):
        for layer in layers:
            layer(rng, state, f"{name}.1.resblock.{place}", width)
            place += 1
        place += dropout
        _linear(rng, state, f"{name}.1.resblock.{place}", width, following)
        place += 1
    _activation(rng, state, f"{name}.2", widths[1])
    _linear(rng, state, f"{name}.3", widths[1], outputs)


def published_energy(state, sign, activation, numbers, positions):
    """Energy of a molecule as the published forward pass has it, all 3^l products and layers one by one."""
    species = np.array([{8: 0, 1: 1}[number] for number in numbers])
    r_ijx = positions[None] - positions[:, None]
    r_ij = np.linalg.norm(r_ijx, axis=-1)
    inside = (r_ij < CUTOFF) & ~np.eye(len(numbers), dtype=bool)
    cut_ij = np.where(inside, (0.5 * np.cos(np.pi * r_ij / CUTOFF) + 0.5) ** 2, 0.0)
    rs, inta = state["density.rs"][species], state["density.inta"][species]
    radial_ijk = np.exp(sign * inta[None] * (r_ij[..., None] - rs[None]) ** 2) * cut_ij[..., None]
    hyper = state.get("density.hyper")
    messages = sorted({name.split(".")[2] for name in state if name.startswith("density.ocmod.")})
    coefficients = state["density.params"][species]
    for t in range(len(messages) + 1):
        parts = []
        for degree in range(2 if hyper is None else hyper.shape[-3]):
            total = 0.0
            for axes in itertools.product(range(3), repeat=degree):
                angular = np.prod(r_ijx[..., list(axes)], axis=-1)
                b_ik = np.einsum("ij,ijk,jk->ik", angular, radial_ijk, coefficients)
                w = np.eye(b_ik.shape[1]) if hyper is None else hyper[t, degree] if hyper.ndim == 4 else hyper[degree]
                total = total + (b_ik @ w) ** 2
            parts.append(total)
        density = np.concatenate(parts, axis=1) if hyper is None else sum(parts)
        prefix = f"density.ocmod.{messages[t]}" if t < len(messages) else "nnmod"
        out = np.stack([
            _run(state, f"{prefix}.elemental_nets.{ELEMENTS[s]}", x, activation) for s, x in zip(species, density)
        ])  # fmt: skip
        coefficients = coefficients + out if t < len(messages) else coefficients
    return float(out.sum())


def _run(state, prefix, x, activation):
    places = sorted({int(name[len(prefix) + 1 :].split(".")[0]) for name in state if name.startswith(prefix + ".")})
    for place in places:
        leaves = {
            name[len(f"{prefix}.{place}.") :]: a for name, a in state.items() if name.startswith(f"{prefix}.{place}.")
        }
        if any(leaf.startswith("resblock") for leaf in leaves):
            x = x + _run(state, f"{prefix}.{place}.resblock", x, activation)
        elif "alpha" in leaves:
            y = leaves["beta"][0] * x
            y = y * (1 + np.tanh(y / 2)) / 2 if activation == "Relu_like" else x / np.sqrt(1 + y**2)
            x = leaves["alpha"][0] * y
        elif leaves["weight"].ndim == 1:
            x = leaves["weight"] * (x - x.mean()) / np.sqrt(x.var() + 1e-5) + leaves["bias"]
        else:
            x = leaves["weight"] @ x + leaves["bias"]
    return x


def write_state(folder, state, activation="Relu_like", prefix="", name="REANN.pth", inputs="para"):
    """State dictionary and input files in ``folder``; the path of the first."""
    arrays = {prefix + key: array for key, array in state.items()}
    (folder / name).write_bytes(archive_bytes(arrays))
    where = folder / inputs
    where.mkdir(exist_ok=True)
    (where / "input_nn").write_text(f"activate = '{activation}'  # kind\noc_activate = '{activation}'\n")
    (where / "input_density").write_text(f"# text\natomtype = {list(ELEMENTS)}\n  cutoff = {CUTOFF}\nneigh_atoms = 9\n")
    return folder / name


class Script:
    """An object of TorchScript to be pickled."""

    def __init__(self, kind, attributes):
        self.kind, self.attributes = kind, attributes


class ScriptPickler(_Pickler):
    """Pickler that knows ``Script`` too."""

    def _value(self, value):
        if isinstance(value, Script):
            return _global(*value.kind.rsplit(".", 1)) + b")\x81" + self._value(value.attributes) + b"b"
        return super()._value(value)


def script_tree(state, activation, attributes=None):
    """Root ``Script`` of published arrays and plain attributes by their paths."""
    tree = {}
    for path, value in {**state, **(attributes or {})}.items():
        *above, leaf = path.split(".")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[leaf] = value
    return _script(tree, "PES", activation)


def _script(tree, name, activation):
    kinds = {
        "PES": "PES",
        "density": "GetDensity",
        "nnmod": "NNMod",
        "elemental_nets": "ModuleDict",
        "ocmod": "ModuleDict",
    }
    kind = kinds.get(name, "NNMod" if name.startswith("memssage") else "Sequential")
    if "alpha" in tree:
        kind = activation
    elif "resblock" in tree:
        kind = "ResBlock"
    elif "weight" in tree:
        kind = "Linear" if tree["weight"].ndim == 2 else "LayerNorm"
    items = {key: _script(value, key, activation) if isinstance(value, dict) else value for key, value in tree.items()}
    return Script(f"__torch__.{'pes' if kind == 'PES' else 'model'}.{kind}", items)


def write_script(path, state, activation="Relu_like", attributes=None, negative=False, last=PLAIN_SUM, **code):
    """TorchScript archive whose text says sign, offset and kind; ``code`` changes single lines of it."""
    texts = {
        "arguments": "", "extra": "", "cosine": "cos", "constant": "0.", "eps": "1.0000000000000001e-05",
        "inta": "torch.neg(torch.slice(inta, 0, 0, 1, 1))" if negative else "torch.index_select(inta, 0, species)",
    } | code  # fmt: skip
    pickler = ScriptPickler()
    members = {"data.pkl": pickler.pickled(script_tree(state, activation, attributes)), "version": b"3\n"}
    members |= {f"data/{n}": array.tobytes() for n, array in enumerate(pickler.storages)}
    members |= {"code/__torch__/pes.py": PES.format(last=last).encode(), "constants.pkl": b"\x80\x02)."}
    members["code/__torch__/model.py"] = MODEL.format(**texts).encode()
    path.write_bytes(zipped(members))
    return path


def zipped(members, compression=zipfile.ZIP_STORED):
    """Bytes of an archive with these members below one folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()
