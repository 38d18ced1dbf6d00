"""The search for neighbour pairs: each unordered pair is found once and written at both of its ends.

So the index of the reversed pair costs no search.

1. The periodic cell vectors are reduced to short ones of the same lattice, directions without periodicity get
   orthogonal unit vectors, and the atoms are wrapped and sorted into bins.  A small molecule without periodicity is
   one bin.
2. For each bin, the atoms of half of the bins around it are gathered (the other half sees the pair from its other
   end) and compared with each atom of the bin.  A bin index beyond the cell is a bin inside it and an image, so a cell
   much smaller than the cutoff is no special case.
3. Counts become offsets, and each pair is written at both ends, with the shift between the positions as given.

Other than the kernels beside it, this one is asked how much room the result takes, so it makes its arrays itself.  The
loops are serial, and the order of the pairs is a function of the input alone: same input, same bits.
"""

import math
from typing import NamedTuple

import numpy as np

from eann_lite.compiled import compile_loops, helper
from eann_lite.kernels.arrays import empty, full
from eann_lite.kernels.lattice import FLATTEST, complete_cell, dot, inverse_cell, reduce_cell

#: Up to this many atoms without periodicity are one bin: all pairs are tried.
ONE_BIN_ATOMS = 300
#: Bins per cutoff length along the three directions.  The first runs fastest in memory, where narrow bins cost nothing;
#: along the others wide bins give few and long runs of atoms.
BINS_PER_CUTOFF = (3, 1, 1)
#: At most this many bins per atom, so that a huge sparse box costs no memory.
BINS_PER_ATOM = 4
#: The search reaches this much (relative) beyond the cutoff: more than any rounding of a bin index.
REACH_MARGIN = 1e-6
#: Positions beyond this (Angstrom) have lost the digits that forces need; they are refused.
FARTHEST = 1e8
#: Two atoms closer than this (Angstrom) are at the same place, up to the rounding of wrapped positions.
SAME_PLACE = 1e-8
#: More bins than this around one bin mean a cell far too small for the cutoff.
MOST_BINS_AROUND = 1_000_000
#: The three numbers of an image are packed into one integer, this many bits each.
IMAGE_BITS = 21
IMAGE_ZERO = 1 << (IMAGE_BITS - 1)
IMAGE_MASK = (1 << IMAGE_BITS) - 1

GOOD, BAD_GEOMETRY, TOO_MANY_IMAGES, TWO_AT_ONE_PLACE = 0, 1, 2, 3


class _Atoms(NamedTuple):
    """Atoms in the order of the bins.

    order : (N,) int64, index of the atom in the input
    points : (3, N) Angstrom, wrapped into the reduced cell
    images : (N, 3) int64, what was taken off: ``position = point + images @ cell``
    """

    order: np.ndarray
    points: np.ndarray
    images: np.ndarray


class _Grid(NamedTuple):
    """Bins of one structure.

    bins : (3,) int64, their number along each direction
    reach : (3,) int64, how many bins away a neighbour can be
    start : (bins + 1,) int64, first atom (in the sorted order) of each bin, the first direction running fastest
    cell : (3, 3) Angstrom, reduced cell = combination @ given cell
    combination : (3, 3) int64
    pbc : (3,) bool
    """

    bins: np.ndarray
    reach: np.ndarray
    start: np.ndarray
    cell: np.ndarray
    combination: np.ndarray
    pbc: np.ndarray


class _Candidates(NamedTuple):
    """Atoms that may be neighbours of the atoms of one bin, with spare room at the end.

    atom : (C,) int64, index in the sorted order
    image : (C,) int64, packed image of the given cell
    x, y, z : (C,) Angstrom, where the image is
    inside : (C,) uint64, 1 within the cutoff of the present atom, else 0
    found : (C,) uint64, those within the cutoff
    """

    atom: np.ndarray
    image: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    inside: np.ndarray
    found: np.ndarray


class _Half(NamedTuple):
    """Unordered pairs (a, b) of sorted atoms, CSR by the atom a they were found from, with spare room at the end.

    first : (N + 1,) int64
    neighbor : (Q,) int32, b
    image : (Q,) int64, packed image of b as seen from a, between the wrapped points
    backward : (N,) int64, how often an atom is the b of a pair
    """

    first: np.ndarray
    neighbor: np.ndarray
    image: np.ndarray
    backward: np.ndarray


