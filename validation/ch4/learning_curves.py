"""Claim: from some number of structures on, an EANN (T = 0) falls behind the recursion; where, and how errors fall.

    python validation/ch4/learning_curves.py [--minutes-each 5] [--threads N] [--labels forces energies] [--n N ...]
        [--recursions T ...] [--seeds S ...] [--extra FILE ...] [--data FOLDER] [--out DIR] [--set NAME=VALUE ...]

Fits random CH4 with energies alone (200 ... 8,000 structures, tested on the 3,000 energies of the forces file) and with
forces (200 ... 2,500, tested on the last 500 of the forces file) for T = 0, 1, 2, 3 and three seeds, all for the same
wall time.  A seed chooses the structures, too: the first n of a random order, so that smaller sets are parts of larger
ones.  A tenth of them is for validation.  ``--extra`` adds files with forces to those to choose from, for more than
2,500 (such as the output of ``eann_lite/data/generate_ch4.py``).

Written into DIR (default: beside this file): learning_curves.json, one row a fit, where rows that are there are not run
again, and learning_curves.png of the rows with these minutes, a panel for each kind of labels that has some.  Source of
the published curve: medians of ten HIP-HOP-NN (data of arXiv 2503.23515), drawn in every panel, since it could not be
read whether these fits used forces.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from curves import behind_from, draw_curves, grid_of  # noqa: E402
from data_location import data_file  # noqa: E402
from fits import fit_and_test, flags_of, positive, rows_of  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import ENERGIES, FORCES, N_TEST, energies_alone  # noqa: E402

SIZES = {"forces": (200, 500, 1000, 2500), "energies": (200, 500, 1000, 2000, 4000, 8000)}
TITLES = {"energies": "energies only", "forces": "energies and forces"}
#: HIP-HOP-NN: structures and median energy RMSE (meV) of ten seeds, as far as our axes go.
PUBLISHED = ((1000, 2000, 5000, 10000), (451, 290, 151, 98))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes-each", type=positive, default=5.0, help="wall time of every fit (default: 5)")
    parser.add_argument("--threads", type=int, help="threads of the fits (default: all cores)")
    parser.add_argument("--labels", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--n", nargs="+", type=int, help="training structures (default: up to all there are)")
    parser.add_argument("--recursions", nargs="+", type=int, default=[0, 1, 2, 3], metavar="T")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--extra", nargs="*", type=Path, default=[], help="more structures with forces to train on")
    parser.add_argument("--data", type=Path, help=f"folder of {FORCES} and {ENERGIES}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="more flags of `eann-lite fit`")
    options = parser.parse_args()
    from eann_lite import read_structures

    forces = read_structures([data_file(FORCES, options.data and options.data / FORCES)])
    pools = {"forces": forces[:-N_TEST] + (read_structures(options.extra) if options.extra else [])}
    tests = {"forces": forces[-N_TEST:]}
    if "energies" in options.labels:
        pools["energies"] = read_structures([data_file(ENERGIES, options.data and options.data / ENERGIES)])
        tests["energies"] = energies_alone(forces)
    grid = []
    for labels in options.labels:
        sizes = options.n or SIZES[labels]
        if max(sizes) > len(pools[labels]):
            parser.error(f"--n {max(sizes)}: there are {len(pools[labels])} structures with {labels} to train on")
        # One seed of the whole curve before the next, so that a curve is there early.
        grid += grid_of(
            labels=[labels], minutes=[options.minutes_each], seed=options.seeds, n=sizes, recursions=options.recursions
        )
    flags = {"threads": options.threads} | flags_of(options.set)

    def fitted(entry):
        pool = pools[entry["labels"]]
        order = np.random.default_rng(entry["seed"]).permutation(len(pool))[: entry["n"]]
        named = {name: entry[name] for name in ("minutes", "seed", "recursions")}
        fit = fit_and_test([pool[q] for q in order], tests[entry["labels"]], **named | flags)
        test = {name: value for name, value in fit["metrics"]["test"].items() if value is not None}
        return test | {"epochs": fit["epochs"], "threads": options.threads}

    rows = rows_of(options.out / "learning_curves.json", grid, fitted)
    rows = [row for row in rows if row["minutes"] == options.minutes_each]
    measured = [labels for labels in ("energies", "forces") if any(row["labels"] == labels for row in rows)]
    for labels in measured:
        found = behind_from(rows, "energy_rmse_mev", labels=labels)
        where = "nowhere in these rows" if found is None else f"from n = {found} on"
        print(f"{labels:9s} T = 0 is behind the best T > 0 {where}")
    published = [("HIP-HOP-NN, published medians", *PUBLISHED, "s--")]
    panels = [
        {"title": f"CH4, {TITLES[labels]}", "key": "energy_rmse_mev", "label": "energy RMSE (meV)",
         "chosen": {"labels": labels}, "published": published}
        for labels in measured
    ]  # fmt: skip
    print(f"written {draw_curves(rows, panels, options.out / 'learning_curves.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
