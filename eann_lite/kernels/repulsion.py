"""The fixed short-range pair repulsion, added to energies and slopes of pairs; it has no learned parameter."""

import math

from eann_lite.compiled import formula, helper
from eann_lite.formulas import zbl_pair


@formula
def length(vector, p):
    """Length of column p of vector (3, P)."""
    return math.sqrt(vector[0, p] * vector[0, p] + vector[1, p] * vector[1, p] + vector[2, p] * vector[2, p])


@helper
def add_zbl(start, stop, potential, batch, values, energies):
    """energies (N,) += half of each pair's repulsion.  Each pair stands twice in the list, so halves add up."""
    species, cutoff = batch.species, potential.repulsion_cutoff
    for i in range(start, stop):
        z_i = potential.numbers[species[i]]
        for p in range(batch.first[i], batch.first[i + 1]):
            r = length(values.vector, p)
            if r < cutoff:
                value, _ = zbl_pair(r, z_i, potential.numbers[species[batch.neighbor[p]]], cutoff)
                energies[i] += 0.5 * value


@helper
def add_zbl_slopes(i, potential, batch, values, central):
    """central (..) += half of the slope of each repulsion, for the pairs of atom i from place 0 on."""
    species, cutoff, begin = batch.species, potential.repulsion_cutoff, batch.first[i]
    z_i = potential.numbers[species[i]]
    for p in range(begin, batch.first[i + 1]):
        r = length(values.vector, p)
        if r < cutoff:
            _, slope = zbl_pair(r, z_i, potential.numbers[species[batch.neighbor[p]]], cutoff)
            central[p - begin] += 0.5 * slope
