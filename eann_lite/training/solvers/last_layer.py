"""The linear last layer of the energy networks, solved exactly for the energies of the training set."""

import numpy as np

from eann_lite.batches import batches_of_atoms, draw_batch
from eann_lite.training.objective import sum_by_structure

#: Rows that pull the weights towards their starting values, relative to the mean square of a column.
RIDGE = 1e-3


def solve_last_layer(sweeps, vector, labelled):
    """Parameters (flat) whose output weights and biases of the energy networks minimise the squared energy errors.

    Energies are linear in these parameters: E = E_0 + energy_scale sum_i (w_s . h_i + b_s) with h_i the last hidden
    activations of atom i of element s.  Solved by SciPy's least squares with a small ridge around the present values.
    """
    from scipy.linalg import lstsq

    layout, specification = sweeps.layout, sweeps.specification
    names = [f"network.{element}.output" for element in specification.elements]
    weights = np.concatenate(
        [np.arange(*layout.places[f"{n}.{part}"][:2]) for n in names for part in ("weight", "bias")]
    )
    known = np.flatnonzero(~np.isnan(labelled.energies))
    sweeps.set_parameters(vector)
    features, residuals = [], []
    for chosen in batches_of_atoms(labelled.packed.offsets, known, 1024):
        batch = draw_batch(labelled.packed, chosen, len(specification.elements))
        energies = sum_by_structure(batch, sweeps.forward(batch, keep=True))
        last = sweeps.last_hidden()
        hidden = last.shape[1]
        columns = np.zeros((batch.species.size, len(names) * (hidden + 1)))
        for s, (start, stop) in enumerate(batch.segments):
            begin = s * (hidden + 1)
            columns[start:stop, begin : begin + hidden] = last[start:stop]
            columns[start:stop, begin + hidden] = 1.0
        root = np.sqrt(labelled.n_atoms[chosen])[:, None]
        features.append(float(sweeps.constants["energy_scale"]) * sum_by_structure(batch, columns) / root)
        residuals.append((labelled.energies[chosen] - energies) / root[:, 0])
    matrix, target = np.concatenate(features), np.concatenate(residuals)
    ridge = np.sqrt(RIDGE * np.sum(matrix**2, axis=0) + 1e-12)
    change = lstsq(np.vstack([matrix, np.diag(ridge)]), np.concatenate([target, np.zeros(ridge.size)]))[0]
    solved = vector.copy()
    solved[weights] += change
    return solved
