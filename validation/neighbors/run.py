"""Measure the neighbour list against ASE's and, where installed, those of matscipy and vesin.

    python validation/neighbors/run.py [--atoms 192 1536 12288] [--cutoff 6] [--repeats 7] [--clock cpu|wall] [--json]

Water-like boxes (rigid molecules, 0.1 atoms per cubic Angstrom) and one methane; every list gives centre, neighbour and
image of all ordered pairs, ours also the reversed pairs.  The lists take turns, medians are printed, all on one thread.
Ends with 1 when two lists differ or a limit of README.md is missed.
"""

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time

import numpy as np

from eann_lite.neighbors import SkinList, batch_pairs, neighbor_pairs

#: Microseconds per atom that our list may take in a periodic box, and microseconds for one call with a methane.
BOX_LIMIT, METHANE_LIMIT = 4.0, 30.0
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
OURS = "eann_lite"


def water_box(n_atoms, seed=0):
    """ASE Atoms of a cubic box with ``n_atoms / 3`` randomly turned water molecules near the points of a lattice."""
    from ase import Atoms

    rng = np.random.default_rng(seed)
    molecules = n_atoms // 3
    edge = (3 * molecules / 0.1) ** (1 / 3)
    per_edge = int(np.ceil(molecules ** (1 / 3) - 1e-9))
    sites = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:molecules]
    centers = (sites + 0.5) * edge / per_edge + rng.normal(0, 0.2, (molecules, 3))
    water = np.array([[0.0, 0.0, 0.0], [0.757, 0.586, 0.0], [-0.757, 0.586, 0.0]])
    turns = np.linalg.qr(rng.normal(size=(molecules, 3, 3)))[0]
    positions = centers[:, None] + water @ turns
    return Atoms("OHH" * molecules, positions=positions.reshape(-1, 3), cell=edge * np.eye(3), pbc=True)


def methane():
    """ASE Atoms of one CH4 without periodicity, but with a cell, as matscipy refuses a molecule without one."""
    from ase.build import molecule

    atoms = molecule("CH4", cell=20.0 * np.eye(3))
    atoms.center()
    return atoms


def lists():
    """Name and function ``(atoms, cutoff) -> (i, j, shift)`` of every list that is installed here, ours first."""

    def ours(atoms, cutoff):
        pairs = neighbor_pairs(atoms.positions, atoms.cell, atoms.pbc, cutoff)
        return pairs.first, pairs.neighbor, pairs.shift

    found = {OURS: ours}
    try:
        from vesin import NeighborList

        def vesin(atoms, cutoff):
            calculator = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
            return calculator.compute(atoms.positions, atoms.cell.array, atoms.pbc, quantities="ijS")

        found["vesin"] = vesin
    except ImportError:
        pass
    try:
        from matscipy.neighbours import neighbour_list

        found["matscipy"] = lambda atoms, cutoff: neighbour_list("ijS", atoms, cutoff)
    except ImportError:
        pass
    from ase.neighborlist import neighbor_list

    found["ase"] = lambda atoms, cutoff: neighbor_list("ijS", atoms, cutoff)
    return found


def sorted_pairs(name, result):
    """Rows (i, j, S) in one order, to compare lists."""
    i, j, shift = result
    if name == OURS:
        i = np.repeat(np.arange(len(i) - 1), np.diff(i))
    rows = np.column_stack([i, j, shift]).astype(np.int64)
    return rows[np.lexsort(rows.T[::-1])]


def median_times(calls, repeats, clock, shortest=0.01, longest=10.0):
    """Median seconds per call of each function, taking turns.

    Short calls are repeated within one measurement of at least ``shortest`` seconds; a function that took ``longest``
    seconds in total is not measured again.
    """
    loops = {}
    for name, call in calls.items():
        call()
        call()  # the first two calls compile (a kept list takes another way than a new one) and fill caches
        start = time.perf_counter()
        call()
        loops[name] = max(1, round(shortest / max(time.perf_counter() - start, 1e-7)))
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if sum(times[name]) * loops[name] > longest:
                continue
            start = clock()
            for _ in range(loops[name]):
                call()
            times[name].append((clock() - start) / loops[name])
    return {name: statistics.median(values) for name, values in times.items()}


