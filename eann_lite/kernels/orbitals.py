"""Sums over the pairs of a block of atoms: weighted orbital sums, their reverse (a gather over reversed pairs), pair
forces, and tangents.

Every function works on the atoms start to stop and writes rows of these atoms alone, so blocks may run side by side.
"""

import numpy as np

from eann_lite.compiled import helper
from eann_lite.formulas import radial_parameter_slopes


@helper
def orbital_sums(start, stop, t, potential, batch, values):
    """B_iak of step t = sum over pairs p: i->j of A_a(r_p) R_k(r_p) c_jk."""
    first, neighbor, angular, radial = batch.first, batch.neighbor, values.angular, values.radial
    coefficients, sums = values.coefficients[t], values.sums[t]
    n_radial = radial.shape[1]
    orbital = np.empty(n_radial)
    for i in range(start, stop):
        for a in range(angular.shape[1]):
            for k in range(n_radial):
                sums[i, a, k] = 0.0
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for k in range(n_radial):
                orbital[k] = radial[p, k] * coefficients[j, k]
            for a in range(angular.shape[1]):
                y = angular[p, a]
                for k in range(n_radial):
                    sums[i, a, k] += y * orbital[k]


@helper
def orbital_sums_tangent(start, stop, t, potential, batch, values, tangents):
    """Derivative of the weighted orbital sums of step t along the tangent direction."""
    first, neighbor, angular, radial = batch.first, batch.neighbor, values.angular, values.radial
    angular_dot, radial_dot = tangents.angular, tangents.radial
    coefficients, coefficients_dot, sums_dot = values.coefficients[t], tangents.coefficients[t], tangents.sums[t]
    n_radial = radial.shape[1]
    orbital = np.empty(n_radial)
    orbital_dot = np.empty(n_radial)
    for i in range(start, stop):
        for a in range(angular.shape[1]):
            for k in range(n_radial):
                sums_dot[i, a, k] = 0.0
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for k in range(n_radial):
                orbital[k] = radial[p, k] * coefficients[j, k]
                orbital_dot[k] = radial_dot[p, k] * coefficients[j, k] + radial[p, k] * coefficients_dot[j, k]
            for a in range(angular.shape[1]):
                y = angular[p, a]
                y_dot = angular_dot[p, a]
                for k in range(n_radial):
                    sums_dot[i, a, k] += y_dot * orbital[k] + y * orbital_dot[k]


@helper
def gather_coefficients(start, stop, t, potential, batch, values):
    """coefficients_bar of step t += sum over pairs p: i->j of R_k(r_p) sum_a A_a(r_p) Bbar_iak, for every j.

    The pairs that end at j are the reversed pairs of its own list, where A_a changes sign by parity[a] = (-1)^l.
    """
    first, neighbor, reverse, parity = batch.first, batch.neighbor, batch.reverse, potential.parity
    angular, radial = values.angular, values.radial
    sums_bar, coefficients_bar = values.sums_bar[t], values.coefficients_bar[t]
    n_radial = radial.shape[1]
    shared = np.empty(n_radial)
    for j in range(start, stop):
        for q in range(first[j], first[j + 1]):
            i = neighbor[q]
            p = reverse[q]
            for k in range(n_radial):
                shared[k] = 0.0
            for a in range(angular.shape[1]):
                y = parity[a] * angular[q, a]
                for k in range(n_radial):
                    shared[k] += y * sums_bar[i, a, k]
            for k in range(n_radial):
                coefficients_bar[j, k] += radial[p, k] * shared[k]


