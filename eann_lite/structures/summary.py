"""What is in a set of structures: counts, ranges, shortest distances, copies, and a fingerprint."""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from eann_lite.structures.distances import shortest_distances
from eann_lite.structures.structure import as_structures

AMU_PER_CUBIC_ANGSTROM = 1.66053906660  # g/cm^3 (CODATA 2018)
#: Names of the lattice vectors, of which the periodic ones name the kind of periodicity.
AXES = "abc"


@dataclass(frozen=True)
class DataSummary:
    """What `summarise` found; ``str()`` gives a readable text, `to_dict` plain data for JSON.

    Ranges are dicts with min, mean, max (and std where it says so); a quantity that no structure has is None.
    Structures and atoms are named by their indices, counted from 0.

    n_structures, n_atoms : numbers; atoms_per_structure : range
    elements : symbol -> number of atoms; compositions : number of different chemical formulas
    periodicity : "none", "abc", "ab", ... (periodic lattice vectors) -> number of structures
    labels : "energies", "forces", "stresses", "none" -> number of structures that have them (or no label at all)
    energy_per_atom : range and std (eV) of energy / number of atoms
    energy_spread : standard deviation (eV/atom) of what is left after a least-squares energy for each element
    forces : "rms" and "max" (eV/Angstrom) of the components, and "structure", "atom" of the largest one
    shortest_distance : "distance" (Angstrom), "structure", "atoms", "elements"; images count
    shortest_by_elements : "C-H" -> shortest distance (Angstrom), below 3 Angstrom
    volume_per_atom : range (Angstrom^3), density : range (g/cm^3), of structures periodic in three directions
    duplicates : groups of indices of structures with the same atoms, positions, cell and periodicity, bit for bit
    fingerprint : see `fingerprint`
    """

    n_structures: int
    n_atoms: int
    atoms_per_structure: dict
    elements: dict
    compositions: int
    periodicity: dict
    labels: dict
    energy_per_atom: dict | None
    energy_spread: float | None
    forces: dict | None
    shortest_distance: dict | None
    shortest_by_elements: dict
    volume_per_atom: dict | None
    density: dict | None
    duplicates: list
    fingerprint: str

    def to_dict(self):
        """All fields as plain numbers, texts, lists and dicts."""
        return asdict(self)

    def __str__(self):
        rows = [("structures", self._structures_text()), ("elements", self._elements_text())]
        rows.append(("periodic", ", ".join(f"{_periodic_text(k)} {n}" for k, n in self.periodicity.items())))
        rows.append(("labels", self._labels_text()))
        if self.energy_per_atom is not None:
            e = self.energy_per_atom
            spread = f"mean {e['mean']:.4f}, std {e['std']:.4f}"
            rows.append(("energy", f"{e['min']:.4f} to {e['max']:.4f} eV/atom, {spread}"))
            rows.append(("", f"std {1e3 * self.energy_spread:.4g} meV/atom after a best energy for each element"))
        if self.forces is not None:
            f = self.forces
            place = f"(structure {f['structure']}, atom {f['atom']})"
            rows.append(("forces", f"rms {f['rms']:.4g} eV/A, largest component {f['max']:.4g} {place}"))
        if self.shortest_distance is not None:
            d = self.shortest_distance
            rows.append(("shortest", f"{d['distance']:.3f} A, {d['elements']} (structure {d['structure']})"))
            rows.append(("", ", ".join(f"{name} {r:.3f}" for name, r in self.shortest_by_elements.items())))
        if self.volume_per_atom is not None:
            v, g = self.volume_per_atom, self.density
            rows.append(("volume", f"{_range_text(v)} A^3/atom, density {_range_text(g)} g/cm^3"))
        copies = sum(len(group) - 1 for group in self.duplicates)
        rows.append(("copies", f"{copies} exact duplicates" if copies else "no exact duplicates"))
        rows.append(("fingerprint", self.fingerprint[:16]))
        return "\n".join(f"{name:<12}{text}" for name, text in rows if text)

    def _structures_text(self):
        a = self.atoms_per_structure
        each = f"{a['min']}" if a["min"] == a["max"] else f"{a['min']} to {a['max']}"
        formulas = "one composition" if self.compositions == 1 else f"{self.compositions} compositions"
        return f"{self.n_structures} with {self.n_atoms} atoms, {each} atoms each, {formulas}"

    def _elements_text(self):
        return ", ".join(f"{symbol} {count}" for symbol, count in self.elements.items())

    def _labels_text(self):
        parts = []
        for name in ("energies", "forces", "stresses"):
            count = self.labels[name]
            if count in (0, self.n_structures):
                parts.append(f"{name} in {'all' if count else 'none'}")
            else:
                parts.append(f"{name} in {count} (missing in {self.n_structures - count})")
        if self.labels["none"]:
            parts.append(f"no label at all in {self.labels['none']}")
        return ", ".join(parts)


