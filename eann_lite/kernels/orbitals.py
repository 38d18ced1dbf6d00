"""Sums over pairs: weighted orbital sums, their reverse (a gather over reversed pairs), pair forces, and tangents.

``width`` is a tuple of length K: Numba compiles one version per length, so the inner loops over k have a constant
number of turns and become vector instructions.
"""

import numpy as np
from numba import prange

from eann_lite.compiled import Kernel
from eann_lite.formulas import radial_parameter_slopes


@Kernel
def orbital_sums(first, neighbor, angular, radial, coefficients, width, sums):
    """sums (N, A, K): B_iak = sum over pairs p: i->j of A_a(r_p) R_k(r_p) c_jk, with coefficients c (N, K)."""
    n_monomials = angular.shape[1]
    n_radial = len(width)
    for i_ in prange(first.size - 1):
        i = np.int64(i_)
        orbital = np.empty(n_radial)
        for a in range(n_monomials):
            for k in range(n_radial):
                sums[i, a, k] = 0.0
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for k in range(n_radial):
                orbital[k] = radial[p, k] * coefficients[j, k]
            for a in range(n_monomials):
                y = angular[p, a]
                for k in range(n_radial):
                    sums[i, a, k] += y * orbital[k]


@Kernel
def orbital_sums_tangent(
    first, neighbor, angular, radial, coefficients, angular_dot, radial_dot, coefficients_dot, width, sums_dot
):
    """sums_dot (N, A, K): derivative of the weighted orbital sums along the tangent direction."""
    n_monomials = angular.shape[1]
    n_radial = len(width)
    for i_ in prange(first.size - 1):
        i = np.int64(i_)
        orbital = np.empty(n_radial)
        orbital_dot = np.empty(n_radial)
        for a in range(n_monomials):
            for k in range(n_radial):
                sums_dot[i, a, k] = 0.0
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for k in range(n_radial):
                orbital[k] = radial[p, k] * coefficients[j, k]
                orbital_dot[k] = radial_dot[p, k] * coefficients[j, k] + radial[p, k] * coefficients_dot[j, k]
            for a in range(n_monomials):
                y = angular[p, a]
                y_dot = angular_dot[p, a]
                for k in range(n_radial):
                    sums_dot[i, a, k] += y_dot * orbital[k] + y * orbital_dot[k]


@Kernel
def gather_coefficients(first, neighbor, reverse, angular, radial, parity, sums_bar, width, coefficients_bar):
    """coefficients_bar (N, K) += sum over pairs p: i->j of R_k(r_p) sum_a A_a(r_p) Bbar_iak, for every j.

    The pairs that end at j are the reversed pairs of its own list, where A_a changes sign by parity[a] = (-1)^l.
    """
    n_monomials = angular.shape[1]
    n_radial = len(width)
    for j_ in prange(first.size - 1):
        j = np.int64(j_)
        shared = np.empty(n_radial)
        for q in range(first[j], first[j + 1]):
            i = neighbor[q]
            p = reverse[q]
            for k in range(n_radial):
                shared[k] = 0.0
            for a in range(n_monomials):
                y = parity[a] * angular[q, a]
                for k in range(n_radial):
                    shared[k] += y * sums_bar[i, a, k]
            for k in range(n_radial):
                coefficients_bar[j, k] += radial[p, k] * shared[k]


@Kernel
def gather_coefficients_tangent(
    first, neighbor, reverse, species, parity, exponents, centers,
    distance, angular, radial, slope, coefficients, sums_bar,
    distance_dot, angular_dot, radial_dot, coefficients_dot, sums_bar_dot, width,
    coefficients_bar_dot, exponents_bar_dot, centers_bar_dot,
):  # fmt: skip
    """Tangent of ``gather_coefficients``, and what this step adds to the gradients of alpha and r_s, kept per atom.

    coefficients_bar_dot, exponents_bar_dot, centers_bar_dot (N, K) are added to.  With S = sum_a A_a Bbar_iak,
    Rbar = c S, so the gradient with respect to alpha is the tangent of sum_p Rbar dR/dalpha (r_s likewise).
    """
    n_monomials = angular.shape[1]
    n_radial = len(width)
    for j_ in prange(first.size - 1):
        j = np.int64(j_)
        s = species[j]
        shared = np.empty(n_radial)
        shared_dot = np.empty(n_radial)
        for q in range(first[j], first[j + 1]):
            i = neighbor[q]
            p = reverse[q]
            for k in range(n_radial):
                shared[k] = 0.0
                shared_dot[k] = 0.0
            for a in range(n_monomials):
                y = parity[a] * angular[q, a]
                y_dot = parity[a] * angular_dot[q, a]
                for k in range(n_radial):
                    shared[k] += y * sums_bar[i, a, k]
                    shared_dot[k] += y_dot * sums_bar[i, a, k] + y * sums_bar_dot[i, a, k]
            r = distance[q]
            r_dot = distance_dot[q]
            for k in range(n_radial):
                coefficients_bar_dot[j, k] += radial_dot[p, k] * shared[k] + radial[p, k] * shared_dot[k]
                radial_bar = coefficients[j, k] * shared[k]
                radial_bar_dot = coefficients_dot[j, k] * shared[k] + coefficients[j, k] * shared_dot[k]
                by_alpha, by_center, by_alpha_slope, by_center_slope = radial_parameter_slopes(
                    r, exponents[s, k], centers[s, k], radial[p, k], slope[p, k]
                )
                exponents_bar_dot[j, k] += radial_bar_dot * by_alpha + radial_bar * by_alpha_slope * r_dot
                centers_bar_dot[j, k] += radial_bar_dot * by_center + radial_bar * by_center_slope * r_dot


@Kernel
def pair_gradients(
    first, neighbor, vector, distance, angular, radial, slope, coefficients, sums_bar, factors, width, gradient
):
    """gradient (P, 3) += g_p = dE/dr_p from all recursion steps at once.

    coefficients (T+1, N, K), sums_bar (T+1, N, A, K); factors as in ``pair_directions``.  With
    Z_ak = sum_t c_jk^t Bbar_iak^t: g_p = sum_ak Z_ak [A_a dR_k/dr r_p / r + R_k grad A_a].
    """
    n_steps = coefficients.shape[0]
    n_monomials = angular.shape[1]
    n_radial = len(width)
    for i_ in prange(first.size - 1):
        i = np.int64(i_)
        z = np.empty((n_monomials, n_radial))
        shared = np.empty(n_radial)
        along = np.empty((3, n_radial))
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


@Kernel
def forces_and_virials(first, reverse, vector, gradient, forces, virials):
    """forces (N, 3) = sum_p (g_p - g_rev(p)) and virials (N, 3, 3) = sum_p r_p (x) g_p, symmetrised, of each atom."""
    for i_ in prange(first.size - 1):
        i = np.int64(i_)
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
