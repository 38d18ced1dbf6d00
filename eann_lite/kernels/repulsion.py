"""The fixed short-range pair repulsion, added to energies and pair gradients; it has no learned parameter."""

from eann_lite.compiled import helper
from eann_lite.formulas import zbl_pair


@helper
def add_zbl(start, stop, potential, batch, values, energies):
    """energies (N,) += half of each pair's repulsion; pair_gradient (3, P) += half of its derivative.

    Each pair stands twice in the list, so halves add up.
    """
    species, cutoff = batch.species, potential.repulsion_cutoff
    for i in range(start, stop):
        z_i = potential.numbers[species[i]]
        for p in range(batch.first[i], batch.first[i + 1]):
            r = values.distance[p]
            if r < cutoff:
                value, slope = zbl_pair(r, z_i, potential.numbers[species[batch.neighbor[p]]], cutoff)
                energies[i] += 0.5 * value
                for x in range(3):
                    values.pair_gradient[x, p] += 0.5 * slope / r * values.vector[x, p]
