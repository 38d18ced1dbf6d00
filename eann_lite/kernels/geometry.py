"""Pair vectors, radial Gaussians and angular monomials of every pair, and their tangents."""

import math

from eann_lite.compiled import helper
from eann_lite.formulas import cutoff_function, radial_gaussian


@helper
def pair_geometry(start, stop, potential, batch, values):
    """Fill vector, distance, angular, radial = R_k and slope = dR_k/dr of the pairs of atoms start to stop.

    Monomial a is monomial ``parent[a]`` times component ``axis[a]`` of the vector, without its square-root weight,
    which the contraction applies.  Beyond the cutoff (pairs of a skin list) radial and slope are zero.
    """
    first, neighbor, positions, image, species = (
        batch.first,
        batch.neighbor,
        batch.positions,
        batch.image,
        batch.species,
    )
    exponents, centers, parent, axis = potential.exponents, potential.centers, potential.parent, potential.axis
    vector, distance, angular, radial, slope = (
        values.vector, values.distance, values.angular, values.radial, values.slope
    )  # fmt: skip
    cutoff = potential.cutoff
    for i in range(start, stop):
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
            for a in range(1, parent.size):
                angular[p, a] = angular[p, parent[a]] * vector[p, axis[a]]
            f_c, f_c_slope = cutoff_function(r, cutoff)
            s = species[j]
            for k in range(radial.shape[1]):
                radial[p, k], slope[p, k] = radial_gaussian(r, exponents[s, k], centers[s, k], f_c, f_c_slope)


@helper
def pair_directions(start, stop, potential, batch, values, tangents, direction, strain):
    """Tangents of vector, distance, monomials and radial functions of the pairs of atoms start to stop.

    Atoms move along direction (N, 3) and structure q is strained by strain (Q, 3, 3), symmetric:
    r_p_dot = direction_j - direction_i + r_p strain.  factors (F, 4): rows (a, axis, parent, power) with
    dA_a / dx_axis = power * A_parent, for every nonzero derivative.
    """
    first, neighbor, factors = batch.first, batch.neighbor, potential.factors
    vector, angular, slope = values.vector, values.angular, values.slope
    vector_dot, angular_dot, radial_dot = tangents.vector, tangents.angular, tangents.radial
    for i in range(start, stop):
        q = batch.structure[i]
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            along = 0.0
            for x in range(3):
                d = direction[j, x] - direction[i, x]
                for y in range(3):
                    d += vector[p, y] * strain[q, y, x]
                vector_dot[p, x] = d
                along += d * vector[p, x]
            along /= values.distance[p]
            tangents.distance[p] = along
            for a in range(angular.shape[1]):
                angular_dot[p, a] = 0.0
            for f in range(factors.shape[0]):
                angular_dot[p, factors[f, 0]] += (
                    factors[f, 3] * angular[p, factors[f, 2]] * vector_dot[p, factors[f, 1]]
                )
            for k in range(radial_dot.shape[1]):
                radial_dot[p, k] = slope[p, k] * along
