"""What an audit works on: the model, its calculator, and structures that say something about it."""

import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError

#: Molecules for sets of elements, the ones that people have in mind first; for others a cluster is made.
MOLECULES = ("H2", "O2", "N2", "H2O", "CH4", "NH3", "CO2", "HCN", "HF", "HCl", "CH3OH", "SH2", "SiH4", "LiH", "NaCl")
#: Structures of the data that are audited at the most, and atoms in a built structure at the most.
DRAWN, BUILT_ATOMS = 3, 12
#: Where all structures of the data have more atoms than this, a small one is built as well; how far (Angstrom, standard
#: deviation) atoms are moved out of a minimum.
LARGE, MOVED = 40, 0.08
#: A relaxation stops at this force (eV/Angstrom), after so many steps, or when it has used so many seconds.
RELAXED, STEPS, RELAX_SECONDS = 1e-6, 500, 6.0
#: Atoms closer than this, as a part of the sum of their covalent radii, are no structure any more.
CRUSHED = 0.55
#: Files of the training data larger than this (bytes) are not read for the sake of an audit.
LARGEST_FILE = 50e6
#: The smallest gap (Angstrom) between images of a molecule made into a crystal, and the energy (eV/atom) that this may
#: cost: a model of single molecules may say anything about a dense crystal, numbers without meaning as well.
TIGHTEST, CRYSTAL_ENERGY = 2.4, 5.0
#: Where the training data are not known, distances below this part of the sum of covalent radii are unlike them.
USUAL_CONTACT = 0.6


class Subject(NamedTuple):
    """A structure to audit: its name, ``ase.Atoms`` without a calculator, the time (s) of one evaluation of energy and
    forces, and whether the forces vanish."""

    name: str
    atoms: object
    seconds: float
    relaxed: bool = False


