"""Errors of predictions, in meV."""

import numpy as np


def error_metrics(labelled, predictions):
    """Root mean square and mean absolute errors, None where there is no label, NaN where a prediction is not a number.

    Keys: n_structures, n_atoms, energy_{rmse,mae}_mev (whole structures), energy_{rmse,mae}_mev_per_atom,
    forces_{rmse,mae}_mev_per_ang (components), stress_{rmse,mae}_mev_per_ang3 (the nine components).
    """
    n_atoms = labelled.n_atoms
    energy = predictions.energies - labelled.energies
    volumes = np.abs(np.linalg.det(labelled.packed.cells))
    # Without a cell there is no stress label either.
    volumes[volumes == 0.0] = np.nan
    stress = (predictions.strains - labelled.strains) / volumes[:, None, None]
    metrics = {"n_structures": int(n_atoms.size), "n_atoms": int(n_atoms.sum())}
    for name, errors, labels in (
        ("energy_{}_mev_per_atom", energy / n_atoms, labelled.energies),
        ("energy_{}_mev", energy, labelled.energies),
        ("forces_{}_mev_per_ang", predictions.forces - labelled.forces, labelled.forces),
        ("stress_{}_mev_per_ang3", stress, labelled.strains),
    ):
        known = errors[~np.isnan(labels)]
        metrics[name.format("rmse")] = float(1e3 * np.sqrt(np.mean(known**2))) if known.size else None
        metrics[name.format("mae")] = float(1e3 * np.mean(np.abs(known))) if known.size else None
    return metrics
