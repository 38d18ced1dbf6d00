"""Generate the CH4 data set shipped with eann_lite: random and vibrating molecules at PBE/cc-pVDZ.

Random part, after Pozdnyakov, Willatt and Ceriotti (Materials Cloud 2020.110): carbon at the origin, four
hydrogens drawn uniformly in a sphere of 3 Angstrom, rejected as a whole if any two atoms are closer than
0.5 Angstrom.  Vibrating part: normal modes of the relaxed molecule displaced classically at a temperature drawn
uniformly between 300 and 2000 K.

Structure number i is drawn from ``numpy.random.default_rng([seed, i])`` alone, so any range of numbers can be
computed anywhere, in any order, and a killed run goes on where it stopped.  A calculation that does not converge
is kept in the log, counted and left out of the data.

Run (needs ``pip install pyscf ase``; nothing else in eann_lite uses PySCF)::

    python generate_ch4.py random    --first 0 --count 3683 --log random.jsonl
    python generate_ch4.py vibrating --first 0 --count 401  --log vibrating.jsonl
    python generate_ch4.py pack random.jsonl vibrating.jsonl --out .
"""

import argparse
import gzip
import io
import json
import os
import time

import numpy as np

SEED = {"random": 20201, "vibrating": 20202}
SYMBOLS = ("C", "H", "H", "H", "H")
RADIUS, CLOSEST = 3.0, 0.5  # Angstrom
TEMPERATURES = (300.0, 2000.0)  # Kelvin
HARTREE, BOHR = 27.211386245988, 0.529177210903  # CODATA 2018
KELVIN_IN_HARTREE = 3.1668115634556e-6
ELECTRON_MASSES_PER_DALTON = 1822.888486209


def draw_random(i):
    """Positions (5, 3) in Angstrom of random structure number ``i``."""
    rng = np.random.default_rng([SEED["random"], i])
    while True:
        direction = rng.normal(size=(4, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        positions = np.zeros((5, 3))
        positions[1:] = RADIUS * rng.random((4, 1)) ** (1 / 3) * direction
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)[np.triu_indices(5, 1)]
        if distances.min() >= CLOSEST:
            return positions


def draw_vibrating(i, equilibrium, modes, frequencies):
    """Positions (Angstrom) and temperature of vibrating structure ``i``; modes (9, 5, 3) are mass-weighted."""
    rng = np.random.default_rng([SEED["vibrating"], i])
    temperature = rng.uniform(*TEMPERATURES)
    # Classical harmonic sampling: mass-weighted mode coordinates are normal with variance kT / omega^2 (atomic units).
    amplitude = rng.normal(size=len(frequencies)) * np.sqrt(KELVIN_IN_HARTREE * temperature) / frequencies
    displacement = np.einsum("k,kax->ax", amplitude, modes) / np.sqrt(masses())[:, None]
    return equilibrium + displacement * BOHR, temperature


def masses():
    """Atomic masses (5,) in electron masses."""
    return np.array([12.011, 1.008, 1.008, 1.008, 1.008]) * ELECTRON_MASSES_PER_DALTON


def mean_field(positions):
    """PBE/cc-pVDZ calculation, converged or not.

    A cheap grid first, whose density starts the full one.  Where the cheap one does not converge in 50 cycles (stretched
    molecules whose closed-shell solutions cross) the full one is not tried, to save time.  That is stricter than it need
    be: with the full one always tried, for up to 100 cycles, 58 of 172 were dropped (34 %) instead of 38 %.
    """
    from pyscf import dft, gto

    molecule = gto.M(atom=list(zip(SYMBOLS, positions)), basis="cc-pvdz", verbose=0)

    def solver(level, tolerance):
        scf = dft.RKS(molecule, xc="pbe")
        scf.grids.level, scf.conv_tol, scf.max_cycle, scf.conv_check = level, tolerance, 50, False
        return scf

    coarse = solver(0, 1e-5)
    coarse.kernel()
    if not coarse.converged:
        return coarse
    full = solver(3, 1e-9)
    full.kernel(coarse.make_rdm1())
    return full


def energy_forces(positions):
    """Energy (eV), forces (5, 3) (eV/Angstrom) and whether the calculation converged."""
    scf = mean_field(positions)
    gradient = scf.nuc_grad_method()
    gradient.verbose, gradient.grid_response = 0, True
    forces = -gradient.kernel() * HARTREE / BOHR if scf.converged else np.full((5, 3), np.nan)
    return scf.e_tot * HARTREE, forces, bool(scf.converged)


def equilibrium_and_modes():
    """Relaxed tetrahedral positions (Angstrom), mass-weighted modes (9, 5, 3) and frequencies (atomic units)."""
    from scipy.optimize import minimize_scalar

    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)

    def tetrahedron(bond):
        return np.vstack([np.zeros(3), bond * corners])

    bond = minimize_scalar(lambda b: energy_forces(tetrahedron(b))[0], bounds=(1.05, 1.15), method="bounded",
                           options={"xatol": 1e-5}).x
    scf = mean_field(tetrahedron(bond))
    hessian = scf.Hessian().kernel().transpose(0, 2, 1, 3).reshape(15, 15)
    weight = np.repeat(np.sqrt(masses()), 3)
    squares, vectors = np.linalg.eigh(hessian / np.outer(weight, weight))
    return tetrahedron(bond), vectors[:, 6:].T.reshape(9, 5, 3), np.sqrt(squares[6:])