def summarise(structures):
    """`DataSummary` of ``ase.Atoms``, a `Structure`, or a list of these.

    >>> from ase.build import molecule
    >>> print(summarise([molecule("H2O"), molecule("H2")]))  # doctest: +ELLIPSIS
    structures  2 with 5 atoms, 2 to 3 atoms each, 2 compositions
    elements    H 4, O 1
    periodic    not at all 2
    labels      energies in none, forces in none, stresses in none, no label at all in 2
    shortest    0.737 A, H-H (structure 1)
                H-H 0.737, H-O 0.969
    copies      no exact duplicates
    fingerprint ...
    """
    structures = as_structures(structures)
    counts = np.array([structure.n_atoms for structure in structures])
    energies = _energies(structures, counts)
    volumes, densities = _volumes(structures)
    shortest = shortest_distances(structures)
    return DataSummary(
        n_structures=len(structures),
        n_atoms=int(counts.sum()),
        atoms_per_structure={"min": int(counts.min()), "mean": float(counts.mean()), "max": int(counts.max())},
        elements=_elements(structures),
        compositions=len({_composition(structure) for structure in structures}),
        periodicity=_counted(_periodicity(structure) for structure in structures),
        labels=_labels(structures),
        energy_per_atom=energies[0],
        energy_spread=energies[1],
        forces=_forces(structures),
        shortest_distance=_shortest(structures, shortest),
        shortest_by_elements={name: shortest.by_elements[name][0] for name in sorted(shortest.by_elements)},
        volume_per_atom=volumes,
        density=densities,
        duplicates=find_duplicates(structures),
        fingerprint=fingerprint(structures),
    )


def fingerprint(structures):
    """Hexadecimal SHA-256 of numbers, positions, cells, periodicity, labels and weights, in their order.

    The same for the same data whatever file it came from, on every machine; minus zero counts as zero, and sources do
    not count.  Hashed for each structure, little-endian: number of atoms (int64), atomic numbers (int64), positions
    and cell (float64), pbc (one byte each); then energy, forces, stress and weight, each "-" if absent, else "+" and
    float64.

    >>> from ase import Atoms
    >>> fingerprint(Atoms("H")) == fingerprint(Atoms("H")) != fingerprint(Atoms("He"))
    True
    """
    digest = hashlib.sha256()
    for structure in as_structures(structures):
        digest.update(_geometry_bytes(structure))
        for label in (structure.energy, structure.forces, structure.stress, structure.weight):
            digest.update(b"-" if label is None else b"+" + _float_bytes(label))
    return digest.hexdigest()


