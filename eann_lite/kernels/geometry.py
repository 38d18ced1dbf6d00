"""Pair vectors, radial Gaussians and angular monomials of every pair, and their tangents.

The loops run over all pairs of a block of atoms, which stand side by side: row x of ``vector`` (3, P) is a component of
all pairs, row a of ``angular`` (A, P) a monomial.  So they are long, and LLVM vectorises them.
"""

import math

import numpy as np

from eann_lite.compiled import helper
from eann_lite.formulas import cutoff_function, exponential, radial_gaussian
from eann_lite.kernels.rows import fill_rows, scale_row
from eann_lite.kernels.vectors import multiply, row_operation


def _displacement(builder, center, exponent, r):
    d = builder.fsub(r, center)
    return d, multiply(builder, exponent, d)


#: _displacements(centers, s, exponents, s, r, d, p, alpha_d, p): d_k = r - r_sk and alpha_sk d_k.
_displacements = row_operation(2, _displacement)


@helper
def pair_geometry(start, stop, potential, batch, values):
    """Fill vector, distance, angular, radial = R_k and slope = dR_k/dr of the pairs of atoms start to stop.

    Monomial a is monomial ``parent[a]`` times component ``axis[a]`` of the vector, without its square-root weight,
    which the contraction applies.  Beyond the cutoff (pairs of a skin list) radial and slope are zero.
    """
    begin, end = batch.first[start], batch.first[stop]
    _vectors(start, stop, batch.first, batch.neighbor, batch.positions, batch.image, values.vector)
    distance, vector = values.distance[begin:end], values.vector[:, begin:end]
    for p in range(end - begin):
        square = vector[0, p] * vector[0, p] + vector[1, p] * vector[1, p] + vector[2, p] * vector[2, p]
        distance[p] = math.sqrt(square)
    _monomials(potential.parent, potential.axis, vector, values.angular[:, begin:end])
    _radial_functions(
        batch.neighbor[begin:end], batch.species, potential, distance, values.radial[begin:end], values.slope[begin:end]
    )


@helper
def _vectors(start, stop, first, neighbor, positions, image, vector):
    for i in range(start, stop):
        for p in range(first[i], first[i + 1]):
            for x in range(3):
                vector[x, p] = positions[neighbor[p], x] - positions[i, x] + image[p, x]


@helper
def _monomials(parent, axis, vector, angular):
    for p in range(angular.shape[1]):
        angular[0, p] = 1.0
    for a in range(1, parent.size):
        source, component, target = angular[parent[a]], vector[axis[a]], angular[a]
        for p in range(target.size):
            target[p] = source[p] * component[p]


@helper
def _radial_functions(neighbor, species, potential, distance, radial, slope):
    """The exponentials stand in a loop of their own over pairs and Gaussians: twice as fast as K of them a time."""
    f_c, f_c_slope = np.empty(distance.size), np.empty(distance.size)
    for p in range(distance.size):
        f_c[p], f_c_slope[p] = cutoff_function(distance[p], potential.cutoff)
    for p in range(distance.size):
        s = species[neighbor[p]]
        _displacements(potential.centers, s, potential.exponents, s, distance[p], radial, p, slope, p)
    gaussian, alpha_d = radial.reshape(radial.size), slope.reshape(slope.size)
    for n in range(gaussian.size):
        gaussian[n] = exponential(-alpha_d[n] * gaussian[n])
    for p in range(distance.size):
        for k in range(radial.shape[1]):
            radial[p, k], slope[p, k] = radial_gaussian(radial[p, k], slope[p, k], f_c[p], f_c_slope[p])


@helper
def pair_directions(start, stop, potential, batch, values, tangents, direction, strain):
    """Tangents of vector, distance, monomials and radial functions of the pairs of atoms start to stop.

    Atoms move along direction (N, 3) and structure q is strained by strain (Q, 3, 3), symmetric:
    r_p_dot = direction_j - direction_i + r_p strain.  factors (F, 4): rows (a, axis, parent, power) with
    dA_a / dx_axis = power * A_parent, for every nonzero derivative.
    """
    first, neighbor, factors = batch.first, batch.neighbor, potential.factors
    begin, end = first[start], first[stop]
    vector, vector_dot = values.vector, tangents.vector
    for i in range(start, stop):
        q = batch.structure[i]
        for p in range(first[i], first[i + 1]):
            along = 0.0
            for x in range(3):
                d = direction[neighbor[p], x] - direction[i, x]
                for y in range(3):
                    d += vector[y, p] * strain[q, y, x]
                vector_dot[x, p] = d
                along += d * vector[x, p]
            tangents.distance[p] = along / values.distance[p]
    angular_dot = tangents.angular[:, begin:end]
    fill_rows(0, angular_dot.shape[0], angular_dot, 0.0)
    for f in range(factors.shape[0]):
        target, source = angular_dot[factors[f, 0]], values.angular[factors[f, 2], begin:end]
        component, power = vector_dot[factors[f, 1], begin:end], factors[f, 3]
        for p in range(target.size):
            target[p] += power * source[p] * component[p]
    for p in range(begin, end):
        scale_row(values.slope, p, tangents.distance[p], tangents.radial, p)
