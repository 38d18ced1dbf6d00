"""What a finished fit has to say about its data: errors so large that the labels may not belong together."""

import numpy as np

from eann_lite.progress import number_text
from eann_lite.training.metrics import error_metrics
from eann_lite.training.objective import take

#: Fewest structures of a part whose errors are judged.
FEWEST = 10
#: Errors as large as the spread are those of fits of few steps, too; beyond this multiple of it they are told.
ABOVE = 1.05
#: Errors below this (meV per atom, meV/Angstrom, meV/Angstrom^3) are small, whatever the spread of the labels.
SMALL = {"energy": 0.1, "forces": 1.0, "stress": 0.1}
#: Key of the error in the metrics, unit, and what the spread of the labels is the deviation from.
LABELS = {
    "energy": ("energy_rmse_mev", "meV", "the best energy for each element"),
    "forces": ("forces_rmse_mev_per_ang", "meV/A", "their mean"),
    "stress": ("stress_rmse_mev_per_ang3", "meV/A^3", "their mean"),
}
#: Labels by their names in texts.
NAMES = {"energy": "energies", "forces": "forces", "stress": "stresses"}
#: Parts by their names in texts; that a test part lies beyond the training data says nothing about its labels.
PARTS = {"train": "training", "valid": "validation"}


def remarks_on(sets, predictions, settings):
    """List with a remark where an error on training or validation data is larger than the spread of the label itself.

    A constant would have that error: for energies the best energy for each element, for components of forces and of
    the stress their means, all of the training part.  Labels and structures without a weight in the loss are not
    judged.

    sets : {part: LabelledSet}; predictions : {part: Predictions}; settings : ``FitSettings``.

    A remark is {"text": what it is and what to do, "above_spread": [{"part", "label", "rmse", "spread", "unit"}, ...]}.
    """
    judged = {}
    for part in PARTS:
        fitted = np.flatnonzero(sets[part].weights > 0.0)
        if fitted.size:
            judged[part] = take(sets[part], predictions[part], fitted)
    weights = {label: getattr(settings, f"{label}_weight") for label in LABELS}
    found, spreads = [], _spreads({part: labelled for part, (labelled, _) in judged.items()})
    for part, pair in judged.items():
        errors = error_metrics(*pair)
        for label, (key, unit, _) in LABELS.items():
            spread, error = spreads.get((part, label)), errors[key]
            if spread is None or error is None or weights[label] == 0.0:
                continue
            per_atom = errors["energy_rmse_mev_per_atom"] if label == "energy" else error
            if error > ABOVE * spread and per_atom > SMALL[label]:
                found.append({"part": part, "label": label, "rmse": error, "spread": spread, "unit": unit})
    return [{"text": _text(found, sets["train"]), "above_spread": found}] if found else []


def _spreads(sets):
    """{(part, label): root mean square (meV, ...) of what a constant leaves of the label}, where enough have it."""
    from eann_lite.model.initial import fit_reference_energies
    from eann_lite.training.objective import atom_counts

    n_elements = 1 + max(int(labelled.packed.species.max()) for labelled in sets.values())
    constants, spreads = {}, {}
    for part, labelled in sets.items():
        counts = atom_counts(labelled, n_elements)
        for label, (values, structure) in _known(labelled).items():
            energies = label == "energy"
            if part == "train" and structure.size:
                constants[label] = (
                    fit_reference_energies(counts[structure], values) if energies else values.mean(axis=0)
                )
            if label in constants and np.unique(structure).size >= FEWEST:
                constant = counts[structure] @ constants[label] if energies else constants[label]
                spreads[part, label] = float(1e3 * np.sqrt(np.mean((values - constant) ** 2)))
    return spreads


def _owners(labelled):
    return np.repeat(np.arange(labelled.packed.n_structures), labelled.n_atoms)


def _known(labelled):
    """{label: (values, numbers of the structures that they belong to)} of the labels that are there."""
    volumes = np.abs(np.linalg.det(labelled.packed.cells))
    has_stress = np.flatnonzero(~np.isnan(labelled.strains).any(axis=(1, 2)))
    has_forces = ~np.isnan(labelled.forces).any(axis=1)
    has_energy = np.flatnonzero(~np.isnan(labelled.energies))
    return {
        "energy": (labelled.energies[has_energy], has_energy),
        "forces": (labelled.forces[has_forces], _owners(labelled)[has_forces]),
        "stress": (labelled.strains[has_stress] / volumes[has_stress, None, None], has_stress),
    }


def _text(found, train):
    """What was found, why that may be, and what to do."""
    facts = []
    for label, (_, unit, constant) in LABELS.items():
        rows = [row for row in found if row["label"] == label]
        if rows:
            errors = " and ".join(f"{number_text(row['rmse'])} {unit} on {PARTS[row['part']]} data" for row in rows)
            spreads = " and ".join(f"{number_text(row['spread'])} {unit}" for row in rows)
            facts.append(f"its {NAMES[label]} have errors (RMSE) of {errors}, {constant} would have {spreads}")
    has = {label for label, (_, structure) in _known(train).items() if structure.size}
    causes = ["energies per atom, or of other structures than they stand with (a wrong order)"]
    if "forces" in has:
        causes.append("forces of the wrong sign (gradients) or unit")
    if "stress" in has:
        causes.append("stresses of the wrong sign (positive is stretched) or unit (GPa, kbar)")
    weights = [f"{label}_weight=0" for label in ("forces", "stress") if label in has]
    cure = f", or fit with {' or '.join(weights)} to find out which labels disturb" if weights else ""
    return (
        f"a constant would do better than this model: {'; '.join(facts)}. Labels that do not belong together cause "
        f"that: {'; '.join(causes)}. So does a fit of too few steps. Check the labels, give their units{cure}."
    )
