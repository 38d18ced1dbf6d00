"""Laws that every interatomic potential obeys, checked on any ASE calculator and any structure.

Each law is a function ``law(calculator, atoms, seed=0) -> Violation``: how far the calculator's energy (eV), forces
(eV/Angstrom) and stress (eV/Angstrom^3) are from what the law says of this structure, or None where the law says
nothing about it (the stress of a molecule).  Symmetry operations are drawn from ``seed``.

A limit is ``absolute + relative * scale``, both keywords of every law that compares numbers; the scale is the size of
the energy and the forces of the structure.  The defaults (``SYMMETRY``, ``DERIVATIVE``, ``SMOOTH``) suit analytic
potentials in double precision; for single precision give ``relative=1e-5, absolute=1e-4`` or so.

The calculator works on copies of the atoms, without constraints; the atoms given are never changed.
"""

from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError

#: Limits (absolute in eV, eV/Angstrom; relative) of laws in which nothing but the order of sums changes.
SYMMETRY = (1e-9, 1e-9)
#: Limits of comparisons with numerical derivatives; the error of the derivative itself is estimated and added.
DERIVATIVE = (1e-6, 1e-6)
#: Limits of jumps of energy and force as distances change.
SMOOTH = (1e-5, 1e-6)
#: Names of the components of a stress in ASE's order, and their places.
STRESS_COMPONENTS = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}
#: Copies of a structure in a supercell are made along all periodic directions up to this many atoms.
MOST_IN_SUPERCELL = 100


class Violation(NamedTuple):
    """How far a calculator is from a law.

    law : its name.
    value : largest deviation found, in ``unit``; not a number where the calculator gave none.
    unit : "eV", "eV/Angstrom" or "eV/Angstrom^3".
    limit : what was allowed, in ``unit``.
    detail : where: quantity, atom, component, and both numbers.

    >>> Violation("rotation", 2e-3, "eV", 1e-9, "energy").broken
    True
    """

    law: str
    value: float
    unit: str
    limit: float
    detail: str

    @property
    def broken(self):
        """Whether the deviation is larger than the limit, or not a number."""
        return not self.value <= self.limit

    @property
    def severity(self):
        """Deviation over limit: what laws and structures are ranked by."""
        if not np.isfinite(self.value):
            return np.inf
        if self.limit == 0.0:
            return 0.0 if self.value == 0.0 else np.inf
        return self.value / self.limit

    def __str__(self):
        verdict = "broken" if self.broken else "holds"
        return f"{self.law} {verdict}: {self.value:.3g} {self.unit} (limit {self.limit:.3g}), {self.detail}"


