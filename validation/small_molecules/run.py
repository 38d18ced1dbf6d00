"""Where does this stand on 3BPA and rMD17 ethanol against published tables?

    python validation/small_molecules/run.py [--case CASE ...] [--minutes 60] [--threads N] [--quick] [--data FOLDER]
        [--out DIR] [--set NAME=VALUE ...]

    3bpa     450 of the 500 training structures at 300 K (a tenth of them for validation), tested on the other 50: the
             published 300 K test file is not among the data, so this test comes from the training file, too
    ethanol  950 structures of rMD17 (split 1) and 50 for validation, tested on the other 1,000 of the file

Errors are per molecule, as in the tables: 3BPA root mean squares, ethanol mean absolute errors, in meV and meV/A.
Published numbers: tables 1 and 2 of Batatia, Kovacs, Simm, Ortner, Csanyi, "MACE" (NeurIPS 2022, arXiv 2206.07697);
3BPA there from all 500 structures, tested on the 300 K test file.  There is no limit: this is a comparison.
``--quick``: 100 structures, 30 epochs, limits of the spread of the energies and of half of that of the forces.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_location import data_file  # noqa: E402
from fits import add_fit_options, fit_and_test, flags_of  # noqa: E402
from outcome import conclude, row_of  # noqa: E402

#: Case -> file, which error, training structures, validation (structures or fraction), test structures,
#: published (energy, forces) by method.
CASES = {
    "3bpa": {
        "file": "3bpa_train300K.extxyz.gz", "error": "rmse", "train": 450, "valid": 0.1, "test": 50,
        "published": {"MACE L=2": (3.0, 8.8), "NequIP L=3": (3.3, 10.8), "Allegro L=3": (3.84, 12.98),
                      "MACE L=0": (4.5, 14.6)},
    },
    "ethanol": {
        "file": "rmd17_ethanol.extxyz.gz", "error": "mae", "train": 950, "valid": 50, "test": 1000,
        "published": {"MACE": (0.4, 2.1), "NequIP": (0.4, 2.8), "FCHL": (0.9, 6.2), "ACE": (1.2, 7.3),
                      "ANI": (2.5, 13.4), "GAP": (3.5, 18.1)},
    },
}  # fmt: skip
QUICK = {"epochs": 30, "batch": 4, "cutoff": 5.0, "recursions": 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    add_fit_options(parser, 60.0, "folder of the files", "keep the fits' directories in this folder")
    options = parser.parse_args()
    return conclude([row for name in options.case for row in case_rows(name, options)], options.result)


def case_rows(name, options):
    """Fit and test one molecule; rows of its energies and forces."""
    case = CASES[name]
    train, valid, test = parts(case, options.data)
    flags, length = {"minutes": options.minutes}, f"{options.minutes:g} min"
    if options.quick:
        train, flags, length = train[:100], QUICK, f"{QUICK['epochs']} epochs"
    flags = flags | {"threads": options.threads, "out": options.out and options.out / name} | flags_of(options.set)
    found = fit_and_test(train, test, valid=valid, **flags)["metrics"]["test"]
    rows = []
    for n, (quantity, unit, suffix) in enumerate((("energy", "meV", "mev"), ("forces", "meV/A", "mev_per_ang"))):
        error = found[f"{quantity}_{case['error']}_{suffix}"]
        claim = f"{name}, {len(train)} structures, {length}: {quantity} {case['error'].upper()}, {unit}"
        published = ", ".join(f"{method} {numbers[n]:g}" for method, numbers in case["published"].items())
        holds = None
        if options.quick:
            limit = spread(test, quantity) * (1.0 if quantity == "energy" else 0.5)
            claim, holds = f"{claim} at most {limit:.0f}", error <= limit
        rows.append(row_of(claim, published, f"{error:.2f}", holds))
    return rows


def parts(case, given):
    """(training structures, validation structures or fraction, test structures); single atoms are left out."""
    from eann_lite import read_structures

    path = data_file(case["file"], given and given / case["file"])
    molecules = [structure for structure in read_structures([path]) if structure.n_atoms > 1]
    kept = 0 if isinstance(case["valid"], float) else case["valid"]
    needed = case["train"] + kept + case["test"]
    if len(molecules) < needed:
        raise SystemExit(f"{path}: {len(molecules)} molecules, expected at least {needed}. Give the file of this name.")
    train, rest = molecules[: case["train"]], molecules[case["train"] :]
    return train, rest[:kept] or case["valid"], rest[kept : kept + case["test"]]


def spread(structures, quantity):
    """Standard deviation of the energies in meV, or root mean square of the forces in meV/A."""
    if quantity == "energy":
        return 1e3 * np.std([structure.energy for structure in structures])
    return 1e3 * np.sqrt(np.mean(np.concatenate([structure.forces for structure in structures]) ** 2))


if __name__ == "__main__":
    sys.exit(main())
