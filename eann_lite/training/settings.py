"""Everything a person can choose about a fit, with its default and its meaning, in one place.

The command line, the configuration file and ``eann_lite.fit`` all take these names.
"""

from dataclasses import asdict, dataclass, field, fields
from numbers import Integral

from eann_lite.errors import InputError


def _option(default, section, help):
    kind = {"default_factory": lambda: list(default)} if isinstance(default, list) else {"default": default}
    return field(metadata={"section": section, "help": help}, **kind)


def _is_positive_whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True)
class FitSettings:
    """Choices of a fit; ``section`` and ``help`` of every field are in its metadata.

    ``None`` means: decided from the data (stated in the resolved configuration that a fit writes).
    """

    train: list = _option([], "data", "files to fit (extended xyz, any ASE format, or published configuration text)")
    valid: object = _option(0.1, "data", "validation data: a file, or the fraction of the training data to set aside")
    test: object = _option(None, "data", "test data: a file, or the fraction of the training data to set aside")
    energy_key: str = _option(None, "data", "name of the energy in the files (default: the usual names)")
    forces_key: str = _option(None, "data", "name of the forces")
    stress_key: str = _option(None, "data", "name of the stress; its sign is ASE's: positive where stretched")
    virial_key: str = _option(
        None, "data", "name of the virial (stress = -virial / volume), used where there is no stress"
    )
    energy_unit: str = _option("eV", "data", "unit of energies in the files: eV, Hartree, Ry, kcal/mol, kJ/mol")
    forces_unit: str = _option(
        None, "data", "unit of forces where it is not energy_unit / length_unit: Hartree/Bohr, ..."
    )
    stress_unit: str = _option(
        None, "data", "unit of stresses where it is not energy_unit / length_unit^3: GPa, kbar, eV/Angstrom^3, ..."
    )
    length_unit: str = _option("Angstrom", "data", "unit of lengths in the files: Angstrom, Bohr, nm")

    recursions: int = _option(2, "model", "recursion steps T; 0 is an EANN")
    cutoff: float = _option(None, "model", "cutoff in Angstrom (default: from the data, 5 to 7)")
    max_degree: int = _option(2, "model", "largest degree L of the angular monomials")
    radial: int = _option(12, "model", "Gaussians per element, K")
    densities: int = _option(64, "model", "embedded densities, M")
    contraction: str = _option("learned", "model", "learned, or per_degree (EANN of 2019)")
    widths: list = _option([64, 64], "model", "hidden widths of the energy networks")
    blocks: int = _option(1, "model", "residual blocks of the energy networks")
    recursion_widths: list = _option([64, 64], "model", "hidden widths of the recursion networks")
    recursion_blocks: int = _option(1, "model", "residual blocks of the recursion networks")
    activation: str = _option("silu", "model", "relu_like, tanh_like, silu or tanh")
    layer_norm: bool = _option(False, "model", "layer normalisation inside the blocks")
    repulsion: str = _option("auto", "model", "zbl, none, or auto: zbl where training structures have close contacts")
    repulsion_cutoff: float = _option(2.5, "model", "where the repulsion ends smoothly, in Angstrom")

    solver: str = _option("auto", "training", "auto, soap, adam, lbfgs or least_squares")
    epochs: int = _option(None, "training", "passes over the training data (default: limited by minutes)")
    minutes: float = _option(
        None, "training", "wall time until the last step, before the report (default: 2.9 if epochs are not given)"
    )
    batch: int = _option(None, "training", "structures per step (default: from the number of atoms, 4 to 32)")
    step_size: float = _option(2e-3, "training", "largest step size of soap and adam")
    weight_decay: float = _option(
        None,
        "training",
        "decoupled weight decay of all matrices (default: 0.05; in a resumed fit, what it was begun with)",
    )
    precision: str = _option(
        None, "training", "of the solver's steps: float32 or float64 (default: float32, for full-batch solvers float64)"
    )
    energy_weight: float = _option(1.0, "training", "weight of energies in the loss")
    forces_weight: float = _option(1.0, "training", "weight of forces in the loss")
    stress_weight: float = _option(1.0, "training", "weight of stresses in the loss")
    huber: float = _option(5.0, "training", "energy error in eV beyond which the loss grows linearly, or inf")
    forces_huber: float = _option(
        1.0, "training", "error of a force vector in eV/Angstrom beyond which the loss grows linearly, or inf"
    )
    committee: int = _option(
        None,
        "training",
        "fit this many models first, in half of the time; the last fit then also learns from displaced copies of the "
        "structures that their mean labels (default: 5 where there are minutes for 8000 epochs, else 0)",
    )
    patience: int = _option(None, "training", "stop after this many epochs without a better validation error")
    finish: bool = _option(False, "training", "end with a short second-order optimisation of the full set (L-BFGS)")
    seed: int = _option(0, "training", "seed of the split, the starting parameters and the order of batches")
    split_seed: int = _option(None, "training", "seed of the split into parts alone (default: seed)")
    threads: int = _option(None, "training", "threads (default: all cores); results do not depend on it")

    out: str = _option("fit", "output", "directory of the model, history, plots and report")
    resume: bool = _option(
        False, "output", "go on from the checkpoint in the output directory; start where there is none"
    )
    checkpoint_seconds: float = _option(30.0, "output", "time between checkpoints")

    def __post_init__(self):
        for name in ("epochs", "batch", "patience", "threads"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} = {value!r}: expected a whole number of at least 1.")
        for name in ("widths", "recursion_widths"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or not value or not all(_is_positive_whole(n) for n in value):
                raise InputError(f"{name} = {value!r}: expected a list of whole numbers above 0, such as [64, 64].")
        for name in ("committee", "seed", "split_seed"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                meaning = ", 0 for none, such as 5" if name == "committee" else " of at least 0"
                raise InputError(f"{name} = {value!r}: expected a whole number{meaning}.")
        for name in ("minutes", "step_size", "cutoff", "huber", "forces_huber", "repulsion_cutoff"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, (bool, str)) or not value > 0):
                raise InputError(f"{name} = {value!r}: expected a positive number.")
        weights = {name: getattr(self, name) for name in ("energy_weight", "forces_weight", "stress_weight")}
        for name, value in weights.items():
            if value is None or isinstance(value, (bool, str)) or not value >= 0:
                raise InputError(f"{name} = {value!r}: expected a number of at least 0.")
        if not any(weights.values()):
            given = ", ".join(f"{name} = {value:g}" for name, value in weights.items())
            raise InputError(f"{given}: expected at least one weight above 0, or nothing is fitted.")
        for name, allowed in (
            ("solver", ("auto", "soap", "adam", "lbfgs", "least_squares")),
            ("repulsion", ("auto", "none", "zbl")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} = {getattr(self, name)!r}: expected one of {', '.join(allowed)}.")
        if self.precision not in (None, "float32", "float64"):
            raise InputError(f"precision = {self.precision!r}: expected one of float32, float64.")
        if self.precision == "float32" and self.solver in ("lbfgs", "least_squares"):
            raise InputError(
                f"precision = 'float32' with solver = {self.solver!r}: expected float64, since this solver compares losses "
                "that single precision does not tell apart. Leave precision out, or use soap or adam."
            )
        if self.out is not None and (not isinstance(self.out, str) or not self.out.strip()):
            raise InputError(f"out = {self.out!r}: expected the name of a directory, '.' for the current one.")
        for name in ("valid", "test"):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not 0 <= value < 1:
                raise InputError(f"{name} = {value!r}: expected a file or a fraction from 0 to below 1.")

    def to_dict(self):
        """Plain values by name."""
        return asdict(self)

    def by_section(self):
        """{section: {name: value}} without the values that are None, as the configuration file has them."""
        sections = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                sections.setdefault(item.metadata["section"], {})[item.name] = value
        return sections


#: Settings that say under which names and in which units labels stand.
READING = tuple(
    item.name
    for item in fields(FitSettings)
    if item.metadata["section"] == "data" and item.name not in ("train", "valid", "test")
)
