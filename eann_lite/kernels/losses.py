"""The loss of some structures from what is predicted for them, and its derivatives; see ``eann_lite.training.loss``."""

import math

import numpy as np

from eann_lite.compiled import compile_loops, helper
from eann_lite.formulas import huber
from eann_lite.kernels.arrays import empty, full


@compile_loops
def sums_of_structures(structure, atomic, total):
    """total (Q, n) = sums of ``atomic`` (N, n) over the atoms of each structure."""
    total[:] = 0.0
    for n in range(structure.size):
        for x in range(total.shape[1]):
            total[structure[n], x] += atomic[n, x]


@compile_loops
def loss_of_batch(
    settings, offsets, labels, chosen, order, structure, atom_energies, forces, virials, energy_weights, force_weights,
    strain_weights,
):  # fmt: skip
    """Sum of the losses of ``losses_and_derivatives``, whose weights it fills in, from what atoms give.

    atom_energies (N,), forces (N, 3), virials (N, 3, 3).
    """
    return batch_loss(
        settings, offsets, labels, chosen, order, structure, atom_energies, forces, virials, energy_weights,
        force_weights, strain_weights,
    )  # fmt: skip


@helper
def batch_loss(
    settings, offsets, labels, chosen, order, structure, atom_energies, forces, virials, energy_weights, force_weights,
    strain_weights,
):  # fmt: skip
    """``loss_of_batch``."""
    n_structures = chosen.size
    energies, strains = full(n_structures, 0.0, np.float64), full((n_structures, 3, 3), 0.0, np.float64)
    for n in range(structure.size):
        energies[structure[n]] += atom_energies[n]
        for x in range(3):
            for y in range(3):
                strains[structure[n], x, y] += virials[n, x, y]
    losses, total = empty(n_structures, np.float64), 0.0
    _losses_and_derivatives(
        settings, offsets, labels, chosen, order, structure, energies, forces, strains, losses, energy_weights,
        force_weights, strain_weights,
    )  # fmt: skip
    for q in range(n_structures):
        total += losses[q]
    return total


@compile_loops
def losses_and_derivatives(
    settings, offsets, labels, chosen, order, structure, energies, forces, strains, losses, energy_weights,
    force_weights, strain_weights,
):  # fmt: skip
    """``_losses_and_derivatives`` of what structures give."""
    _losses_and_derivatives(
        settings, offsets, labels, chosen, order, structure, energies, forces, strains, losses, energy_weights,
        force_weights, strain_weights,
    )  # fmt: skip


@helper
def _losses_and_derivatives(
    settings, offsets, labels, chosen, order, structure, energies, forces, strains, losses, energy_weights,
    force_weights, strain_weights,
):  # fmt: skip
    """Fill losses (Q,), and their derivatives with respect to energies (Q,), forces (N, 3) and strains (Q, 3, 3).

    settings : energy_weight, forces_weight, stress_weight, huber and forces_huber of ``Loss``.
    labels : energies, forces, strains and weights of all structures, whose atoms begin at ``offsets``; NaN where one is
        missing, which adds nothing.
    chosen (Q,) : the structures predicted; order, structure (N,) : which of all atoms those of ``forces`` are, and
        which of the chosen structures they belong to.
    """
    energy_weight, forces_weight, stress_weight, energy_limit, forces_limit = settings
    label_energies, label_forces, label_strains, weights = labels
    for q in range(chosen.size):
        c = chosen[q]
        weight = weights[c] / (offsets[c + 1] - offsets[c])
        losses[q] = energy_weights[q] = 0.0
        if not math.isnan(label_energies[c]):
            error = energies[q] - label_energies[c]
            value, slope = huber(abs(error), energy_limit)
            losses[q] = energy_weight * weight * value
            energy_weights[q] = energy_weight * weight * slope * error
        for x in range(3):
            for y in range(3):
                strain_weights[q, x, y] = 0.0
                if not math.isnan(label_strains[c, x, y]):
                    error = strains[q, x, y] - label_strains[c, x, y]
                    losses[q] += stress_weight * weight / 9.0 * error * error
                    strain_weights[q, x, y] = 2.0 * stress_weight * weight / 9.0 * error
    for n in range(order.size):
        i, c, square = order[n], chosen[structure[n]], 0.0
        weight = forces_weight / 3.0 * weights[c] / (offsets[c + 1] - offsets[c])
        for x in range(3):
            force_weights[n, x] = 0.0 if math.isnan(label_forces[i, x]) else forces[n, x] - label_forces[i, x]
            square += force_weights[n, x] * force_weights[n, x]
        value, slope = huber(math.sqrt(square), forces_limit)
        losses[structure[n]] += weight * value
        for x in range(3):
            force_weights[n, x] *= weight * slope


@compile_loops
def has_derivatives(chosen, order, label_forces, label_strains):
    """Whether any force on the atoms ``order``, or any strain derivative of the structures ``chosen``, is known."""
    return knows_derivatives(chosen, order, label_forces, label_strains)


@helper
def knows_derivatives(chosen, order, label_forces, label_strains):
    """``has_derivatives``."""
    for i in order:
        for x in range(3):
            if not math.isnan(label_forces[i, x]):
                return True
    for c in chosen:
        for x in range(3):
            for y in range(3):
                if not math.isnan(label_strains[c, x, y]):
                    return True
    return False