@helper
def gather_coefficients_tangent(
    start, stop, t, moving, potential, batch, values, tangents, exponents_bar_dot, centers_bar_dot
):
    """Tangent of ``gather_coefficients``, and what this step adds to the gradients of alpha and r_s, kept per atom.

    coefficients_bar of the tangents, exponents_bar_dot and centers_bar_dot (N, K) are added to.  With
    S = sum_a A_a Bbar_iak, Rbar = c S, so the gradient with respect to alpha is the tangent of sum_p Rbar dR/dalpha
    (r_s likewise).  Without ``moving`` the atoms stand still: of all tangents only those of the seeds' adjoints count.
    """
    first, neighbor, reverse, parity, species = (
        batch.first, batch.neighbor, batch.reverse, potential.parity, batch.species
    )  # fmt: skip
    angular, radial, slope, distance = values.angular, values.radial, values.slope, values.distance
    coefficients, sums_bar = values.coefficients[t], values.sums_bar[t]
    coefficients_dot, sums_bar_dot = tangents.coefficients[t], tangents.sums_bar[t]
    coefficients_bar_dot = tangents.coefficients_bar[t]
    n_radial = radial.shape[1]
    shared = np.empty(n_radial)
    shared_dot = np.empty(n_radial)
    for j in range(start, stop):
        s = species[j]
        for q in range(first[j], first[j + 1]):
            i = neighbor[q]
            p = reverse[q]
            for k in range(n_radial):
                shared[k] = 0.0
                shared_dot[k] = 0.0
            for a in range(angular.shape[1]):
                y = parity[a] * angular[q, a]
                for k in range(n_radial):
                    shared_dot[k] += y * sums_bar_dot[i, a, k]
                if moving:
                    y_dot = parity[a] * tangents.angular[q, a]
                    for k in range(n_radial):
                        shared[k] += y * sums_bar[i, a, k]
                        shared_dot[k] += y_dot * sums_bar[i, a, k]
            for k in range(n_radial):
                coefficients_bar_dot[j, k] += radial[p, k] * shared_dot[k]
            if moving:
                for k in range(n_radial):
                    coefficients_bar_dot[j, k] += tangents.radial[p, k] * shared[k]
            r = distance[q]
            for k in range(n_radial):
                by_alpha, by_center, by_alpha_slope, by_center_slope = radial_parameter_slopes(
                    r, potential.exponents[s, k], potential.centers[s, k], radial[p, k], slope[p, k]
                )
                radial_bar_dot = coefficients[j, k] * shared_dot[k]
                if moving:
                    radial_bar_dot += coefficients_dot[j, k] * shared[k]
                    radial_bar_r_dot = coefficients[j, k] * shared[k] * tangents.distance[q]
                    exponents_bar_dot[j, k] += radial_bar_r_dot * by_alpha_slope
                    centers_bar_dot[j, k] += radial_bar_r_dot * by_center_slope
                exponents_bar_dot[j, k] += radial_bar_dot * by_alpha
                centers_bar_dot[j, k] += radial_bar_dot * by_center


@helper
def pair_gradients(start, stop, potential, batch, values):
    """pair_gradient (P, 3) += g_p = dE/dr_p from all recursion steps at once.

    With Z_ak = sum_t c_jk^t Bbar_iak^t: g_p = sum_ak Z_ak [A_a dR_k/dr r_p / r + R_k grad A_a].
    """
    first, neighbor, factors = batch.first, batch.neighbor, potential.factors
    vector, distance, angular, radial, slope = (
        values.vector, values.distance, values.angular, values.radial, values.slope
    )  # fmt: skip
    coefficients, sums_bar, gradient = values.coefficients, values.sums_bar, values.pair_gradient
    n_steps = coefficients.shape[0]
    n_monomials = angular.shape[1]
    n_radial = radial.shape[1]
    z = np.empty((n_monomials, n_radial))
    shared = np.empty(n_radial)
    along = np.empty((3, n_radial))
    for i in range(start, stop):
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for a in range(n_monomials):
                for k in range(n_radial):
                    z[a, k] = coefficients[0, j, k] * sums_bar[0, i, a, k]
                for t in range(1, n_steps):
                    for k in range(n_radial):
                        z[a, k] += coefficients[t, j, k] * sums_bar[t, i, a, k]
            for k in range(n_radial):
                shared[k] = 0.0
                along[0, k] = 0.0
                along[1, k] = 0.0
                along[2, k] = 0.0
            for a in range(n_monomials):
                y = angular[p, a]
                for k in range(n_radial):
                    shared[k] += y * z[a, k]
            for f in range(factors.shape[0]):
                a = factors[f, 0]
                x = factors[f, 1]
                y = factors[f, 3] * angular[p, factors[f, 2]]
                for k in range(n_radial):
                    along[x, k] += y * z[a, k]
            central = 0.0
            gx = 0.0
            gy = 0.0
            gz = 0.0
            for k in range(n_radial):
                central += slope[p, k] * shared[k]
                gx += radial[p, k] * along[0, k]
                gy += radial[p, k] * along[1, k]
                gz += radial[p, k] * along[2, k]
            central /= distance[p]
            gradient[p, 0] += gx + central * vector[p, 0]
            gradient[p, 1] += gy + central * vector[p, 1]
            gradient[p, 2] += gz + central * vector[p, 2]


@helper
def forces_and_virials(start, stop, batch, values, forces, virials):
    """forces (N, 3) = sum_p (g_p - g_rev(p)) and virials (N, 3, 3) = sum_p r_p (x) g_p, symmetrised, of each atom."""
    first, reverse, vector, gradient = batch.first, batch.reverse, values.vector, values.pair_gradient
    for i in range(start, stop):
        for x in range(3):
            forces[i, x] = 0.0
            for y in range(3):
                virials[i, x, y] = 0.0
        for p in range(first[i], first[i + 1]):
            q = reverse[p]
            for x in range(3):
                forces[i, x] += gradient[p, x] - gradient[q, x]
                for y in range(3):
                    virials[i, x, y] += 0.5 * (vector[p, x] * gradient[p, y] + vector[p, y] * gradient[p, x])
