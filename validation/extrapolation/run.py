"""Claim: how far an atom's densities lie from the training data tells where the forces go wrong.

    python validation/extrapolation/run.py [--quick] [--out DIR]

Fits CH4 near equilibrium (vibrating structures of the shipped set below an energy) and goes outwards: held-out
structures of the same energies, then all hotter ones, then as many random CH4.  An atom is wrong where its force error
is above three times the median over the evaluated atoms; the area under the ROC curve says how well a measure ranks
wrong atoms first (0.5: chance, 1: always).  Compared are the measure of the model file (``results["extrapolation"]``)
and what else it could have been; every fit is one row.  Limit: 0.8 for the measure of the model file in every fit, on
the vibrating structures alone and with the random ones.  One fit of random CH4 tested on random CH4 is shown without a limit.
``--quick``: one fit.  Written into DIR (default, full form only: beside this file): results.json and the figure.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from outcome import add_result_option, hand_over, row_of  # noqa: E402

LIMIT = 0.8
WRONG = 3.0
#: Energy below which structures are trained on (eV above the relaxed molecule), recursion steps, seed of every fit.
CASES = [(0.4, 2, 0), (0.4, 2, 1), (0.4, 2, 2), (0.25, 2, 0), (0.25, 2, 1), (0.4, 1, 0), (0.4, 0, 0), (0.4, 0, 1)]
EPOCHS, RANDOM_EPOCHS, RANDOM_TRAIN = 100, 40, 800
OURS = "Mahalanobis (model file)"
#: Edges of the bins of the measure in which median errors are told.
BINS = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0, np.inf)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one fit, nothing written unless --out is given")
    parser.add_argument("--out", type=Path, help="where results.json and the figure go")
    add_result_option(parser)
    options = parser.parse_args()
    out = options.out or (None if options.quick else Path(__file__).parent)
    import eann_lite
    from eann_lite.training.parts import shipped_files

    random, vibrating = (eann_lite.read_structures([path]) for path in shipped_files())
    rows, first = [], None
    for case in CASES[: 1 if options.quick else None]:
        row, found = outwards(vibrating, random, *case)
        rows.append(row)
        first = first or found
        tell(row)
    verdict = {"smallest_auc": min(row[kind][OURS] for row in rows for kind in ("auc", "auc_with_random"))}
    if not options.quick:
        rows.append(within_random(random))
        tell(rows[-1])
    verdict |= latency(first["model"])
    for name, value in verdict.items():
        print(f"{name:32s} {value:.4g}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps({"limit": LIMIT, **verdict, "fits": rows}, indent=1) + "\n")
        draw(first, out / "error_against_measure.png")
    holds = verdict["smallest_auc"] >= LIMIT
    print("holds" if holds else "FAILS")
    claim = f"area under the ROC curve of the extrapolation measure at least {LIMIT:g} in {len(rows)} fits"
    hand_over([row_of(claim, None, f"smallest {verdict['smallest_auc']:.3f}", holds)], options.result)
    return 0 if holds else 1


def outwards(vibrating, random, below, recursions, seed):
    """Fit the vibrating structures below an energy, evaluate outwards; (row of results, what the figure shows)."""
    energies = np.array([structure.energy for structure in vibrating])
    energies -= energies.min()
    rng = np.random.default_rng(seed)
    near, hot = rng.permutation(np.flatnonzero(energies < below)), np.flatnonzero(energies >= below)
    held, train = np.split(near, [near.size // 4])
    evaluated = [vibrating[q] for q in (*held, *hot)]
    n_held, n_vibrating = 5 * held.size, 5 * len(evaluated)
    evaluated += [random[q] for q in rng.permutation(len(random))[: hot.size]]
    started = time.monotonic()
    model = fitted([vibrating[q] for q in train], EPOCHS, recursions, seed)
    measures, errors = compared(model, [vibrating[q] for q in train], evaluated)
    # Atoms whose forces overflow are as wrong as can be.
    errors = np.where(np.isfinite(errors), errors, np.inf)
    alone = {name: measure[:n_vibrating] for name, measure in measures.items()}
    row = {
        "fit": f"vibrating below {below:g} eV, T = {recursions}, seed {seed}",
        "structures": {"train": len(train), "held out": len(held), "hotter": len(hot), "random": len(hot)},
        "seconds_of_fit": time.monotonic() - started,
        "median_error_ev_per_ang": float(np.median(errors[:n_vibrating])),
        "wrong": float(np.mean(wrong(errors[:n_vibrating]))),
        "auc": areas(alone, errors[:n_vibrating]),
        "auc_with_random": areas(measures, errors),
        "held_out_above_1": float(np.mean(measures[OURS][:n_held] > 1.0)),
        "hotter_above_1": float(np.mean(measures[OURS][n_held:n_vibrating] > 1.0)),
        "random_above_1": float(np.mean(measures[OURS][n_vibrating:] > 1.0)),
        "bins": binned(alone[OURS], errors[:n_vibrating]),
    }
    return row, {"model": model, "measures": alone, "errors": errors[:n_vibrating], "held": n_held, "fit": row["fit"]}


def within_random(random):
    """Row of a fit of random CH4 tested on random CH4: nothing is far outside there."""
    order = np.random.default_rng(0).permutation(len(random))
    train, test = ([random[q] for q in part] for part in np.split(order, [RANDOM_TRAIN]))
    started = time.monotonic()
    model = fitted(train, RANDOM_EPOCHS, 2, 0)
    measures, errors = compared(model, train, test)
    return {
        "fit": "random, T = 2, seed 0, tested on other random",
        "structures": {"train": len(train), "held out": len(test)},
        "seconds_of_fit": time.monotonic() - started,
        "median_error_ev_per_ang": float(np.median(errors)),
        "wrong": float(np.mean(wrong(errors))),
        "auc": areas(measures, errors),
        "held_out_above_1": float(np.mean(measures[OURS] > 1.0)),
        "bins": binned(measures[OURS], errors),
    }


def fitted(structures, epochs, recursions, seed):
    """Model fitted to structures, a tenth of them for validation, with the default settings otherwise."""
    import eann_lite

    return eann_lite.fit(
        structures, valid=0.1, epochs=epochs, recursions=recursions, seed=seed, threads=1, out=None
    ).model  # fmt: skip


# ---- measures -------------------------------------------------------------------------------------------------------


def compared(model, train, evaluated):
    """{measure: (N,)} and the force error (N,) in eV/Angstrom of the evaluated structures' atoms."""
    known, known_elements, _ = densities(model, train)
    new, elements, results = densities(model, evaluated)
    measures = {OURS: np.concatenate([result.extrapolation for result in results])}
    for name, measure in OTHERS.items():
        measures[name] = np.empty(len(new))
        for element in np.unique(elements):
            mine = elements == element
            measures[name][mine] = measure(known[known_elements == element], new[mine])
    reference = np.concatenate([structure.forces for structure in evaluated])
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.linalg.norm(np.concatenate([result.forces for result in results]) - reference, axis=1)
    return measures, errors


