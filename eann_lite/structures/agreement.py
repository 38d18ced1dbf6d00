"""Whether energies, forces and stresses can be labels of the same structures: two simple tests of signs and units.

From one structure to another with the same atoms the energy changes by minus the mean of both forces times the
displacements plus the mean of both stresses times strain and volume.  That is exact for springs, good for small
displacements of any potential, and far off between structures that have little to do with one another, of which
nothing is said then.  What stays good but for a factor has labels of another sign, or of another unit.

And the two closest atoms of a structure push each other apart the more, or pull each other together the less, the
closer they are; and stresses rise with the volume.
"""

from typing import NamedTuple

import numpy as np

from eann_lite.structures.summary import composition_matrix

#: Fewest pairs of structures that are judged.
FEWEST_PAIRS = 10
#: The median deviation, relative to the change of the energy, up to which forces and stresses are believed to tell
#: that change; how many times that deviation the part of one of them must be for its factor to be judged, and how much
#: of the change, at least: what goes on along with something larger takes up that one's anharmonic rest.
BELIEVED, CLEAR, LEAST_PART = 0.25, 2.0, 0.1
#: So much off, relative to it, a large change of the energy may be that is explained: steps down a wall are not small.
ROUGHLY = 0.5
#: Forces and stresses whose parts go together more closely than this are not told apart.
TOGETHER = 0.9
#: Closest atoms are bonded, or pressed together, up to this multiple of the sum of their covalent radii.
BONDED = 1.1
#: Forces (eV/Angstrom) that drive them apart or together by less than this are none: round-off, by symmetry.
LEAST_FORCE = 1e-3
#: Fewest structures whose closest atoms are judged.
FEWEST_BONDS = 20
#: Fewest cells whose stresses are judged, and how many more for each element; which part of the cells with forces is
#: calm for sure, and how many times as strong as in these forces may be in others; which part of the variance of
#: stresses that heat leaves the volumes must explain, and which part of the cells must be stretched, and pressed, at
#: least.
FEWEST_CELLS, CELLS_PER_ELEMENT, CALM, HOTTER, TOLD_BY_VOLUME, STRETCHED = 20, 5, 0.25, 2.0, 0.5, 0.1


class Agreement(NamedTuple):
    """By what factors energies change compared with what other labels say; 1 is sound, None is not known.

    forces, stress : factors; pairs : number of pairs of structures they come from; n_atoms : median of their sizes.
    """

    forces: float | None
    stress: float | None
    pairs: int
    n_atoms: float


def energies_against_derivatives(structures):
    """`Agreement` of the labels of structures; pairs are those with the same atoms that follow each other.

    >>> from eann_lite.structures import Structure
    >>> def stretched(r):
    ...     gradients = [[0, 0, -10 * r], [0, 0, 10 * r]]
    ...     return Structure([1, 1], [[0, 0, 0], [0, 0, 1 + r]], energy=5 * r * r, forces=gradients)
    >>> round(energies_against_derivatives([stretched(0.02 * k) for k in range(12)]).forces, 6)
    -1.0
    """
    pairs, changes = _consecutive(structures)
    change, by_forces, by_stress = changes.T
    size = float(np.median([structures[j].n_atoms for _, j in pairs])) if pairs else 0.0
    factors = [None, None]
    if change.size >= FEWEST_PAIRS:
        factors = _factors(change, by_forces, by_stress)
    return Agreement(*factors, int(change.size), size)


