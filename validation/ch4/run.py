"""Claim: an hour on two cores fits random CH4 with a third of the energy errors of the published code; two more cases.

    python validation/ch4/run.py [--case CASE] [--minutes M] [--committee N] [--quick] [--data FILE] [--out DIR]
                                  [--set NAME=VALUE ...]

Fits through the command line, a tenth of the training structures for validation (seed 0), and tests on structures that
no fit sees.  CASE is

    forces        first 2,500 structures with forces, tested on the last 500 of the file, 58 minutes (the default)
    forces1000    first 1,000 with forces, the same last 500, 30 minutes
    energies8000  8,000 energies without forces, tested on the energies of all 3,000 structures with forces, 60 minutes

Limits of ``forces`` on 2 cores: energy RMSE 32 meV, MAE 18 meV, forces RMSE 130 meV/A.  Of the others: energy RMSE
100 and 130 meV.  Sources: for ``forces`` the published PyTorch code with its own settings, one core, 60 minutes, same
data and test structures (102 and 73 meV, 244 meV/A); for the others the median of ten HIP-HOP-NN (data of arXiv
2503.23515: 451 meV from 1,000, 98 meV from 10,000 structures, other test structures).  ``--quick``: ``forces`` for 1.5
minutes, the others for a few epochs, with looser limits: 160, 110, 350, and half of the spread of the energies.  Data
(random CH4 of Materials Cloud 2020.110): by path or EANN_LITE_SHARED.

``--committee N`` is that of ``eann-lite fit``: half of the minutes go into N fits with different seeds, whose mean
labels displaced copies of the training structures; the last fit learns from these, too.  Without it the fit decides:
five models where there is time for 8,000 epochs, else none.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_location import data_file  # noqa: E402
from fits import add_fit_options, fit_and_test, flags_of, positive  # noqa: E402
from outcome import conclude, row_of  # noqa: E402

FORCES, ENERGIES = "ch4_random_forces.extxyz.gz", "ch4_random_energies.extxyz.gz"
KEYS = {
    "energy_rmse_mev": "energy RMSE, meV",
    "energy_mae_mev": "energy MAE, meV",
    "forces_rmse_mev_per_ang": "forces RMSE, meV/A",
}
#: Case -> training file, structures, minutes; then limits, limits of --quick, published numbers, each as in KEYS.
CASES = {
    "forces": {
        "file": FORCES, "structures": 2500, "minutes": 58.0, "limits": (32.0, 18.0, 130.0),
        "quick": (160.0, 110.0, 350.0), "quick flags": {"minutes": 1.5},
        "published": [f"{x} (its code, 60 min, one core)" for x in (102, 73, 244)],
    },
    "forces1000": {
        "file": FORCES, "structures": 1000, "minutes": 30.0, "limits": (100.0,), "quick": (1600.0,),
        "quick flags": {"epochs": 10},
        "published": ["451 (HIP-HOP-NN from 1,000)", None, None],
    },
    "energies8000": {
        "file": ENERGIES, "structures": 8000, "minutes": 60.0, "limits": (130.0,), "quick": (1600.0,),
        "quick flags": {"epochs": 2},
        "published": ["98 (HIP-HOP-NN from 10,000)", None, None],
    },
}  # fmt: skip
N_TEST = 500


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=list(CASES), default="forces")
    parser.add_argument("--minutes", type=positive, help="wall time of the fit (default: of the case)")
    parser.add_argument("--committee", type=int, metavar="N", help="learn from N models, too")
    parser.add_argument("--train-structures", type=int, help="the first so many structures (default: of the case)")
    add_fit_options(parser, None, "the training file of the case; others are looked for beside it")
    options = parser.parse_args()
    if options.committee and options.quick:
        parser.error("--committee and --quick: give one of the two; a committee takes its time.")
    case = CASES[options.case]
    length = case["quick flags"] if options.quick else {"minutes": options.minutes or case["minutes"]}
    train, test = parts(options.case, options.train_structures or case["structures"], options.data)
    flags = {"threads": options.threads, "out": options.out, "committee": options.committee}
    found = fit_and_test(train, test, **length | flags | flags_of(options.set))["metrics"]["test"]
    limits = case["quick" if options.quick else "limits"]
    rows = []
    for n, (key, name) in enumerate(KEYS.items()):
        if found[key] is None:
            continue
        lasting = " ".join(f"{value:g} {unit}" for unit, value in length.items())
        claim = f"random CH4, {len(train):,} structures, {lasting}"
        claim += f", committee of {options.committee}: {name}" if options.committee else f": {name}"
        if n < len(limits):
            claim += f" at most {limits[n]:g}"
        holds = found[key] <= limits[n] if n < len(limits) else None
        rows.append(row_of(claim, case["published"][n], f"{found[key]:.1f}", holds))
    return conclude(rows, options.result)


def parts(case, n, given):
    """Training and test structures of a case: the first ``n`` of its file, and those that are kept apart."""
    from eann_lite import read_structures

    path = data_file(CASES[case]["file"], given)
    structures = read_structures([path])
    if case == "energies8000":
        return structures[:n], energies_alone(read_structures([path.with_name(FORCES)]))
    if n + N_TEST > len(structures):
        raise SystemExit(f"{n} training structures: {path} has {len(structures)}, the last {N_TEST} are for the test.")
    return structures[:n], structures[-N_TEST:]


def energies_alone(structures):
    """The same structures without their forces."""
    from dataclasses import replace

    return [replace(structure, forces=None) for structure in structures]


if __name__ == "__main__":
    sys.exit(main())
