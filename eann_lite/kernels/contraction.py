"""From weighted orbital sums to embedded densities: contraction with W, squares, and their reverse and tangents.

All for a block of atoms.  The monomials of the pair kernels carry no square-root weights; here
weight[a] = l! / (lx! ly! lz!) multiplies the squares: rho_im = sum_a weight_a D_iam^2 with
D_iam = sum_k W_{l(a) k m} B_iak.  D is computed anew in every sweep: reading it back from memory would take longer.
Where the table ``products`` has rows, reverse sweeps and tangents take power spectra instead: see ``power``.
"""

from eann_lite.compiled import helper
from eann_lite.kernels.arrays import empty, matrix
from eann_lite.kernels.dense import (
    add_squared_product_tangent,
    product,
    product_before,
    scaled_product,
    scaled_product_tangent,
    squared_products,
)
from eann_lite.kernels.power import (
    add_through_power_contraction,
    power_spectra,
    power_spectra_reverse,
    power_spectra_tangent,
)
from eann_lite.kernels.rows import add_rows, copy_rows, fill_rows


@helper
def densities(start, stop, t, potential, values, density, ahead):
    """density = rho_im of step t of these atoms from their weighted orbital sums.

    Here and below ``ahead`` (``dense.span``) is needed soon after, and stands in the third cache or in memory, or is
    nothing: products ask for it, going back those of power spectra alone.
    """
    contraction, degree, weight = potential.contraction, potential.degree, potential.weight
    squared_products(ahead, values.sums[t, start:stop], contraction, degree, weight, density)


@helper
def densities_tangent(start, stop, t, potential, values, tangents):
    """Derivative of the densities of step t along the tangent direction."""
    contraction, degree, weight = potential.contraction, potential.degree, potential.weight
    sums, sums_dot = values.sums[t, start:stop], tangents.sums[t, start:stop]
    density_dot = tangents.density[t % tangents.density.shape[0], start:stop]
    if potential.products.shape[0] > 0:
        power_dot = empty((stop - start, potential.products.shape[0]), density_dot.dtype)
        power_spectra_tangent(sums, sums_dot, weight, power_dot)
        product(power_dot, potential.power_contraction, density_dot, True)
        return
    fill_rows(0, stop - start, density_dot, 0.0)
    for a in range(degree.size):
        add_squared_product_tangent(sums[:, a], sums_dot[:, a], contraction[degree[a]], 2.0 * weight[a], density_dot)


@helper
def densities_reverse(start, stop, t, potential, values, density_bar, ahead):
    """Bbar_iak of step t from rhobar of these atoms; it may stand where B_iak stood, which nobody reads after it."""
    contraction, transposed = potential.contraction, potential.contraction_transposed
    degree, weight = potential.degree, potential.weight
    sums, sums_bar = values.sums[t, start:stop], values.sums_bar[t, start:stop]
    if potential.products.shape[0] > 0:
        if values.power_bar.shape[0] > 0:
            _reverse_by_power(potential, density_bar, sums, values.power_bar[t, start:stop], sums_bar, ahead)
        else:
            power_bar = empty((stop - start, potential.products.shape[0]), density_bar.dtype)
            _reverse_by_power(potential, density_bar, sums, power_bar, sums_bar, ahead)
        return
    d = empty((stop - start, density_bar.shape[1]), density_bar.dtype)
    for a in range(degree.size):
        scaled_product(sums[:, a], contraction[degree[a]], 2.0 * weight[a], density_bar, d)
        product(d, transposed[degree[a]], sums_bar[:, a], True)


@helper
def _reverse_by_power(potential, density_bar, sums, power_bar, sums_bar, ahead):
    """power_bar and sums_bar of some atoms."""
    product_before(ahead, density_bar, potential.power_contraction_transposed, power_bar, True)
    power_spectra_reverse(power_bar, sums, potential.weight, True, sums_bar)