def explained(structures, doubtful):
    """Those (set) of the indices ``doubtful`` whose energies forces and stresses explain.

    Structures that follow each other lead to one that is not doubtful, and each of the changes on the way is, within
    ROUGHLY, what these say.

    >>> from eann_lite.structures import Structure
    >>> def stretched(r, energy):
    ...     forces = [[0, 0, 10 * r], [0, 0, -10 * r]]
    ...     return Structure([1, 1], [[0, 0, 0], [0, 0, 1 + r]], energy=energy, forces=forces)
    >>> explained([stretched(r, 5 * r * r) for r in (0.3, 0.2, 0.1)] + [stretched(0.1, 7.0)], [0, 1, 3])
    {0, 1}
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs, changes = _consecutive(structures)
    change, by_forces, by_stress = changes.T
    sound = np.abs(change - by_forces - by_stress) <= ROUGHLY * np.abs(change)
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)[sound].T
    graph = coo_matrix((np.ones(ends.shape[1]), ends), shape=2 * (len(structures),))
    part = connected_components(graph, directed=False)[1]
    believed = set(part[np.setdiff1d(np.arange(len(structures)), doubtful)].tolist())
    return {i for i in doubtful if part[i] in believed}


def _consecutive(structures):
    """Pairs of structures with the same atoms that follow each other, [(i, j)], and their `_changes` (pairs, 3)."""
    last, pairs, changes = {}, [], []
    for j, structure in enumerate(structures):
        if structure.energy is None or structure.forces is None:
            continue
        kind = structure.numbers.tobytes(), structure.pbc.tobytes()
        i, last[kind] = last.get(kind), j
        row = None if i is None else _changes(structures[i], structure)
        if row is not None:
            pairs.append((i, j))
            changes.append(row)
    return pairs, np.array(changes).reshape(-1, 3)


def closest_atoms_against_forces(structures, shortest):
    """(rank correlation, part that is pushed apart, number) of the closest atoms of each structure, or None for few.

    The correlation is that of their distance, as a multiple of the sum of their covalent radii, with the force that
    drives them apart: -0.7 to -1 where bonds vibrate (organic molecules, water, metals, germanium, CO2 on Ni), and so
    much above zero for gradients.  ``shortest`` : `eann_lite.structures.distances.Shortest` of the structures.
    """
    from ase.data import covalent_radii
    from scipy.stats import rankdata

    ratios, apart = [], []
    for i, structure in enumerate(structures):
        first, second = int(shortest.first[i]), int(shortest.second[i])
        if structure.forces is None or first == second:
            continue
        vector = _nearest_image(structure, structure.positions[second] - structure.positions[first])
        distance = float(np.linalg.norm(vector))
        ratio = distance / covalent_radii[structure.numbers[[first, second]]].sum()
        # In skewed cells rounding may miss the image that is closest.
        if ratio < BONDED and distance < shortest.per_structure[i] + 1e-6:
            force = (structure.forces[second] - structure.forces[first]) @ vector / distance
            if abs(force) > LEAST_FORCE:
                ratios.append(ratio)
                apart.append(force)
    if len(ratios) < FEWEST_BONDS or np.ptp(ratios) == 0.0 or np.ptp(apart) == 0.0:
        return None
    ranks = [rankdata(values) for values in (ratios, apart)]
    return float(np.corrcoef(*ranks)[0, 1]), float(np.mean(np.array(apart) > 0.0)), len(ratios)


def bulk_modulus(structures):
    """(B, number): the bulk modulus (eV/Angstrom^3) that stresses have from cell to cell, and of how many; or None.

    From a least-squares fit of tr(stress) / 3 = B (1 - sum of n_s v_s / V) + h <F^2> with B, h and a volume v_s for
    each element, so compositions may differ.  The last term is that of heat, which presses, too: hotter cells that are
    larger as well would seem to be pressed the more the larger they are.  As a melt has more of it than a crystal with
    such forces, cells whose forces are more than twice as strong as those of the calmest quarter are left out; and
    cells without forces, unless none has any.  None where volumes explain too little beside heat, as at one volume;
    where nearly all are stretched, beyond whose steepest point stresses fall, or nearly all pressed; and where a volume
    is not positive.

    >>> from eann_lite.structures import Structure
    >>> cells = [Structure([29], [[0, 0, 0]], a * np.eye(3), True, stress=(a**3 / 12 - 1) * np.eye(3))
    ...          for a in np.random.default_rng(0).uniform(2.2, 2.4, 60)]
    >>> B, number = bulk_modulus(cells)
    >>> round(B, 1), number
    (1.0, 60)
    """
    cells = [s for s in structures if s.stress is not None and s.pbc.all()]
    elements = {z for s in cells for z in s.numbers.tolist()}
    fewest = FEWEST_CELLS + CELLS_PER_ELEMENT * len(elements)
    if len(cells) < fewest:
        return None
    cells, strength = _calm(cells)
    if len(cells) < fewest:
        return None
    counts, _ = composition_matrix(cells)
    stress = np.array([np.trace(s.stress) / 3.0 for s in cells])
    per_volume = counts / np.array([s.volume for s in cells])[:, None]
    beside_volumes = np.ones((len(cells), 1))
    if strength.any():
        beside_volumes = np.stack([np.ones(len(cells)), (strength / strength.max()) ** 2], axis=1)
    columns = np.concatenate([-per_volume, beside_volumes], axis=1)
    found, _, rank, _ = np.linalg.lstsq(columns, stress, rcond=1e-6)
    rest = np.var(stress - columns @ found)
    by_heat = np.var(stress - beside_volumes @ np.linalg.lstsq(beside_volumes, stress, rcond=1e-6)[0])
    modulus, pressed = found[counts.shape[1]], found[: counts.shape[1]]
    stretched = np.mean(stress > 0.0)
    if rank < found.size or not rest < (1.0 - TOLD_BY_VOLUME) * by_heat or (pressed / modulus <= 0.0).any():
        return None
    return (float(modulus), len(cells)) if STRETCHED < stretched < 1.0 - STRETCHED else None


def _calm(cells):
    """Those of the cells that are not much hotter than the calmest ones, and how strong their forces are (eV/Angstrom).

    Forces of round-off are none.  Of cells without forces nobody knows; where none has any, all count.
    """
    if any(s.forces is not None for s in cells):
        cells = [s for s in cells if s.forces is not None]
    strength = np.array([0.0 if s.forces is None else np.sqrt(np.mean(s.forces**2)) for s in cells])
    strength[strength <= LEAST_FORCE] = 0.0
    if not strength.any():
        return cells, strength
    calm = strength <= HOTTER * np.quantile(strength[strength > 0.0], CALM)
    return [s for s, chosen in zip(cells, calm) if chosen], strength[calm]


def _nearest_image(structure, vectors):
    lattice = structure.cell[structure.pbc]
    return vectors - np.round(vectors @ np.linalg.pinv(lattice)) @ lattice if lattice.size else vectors


def _changes(one, other):
    """(change of the energy, what forces say of it, what stresses say of it) in eV from one structure to the other.

    None where the cells differ and no stresses tell what that does.
    """
    change = other.energy - one.energy
    forces, cell = 0.5 * (one.forces + other.forces), 0.5 * (one.cell + other.cell)
    if np.allclose(one.cell, other.cell, rtol=0.0, atol=1e-9):
        step = _nearest_image(one, other.positions - one.positions)
        return change, -np.sum(forces * step), 0.0
    if one.stress is None or other.stress is None or not one.pbc.all():
        return None
    # Atoms that keep their places in the cell go with the strain: that part is the stress's.
    places = [np.linalg.solve(s.cell.T, s.positions.T).T for s in (one, other)]
    step = places[1] - places[0]
    step = (step - np.round(step)) @ cell
    strain = np.linalg.solve(cell, other.cell - one.cell)
    stress = 0.5 * (one.volume * one.stress + other.volume * other.stress)
    return change, -np.sum(forces * step), np.sum(stress * strain)


def _factors(change, by_forces, by_stress):
    """[factor of the forces' part, of the stresses' part] at which most pairs agree, None where they do not tell it."""
    # Each pair counts as much as any other, but for those whose energies hardly differ: walls do not rule.
    scale = np.maximum(np.abs(change), 0.1 * np.median(np.abs(change)))
    if not scale.all():
        return [None, None]
    with np.errstate(over="ignore", invalid="ignore"):  # Of numbers that are none of any label.
        target, parts = change / scale, np.array([by_forces, by_stress]).T / scale[:, None]
        sizes = np.sqrt(np.mean(parts**2, axis=0))
    if not (np.isfinite(target).all() and np.isfinite(sizes).all()):
        return [None, None]
    present = sizes > 0.0
    columns = parts[:, present] / sizes[present]
    if columns.shape[1] == 0 or (present.all() and abs(np.mean(np.prod(columns, axis=1))) > TOGETHER):
        return [None, None]
    weight = np.ones_like(target)
    # Least squares, reweighted towards the smallest sum of absolute deviations.
    for _ in range(30):
        factors = np.linalg.lstsq(columns * weight[:, None], target * weight, rcond=None)[0]
        deviation = np.abs(target - columns @ factors)
        weight = 1.0 / np.sqrt(np.maximum(deviation, 1e-6))
    off = float(np.median(deviation))
    found = iter(zip(factors / sizes[present], np.median(np.abs(columns * factors), axis=0)))
    result = [next(found) if here else (None, 0.0) for here in present]
    least = max(CLEAR * off, LEAST_PART)
    return [float(factor) if size > least and off < BELIEVED else None for factor, size in result]
