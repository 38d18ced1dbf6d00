"""The sweeps over a batch, stage by stage: energies forward, forces in reverse, and the tangents of both.

Which stage runs when, on which atoms; the loops of a stage over a block of atoms stand in the files of this folder, the
mathematics in the order of the paper in ``reference``.  One thread works on one block; a stage that reads what others
wrote for neighbours starts a new loop over blocks (``shares``).  Loops of odd number go through the blocks the other way
round.  The number of step t is t going forward and t + 1 going back: each begins with the blocks that the one before
ended with, which are in the caches still.
"""

import numpy as np

from eann_lite.compiled import Kernel, helper
from eann_lite.kernels import contraction, curvature, geometry, networks, orbitals, pair_gradients, repulsion
from eann_lite.kernels.arrays import empty
from eann_lite.kernels.rows import copy_rows, fill_rows
from eann_lite.kernels.shares import block_after, next_block, nothing_taken, run_workers
from eann_lite.kernels.vectors import IN_SECOND_CACHE


@helper
def _begin(b, potential, batch, values, energies):
    """Pairs of a block and its energies before any network."""
    start, stop, s = batch.blocks[b, 0], batch.blocks[b, 1], batch.blocks[b, 2]
    geometry.pair_geometry(start, stop, potential, batch, values)
    for i in range(start, stop):
        energies[i] = potential.reference_energies[s]
    if potential.repulsion_cutoff > 0.0:
        repulsion.add_zbl(start, stop, potential, batch, values, energies)


@helper
def _far_radial(b, batch, values):
    """Where radial functions of block b stand, a quarter and the rest (``dense.span``), if there are so many that they
    come from the third cache or from memory; nothing elsewhere, and without a block (-1).

    They are asked for meanwhile by the products of contractions, a quarter, and networks, which read little themselves.
    """
    far = b >= 0 and values.radial.nbytes > 4 * IN_SECOND_CACHE
    begin = batch.first[batch.blocks[b, 0]] if far else 0
    pairs = batch.first[batch.blocks[b, 1]] - begin if far else 0
    row, address = values.radial.strides[0], np.int64(values.radial.ctypes.data)
    quarter = pairs // 4
    return (address + begin * row, quarter * row), (address + (begin + quarter) * row, (pairs - quarter) * row)


@helper
def _rows_of_step(store, t, steps, start, stop):
    """Rows of atoms start to stop of step t in a store of the last steps, or new ones, which are forgotten, if it has
    none of it."""
    part = t - (steps - store.shape[0])
    return store[part, start:stop] if part >= 0 else empty((stop - start, store.shape[2]), store.dtype)


@helper
def _step(b, t, potential, batch, values, energies):
    """Orbital sums, densities and network of step t for a block."""
    start, stop, s = batch.blocks[b, 0], batch.blocks[b, 1], batch.blocks[b, 2]
    quarter, rest = _far_radial(block_after(t, b, batch.blocks.shape[0]), batch, values)
    steps = values.coefficients.shape[0]
    density = _rows_of_step(values.density, t, steps, start, stop)
    orbitals.orbital_sums(start, stop, t, potential, batch, values)
    contraction.densities(start, stop, t, potential, values, density, quarter)
    if t + 1 < steps:
        copy_rows(start, stop, values.coefficients[t], values.coefficients[t + 1])
        networks.forward(
            start, stop, s, t, potential.recursion_maps, potential, values, density, values.last_hidden[:0],
            values.coefficients[t + 1], rest,
        )  # fmt: skip
    else:
        # Nobody needs the outputs of the energy networks but this line, so their adjoints' place may hold them.
        fill_rows(start, stop, values.output_bar, 0.0)
        networks.forward(
            start, stop, s, t, potential.energy_maps, potential, values, density, values.last_hidden,
            values.output_bar, rest,
        )  # fmt: skip
        for i in range(start, stop):
            energies[i] += potential.energy_scale * values.output_bar[i, 0]


@helper
def _forward(worker, counts, potential, batch, values, energies):
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    for t in range(steps):
        b = next_block(counts, t, worker, n_blocks, -1)
        while b >= 0:
            if t == 0:  # Here, so that the pairs are in the cache when they are used first.
                _begin(b, potential, batch, values, energies)
            _step(b, t, potential, batch, values, energies)
            b = next_block(counts, t, worker, n_blocks, b)


@helper
def _first_coefficients(potential, batch, values):
    """c_ik of step 0 are those of the element of i."""
    for i in range(batch.species.size):
        for k in range(values.coefficients.shape[2]):
            values.coefficients[0, i, k] = potential.coefficients[batch.species[i], k]


