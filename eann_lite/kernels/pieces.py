"""Loss and gradient of a request, piece by piece, on all threads, in one call.

``training.objective.batch_loss_and_gradient`` is the same for one piece, in Python.  There, what stands between kernels
takes a twentieth of the time of a few small molecules, and only one thread at a time can do it.  The kernels are those
of ``sweeps``, called by their addresses.

A worker takes piece after piece.  Gradients are added up in the order of the pieces, whichever of them are done first:
whoever finds the next one done adds it, and then those after it that others have done meanwhile.
"""

import numpy as np

from eann_lite.compilation.calls import call_kernel, tuple_at
from eann_lite.compiled import Kernel, helper
from eann_lite.kernels.arrays import empty
from eann_lite.kernels.losses import batch_loss, knows_derivatives
from eann_lite.kernels.packing import draw
from eann_lite.kernels.shares import count_one, counted, fails, let_others_run, run_workers

#: Rows of states (2, G, APART), for each of G pieces: whether it is done, and whether somebody adds it.
DONE, CLAIMED = 0, 1
#: Columns of totals (1, 4, APART): how many pieces have been taken and added up, how many workers have failed, and how
#: many pieces would have needed kernels of which there is no address.
TAKEN, ADDED, FAILED, WANTING = 0, 1, 2, 3
#: After about so many atoms each worker returns, as Python may have been asked to stop.
AT_A_TIME = 1024


@helper
def _loss_and_gradient_of_piece(
    n, threads, addresses, totals, settings, labels, packed, chosen, blocks, potential, values, tangents, work,
    gradients, losses,
):  # fmt: skip
    """losses[n] of the structures ``chosen``, piece n; its gradient goes to row n % R of gradients (R, size)."""
    forward, reverse, forward_tangent, reverse_tangent = addresses
    block, shared_blocks, small_block, threaded_from = blocks
    batch = draw(
        chosen, packed.offsets, packed.sequence, packed.species, packed.positions, packed.cells, packed.first,
        packed.neighbor, packed.image, packed.first_image, packed.shifts, potential.exponents.shape[0],
        block, shared_blocks, small_block, threaded_from,
    )  # fmt: skip
    if not batch.threaded:
        threads = (1, 0)
    n_atoms, n_blocks = batch.order.size, batch.blocks.shape[0]
    energies, forces = empty(n_atoms, np.float64), empty((n_atoms, 3), np.float64)
    virials = empty((n_atoms, 3, 3), np.float64)
    call_kernel(forward, threads, potential, batch, values, energies)
    moving = knows_derivatives(chosen, batch.order, labels[1], labels[2])
    if moving and reverse == 0:
        count_one(totals, 0, WANTING)
        return
    if moving:
        call_kernel(reverse, threads, potential, batch, values, forces, virials)
    else:
        forces[:] = 0.0
        virials[:] = 0.0
    by_energy, by_force = empty(chosen.size, np.float64), empty((n_atoms, 3), np.float64)
    by_strain = empty((chosen.size, 3, 3), np.float64)
    losses[n] = batch_loss(
        settings, packed.offsets, labels, chosen, batch.order, batch.structure, energies, forces, virials, by_energy,
        by_force, by_strain,
    )  # fmt: skip
    if moving:
        for i in range(n_atoms):
            for x in range(3):
                by_force[i, x] = -by_force[i, x]
        call_kernel(forward_tangent, threads, potential, batch, values, tangents, by_force, by_strain)
    # The row is free once the piece that had it before is added up; after a failure it never may be.
    while counted(totals, 0, ADDED) + gradients.shape[0] <= n and counted(totals, 0, FAILED) == 0:
        let_others_run()
    by_network, by_contraction, by_exponent, by_center = work
    call_kernel(
        reverse_tangent, threads, moving, potential, batch, values, tangents, by_energy, by_network[:n_blocks],
        by_contraction[:n_blocks], by_exponent[:n_blocks], by_center[:n_blocks], gradients[n % gradients.shape[0]],
    )  # fmt: skip


@helper
def _add_in_order(n, states, totals, gradients, total):
    """Piece n is done: add up all that may be added now and that nobody else adds.

    Whoever adds looks for the next piece after it has counted the last one; who is done says so before it looks for how
    many are counted.  So one of the two sees the other.
    """
    n_pieces = states.shape[1]
    count_one(states, DONE, n)
    if n_pieces == 1:
        return
    while True:
        m = counted(totals, 0, ADDED)
        if m == n_pieces or counted(states, DONE, m) == 0 or count_one(states, CLAIMED, m) > 0:
            return
        gradient = gradients[m % gradients.shape[0]]
        if m == 0:
            for u in range(total.size):
                total[u] = gradient[u]
        else:
            for u in range(total.size):
                total[u] += gradient[u]
        count_one(totals, 0, ADDED)


@helper
def _some_pieces(
    worker, threads, addresses, states, totals, settings, labels, packed, chosen, cuts, blocks, potential, values,
    tangents, work, places, gradients, losses, total,
):  # fmt: skip
    """Pieces for one worker, in arrays of its own."""
    own_values, own_tangents = tuple_at(values, places[worker, 0]), tuple_at(tangents, places[worker, 1])
    own_work, n_atoms = tuple_at(work, places[worker, 2]), 0
    while n_atoms < AT_A_TIME and counted(totals, 0, FAILED) == 0:
        n = count_one(totals, 0, TAKEN)
        if n >= states.shape[1]:
            return
        structures = chosen[cuts[n] : cuts[n + 1]]
        if fails(
            _loss_and_gradient_of_piece, n, threads, addresses, totals, settings, labels, packed, structures, blocks,
            potential, own_values, own_tangents, own_work, gradients, losses,
        ):  # fmt: skip
            count_one(totals, 0, FAILED)  # Before this worker ends: others wait for what it has not done.
            raise MemoryError("a piece of a gradient")
        _add_in_order(n, states, totals, gradients, total)
        for q in structures:
            n_atoms += packed.offsets[q + 1] - packed.offsets[q]


@Kernel
def losses_and_gradient(
    threads, addresses, states, totals, settings, labels, packed, chosen, cuts, blocks, potential, values, tangents,
    work, places, gradients, losses, total,
):  # fmt: skip
    """The pieces of a request that are left, but of each worker only as many as have AT_A_TIME atoms.

    addresses : of the kernels forward, reverse, forward_tangent and reverse_tangent of ``sweeps``, compiled for tuples
        like these and float64 arrays; as long as nobody knows forces or strain derivatives the second and third may
        be 0.  What is found where they are wanting is of no use.
    states (2, G, APART), totals (1, 4, APART) : zeros at first.
    settings, labels : as in ``losses``; packed : ``batches.PackedStructures`` with pairs.
    Piece g of G is chosen[cuts[g] : cuts[g + 1]].
    blocks : as ``batches.blocks_of`` has them; threads share a batch only if it is the only one.
    potential ; values, tangents, work : those of the first worker, with room for any one piece; work as
        ``reverse_tangent`` has it.
    places (W, 3) : where values, tangents and work of each worker stand.
    gradients (R, size) : places for those of pieces.
    losses (G,), total (size,) : of all pieces; but the gradient of a single piece stands in gradients[0] alone.
    """
    run_workers(
        _some_pieces, threads, min(places.shape[0], threads[0]), threads, addresses, states, totals, settings, labels,
        packed, chosen, cuts, blocks, potential, values, tangents, work, places, gradients, losses, total,
    )  # fmt: skip
