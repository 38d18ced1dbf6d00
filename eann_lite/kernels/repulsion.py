"""The fixed short-range pair repulsion, added to energies and pair gradients; it has no learned parameter."""

import numpy as np
from numba import prange

from eann_lite.compiled import Kernel
from eann_lite.formulas import zbl_pair


@Kernel
def add_zbl(first, neighbor, species, numbers, vector, distance, cutoff, energies, gradient):
    """energies (N,) += half of each pair's repulsion; gradient (P, 3) += half of its derivative.

    numbers (S,) are the elements' atomic numbers as floats.  Each pair stands twice in the list, so halves add up.
    """
    for i_ in prange(first.size - 1):
        i = np.int64(i_)
        z_i = numbers[species[i]]
        for p in range(first[i], first[i + 1]):
            r = distance[p]
            if r < cutoff:
                value, slope = zbl_pair(r, z_i, numbers[species[neighbor[p]]], cutoff)
                energies[i] += 0.5 * value
                for x in range(3):
                    gradient[p, x] += 0.5 * slope / r * vector[p, x]