def measure(label, atoms, cutoff, repeats, clock):
    """Rows {system, list, microseconds_per_atom, microseconds, times_ours, same_pairs} of one system."""
    available = lists()
    results = {name: sorted_pairs(name, function(atoms, cutoff)) for name, function in available.items()}
    calls = {name: lambda f=function: f(atoms, cutoff) for name, function in available.items()}
    skin_list = SkinList(cutoff, 0.5)
    calls["eann_lite, kept in its skin"] = lambda: skin_list.update(atoms.positions, atoms.cell, atoms.pbc)
    per_call = dict.fromkeys(calls, 1)
    if not atoms.pbc.any():
        copies = 1000
        positions, offsets = np.tile(atoms.positions, (copies, 1)), np.arange(copies + 1) * len(atoms)
        cells, pbc = np.tile(atoms.cell.array, (copies, 1, 1)), np.tile(atoms.pbc, (copies, 1))
        name = f"eann_lite, batch of {copies}"
        calls[name] = lambda: batch_pairs(positions, offsets, cells, pbc, cutoff)
        per_call[name] = copies
    seconds = median_times(calls, repeats, clock)
    expected = results["ase"]
    return [
        {
            "system": label,
            "atoms": len(atoms),
            "neighbours_per_atom": len(expected) / len(atoms),
            "list": name,
            "microseconds": 1e6 * seconds[name] / per_call[name],
            "microseconds_per_atom": 1e6 * seconds[name] / per_call[name] / len(atoms),
            "times_ours": seconds[name] / per_call[name] / seconds[OURS],
            "same_pairs": bool(np.array_equal(results[name], expected)) if name in results else None,
        }
        for name in calls
    ]


def passed(rows):
    """Whether all lists agree, ours keeps its limits, and no other list is faster in a box."""
    good = all(row["same_pairs"] is not False for row in rows)
    for row in rows:
        box = row["system"] != "methane"
        if row["list"] == OURS:
            good &= row["microseconds_per_atom"] <= BOX_LIMIT if box else row["microseconds"] <= METHANE_LIMIT
        elif box and not row["list"].startswith(OURS):
            good &= row["times_ours"] >= 1.0
    return bool(good)


def print_table(rows, versions, clock):
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{platform.machine()}, {clock} time, one thread, medians\n")
    print(f"{'system':14s} {'neighbours':>10s}  {'list':28s} {'us/call':>11s} {'us/atom':>9s} {'x ours':>8s}  pairs")
    for row in rows:
        same = {True: "as ASE", False: "DIFFER", None: ""}[row["same_pairs"]]
        print(
            f"{row['system']:14s} {row['neighbours_per_atom']:10.1f}  {row['list']:28s} {row['microseconds']:11.1f} "
            f"{row['microseconds_per_atom']:9.3f} {row['times_ours']:8.2f}  {same}"
        )


def main(arguments=None):
    """Measure; 0 when every claim holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--atoms", type=int, nargs="*", default=[192, 1536, 12288], help="sizes of the water boxes")
    parser.add_argument("--cutoff", type=float, default=6.0, help="Angstrom (default 6)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each list, of which the median counts")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu", help="cpu: time of this process, on a busy machine")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args(arguments)
    rows = measure("methane", methane(), options.cutoff, options.repeats, CLOCKS[options.clock])
    for n_atoms in options.atoms:
        system = f"water {n_atoms}"
        rows += measure(system, water_box(n_atoms), options.cutoff, options.repeats, CLOCKS[options.clock])
    versions = {"python": platform.python_version()}
    for name in ("numpy", "numba", "ase", "matscipy", "vesin"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    good = passed(rows)
    if options.json:
        json.dump({"passed": good, "clock": options.clock, "versions": versions, "rows": rows}, sys.stdout, indent=1)
        print()
    else:
        print_table(rows, versions, options.clock)
        print("\npassed" if good else "\nFAILED: see the limits in README.md beside this script")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