class Numbers(NamedTuple):
    """What a calculator says: energy (eV), forces (n, 3), stress (3, 3) or None, volume (Angstrom^3) of the cell."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    volume: float


# ---- symmetries -----------------------------------------------------------------------------------------------------


def rotation(calculator, atoms, seed=0, absolute=SYMMETRY[0], relative=SYMMETRY[1]):
    """A rotated structure has the same energy, rotated forces and a rotated stress."""
    return _after_orthogonal("rotation", calculator, atoms, random_rotation(seed), absolute, relative)


def inversion(calculator, atoms, seed=0, absolute=SYMMETRY[0], relative=SYMMETRY[1]):
    """A structure and its mirror image (x -> -x) have the same energy and stress, and opposite forces."""
    return _after_orthogonal("inversion", calculator, atoms, -np.eye(3), absolute, relative)


def _after_orthogonal(law, calculator, atoms, matrix, absolute, relative):
    turned = _free_copy(atoms)
    turned.set_cell(atoms.cell.array @ matrix)
    turned.positions = atoms.positions @ matrix
    before = numbers_of(calculator, atoms)
    stress = None if before.stress is None else matrix.T @ before.stress @ matrix
    expected = before._replace(forces=before.forces @ matrix, stress=stress)
    return _comparison(law, numbers_of(calculator, turned), expected, turned, absolute, relative)


def translation(calculator, atoms, seed=0, absolute=SYMMETRY[0], relative=SYMMETRY[1]):
    """A structure moved as a whole has the same energy, forces and stress, and its forces add up to zero."""
    moved = _free_copy(atoms)
    moved.positions += np.random.default_rng(seed).uniform(-5, 5, 3)
    before = numbers_of(calculator, atoms)
    same = _comparison("translation", numbers_of(calculator, moved), before, atoms, absolute, relative)
    total = before.forces.sum(axis=0)
    limit = len(atoms) * (absolute + relative * _scales(before)["forces"])
    component = int(np.argmax(np.abs(total)))
    detail = f"sum of all forces, component {'xyz'[component]}: {total[component]:.9g}, expected 0"
    return _worst([same, Violation("translation", float(np.abs(total).max()), "eV/Angstrom", limit, detail)])


def permutation(calculator, atoms, seed=0, absolute=SYMMETRY[0], relative=SYMMETRY[1]):
    """Atoms listed in another order have the same energy and stress, and each atom keeps its force."""
    n = len(atoms)
    if n < 2:
        return None
    order = np.random.default_rng(seed).permutation(n)
    if np.array_equal(order, np.arange(n)):
        order = order[::-1]
    before = numbers_of(calculator, atoms)
    other = _free_copy(atoms)[order]
    expected = before._replace(forces=before.forces[order])
    return _comparison("permutation", numbers_of(calculator, other), expected, other, absolute, relative)


def supercell(calculator, atoms, seed=0, absolute=SYMMETRY[0], relative=SYMMETRY[1]):
    """k copies of a periodic cell, side by side as one cell, have k times its energy, and its forces and stress.

    Two copies along every periodic direction, or, for many atoms, along the one with the shortest lattice vector.
    A calculator that forgets images farther than the nearest breaks this law in small cells.
    """
    if not atoms.pbc.any():
        return None
    times = np.where(atoms.pbc, 2, 1)
    if len(atoms) * times.prod() > MOST_IN_SUPERCELL:
        lengths = np.where(atoms.pbc, atoms.cell.lengths(), np.inf)
        times = np.where(np.arange(3) == np.argmin(lengths), 2, 1)
    copies = int(times.prod())
    small = numbers_of(calculator, atoms)
    large = _free_copy(atoms).repeat(times.tolist())
    expected = small._replace(
        energy=copies * small.energy, forces=np.tile(small.forces, (copies, 1)), volume=copies * small.volume
    )
    return _comparison("supercell", numbers_of(calculator, large), expected, large, absolute, relative)


def periodic_images(calculator, atoms, seed=0, absolute=SYMMETRY[0], relative=SYMMETRY[1]):
    """Which periodic image of an atom is listed changes nothing."""
    if not atoms.pbc.any():
        return None
    shifts = np.random.default_rng(seed).integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    shifts[0] += atoms.pbc * (not shifts.any())
    moved = _free_copy(atoms)
    moved.positions += shifts @ atoms.cell.array
    before = numbers_of(calculator, atoms)
    return _comparison("periodic_images", numbers_of(calculator, moved), before, moved, absolute, relative)


def additivity(calculator, atoms, seed=0, distance=60.0, absolute=SYMMETRY[0], relative=SYMMETRY[1]):
    """Two copies of a structure, farther apart than any interaction, have twice its energy, and each its forces.

    The gap is ``distance`` (Angstrom), along a direction in which the structure does not repeat; a crystal has none
    (its extensivity is the ``supercell`` law).  Charges and other long-range interactions do break this law.
    """
    if atoms.pbc.all():
        return None
    direction = _aperiodic_direction(atoms, seed)
    span = float(np.ptp(atoms.positions @ direction))
    alone = numbers_of(calculator, atoms)
    far = _free_copy(atoms)
    far.positions += (span + distance) * direction
    both = _free_copy(atoms) + far
    expected = alone._replace(energy=2 * alone.energy, forces=np.tile(alone.forces, (2, 1)), stress=None)
    found = numbers_of(calculator, both)._replace(stress=None)
    return _comparison("additivity", found, expected, both, absolute, relative)


# ---- derivatives ----------------------------------------------------------------------------------------------------


def force_is_gradient(
    calculator, atoms, seed=0, step=2e-3, directions=2, absolute=DERIVATIVE[0], relative=DERIVATIVE[1]
):  # fmt: skip
    """Forces are minus the derivative of the energy with respect to positions.

    Along ``directions`` random displacements of all atoms (unit vectors of 3n numbers) by central differences with
    ``step``, half and a quarter of it (Angstrom), extrapolated (Richardson); if these disagree with the forces, along
    every coordinate, so that the atom and the component can be named.
    """
    rng = np.random.default_rng(seed)
    now = numbers_of(calculator, atoms)
    n = len(atoms)

    def against(displacement, name):
        def energy(amount):
            moved = _free_copy(atoms)
            moved.positions += amount * displacement
            return energy_of(calculator, moved)

        slope, uncertainty = derivative(energy, step, now.energy)
        expected = -float(np.sum(now.forces * displacement))
        limit = absolute + relative * _scales(now)["forces"] + uncertainty
        detail = f"force along {name}: {-expected:.9g}, minus the slope of the energy is {-slope:.9g}"
        return Violation("force_is_gradient", abs(slope - expected), "eV/Angstrom", limit, detail)

    found = []
    for number in range(directions):
        displacement = rng.normal(size=(n, 3))
        displacement /= np.linalg.norm(displacement)
        found.append(against(displacement, f"random direction {number} of all atoms"))
    if any(violation.broken for violation in found):
        for atom in range(n):
            for component in range(3):
                displacement = np.zeros((n, 3))
                displacement[atom, component] = 1.0
                found.append(against(displacement, f"{'xyz'[component]} of {_atom_name(atoms, atom)}"))
        found = found[directions:] if any(violation.broken for violation in found[directions:]) else found
    return _worst(found)


def stress_is_gradient(calculator, atoms, seed=0, step=1e-3, absolute=DERIVATIVE[0], relative=DERIVATIVE[1]):
    """The stress is the derivative of the energy with respect to a strain of cell and atoms, divided by the volume.

    Each of the six components by central differences, extrapolated (``step`` without unit).  None without a volume,
    without periodicity, or if the calculator has no stress.
    """
    now = numbers_of(calculator, atoms)
    if now.stress is None:
        return None
    found = []
    for name, (row, column) in STRESS_COMPONENTS.items():
        strain = np.zeros((3, 3))
        # Half on either side: then the derivative is V sigma_xy for shears too.
        strain[row, column] += 0.5
        strain[column, row] += 0.5

        def energy(amount, strain=strain):
            strained = _free_copy(atoms)
            strained.set_cell(atoms.cell.array @ (np.eye(3) + amount * strain), scale_atoms=False)
            strained.positions = atoms.positions @ (np.eye(3) + amount * strain)
            return energy_of(calculator, strained)

        slope, uncertainty = (value / now.volume for value in derivative(energy, step, now.energy))
        stress = now.stress[row, column]
        limit = absolute + relative * _scales(now)["stress"] + uncertainty
        detail = f"stress {name}: {stress:.9g}, the derivative of the energy is {slope:.9g}"
        found.append(Violation("stress_is_gradient", abs(slope - stress), "eV/Angstrom^3", limit, detail))
    return _worst(found)


def derivative(function, step, size):
    """Slope of a function of one number at 0, and its uncertainty.

    Central differences with ``step``, step / 2 and step / 4 leave errors of order step^2, which Richardson's
    extrapolation cancels twice.
    The uncertainty is ten times the change of the last extrapolation, so it is large where the function
    is not smooth, and the round-off of values of ``size``.
    """
    coarse, middle, fine = (
        (function(h) - function(-h)) / (2 * h) for h in (step, step / 2, step / 4)
    )  # fmt: skip
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    round_off = 16 * np.finfo(float).eps * abs(size) / (step / 4)
    return float((16 * second - first) / 15), float(10 * abs(second - first) + round_off)


# ---- smoothness -----------------------------------------------------------------------------------------------------


def smooth_at_cutoff(calculator, atoms, seed=0, farthest=12.0, absolute=SMOOTH[0], relative=SMOOTH[1]):
    """Energy, forces and stress do not jump as atoms are pulled apart.

    The structure is scaled up until its shortest distance is ``farthest`` (Angstrom), so that every pair passes every
    cutoff beyond its present distance, and no two atoms ever come closer.  Larger structures are represented by an atom
    (drawn from ``seed``) with its nearest neighbours, a lone atom by a pair of its kind.  Where values extrapolated
    from both sides disagree more than around, the place is narrowed down by bisection to 1e-8 of the distance: what is
    left there of a smooth function is nothing, and of a jump all (``eann_lite.testing.jumps``).
    """
    from eann_lite.testing.jumps import largest_jump

    from ase.geometry import get_distances

    start = _small_part(atoms, seed)
    _, distances = get_distances(start.positions, cell=start.cell, pbc=start.pbc)
    apart = distances[np.triu_indices(len(start), 1)]
    if start.pbc.any():
        apart = np.append(apart, shortest_lattice_vector(start))
    shortest = float(apart.min())
    if shortest >= farthest:
        return None

    def scaled(stretch):
        atoms_then = _free_copy(start)
        factor = np.exp(stretch)
        atoms_then.set_cell(start.cell.array * factor)
        atoms_then.positions = start.positions * factor
        return atoms_then

    last = float(np.log(farthest / shortest))
    # Energies of separate atoms may be large, and would make the limit large that is relative to the energy.
    energy_apart = energy_of(calculator, scaled(last))

    def signals(stretch):
        numbers = numbers_of(calculator, scaled(stretch))
        strain = np.zeros(0) if numbers.stress is None else (numbers.stress * numbers.volume).ravel()
        return np.concatenate([[numbers.energy - energy_apart], numbers.forces.ravel(), strain])

    jump = largest_jump(signals, 0.0, last, absolute, relative)
    factor = float(np.exp(jump.place))
    entry = jump.entry
    if entry == 0:
        what, unit = "energy", "eV"
    elif entry <= 3 * len(start):
        atom, component = divmod(entry - 1, 3)
        what, unit = f"force {'xyz'[component]} of {_atom_name(start, atom)}", "eV/Angstrom"
    else:
        what, unit = "strain derivative", "eV"
    name = "crystal" if start.pbc.any() else "cluster"
    detail = (
        f"{what} of a {name} ({start.get_chemical_formula()}) scaled by {factor:.9g}, "
        f"shortest distance {factor * shortest:.9g} Angstrom"
    )
    return Violation("smooth_at_cutoff", jump.size, unit, jump.limit, detail)


def _small_part(atoms, seed, most=4):
    """What is pulled apart: the structure if it is small, else an atom and its nearest neighbours, or a pair."""
    from ase import Atoms
    from ase.geometry import get_distances

    from eann_lite.elements import chemical_symbol

    rng = np.random.default_rng(seed)
    if len(atoms) == 1 and not atoms.pbc.any():
        direction = rng.normal(size=3)
        positions = np.array([np.zeros(3), 1.5 * _radius(atoms.numbers[0]) * direction / np.linalg.norm(direction)])
        return Atoms(2 * [chemical_symbol(int(atoms.numbers[0]))], positions=positions)
    if len(atoms) <= most:
        return _free_copy(atoms)
    center = int(rng.integers(len(atoms)))
    vectors, distances = get_distances(
        atoms.positions[center], atoms.positions, cell=atoms.cell, pbc=atoms.pbc
    )  # fmt: skip
    nearest = np.argsort(distances[0], kind="stable")[:most]
    return Atoms(numbers=atoms.numbers[nearest], positions=vectors[0][nearest])


# ---- bookkeeping ----------------------------------------------------------------------------------------------------


def inputs_unchanged(calculator, atoms, seed=0):
    """A calculator leaves the atoms it is asked about as they were: arrays, cell, periodicity, info, constraints."""
    from ase.constraints import FixAtoms

    rng = np.random.default_rng(seed)
    shown = atoms.copy()
    shown.set_momenta(rng.normal(size=(len(atoms), 3)), apply_constraint=False)
    if not shown.constraints:
        shown.set_constraint(FixAtoms([0]))
    shown.info["eann_lite.testing"] = "not the calculator's business"
    before = shown.copy()
    numbers_of(calculator, shown, copy=False)
    changes = {name: _change(shown.arrays.get(name), array) for name, array in before.arrays.items()}
    changes |= {f"array {name}, which is new" : np.inf for name in shown.arrays if name not in before.arrays}
    changes["cell"] = _change(shown.cell.array, before.cell.array)
    changes["pbc"] = _change(shown.pbc, before.pbc)
    changes["info"] = 0.0 if _same_info(shown.info, before.info) else np.inf
    same_constraints = [c.todict() for c in shown.constraints] == [c.todict() for c in before.constraints]
    changes["constraints"] = 0.0 if same_constraints else np.inf
    worst = max(changes, key=changes.get)
    detail = f"{worst} of the atoms given" if changes[worst] else "nothing of the atoms given changed"
    return Violation("inputs_unchanged", float(changes[worst]), "(unit of the array)", 0.0, detail)


def _same_info(found, expected):
    return found.keys() == expected.keys() and all(_change(found[key], expected[key]) == 0.0 for key in expected)


def _change(found, expected):
    """Largest change of an array, infinite where its shape changed or it is not one of numbers."""
    if found is None or np.shape(found) != np.shape(expected):
        return np.inf
    found, expected = np.asarray(found), np.asarray(expected)
    if np.array_equal(found, expected):
        return 0.0
    if found.dtype.kind not in "iufb" or expected.dtype.kind not in "iufb":
        return np.inf
    return float(np.abs(found.astype(float) - expected.astype(float)).max())


#: Name -> law.
LAWS = {
    law.__name__: law
    for law in (
        rotation, inversion, translation, permutation, supercell, periodic_images, additivity, force_is_gradient,
        stress_is_gradient, smooth_at_cutoff, inputs_unchanged,
    )
}  # fmt: skip


# ---- what laws share ------------------------------------------------------------------------------------------------


def numbers_of(calculator, atoms, copy=True):
    """``Numbers`` of a calculator for a copy of atoms (or, if not ``copy``, for themselves).

    The energy is the one whose derivative the forces are (ASE's free energy), where the calculator tells it apart.
    """
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms = _free_copy(atoms) if copy else atoms
    atoms.calc = calculator
    try:
        energy = _consistent_energy(calculator, atoms)
        forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
        stress, volume = None, 0.0
        if atoms.pbc.any() and atoms.cell.rank == 3:
            volume = float(atoms.cell.volume)
            if _has(calculator, "stress"):
                try:
                    stress = np.array(atoms.get_stress(voigt=False, apply_constraint=False), dtype=float)
                except (PropertyNotImplementedError, NotImplementedError):
                    stress = None
        return Numbers(energy, forces, stress, volume)
    finally:
        atoms.calc = None


def energy_of(calculator, atoms):
    """The energy (eV) whose derivative the forces are, of a copy of atoms."""
    atoms = _free_copy(atoms)
    atoms.calc = calculator
    return _consistent_energy(calculator, atoms)


def _consistent_energy(calculator, atoms):
    return float(atoms.get_potential_energy(force_consistent=_has(calculator, "free_energy")))


def _has(calculator, name):
    return name in getattr(calculator, "implemented_properties", ())


def _free_copy(atoms):
    """Copy of atoms without constraints (they would hide forces and hold atoms back) and without calculator."""
    copy = atoms.copy()
    copy.set_constraint()
    return copy


def random_rotation(seed):
    """Rotation matrix (3, 3) for rows of coordinates, uniform over all rotations."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def _aperiodic_direction(atoms, seed):
    """Unit vector perpendicular to all periodic lattice vectors."""
    direction = np.random.default_rng(seed).normal(size=3)
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic):
        # The rows of the pseudo-inverse span what the periodic vectors span.
        direction = direction - np.linalg.pinv(periodic) @ (periodic @ direction)
    return direction / np.linalg.norm(direction)


