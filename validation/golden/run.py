"""Compare the reference and the CPU kernels with exact numbers of the published PyTorch code.

    python validation/golden/run.py FOLDER [--backend reference|cpu] [--json]

FOLDER holds ``*.npz`` files in the layout of README.md beside this script.  Prints per file, backend and quantity the
largest deviation and its limit; ends with 1 when one misses its limit or is absent from a file, or nothing was checked.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from outcome import add_result_option, hand_over, row_of  # noqa: E402

BACKENDS = ("reference", "cpu")
STRUCTURE = ("numbers", "positions", "cell", "pbc")
LABELS = ("energy_ref", "forces_ref", "weight_energy", "weight_forces")
QUANTITIES = ("orbital_coefficients", "density", "atomic_energies", "energy", "forces", "strain_derivative")
BY_STEP = ("orbital_coefficients", "density")
#: Largest deviation relative to the largest entry of the expected array: of quantities, of loss gradients.
QUANTITY_LIMIT, GRADIENT_LIMIT = 1e-10, 1e-9
#: An array whose entries are all below this is round-off of sums that cancel (forces in a perfect crystal, gradients of
#: networks that nobody listens to): no digit of it has a meaning, and its deviation may be as large, absolutely.
ROUND_OFF = 1e-12
#: The same for a gradient, relative to the largest entry of all gradients of the file, where that is more.
GRADIENT_ROUND_OFF = 1e-14
#: Files of other models or layouts start with these; they are left out where they lack this layout's keys.
OTHER_KINDS = ("tensor_", "field_", "published_")


def main(arguments=None):
    """Run the comparison; 0 when everything holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder with golden *.npz files")
    parser.add_argument("--backend", choices=BACKENDS, help="only this backend (default: both)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    add_result_option(parser)
    options = parser.parse_args(arguments)
    backends = [options.backend] if options.backend else BACKENDS
    report = run(options.folder, backends)
    ratios = [row["deviation"] / row["limit"] for row in report["rows"] if row["limit"]]
    ours = f"{len(report['rows'])} comparisons, largest {max(ratios, default=0.0):.2%} of its limit"
    claim = "energies, forces, strain derivatives, densities and loss gradients are the published code's"
    hand_over([row_of(claim, "its numbers", ours, report["passed"])], options.result)
    if options.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        print_report(report)
    return 0 if report["passed"] else 1


def run(folder, backends=BACKENDS):
    """Report: {folder, passed, skipped: [{file, reason}], rows: [{file, backend, quantity, deviation, limit, ...}]}."""
    rows, skipped = [], []
    for path in sorted(folder.glob("*.npz")):
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                case = {name: archive[name] for name in archive.files}
        except Exception as error:  # damaged archives raise half a dozen kinds
            rows += [_failed(path.name, backend, "file", f"cannot be read: {error}") for backend in backends]
            continue
        absent = absent_keys(case)
        if absent and path.name.startswith(OTHER_KINDS):
            skipped.append({"file": path.name, "reason": f"another layout, without {', '.join(absent[:3])}"})
            continue
        for backend in backends:
            rows += check(path.name, case, absent, backend)
    passed = bool(rows) and all(row["passed"] for row in rows)
    return {"folder": str(folder), "passed": passed, "skipped": skipped, "rows": rows}


def absent_keys(case):
    """Keys of the layout that a file lacks: structure, labels, quantities, and the loss gradient of every parameter."""
    gradients = [f"loss_grad/{name}" for name in published_parameters(case)] or ["param/", "loss_grad/"]
    return [name for name in (*STRUCTURE, *QUANTITIES, *LABELS, *gradients) if name not in case]


def published_parameters(case):
    """Published name -> array of a case."""
    return {name.split("/", 1)[1]: array for name, array in case.items() if name.startswith("param/")}


def check(file, case, absent, backend):
    """Rows of one file and backend."""
    rows = [_failed(file, backend, name, "absent from the file") for name in absent]
    if any(name in absent for name in STRUCTURE):
        return rows
    labelled = not any(label in absent for label in LABELS)
    try:
        computed = COMPUTE[backend](case, with_gradient=labelled)
    except Exception as error:  # whatever it is, it belongs in the report of this file, and the others go on
        return rows + [_failed(file, backend, "evaluation", f"{type(error).__name__}: {error}")]
    for name in (name for name in QUANTITIES if name in case):
        rows += _compared_by_step(file, backend, name, computed.get(name), case[name])
    gradients = [name for name in case if labelled and name.startswith("loss_grad/")]
    largest = max((_largest(case[name]) for name in gradients), default=0.0)
    round_off = max(ROUND_OFF, GRADIENT_ROUND_OFF * largest)
    for name in gradients:
        rows.append(_compared(file, backend, name, computed.get(name), case[name], GRADIENT_LIMIT, round_off))
    return rows


def _compared_by_step(file, backend, name, found, expected):
    """One row, or one for every recursion step, so that a step with large densities does not excuse the others."""
    if name not in BY_STEP or np.shape(found) != np.shape(expected):
        return [_compared(file, backend, name, found, expected, QUANTITY_LIMIT, ROUND_OFF)]
    steps = [(f"{name}[{t}]", found[t], expected[t]) for t in range(len(expected))]
    return [_compared(file, backend, *step, QUANTITY_LIMIT, ROUND_OFF) for step in steps]


def _largest(array):
    return float(np.max(np.abs(array), initial=0.0))


def _compared(file, backend, quantity, found, expected, relative, round_off):
    if found is None:
        return _failed(file, backend, quantity, "absent from the results")
    if np.shape(found) != np.shape(expected):
        return _failed(file, backend, quantity, f"shape {np.shape(found)}, expected {np.shape(expected)}")
    largest, deviation = _largest(expected), _largest(np.asarray(found) - expected)
    if not np.isfinite(deviation):
        return _failed(file, backend, quantity, "not finite, in the results or in the file")
    limit = round_off if largest < round_off else relative * largest
    row = {"file": file, "backend": backend, "quantity": quantity, "deviation": deviation, "limit": limit}
    return row | {"largest_expected": largest, "passed": deviation <= limit, "note": ""}


def _failed(file, backend, quantity, note):
    row = {"file": file, "backend": backend, "quantity": quantity, "deviation": None, "limit": None}
    return row | {"largest_expected": None, "passed": False, "note": note}


def loss_weights(case, energy, forces):
    """dloss/dE and dloss/dF (n, 3) of  weight_energy (E - energy_ref)^2 + weight_forces |F - forces_ref|^2."""
    e = 2 * float(case["weight_energy"]) * (energy - float(case["energy_ref"]))
    return e, 2 * float(case["weight_forces"]) * (forces - case["forces_ref"])


def _named(result):
    named = {name: getattr(result, name) for name in QUANTITIES if name != "atomic_energies"}
    return named | {"atomic_energies": result.energies}


def compute_reference(case, with_gradient):
    """Quantities and loss gradients (published names) of a case, by the NumPy reference."""
    from eann_lite import reference
    from eann_lite.io.published import convert_arrays, to_published

    specification, parameters = convert_arrays(published_parameters(case), hyperparameters(case))
    arguments = (specification, parameters, None, *(case[name] for name in STRUCTURE))
    result = reference.evaluate(*arguments)
    computed = _named(result)
    if with_gradient:
        e, v = loss_weights(case, result.energy, result.forces)
        gradient = reference.loss_gradient(*arguments, e, v, np.zeros((3, 3)))
        computed |= {f"loss_grad/{name}": g for name, g in to_published(specification, gradient).items()}
    return computed


def compute_cpu(case, with_gradient):
    """The same by the CPU kernels, through the interface people use."""
    from ase import Atoms

    from eann_lite.io.published import from_arrays, to_published
    from eann_lite.training.objective import loss_gradient

    model = from_arrays(published_parameters(case), hyperparameters(case))
    atoms = Atoms(numbers=case["numbers"], positions=case["positions"], cell=case["cell"], pbc=case["pbc"])
    result = model.evaluate(atoms, descriptors=True)
    computed = _named(result)
    if with_gradient:
        e, v = loss_weights(case, result.energy, result.forces)
        gradient = loss_gradient(model, atoms, energy_weight=e, force_weights=v, strain_weights=np.zeros((3, 3)))
        computed |= {f"loss_grad/{name}": g for name, g in to_published(model.specification, gradient).items()}
    return computed


def hyperparameters(case):
    """The entries of a case that ``io.published`` knows as hyperparameters."""
    from eann_lite.io.published import NEEDED, OPTIONAL

    return {name: case[name] for name in NEEDED + OPTIONAL if name in case}


COMPUTE = {"reference": compute_reference, "cpu": compute_cpu}


def print_report(report):
    """Table with one line per quantity; the loss gradients of all parameters share a line, failures have their own."""
    for skip in report["skipped"]:
        print(f"{skip['file']}: skipped ({skip['reason']})")
    for file, backend in dict.fromkeys((row["file"], row["backend"]) for row in report["rows"]):
        rows = [row for row in report["rows"] if (row["file"], row["backend"]) == (file, backend)]
        compared = [row for row in rows if row["limit"] is not None]
        gradients = [row for row in compared if row["quantity"].startswith("loss_grad/")]
        print(f"{file}  [{backend}]  {'ok' if all(row['passed'] for row in rows) else 'FAILED'}")
        for row in compared:
            if row not in gradients:
                _print_row(row["quantity"], row)
        if gradients:
            worst = max(gradients, key=lambda row: row["deviation"] / row["limit"] if row["limit"] else np.inf)
            _print_row(f"loss_grad of {len(gradients)}", worst, f"  worst: {worst['quantity'][len('loss_grad/'):]}")
        for row in rows:
            if not row["passed"] and (row["limit"] is None or row in gradients):
                _print_row(row["quantity"], row)
    failures = sum(not row["passed"] for row in report["rows"])
    if not report["rows"]:
        print(f"FAILED: no file to check in {report['folder']}")
    else:
        files = len({row["file"] for row in report["rows"]})
        verdict = "ok" if report["passed"] else "FAILED"
        print(f"{verdict}: {files} files, {len(report['rows'])} checks, {failures} failed")


def _print_row(label, row, remark=""):
    verdict = "ok" if row["passed"] else "FAILED"
    if row["limit"] is None:
        print(f"    {label:24s} {verdict}: {row['note']}")
        return
    relative = row["deviation"] / row["largest_expected"] if row["largest_expected"] else 0.0
    print(
        f"    {label:24s} largest deviation {row['deviation']:8.2e} (relative {relative:8.2e}), "
        f"limit {row['limit']:8.2e}  {verdict}{remark}"
    )


if __name__ == "__main__":
    sys.exit(main())
