"""Loops of Python's side: packing pairs, drawing structures into a batch sorted by element and back, transposing."""

import math

import numpy as np

from eann_lite.compiled import compile_loops, helper
from eann_lite.kernels.arrays import empty, full
from eann_lite.kernels.lattice import FLATTEST


@compile_loops
def batch_order(chosen, offsets, sequence, species, n_species, order, place, structure):
    """Fill order (N,): packed atom of every batch atom; place (all atoms,): its inverse; structure (N,).

    Atoms of one element are consecutive, in the order of the chosen structures and in each one of ``sequence`` (all
    atoms,).  Returns counts (n_species,).
    """
    counts = full(n_species, 0, np.int64)
    for q in chosen:
        for i in range(offsets[q], offsets[q + 1]):
            counts[species[i]] += 1
    fill = full(n_species, 0, np.int64)
    for s in range(1, n_species):
        fill[s] = fill[s - 1] + counts[s - 1]
    for n in range(chosen.size):
        for place_in_sequence in range(offsets[chosen[n]], offsets[chosen[n] + 1]):
            i = sequence[place_in_sequence]
            s = species[i]
            order[fill[s]] = i
            place[i] = fill[s]
            structure[fill[s]] = n
            fill[s] += 1
    return counts


@compile_loops
def batch_pairs_first(order, first, batch_first):
    """batch_first (N+1,): offsets of the batch's pairs by centre."""
    batch_first[0] = 0
    for n in range(order.size):
        batch_first[n + 1] = batch_first[n] + first[order[n] + 1] - first[order[n]]


@compile_loops
def batch_pairs(
    order, place, structure, first, neighbor, image, batch_first, images_before, batch_neighbor, batch_image
):
    """Neighbours and images of the batch's pairs, in the batch's own numbering.

    images_before (Q,): images of the structures before each one of the batch.
    """
    for n in range(order.size):
        begin = first[order[n]]
        for p in range(begin, first[order[n] + 1]):
            q = batch_first[n] + p - begin
            batch_neighbor[q] = place[neighbor[p]]
            batch_image[q] = images_before[structure[n]] + image[p]


@compile_loops
def rows_of_pairs(blocks, first, neighbor, row, block_first, atom_first):
    """Fill row (P,), block_first (B + 1,) and atom_first (N + 1,) of a ``Batch``; rows are numbered as pairs need them."""
    last = full(atom_first.size - 1, -1, np.int64)  # The last row of each atom.
    atom_first[:] = 0
    rows = 0
    for b in range(blocks.shape[0]):
        block_first[b] = rows
        for p in range(first[blocks[b, 0]], first[blocks[b, 1]]):
            j = neighbor[p]
            if last[j] < block_first[b]:
                last[j] = rows
                atom_first[j + 1] += 1
                rows += 1
            row[p] = last[j]
    block_first[blocks.shape[0]] = rows
    for j in range(last.size):
        atom_first[j + 1] += atom_first[j]


@compile_loops
def rows_of_atoms(neighbor, row, atom_first, atom_rows):
    """Fill atom_rows (R,) of a ``Batch``, after ``rows_of_pairs``."""
    place = atom_first[:-1].copy()
    rows = 0
    for p in range(row.size):
        if row[p] == rows:  # The first pair of this row.
            j = neighbor[p]
            atom_rows[place[j]] = rows
            place[j] += 1
            rows += 1


@compile_loops
def energies_as_given(order, atomic, energies):
    """Fill energies (N,) with those of the batch's atoms in the order of one structure; returns their sum.

    W. Kahan's compensated sum, as energies of all electrons of many atoms leave few digits for their differences.
    """
    total, excess = 0.0, 0.0
    for n in range(order.size):
        energies[order[n]] = atomic[n]
        added = atomic[n] - excess
        new = total + added
        excess = (new - total) - added
        total = new
    return total


@helper
def _volume(cell, pbc):
    """Volume of a cell (3, 3); 0 where it is periodic in no direction or its vectors are linearly dependent."""
    if not (pbc[0] or pbc[1] or pbc[2]):
        return 0.0
    volume, box = 0.0, 1.0
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        volume += cell[0, x] * (cell[1, y] * cell[2, z] - cell[1, z] * cell[2, y])
        box *= math.sqrt(cell[x, 0] * cell[x, 0] + cell[x, 1] * cell[x, 1] + cell[x, 2] * cell[x, 2])
    return abs(volume) if abs(volume) > FLATTEST * box else 0.0


