"""Pair vectors, distances and radial Gaussians of every pair, and their tangents.

The loops run over all pairs of a block of atoms, which stand side by side: row x of ``vector`` (3, P) is a component of
all pairs.  So they are long, and LLVM vectorises them.
"""

import math

import numpy as np

from eann_lite.compiled import formula, helper
from eann_lite.formulas import cutoff_function, exponential
from eann_lite.kernels.radial import gaussian_arguments, radial_slopes
from eann_lite.kernels.rows import scale_row


@formula
def length(vector, p):
    """Length of column p of vector (3, P)."""
    return math.sqrt(vector[0, p] * vector[0, p] + vector[1, p] * vector[1, p] + vector[2, p] * vector[2, p])


@helper
def pair_geometry(start, stop, potential, batch, values):
    """Fill vector, radial = R_k and log_slope = f_c'/f_c of the pairs of atoms start to stop.

    Beyond the cutoff (pairs of a skin list) radial and log_slope are zero.  Where values.slope has place, distance and
    dR_k/dr are kept, too.
    """
    begin, end = batch.first[start], batch.first[stop]
    _vectors(start, stop, batch.first, batch.neighbor, batch.positions, batch.image, batch.images, values.vector)
    keep, vector = values.slope.shape[0] > 0, values.vector[:, begin:end]
    distance = values.distance[begin:end] if keep else np.empty(end - begin, vector.dtype)
    for p in range(end - begin):
        distance[p] = length(vector, p)
    neighbor, radial, log_slope = batch.neighbor[begin:end], values.radial[begin:end], values.log_slope[begin:end]
    _radial_functions(neighbor, batch.species, potential, distance, radial, log_slope)
    if keep:
        slope, centers, exponents = values.slope[begin:end], potential.centers, potential.exponents
        for p in range(end - begin):
            s = batch.species[neighbor[p]]
            radial_slopes(radial, p, centers, s, exponents, s, distance[p], log_slope[p], slope, p)


@helper
def _vectors(start, stop, first, neighbor, positions, image, images, vector):
    for i in range(start, stop):
        for p in range(first[i], first[i + 1]):
            for x in range(3):
                vector[x, p] = positions[neighbor[p], x] - positions[i, x] + images[image[p], x]


@helper
def _radial_functions(neighbor, species, potential, distance, radial, log_slope):
    """The exponentials stand in a loop of their own over pairs and Gaussians: twice as fast as K of them a time."""
    f_c = np.empty(distance.size)
    for p in range(distance.size):
        f_c[p], slope = cutoff_function(distance[p], potential.cutoff)
        log_slope[p] = slope / f_c[p] if f_c[p] > 0.0 else 0.0
    for p in range(distance.size):
        s = species[neighbor[p]]
        gaussian_arguments(potential.centers, s, potential.exponents, s, distance[p], radial, p)
    gaussian = radial.reshape(radial.size)
    for n in range(gaussian.size):
        gaussian[n] = exponential(gaussian[n])
    for p in range(distance.size):
        scale_row(radial, p, f_c[p], radial, p)


@helper
def pair_directions(start, stop, batch, values, tangents, direction, strain):
    """Tangents of vector, distance and radial functions of the pairs of atoms start to stop.

    Atoms move along direction (N, 3) and structure q is strained by strain (Q, 3, 3), symmetric:
    r_p_dot = direction_j - direction_i + r_p strain.
    """
    first, neighbor = batch.first, batch.neighbor
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
    for p in range(first[start], first[stop]):
        scale_row(values.slope, p, tangents.distance[p], tangents.radial, p)