@Kernel
def forward(threads, potential, batch, values, energies):
    """energies (N,) in eV of all atoms, reference energies and repulsion included."""
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    counts = nothing_taken(steps, threads, n_blocks)
    _first_coefficients(potential, batch, values)
    run_workers(_forward, threads, counts.shape[1] - 1, counts, potential, batch, values, energies)


@helper
def _step_reverse(b, t, potential, batch, values, forces, virials):
    """From the adjoint of the network's output of step t to those of the orbital sums and messages, for a block; for the
    first step, which comes last, to pair gradients in place of messages, and what they give to their own atoms."""
    start, stop, s = batch.blocks[b, 0], batch.blocks[b, 1], batch.blocks[b, 2]
    quarter, rest = _far_radial(b, batch, values)
    steps = values.coefficients.shape[0]
    density_bar = _rows_of_step(values.density_bar, t, steps, start, stop)
    if t + 1 < steps:
        networks.backward(
            start, stop, s, t, potential.recursion_maps, potential, values, values.coefficients_bar[t + 1],
            density_bar, rest,
        )  # fmt: skip
    else:
        fill_rows(start, stop, values.output_bar, potential.energy_scale)
        networks.backward(
            start, stop, s, t, potential.energy_maps, potential, values, values.output_bar, density_bar, rest,
        )  # fmt: skip
    contraction.densities_reverse(start, stop, t, potential, values, density_bar, quarter)
    if t > 0:
        orbitals.messages(b, t, potential, batch, values)
    else:
        pair_gradients.pair_gradients(b, potential, batch, values, forces, virials)


@helper
def _gather(b, t, potential, batch, values):
    """The adjoint of the orbital coefficients of step t of a block."""
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    _carry(start, stop, t, values.coefficients_bar)
    orbitals.gather(start, stop, batch, values.message, values.coefficients_bar[t])


@helper
def _carry(start, stop, t, coefficients_bar):
    """c^{t+1} = c^t + g(rho^t): the adjoint of c^{t+1} passes to c^t."""
    if t + 1 < coefficients_bar.shape[0]:
        copy_rows(start, stop, coefficients_bar[t + 1], coefficients_bar[t])
    else:
        fill_rows(start, stop, coefficients_bar[t], 0.0)


@helper
def _forces(b, batch, values, forces):
    pair_gradients.add_recoil(batch.blocks[b, 0], batch.blocks[b, 1], batch, values.recoil, forces)


@helper
def _reverse(worker, counts, potential, batch, values, forces, virials):
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    for t in range(steps - 1, -1, -1):
        b = next_block(counts, t + 1, worker, n_blocks, -1)
        while b >= 0:
            _step_reverse(b, t, potential, batch, values, forces, virials)
            b = next_block(counts, t + 1, worker, n_blocks, b)
        b = next_block(counts, steps + 1 + t, worker, n_blocks, -1)
        while b >= 0:
            if t > 0:
                _gather(b, t, potential, batch, values)
            else:
                _forces(b, batch, values, forces)
            b = next_block(counts, steps + 1 + t, worker, n_blocks, b)


@Kernel
def reverse(threads, potential, batch, values, forces, virials):
    """forces (N, 3) in eV/Angstrom and virials (N, 3, 3) in eV of all atoms, after ``forward``."""
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    counts = nothing_taken(2 * steps + 1, threads, n_blocks)
    run_workers(_reverse, threads, counts.shape[1] - 1, counts, potential, batch, values, forces, virials)


@helper
def _begin_tangent(b, potential, batch, values, tangents, direction, strain):
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    geometry.pair_directions(start, stop, potential, batch, values, tangents, direction, strain)


@helper
def _step_tangent(b, t, potential, batch, values, tangents):
    """Tangent of ``_step``; that of the energies' networks ends at their last hidden layer's maps."""
    start, stop, s = batch.blocks[b, 0], batch.blocks[b, 1], batch.blocks[b, 2]
    orbitals.orbital_sums_tangent(start, stop, t, potential, batch, values, tangents)
    contraction.densities_tangent(start, stop, t, potential, values, tangents)
    if t + 1 < values.coefficients.shape[0]:
        copy_rows(start, stop, tangents.coefficients[t], tangents.coefficients[t + 1])
        networks.forward_tangent(
            start, stop, s, t, potential.recursion_maps, potential, values, tangents,
            tangents.coefficients[t + 1],
        )  # fmt: skip
    else:
        fill_rows(start, stop, tangents.output_bar, 0.0)
        networks.forward_tangent(
            start, stop, s, t, potential.energy_maps, potential, values, tangents,
            tangents.output_bar,
        )  # fmt: skip


@helper
def _forward_tangent(worker, counts, potential, batch, values, tangents, direction, strain):
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    for t in range(steps):
        b = next_block(counts, t, worker, n_blocks, -1)
        while b >= 0:
            if t == 0:
                _begin_tangent(b, potential, batch, values, tangents, direction, strain)
            _step_tangent(b, t, potential, batch, values, tangents)
            b = next_block(counts, t, worker, n_blocks, b)


