"""From weighted orbital sums to embedded densities: contraction with W, squares, and their reverse and tangents.

All over blocks: rows (start, stop, element, ...) of consecutive atoms of one element, one thread per block.  The
monomials of the pair kernels carry no square-root weights; here weight[a] = l! / (lx! ly! lz!) multiplies the squares:
rho_im = sum_a weight_a D_iam^2 with D_iam = sum_k W_{l(a) k m} B_iak.  D is computed anew in every sweep: reading it
back from memory would take longer.
"""

import numpy as np
from numba import prange

from eann_lite.compiled import Kernel, helper
from eann_lite.kernels.dense import add_outer, add_product


@helper
def _monomial(sums, start, stop, a):
    """The sums of monomial a of a block's atoms, contiguous (n, K)."""
    out = np.empty((stop - start, sums.shape[2]))
    for n in range(stop - start):
        for k in range(sums.shape[2]):
            out[n, k] = sums[start + n, a, k]
    return out


@Kernel
def densities(blocks, sums, contraction, degree, weight, density):
    """density (N, M) from sums (N, A, K) and contraction (L+1, K, M)."""
    for b in prange(blocks.shape[0]):
        start, stop = blocks[b, 0], blocks[b, 1]
        n_densities = contraction.shape[2]
        d = np.empty((stop - start, n_densities))
        density[start:stop] = 0.0
        for a in range(degree.size):
            d[:] = 0.0
            add_product(_monomial(sums, start, stop, a), contraction[degree[a]], d)
            for n in range(stop - start):
                for m in range(n_densities):
                    density[start + n, m] += weight[a] * d[n, m] * d[n, m]


@Kernel
def densities_tangent(blocks, sums, sums_dot, contraction, degree, weight, density_dot):
    """density_dot (N, M): derivative of the densities along the tangent direction."""
    for b in prange(blocks.shape[0]):
        start, stop = blocks[b, 0], blocks[b, 1]
        n_densities = contraction.shape[2]
        d = np.empty((stop - start, n_densities))
        d_dot = np.empty((stop - start, n_densities))
        density_dot[start:stop] = 0.0
        for a in range(degree.size):
            d[:] = 0.0
            d_dot[:] = 0.0
            add_product(_monomial(sums, start, stop, a), contraction[degree[a]], d)
            add_product(_monomial(sums_dot, start, stop, a), contraction[degree[a]], d_dot)
            for n in range(stop - start):
                for m in range(n_densities):
                    density_dot[start + n, m] += 2.0 * weight[a] * d[n, m] * d_dot[n, m]


@Kernel
def densities_reverse(blocks, sums, density_bar, contraction, transposed, degree, weight, sums_bar):
    """sums_bar (N, A, K) from density_bar (N, M); transposed (L+1, M, K) is the contraction the other way round."""
    for b in prange(blocks.shape[0]):
        start, stop = blocks[b, 0], blocks[b, 1]
        n_radial, n_densities = contraction.shape[1], contraction.shape[2]
        d = np.empty((stop - start, n_densities))
        b_bar = np.empty((stop - start, n_radial))
        for a in range(degree.size):
            d[:] = 0.0
            b_bar[:] = 0.0
            add_product(_monomial(sums, start, stop, a), contraction[degree[a]], d)
            for n in range(stop - start):
                for m in range(n_densities):
                    d[n, m] *= 2.0 * weight[a] * density_bar[start + n, m]
            add_product(d, transposed[degree[a]], b_bar)
            for n in range(stop - start):
                for k in range(n_radial):
                    sums_bar[start + n, a, k] = b_bar[n, k]


@Kernel
def densities_reverse_tangent(
    blocks, sums, sums_dot, density_bar, density_bar_dot, contraction, transposed, degree, weight,
    sums_bar_dot, contraction_bar_dot,
):  # fmt: skip
    """Tangent of ``densities_reverse``; each block adds its share of W's gradient to contraction_bar_dot (B, L+1, K, M).
    """
    for b in prange(blocks.shape[0]):
        start, stop = blocks[b, 0], blocks[b, 1]
        n_radial, n_densities = contraction.shape[1], contraction.shape[2]
        d = np.empty((stop - start, n_densities))
        d_dot = np.empty((stop - start, n_densities))
        b_bar_dot = np.empty((stop - start, n_radial))
        for a in range(degree.size):
            l = degree[a]
            d[:] = 0.0
            d_dot[:] = 0.0
            b_bar_dot[:] = 0.0
            b_a = _monomial(sums, start, stop, a)
            b_a_dot = _monomial(sums_dot, start, stop, a)
            add_product(b_a, contraction[l], d)
            add_product(b_a_dot, contraction[l], d_dot)
            for n in range(stop - start):
                for m in range(n_densities):
                    bar = 2.0 * weight[a] * density_bar[start + n, m]
                    bar_dot = 2.0 * weight[a] * density_bar_dot[start + n, m]
                    d_dot[n, m] = bar_dot * d[n, m] + bar * d_dot[n, m]
                    d[n, m] *= bar
            add_product(d_dot, transposed[l], b_bar_dot)
            add_outer(b_a, d_dot, contraction_bar_dot[b, l], 0, n_radial)
            add_outer(b_a_dot, d, contraction_bar_dot[b, l], 0, n_radial)
            for n in range(stop - start):
                for k in range(n_radial):
                    sums_bar_dot[start + n, a, k] = b_bar_dot[n, k]