def shortest_lattice_vector(atoms):
    """Length (Angstrom) of the shortest vector between an atom and its own periodic image."""
    from ase.geometry import minkowski_reduce

    reduced, _ = minkowski_reduce(atoms.cell.complete().array, pbc=atoms.pbc)
    return float(np.linalg.norm(reduced[atoms.pbc], axis=1).min())


def _radius(number):
    from ase.data import covalent_radii

    return float(covalent_radii[number])


def _atom_name(atoms, atom):
    return f"atom {atom} ({atoms.get_chemical_symbols()[atom]})"


def _scales(numbers):
    """Sizes that round-off of energy, forces and stress is measured by.

    Forces of one atom in a cell cancel, energies hold offsets: none of the three is measured by itself alone.
    """
    n = max(len(numbers.forces), 1)
    force = float(np.abs(numbers.forces).max(initial=0.0))
    energy = abs(numbers.energy)
    scales = {"energy": energy + n * force, "forces": force + energy / n, "stress": 0.0}
    if numbers.stress is not None:
        scales["stress"] = float(np.abs(numbers.stress).max()) + (energy + n * force) / numbers.volume
    return scales


def _comparison(law, found, expected, atoms, absolute, relative):
    """The worst Violation among energy, forces and stress of two ``Numbers``."""
    scales = _scales(expected)
    violations = [
        Violation(
            law, abs(found.energy - expected.energy), "eV", absolute + relative * scales["energy"],
            f"energy: {found.energy:.12g}, expected {expected.energy:.12g}",
        )
    ]  # fmt: skip
    difference = np.abs(found.forces - expected.forces)
    if difference.size:
        largest = np.argmax(np.where(np.isnan(difference), np.inf, difference))
        atom, component = np.unravel_index(largest, difference.shape)
        detail = (
            f"force {'xyz'[component]} of {_atom_name(atoms, atom)}: {found.forces[atom, component]:.12g}, "
            f"expected {expected.forces[atom, component]:.12g}"
        )
        limit = absolute + relative * scales["forces"]
        violations.append(Violation(law, float(difference[atom, component]), "eV/Angstrom", limit, detail))
    if (found.stress is None) != (expected.stress is None):
        raise InputError(f"{law}: the calculator gives a stress for one of two equivalent structures only.")
    if found.stress is not None:
        difference = np.abs(found.stress - expected.stress)
        name = max(STRESS_COMPONENTS, key=lambda key: difference[STRESS_COMPONENTS[key]])
        place = STRESS_COMPONENTS[name]
        detail = f"stress {name}: {found.stress[place]:.12g}, expected {expected.stress[place]:.12g}"
        limit = absolute + relative * scales["stress"]
        violations.append(Violation(law, float(difference.max()), "eV/Angstrom^3", limit, detail))
    return _worst(violations)


def _worst(violations):
    return max(violations, key=lambda violation: violation.severity)