# ---- bins -----------------------------------------------------------------------------------------------------------


@helper
def _one_bin(positions, begin, end, atoms):
    """The atoms ``begin:end`` as they are, in one bin without images."""
    for i in range(begin, end):
        atoms.order[i] = i
        for x in range(3):
            atoms.points[x, i] = positions[i, x]
            atoms.images[i, x] = 0
    start = empty(2, np.int64)
    start[0], start[1] = begin, end
    bins, zeros = full(3, 1, np.int64), full((3, 3), 0, np.int64)
    return _Grid(bins, zeros[0], start, full((3, 3), 0, np.float64), zeros, full(3, False, np.bool_))


@helper
def _wrap(positions, begin, end, cell, pbc, inverse):
    """Points (n, 3) in the cell, their fractional coordinates (n, 3), images (n, 3) taken off, of atoms begin:end."""
    n = end - begin
    points, fractions, images = empty((n, 3), np.float64), empty((n, 3), np.float64), full((n, 3), 0, np.int64)
    for i in range(n):
        for d in range(3):
            if pbc[d]:
                images[i, d] = np.int64(math.floor(dot(positions[begin + i], inverse[:, d])))
        for x in range(3):
            points[i, x] = positions[begin + i, x] - dot(images[i], cell[:, x])
        for d in range(3):
            fractions[i, d] = dot(points[i], inverse[:, d])
    return points, fractions, images


@helper
def _choose_bins(extent, pbc, cutoff, n_atoms, bins, reach):
    """Fill ``bins`` and ``reach`` (3,), see `_Grid`, for perpendicular extents (3,) Angstrom; false if too many."""
    wanted = empty(3, np.float64)
    for d in range(3):
        wanted[d] = max(1.0, math.floor(extent[d] * BINS_PER_CUTOFF[d] / (cutoff * (1.0 + REACH_MARGIN))))
    while wanted[0] * wanted[1] * wanted[2] > max(27.0, BINS_PER_ATOM * n_atoms):
        widest = 0
        for d in range(1, 3):
            widest = d if wanted[d] > wanted[widest] else widest
        wanted[widest] = math.floor(0.5 * wanted[widest])
    around = 1.0
    far = full(3, 0, np.float64)
    for d in range(3):
        if pbc[d] or wanted[d] > 1.0:
            far[d] = math.ceil(cutoff * (1.0 + REACH_MARGIN) * wanted[d] / extent[d])
        around *= 2.0 * far[d] + 1.0
    if not around <= MOST_BINS_AROUND:
        return False
    for d in range(3):
        bins[d], reach[d] = np.int64(wanted[d]), np.int64(far[d])
    return True


@helper
def _ranges(fractions, inverse, pbc):
    """Range of the fractional coordinates (n, 3): lowest, span, and extent in Angstrom across it, (3,) each."""
    low, span, extent = full(3, 0, np.float64), full(3, 1, np.float64), empty(3, np.float64)
    for d in range(3):
        if not pbc[d]:
            low[d] = high = fractions[0, d]
            for i in range(fractions.shape[0]):
                low[d], high = min(low[d], fractions[i, d]), max(high, fractions[i, d])
            span[d] = high - low[d]
        extent[d] = span[d] / math.sqrt(dot(inverse[:, d], inverse[:, d]))
    return low, span, extent


