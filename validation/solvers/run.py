"""Question: which solver should be the default, for 200, 2,500 and 8,000 CH4 structures and for 400 water frames?

    python validation/solvers/run.py [--minutes 3 | --epochs N] [--threads 1] [--seed 0] [--data FOLDER]
                                     [--only DATA ...] [--solver SOLVER ...] [--json FILE]

Fits every data set with every solver for the same wall time on the same number of threads, without a committee, and
prints the errors on the same held-out structures.  One seed: differences below a sixth mean nothing, as a fit by time
ends elsewhere each time.  With ``--epochs`` solvers that begin alike take the same steps.  FOLDER holds
ch4_random_forces.extxyz.gz, ch4_random_energies.extxyz.gz and water_revpbe0d3.extxyz.gz (found through EANN_LITE_SHARED
or ../shared/data).
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_location import shared_folder  # noqa: E402
from outcome import revision  # noqa: E402

FORCES, ENERGIES, WATER = "ch4_random_forces.extxyz.gz", "ch4_random_energies.extxyz.gz", "water_revpbe0d3.extxyz.gz"
#: Data set -> (file, training structures, test structures from the end, settings).
DATA = {
    "CH4 200": (FORCES, 200, 500, {}),
    "CH4 2500": (FORCES, 2500, 500, {}),
    "CH4 7500, energies only": (ENERGIES, 7500, 500, {}),
    "water 400": (WATER, 400, 100, {"cutoff": 5.0, "recursions": 1}),
}
SOLVERS = {
    "SOAP": {"solver": "soap"},
    "Adam": {"solver": "adam"},
    "L-BFGS": {"solver": "lbfgs"},
    "SOAP, then L-BFGS": {"solver": "soap", "finish": True},
    "SOAP without weight decay": {"solver": "soap", "weight_decay": 0.0},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--minutes", type=float, default=3.0)
    until.add_argument("--epochs", type=int, help="so many epochs in place of minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--solver", nargs="*", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--json", type=Path, help="write the rows into this file, beside or over those in it")
    options = parser.parse_args()
    folder = options.data or (shared_folder() and shared_folder() / "data")
    if folder is None or not Path(folder).is_dir():
        parser.error("no data: give --data FOLDER or set EANN_LITE_SHARED")
    if options.json:
        rows_in(options.json)  # What cannot be read is told before any fit.
    import eann_lite
    from eann_lite.training.provenance import hardware

    # Kernels are compiled before any clock starts.
    warm = eann_lite.read_structures([folder / FORCES], index=":40")
    for settings in ({"recursions": 2}, {"recursions": 1}):
        eann_lite.fit(warm, epochs=1, out=None, threads=options.threads, **settings)
    length = {"epochs": options.epochs} if options.epochs else {"minutes": options.minutes}
    measured = {"date": time.strftime("%Y-%m-%d"), "commit": revision(), "machine": hardware()}
    for data in options.only:
        file, n, n_test, settings = DATA[data]
        structures = eann_lite.read_structures([folder / file])
        for solver in options.solver:
            result = eann_lite.fit(
                structures[:n], valid=0.1, test=structures[-n_test:], threads=options.threads, seed=options.seed,
                committee=0, out=None, **length, **settings, **SOLVERS[solver],
            )  # fmt: skip
            test = result.metrics["test"]
            row = {"data": data, "solver": solver, "limit": length, "threads": options.threads, "seed": options.seed}
            row |= {"epochs": result.history[-1]["epoch"], "test": test} | measured
            forces = test["forces_rmse_mev_per_ang"]
            print(
                f"{data:26s} {solver:26s} {row['epochs']:5d} epochs   E {test['energy_rmse_mev_per_atom']:8.2f} "
                f"({test['energy_mae_mev_per_atom']:7.2f}) meV/atom   F {forces if forces is not None else float('nan'):7.1f} meV/A",
                flush=True,
            )
            if options.json:
                add_row(row, options.json)
    return 0


def rows_in(path):
    """Rows of a JSON file, none where there is no file."""
    return json.loads(path.read_text()) if path.exists() else []


def add_row(row, path):
    """Write the row into a JSON file, in the place of an earlier one of the same fit."""

    def fit(row):
        return [row[name] for name in ("data", "solver", "limit", "threads", "seed")]

    rows = [other for other in rows_in(path) if fit(other) != fit(row)] + [row]
    part = path.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=1) + "\n")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