def run(part, first, count, log):
    """Append one JSON line per structure to ``log``, skipping the numbers it already holds."""
    import pyscf

    done = set()
    if os.path.exists(log):
        with open(log) as lines:
            done = {json.loads(line)["number"] for line in lines if line.endswith("\n")}
    vibrations = equilibrium_and_modes() if part == "vibrating" else None
    started = time.time()
    with open(log, "a") as out:
        for i in range(first, first + count):
            if i in done:
                continue
            record = {"part": part, "number": i, "seed": SEED[part], "pyscf": pyscf.__version__}
            if part == "random":
                positions = draw_random(i)
            elif i == 0:
                positions, record["temperature_K"] = vibrations[0], 0.0
            else:
                positions, record["temperature_K"] = draw_vibrating(i, *vibrations)
            # What is computed is what is written: eight decimals.
            positions = np.round(positions, 8)
            energy, forces, converged = energy_forces(positions)
            record.update(positions=positions.tolist(), energy=energy, forces=forces.tolist(), converged=converged)
            out.write(json.dumps(record) + "\n")
            out.flush()
            print(f"{part} {i}: {energy:.6f} eV, converged {converged}, {time.time() - started:.0f} s", flush=True)


def pack(logs, out):
    """Write ``ch4_<part>.extxyz.gz`` (converged structures, by number) and print how many were dropped."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    records = {}
    for log in logs:
        with open(log) as lines:
            for record in map(json.loads, lines):
                records[record["part"], record["number"]] = record
    for part in SEED:
        mine = [records[key] for key in sorted(records) if key[0] == part]
        kept = []
        for record in (r for r in mine if r["converged"]):
            atoms = Atoms(SYMBOLS, record["positions"])
            atoms.info["number"] = record["number"]
            if "temperature_K" in record:
                atoms.info["temperature_K"] = round(record["temperature_K"], 2)
            atoms.calc = SinglePointCalculator(atoms, energy=round(record["energy"], 8), forces=record["forces"])
            kept.append(atoms)
        text = io.StringIO()
        write(text, kept, format="extxyz")
        path = os.path.join(out, f"ch4_{part}.extxyz.gz")
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
            packed.write(text.getvalue().encode())
        print(f"{path}: {len(kept)} structures kept, {len(mine) - len(kept)} not converged and dropped")


def main():
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for part in SEED:
        command = commands.add_parser(part)
        command.add_argument("--first", type=int, default=0)
        command.add_argument("--count", type=int, required=True)
        command.add_argument("--log", required=True)
    command = commands.add_parser("pack")
    command.add_argument("logs", nargs="+")
    command.add_argument("--out", default=".")
    arguments = parser.parse_args()
    if arguments.command == "pack":
        pack(arguments.logs, arguments.out)
    else:
        run(arguments.command, arguments.first, arguments.count, arguments.log)


if __name__ == "__main__":
    main()
