"""Loops of Python's side: packing pairs, cutting requests into pieces, drawing batches sorted by element, and back."""

import math

import numpy as np

from eann_lite.compiled import compile_loops, helper, helper_on_separate_arrays
from eann_lite.kernels.arguments import Batch
from eann_lite.kernels.arrays import bytes_of, empty, full
from eann_lite.kernels.lattice import FLATTEST


@compile_loops
def drawn(
    chosen, offsets, sequence, species, positions, cells, first, neighbor, image, first_image, shifts, n_species,
    block, shared_blocks, small_block, threaded_from,
):  # fmt: skip
    """The ``Batch`` of the structures ``chosen`` (Q,), from the arrays of ``PackedStructures``; and its bytes.

    block, shared_blocks, small_block : BLOCK, SHARED_BLOCKS and SMALL_BLOCK of ``eann_lite.batches``.
    threaded_from : from so many atoms on threads share a batch.

    Raises OverflowError where there are more pairs than 32 bits count.
    """
    batch = draw(
        chosen, offsets, sequence, species, positions, cells, first, neighbor, image, first_image, shifts, n_species,
        block, shared_blocks, small_block, threaded_from,
    )  # fmt: skip
    return batch, bytes_of(batch)


@helper
def draw(
    chosen, offsets, sequence, species, positions, cells, first, neighbor, image, first_image, shifts, n_species,
    block, shared_blocks, small_block, threaded_from,
):  # fmt: skip
    """The ``Batch`` that ``drawn`` gives."""
    start = empty(chosen.size + 1, np.int64)  # Of each structure in the batch, before its atoms are sorted.
    start[0] = 0
    for n in range(chosen.size):
        start[n + 1] = start[n] + offsets[chosen[n] + 1] - offsets[chosen[n]]
    order, place, segments = _order(chosen, start, offsets, sequence, species, n_species)
    n_atoms = order.size
    structure, species_of_batch = empty(n_atoms, np.int64), empty(n_atoms, np.int64)
    positions_of_batch, first_of_batch = empty((n_atoms, 3), np.float64), empty(n_atoms + 1, np.int64)
    for n in range(chosen.size):
        for m in range(start[n], start[n + 1]):
            structure[place[m]] = n
    first_of_batch[0] = 0
    for n in range(n_atoms):
        i = order[n]
        species_of_batch[n] = species[i]
        for x in range(3):
            positions_of_batch[n, x] = positions[i, x]
        first_of_batch[n + 1] = first_of_batch[n] + first[i + 1] - first[i]
    images, images_before = _images(chosen, first_image, shifts, cells)
    n_pairs = first_of_batch[n_atoms]
    if n_pairs >= 2**31:
        raise OverflowError("pairs of a batch")
    threaded = n_atoms >= threaded_from
    if threaded:
        block = _shared_block(n_atoms, shared_blocks, small_block)
    neighbor_of_batch, image_of_batch = empty(n_pairs, np.int32), empty(n_pairs, np.int32)
    for n in range(n_atoms):
        i, q = order[n], structure[n]
        # Of 32 bits, as images are.
        move, before = start[q] - offsets[chosen[q]], np.int32(images_before[q])
        given, found = slice(first[i], first[i + 1]), slice(first_of_batch[n], first_of_batch[n + 1])
        _neighbors_of_atom(neighbor[given], move, place, neighbor_of_batch[found])
        _images_of_atom(image[given], before, image_of_batch[found])
    blocks = _blocks(segments, block)
    row, block_first, atom_first, atom_rows = _rows_of_blocks(blocks, first_of_batch, neighbor_of_batch)
    return Batch(
        chosen.size, order, structure, species_of_batch, positions_of_batch, first_of_batch, neighbor_of_batch,
        image_of_batch, images, blocks, row, block_first, atom_first, atom_rows, segments, threaded,
    )  # fmt: skip


