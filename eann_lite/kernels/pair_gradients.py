"""Pair gradients g_p = dE/dr_p from all recursion steps at once, and what they give to forces and virials.

With Bbar^t = dE/dB^t, the derivative of the energy with respect to A_a(r_p) R_k(r_p) in pair p: i->j is

    Z_pak = sum_t Bbar^t_iak c^t_jk,

whence Rbar_pk = sum_a A_a Z_pak = dE/dR_k and

    g_p = sum_k R_k sum_a Z_pak grad A_a + (sum_k Rbar_pk dR_k/dr + half of the repulsion's slope) r_p / r.

``pair_tiles`` sums over steps, monomials and Gaussians.
"""

import numpy as np

from eann_lite.compiled import helper
from eann_lite.kernels.arrays import empty
from eann_lite.kernels.columns import add_along, ask_for_vectors, lengths, products_of_three_rows
from eann_lite.kernels.dense import LONG_VECTORS
from eann_lite.kernels.monomials import columns_of_pairs, monomial_slopes, monomials, second_degree
from eann_lite.kernels.pair_tiles import pair_tile, second_degree_tile
from eann_lite.kernels.repulsion import add_zbl_slopes
from eann_lite.kernels.row_operations import ask_for_rows
from eann_lite.kernels.rows import fill_rows
from eann_lite.kernels.vectors import ATOMS_AHEAD, line


def pairs_in_tiles(make_tile, n_bytes, height, whole=True):
    """Helper: tiles for all pairs of an atom, of the Gaussians from o on that are as wide as ``n_bytes``; not ``whole``:
    of those up to the last one, which may be fewer."""
    tile = make_tile(height, n_bytes, whole)

    @helper
    def pairs(begin, end, o, i, fresh, arrays):
        for p in range(begin, end, height):
            tile(p, end - 1, p - begin, o, i, fresh, arrays)

    return pairs


def _all_gaussians(make_tile, heights):
    """Helper: sums (4, ..) of the pairs begin to end of atom i; arrays as in ``pair_tiles``.

    heights : for tiles of so many bytes, 32 and there may be 64, how many pairs they take.
    """
    any_line = 64 in heights
    of_half = pairs_in_tiles(make_tile, 32, heights[32])
    of_line = pairs_in_tiles(make_tile, 64, heights[64]) if any_line else of_half
    widest = max(heights)
    of_rest = pairs_in_tiles(make_tile, widest, heights[widest], whole=False)

    @helper
    def sums_over_gaussians(begin, end, i, arrays):
        radial = arrays[0]
        o, n_radial, wide = np.int64(0), radial.shape[1], line(radial)
        if any_line:
            while o + wide <= n_radial:
                of_line(begin, end, o, i, o == 0, arrays)
                o += wide
            if o + wide // 2 == n_radial:
                of_half(begin, end, o, i, o == 0, arrays)
                o = n_radial
        else:
            while o + wide // 2 <= n_radial:
                of_half(begin, end, o, i, o == 0, arrays)
                o += wide // 2
        if o < n_radial:
            of_rest(begin, end, o, i, o == 0, arrays)

    return sums_over_gaussians


# To degree 2 a tile has ten sums for each pair; without AVX-512 there is place for those of half a cache line.
if LONG_VECTORS:
    sums_over_gaussians = _all_gaussians(pair_tile, {64: 4, 32: 4})
    second_degree_sums_over_gaussians = _all_gaussians(second_degree_tile, {64: 2, 32: 2})
else:
    sums_over_gaussians = _all_gaussians(pair_tile, {64: 1, 32: 2})
    second_degree_sums_over_gaussians = _all_gaussians(second_degree_tile, {32: 1})


@helper
def pair_gradients(b, potential, batch, values, forces, virials):
    """forces (N, 3) = sum_p g_p and virials (N, 3, 3) = sum_p r_p (x) g_p, symmetrised, of each atom of block b.

    Its rows of recoil are -sum_p g_p over its pairs with the same neighbour.
    """
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    first, row, radial, vector, recoil = batch.first, batch.row, values.radial, values.vector, values.recoil
    fill_rows(batch.block_first[b], batch.block_first[b + 1], recoil, 0.0)
    to_degree_2 = second_degree(potential)
    angular = columns_of_pairs(0 if to_degree_2 else potential.parent.size, start, stop, first, radial)
    slopes = columns_of_pairs(0 if to_degree_2 else potential.slope_of.size, start, stop, first, radial)
    distance, sums = columns_of_pairs(1, start, stop, first, radial), columns_of_pairs(4, start, stop, first, radial)
    gradient = columns_of_pairs(3, start, stop, first, radial)
    products, total = empty((3, 3), np.float64), empty(3, np.float64)
    # One tuple for all atoms: to pass arrays one by one down to the tiles takes a second longer to compile.
    arrays = (
        radial, values.log_slope, distance, values.sums_bar, values.coefficients, batch.neighbor, batch.species,
        potential.centers, potential.exponents, sums,
    )  # fmt: skip
    of_vectors, of_monomials = (*arrays, vector), (*arrays, angular, slopes, potential.slope_place)
    for i in range(start, stop):
        begin, end = first[i], first[i + 1]
        lengths(vector, begin, end, distance)
        if to_degree_2:
            ask_for_vectors(vector, begin, end)
            second_degree_sums_over_gaussians(begin, end, i, of_vectors)
        else:
            monomials(i, potential, batch, values, angular)
            monomial_slopes(end - begin, potential, angular, slopes)
            sums_over_gaussians(begin, end, i, of_monomials)
        if potential.repulsion_cutoff > 0.0:
            add_zbl_slopes(i, potential, batch, values, sums[3])
        add_along(sums, vector, begin, end, distance, gradient)
        products_of_three_rows(vector, begin, end, gradient, products, total)
        for x in range(3):
            forces[i, x] = total[x]
            for y in range(3):
                virials[i, x, y] = 0.5 * (products[x, y] + products[y, x])
        for c in range(end - begin):
            n = np.uint64(row[begin + c])  # Without a sign, as in ``geometry``.
            recoil[n, 0] -= gradient[0, c]
            recoil[n, 1] -= gradient[1, c]
            recoil[n, 2] -= gradient[2, c]


@helper
def add_recoil(start, stop, batch, recoil, forces):
    """forces (N, 3) += what all blocks pass back to j, for every j of start to stop, after ``pair_gradients``."""
    first, rows = batch.atom_first, batch.atom_rows
    for j in range(start, stop):
        if j + ATOMS_AHEAD < stop:
            ask_for_rows(recoil, rows, first[j + ATOMS_AHEAD], first[j + ATOMS_AHEAD + 1])
        x, y, z = forces[j, 0], forces[j, 1], forces[j, 2]
        for r in range(first[j], first[j + 1]):
            n = np.uint64(rows[r])
            x, y, z = x + recoil[n, 0], y + recoil[n, 1], z + recoil[n, 2]
        forces[j, 0], forces[j, 1], forces[j, 2] = x, y, z
