"""Derivatives of pair gradients and forces along a direction of the atoms, which give products with the Hessian."""

import numpy as np

from eann_lite.compiled import helper
from eann_lite.formulas import cutoff_curvature, cutoff_function, radial_curvature, zbl_curvature, zbl_pair
from eann_lite.kernels.arrays import empty
from eann_lite.kernels.dense import product
from eann_lite.kernels.monomials import columns_of_pairs, monomials_and_tangents
from eann_lite.kernels.radial import radial_slopes
from eann_lite.kernels.rows import fill_rows


@helper
def slopes_and_tangents(start, stop, potential, batch, values, tangents, slope, slope_dot):
    """slope = dR_k/dr and slope_dot, its tangent (P, K), of the pairs of atoms start to stop."""
    for p in range(batch.first[start], batch.first[stop]):
        r, s = values.distance[p], batch.species[batch.neighbor[p]]
        f_c, f_c_slope = cutoff_function(r, potential.cutoff)
        f_c_curvature = cutoff_curvature(r, potential.cutoff)
        radial_slopes(
            values.radial, p, potential.centers, s, potential.exponents, s, r, values.log_slope[p], slope, p
        )  # fmt: skip
        for k in range(slope_dot.shape[1]):
            slope_dot[p, k] = tangents.distance[p] * radial_curvature(
                r, potential.exponents[s, k], potential.centers[s, k], f_c, f_c_slope, f_c_curvature
            )


@helper
def _orbitals_of_all_steps(begin, end, radial, coefficients, neighbor, orbitals):
    """R_k(r_p) c^t_jk of the pairs begin to end, as rows (t, k) of numbers side by side for pairs."""
    n_radial = radial.shape[1]
    for t in range(coefficients.shape[0]):
        for p in range(begin, end):
            for k in range(n_radial):
                orbitals[t * n_radial + k, p - begin] = radial[p, k] * coefficients[t, neighbor[p], k]


@helper
def _sums_of_all_steps(i, sums, together):
    """together (A, ..): the sums (T + 1, N, A, K) of atom i, numbers (t, k) side by side for each monomial."""
    for t in range(sums.shape[0]):
        for a in range(sums.shape[2]):
            for k in range(sums.shape[3]):
                together[a, t * sums.shape[3] + k] = sums[t, i, a, k]


@helper
def pair_gradients_tangent(start, stop, potential, batch, values, tangents, slope, slope_dot, gradient_dot):
    """gradient_dot (3, P): tangent of what ``pair_gradients`` finds, but for the repulsion."""
    first, neighbor, radial = batch.first, batch.neighbor, values.radial
    coefficients, coefficients_dot = values.coefficients, tangents.coefficients
    n_monomials, n_orbitals = values.sums.shape[2], coefficients.shape[0] * coefficients.shape[2]
    angular = columns_of_pairs(n_monomials, start, stop, first, radial)
    angular_dot = columns_of_pairs(n_monomials, start, stop, first, radial)
    scratch = columns_of_pairs(n_orbitals, start, stop, first, radial)
    # bars[0] is Abar_pa = sum_tk Bbar^t_iak R_k c^t_jk, bars[1] is Cbar_pa, whose orbitals have dR_k/dr in place of R_k;
    # bars_dot are their tangents.
    bars, bars_dot = empty((2, *angular.shape), np.float64), empty((2, *angular.shape), np.float64)
    sums_bar, sums_bar_dot = empty((n_monomials, n_orbitals), np.float64), empty((n_monomials, n_orbitals), np.float64)
    # The tangent of R_k is dR_k/dr times that of r, so what it gives to Abar's tangent is made of Cbar below.
    for i in range(start, stop):
        begin, end = first[i], first[i + 1]
        _sums_of_all_steps(i, values.sums_bar, sums_bar)
        _sums_of_all_steps(i, tangents.sums_bar, sums_bar_dot)
        orbitals = scratch[:, : end - begin]
        for kind in range(2):
            radial = values.radial if kind == 0 else slope
            bar, bar_dot = bars[kind, :, : end - begin], bars_dot[kind, :, : end - begin]
            _orbitals_of_all_steps(begin, end, radial, coefficients, neighbor, orbitals)
            product(sums_bar, orbitals, bar, True)
            product(sums_bar_dot, orbitals, bar_dot, True)
            if kind == 1:
                _orbitals_of_all_steps(begin, end, slope_dot, coefficients, neighbor, orbitals)
                product(sums_bar, orbitals, bar_dot, False)
            _orbitals_of_all_steps(begin, end, radial, coefficients_dot, neighbor, orbitals)
            product(sums_bar, orbitals, bar_dot, False)
        monomials_and_tangents(i, potential, batch, values, tangents, angular, angular_dot)
        _chain_rule_tangent(
            begin, end, potential.parent, potential.axis, values, tangents, angular, angular_dot, bars, bars_dot,
            gradient_dot,
        )  # fmt: skip


@helper
def _chain_rule_tangent(begin, end, parent, axis, values, tangents, angular, angular_dot, bars, bars_dot, gradient_dot):
    """Tangent of sum_a [Abar_a grad A_a + A_a Cbar_a r_p / r]; bars[0] and bars_dot[0] are lost."""
    vector, vector_dot = values.vector, tangents.vector
    for p in range(begin, end):
        n, r, r_dot = p - begin, values.distance[p], tangents.distance[p]
        central = 0.0
        central_dot = 0.0
        for a in range(parent.size):
            bars_dot[0, a, n] += bars[1, a, n] * r_dot
            central += angular[a, n] * bars[1, a, n]
            central_dot += angular_dot[a, n] * bars[1, a, n] + angular[a, n] * bars_dot[1, a, n]
        for x in range(3):
            gradient_dot[x, p] = (central_dot - central * r_dot / r) / r * vector[x, p] + central / r * vector_dot[x, p]
        # Monomial a is its parent times a component: what it means for both, the highest degree first.
        for a in range(parent.size - 1, 0, -1):
            bar, bar_dot, b, x = bars[0, a, n], bars_dot[0, a, n], parent[a], axis[a]
            gradient_dot[x, p] += bar_dot * angular[b, n] + bar * angular_dot[b, n]
            bars[0, b, n] += bar * vector[x, p]
            bars_dot[0, b, n] += bar_dot * vector[x, p] + bar * vector_dot[x, p]


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
def forces_tangent(b, batch, gradient_dot, recoil, forces_dot):
    """forces_dot (N, 3) = sum_p g_dot_p of the atoms of block b, and its rows of recoil -= g_dot_p for all neighbours."""
    fill_rows(batch.block_first[b], batch.block_first[b + 1], recoil, 0.0)
    for i in range(batch.blocks[b, 0], batch.blocks[b, 1]):
        for x in range(3):
            forces_dot[i, x] = 0.0
        for p in range(batch.first[i], batch.first[i + 1]):
            for x in range(3):
                forces_dot[i, x] += gradient_dot[x, p]
                recoil[batch.row[p], x] -= gradient_dot[x, p]