@compile_loops
def forces_as_given(order, atomic, virials, cell, pbc, forces, stress):
    """Fill forces (N, 3) likewise, and stress (6,) in ASE's order, xx yy zz yz xz xy, from virials (N, 3, 3).

    Returns whether all forces and virials are finite, and whether there is a stress: a volume of a periodic cell.
    """
    magnitudes = 0.0
    strain_derivative = full((3, 3), 0, np.float64)
    for n in range(order.size):
        for x in range(3):
            forces[order[n], x] = atomic[n, x]
            magnitudes += abs(atomic[n, x])
            for y in range(3):
                strain_derivative[x, y] += virials[n, x, y]
                magnitudes += abs(virials[n, x, y])
    volume = _volume(cell, pbc)
    if volume > 0.0:
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            stress[x] = strain_derivative[x, x] / volume
            stress[3 + x] = strain_derivative[y, z] / volume  # Virials are symmetric.
    return magnitudes < math.inf, volume > 0.0  # NaN is not


@compile_loops
def batch_images(chosen, first_image, shifts, cells, images_before):
    """Displacements (I, 3) in Angstrom of all images of the chosen structures; fills images_before (Q,)."""
    n = 0
    for c in range(chosen.size):
        images_before[c] = n
        n += first_image[chosen[c] + 1] - first_image[chosen[c]]
    images = empty((n, 3), np.float64)
    n = 0
    for q in chosen:
        for row in range(first_image[q], first_image[q + 1]):
            for x in range(3):
                images[n, x] = (
                    shifts[row, 0] * cells[q, 0, x] + shifts[row, 1] * cells[q, 1, x] + shifts[row, 2] * cells[q, 2, x]
                )
            n += 1
    return images


@compile_loops
def shift_boxes(offsets, first, shift, boxes):
    """boxes (Q, 2, 3): smallest and largest shift (P, 3) of every structure's pairs along each direction, 0 included.

    Returns how many rows a table of shifts for all structures takes: the whole box for each one, or as many as it has
    pairs where the box is larger, which atoms far outside of their cell may cause.
    """
    rows = 0
    for q in range(boxes.shape[0]):
        boxes[q] = 0
        begin, end = first[offsets[q]], first[offsets[q + 1]]
        for p in range(begin, end):
            for x in range(3):
                boxes[q, 0, x], boxes[q, 1, x] = min(boxes[q, 0, x], shift[p, x]), max(boxes[q, 1, x], shift[p, x])
        rows += min(_box_size(boxes[q]), max(1, end - begin))
    return rows


@helper
def _box_size(box):
    size = 1.0
    for x in range(3):
        size *= box[1, x] - box[0, x] + 1.0
    return np.int64(min(size, 1e15))


@compile_loops
def number_images(offsets, first, neighbor, shift, boxes, first_image, shifts, to, image):
    """The pairs in 32 bits: to = neighbor, and images.

    first_image (Q + 1,): offsets of each structure's shifts (I, 3); image (P,): place of a pair's shift among them.
    """
    rows = 0
    for q in range(boxes.shape[0]):
        first_image[q] = rows
        begin, end = first[offsets[q]], first[offsets[q + 1]]
        size, box = _box_size(boxes[q]), boxes[q]
        whole = size <= max(1, end - begin)
        if whole:
            for a in range(box[0, 0], box[1, 0] + 1):
                for b in range(box[0, 1], box[1, 1] + 1):
                    for c in range(box[0, 2], box[1, 2] + 1):
                        shifts[rows, 0], shifts[rows, 1], shifts[rows, 2] = a, b, c
                        rows += 1
        for p in range(begin, end):
            to[p] = neighbor[p]
            if whole:
                place = 0
                for x in range(3):
                    place = place * (box[1, x] - box[0, x] + 1) + shift[p, x] - box[0, x]
                image[p] = place
            else:
                image[p] = p - begin
                for x in range(3):
                    shifts[rows, x] = shift[p, x]
                rows += 1
    first_image[boxes.shape[0]] = rows


@compile_loops
def transpose_matrices(places, vector, out):
    """Matrices (rows, columns) of a flat vector, written the other way round at their own places of ``out``.

    places (n, 3): where each begins, its rows, its columns.
    """
    for n in range(places.shape[0]):
        begin, rows, columns = places[n, 0], places[n, 1], places[n, 2]
        for c in range(columns):
            for r in range(rows):
                out[begin + c * rows + r] = vector[begin + r * columns + c]