class Case:
    """The model and what its checks need.

    model : ``Model``; calculator : what is audited, default ``EANNCalculator(model)``; data : list of ``Structure`` or
    None; seed : of everything drawn.

    subjects : `Subject`, the smallest first: a relaxed structure, the same out of its minimum and in a small, skewed
    cell; where there are data, or the training data are here, also structures drawn from them.
    shortest : {"C-H": (distance, whose it is)} in Angstrom: the shortest of the training data, of the data or,
    where neither is known, guessed from covalent radii.
    """

    def __init__(self, model, data=None, seed=0, calculator=None):
        if calculator is None:
            from eann_lite.calculator import EANNCalculator

            calculator = EANNCalculator(model)
        self.model, self.calculator, self.data, self.seed = model, calculator, data, seed
        self.trained_on = _training_structures(model)
        self.origin = _origin_text(data, self.trained_on)
        self.shortest = _shortest(model.specification.elements, self.trained_on, data)
        self.subjects = self._subjects()

    def rng(self):
        """A new generator with the seed of the audit."""
        return np.random.default_rng(self.seed)

    def calmest(self, seconds):
        """The `Subject` with the smallest forces of those with two atoms or more and at most so long an evaluation, or
        None."""
        quick = [s for s in self.subjects if len(s.atoms) > 1 and s.seconds <= seconds]
        return min(quick, key=lambda subject: np.abs(self.forces(subject.atoms)).max(), default=None)

    def attached(self, atoms):
        """A copy of ``atoms`` with the audited calculator."""
        copy = atoms.copy()
        copy.calc = self.calculator
        return copy

    def energy(self, atoms):
        """Energy (eV) of ``atoms``; NaN where the calculator refuses."""
        try:
            return float(self.attached(atoms).get_potential_energy())
        except InputError:
            return np.nan

    def forces(self, atoms):
        """Forces (n, 3) in eV/Angstrom."""
        return self.attached(atoms).get_forces(apply_constraint=False)

    # ---- structures -------------------------------------------------------------------------------------------------

    def _subjects(self):
        known, elements = self.data or self.trained_on, self.model.specification.elements
        found = []
        if known:
            found += self._around(_lowest(known, self.model))
            found += [(name, atoms, False) for name, atoms in _drawn(known, self.rng())]
        if not known or min(len(atoms) for _, atoms, _ in found) > LARGE:
            found += self._around(built(elements, self.seed))
        subjects = [Subject(name, atoms, self._seconds(atoms), still) for name, atoms, still in found]
        subjects = [subject for subject in subjects if np.isfinite(subject.seconds)]
        if not subjects:
            raise InputError(
                "the model gives no finite energy for any structure to audit. Give structures that it knows: "
                "eann-lite audit MODEL DATA."
            )
        # By size and not by time, which is not the same every time: what is checked on depends on the order.
        return sorted(subjects, key=lambda subject: (len(subject.atoms), subject.atoms.pbc.any()))

    def _around(self, atoms):
        """(name, atoms, whether the forces vanish): relaxed, out of its minimum, and a molecule in a small cell too."""
        relaxed, still = self._relax(atoms)
        name = relaxed.get_chemical_formula()
        moved = relaxed.copy()
        moved.rattle(MOVED, seed=self.seed)
        found = [(f"{'relaxed' if still else 'partly relaxed'} {name}", relaxed, still)]
        found.append((f"{name}, atoms moved by {MOVED} A", moved, False))
        if not relaxed.pbc.any() and len(relaxed) <= LARGE:
            found.append((f"{name} in a small skewed cell", self._crystal(moved), False))
        return found

    def _crystal(self, atoms):
        """A molecule in the smallest skewed cell in which the model is not beside itself: there, images interact, and
        every law and the stress of periodic structures apply."""
        alone, cutoff = self.energy(atoms), self.model.specification.cutoff
        for gap in np.arange(min(TIGHTEST, 0.6 * cutoff), 0.9 * cutoff, 0.4):
            crystal = boxed(atoms, self.rng(), gap)
            if abs(self.energy(crystal) - alone) < CRYSTAL_ENERGY * len(atoms):
                return crystal
        return boxed(atoms, self.rng(), 0.9 * cutoff)

    def _seconds(self, atoms):
        """Time of one evaluation after a first one (that one may compile); infinite where it is refused."""
        moved, times = self.attached(atoms), []
        try:
            moved.get_forces()
            for _ in range(3):
                moved.positions += 1e-7
                start = time.perf_counter()
                moved.get_potential_energy()
                moved.get_forces()
                times.append(time.perf_counter() - start)
        except InputError:
            return np.inf
        return min(times)

    def _relax(self, atoms):
        """(relaxed copy, True), or (``atoms`` as far as they came, False)."""
        from ase.optimize import BFGS, LBFGS

        start = time.monotonic()
        moved = self.attached(atoms)
        kind = BFGS if len(atoms) <= 30 else LBFGS
        best = atoms.copy()
        try:
            for _ in kind(moved, logfile=None, maxstep=0.1).irun(fmax=RELAXED, steps=STEPS):
                if crushed(moved):
                    return best, False
                best = moved.copy()
                if time.monotonic() - start > RELAX_SECONDS:
                    break
            largest = np.abs(moved.get_forces()).max()
        except InputError:
            return best, False
        best.calc = None
        return best, bool(largest < 100 * RELAXED)


def crushed(atoms):
    """Whether two atoms are so close that the structure means nothing."""
    from eann_lite.structures import Structure
    from eann_lite.structures.distances import shortest_distances

    return bool(shortest_distances([Structure.from_atoms(atoms.copy())]).per_atom.min() < CRUSHED)


def built(elements, seed=0):
    """``ase.Atoms`` of all ``elements``: a molecule, a crystal of one element, or a cluster drawn by ``seed``.

    >>> built(("O", "H")).get_chemical_formula(), built(("Cu",)).pbc.all()
    ('H2O', np.True_)
    """
    from ase import Atoms
    from ase.build import bulk, molecule
    from ase.data import atomic_numbers, covalent_radii, reference_states

    for name in MOLECULES:
        atoms = molecule(name)
        if set(atoms.get_chemical_symbols()) == set(elements):
            atoms.set_initial_magnetic_moments(None)
            return Atoms(numbers=atoms.numbers, positions=atoms.positions)
    if len(elements) == 1:
        state = reference_states[atomic_numbers[elements[0]]] or {}
        if state.get("symmetry") in ("fcc", "bcc", "diamond"):
            return bulk(elements[0], cubic=True)
    # Every element twice, one after another, each atom about one bond away from the atoms before.
    rng = np.random.default_rng(seed)
    symbols = (list(elements) * 2)[: max(BUILT_ATOMS, len(elements))]
    radii = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in symbols])
    positions = np.zeros((1, 3))
    while len(positions) < len(symbols):
        k = len(positions)
        near = rng.integers(k)
        direction = rng.normal(size=3)
        point = positions[near] + (radii[near] + radii[k]) * direction / np.linalg.norm(direction)
        if (np.linalg.norm(positions - point, axis=1) > 0.95 * (radii[:k] + radii[k])).all():
            positions = np.vstack([positions, point])
    return Atoms(symbols, positions=positions)