def find_duplicates(structures):
    """Groups (lists of indices) of structures with the same atoms in the same order, positions, cell and periodicity.

    Bit for bit, except that minus zero counts as zero; labels do not count.

    >>> from ase import Atoms
    >>> find_duplicates([Atoms("H"), Atoms("He"), Atoms("H")])
    [[0, 2]]
    """
    groups = {}
    for i, structure in enumerate(as_structures(structures)):
        groups.setdefault(hashlib.sha256(_geometry_bytes(structure)).digest(), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def composition_matrix(structures):
    """(Q, S) number of atoms of each element in each structure, and the S atomic numbers, ascending."""
    elements = np.unique(np.concatenate([structure.numbers for structure in structures]))
    matrix = np.zeros((len(structures), elements.size))
    for i, structure in enumerate(structures):
        matrix[i] = np.bincount(structure.numbers, minlength=119)[elements]
    return matrix, elements


# ---- parts of the summary -------------------------------------------------------------------------------------------


def _float_bytes(values):
    return (np.asarray(values, dtype="<f8") + 0.0).tobytes()  # Adding zero turns minus zero into zero.


def _geometry_bytes(structure):
    return (
        structure.n_atoms.to_bytes(8, "little")
        + structure.numbers.astype("<i8").tobytes()
        + _float_bytes(structure.positions)
        + _float_bytes(structure.cell)
        + structure.pbc.astype("u1").tobytes()
    )


def _range(values):
    return {"min": float(np.min(values)), "mean": float(np.mean(values)), "max": float(np.max(values))}


def _counted(names):
    counts = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _elements(structures):
    from ase.data import chemical_symbols

    totals = sum(np.bincount(structure.numbers, minlength=119) for structure in structures)
    return {chemical_symbols[z]: int(totals[z]) for z in np.flatnonzero(totals)}


def _composition(structure):
    return np.bincount(structure.numbers, minlength=119).tobytes()


def _periodicity(structure):
    return "".join(axis for axis, periodic in zip(AXES, structure.pbc) if periodic) or "none"


def _labels(structures):
    have = {
        "energies": [s.energy is not None for s in structures],
        "forces": [s.forces is not None for s in structures],
        "stresses": [s.stress is not None for s in structures],
    }
    none = [not any(flags) for flags in zip(*have.values())]
    return {**{name: sum(flags) for name, flags in have.items()}, "none": sum(none)}


def _energies(structures, counts):
    """Range of the energies per atom with std, and the spread left after a best energy for each element (eV/atom)."""
    labelled = [i for i, structure in enumerate(structures) if structure.energy is not None]
    if not labelled:
        return None, None
    energy = np.array([structures[i].energy for i in labelled])
    n = counts[labelled]
    matrix, _ = composition_matrix([structures[i] for i in labelled])
    matrix = matrix / n[:, None]
    rest = energy / n - matrix @ np.linalg.lstsq(matrix, energy / n, rcond=None)[0]
    return {**_range(energy / n), "std": float(np.std(energy / n))}, float(np.std(rest))


def _forces(structures):
    labelled = [i for i, structure in enumerate(structures) if structure.forces is not None]
    if not labelled:
        return None
    largest = np.array([np.abs(structures[i].forces).max() for i in labelled])
    total = sum(np.sum(structures[i].forces ** 2) for i in labelled)
    size = sum(structures[i].forces.size for i in labelled)
    i = labelled[int(np.argmax(largest))]
    atom = int(np.argmax(np.abs(structures[i].forces).max(axis=1)))
    return {"rms": float(np.sqrt(total / size)), "max": float(largest.max()), "structure": i, "atom": atom}


def _shortest(structures, shortest):
    i = int(np.argmin(shortest.per_structure))
    if np.isinf(shortest.per_structure[i]):
        return None
    atoms = [int(shortest.first[i]), int(shortest.second[i])]
    symbols = "-".join(sorted(structures[i].symbols[atom] for atom in atoms))
    return {"distance": float(shortest.per_structure[i]), "structure": i, "atoms": atoms, "elements": symbols}


def _volumes(structures):
    """Ranges of volume per atom (Angstrom^3) and density (g/cm^3) of those periodic in three directions, or None."""
    from ase.data import atomic_masses

    solid = [structure for structure in structures if structure.pbc.all()]
    if not solid:
        return None, None
    volumes = np.array([structure.volume for structure in solid])
    masses = np.array([atomic_masses[structure.numbers].sum() for structure in solid])
    atoms = np.array([structure.n_atoms for structure in solid])
    return _range(volumes / atoms), _range(masses / volumes * AMU_PER_CUBIC_ANGSTROM)


def _periodic_text(name):
    return {"none": "not at all", "abc": "in all directions"}.get(name, f"along {' and '.join(name)}")


def _range_text(values):
    low, high = f"{values['min']:.4g}", f"{values['max']:.4g}"
    return low if low == high else f"{low} to {high}"