def densities(model, structures):
    """Last densities (N, M) as the networks see them, elements (N,) and results of structures."""
    results = model.evaluate(structures, descriptors=True)
    elements = np.concatenate([structure.symbols for structure in structures])
    s = [model.specification.elements.index(element) for element in elements]
    density = np.concatenate([result.density[-1] for result in results])
    shift, scale = (model.constants[name][-1, s] for name in ("density_shift", "density_scale"))
    return (density - shift) * scale, elements, results


def beyond(low, high, values, floor):
    """How far the most extreme value lies beyond its range, in units of the range; negative inside."""
    return (np.maximum(low - values, values - high) / np.maximum(high - low, floor)).max(axis=1)


def density_range(known, new):
    """Range of every density for itself."""
    low, high = known.min(axis=0), known.max(axis=0)
    return beyond(low, high, new, 1e-3 * (high - low).max())


def principal_range(known, new):
    """Ranges along the principal directions of the training densities, variances floored as in the model file."""
    from eann_lite.extrapolation import SMALLEST_VARIANCE

    mean = known.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov((known - mean).T))
    directions = directions / np.sqrt(np.maximum(variances, SMALLEST_VARIANCE * variances[-1]))
    known, new = (known - mean) @ directions, (new - mean) @ directions
    return beyond(known.min(axis=0), known.max(axis=0), new, 1.0)


def nearest(known, new):
    """Distance from the nearest training atom: not cheap, for comparison."""
    from scipy.spatial import cKDTree

    return cKDTree(known).query(new)[0]


OTHERS = {"range of each density": density_range, "principal range": principal_range, "nearest training atom": nearest}


# ---- what is told ---------------------------------------------------------------------------------------------------


def wrong(errors):
    return errors > WRONG * np.median(errors)


def areas(measures, errors):
    """Area under the ROC curve of every measure for ``wrong``: the chance that a wrong atom has the larger one."""
    from scipy.stats import rankdata

    is_wrong = wrong(errors)
    n, rest = is_wrong.sum(), (~is_wrong).sum()
    ranks = {name: rankdata(measure)[is_wrong].sum() for name, measure in measures.items()}
    return {name: float((rank - n * (n + 1) / 2) / (n * rest)) for name, rank in ranks.items()}


