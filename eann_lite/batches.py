"""Packed structures: many structures in a few arrays, and batches of them as the kernels take them."""

import itertools
from typing import NamedTuple

import numpy as np

from eann_lite.compilation.placed import Placed
from eann_lite.errors import InputError
from eann_lite.kernels import kernels

#: About how many atoms of one element are worked on at a time: each time the networks are read anew.
BLOCK = 128
#: Where threads share a batch, rows (atoms, least), an array as kernels take it: blocks of up to so many atoms, as long
#: as there are that many blocks at least; the larger the better for one thread, but none of fewer than SMALL_BLOCK
#: atoms.  Six blocks are even for 2, 3 and 6 threads (with eight, 192 atoms take 3 to 5 % longer on one), 24 for 4, 8
#: and 12 as well.  Larger ones, with what products ask for ahead of time, leave the second cache.
SHARED_BLOCKS, SMALL_BLOCK = np.array([[64, 6], [96, 24]]), 16
#: From this many atoms on the kernels of one batch run with threads.
THREADED_FROM = 128
#: More atoms than any batch has.
NEVER = 2**62

#: Structures of so many atoms or more are ordered along a curve in space: smaller ones fit into the second cache.  Its
#: bins are so wide (Angstrom), and so many bits count them along each direction.
LARGE, CURVE_BIN, CURVE_BITS = 500, 2.0, 12

#: More neighbours than this per atom (a hundred times those of a metal at 6 Angstrom) are taken for a mistake.
MOST_NEIGHBORS = 10000


class PackedStructures(NamedTuple):
    """Structures one after another, with their pairs.

    positions (N, 3) Angstrom; species (N,) index into the model's elements; offsets (Q+1,) of the structures' atoms;
    cells (Q, 3, 3); pbc (Q, 3); sequence (N,) the atoms of each structure in the order in which batches take them.
    Pairs by centre: first (N+1,); and, of 32 bits, as a large data set has many, neighbor (P,) atom of all; image (P,)
    place of the neighbour's image among those of the structure, whose shifts (in cell vectors) are rows first_image[q]
    to first_image[q + 1] of shifts (I, 3).
    """

    positions: np.ndarray
    species: np.ndarray
    offsets: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    sequence: np.ndarray
    first: np.ndarray
    neighbor: np.ndarray
    image: np.ndarray
    first_image: np.ndarray
    shifts: np.ndarray

    @property
    def n_structures(self):
        return self.offsets.size - 1

    def without_pairs(self):
        """The same structures, from which no batch can be drawn any more."""
        return self._replace(sequence=None, first=None, neighbor=None, image=None, first_image=None, shifts=None)


def species_of(numbers, elements, where):
    """Index (n,) into ``elements`` of each atomic number; an element the model does not know is an InputError."""
    from eann_lite.elements import atomic_number, chemical_symbol

    table = np.full(120, -1)
    table[[atomic_number(symbol) for symbol in elements]] = np.arange(len(elements))
    numbers = np.asarray(numbers)
    species = table[np.clip(numbers, 0, 119)]
    if species.size and species.min() < 0:
        atom = int(np.argmin(species))
        name = chemical_symbol(int(numbers[atom])) if 1 <= numbers[atom] <= 118 else f"atomic number {numbers[atom]}"
        raise InputError(
            f"{where}: atom {atom} is {name}, but the model knows only {', '.join(elements)}. "
            "Fit a model with this element in its training data, or remove the atom."
        )
    return species


def pack_structures(structures, elements, reach):
    """PackedStructures of a list of ``Structure``, with all pairs closer than ``reach`` (Angstrom)."""
    from eann_lite.neighbors import batch_pairs, check_geometry

    numbers, positions, cells, pbc = zip(*((s.numbers, s.positions, s.cell, s.pbc) for s in structures))
    sizes = np.array([len(n) for n in numbers])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    positions = np.concatenate(positions)
    cells, pbc = np.concatenate(cells).reshape(-1, 3, 3), np.concatenate(pbc).reshape(-1, 3)
    try:
        species = species_of(np.concatenate(numbers), elements, "structures")
        _check_density(structures, sizes, cells, pbc, reach)
        pairs = batch_pairs(positions, offsets, cells, pbc, reach)
    except InputError:
        # All at once is faster; one by one tells which structure it is.
        for q, structure in enumerate(structures):
            where = structure.source or f"structure {q}"
            check_geometry(structure.positions, structure.cell, structure.pbc, where=where)
            species_of(structure.numbers, elements, where)
        raise
    return packed_with_pairs(positions, species, offsets, cells, pbc, pairs)


def _check_density(structures, sizes, cells, pbc, reach):
    """Refuse periodic structures so dense that their pairs would not fit in memory: lengths of another unit, mostly."""
    periodic = np.flatnonzero(pbc.all(axis=1))
    with np.errstate(all="ignore"):  # What is no cell is refused elsewhere.
        volumes = np.abs(np.linalg.det(cells[periodic]))
        neighbors = sizes[periodic] * 4.19 * reach**3 / volumes
    for n in np.flatnonzero(neighbors > MOST_NEIGHBORS):
        q = periodic[n]
        raise InputError(
            f"{structures[q].source or f'structure {q}'}: {sizes[q]} atoms in {volumes[n]:.3g} Angstrom^3 have about "
            f"{neighbors[n]:.0f} neighbours each within {reach:g} Angstrom. Give the unit of lengths (length_unit) if "
            "it is not Angstrom, or a smaller cutoff."
        )


