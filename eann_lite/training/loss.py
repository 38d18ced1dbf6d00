"""The loss: what a fit makes small."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eann_lite.errors import InputError
from eann_lite.kernels import kernels


@dataclass(frozen=True)
class Loss:
    """Weighted squares of the errors of one structure with n atoms, times the structure's own weight:

        energy_weight h(|dE|) / n + forces_weight sum_i h(|dF_i|) / (3 n)
            + stress_weight |d(strain derivative)|^2 / (9 n)

    dE and the strain derivative are errors of the whole structure in eV, dF_i of the force on atom i in eV/Angstrom;
    dividing by n asks for the same accuracy per square root of atoms in small and large structures.  h(x) = x^2 up to
    ``huber`` (eV) and ``forces_huber`` (eV/Angstrom), linear beyond, so that single broken structures and the steep
    forces of close contacts do not rule the fit.  Missing labels add nothing.
    """

    energy_weight: float = 1.0
    forces_weight: float = 1.0
    stress_weight: float = 1.0
    huber: float = 5.0
    forces_huber: float = 1.0

    def __post_init__(self):
        for name in ("energy_weight", "forces_weight", "stress_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} = {getattr(self, name)!r}: expected a number of at least 0.")
        for name, unit in (("huber", "eV"), ("forces_huber", "eV/Angstrom")):
            if not getattr(self, name) > 0:
                raise InputError(
                    f"{name} = {getattr(self, name)!r} {unit}: expected a positive number (inf for plain squares)."
                )

    @cached_property
    def settings(self):
        """What kernels take of it (``kernels.losses``)."""
        settings = self.energy_weight, self.forces_weight, self.stress_weight, self.huber, self.forces_huber
        return tuple(map(float, settings))

    def terms(self, labelled, chosen, order, structure, energies, forces, strains):
        """Losses (Q,) of the structures ``chosen`` (Q,) of a ``LabelledSet``, and their derivatives.

        order, structure (N,) : which atoms of the set those of ``forces`` are, and which of the chosen structures they
        belong to; energies (Q,), forces (N, 3), strains (Q, 3, 3) : what is predicted.

        Returns (losses, by energies, by forces, by strains).  Where there is a label, a prediction that is not finite
        gives a loss that is not.
        """
        found = (np.empty(chosen.size), np.empty(chosen.size), np.empty(forces.shape), np.empty(strains.shape))
        kernels("losses").losses_and_derivatives(
            self.settings, labelled.packed.offsets, labelled[1:], chosen, order, structure, energies, forces, strains,
            *found,
        )  # fmt: skip
        return found

    def of_batch(self, labelled, chosen, batch, atom_energies, forces, virials):
        """Sum of the losses of the structures ``chosen`` of a ``LabelledSet``, drawn into ``batch``, with derivatives.

        atom_energies (N,), forces (N, 3), virials (N, 3, 3) : what is predicted for the batch's atoms.

        Returns (loss, by energies (Q,), by forces (N, 3), by strain derivatives (Q, 3, 3)), as ``terms`` does.
        """
        found = np.empty(chosen.size), np.empty(forces.shape), np.empty((chosen.size, 3, 3))
        loss = kernels("losses").loss_of_batch(
            self.settings, labelled.packed.offsets, labelled[1:], chosen, batch.order, batch.structure, atom_energies,
            forces, virials, *found,
        )  # fmt: skip
        return loss, *found

    def by_structure(self, labelled, predictions):
        """Loss (Q,) of each structure of a whole ``LabelledSet``."""
        every, n_atoms = np.arange(labelled.packed.n_structures), labelled.n_atoms
        losses, *_ = self.terms(labelled, every, np.arange(n_atoms.sum()), np.repeat(every, n_atoms), *predictions)
        return losses

    def root_weights(self, labelled):
        """Square roots of the weights of energies (Q,), force components (N, 1) and strain components (Q, 1, 1)."""
        n_atoms, weights = labelled.n_atoms, labelled.weights
        forces = np.repeat(self.forces_weight * weights / (3.0 * n_atoms), n_atoms)[:, None]
        strains = (self.stress_weight * weights / (9.0 * n_atoms))[:, None, None]
        return np.sqrt(self.energy_weight * weights / n_atoms), np.sqrt(forces), np.sqrt(strains)
