"""From weighted orbital sums to embedded densities: contraction with W, squares, and their reverse and tangents.

All for a block of atoms.  The monomials of the pair kernels carry no square-root weights; here
weight[a] = l! / (lx! ly! lz!) multiplies the squares: rho_im = sum_a weight_a D_iam^2 with
D_iam = sum_k W_{l(a) k m} B_iak.  D is computed anew in every sweep: reading it back from memory would take longer.
"""

import numpy as np

from eann_lite.compiled import helper
from eann_lite.kernels.dense import add_outer, set_product


@helper
def _monomial(sums, start, stop, a):
    """The sums of monomial a of a block's atoms, contiguous (n, K)."""
    out = np.empty((stop - start, sums.shape[2]))
    for n in range(stop - start):
        for k in range(sums.shape[2]):
            out[n, k] = sums[start + n, a, k]
    return out


@helper
def densities(start, stop, t, potential, values):
    """rho (N, M) of step t from its weighted orbital sums."""
    contraction, degree, weight = potential.contraction, potential.degree, potential.weight
    sums, density = values.sums[t], values.density[t]
    n_densities = density.shape[1]
    d = np.empty((stop - start, n_densities))
    density[start:stop] = 0.0
    for a in range(degree.size):
        set_product(_monomial(sums, start, stop, a), contraction[degree[a]], d)
        for n in range(stop - start):
            for m in range(n_densities):
                density[start + n, m] += weight[a] * d[n, m] * d[n, m]


@helper
def densities_tangent(start, stop, t, potential, values, tangents):
    """Derivative of the densities of step t along the tangent direction."""
    contraction, degree, weight = potential.contraction, potential.degree, potential.weight
    sums, sums_dot, density_dot = values.sums[t], tangents.sums[t], tangents.density[t]
    n_densities = density_dot.shape[1]
    d = np.empty((stop - start, n_densities))
    d_dot = np.empty((stop - start, n_densities))
    density_dot[start:stop] = 0.0
    for a in range(degree.size):
        set_product(_monomial(sums, start, stop, a), contraction[degree[a]], d)
        set_product(_monomial(sums_dot, start, stop, a), contraction[degree[a]], d_dot)
        for n in range(stop - start):
            for m in range(n_densities):
                density_dot[start + n, m] += 2.0 * weight[a] * d[n, m] * d_dot[n, m]


@helper
def densities_reverse(start, stop, t, potential, values):
    """Bbar_iak of step t from rhobar (N, M)."""
    contraction, transposed = potential.contraction, potential.contraction_transposed
    degree, weight = potential.degree, potential.weight
    sums, sums_bar, density_bar = values.sums[t], values.sums_bar[t], values.density_bar[t]
    d = np.empty((stop - start, contraction.shape[2]))
    b_bar = np.empty((stop - start, contraction.shape[1]))
    for a in range(degree.size):
        set_product(_monomial(sums, start, stop, a), contraction[degree[a]], d)
        for n in range(stop - start):
            for m in range(d.shape[1]):
                d[n, m] *= 2.0 * weight[a] * density_bar[start + n, m]
        set_product(d, transposed[degree[a]], b_bar)
        for n in range(stop - start):
            for k in range(b_bar.shape[1]):
                sums_bar[start + n, a, k] = b_bar[n, k]


@helper
def densities_reverse_tangent(start, stop, t, moving, potential, values, tangents, contraction_bar_dot):
    """Tangent of ``densities_reverse``; this block's share of W's gradient is added to contraction_bar_dot (L+1, K, M).

    Without ``moving`` the atoms stand still, and only the tangents of the seeds' adjoints count.
    """
    contraction, transposed = potential.contraction, potential.contraction_transposed
    degree, weight = potential.degree, potential.weight
    sums, sums_dot, sums_bar_dot = values.sums[t], tangents.sums[t], tangents.sums_bar[t]
    density_bar, density_bar_dot = values.density_bar[t], tangents.density_bar[t]
    n_radial, n_densities = contraction.shape[1], contraction.shape[2]
    d = np.empty((stop - start, n_densities))
    d_dot = np.empty((stop - start, n_densities))
    b_bar_dot = np.empty((stop - start, n_radial))
    for a in range(degree.size):
        l = degree[a]
        b_a = _monomial(sums, start, stop, a)
        set_product(b_a, contraction[l], d)
        if moving:
            b_a_dot = _monomial(sums_dot, start, stop, a)
            set_product(b_a_dot, contraction[l], d_dot)
            for n in range(stop - start):
                for m in range(n_densities):
                    bar = 2.0 * weight[a] * density_bar[start + n, m]
                    bar_dot = 2.0 * weight[a] * density_bar_dot[start + n, m]
                    d_dot[n, m] = bar_dot * d[n, m] + bar * d_dot[n, m]
                    d[n, m] *= bar
            add_outer(b_a_dot, d, contraction_bar_dot[l], 0, n_radial)
        else:
            for n in range(stop - start):
                for m in range(n_densities):
                    d_dot[n, m] = 2.0 * weight[a] * density_bar_dot[start + n, m] * d[n, m]
        set_product(d_dot, transposed[l], b_bar_dot)
        add_outer(b_a, d_dot, contraction_bar_dot[l], 0, n_radial)
        for n in range(stop - start):
            for k in range(n_radial):
                sums_bar_dot[start + n, a, k] = b_bar_dot[n, k]