def packed_with_pairs(positions, species, offsets, cells, pbc, pairs):
    """PackedStructures from given pairs (``eann_lite.neighbors.Pairs``)."""
    from eann_lite.kernels import packing

    n_structures = offsets.size - 1
    boxes, first_image = np.empty((n_structures, 2, 3), np.int64), np.empty(n_structures + 1, np.int64)
    shifts = np.empty((packing.shift_boxes(offsets, pairs.first, pairs.shift, boxes), 3))
    neighbor, image = (np.empty(pairs.neighbor.size, np.int32) for _ in range(2))
    packing.number_images(
        offsets, pairs.first, pairs.neighbor, pairs.shift, boxes, first_image, shifts, neighbor, image
    )
    sequence = _sequence(positions, offsets, cells, pbc)
    return PackedStructures(
        positions, species, offsets, cells, pbc, sequence, pairs.first, neighbor, image, first_image, shifts
    )


def _sequence(positions, offsets, cells, pbc):
    """The atoms of every structure, those of large ones so that what is near in space is near in memory."""
    sequence = np.arange(len(positions))
    for q in np.flatnonzero(np.diff(offsets) >= LARGE):
        atoms = slice(offsets[q], offsets[q + 1])
        sequence[atoms] = offsets[q] + _along_curve(positions[atoms], cells[q], pbc[q])
    return sequence


def _along_curve(positions, cell, pbc):
    """Atoms (n,) along the curve of G. M. Morton that fills space: bits of x, y and z in turn make up the key."""
    from eann_lite.kernels.lattice import complete_cell

    complete, _ = complete_cell(cell, pbc)
    fractions = positions @ np.linalg.inv(complete)
    fractions -= np.where(pbc, np.floor(fractions), fractions.min(axis=0))
    bins = np.minimum(fractions * np.linalg.norm(complete, axis=1) / CURVE_BIN, 2**CURVE_BITS - 1).astype(np.int64)
    key = np.zeros(len(positions), np.int64)
    for bit in range(CURVE_BITS):
        for x in range(3):
            key |= ((bins[:, x] >> bit) & 1) << (3 * bit + x)
    return np.argsort(key, kind="stable")


def draw_batch(packed, chosen, n_species, threaded=None):
    """Batch of the structures with indices ``chosen`` (Q,), in that order."""
    return draw_placed_batch(packed, chosen, n_species, threaded).value


def draw_placed_batch(packed, chosen, n_species, threaded=None):
    """The same, ``Placed`` for kernels already, which then is done in compiled code.

    threaded : None lets the number of atoms decide; False where several batches are computed side by side.
    """
    chosen = np.ascontiguousarray(chosen, dtype=np.int64)
    try:
        batch, memory = kernels("packing").drawn(
            chosen, packed.offsets, packed.sequence, packed.species, packed.positions, packed.cells, packed.first,
            packed.neighbor, packed.image, packed.first_image, packed.shifts, n_species,
            *blocks_of(threaded),
        )  # fmt: skip
    except OverflowError:
        check_pairs((packed.first[packed.offsets[chosen + 1]] - packed.first[packed.offsets[chosen]]).sum())
        raise  # There is no other reason.
    return Placed.made(batch, memory)


def blocks_of(threaded=None):
    """How ``kernels.packing`` cuts batches into blocks: (block, shared_blocks, small_block, threaded_from) there."""
    return BLOCK, SHARED_BLOCKS, SMALL_BLOCK, THREADED_FROM if threaded is None else 0 if threaded else NEVER


def check_pairs(n_pairs):
    """Refuse more pairs in one batch than 32 bits count."""
    if n_pairs >= 2**31:
        raise InputError(f"{n_pairs} pairs in one batch: expected less than {2**31}. Give fewer structures.")


def batches_of_atoms(offsets, chosen, atoms_per_piece):
    """Consecutive pieces of ``chosen`` (structure indices), even in size, of about ``atoms_per_piece`` atoms each.

    One piece or an even number of them, where there are as many structures: of three, one of two threads would take
    two.
    """
    return pieces_and_atoms(offsets, chosen, atoms_per_piece)[0]


def pieces_and_atoms(offsets, chosen, atoms_per_piece):
    """The same pieces, and how many atoms there are in all of them."""
    if len(chosen) == 1:
        (only,) = chosen.tolist()
        return [chosen], int(offsets[only + 1] - offsets[only])
    chosen = np.ascontiguousarray(chosen, dtype=np.int64)
    cuts, n_atoms = kernels("packing").cuts_between_pieces(offsets, chosen, atoms_per_piece)
    return [chosen[begin:end] for begin, end in itertools.pairwise(cuts.tolist())], n_atoms
