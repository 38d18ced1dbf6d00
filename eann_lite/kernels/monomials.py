"""Monomials A_a(r_p) of the pairs of one atom, each its parent times a component of the vector; tangents and slopes.

They are made where they are used, for one atom at a time: reading them back from memory would be no faster.  To degree
2, as most models have them, the tiles that orbital sums, messages and pair gradients are made of need the vectors alone
(``second_degree``).  Monomials carry no square-root weights, which the contraction applies.
"""

from eann_lite.compiled import helper
from eann_lite.kernels.arrays import full
from eann_lite.kernels.columns import recursive_products, recursive_products_tangent, scaled_rows
from eann_lite.kernels.second_degree import N_MONOMIALS
from eann_lite.kernels.vectors import line


@helper
def most_pairs(start, stop, first):
    """Largest number of pairs of one of the atoms start to stop."""
    most = 0
    for i in range(start, stop):
        most = max(most, first[i + 1] - first[i])
    return most


@helper
def columns_of_pairs(n_rows, start, stop, first, like):
    """New array (n_rows, ..) of zeros, with a column for each pair of one of these atoms, to the end of a cache line."""
    per_line = line(like)
    return full((n_rows, (most_pairs(start, stop, first) + per_line - 1) // per_line * per_line), 0, like.dtype)


@helper
def second_degree(potential):
    """Whether monomials go to degree 2, no less and no more, for which there are loops that make none."""
    return potential.parent.size == N_MONOMIALS


@helper
def monomials(i, potential, batch, values, angular):
    """angular (A, ..): the monomials of atom i's pairs, from column 0 on."""
    begin, end = batch.first[i], batch.first[i + 1]
    recursive_products(values.vector, begin, end, potential.parent, potential.axis, angular)


@helper
def monomials_and_tangents(i, potential, batch, values, tangents, angular, angular_dot):
    """``monomials`` and angular_dot: their derivatives along the tangent direction."""
    begin, end, parent, axis = batch.first[i], batch.first[i + 1], potential.parent, potential.axis
    recursive_products(values.vector, begin, end, parent, axis, angular)
    recursive_products_tangent(values.vector, tangents.vector, begin, end, parent, axis, angular, angular_dot)


@helper
def monomial_slopes(n_pairs, potential, angular, slopes):
    """slopes (D, ..): all dA_a/dx that are not zero everywhere, as powers times lower monomials, rows of ``angular``."""
    scaled_rows(angular, potential.slope_of, potential.slope_power, n_pairs, slopes)
