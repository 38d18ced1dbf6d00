"""Sums over the pairs of a block of atoms: weighted orbital sums, their reverse and the tangents of both.

Every function works on a block, the atoms start to stop, and writes rows of these atoms, of their pairs or of the block
alone, so blocks may run side by side.  For the N_i pairs of one atom each sum is a product of small matrices: A x N_i
monomials, N_i x K orbitals, A x K sums.  With Bbar^t = dE/dB^t, S^t_pk = sum_a A_a(r_p) Bbar^t_iak is what pair p: i->j
passes back to its orbitals R_k(r_p) c^t_jk; it is made anew where it is needed: reading it back would take as long.
"""

from eann_lite.compiled import helper
from eann_lite.kernels import dense
from eann_lite.kernels.columns import ask_for_vectors
from eann_lite.kernels.monomials import columns_of_pairs, monomials, monomials_and_tangents, second_degree
from eann_lite.kernels.row_operations import ask_for_rows, sum_of_rows
from eann_lite.kernels.rows import fill_rows
from eann_lite.kernels.vectors import ATOMS_AHEAD, IN_SECOND_CACHE


@helper
def orbital_sums(start, stop, t, potential, batch, values):
    """B_iak of step t = sum over pairs p: i->j of A_a(r_p) R_k(r_p) c_jk."""
    to_degree_2 = second_degree(potential)
    n_made = 0 if to_degree_2 else values.sums.shape[2]
    first, neighbor, coefficients = batch.first, batch.neighbor, values.coefficients[t]
    vector, angular = values.vector, columns_of_pairs(n_made, start, stop, first, values.radial)
    of_vectors = values.sums[t], vector, first, values.radial, neighbor, coefficients
    of_monomials = values.sums[t], angular, first, values.radial, neighbor, coefficients
    many = values.coefficients.nbytes > IN_SECOND_CACHE
    for i in range(start, stop):
        if many and i + 1 < stop:
            ask_for_rows(coefficients, neighbor, first[i + 1], first[i + 2])
        if to_degree_2:
            ask_for_vectors(vector, first[i], first[i + 1])
            dense.second_degree_sums(i, of_vectors)
        else:
            monomials(i, potential, batch, values, angular)
            dense.orbital_sums(i, of_monomials)


@helper
def _moving_pairs(potential, batch, values, tangents):
    """What tangents are made of for all pairs, as ``orbital_tiles`` has it."""
    return (
        values.radial, values.distance, tangents.distance, values.log_slope, batch.neighbor, batch.species,
        potential.centers, potential.exponents,
    )  # fmt: skip


@helper
def orbital_sums_tangent(start, stop, t, potential, batch, values, tangents):
    """Derivative of the weighted orbital sums of step t along the tangent direction."""
    to_degree_2 = second_degree(potential)
    n_made = 0 if to_degree_2 else values.sums.shape[2]
    angular = columns_of_pairs(n_made, start, stop, batch.first, values.radial)
    angular_dot = columns_of_pairs(n_made, start, stop, batch.first, values.radial)
    others = (
        batch.first, values.coefficients[t], tangents.coefficients[t],
        *_moving_pairs(potential, batch, values, tangents),
    )  # fmt: skip
    of_vectors = tangents.sums[t], values.vector, tangents.vector, *others
    of_monomials = tangents.sums[t], angular, angular_dot, *others
    for i in range(start, stop):
        if to_degree_2:
            _ask_for_moving_vectors(i, batch, values, tangents)
            dense.second_degree_sums_tangent(i, of_vectors)
        else:
            monomials_and_tangents(i, potential, batch, values, tangents, angular, angular_dot)
            dense.orbital_sums_tangent(i, of_monomials)


@helper
def _ask_for_moving_vectors(i, batch, values, tangents):
    ask_for_vectors(values.vector, batch.first[i], batch.first[i + 1])
    ask_for_vectors(tangents.vector, batch.first[i], batch.first[i + 1])


@helper
def messages(b, t, potential, batch, values):
    """Rows of ``message`` of block b: the sum of R_k(r_p) S^t_pk, what is passed back to c^t_jk, over its pairs p: i->j
    with the same j."""
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    fill_rows(batch.block_first[b], batch.block_first[b + 1], values.message, 0.0)
    to_degree_2 = second_degree(potential)
    n_made = 0 if to_degree_2 else values.sums_bar.shape[2]
    first, vector, row, message = batch.first, values.vector, batch.row, values.message
    angular = columns_of_pairs(n_made, start, stop, first, values.radial)
    of_vectors = values.sums_bar[t], vector, first, values.radial, row, message
    of_monomials = values.sums_bar[t], angular, first, values.radial, row, message
    for i in range(start, stop):
        if to_degree_2:
            ask_for_vectors(vector, first[i], first[i + 1])
            dense.second_degree_messages(i, of_vectors)
        else:
            monomials(i, potential, batch, values, angular)
            dense.messages(i, first, of_monomials)


@helper
def messages_tangent(b, t, moving, potential, batch, values, tangents, exponents_bar_dot, centers_bar_dot):
    """Tangents of ``message``, of step 0 too, and (S, K) of what the pairs of block b pass back to alpha and r_s.

    Those of all steps are summed up from the last one on: exponents_bar_dot is the tangent of dE/dalpha,
    centers_bar_dot that of dE/dr_s but for the factor 2 alpha.  Without ``moving`` the atoms stand still: of all
    tangents only those of the seeds' adjoints count.
    """
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    fill_rows(batch.block_first[b], batch.block_first[b + 1], tangents.message, 0.0)
    if t + 1 == values.coefficients.shape[0]:
        fill_rows(0, exponents_bar_dot.shape[0], exponents_bar_dot, 0.0)
        fill_rows(0, centers_bar_dot.shape[0], centers_bar_dot, 0.0)
    to_degree_2 = second_degree(potential)
    n_made = 0 if to_degree_2 else values.sums_bar.shape[2]
    angular = columns_of_pairs(n_made, start, stop, batch.first, values.radial)
    angular_dot = columns_of_pairs(n_made, start, stop, batch.first, values.radial)
    bars = values.sums_bar[t], tangents.sums_bar[t % tangents.sums_bar.shape[0]]
    others = (
        batch.first, values.coefficients[t], tangents.coefficients[t], batch.row, tangents.message, exponents_bar_dot,
        centers_bar_dot, moving, *_moving_pairs(potential, batch, values, tangents),
    )  # fmt: skip
    of_vectors, of_monomials = (*bars, values.vector, tangents.vector, *others), (*bars, angular, angular_dot, *others)
    for i in range(start, stop):
        if to_degree_2:
            _ask_for_moving_vectors(i, batch, values, tangents)
            dense.second_degree_messages_tangent(i, of_vectors)
        elif moving:
            monomials_and_tangents(i, potential, batch, values, tangents, angular, angular_dot)
            dense.messages_tangent(i, batch.first, of_monomials)
        else:
            monomials(i, potential, batch, values, angular)
            dense.messages_tangent(i, batch.first, of_monomials)


@helper
def gather(start, stop, batch, message, coefficients_bar):
    """coefficients_bar (N, K) += what all blocks pass back to j, for every j of start to stop."""
    first, rows = batch.atom_first, batch.atom_rows
    for j in range(start, stop):
        if j + ATOMS_AHEAD < stop:
            ask_for_rows(message, rows, first[j + ATOMS_AHEAD], first[j + ATOMS_AHEAD + 1])
        sum_of_rows(message, rows, first[j], first[j + 1], coefficients_bar, j)
