"""The loss: what a fit makes small."""

from dataclasses import dataclass

import numpy as np

from eann_lite.errors import InputError


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

    def energy(self, error, n_atoms):
        """Energy terms (Q,) and their derivatives with respect to the energies."""
        value, slope = _huber(np.abs(error), self.huber)
        factor = self.energy_weight / n_atoms
        return factor * value, factor * slope * error

    def forces(self, error, n_atoms):
        """Force terms (N,) of atoms and their derivatives (N, 3) with respect to the forces; n_atoms (N,): of the
        structure that each atom belongs to."""
        value, slope = _huber(np.linalg.norm(error, axis=1), self.forces_huber)
        factor = self.forces_weight / (3.0 * n_atoms)
        return factor * value, (factor * slope)[:, None] * error

    def by_structure(self, labelled, predictions):
        """Loss (Q,) of each structure of a whole ``LabelledSet``."""
        n_atoms = labelled.n_atoms
        error = np.nan_to_num(predictions.energies - labelled.energies, nan=0.0)
        total, _ = self.energy(error, n_atoms)
        error = np.nan_to_num(predictions.forces - labelled.forces, nan=0.0)
        by_atom, _ = self.forces(error, np.repeat(n_atoms, n_atoms))
        total = total + np.add.reduceat(by_atom, labelled.packed.offsets[:-1])
        strains = np.nan_to_num(predictions.strains - labelled.strains, nan=0.0)
        total = total + self.stress_weight * (strains**2).sum(axis=(1, 2)) / (9.0 * n_atoms)
        return labelled.weights * total

    def root_weights(self, labelled):
        """Square roots of the weights of energies (Q,), force components (N, 1) and strain components (Q, 1, 1)."""
        n_atoms, weights = labelled.n_atoms, labelled.weights
        forces = np.repeat(self.forces_weight * weights / (3.0 * n_atoms), n_atoms)[:, None]
        strains = (self.stress_weight * weights / (9.0 * n_atoms))[:, None, None]
        return np.sqrt(self.energy_weight * weights / n_atoms), np.sqrt(forces), np.sqrt(strains)


def _huber(size, limit):
    """h (size,) and h' / size: squares up to ``limit``, linear beyond."""
    outside = size > limit
    value = np.where(outside, limit * (2.0 * size - limit), size**2)
    return value, 2.0 * np.divide(limit, size, out=np.ones(size.shape), where=outside)
