"""What the arithmetic of a model costs at least: multiply-adds and exponentials per atom, counted from its equations.

Only leading terms are counted: products over neighbours, densities and network weights, not their bookkeeping (cutoff
function, monomials, squares, biases).  Loads, stores and everything that is not a multiply-add cost nothing here, so
the floor is what a perfect program could reach on vector units that never wait.
"""

from typing import NamedTuple

#: Multiply-adds that one exponential costs: range reduction, a polynomial of degree 11 to 13, the power of two.
EXPONENTIAL = 25


class Work(NamedTuple):
    """Multiply-adds and exponentials per atom."""

    multiply_adds: float
    exponentials: float

    def seconds(self, rate):
        """Least seconds per atom at ``rate`` dense multiply-adds per second."""
        return (self.multiply_adds + EXPONENTIAL * self.exponentials) / rate


#: How often each part is passed through, per recursion step: (pair sums, contractions, passes through a network), where
#: a pair sum is monomials x K multiply-adds per pair, a contraction monomials x K x M per atom, and a pass through a
#: network one multiply-add per weight.  Sums over pairs of a step that has no reverse gather are taken off below.
#:
#: energy: forward alone.
#: forces: forward, reverse gather, and the sum over steps that pair gradients take; the contraction W goes forward,
#:   then (D computed again, as reading it back takes longer) in reverse; the networks forward and in reverse.
#: gradient (of an energy + force loss): forces, then their tangent: two products per pair in the sums, three in the
#:   reverse gathers; the contraction's tangent forward and in reverse, and two outer products for its own gradient; the
#:   networks' likewise.
PASSES = {"energy": (1, 1, 1), "forces": (3, 3, 2), "gradient": (8, 7, 6)}
#: The contraction may also take products of two Gaussians' sums, which densities are linear in (power spectra), in all
#: but the forward sweep: so many passes from the K (K + 1) / 2 products of every degree to M densities or back (in
#: reverse; for the gradient the tangent forward and in reverse, and two outer products, too), and so many times K^2
#: multiply-adds per monomial between sums and products (products half of one, their tangents one, back to sums one).
POWER_PASSES = {"energy": (0, 0), "forces": (1, 1), "gradient": (5, 5.5)}


def network_work(network, inputs, outputs):
    """(weights, activations) of one element network: what one pass through it takes."""
    first = network.widths[0]
    block = sum(width * out for width, out in network.links)
    weights = inputs * first + network.blocks * block + first * outputs
    return weights, network.blocks * sum(width for width, _ in network.links) + first


def contraction_work(spec, what):
    """Multiply-adds of the contraction of one step, in the way that takes fewer."""
    once, radial = spec.monomials * spec.radial * spec.densities, spec.radial
    passes, squares = POWER_PASSES[what]
    products = (spec.max_degree + 1) * radial * (radial + 1) // 2
    by_power = once + passes * products * spec.densities + squares * spec.monomials * radial**2
    return min(PASSES[what][1] * once, by_power)


def work(specification, neighbours, what):
    """``Work`` per atom with this many neighbours of ``what``: "energy", "forces" (with energy) or "gradient".

    The reference model with 85 neighbours (K 8, L 2, M 64, T 3) takes for energy and forces 237 thousand multiply-adds,
    85 of them in pairs, 51 in contractions, 101 in networks, and 1,450 exponentials.
    """
    spec, steps = specification, specification.recursions + 1
    pair_sums, _, passes = PASSES[what]
    pair_sum = spec.monomials * spec.radial
    sums = steps * pair_sums
    if what != "energy":
        # The gradient of a pair, all steps together: the sum with the monomials, nested, and its derivatives take two
        # multiply-adds for each monomial but 1, and those of degree 1 one.  No force needs the adjoint of the first
        # step's coefficients: that is one gather less.
        sums += max(0, 2 * spec.monomials - 5) / spec.monomials - 1
    recursion = network_work(spec.recursion_network, spec.densities, spec.radial)
    energy = network_work(spec.network, spec.densities, 1)
    weights = spec.recursions * recursion[0] + energy[0]
    activations = spec.recursions * recursion[1] + energy[1]
    dense = steps * contraction_work(spec, what) + passes * weights
    return Work(neighbours * sums * pair_sum + dense, neighbours * spec.radial + activations)
