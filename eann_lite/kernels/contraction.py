"""From weighted orbital sums to embedded densities: contraction with W, squares, and their reverse and tangents.

All for a block of atoms.  The monomials of the pair kernels carry no square-root weights; here
weight[a] = l! / (lx! ly! lz!) multiplies the squares: rho_im = sum_a weight_a D_iam^2 with
D_iam = sum_k W_{l(a) k m} B_iak.  D is computed anew in every sweep: reading it back from memory would take longer.
"""

from eann_lite.compiled import helper
from eann_lite.kernels.arrays import empty
from eann_lite.kernels.dense import (
    add_squared_product_tangent,
    product,
    scaled_product,
    scaled_product_tangent,
    squared_products,
)
from eann_lite.kernels.rows import fill_rows


@helper
def densities(start, stop, t, potential, values):
    """rho (N, M) of step t from its weighted orbital sums."""
    contraction, degree, weight = potential.contraction, potential.degree, potential.weight
    density = values.density[t % values.density.shape[0], start:stop]
    squared_products(values.sums[t, start:stop], contraction, degree, weight, density)


@helper
def densities_tangent(start, stop, t, potential, values, tangents):
    """Derivative of the densities of step t along the tangent direction."""
    contraction, degree, weight = potential.contraction, potential.degree, potential.weight
    sums, sums_dot = values.sums[t, start:stop], tangents.sums[t, start:stop]
    density_dot = tangents.density[t, start:stop]
    fill_rows(0, stop - start, density_dot, 0.0)
    for a in range(degree.size):
        add_squared_product_tangent(sums[:, a], sums_dot[:, a], contraction[degree[a]], 2.0 * weight[a], density_dot)


@helper
def densities_reverse(start, stop, t, potential, values):
    """Bbar_iak of step t from rhobar (N, M); it may stand where B_iak stood, which nobody reads after it."""
    contraction, transposed = potential.contraction, potential.contraction_transposed
    degree, weight = potential.degree, potential.weight
    sums, sums_bar = values.sums[t, start:stop], values.sums_bar[t, start:stop]
    density_bar = values.density_bar[t % values.density_bar.shape[0], start:stop]
    d = empty((stop - start, density_bar.shape[1]), density_bar.dtype)
    for a in range(degree.size):
        scaled_product(sums[:, a], contraction[degree[a]], 2.0 * weight[a], density_bar, d)
        product(d, transposed[degree[a]], sums_bar[:, a], True)


@helper
def densities_reverse_tangent(start, stop, t, moving, potential, values, tangents, contraction_bar_dot):
    """Tangent of ``densities_reverse``; this block's share of W's gradient is added to contraction_bar_dot (L+1, K, M).

    Without ``moving`` the atoms stand still, and only the tangents of the seeds' adjoints count.
    """
    contraction, transposed = potential.contraction, potential.contraction_transposed
    degree, weight = potential.degree, potential.weight
    sums, sums_dot = values.sums[t, start:stop], tangents.sums[t, start:stop]
    sums_bar_dot = tangents.sums_bar[t, start:stop]
    density_bar = values.density_bar[t, start:stop]
    density_bar_dot = tangents.density_bar[t % tangents.density_bar.shape[0], start:stop]
    n_densities = density_bar.shape[1]
    shape = stop - start, n_densities
    d, d_dot = empty(shape, density_bar.dtype), empty(shape, density_bar.dtype)
    for a in range(degree.size):
        l, factor = degree[a], 2.0 * weight[a]
        if moving:
            scaled_product_tangent(
                sums[:, a], sums_dot[:, a], contraction[l], factor, density_bar, density_bar_dot, d, d_dot
            )
            product(sums_dot[:, a].T, d, contraction_bar_dot[l], False)
        else:
            scaled_product(sums[:, a], contraction[l], factor, density_bar_dot, d_dot)
        product(d_dot, transposed[l], sums_bar_dot[:, a], True)
        product(sums[:, a].T, d_dot, contraction_bar_dot[l], False)