@helper
def _images_fit(combination, bins, reach):
    """Whether every image that is searched has room in a packed image."""
    for c in range(3):
        most = 0
        for d in range(3):
            most += abs(combination[d, c]) * (reach[d] // bins[d] + 1)
        if most >= IMAGE_ZERO:
            return False
    return True


@helper
def _sort_into_bins(positions, begin, end, cell, pbc, cutoff, atoms):
    """Wrap the atoms ``begin:end``, sort them into bins, fill their part of ``atoms``.  Returns (grid, status)."""
    bins, reach = full(3, 1, np.int64), full(3, 0, np.int64)
    no_bins = empty(0, np.int64)
    complete, volume = complete_cell(cell, pbc)
    if not volume > FLATTEST:
        return _Grid(bins, reach, no_bins, complete, empty((3, 3), np.int64), pbc), BAD_GEOMETRY
    reduced, combination = reduce_cell(complete, pbc)
    inverse = inverse_cell(reduced)
    points, fractions, images = _wrap(positions, begin, end, reduced, pbc, inverse)
    low, span, extent = _ranges(fractions, inverse, pbc)
    n = end - begin
    if not _choose_bins(extent, pbc, cutoff, n, bins, reach) or not _images_fit(combination, bins, reach):
        return _Grid(bins, reach, no_bins, reduced, combination, pbc), TOO_MANY_IMAGES
    # Counting sort: stable, so within a bin the atoms keep their order.
    start = full(bins[0] * bins[1] * bins[2] + 1, 0, np.int64)
    bin_of = empty(n, np.int64)
    for i in range(n):
        index = 0
        for d in range(2, -1, -1):
            place = int((fractions[i, d] - low[d]) * bins[d] / span[d]) if span[d] > 0.0 else 0
            index = index * bins[d] + min(max(place, 0), bins[d] - 1)
        bin_of[i] = index
        start[index + 1] += 1
    start[0] = begin
    for b in range(1, start.shape[0]):
        start[b] += start[b - 1]
    cursor = start.copy()
    for i in range(n):
        a = cursor[bin_of[i]]
        cursor[bin_of[i]] = a + 1
        atoms.order[a] = begin + i
        for x in range(3):
            atoms.points[x, a] = points[i, x]
            atoms.images[a, x] = dot(images[i], combination[:, x])
    return _Grid(bins, reach, start, reduced, combination, pbc), GOOD


# ---- unordered pairs ------------------------------------------------------------------------------------------------


@helper
def _enlarged(array, used, needed):
    """A copy of the first ``used`` entries with room for ``needed``, and at least twice as many as before."""
    larger = empty(max(2 * array.shape[0], needed), array.dtype)
    for q in range(used):
        larger[q] = array[q]
    return larger


@helper
def _room_for_candidates(room):
    """`_Candidates` with nothing in them yet."""
    atom, image = empty(room, np.int64), empty(room, np.int64)
    x, y, z = empty(room, np.float64), empty(room, np.float64), empty(room, np.float64)
    return _Candidates(atom, image, x, y, z, empty(room, np.uint64), empty(room, np.uint64))


@helper
def _more_room(candidates, n, room):
    """A copy of the first ``n`` candidates with more room."""
    larger = _room_for_candidates(room)
    for c in range(n):
        larger.atom[c], larger.image[c] = candidates.atom[c], candidates.image[c]
        larger.x[c], larger.y[c], larger.z[c] = candidates.x[c], candidates.y[c], candidates.z[c]
    return larger


@helper
def _image(grid, image_x, image_y, image_z):
    """An image of the reduced cell: packed, as one of the given cell, and the three components of its translation."""
    cell, combination = grid.cell, grid.combination
    packed = 0
    for c in range(3):
        image = image_x * combination[0, c] + image_y * combination[1, c] + image_z * combination[2, c]
        packed = packed << IMAGE_BITS | (image + IMAGE_ZERO)
    move_x = image_x * cell[0, 0] + image_y * cell[1, 0] + image_z * cell[2, 0]
    move_y = image_x * cell[0, 1] + image_y * cell[1, 1] + image_z * cell[2, 1]
    move_z = image_x * cell[0, 2] + image_y * cell[1, 2] + image_z * cell[2, 2]
    return packed, move_x, move_y, move_z


@helper
def _gather_around(atoms, grid, bin_x, bin_y, bin_z, candidates):
    """Gather the atoms of one bin and then of half of the bins around it.  Returns (candidates, their number).

    A bin index outside the cell is a bin inside it (the remainder) and an image of it (the quotient).
    """
    n = 0
    n_x, n_y, n_z = grid.bins[0], grid.bins[1], grid.bins[2]
    for z in range(bin_z, bin_z + grid.reach[2] + 1):
        image_z = z // n_z
        if image_z != 0 and not grid.pbc[2]:
            break
        for y in range(bin_y if z == bin_z else bin_y - grid.reach[1], bin_y + grid.reach[1] + 1):
            image_y = y // n_y
            if image_y != 0 and not grid.pbc[1]:
                continue
            row = ((z - image_z * n_z) * n_y + y - image_y * n_y) * n_x
            x_from = bin_x if z == bin_z and y == bin_y else bin_x - grid.reach[0]
            x_to = bin_x + grid.reach[0]
            if not grid.pbc[0]:
                x_from, x_to = max(x_from, 0), min(x_to, n_x - 1)
            # Bins in a row are neighbours in memory: one run of atoms for each image of the cell.
            for image_x in range(x_from // n_x, x_to // n_x + 1):
                begin = grid.start[row + max(x_from - image_x * n_x, 0)]
                end = grid.start[row + min(x_to - image_x * n_x, n_x - 1) + 1]
                if n + end - begin > candidates.atom.shape[0]:
                    candidates = _more_room(candidates, n, 2 * (n + end - begin))
                packed, move_x, move_y, move_z = _image(grid, image_x, image_y, image_z)
                c = np.uint64(n)
                for b in range(np.uint64(begin), np.uint64(end)):
                    candidates.atom[c] = b
                    candidates.image[c] = packed
                    candidates.x[c] = atoms.points[0, b] + move_x
                    candidates.y[c] = atoms.points[1, b] + move_y
                    candidates.z[c] = atoms.points[2, b] + move_z
                    c += np.uint64(1)
                n += end - begin
    return candidates, n


@helper
def _find_within(candidates, here, n, cutoff2):
    """Compare candidate ``here`` with those after it, up to ``n``.  Returns (number found, any at the same place).

    Loops that the compiler can turn into vectors and into code without branches: unsigned indices (a signed one may
    count from the end), and every candidate is written to ``found`` and kept by moving on or not.
    """
    x, y, z = candidates.x[here], candidates.y[here], candidates.z[here]
    at_one_place = np.uint64(0)
    for c in range(np.uint64(here + 1), np.uint64(n)):
        dx, dy, dz = candidates.x[c] - x, candidates.y[c] - y, candidates.z[c] - z
        r2 = dx * dx + dy * dy + dz * dz
        candidates.inside[c] = np.uint64(r2 < cutoff2)
        at_one_place |= np.uint64(r2 < SAME_PLACE * SAME_PLACE)
    found = np.uint64(0)
    for c in range(np.uint64(here + 1), np.uint64(n)):
        candidates.found[found] = c
        found += candidates.inside[c]
    return np.int64(found), at_one_place != np.uint64(0)


@helper
def _first_at_same_place(candidates, here):
    """The first candidate after ``here`` that is at its place, where there is one."""
    c = here
    r2 = np.inf
    while not r2 < SAME_PLACE * SAME_PLACE:
        c += 1
        dx = candidates.x[c] - candidates.x[here]
        dy = candidates.y[c] - candidates.y[here]
        dz = candidates.z[c] - candidates.z[here]
        r2 = dx * dx + dy * dy + dz * dz
    return c


@helper
def _find_half(grid, atoms, cutoff, candidates, half):
    """Unordered pairs of one structure, atom by atom in sorted order.

    Returns (candidates, half, i, j): room may have grown; atoms i and j of the input are at one place, or both are -1.
    """
    first, neighbor, image, backward = half
    used = first[grid.start[0]]
    twin_i, twin_j = -1, -1
    for here in range(grid.start.shape[0] - 1):
        begin, end = grid.start[here], grid.start[here + 1]
        if begin == end:
            continue
        row = here // grid.bins[0]
        candidates, n = _gather_around(
            atoms, grid, here % grid.bins[0], row % grid.bins[1], row // grid.bins[1], candidates
        )
        # The atoms of the bin are its first candidates: each is compared with the candidates after it.
        for a in range(begin, end):
            if used + n > neighbor.shape[0]:
                neighbor, image = _enlarged(neighbor, used, used + n), _enlarged(image, used, used + n)
            found, at_one_place = _find_within(candidates, a - begin, n, cutoff * cutoff)
            for f in range(found):
                c = candidates.found[f]
                b = candidates.atom[c]
                neighbor[used] = b
                image[used] = candidates.image[c]
                backward[b] += 1
                used += 1
            first[a + 1] = used
            if at_one_place:
                twin = _first_at_same_place(candidates, a - begin)
                twin_i, twin_j = atoms.order[a], atoms.order[candidates.atom[twin]]
    return candidates, _Half(first, neighbor, image, backward), twin_i, twin_j


# ---- ordered pairs --------------------------------------------------------------------------------------------------


@helper
def _order_pairs(atoms, half):
    """Write each unordered pair at both of its ends: (first, neighbor, shift, reverse) of `Pairs`."""
    n = atoms.order.shape[0]
    first = full(n + 1, 0, np.int64)
    for a in range(n):
        first[atoms.order[a] + 1] = half.first[a + 1] - half.first[a] + half.backward[a]
    for i in range(n):
        first[i + 1] += first[i]
    # The row of an atom: the pairs found from it, then those found from their other end.
    cursor = empty(n, np.int64)
    for a in range(n):
        cursor[a] = first[atoms.order[a]] + half.first[a + 1] - half.first[a]
    neighbor = empty(first[n], np.int64)
    shift = empty((first[n], 3), np.int64)
    reverse = empty(first[n], np.int64)
    for a in range(n):
        i = atoms.order[a]
        p = first[i]
        for q in range(half.first[a], half.first[a + 1]):
            b = half.neighbor[q]
            r = cursor[b]
            cursor[b] = r + 1
            packed = half.image[q]
            for c in range(3):
                image = (packed >> ((2 - c) * IMAGE_BITS) & IMAGE_MASK) - IMAGE_ZERO
                s = image + atoms.images[a, c] - atoms.images[b, c]
                shift[p, c] = s
                shift[r, c] = -s
            neighbor[p] = atoms.order[b]
            neighbor[r] = i
            reverse[p] = r
            reverse[r] = p
            p += 1
    return first, neighbor, shift, reverse


@helper
def _usable(positions, begin, end, cell):
    """Whether positions (atoms begin:end) and cell are finite numbers, and the positions not too far away."""
    usable = True
    for d in range(3):
        for x in range(3):
            usable &= abs(cell[d, x]) < np.inf  # false for NaN
    for i in range(begin, end):
        for x in range(3):
            usable &= abs(positions[i, x]) <= FARTHEST
    return usable


@compile_loops
def find_pairs(positions, offsets, cells, pbc, cutoff):
    """The loops of `batch_pairs`: (first, neighbor, shift, reverse, status, structure, atom i, atom j).

    The arrays are those of ``Pairs``, and are of no use unless the status is ``GOOD``.  The last four say what is
    wrong, in which structure, and which two atoms are at one place.
    """
    n = positions.shape[0]
    atoms = _Atoms(empty(n, np.int64), empty((3, n), np.float64), empty((n, 3), np.int64))
    room = 64 * n
    half_first, backward = full(n + 1, 0, np.int64), full(n, 0, np.int64)
    half = _Half(half_first, empty(room, np.int32), empty(room, np.int64), backward)
    candidates = _room_for_candidates(512)
    status, structure, i, j = GOOD, -1, -1, -1
    while status == GOOD and structure < offsets.shape[0] - 2:
        structure += 1
        begin, end, periodic = offsets[structure], offsets[structure + 1], pbc[structure]
        if not _usable(positions, begin, end, cells[structure]):
            status = BAD_GEOMETRY
        elif begin == end or (end - begin <= ONE_BIN_ATOMS and not (periodic[0] or periodic[1] or periodic[2])):
            grid = _one_bin(positions, begin, end, atoms)
        else:
            grid, status = _sort_into_bins(positions, begin, end, cells[structure], periodic, cutoff, atoms)
        if status == GOOD:
            candidates, half, i, j = _find_half(grid, atoms, cutoff, candidates, half)
            if i >= 0:
                status = TWO_AT_ONE_PLACE
    if status == GOOD:
        first, neighbor, shift, reverse = _order_pairs(atoms, half)
    else:
        first, neighbor, shift, reverse = half.first, half.first, atoms.images, half.first
    return first, neighbor, shift, reverse, status, structure, i, j