@helper
def densities_reverse_tangent(start, stop, t, moving, potential, values, tangents, contraction_bar_dot):
    """Tangent of ``densities_reverse``.

    This block's share of the gradient of W, or of V where there are power spectra, is added to contraction_bar_dot
    ((L + 1) K, M), or (C, M); that of the last step, which comes first, is put there.

    Without ``moving`` the atoms stand still, and only the tangents of the seeds' adjoints count.
    """
    fresh = t + 1 == values.coefficients.shape[0]
    if potential.products.shape[0] > 0:
        _reverse_tangent_by_power(start, stop, t, moving, fresh, potential, values, tangents, contraction_bar_dot)
    else:
        if fresh:
            fill_rows(0, contraction_bar_dot.shape[0], contraction_bar_dot, 0.0)
        _reverse_tangent_by_monomials(start, stop, t, moving, potential, values, tangents, contraction_bar_dot)


@helper
def _reverse_tangent_by_power(start, stop, t, moving, fresh, potential, values, tangents, power_contraction_bar_dot):
    weight, n_products = potential.weight, potential.products.shape[0]
    sums, sums_dot = values.sums[t, start:stop], tangents.sums[t, start:stop]
    sums_bar_dot = tangents.sums_bar[t % tangents.sums_bar.shape[0], start:stop]
    density_bar = values.density_bar[t, start:stop]
    density_bar_dot = tangents.density_bar[t % tangents.density_bar.shape[0], start:stop]
    rows = empty((stop - start, n_products), density_bar.dtype)
    product(density_bar_dot, potential.power_contraction_transposed, rows, True)
    power_spectra_reverse(rows, sums, weight, True, sums_bar_dot)
    power_spectra(sums, weight, rows)
    product(rows.T, density_bar_dot, power_contraction_bar_dot, fresh)
    if moving:
        power_spectra_reverse(values.power_bar[t, start:stop], sums_dot, weight, False, sums_bar_dot)
        power_spectra_tangent(sums, sums_dot, weight, rows)
        product(rows.T, density_bar, power_contraction_bar_dot, False)


@helper
def _reverse_tangent_by_monomials(start, stop, t, moving, potential, values, tangents, contraction_bar_dot):
    contraction, transposed = potential.contraction, potential.contraction_transposed
    degree, weight = potential.degree, potential.weight
    sums, sums_dot = values.sums[t, start:stop], tangents.sums[t, start:stop]
    sums_bar_dot = tangents.sums_bar[t % tangents.sums_bar.shape[0], start:stop]
    density_bar = values.density_bar[t, start:stop]
    density_bar_dot = tangents.density_bar[t % tangents.density_bar.shape[0], start:stop]
    n_radial, shape = sums.shape[2], (stop - start, density_bar.shape[1])
    d, d_dot = empty(shape, density_bar.dtype), empty(shape, density_bar.dtype)
    for a in range(degree.size):
        l, factor = degree[a], 2.0 * weight[a]
        of_degree = contraction_bar_dot[l * n_radial : (l + 1) * n_radial]
        if moving:
            scaled_product_tangent(
                sums[:, a], sums_dot[:, a], contraction[l], factor, density_bar, density_bar_dot, d, d_dot
            )
            product(sums_dot[:, a].T, d, of_degree, False)
        else:
            scaled_product(sums[:, a], contraction[l], factor, density_bar_dot, d_dot)
        product(d_dot, transposed[l], sums_bar_dot[:, a], True)
        product(sums[:, a].T, d_dot, of_degree, False)


@helper
def contraction_gradient(begin, potential, contraction_bar_dot, gradient):
    """Fill in gradient (flat), from ``begin`` on, that with respect to W from what the blocks give.

    That is contraction_bar_dot (B, .., M), whose first part takes up the others.
    """
    contraction = potential.contraction
    n_degrees, n_radial, n_densities = contraction.shape
    found = matrix(gradient, begin, n_degrees * n_radial, n_densities)
    if contraction_bar_dot.shape[0] == 0:  # No atoms.
        fill_rows(0, found.shape[0], found, 0.0)
        return
    total = contraction_bar_dot[0]
    for b in range(1, contraction_bar_dot.shape[0]):
        add_rows(0, total.shape[0], contraction_bar_dot[b], total)
    if potential.products.shape[0] > 0:
        fill_rows(0, found.shape[0], found, 0.0)
        add_through_power_contraction(potential.products, contraction, total, found)
    else:
        copy_rows(0, found.shape[0], total, found)
