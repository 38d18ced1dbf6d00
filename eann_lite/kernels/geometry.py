"""Pair vectors, distances and radial Gaussians of every pair, and their tangents.

The loops run over all pairs of a block of atoms, which stand side by side: row x of ``vector`` (3, P) is a component of
all pairs.  So they are long, and LLVM vectorises them.

Where neighbours are looked up it cannot, and Numba would check each index for being negative: these have no sign.
(They are for that alone: Numba takes the sum of one and of a signed number for a float.)
"""

import numpy as np

from eann_lite.compiled import helper
from eann_lite.formulas import cutoff_function, exponential
from eann_lite.kernels.arrays import empty, matrix
from eann_lite.kernels.columns import lengths
from eann_lite.kernels.radial import gaussian_arguments
from eann_lite.kernels.rows import scale_row


@helper
def pair_geometry(start, stop, potential, batch, values):
    """Fill vector, radial = R_k and log_slope = f_c'/f_c of the pairs of atoms start to stop.

    Beyond the cutoff (pairs of a skin list) radial and log_slope are zero.  Distances are kept where they have place.
    """
    begin, end = batch.first[start], batch.first[stop]
    _vectors(start, stop, batch.first, batch.neighbor, batch.positions, batch.image, batch.images, values.vector)
    if values.distance.shape[0] > 0:
        distance = matrix(values.distance, begin, 1, end - begin)
    else:
        distance = empty((1, end - begin), values.vector.dtype)
    lengths(values.vector, begin, end, distance)
    neighbor, radial, log_slope = batch.neighbor[begin:end], values.radial[begin:end], values.log_slope[begin:end]
    _radial_functions(neighbor, batch.species, potential, distance[0], radial, log_slope)


@helper
def _vectors(start, stop, first, neighbor, positions, image, images, vector):
    for i in range(start, stop):
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        for pair in range(first[i], first[i + 1]):
            p = np.uint64(pair)
            j, n = np.uint64(neighbor[p]), np.uint64(image[p])
            vector[0, p] = positions[j, 0] - x + images[n, 0]
            vector[1, p] = positions[j, 1] - y + images[n, 1]
            vector[2, p] = positions[j, 2] - z + images[n, 2]


@helper
def _radial_functions(neighbor, species, potential, distance, radial, log_slope):
    """The exponentials stand in a loop of their own over pairs and Gaussians: twice as fast as K of them a time."""
    f_c = empty(distance.size, np.float64)
    for p in range(distance.size):
        f_c[p], slope = cutoff_function(distance[p], potential.cutoff)
        log_slope[p] = slope / f_c[p] if f_c[p] > 0.0 else 0.0
    for p in range(distance.size):
        s = species[np.uint64(neighbor[p])]
        gaussian_arguments(potential.centers, s, potential.exponents, s, distance[p], radial, p)
    gaussian = radial.reshape(radial.size)
    for n in range(gaussian.size):
        gaussian[n] = exponential(gaussian[n])
    for p in range(distance.size):
        scale_row(radial, p, f_c[p], radial, p)


@helper
def pair_directions(start, stop, potential, batch, values, tangents, direction, strain):
    """Tangents of vector and distance of the pairs of atoms start to stop; radial functions': ``orbital_tiles``.

    Atoms move along direction (N, 3) and structure q is strained by strain (Q, 3, 3), symmetric:
    r_p_dot = direction_j - direction_i + r_p strain.
    """
    first, neighbor = batch.first, batch.neighbor
    vector, vector_dot = values.vector, tangents.vector
    distance, distance_dot = values.distance, tangents.distance
    for i in range(start, stop):
        own, strained = (direction[i, 0], direction[i, 1], direction[i, 2]), strain[batch.structure[i]]
        for pair in range(first[i], first[i + 1]):
            p = np.uint64(pair)
            j = np.uint64(neighbor[p])
            r = vector[0, p], vector[1, p], vector[2, p]
            x = direction[j, 0] - own[0] + r[0] * strained[0, 0] + r[1] * strained[1, 0] + r[2] * strained[2, 0]
            y = direction[j, 1] - own[1] + r[0] * strained[0, 1] + r[1] * strained[1, 1] + r[2] * strained[2, 1]
            z = direction[j, 2] - own[2] + r[0] * strained[0, 2] + r[1] * strained[1, 2] + r[2] * strained[2, 2]
            vector_dot[0, p], vector_dot[1, p], vector_dot[2, p] = x, y, z
            distance_dot[p] = (x * r[0] + y * r[1] + z * r[2]) / distance[p]
