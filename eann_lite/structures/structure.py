"""One atomic structure with its labels, checked when it is made and unchangeable afterwards."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eann_lite.errors import InputError

#: Periodic lattice vectors scaled to length 1 that span less volume (or area) than this are linearly dependent.
FLATTEST_CELL = 1e-8
#: Lattice vectors shorter than this (Angstrom) are taken as zero.
SHORTEST_VECTOR = 1e-3
#: Positions that moved by less than this (Angstrom) since a calculator ran still belong to its results.
UNMOVED = 1e-10


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms in space, perhaps in a periodic cell, perhaps with an energy, forces and a stress.

    Arrays are copied, checked and set read-only; two structures are equal only if they are the same object.

    numbers : (n,) atomic numbers, 1 to 118, at least one atom
    positions : (n, 3) Angstrom
    cell : (3, 3) Angstrom, rows are lattice vectors; zeros where there is none.  Default: no cell
    pbc : (3,) bool, or one bool for all: periodic along each lattice vector.  Default: not periodic
    energy : eV, or None
    forces : (n, 3) eV/Angstrom, or None
    stress : (3, 3) eV/Angstrom^3, or None: dE/dstrain / volume (ASE's sign: positive under tension), symmetric; six
        numbers xx, yy, zz, yz, xz, xy are taken too.  An all-zero stress without a three-dimensional cell is None.
    weight : factor of this structure in a training loss, not negative
    source : where it comes from, for messages, e.g. ``"train.xyz, structure 17"`` (counted from 0, as ASE does)

    InputError if a shape is wrong, a number is not finite, an atomic number is unknown, or a periodic lattice vector
    is zero or linearly dependent on others.

    >>> hydrogen = Structure(numbers=[1, 1], positions=[[0, 0, 0], [0, 0, 0.74]], energy=-31.7)
    >>> hydrogen.n_atoms, hydrogen.symbols, hydrogen.forces is None
    (2, ('H', 'H'), True)
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None
    pbc: np.ndarray | bool = False
    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    weight: float = 1.0
    source: str = ""

    def __post_init__(self):
        where = self.source or "structure"
        numbers = _checked_numbers(self.numbers, where)
        n = numbers.size
        positions = _checked_array(self.positions, (n, 3), "positions", where, numbers)
        cell = np.zeros((3, 3)) if self.cell is None else _checked_array(self.cell, (3, 3), "cell", where)
        pbc = _checked_pbc(self.pbc, where)
        _check_cell(cell, pbc, where)
        forces = self.forces
        if forces is not None:
            forces = _checked_array(forces, (n, 3), "forces", where, numbers)
        energy = None if self.energy is None else _checked_number(self.energy, "energy", where)
        weight = _checked_number(self.weight, "weight", where)
        if weight < 0.0:
            raise InputError(f"{where}: weight {weight!r}: expected 0 or more. Leave the structure out instead.")
        values = {
            "numbers": numbers, "positions": positions, "cell": cell, "pbc": pbc, "energy": energy, "forces": forces,
            "stress": _checked_stress(self.stress, cell, where), "weight": weight, "source": str(self.source),
        }  # fmt: skip
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    @property
    def n_atoms(self):
        """Number of atoms."""
        return self.numbers.size

    @cached_property
    def symbols(self):
        """Chemical symbols (n,), a tuple."""
        from ase.data import chemical_symbols

        return tuple(chemical_symbols[z] for z in self.numbers.tolist())

    @property
    def volume(self):
        """Volume of the cell in Angstrom^3; 0 where it does not span all three directions."""
        return _volume(self.cell)

    @classmethod
    def from_atoms(cls, atoms, source=""):
        """Structure of an ``ase.Atoms``, with the labels that its calculator holds; nothing is computed or changed.

        Energy, forces and stress are the calculator's stored results as they are: ASE's own getters would set forces
        of constrained atoms to zero.  Results of other positions, cell, periodicity or elements than the present ones
        are left out.  ``atoms.info["config_weight"]`` becomes the weight.

        >>> from ase.build import molecule
        >>> Structure.from_atoms(molecule("CH4")).symbols
        ('C', 'H', 'H', 'H', 'H')
        """
        results = stored_results(atoms)
        return cls(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            energy=results.get("energy", results.get("free_energy")),
            forces=results.get("forces"),
            stress=results.get("stress"),
            weight=atoms.info.get("config_weight", 1.0),
            source=source,
        )

    def to_atoms(self):
        """``ase.Atoms`` with a SinglePointCalculator that holds the labels (none: no calculator).

        A weight other than 1 goes into ``atoms.info["config_weight"]``, from where `from_atoms` takes it back.
        """
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        if self.weight != 1.0:
            atoms.info["config_weight"] = self.weight
        labels = {"energy": self.energy, "forces": self.forces}
        if self.stress is not None:
            labels["stress"] = self.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        labels = {name: value for name, value in labels.items() if value is not None}
        if labels:
            atoms.calc = SinglePointCalculator(atoms, **labels)
        return atoms


def as_structures(objects):
    """List of `Structure` from an ``ase.Atoms``, a `Structure`, or any sequence of these.

    Structures stay as they are; Atoms go through `Structure.from_atoms` (labels of the calculator only; see
    `eann_lite.structures.label_atoms` for labels under other names) and get the source "structure 0" and so on.
    InputError for anything else, or for none at all.

    >>> from ase.build import molecule
    >>> [s.n_atoms for s in as_structures([molecule("H2"), molecule("H2O")])]
    [2, 3]
    """
    if isinstance(objects, Structure):
        return [objects]
    from ase import Atoms

    if isinstance(objects, Atoms):
        return [Structure.from_atoms(objects)]
    if isinstance(objects, (str, bytes)) or hasattr(objects, "__fspath__") or not hasattr(objects, "__iter__"):
        raise InputError(
            f"{objects!r} is of type {type(objects).__name__}: expected ase.Atoms, a Structure, or a list of these. "
            "Files are read with eann_lite.structures.read_structures(path)."
        )
    structures = []
    for i, one in enumerate(objects):
        if isinstance(one, Structure):
            structures.append(one)
        elif isinstance(one, Atoms):
            structures.append(Structure.from_atoms(one, source=f"structure {i}"))
        else:
            raise InputError(
                f"entry {i} of the list of structures is of type {type(one).__name__}: expected ase.Atoms or Structure."
            )
    if not structures:
        raise InputError("no structures: the list is empty. Give at least one ase.Atoms or Structure.")
    return structures


def as_one_structure(given):
    """`Structure` of one ``ase.Atoms`` or `Structure`; InputError for lists, which could only be answered in part.

    >>> from ase.build import molecule
    >>> as_one_structure(molecule("H2O")).n_atoms
    3
    """
    from ase import Atoms

    if isinstance(given, (Structure, Atoms)):
        return as_structures(given)[0]
    if isinstance(given, (list, tuple)):
        raise InputError(
            f"a {type(given).__name__} of {len(given)} structures: expected one ase.Atoms or Structure. "
            "Call the function once for each of them."
        )
    raise InputError(
        f"{given!r} is of type {type(given).__name__}: expected one ase.Atoms or Structure. "
        "A file is read with ase.io.read(path)."
    )


def stored_results(atoms):
    """Results (dict) that the calculator of ``atoms`` holds for exactly these atoms; empty where there are none."""
    results = getattr(atoms.calc, "results", None)
    if not results:
        return {}
    known = getattr(atoms.calc, "atoms", None)
    if known is not None and not _same_geometry(known, atoms):
        return {}
    return results


def _same_geometry(one, other):
    return (
        np.array_equal(one.numbers, other.numbers)
        and np.array_equal(one.pbc, other.pbc)
        and np.abs(one.positions - other.positions).max(initial=0.0) <= UNMOVED
        and np.abs(one.cell.array - other.cell.array).max() <= UNMOVED
    )


# ---- checks ---------------------------------------------------------------------------------------------------------


def _atom_name(atom, numbers):
    from ase.data import chemical_symbols

    return f"atom {atom} ({chemical_symbols[numbers[atom]]})"


def _checked_numbers(numbers, where):
    given = np.asarray(numbers)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
        raise InputError(
            f"{where}: atomic numbers of shape {given.shape} and type {given.dtype}: expected whole numbers, one for "
            "each atom, and at least one atom. Remove structures without atoms."
        )
    checked = given.astype(np.int64)
    if checked.min() < 1 or checked.max() > 118:
        atom = int(np.argmax((checked < 1) | (checked > 118)))
        raise InputError(
            f"{where}: atom {atom} has atomic number {checked[atom]}: expected 1 to 118. "
            "Ghost atoms and dummies (X) must be removed, or named by the element they stand for."
        )
    return checked


def _checked_array(given, shape, name, where, numbers=None):
    """Copy (float64) of an array of this shape and finite entries; ``numbers`` makes messages name the atom."""
    try:
        array = np.array(given, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        raise InputError(
            f"{where}: {name} cannot be read as numbers; expected an array of shape {shape}. Check it for rows of "
            "different length and for entries that are not numbers."
        ) from None
    if array.shape != shape:
        atoms = f" for {shape[0]} atoms" if numbers is not None else ""
        raise InputError(
            f"{where}: {name} of shape {array.shape}: expected {shape}{atoms}. "
            "Give three Cartesian components in each row."
        )
    finite = np.isfinite(array)
    if not finite.all():
        row, x = (int(i) for i in np.argwhere(~finite)[0])
        place = f"lattice vector {row}" if numbers is None else _atom_name(row, numbers)
        raise InputError(
            f"{where}: {name} of {place}, component {'xyz'[x]}, is {array[row, x]}: expected a finite number "
            f"({int(np.sum(~finite))} of {array.size} are not). Remove the structure or compute it again."
        )
    return array


def _checked_number(given, name, where):
    if isinstance(given, (bool, np.bool_, str, bytes)) or np.size(given) != 1:
        raise InputError(f"{where}: {name} = {given!r}: expected one number.")
    try:
        value = float(np.asarray(given).reshape(()))
    except (TypeError, ValueError):
        raise InputError(f"{where}: {name} = {given!r}: expected one number.") from None
    if not math.isfinite(value):
        raise InputError(
            f"{where}: {name} is {value}: expected a finite number. Remove the {name} or the structure, or compute it "
            "again."
        )
    return value


def _checked_pbc(given, where):
    pbc = np.asarray(given)
    if pbc.shape not in ((), (3,)) or (pbc.dtype != bool and not set(pbc.ravel().tolist()) <= {0, 1}):
        raise InputError(f"{where}: pbc = {given!r}: expected three values true or false, one for each lattice vector.")
    return np.array(np.broadcast_to(pbc.astype(bool), (3,)))


def _volume(cell):
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = cell.tolist()
    return abs(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx))


def _check_cell(cell, pbc, where):
    """InputError unless the periodic lattice vectors are longer than zero and linearly independent."""
    if not pbc.any():
        return
    directions = []
    for d in range(3):
        if pbc[d]:
            length = math.sqrt(float(cell[d] @ cell[d]))
            if length < SHORTEST_VECTOR:
                raise InputError(
                    f"{where}: periodic along lattice vector {d}, but this vector is {_numbers_text(cell[d])} "
                    f"(length {length:g} A). Give the cell, or set pbc to false in this direction."
                )
            directions.append(cell[d] / length)
    if len(directions) == 3:
        span = _volume(np.array(directions))
    elif len(directions) == 2:
        span = float(np.linalg.norm(np.cross(*directions)))
    else:
        span = 1.0
    if span < FLATTEST_CELL:
        vectors = "; ".join(_numbers_text(cell[d]) for d in range(3) if pbc[d])
        raise InputError(
            f"{where}: the periodic lattice vectors are linearly dependent ({vectors} A). "
            "Give vectors that span a cell, or set pbc to false where the structure does not repeat."
        )


def _checked_stress(given, cell, where):
    if given is None:
        return None
    if np.shape(given) == (6,):
        given = np.asarray(given)[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
    stress = _checked_array(given, (3, 3), "stress", where)
    if _volume(cell) == 0.0:
        if not stress.any():
            return None
        raise InputError(
            f"{where}: a stress, but the cell spans no volume, so it means nothing. "
            "Give the cell, or leave the stress out."
        )
    # The derivative with respect to a symmetric strain is symmetric; codes print it so up to their round-off.
    return 0.5 * (stress + stress.T)


def _numbers_text(values):
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
