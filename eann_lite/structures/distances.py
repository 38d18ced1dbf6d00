"""Distances inside structures: atoms at the same place, and the shortest distance of each pair of elements."""

from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError

#: Atoms closer than this (Angstrom) are at the same place.
SAME_PLACE = 1e-3
#: Shortest distances are looked for within these distances (Angstrom), the next one only in structures where the one
#: before found no more than so many ordered pairs for each atom.  The first, small one is there for positions in
#: nanometres: within 3 Angstrom every atom would have thousands of neighbours.
SEARCH = (0.3, 0.2), (3.0, 0.0), (10.0, 0.0)
#: At most about this many atoms go into one search, to bound memory.
CHUNK_ATOMS = 20_000
#: Elements that form no bonds: their distances say nothing about bond lengths.
NOBLE_GASES = (2, 10, 18, 36, 54, 86)


class Shortest(NamedTuple):
    """Shortest distances of Q structures with N atoms together.

    per_structure (Q,) Angstrom, infinite where no pair is within reach; first, second (Q,) the two atoms, -1 where
    none; per_atom (N,) smallest distance to a neighbour as a multiple of the sum of the two covalent radii, infinite
    where there is none (noble gases are not counted); by_elements: dict from "C-H" to (Angstrom, structure).
    """

    per_structure: np.ndarray
    first: np.ndarray
    second: np.ndarray
    per_atom: np.ndarray
    by_elements: dict


# ---- atoms at the same place ----------------------------------------------------------------------------------------


def check_separate(structures):
    """InputError if two atoms (or an atom and an image) of a structure are closer than ``SAME_PLACE``."""
    from scipy.spatial import cKDTree

    free = [i for i, structure in enumerate(structures) if not structure.pbc.any()]
    if free:
        # One tree for all: the structure's number is a fourth coordinate, so atoms of different ones are 1 apart.
        owner = np.repeat(free, [structures[i].n_atoms for i in free])
        points = np.column_stack([np.concatenate([structures[i].positions for i in free]), owner])
        for a, b in cKDTree(points).query_pairs(SAME_PLACE, output_type="ndarray"):
            begin = int(np.searchsorted(owner, owner[a]))
            _refuse(structures[owner[a]], int(owner[a]), int(a) - begin, int(b) - begin)
    for i, structure in enumerate(structures):
        if structure.pbc.any():
            _check_periodic(structure, i)


def _check_periodic(structure, number):
    """In fractional coordinates every cell is a box with periodic sides, which the tree knows."""
    from scipy.spatial import cKDTree

    cell = _complete_cell(structure.cell, structure.pbc)
    inverse = np.linalg.inv(cell)
    fractional = structure.positions @ inverse
    fractional[:, structure.pbc] %= 1.0
    fractional[fractional >= np.where(structure.pbc, 1.0, np.inf)] = 0.0
    reach = SAME_PLACE * np.linalg.norm(inverse, 2)
    tree = cKDTree(fractional, boxsize=np.where(structure.pbc, 1.0, 0.0))
    for a, b in tree.query_pairs(reach, output_type="ndarray"):
        difference = fractional[a] - fractional[b]
        difference -= np.round(difference) * structure.pbc
        if np.linalg.norm(difference @ cell) < SAME_PLACE:
            _refuse(structure, number, int(a), int(b))


def _complete_cell(cell, pbc):
    """Cell (3, 3) with orthonormal vectors, orthogonal to the periodic ones, where it is not periodic."""
    complete = np.array(cell)
    periodic = int(pbc.sum())
    complete[~pbc] = np.linalg.svd(complete[pbc])[2][periodic:]
    return complete


def _refuse(structure, number, a, b):
    a, b = sorted((a, b))
    x, y, z = structure.positions[a]
    raise InputError(
        f"{structure.source or f'structure {number}'}: atom {a} ({structure.symbols[a]}) and atom {b} "
        f"({structure.symbols[b]}) are at the same place, ({x:.4f}, {y:.4f}, {z:.4f}) A"
        f"{' or an image of it' if structure.pbc.any() else ''}: expected at least {SAME_PLACE} A between atoms. "
        "Remove one of them; if positions are fractional or rounded, read or write them with more care."
    )


# ---- shortest distances ---------------------------------------------------------------------------------------------


