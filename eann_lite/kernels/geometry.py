"""Pair vectors, radial Gaussians and angular monomials of every pair, and their tangents."""

import math

import numpy as np
from numba import prange

from eann_lite.compiled import Kernel
from eann_lite.formulas import cutoff_function, radial_gaussian


@Kernel
def pair_geometry(
    positions, species, first, neighbor, image, exponents, centers, cutoff, parent, axis,
    vector, distance, angular, radial, slope,
):  # fmt: skip
    """Fill vector (P, 3), distance (P,), angular (P, A), radial (P, K) = R_k and slope (P, K) = dR_k/dr.

    positions (N, 3); image (P, 3) displacement of the neighbour's image; exponents, centers (S, K); monomial a is
    monomial ``parent[a]`` times component ``axis[a]`` of the vector, without its square-root weight, which the
    contraction applies.  Beyond the cutoff (pairs of a skin list) radial and slope are zero.
    """
    n_monomials = parent.size
    n_radial = exponents.shape[1]
    for i_ in prange(first.size - 1):
        i = np.int64(i_)
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            square = 0.0
            for x in range(3):
                d = positions[j, x] - positions[i, x] + image[p, x]
                vector[p, x] = d
                square += d * d
            r = math.sqrt(square)
            distance[p] = r
            angular[p, 0] = 1.0
            for a in range(1, n_monomials):
                angular[p, a] = angular[p, parent[a]] * vector[p, axis[a]]
            f_c, f_c_slope = cutoff_function(r, cutoff)
            s = species[j]
            for k in range(n_radial):
                radial[p, k], slope[p, k] = radial_gaussian(r, exponents[s, k], centers[s, k], f_c, f_c_slope)


@Kernel
def pair_directions(
    first, neighbor, structure, vector, distance, direction, strain, factors,
    angular, slope, vector_dot, distance_dot, angular_dot, radial_dot,
):  # fmt: skip
    """Tangents of a pair's vector, distance, monomials and radial functions.

    Atoms move along direction (N, 3) and structure q is strained by strain (Q, 3, 3), symmetric:
    r_p_dot = direction_j - direction_i + r_p strain.  factors (F, 4): rows (a, axis, parent, power) with
    dA_a / dx_axis = power * A_parent, for every nonzero derivative.
    """
    n_monomials = angular.shape[1]
    n_radial = slope.shape[1]
    for i_ in prange(first.size - 1):
        i = np.int64(i_)
        q = structure[i]
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            along = 0.0
            for x in range(3):
                d = direction[j, x] - direction[i, x]
                for y in range(3):
                    d += vector[p, y] * strain[q, y, x]
                vector_dot[p, x] = d
                along += d * vector[p, x]
            along /= distance[p]
            distance_dot[p] = along
            for a in range(n_monomials):
                angular_dot[p, a] = 0.0
            for f in range(factors.shape[0]):
                angular_dot[p, factors[f, 0]] += (
                    factors[f, 3] * angular[p, factors[f, 2]] * vector_dot[p, factors[f, 1]]
                )
            for k in range(n_radial):
                radial_dot[p, k] = slope[p, k] * along
