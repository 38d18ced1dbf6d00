"""Claim: a model fitted to the shipped CH4 set relaxes to tetrahedral CH4 and conserves energy in dynamics.

    python validation/dynamics/run.py [MODEL] [--picoseconds 10] [--json FILE]

Relaxes CH4 from a distorted start, compares the C-H distance with the reference method's (the relaxed molecule is
structure 0 of the vibrating part of the shipped data), then runs NVE at 300 K with 0.25 fs and measures the drift of
the total energy (slope of a straight line through it; the fluctuation leaves about 5e-7 of uncertainty in 10 ps).  Limits: |C-H - reference| < 0.01 A, angles within 0.1 degrees of
109.47, drift below 1e-6 eV/atom/ps.  Default MODEL: ``model.npz`` beside this file (how it was made: README.md there).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from outcome import add_result_option, hand_over, row_of  # noqa: E402

BOND_LIMIT, ANGLE_LIMIT, DRIFT_LIMIT = 0.01, 0.1, 1e-6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default=Path(__file__).parents[1] / "first_fit" / "model.npz")
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    add_result_option(parser)
    options = parser.parse_args()
    from ase import units
    from ase.io import read
    from ase.md.velocitydistribution import Stationary, ZeroRotation
    from ase.md.verlet import VelocityVerlet
    from ase.optimize import BFGS

    from eann_lite import EANNCalculator
    from eann_lite.training.parts import shipped_files

    reference = read(shipped_files()[1], 0)
    bond_reference = reference.get_distances(0, [1, 2, 3, 4]).mean()
    atoms = reference.copy()
    atoms.rattle(0.1, seed=options.seed)
    atoms.calc = EANNCalculator(options.model)
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=500)
    bonds = atoms.get_distances(0, [1, 2, 3, 4])
    angles = [atoms.get_angle(i, 0, j) for i in range(1, 5) for j in range(i + 1, 5)]

    rng = np.random.default_rng(options.seed)
    # Twice the temperature at the minimum: equipartition leaves half of it to the kinetic energy.
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * np.sqrt(600 * units.kB * atoms.get_masses())[:, None])
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics = VelocityVerlet(atoms, 0.25 * units.fs)
    times, totals, temperatures = [], [], []

    def observe():
        times.append(dynamics.get_time() / (1000 * units.fs))
        totals.append(atoms.get_total_energy() / len(atoms))
        temperatures.append(atoms.get_temperature())

    dynamics.attach(observe, interval=4)
    dynamics.run(int(options.picoseconds * 4000))
    drift = np.polyfit(times, totals, 1)[0]
    result = {
        "bond_angstrom": bonds.mean(), "bond_spread": np.ptp(bonds), "bond_reference": bond_reference,
        "angle_deviation_degrees": np.abs(np.array(angles) - 109.4712206).max(),
        "drift_ev_per_atom_per_ps": drift, "energy_fluctuation_ev_per_atom": np.std(totals),
        "mean_temperature_K": np.mean(temperatures), "picoseconds": options.picoseconds,
    }  # fmt: skip
    result = {name: float(value) for name, value in result.items()}
    right_bond = abs(result["bond_angstrom"] - bond_reference) < BOND_LIMIT
    right_angles = result["angle_deviation_degrees"] < ANGLE_LIMIT
    holds = right_bond and right_angles and abs(drift) < DRIFT_LIMIT
    for name, value in result.items():
        print(f"{name:32s} {value:.6g}")
    print("holds" if holds else "FAILS")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    shape = f"{result['bond_angstrom']:.4f}, {result['angle_deviation_degrees']:.0e} degrees off"
    claim = f"CH4, {options.picoseconds:g} ps of NVE: drift below {DRIFT_LIMIT:g} eV/atom/ps"
    rows = [
        row_of("relaxed CH4: C-H, A, and tetrahedral", f"{bond_reference:.4f} (reference method)", shape,
               right_bond and right_angles),
        row_of(claim, None, f"{drift:.1e}", abs(drift) < DRIFT_LIMIT),
    ]  # fmt: skip
    hand_over(rows, options.result)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