def binned(measure, errors):
    """Atoms and median error (eV/Angstrom) in bins of the measure."""
    rows = []
    for low, high in zip(BINS, BINS[1:]):
        inside = (measure >= low) & (measure < high)
        median = float(np.median(errors[inside])) if inside.any() else None
        rows.append({"from": low, "atoms": int(inside.sum()), "median_error": median})
    return rows


def tell(row):
    median = 1e3 * row["median_error_ev_per_ang"]
    print(f"{row['fit']}: median error {median:.1f} meV/A, {row['wrong']:.0%} of the atoms wrong")
    for name, area in row["auc"].items():
        also = f"   with random structures {row['auc_with_random'][name]:.3f}" if "auc_with_random" in row else ""
        print(f"  {name:26s} area {area:.3f}{also}")
    shares = [f"{key.split('_above')[0].replace('_', ' ')} {row[key]:.1%}" for key in row if key.endswith("above_1")]
    print(f"  above 1: {', '.join(shares)}", flush=True)


def latency(model):
    """Microseconds of one CH4 energy and forces through the calculator with and without the measure, interleaved."""
    from ase.build import molecule

    from eann_lite import EANNCalculator

    atoms = molecule("CH4")
    calculator = atoms.calc = EANNCalculator(model, threads=1)
    atoms.get_forces()
    start, bounds, times = atoms.positions.copy(), calculator.bounds, {"without": [], "with": []}
    for _ in range(150):
        for name, calculator.bounds in (("without", None), ("with", bounds)):
            for step in range(20):
                atoms.positions = start + 1e-6 * step
                before = time.perf_counter()
                atoms.get_forces()
                times[name].append(1e6 * (time.perf_counter() - before))
    found = {f"microseconds_{name}_measure": float(np.median(values)) for name, values in times.items()}
    return found | {"added_time": found["microseconds_with_measure"] / found["microseconds_without_measure"] - 1.0}


def draw(found, path):
    """Force error against the measure, and the ROC curves, of one fit on vibrating structures."""
    from matplotlib.figure import Figure

    from eann_lite.plots import COLOURS, GREY, save_figure

    measure, errors, held = found["measures"][OURS], 1e3 * found["errors"], found["held"]
    figure = Figure(figsize=(10.0, 4.4), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    parts = ((slice(held), COLOURS[0], "held out, same energies"), (slice(held, None), COLOURS[1], "hotter"))
    for part, colour, name in parts:
        left.plot(measure[part], errors[part], ".", color=colour, ms=5, alpha=0.45, mew=0, label=name)
    middles, medians = [], []
    for low, high in zip(BINS, BINS[1:]):
        inside = (measure >= low) & (measure < high)
        if inside.any():
            middles.append(np.median(measure[inside]))
            medians.append(np.median(errors[inside]))
    left.plot(middles, medians, "o-", color="black", ms=4, lw=1.2, label="median of a bin")
    left.axvline(1.0, color=GREY, lw=1, ls="--")
    left.axhline(WRONG * np.median(errors), color=GREY, lw=1, ls=":", label="three times the median")
    left.set(xscale="log", yscale="log", xlabel="measure (1: farthest training atom)", ylabel="force error (meV/Å)")
    # Forces that vanish by symmetry have no error; they would stretch the axis over decades in which nothing happens.
    left.set_ylim(0.5 * np.quantile(errors, 0.002), 2.0 * errors.max())
    left.legend(framealpha=0.9, edgecolor="none", fontsize="small", loc="lower right")
    left.set_title(found["fit"], fontsize="medium")
    is_wrong = wrong(found["errors"])
    for (name, values), colour in zip(found["measures"].items(), COLOURS):
        chosen = is_wrong[np.argsort(-values)]
        hits, alarms = np.cumsum(chosen) / chosen.sum(), np.cumsum(~chosen) / (~chosen).sum()
        area = areas({name: values}, found["errors"])[name]
        right.plot(alarms, hits, color=colour, lw=1.5, label=f"{name}, {area:.3f}")
    right.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    right.set(xlabel="share of the other atoms flagged", ylabel="share of the wrong atoms flagged", aspect="equal")
    right.legend(framealpha=0.9, edgecolor="none", fontsize="small", loc="lower right", title="area under the curve")
    right.set_title("finding force errors above three times the median", fontsize="medium")
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
