"""Derivatives of pair gradients and forces along a direction of the atoms, which give products with the Hessian."""

import numpy as np

from eann_lite.compiled import helper
from eann_lite.formulas import cutoff_curvature, cutoff_function, radial_curvature, zbl_curvature, zbl_pair
from eann_lite.kernels.dense import product
from eann_lite.kernels.orbitals import most_pairs, orbitals_of_all_steps


@helper
def slope_tangents(start, stop, potential, batch, values, tangents, slope_dot):
    """slope_dot (P, K): tangent of dR_k/dr of the pairs of atoms start to stop."""
    for p in range(batch.first[start], batch.first[stop]):
        r, s = values.distance[p], batch.species[batch.neighbor[p]]
        f_c, f_c_slope = cutoff_function(r, potential.cutoff)
        f_c_curvature = cutoff_curvature(r, potential.cutoff)
        for k in range(slope_dot.shape[1]):
            slope_dot[p, k] = tangents.distance[p] * radial_curvature(
                r, potential.exponents[s, k], potential.centers[s, k], f_c, f_c_slope, f_c_curvature
            )


@helper
def pair_gradients_tangent(start, stop, potential, batch, values, tangents, slope_dot, gradient_dot):
    """gradient_dot (3, P): tangent of what ``orbitals.pair_gradients`` adds to the pair gradients."""
    first, neighbor = batch.first, batch.neighbor
    coefficients, coefficients_dot = values.coefficients, tangents.coefficients
    block_begin, block_end = first[start], first[stop]
    n_monomials, n_orbitals = values.angular.shape[0], coefficients.shape[0] * coefficients.shape[2]
    # bars[0] is Abar_pa, bars[1] is Cbar_pa, whose orbitals have dR_k/dr in place of R_k; bars_dot are their tangents.
    bars = np.empty((2, n_monomials, block_end - block_begin))
    bars_dot = np.empty((2, n_monomials, block_end - block_begin))
    scratch = np.empty((n_orbitals, most_pairs(start, stop, first)))
    for i in range(start, stop):
        begin, end = first[i], first[i + 1]
        n, m = begin - block_begin, end - block_begin
        sums_bar = values.sums_bar[i].reshape(n_monomials, n_orbitals)
        sums_bar_dot = tangents.sums_bar[i].reshape(n_monomials, n_orbitals)
        orbitals = scratch[:, : m - n]
        for kind in range(2):
            radial = values.radial if kind == 0 else values.slope
            radial_dot = tangents.radial if kind == 0 else slope_dot
            orbitals_of_all_steps(begin, end, radial, coefficients, neighbor, orbitals)
            product(sums_bar, orbitals, bars[kind, :, n:m], True)
            product(sums_bar_dot, orbitals, bars_dot[kind, :, n:m], True)
            orbitals_of_all_steps(begin, end, radial_dot, coefficients, neighbor, orbitals)
            product(sums_bar, orbitals, bars_dot[kind, :, n:m], False)
            orbitals_of_all_steps(begin, end, radial, coefficients_dot, neighbor, orbitals)
            product(sums_bar, orbitals, bars_dot[kind, :, n:m], False)
    _chain_rule_tangent(block_begin, block_end, potential.factors, values, tangents, bars, bars_dot, gradient_dot)


@helper
def _chain_rule_tangent(block_begin, block_end, factors, values, tangents, bars, bars_dot, gradient_dot):
    """Tangent of sum_a [Abar_a grad A_a + A_a Cbar_a r_p / r]."""
    angular, angular_dot = values.angular, tangents.angular
    for p in range(block_begin, block_end):
        n = p - block_begin
        central = 0.0
        central_dot = 0.0
        for a in range(angular.shape[0]):
            central += angular[a, p] * bars[1, a, n]
            central_dot += angular_dot[a, p] * bars[1, a, n] + angular[a, p] * bars_dot[1, a, n]
        r, r_dot = values.distance[p], tangents.distance[p]
        for x in range(3):
            gradient_dot[x, p] = (central_dot - central * r_dot / r) / r * values.vector[x, p]
            gradient_dot[x, p] += central / r * tangents.vector[x, p]
        for f in range(factors.shape[0]):
            a, x, parent, power = factors[f, 0], factors[f, 1], factors[f, 2], factors[f, 3]
            gradient_dot[x, p] += power * (
                angular_dot[parent, p] * bars[0, a, n] + angular[parent, p] * bars_dot[0, a, n]
            )


@helper
def add_zbl_tangent(start, stop, potential, batch, values, tangents, gradient_dot):
    """gradient_dot (3, P) += tangent of half of the derivative of each pair's repulsion."""
    species, cutoff = batch.species, potential.repulsion_cutoff
    for i in range(start, stop):
        z_i = potential.numbers[species[i]]
        for p in range(batch.first[i], batch.first[i + 1]):
            r, r_dot = values.distance[p], tangents.distance[p]
            if r < cutoff:
                z_j = potential.numbers[species[batch.neighbor[p]]]
                _, slope = zbl_pair(r, z_i, z_j, cutoff)
                along = 0.5 * (zbl_curvature(r, z_i, z_j, cutoff) - slope / r) * r_dot / r
                for x in range(3):
                    gradient_dot[x, p] += along * values.vector[x, p] + 0.5 * slope / r * tangents.vector[x, p]


@helper
def forces_tangent(start, stop, batch, gradient_dot, forces_dot):
    """forces_dot (N, 3) = sum_p (g_dot_p - g_dot_rev(p)) of atoms start to stop."""
    for i in range(start, stop):
        for x in range(3):
            forces_dot[i, x] = 0.0
        for p in range(batch.first[i], batch.first[i + 1]):
            for x in range(3):
                forces_dot[i, x] += gradient_dot[x, p] - gradient_dot[x, batch.reverse[p]]
