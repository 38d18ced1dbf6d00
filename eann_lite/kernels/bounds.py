"""How far the densities of atoms lie from those of training atoms; see ``eann_lite.extrapolation``.

A loop of its own, since for a molecule of five atoms the same in NumPy costs a seventh of energy and forces.
"""

import numpy as np

from eann_lite.compiled import Kernel, helper
from eann_lite.kernels.arrays import empty
from eann_lite.kernels.dense import product
from eann_lite.kernels.shares import next_block, nothing_taken, run_workers

#: The measure is 1 where the sum of densities is 0.8 of the smallest one of a training atom, 4 where it is half.
BELOW = 4.0


@helper
def _distances_of_block(start, stop, s, density, center, whitening, atoms, thinnest, distance):
    n_densities = density.shape[1]
    apart = empty((stop - start, n_densities), np.float64)
    for n in range(stop - start):
        for m in range(n_densities):
            apart[n, m] = density[start + n, m] - center[s, m]
    white = empty((stop - start, n_densities), np.float64)
    product(apart, whitening[s], white, True)
    for n in range(stop - start):
        square, total = 0.0, 0.0
        for m in range(n_densities):
            square += white[n, m] * white[n, m]
            total += density[start + n, m]
        known = atoms[s] > 0.0 and square < np.inf
        apart_from_mean = np.sqrt(square) if known else np.inf
        thinner = 0.0
        if total < thinnest[s]:
            thinner = BELOW * (thinnest[s] - total) / total if total > 0.0 else np.inf
        distance[start + n] = max(apart_from_mean, thinner)


@helper
def _distances(worker, counts, blocks, density, center, whitening, atoms, thinnest, distance):
    b = next_block(counts, 0, worker, blocks.shape[0], -1)
    while b >= 0:
        start, stop, s = blocks[b, 0], blocks[b, 1], blocks[b, 2]
        _distances_of_block(start, stop, s, density, center, whitening, atoms, thinnest, distance)
        b = next_block(counts, 0, worker, blocks.shape[0], b)


@Kernel
def distances(threads, blocks, density, center, whitening, atoms, thinnest, distance):
    """distance (N,): length of (density - center) @ whitening, center (S, M) and whitening (S, M, M) of the element.

    Or, where that is more, BELOW (thinnest / t - 1) with the sum t of the atom's densities and thinnest (S,) of the
    element.  Infinite where one overflows or is not a number, and for an element without training atoms (atoms[s] = 0).
    """
    counts = nothing_taken(1, threads, blocks.shape[0])
    run_workers(
        _distances, threads, counts.shape[1] - 1, counts, blocks, density, center, whitening, atoms, thinnest, distance,
    )  # fmt: skip
