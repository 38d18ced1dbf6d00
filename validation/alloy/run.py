"""Random Cu-Au alloys with stresses: errors, elastic numbers, and what a longer fit does to them.

    python validation/alloy/run.py [--quick] [--epochs 400 1600] [--threads 1] [--set NAME=VALUE ...]

The reference is ASE's EMT, so no data are needed: 150 cells of 16 or 32 atoms at random compositions, volumes, strains
and displacements, 40 others for the test.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fits import add_fit_options, fit_and_test, flags_of  # noqa: E402
from outcome import conclude, row_of  # noqa: E402

N_TRAIN, N_TEST, TRAIN_SEED, TEST_SEED = 150, 40, 1, 2
#: Epochs of the fits of the full form and of the quick one.
EPOCHS, QUICK_EPOCHS = (400, 1600), (100,)
#: Limits of the forces' RMSE (meV/A) on the test of the last fit; of lattice constants (A) and bulk moduli (relative)
#: beside those of EMT.
FORCES, QUICK_FORCES, LATTICE, MODULUS = 80.0, 400.0, 0.01, 0.05


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_fit_options(parser, None, None)
    parser.add_argument("--epochs", type=int, nargs="+", help=f"lengths of the fits (default: {EPOCHS})")
    options = parser.parse_args()
    lengths = options.epochs or (QUICK_EPOCHS if options.quick else EPOCHS)
    train, test = alloys(N_TRAIN, TRAIN_SEED), alloys(N_TEST, TEST_SEED)
    found, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        for epochs in lengths:
            flags = {"epochs": epochs, "committee": 0, "threads": options.threads, "out": out / f"{epochs}"}
            found.append(fit_and_test(train, test, **flags | flags_of(options.set))["metrics"])
            print(json.dumps(found[-1]), flush=True)
        limit = QUICK_FORCES if options.quick else FORCES
        ours = found[-1]["test"]["forces_rmse_mev_per_ang"]
        claim = f"CuAu (EMT), {N_TRAIN} cells, {lengths[-1]} epochs: forces RMSE, meV/A, at most {limit:g}"
        rows.append(row_of(claim, None, texts(found[-1]["test"]), ours <= limit))
        if not options.quick:
            errors = [metrics["valid"]["forces_rmse_mev_per_ang"] for metrics in found]
            claim = f"forces RMSE of validation data after {' and '.join(map(str, lengths))} epochs, meV/A"
            rows.append(row_of(claim, None, " and ".join(f"{error:.1f}" for error in errors)))
            rows.append(elastic_row(out / f"{lengths[-1]}" / "model.npz"))
    return conclude(rows, options.result)


def texts(metrics):
    """Errors of a part as one text."""
    return (
        f"{metrics['energy_rmse_mev_per_atom']:.2f} meV/atom, {metrics['forces_rmse_mev_per_ang']:.1f} "
        f"({metrics['forces_mae_mev_per_ang']:.1f} MAE), stress {metrics['stress_rmse_mev_per_ang3']:.2f} meV/A^3"
    )


def alloys(count, seed):
    """List of Structure with energies, forces and stresses of EMT."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    from eann_lite.structures import as_structures

    rng, made = np.random.default_rng(seed), []
    for n in range(count):
        atoms = bulk("Cu", "fcc", a=1.0, cubic=True) * (2, 2, 2 if n % 3 else 1)
        atoms.symbols[rng.random(len(atoms)) < rng.choice([0.0, 0.25, 0.5, 0.75, 1.0])] = "Au"
        # Between pressed and stretched: 3.6 Angstrom is the lattice constant of Cu in EMT, 4.06 that of Au.
        edge = 3.6 + 0.45 * np.mean(atoms.numbers == 79) + rng.uniform(-0.12, 0.18)
        deformation = edge * (np.eye(3) + rng.normal(scale=0.02, size=(3, 3)))
        atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        atoms.rattle(rng.uniform(0.02, 0.2), rng=rng)
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        made.append(atoms)
    return as_structures(made)


def elastic_row(path):
    """Lattice constants and bulk moduli of Cu and Au beside those of EMT."""
    from ase.calculators.emt import EMT

    from eann_lite import EANNCalculator, load

    model, parts, holds = load(path), [], True
    for symbol, edge in (("Cu", 3.6), ("Au", 4.06)):
        ours, reference = (equation_of_state(symbol, edge, calc) for calc in (EANNCalculator(model), EMT()))
        holds &= abs(ours[0] - reference[0]) <= LATTICE and abs(ours[1] / reference[1] - 1.0) <= MODULUS
        parts.append(f"{symbol} {ours[0]:.4f} ({reference[0]:.4f}) A, {ours[1]:.1f} ({reference[1]:.1f}) GPa")
    claim = f"lattice constants to {LATTICE:g} A and bulk moduli to {MODULUS:.0%} of EMT's (in brackets)"
    return row_of(claim, None, "; ".join(parts), holds)


def equation_of_state(symbol, edge, calculator):
    """(lattice constant in Angstrom, bulk modulus in GPa) of fcc, by a cubic through the energies of volumes."""
    from ase.build import bulk
    from ase.units import GPa

    volumes, energies = [], []
    for strain in np.linspace(-0.015, 0.015, 7):
        atoms = bulk(symbol, "fcc", a=edge * (1.0 + strain))
        atoms.calc = calculator
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    curve = np.polynomial.Polynomial.fit(volumes, energies, 3)
    first, second = curve.deriv(), curve.deriv(2)
    volume = min(first.roots().real, key=lambda v: abs(v - np.mean(volumes)))
    return (4.0 * volume) ** (1 / 3), volume * second(volume) / GPa


if __name__ == "__main__":
    sys.exit(main())