def shortest_distances(structures):
    """`Shortest` of a list of structures, images included; InputError where two atoms are at the same place."""
    check_separate(structures)
    counts = [structure.n_atoms for structure in structures]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    found = Shortest(
        np.full(len(structures), np.inf), np.full(len(structures), -1), np.full(len(structures), -1),
        np.full(offsets[-1], np.inf), {},
    )  # fmt: skip
    wanted = [i for i, structure in enumerate(structures) if counts[i] > 1 or structure.pbc.any()]
    for cutoff, most in SEARCH:
        pairs_found = np.concatenate(
            [_search(structures, chunk, offsets, cutoff, found) for chunk in _chunks(wanted, counts)] or [[]]
        )
        wanted = [i for i, pairs in zip(wanted, pairs_found) if pairs <= most * counts[i]]
    return found


def _chunks(wanted, counts):
    """Runs of the wanted structures with at most about ``CHUNK_ATOMS`` atoms each."""
    chunk, atoms = [], 0
    for i in wanted:
        if chunk and atoms + counts[i] > CHUNK_ATOMS:
            yield chunk
            chunk, atoms = [], 0
        chunk.append(i)
        atoms += counts[i]
    if chunk:
        yield chunk


def _search(structures, chunk, all_offsets, cutoff, found):
    """Enter the shortest distances below ``cutoff`` of the structures ``chunk`` into ``found``.

    Returns the number of ordered pairs of each of these structures.
    """
    from ase.data import chemical_symbols, covalent_radii

    from eann_lite.neighbors import batch_pairs

    picked = [structures[i] for i in chunk]
    counts = np.array([structure.n_atoms for structure in picked])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    positions = np.concatenate([structure.positions for structure in picked])
    numbers = np.concatenate([structure.numbers for structure in picked])
    cells = np.stack([structure.cell for structure in picked])
    pbc = np.stack([structure.pbc for structure in picked])
    pairs = batch_pairs(positions, offsets, cells, pbc, cutoff)
    pairs_found = np.diff(pairs.first[offsets])
    if pairs.neighbor.size == 0:
        return pairs_found
    center = np.repeat(np.arange(len(positions)), np.diff(pairs.first))
    owner = np.repeat(np.arange(len(picked)), pairs_found)
    vector = positions[pairs.neighbor] - positions[center]
    vector += np.einsum("px,pxy->py", pairs.shift.astype(float), cells[owner])
    distance = np.linalg.norm(vector, axis=1)

    radii = covalent_radii[numbers].copy()
    radii[np.isin(numbers, NOBLE_GASES)] = 0.0
    radii = np.where((radii[center] > 0.0) & (radii[pairs.neighbor] > 0.0), radii[center] + radii[pairs.neighbor], 0.0)
    relative = np.divide(distance, radii, out=np.full(distance.size, np.inf), where=radii > 0.0)
    with_pairs = np.flatnonzero(np.diff(pairs.first))
    all_atoms = np.concatenate([np.arange(all_offsets[i], all_offsets[i + 1]) for i in chunk])
    found.per_atom[all_atoms[with_pairs]] = np.minimum.reduceat(relative, pairs.first[:-1][with_pairs])

    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    shortest = np.minimum.reduceat(distance, starts)
    hits = np.flatnonzero(distance == np.repeat(shortest, np.diff(starts, append=owner.size)))
    for p in hits[np.flatnonzero(np.diff(owner[hits], prepend=-1))]:
        i = chunk[owner[p]]
        found.per_structure[i] = distance[p]
        found.first[i] = center[p] - offsets[owner[p]]
        found.second[i] = pairs.neighbor[p] - offsets[owner[p]]

    kind = 200 * np.minimum(numbers[center], numbers[pairs.neighbor])
    kind += np.maximum(numbers[center], numbers[pairs.neighbor])
    for value in np.flatnonzero(np.bincount(kind)):
        members = np.flatnonzero(kind == value)
        p = members[np.argmin(distance[members])]
        name = "-".join(sorted((chemical_symbols[value // 200], chemical_symbols[value % 200])))
        if distance[p] < found.by_elements.get(name, (np.inf, -1))[0]:
            found.by_elements[name] = (float(distance[p]), chunk[owner[p]])
    return pairs_found
