"""Lattice vectors: completed where a direction has no periodicity, reduced to short ones, inverted.

And the bound that says how long a list of pairs outlives the movement of atoms and cell.
"""

import math

import numpy as np

from eann_lite.compiled import compile_loops, formula, helper
from eann_lite.kernels.arrays import empty, full

#: Volume of the periodic cell vectors scaled to length 1 below which they count as linearly dependent.
FLATTEST = 1e-10


@formula
def dot(u, v):
    """Scalar product of two vectors (3,)."""
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@helper
def _take_off(vector, basis, rank):
    """Take the part along ``rank`` orthonormal rows (3, 3) off a vector (3,), in place; returns the length left."""
    for b in range(rank):
        along = dot(vector, basis[b])
        for x in range(3):
            vector[x] -= along * basis[b, x]
    return math.sqrt(dot(vector, vector))


@compile_loops
def complete_cell(cell, pbc):
    """Cell with orthogonal unit vectors in the directions without periodicity, and the volume of the periodic ones.

    cell : (3, 3) Angstrom, rows are lattice vectors; pbc : (3,) bool
    Returns (complete, volume): (3, 3) rows, and the volume of the periodic vectors scaled to length 1 (1 orthogonal,
    0 or NaN linearly dependent, zero or not finite: then ``complete`` is of no use).
    """
    complete = full((3, 3), 0, np.float64)
    basis = full((3, 3), 0, np.float64)
    volume = 1.0
    rank = 0
    for d in range(3):
        if pbc[d]:
            length = math.sqrt(dot(cell[d], cell[d]))
            for x in range(3):
                complete[d, x] = cell[d, x]
                basis[rank, x] = cell[d, x] / length
            height = _take_off(basis[rank], basis, rank)
            for x in range(3):
                basis[rank, x] /= height
            volume *= height
            rank += 1
    for d in range(3):
        if not pbc[d]:
            # The Cartesian axis that stands out most from the rows so far, its own one first.
            best = 0.0
            for turn in range(3):
                axis = full(3, 0, np.float64)
                axis[(d + turn) % 3] = 1.0
                height = _take_off(axis, basis, rank)
                if height > best + 1e-6:
                    best = height
                    for x in range(3):
                        complete[d, x] = axis[x] / height
            for x in range(3):
                basis[rank, x] = complete[d, x]
            rank += 1
    return complete, volume


@helper
def reduce_cell(cell, pbc):
    """Shorter vectors of the same lattice: ``(reduced, combination)`` with ``reduced = combination @ cell``.

    Adds a multiple of another periodic vector, or of a sum or difference of the two others, as long as one gets
    shorter.  Then few images need to be searched, however skewed the given cell is.

    cell : (3, 3) Angstrom, rows; combination : (3, 3) int64, determinant 1, identity for directions without pbc
    """
    reduced = empty((3, 3), np.float64)
    combination = full((3, 3), 0, np.int64)
    for i in range(3):
        combination[i, i] = 1
        for x in range(3):
            reduced[i, x] = cell[i, x]
    step = empty(3, np.float64)
    changed = True
    while changed:
        changed = False
        for choice in range(27):
            i, m, n = choice // 9, choice // 3 % 3 - 1, choice % 3 - 1
            j, k = (i + 1) % 3, (i + 2) % 3
            if not pbc[i] or (m == 0 and n == 0) or (m != 0 and not pbc[j]) or (n != 0 and not pbc[k]):
                continue
            for x in range(3):
                step[x] = m * reduced[j, x] + n * reduced[k, x]
            times = np.rint(-dot(step, reduced[i]) / dot(step, step))
            shorter_by = -times * (2.0 * dot(step, reduced[i]) + times * dot(step, step))
            # The margin ends the loop where two choices are equally long.
            if shorter_by > 1e-6 * dot(reduced[i], reduced[i]):
                for x in range(3):
                    reduced[i, x] += times * step[x]
                    combination[i, x] += np.int64(times) * (m * combination[j, x] + n * combination[k, x])
                changed = True
    return reduced, combination


@helper
def inverse_cell(cell):
    """Inverse (3, 3) of a cell: fractional coordinates are ``x @ inverse``, the height along d is 1 / |column d|."""
    inverse = empty((3, 3), np.float64)
    for d in range(3):
        e, f = (d + 1) % 3, (d + 2) % 3
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            inverse[x, d] = cell[e, y] * cell[f, z] - cell[e, z] * cell[f, y]
    determinant = dot(cell[0], inverse[:, 0])
    for d in range(3):
        for x in range(3):
            inverse[x, d] /= determinant
    return inverse


@compile_loops
def holds_every_pair(positions, cell, pbc, old_positions, old_cell, cutoff, skin):
    """Whether a list of all pairs within cutoff + skin, made before, still holds every pair within the cutoff.

    With ``cell = old_cell @ F`` each position is ``old @ F + u``, and a pair vector was ``(r - (u_j - u_i)) @ inv(F)``
    when the list was made.  So it was shorter than ``(cutoff + 2 max |u|) * |inv(F)|``, and the Frobenius norm of
    ``inv(F) - 1``, plus 1, bounds the norm of inv(F).  False also for what makes no sense (NaN, a flat cell).

    positions, old_positions : (N, 3) Angstrom; cell, old_cell : (3, 3) Angstrom, rows; pbc : (3,) bool, the same then
    and now; cutoff, skin : Angstrom
    """
    stretch = 1.0
    forward = full((3, 3), 0, np.float64)
    same = True
    for d in range(3):
        forward[d, d] = 1.0
        for x in range(3):
            same &= not pbc[d] or cell[d, x] == old_cell[d, x]
    if not same:
        now, volume = complete_cell(cell, pbc)
        if not volume > FLATTEST:
            return False
        old = complete_cell(old_cell, pbc)[0]
        inverse_now, inverse_old = inverse_cell(now), inverse_cell(old)
        square = 0.0
        for d in range(3):
            for x in range(3):
                forward[d, x] = dot(inverse_old[d], now[:, x])
                square += (dot(inverse_now[d], old[:, x]) - (1.0 if d == x else 0.0)) ** 2
        stretch += math.sqrt(square)
    allowed = 0.5 * ((cutoff + skin) / stretch - cutoff)
    if not allowed >= 0.0:
        return False
    for i in range(positions.shape[0]):
        square = 0.0
        for x in range(3):
            square += (positions[i, x] - dot(old_positions[i], forward[:, x])) ** 2
        if not square <= allowed * allowed:  # NaN is not
            return False
    return True