@helper
def _shared_block(n_atoms, shared_blocks, small_block):
    """About how many atoms a block has where threads share a batch: by sizes alone, so that results do not depend on
    threads."""
    block = small_block
    for n in range(shared_blocks.shape[0]):
        block = max(block, min(shared_blocks[n, 0], n_atoms // shared_blocks[n, 1]))
    return block


@helper_on_separate_arrays
def _neighbors_of_atom(neighbor, move, place, neighbor_of_batch):
    """Where the neighbours of one atom's pairs went."""
    for n in range(neighbor.size):
        neighbor_of_batch[n] = place[np.uint64(neighbor[n] + move)]  # Without a sign, as in ``geometry``.


@helper_on_separate_arrays
def _images_of_atom(image, before, image_of_batch):
    """The images of one atom's pairs, after those of other structures."""
    for n in range(image.size):
        image_of_batch[n] = image[n] + before


@helper
def _order(chosen, start, offsets, sequence, species, n_species):
    """order (N,), place (N,): where each atom of the chosen structures, one after another, went; segments (S, 2).

    Atoms of one element are consecutive, in the order of the structures and in each one of ``sequence`` (all atoms,).
    """
    segments, order, place = full((n_species, 2), 0, np.int64), empty(start[-1], np.int64), empty(start[-1], np.int64)
    for q in chosen:
        for i in range(offsets[q], offsets[q + 1]):
            segments[species[i], 1] += 1
    for s in range(1, n_species):
        segments[s, 0] = segments[s - 1, 1]
        segments[s, 1] += segments[s, 0]
    fill = segments[:, 0].copy()
    for n in range(chosen.size):
        begin = offsets[chosen[n]]
        for m in range(begin, offsets[chosen[n] + 1]):
            i = sequence[m]
            s = species[i]
            order[fill[s]], place[start[n] + i - begin] = i, fill[s]
            fill[s] += 1
    return order, place, segments


@helper
def _images(chosen, first_image, shifts, cells):
    """Displacements (I, 3) in Angstrom of all images of the chosen structures, and how many come before each (Q,)."""
    before = empty(chosen.size, np.int64)
    n = 0
    for c in range(chosen.size):
        before[c] = n
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
    return images, before


@helper
def _number_of_parts(n_atoms, size):
    """n_atoms / size to the nearest whole number, of two the even one, but at least 1."""
    parts = n_atoms // size
    over = 2 * (n_atoms - parts * size) - size
    return parts + 1 if parts == 0 or over > 0 or (over == 0 and parts % 2 == 1) else parts


@compile_loops
def cuts_and_largest(
    offsets, first, chosen, atoms_per_piece, n_species, block, shared_blocks, small_block, threaded_from
):  # fmt: skip
    """The cuts of ``cuts_between_pieces``, whether threads share a batch, which then is the only one, and how many atoms,
    pairs and blocks a piece has at most.

    first (N + 1,) : offsets of the pairs of all atoms; n_species and what follows as in ``drawn``.
    """
    cuts, n_atoms = _cuts(offsets, chosen, atoms_per_piece)
    most_atoms, most_pairs = 0, 0
    for g in range(cuts.size - 1):
        piece_atoms, piece_pairs = 0, 0
        for c in range(cuts[g], cuts[g + 1]):
            begin, end = offsets[chosen[c]], offsets[chosen[c] + 1]
            piece_atoms += end - begin
            piece_pairs += first[end] - first[begin]
        most_atoms, most_pairs = max(most_atoms, piece_atoms), max(most_pairs, piece_pairs)
    threaded = cuts.size == 2 and n_atoms >= threaded_from
    if threaded:
        block = _shared_block(n_atoms, shared_blocks, small_block)
    # ``_number_of_parts`` of n atoms is less than n / block + 1.
    return cuts, threaded, most_atoms, most_pairs, most_atoms // block + n_species


@compile_loops
def cuts_between_pieces(offsets, chosen, atoms_per_piece):
    """(cuts (G + 1,), number of atoms): pieces of the structures ``chosen`` (Q,), and how many atoms all of them have.

    Piece g is chosen[cuts[g] : cuts[g + 1]]; pieces are even in size, of about ``atoms_per_piece`` atoms each, one or
    an even number of them where there are as many structures.  Each structure has an atom or more.
    """
    return _cuts(offsets, chosen, atoms_per_piece)


@helper
def _cuts(offsets, chosen, atoms_per_piece):
    n_atoms = 0
    for q in chosen:
        n_atoms += offsets[q + 1] - offsets[q]
    n_pieces = _number_of_parts(n_atoms, atoms_per_piece)
    if n_pieces > 1 and n_pieces % 2 == 1:
        n_pieces += 1
    cuts = empty(min(n_pieces, chosen.size) + 1, np.int64)
    n, last, end = 0, -1, 0
    for c in range(chosen.size):
        end += offsets[chosen[c] + 1] - offsets[chosen[c]]
        piece = (end - 1) * n_pieces // n_atoms  # That of the last atom.
        if piece != last:
            cuts[n] = c
            n, last = n + 1, piece
    cuts[n] = chosen.size
    return cuts[: n + 1], n_atoms


@helper
def _blocks(segments, block):
    """Rows (first atom, end, element) of even blocks of one element, of about ``block`` atoms each."""
    counts = empty(segments.shape[0], np.int64)
    total = 0
    for s in range(counts.size):
        n_atoms = segments[s, 1] - segments[s, 0]
        counts[s] = _number_of_parts(n_atoms, block) if n_atoms > 0 else 0
        total += counts[s]
    blocks = empty((total, 3), np.int64)
    n = 0
    for s in range(counts.size):
        begin, n_atoms = segments[s, 0], segments[s, 1] - segments[s, 0]
        for b in range(counts[s]):
            blocks[n, 0], blocks[n, 1] = begin + n_atoms * b // counts[s], begin + n_atoms * (b + 1) // counts[s]
            blocks[n, 2] = s
            n += 1
    return blocks


@helper
def _rows_of_blocks(blocks, first, neighbor):
    """row (P,), block_first (B + 1,), atom_first (N + 1,) and atom_rows (R,) of a ``Batch``: rows are numbered as pairs
    need them."""
    n_atoms = first.size - 1
    row, block_first = empty(neighbor.size, np.int32), empty(blocks.shape[0] + 1, np.int64)
    last, atom_first = full(n_atoms, -1, np.int64), full(n_atoms + 1, 0, np.int64)  # last: the last row of each atom.
    atom = empty(neighbor.size, np.int32)  # That of each row, of which there are no more than pairs.
    rows = 0
    for b in range(blocks.shape[0]):
        block_first[b], pairs = rows, slice(first[blocks[b, 0]], first[blocks[b, 1]])
        rows = _rows_of_block(neighbor[pairs], rows, last, atom, row[pairs])
    block_first[blocks.shape[0]] = rows
    for r in range(rows):
        atom_first[atom[r] + 1] += 1
    for j in range(n_atoms):
        atom_first[j + 1] += atom_first[j]
    atom_rows, place = empty(rows, np.int32), atom_first[:-1].copy()
    for r in range(rows):
        atom_rows[place[atom[r]]] = r
        place[atom[r]] += 1
    return row, block_first, atom_first, atom_rows


@helper_on_separate_arrays
def _rows_of_block(neighbor, first_row, last, atom, row):
    """row of the pairs of one block, whose first row is ``first_row``; returns the row after its last one."""
    rows = first_row
    for p in range(neighbor.size):
        j = np.uint64(neighbor[p])  # Without a sign, as in ``geometry``.
        own = last[j]
        if own < first_row:
            own = last[j] = rows
            atom[rows] = neighbor[p]
            rows += 1
        row[p] = own
    return rows


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