@Kernel
def forward_tangent(threads, potential, batch, values, tangents, direction, strain):
    """``Tangents`` of what ``forward`` leaves, along direction (N, 3) and strain (Q, 3, 3)."""
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    counts = nothing_taken(steps, threads, n_blocks)
    fill_rows(0, batch.species.size, tangents.coefficients[0], 0.0)
    run_workers(
        _forward_tangent, threads, counts.shape[1] - 1, counts, potential, batch, values, tangents, direction, strain,
    )  # fmt: skip


@helper
def _step_reverse_tangent(
    b, t, moving, potential, batch, values, tangents, of_network, contraction_bar_dot, exponents_bar_dot,
    centers_bar_dot,
):  # fmt: skip
    start, stop, s = batch.blocks[b, 0], batch.blocks[b, 1], batch.blocks[b, 2]
    if t + 1 < values.coefficients.shape[0]:
        networks.backward_tangent(
            start, stop, s, t, potential.recursion_maps, moving, potential, values, tangents,
            values.coefficients_bar[t + 1], tangents.coefficients_bar[t + 1], of_network,
        )  # fmt: skip
    else:
        networks.backward_tangent(
            start, stop, s, t, potential.energy_maps, moving, potential, values, tangents,
            values.output_bar, tangents.output_bar, of_network,
        )  # fmt: skip
    contraction.densities_reverse_tangent(start, stop, t, moving, potential, values, tangents, contraction_bar_dot[b])
    orbitals.messages_tangent(
        b, t, moving, potential, batch, values, tangents, exponents_bar_dot[b], centers_bar_dot[b]
    )  # fmt: skip


@helper
def _gather_tangent(b, t, batch, tangents):
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    _carry(start, stop, t, tangents.coefficients_bar)
    orbitals.gather(start, stop, batch, tangents.message, tangents.coefficients_bar[t])


@helper
def _seeds(b, potential, batch, tangents, energy_weights):
    """Tangents of output_bar: what the loss changes by with the energy that each atom adds to its structure."""
    for i in range(batch.blocks[b, 0], batch.blocks[b, 1]):
        tangents.output_bar[i, 0] = energy_weights[batch.structure[i]] * potential.energy_scale


@helper
def _reverse_tangent(
    worker, counts, moving, potential, batch, values, tangents, energy_weights, network_bar_dot, contraction_bar_dot,
    exponents_bar_dot, centers_bar_dot, gradient,
):  # fmt: skip
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    for t in range(steps - 1, -1, -1):
        b = next_block(counts, t + 1, worker, n_blocks, -1)
        while b >= 0:
            if t + 1 == steps:
                _seeds(b, potential, batch, tangents, energy_weights)
            _step_reverse_tangent(
                b, t, moving, potential, batch, values, tangents,
                networks.place_of_block(b, t, potential, batch.blocks, network_bar_dot, gradient),
                contraction_bar_dot, exponents_bar_dot, centers_bar_dot,
            )  # fmt: skip
            b = next_block(counts, t + 1, worker, n_blocks, b)
        # What blocks pass back to others, and pieces of what they give to the gradients of networks.
        n_tasks = n_blocks + networks.pieces(t, potential)
        task = next_block(counts, steps + 1 + t, worker, n_tasks, -1)
        while task >= 0:
            if task < n_blocks:
                _gather_tangent(task, t, batch, tangents)
            else:
                networks.add_up_blocks(task - n_blocks, t, potential, batch.blocks, network_bar_dot, gradient)
            task = next_block(counts, steps + 1 + t, worker, n_tasks, task)


@helper
def _collect(potential, batch, tangents, contraction_bar_dot, exponents_bar_dot, centers_bar_dot, gradient):
    """Fill in gradient (flat) what blocks and atoms give to exponents, centers, coefficients and contraction."""
    exponents, centers, coefficients, learned_contraction = potential.places
    n_radial = tangents.coefficients_bar.shape[2]
    for s in range(batch.segments.shape[0]):
        for k in range(n_radial):
            n = s * n_radial + k
            gradient[exponents + n] = gradient[centers + n] = gradient[coefficients + n] = 0.0
            for b in range(batch.blocks.shape[0]):
                gradient[exponents + n] += exponents_bar_dot[b, s, k]
                gradient[centers + n] += 2.0 * potential.exponents[s, k] * centers_bar_dot[b, s, k]
            for i in range(batch.segments[s, 0], batch.segments[s, 1]):
                gradient[coefficients + n] += tangents.coefficients_bar[0, i, k]
    if learned_contraction >= 0:
        contraction.contraction_gradient(learned_contraction, potential, contraction_bar_dot, gradient)


