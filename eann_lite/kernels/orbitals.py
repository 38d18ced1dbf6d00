"""Sums over the pairs of a block of atoms: weighted orbital sums, their reverse and the tangents of both.

Every function works on a block, the atoms start to stop, and writes rows of these atoms, of their pairs or of the block
alone, so blocks may run side by side.  For the N_i pairs of one atom each sum is a product of small matrices: A x N_i
monomials, N_i x K orbitals, A x K sums.  With Bbar^t = dE/dB^t, S^t_pk = sum_a A_a(r_p) Bbar^t_iak is what pair p: i->j
passes back to its orbitals R_k(r_p) c^t_jk; it is made anew where it is needed: reading it back would take as long.
"""

from eann_lite.compiled import helper
from eann_lite.kernels.arrays import full
from eann_lite.kernels.dense import (
    add_scattered_product,
    gathered_product,
    gathered_product_tangent,
    product_and_uses_tangent,
)
from eann_lite.kernels.monomials import columns_of_pairs, monomials, monomials_and_tangents
from eann_lite.kernels.radial import add_parameter_tangents
from eann_lite.kernels.row_operations import sum_of_rows
from eann_lite.kernels.rows import fill_rows


@helper
def orbital_sums(start, stop, t, potential, batch, values):
    """B_iak of step t = sum over pairs p: i->j of A_a(r_p) R_k(r_p) c_jk."""
    first, neighbor, radial = batch.first, batch.neighbor, values.radial
    coefficients, sums = values.coefficients[t], values.sums[t]
    angular = columns_of_pairs(sums.shape[1], start, stop, first, radial)
    for i in range(start, stop):
        monomials(i, potential, batch, values, angular)
        gathered_product(angular, first[i + 1] - first[i], radial, first[i], coefficients, neighbor, sums[i])


@helper
def orbital_sums_tangent(start, stop, t, potential, batch, values, tangents):
    """Derivative of the weighted orbital sums of step t along the tangent direction."""
    first, neighbor, radial, radial_dot = batch.first, batch.neighbor, values.radial, tangents.radial
    coefficients, coefficients_dot, sums_dot = values.coefficients[t], tangents.coefficients[t], tangents.sums[t]
    angular = columns_of_pairs(sums_dot.shape[1], start, stop, first, radial)
    angular_dot = columns_of_pairs(sums_dot.shape[1], start, stop, first, radial)
    for i in range(start, stop):
        monomials_and_tangents(i, potential, batch, values, tangents, angular, angular_dot)
        gathered_product_tangent(
            angular, angular_dot, first[i + 1] - first[i], radial, radial_dot, first[i], coefficients, coefficients_dot,
            neighbor, sums_dot[i],
        )  # fmt: skip


@helper
def messages(b, t, potential, batch, values):
    """Rows of ``message`` of block b: the sum of R_k(r_p) S^t_pk, what is passed back to c^t_jk, over its pairs p: i->j
    with the same j."""
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    first, radial, sums_bar, row, message = batch.first, values.radial, values.sums_bar[t], batch.row, values.message
    fill_rows(batch.block_first[b], batch.block_first[b + 1], message, 0.0)
    angular = columns_of_pairs(sums_bar.shape[1], start, stop, first, radial)
    for i in range(start, stop):
        begin, end = first[i], first[i + 1]
        monomials(i, potential, batch, values, angular)
        # Of its columns only those of this atom's pairs count, as many as the others have rows.
        add_scattered_product(angular, sums_bar[i], radial[begin:end], row[begin:end], message)


@helper
def messages_tangent(b, t, moving, potential, batch, values, tangents):
    """Tangents of ``message``, of step 0 too, and of Rbar_pk = sum_t c^t_jk S^t_pk, summed up from the last step on.

    Without ``moving`` the atoms stand still: of all tangents only those of the seeds' adjoints count.
    """
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    first, neighbor, radial, radial_dot = batch.first, batch.neighbor, values.radial, tangents.radial
    coefficients, coefficients_dot = values.coefficients[t], tangents.coefficients[t]
    sums_bar, sums_bar_dot = values.sums_bar[t], tangents.sums_bar[t % tangents.sums_bar.shape[0]]
    message_dot, radial_bar_dot = tangents.message, tangents.radial_bar
    fill_rows(batch.block_first[b], batch.block_first[b + 1], message_dot, 0.0)
    last = t + 1 == values.coefficients.shape[0]
    angular = columns_of_pairs(sums_bar.shape[1], start, stop, first, radial)
    angular_dot = columns_of_pairs(sums_bar.shape[1], start, stop, first, radial)
    for i in range(start, stop):
        if moving:
            monomials_and_tangents(i, potential, batch, values, tangents, angular, angular_dot)
        else:
            monomials(i, potential, batch, values, angular)
        product_and_uses_tangent(
            first[i], first[i + 1], angular, angular_dot, sums_bar[i], sums_bar_dot[i],
            radial, radial_dot, coefficients, coefficients_dot, neighbor, batch.row, message_dot, radial_bar_dot, last,
            moving,
        )  # fmt: skip


@helper
def gather(start, stop, batch, message, coefficients_bar):
    """coefficients_bar (N, K) += what all blocks pass back to j, for every j of start to stop."""
    first, rows = batch.atom_first, batch.atom_rows
    for j in range(start, stop):
        sum_of_rows(message, rows, first[j], first[j + 1], coefficients_bar, j)


@helper
def radial_parameter_gradients(
    start, stop, moving, potential, batch, values, tangents, exponents_bar_dot, centers_bar_dot
):
    """exponents_bar_dot and centers_bar_dot (S, K) += this block's gradients with respect to alpha and r_s.

    The gradient with respect to alpha is the tangent of sum_p Rbar_pk dR_k/dalpha over the pairs that end at an atom
    of the element, r_s likewise; the tangent of Rbar is complete after all steps.
    """
    radial, radial_bar_dot = values.radial, tangents.radial_bar
    still = full((1, radial.shape[1]), 0, radial.dtype)
    # Where the atoms stand still nothing is stretched, and Rbar itself was not computed.
    radial_dot, radial_bar = (tangents.radial, values.radial_bar) if moving else (still, still)
    for p in range(batch.first[start], batch.first[stop]):
        s, moved, r_dot = batch.species[batch.neighbor[p]], p if moving else 0, tangents.distance[p] if moving else 0.0
        add_parameter_tangents(
            exponents_bar_dot, s, centers_bar_dot, s, radial, p, radial_dot, moved, radial_bar, moved,
            radial_bar_dot, p, potential.centers, s, potential.exponents, s, values.distance[p], r_dot,
            exponents_bar_dot, s, centers_bar_dot, s,
        )  # fmt: skip
