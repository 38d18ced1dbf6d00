"""Hyperparameters: everything about a model that is chosen and not fitted."""

from dataclasses import asdict, dataclass, fields

from eann_lite.errors import InputError

ACTIVATIONS = ("relu_like", "tanh_like", "silu", "tanh")
#: Activations with a learned factor alpha and slope beta for every unit.
LEARNED_ACTIVATIONS = ("relu_like", "tanh_like")
LAYER_NORMS = (False, True, "before")
CONTRACTIONS = ("learned", "per_degree")
REPULSIONS = (None, "zbl")


def _whole(name, value, least):
    if isinstance(value, bool) or int(value) != value or value < least:
        raise InputError(f"{name} = {value!r}: expected a whole number of at least {least}.")
    return int(value)


def _one_of(name, value, allowed):
    if value not in allowed:
        raise InputError(f"{name} = {value!r}: expected one of {', '.join(map(repr, allowed))}.")
    return value


def _from_dict(cls, values, what):
    known = [field.name for field in fields(cls)]
    for key in values:
        if key not in known:
            raise InputError(f"{what}: unknown key {key!r}; known keys are {', '.join(known)}.")
    return cls(**values)


@dataclass(frozen=True)
class NetworkSpecification:
    """Shape of one element network: ``Linear``, ``blocks`` residual blocks, activation, ``Linear``.

    widths : hidden widths (h1, h2, ...); a block runs h1 -> h2 -> ... -> h1.
    activation : one of ``ACTIVATIONS``; ``relu_like`` is alpha silu(beta x), ``tanh_like`` is
        alpha x / sqrt(1 + (beta x)^2), both with learned alpha and beta per unit.
    layer_norm : layer normalisation (eps 1e-5) inside the blocks: True after every activation (REANN), "before" before
        it (EANN of the PyTorch package); a plain perceptron with "before" normalises before its last activation too.
    residual : a block adds its input, x + f(x); False: a block is f(x), so the network is a plain multilayer perceptron.
    """

    widths: tuple = (64, 64)
    blocks: int = 1
    activation: str = "silu"
    layer_norm: bool | str = False
    residual: bool = True

    def __post_init__(self):
        widths = tuple(_whole("network widths", w, 1) for w in self.widths)
        if not widths:
            raise InputError("network widths are empty: expected at least one hidden width, for example (64, 64).")
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "blocks", _whole("network blocks", self.blocks, 0))
        _one_of("network activation", self.activation, ACTIVATIONS)
        _one_of("network layer_norm", self.layer_norm, LAYER_NORMS)
        object.__setattr__(self, "residual", bool(self.residual))

    @property
    def text(self):
        """One line for people.

        >>> NetworkSpecification((64, 64), activation="tanh_like", layer_norm=True).text
        '64 x 64, one block, tanh_like, layer normalisation'
        """
        blocks = "one block" if self.blocks == 1 else f"{self.blocks} blocks"
        norm = {False: "", True: ", layer normalisation", "before": ", layer normalisation before activations"}
        shape = blocks if self.residual else "plain perceptron"
        return f"{' x '.join(map(str, self.widths))}, {shape}, {self.activation}{norm[self.layer_norm]}"

    @property
    def normalises_output(self):
        """Whether the last activation, outside of the blocks, has a layer normalisation too."""
        return self.layer_norm == "before" and not self.residual

    @property
    def links(self):
        """(in, out) widths of the linear maps of one block, in order."""
        ends = self.widths[1:] + self.widths[:1]
        return tuple(zip(self.widths, ends))


@dataclass(frozen=True)
class Specification:
    """Hyperparameters of an EANN (``recursions`` = 0) or REANN (``recursions`` >= 1).

    Symbols as in the paper: ``max_degree`` L, ``radial`` K (Gaussians per element), ``densities`` M,
    ``recursions`` T.  ``cutoff`` and ``repulsion_cutoff`` in Angstrom.

    contraction : ``learned`` (REANN: M densities from learned combinations of orbitals) or ``per_degree``
        (EANN 2019: one density for each degree l and Gaussian k, M = (L + 1) K; ``densities`` is set to it).
    repulsion : ``zbl`` adds a fixed Ziegler-Biersack-Littmark pair repulsion, switched off smoothly at
        ``repulsion_cutoff``; ``None`` adds nothing.

    >>> Specification(elements=("C", "H"), cutoff=5.0, contraction="per_degree", radial=8).densities
    24
    """

    elements: tuple
    cutoff: float
    max_degree: int = 2
    radial: int = 8
    densities: int = 64
    contraction: str = "learned"
    recursions: int = 2
    network: NetworkSpecification = NetworkSpecification()
    recursion_network: NetworkSpecification = NetworkSpecification()
    repulsion: str = None
    repulsion_cutoff: float = 2.5

    def __post_init__(self):
        from eann_lite.elements import atomic_number

        elements = tuple(self.elements)
        if not elements:
            raise InputError("elements are empty: expected chemical symbols such as ('C', 'H').")
        for symbol in elements:
            atomic_number(symbol)
        if len(set(elements)) < len(elements):
            raise InputError(f"elements {elements} name an element twice.")
        if not self.cutoff > 0:
            raise InputError(f"cutoff = {self.cutoff!r} Angstrom: expected a positive number, for example 5.0.")
        _one_of("contraction", self.contraction, CONTRACTIONS)
        _one_of("repulsion", self.repulsion, REPULSIONS)
        if self.repulsion and not self.repulsion_cutoff > 0:
            raise InputError(f"repulsion_cutoff = {self.repulsion_cutoff!r} Angstrom: expected a positive number.")
        checked = {
            "elements": elements,
            "cutoff": float(self.cutoff),
            "max_degree": _whole("max_degree", self.max_degree, 0),
            "radial": _whole("radial", self.radial, 1),
            "recursions": _whole("recursions", self.recursions, 0),
            "repulsion_cutoff": float(self.repulsion_cutoff),
        }
        per_degree = (checked["max_degree"] + 1) * checked["radial"]
        checked["densities"] = (
            per_degree if self.contraction == "per_degree" else _whole("densities", self.densities, 1)
        )
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def monomials(self):
        """Number of distinct monomials x^lx y^ly z^lz of degree 0 to L."""
        return sum((l + 1) * (l + 2) // 2 for l in range(self.max_degree + 1))

    @property
    def reach(self):
        """Largest distance (Angstrom) over which any pair term acts: the cutoff of the neighbour list."""
        return max(self.cutoff, self.repulsion_cutoff) if self.repulsion else self.cutoff

    def to_dict(self):
        """Plain values only, ready for JSON; ``from_dict`` reverses it."""
        values = asdict(self)
        for name in ("network", "recursion_network"):
            # Left out where it is true: files of residual networks stay as they always were.
            if values[name]["residual"]:
                del values[name]["residual"]
        return values

    @classmethod
    def from_dict(cls, values):
        """Specification from the plain values of ``to_dict``; unknown keys are errors."""
        values = dict(values)
        for name in ("network", "recursion_network"):
            if isinstance(values.get(name), dict):
                values[name] = _from_dict(NetworkSpecification, values[name], name)
        return _from_dict(cls, values, "specification")