def boxed(atoms, rng, gap):
    """``atoms`` in a skewed cell whose images are about ``gap`` (Angstrom) apart."""
    copy = atoms.copy()
    sides = np.ptp(copy.positions, axis=0) + gap
    copy.set_cell(np.diag(sides) + np.tril(rng.uniform(-0.2, 0.2, (3, 3)) * sides, -1))
    copy.pbc = True
    return copy


def _training_structures(model):
    """Structures of the files that the model says it was trained on, as far as they are here and not large; a list."""
    from eann_lite.structures import read_structures
    from eann_lite.training.parts import shipped_files

    shipped = {os.path.basename(path): path for path in shipped_files()}
    parts = model.provenance.get("data") or {}
    train = parts.get("train") if isinstance(parts, dict) else None
    found = []
    for source in (train or {}).get("sources") or []:
        path = Path(shipped.get(os.path.basename(source), source))
        if not path.is_file() or path.stat().st_size > LARGEST_FILE:
            return []
        try:
            found += read_structures(str(path))
        except InputError:
            return []
    return [structure for structure in found if set(structure.symbols) <= set(model.specification.elements)]


def _origin_text(data, trained_on):
    if data:
        return "drawn from DATA, and made from its lowest structure"
    if trained_on:
        return "drawn from the training data, and made from their lowest structure"
    return "built from the elements of the model: its training data are not here, and no DATA was given"


def _drawn(structures, rng):
    """Some (name, Atoms) of the structures, drawn at random among the smaller half."""
    sizes = np.array([structure.n_atoms for structure in structures])
    small = np.flatnonzero(sizes <= np.median(sizes))
    chosen = rng.choice(small, min(DRAWN, small.size), replace=False)
    return [(source_text(structures[q], q), _bare(structures[q])) for q in sorted(chosen)]


def source_text(structure, number):
    """Where a structure comes from, without the folder."""
    return os.path.basename(structure.source) or f"structure {number}"


def _lowest(structures, model):
    """Atoms of the structure of lowest energy per atom among the smallest ones: of the labels, else of the model."""
    from eann_lite.structures import Structure

    sizes = np.array([structure.n_atoms for structure in structures])
    smallest = [structures[q] for q in np.flatnonzero(sizes <= np.median(sizes))[:2000]]
    labelled = [structure for structure in smallest if structure.energy is not None]
    shift = dict(zip(model.specification.elements, model.constants["reference_energies"]))

    def height(structure, energy):
        return (energy - sum(shift[symbol] for symbol in structure.symbols)) / structure.n_atoms

    if labelled:
        return _bare(min(labelled, key=lambda structure: height(structure, structure.energy)))
    some = smallest[: max(1, 2000 // smallest[0].n_atoms)]
    energies = [result.energy for result in model.evaluate([Structure.from_atoms(_bare(s)) for s in some])]
    return _bare(some[int(np.argmin([height(s, e) for s, e in zip(some, energies)]))])


def _bare(structure):
    from ase import Atoms

    return Atoms(numbers=structure.numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc)


def _shortest(elements, trained_on, data):
    """{"C-H": (Angstrom, of what)} for every pair of elements."""
    from ase.data import atomic_numbers, covalent_radii

    from eann_lite.structures.distances import shortest_distances

    found = {}
    for i, one in enumerate(elements):
        for other in elements[i:]:
            radii = covalent_radii[atomic_numbers[one]] + covalent_radii[atomic_numbers[other]]
            reason = "no such pair is in the training data" if trained_on or data else "the training data are not here"
            guess = (USUAL_CONTACT * radii, f"{USUAL_CONTACT} of the covalent radii: {reason}")
            found["-".join(sorted((one, other)))] = guess
    for structures, whose in ((data, "DATA"), (trained_on, "the training data")):
        if structures:
            known = shortest_distances(structures).by_elements
            found |= {pair: (known[pair][0], f"shortest in {whose}") for pair in known if pair in found}
    return found