@Kernel
def reverse_tangent(
    threads, moving, potential, batch, values, tangents, energy_weights, network_bar_dot, contraction_bar_dot,
    exponents_bar_dot, centers_bar_dot, gradient,
):  # fmt: skip
    """gradient (flat) = tangent of the reverse sweep with respect to all parameters.

    energy_weights (Q,) : seeds, derivatives of the loss with respect to the energy of each structure.
    network_bar_dot (B, ..), for the parameters of the largest network, contraction_bar_dot (B, (L + 1) K, M) or, where
    there are power spectra, (B, C, M), exponents_bar_dot and centers_bar_dot (B, S, K) are places to work in.

    With ``moving`` after ``forward_tangent`` and ``reverse``; without it the atoms stand still and only ``forward`` is
    needed: an ordinary gradient of seeds times energies.
    """
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    counts = nothing_taken(2 * steps + 1, threads, n_blocks)
    run_workers(
        _reverse_tangent, threads, counts.shape[1] - 1, counts, moving, potential, batch, values, tangents,
        energy_weights, network_bar_dot, contraction_bar_dot, exponents_bar_dot, centers_bar_dot, gradient,
    )  # fmt: skip
    _collect(potential, batch, tangents, contraction_bar_dot, exponents_bar_dot, centers_bar_dot, gradient)


@helper
def _pair_gradients_tangent(b, potential, batch, values, tangents, slope, slope_dot, pair_gradient_dot, forces_dot):
    start, stop = batch.blocks[b, 0], batch.blocks[b, 1]
    curvature.slopes_and_tangents(start, stop, potential, batch, values, tangents, slope, slope_dot)
    curvature.pair_gradients_tangent(
        start, stop, potential, batch, values, tangents, slope, slope_dot, pair_gradient_dot
    )  # fmt: skip
    if potential.repulsion_cutoff > 0.0:
        curvature.add_zbl_tangent(start, stop, potential, batch, values, tangents, pair_gradient_dot)
    curvature.forces_tangent(b, batch, pair_gradient_dot, values.recoil, forces_dot)


@helper
def _forces_along(
    worker, counts, potential, batch, values, tangents, network_bar_dot, contraction_bar_dot, exponents_bar_dot,
    centers_bar_dot, slope, slope_dot, pair_gradient_dot, forces_dot,
):  # fmt: skip
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    for t in range(steps - 1, -1, -1):
        b = next_block(counts, t + 1, worker, n_blocks, -1)
        while b >= 0:
            _step_reverse_tangent(
                b, t, True, potential, batch, values, tangents, network_bar_dot[b], contraction_bar_dot,
                exponents_bar_dot, centers_bar_dot,
            )  # fmt: skip
            b = next_block(counts, t + 1, worker, n_blocks, b)
        b = next_block(counts, steps + 1 + t, worker, n_blocks, -1)
        while b >= 0:
            _gather_tangent(b, t, batch, tangents)
            b = next_block(counts, steps + 1 + t, worker, n_blocks, b)
    b = next_block(counts, 2 * steps + 1, worker, n_blocks, -1)
    while b >= 0:
        _pair_gradients_tangent(
            b, potential, batch, values, tangents, slope, slope_dot, pair_gradient_dot, forces_dot
        )  # fmt: skip
        b = next_block(counts, 2 * steps + 1, worker, n_blocks, b)
    b = next_block(counts, 2 * steps + 2, worker, n_blocks, -1)
    while b >= 0:
        _forces(b, batch, values, forces_dot)
        b = next_block(counts, 2 * steps + 2, worker, n_blocks, b)


@Kernel
def forces_along(
    threads, potential, batch, values, tangents, network_bar_dot, contraction_bar_dot, exponents_bar_dot,
    centers_bar_dot, slope, slope_dot, pair_gradient_dot, forces_dot,
):  # fmt: skip
    """forces_dot (N, 3): derivative of the forces along the direction of ``forward_tangent``, after it and ``reverse``.

    The tangents of output_bar are zero; slope and slope_dot (P, K), pair_gradient_dot (3, P), and contraction_bar_dot
    to centers_bar_dot as in ``reverse_tangent``, are places to work in; network_bar_dot is (B, 0).  values.recoil is
    lost.
    """
    steps, n_blocks = values.coefficients.shape[0], batch.blocks.shape[0]
    counts = nothing_taken(2 * steps + 3, threads, n_blocks)
    run_workers(
        _forces_along, threads, counts.shape[1] - 1, counts, potential, batch, values, tangents, network_bar_dot,
        contraction_bar_dot, exponents_bar_dot, centers_bar_dot, slope, slope_dot, pair_gradient_dot, forces_dot,
    )  # fmt: skip
