"""Errors of the model on labelled data: by element, by energy, by size of the force, and the worst structures."""

import numpy as np

from eann_lite.audit.case import source_text
from eann_lite.audit.check import WARNING, Check, judged

#: Errors larger than this many times those that the model file tells of its own test data are a warning.
LIKE_ITS_OWN = 3.0
#: Structures in the list of the worst.
WORST = 10
#: Parts of the data, from the lowest to the highest label, whose errors are told apart.
ENERGY_PARTS, FORCE_PARTS = (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
NAMES = {"energy": ("energy error on DATA", "meV/atom"), "forces": ("force error on DATA", "meV/A")}
#: Keys of `error_metrics`.
KEYS = {"energy": "energy_rmse_mev_per_atom", "forces": "forces_rmse_mev_per_ang"}


def check_data(case, seconds):
    """(checks, record) of the errors on the data, on as many structures (drawn) as fit into ``seconds``."""
    if not case.data:
        return [Check(name, detail="No DATA was given.") for name, _ in NAMES.values()], {}
    from eann_lite.training.metrics import error_metrics
    from eann_lite.training.objective import labelled_set, predict

    index = _affordable(case, seconds)
    structures = [case.data[q] for q in index]
    labelled = labelled_set(structures, case.model.specification)
    predictions = predict(case.model, labelled)
    metrics = error_metrics(labelled, predictions)
    n_atoms = labelled.n_atoms
    symbols = np.concatenate([structure.symbols for structure in structures])
    energy = 1e3 * (predictions.energies - labelled.energies) / n_atoms
    forces = 1e3 * (predictions.forces - labelled.forces)
    shift = dict(zip(case.model.specification.elements, case.model.constants["reference_energies"]))
    offsets = np.add.reduceat([shift[symbol] for symbol in symbols], labelled.packed.offsets[:-1])
    heights = (labelled.energies - offsets) / n_atoms
    heights -= np.nanmin(heights) if np.isfinite(heights).any() else 0.0
    sizes = np.linalg.norm(labelled.forces, axis=1)
    record = {
        "structures": len(structures), "of": len(case.data), "metrics": metrics,
        "by_element": [_row(element, forces[symbols == element]) for element in case.model.specification.elements],
        "by_energy": _by_parts(heights, energy, ENERGY_PARTS, "eV/atom above the lowest"),
        "by_force_size": _by_parts(sizes, forces, FORCE_PARTS, "eV/A"),
        "worst_energy": _worst(structures, index, np.abs(energy)),
        "worst_forces": _worst(structures, index, _largest_by_structure(forces, labelled.packed.offsets)),
        "parity": {
            "data_energy_true": labelled.energies, "data_energy_predicted": predictions.energies,
            "data_n_atoms": n_atoms,
            "data_forces_true": labelled.forces, "data_forces_predicted": predictions.forces,
        },
    }  # fmt: skip
    own = case.model.provenance.get("metrics") or {}
    return [_line(kind, metrics, own, len(structures)) for kind in NAMES], record


def _affordable(case, seconds):
    """Sorted indices of the structures of the data whose evaluation fits into ``seconds``."""
    per_atom = min(subject.seconds / len(subject.atoms) for subject in case.subjects)
    order = case.rng().permutation(len(case.data))
    time_of = np.cumsum([case.data[q].n_atoms * per_atom for q in order])
    return np.sort(order[: max(1, int(np.searchsorted(time_of, seconds)))])


def _line(kind, metrics, own, count):
    """The verdict on one root mean square error: against what the model file says of its test (or validation) part."""
    (name, unit), key = NAMES[kind], KEYS[kind]
    found = metrics[key]
    if found is None:
        return Check(name, detail="The data have no such labels.")
    for part in ("test", "valid"):
        stated = (own.get(part) or {}).get(key)
        if stated:
            text = f"RMSE of {count} structures; the model file tells {stated:.3g} of its own {part} part."
            return judged(name, found, unit, LIKE_ITS_OWN * stated, "", text, WARNING)
    return Check(
        name, found, unit, detail=f"RMSE of {count} structures; the model file tells no errors to compare with."
    )


def _row(name, errors):
    """A row of a table: name, count of known labels, RMSE and MAE (meV/A or meV/atom), None where there is none."""
    known = errors[~np.isnan(errors)]
    if known.size == 0:
        return {"part": name, "count": 0, "rmse": None, "mae": None}
    rmse, mae = np.sqrt(np.mean(known**2)), np.mean(np.abs(known))
    return {"part": name, "count": int(known.size), "rmse": float(rmse), "mae": float(mae)}


def _by_parts(labels, errors, parts, unit):
    """Rows for the parts of the data between quantiles of their labels."""
    known = ~np.isnan(labels)
    if not known.any():
        return []
    edges, rows = np.quantile(labels[known], parts), []
    for number, (low, high) in enumerate(zip(edges, edges[1:])):
        inside = known & (labels <= high) & ((labels > low) | ((labels >= low) & (number == 0)))
        if inside.any():
            rows.append(_row(f"{low:.3g} to {high:.3g} {unit}", errors[inside]))
    return rows


def _largest_by_structure(forces, offsets):
    return np.array([np.nanmax(np.abs(part), initial=-np.inf) for part in np.split(forces, offsets[1:-1])])


def _worst(structures, index, sizes):
    """The structures with the largest errors, by their index in the data."""
    known = np.flatnonzero(np.isfinite(sizes))
    chosen = known[np.argsort(-sizes[known], kind="stable")[:WORST]]
    return [
        {
            "index": int(index[q]),
            "source": source_text(structures[q], index[q]),
            "atoms": structures[q].n_atoms,
            "error": float(sizes[q]),
        }
        for q in chosen
    ]
