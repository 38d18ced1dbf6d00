"""Short range: what the energy does as two atoms approach, closer than anything in the training data.

A hole, an energy that falls while the distance shrinks below what the model has seen, breaks no law.  Dynamics that
are hot enough to pass the wall in front of it end there.
"""

import time

import numpy as np

from eann_lite.audit.check import OK, WARNING, Check

#: Distances (Angstrom): the closest, the farthest of a dimer, and points of a curve.
CLOSEST, FARTHEST, POINTS = 0.3, 3.5, 97
#: An energy that falls by less than this (eV) on the way inwards is no hole.
HOLE = 0.01
#: kB in eV/K: the height of a wall is also told as a temperature.
KELVIN = 8.617333262e-5


def check_approach(case, seconds):
    """(checks, record) of pairs of all elements, alone and inside a structure, in about ``seconds``."""
    checks, curves, until = [], [], time.monotonic() + seconds
    for pair, (shortest, whose) in case.shortest.items():
        for inside in (False, True):
            found = _structure_of(case, pair) if inside else (None, *_dimer(pair))
            name = f"{pair} approach {'inside a structure' if inside else 'alone'}"
            if found is None:
                checks.append(Check(name, detail="No audited structure has such a pair."))
                continue
            subject, atoms, i, j, vector = found
            points = (
                POINTS
                if subject is None
                else max(25, min(POINTS, int((until - time.monotonic()) / (6 * subject.seconds))))
            )
            start = np.linalg.norm(vector)
            distances = np.linspace(max(start, CLOSEST), CLOSEST, points)
            energies = np.array([_energy(case, atoms, i, j, vector, r) for r in distances])
            where = "the two atoms alone" if subject is None else f"{subject.name}, atoms {i} and {j}"
            checks.append(_hole(name, distances, energies, shortest, whose, where))
            curves.append(
                {
                    "pair": pair, "where": where, "inside": inside, "shortest_angstrom": shortest, "shortest_of": whose,
                    "distance_angstrom": distances.tolist(), "energy_ev": (energies - energies[0]).tolist(),
                }
            )  # fmt: skip
    return checks, {"curves": curves}


def fall(distances, energies):
    """(depth, distance of the top, distance of the bottom, height of the top) of the deepest fall inwards.

    distances fall, energies (eV) belong to them; the height counts from the first energy.  Depth 0: it never falls.

    >>> fall(np.array([1.0, 0.9, 0.8, 0.7]), np.array([0.0, 2.0, 1.5, 4.0]))
    (0.5, 0.9, 0.8, 2.0)
    """
    tops = np.fmax.accumulate(energies)
    depths = np.where(np.isnan(energies), 0.0, tops - energies)
    bottom = int(np.argmax(depths))
    top = int(np.nanargmax(energies[: bottom + 1]))
    return tuple(float(v) for v in (depths[bottom], distances[top], distances[bottom], energies[top] - energies[0]))


def _hole(name, distances, energies, shortest, whose, where):
    """The line on one curve: its deepest fall below the shortest known distance."""
    close = distances <= shortest
    if close.sum() < 2:
        return Check(name, where=where, detail=f"{shortest:.2f} A ({whose}) leaves nothing to look at.")
    if np.isnan(energies[close]).all():
        return Check(name, where=where, verdict=WARNING, detail="The energy is not finite there.")
    depth, top, bottom, height = fall(distances[close], energies[close])
    known = f"{shortest:.2f} A ({whose})"
    if depth <= HOLE:
        rise = energies[close][~np.isnan(energies[close])]
        return Check(
            name, depth, "eV", HOLE, OK, where, f"Rises by {rise.max() - rise[0]:.3g} eV from {known} to {CLOSEST} A."
        )
    wall = f"a wall of {height:.2g} eV ({height / KELVIN:.0f} K)" if height > 0.0 else "no wall"
    text = f"A hole: falls from {top:.2f} to {bottom:.2f} A, behind {wall} above {known}."
    return Check(name, depth, "eV", HOLE, WARNING, where, text)


def _dimer(pair):
    from ase import Atoms

    vector = np.array([FARTHEST, 0.0, 0.0])
    return Atoms(pair.split("-"), positions=[np.zeros(3), vector]), 0, 1, vector


def _structure_of(case, pair):
    """(subject, atoms, i, j, vector) of the closest such pair in the first audited structure of three atoms or more."""
    from eann_lite.neighbors import neighbor_pairs

    symbols = sorted(pair.split("-"))
    for subject in sorted(case.subjects, key=lambda subject: subject.relaxed, reverse=True):
        atoms = subject.atoms
        if len(atoms) < 3:
            continue
        pairs = neighbor_pairs(atoms.positions, atoms.cell.array, atoms.pbc, FARTHEST)
        center = np.repeat(np.arange(len(atoms)), np.diff(pairs.first))
        names = np.array(atoms.get_chemical_symbols())
        ordered = (names[center] == symbols[0]) & (names[pairs.neighbor] == symbols[1]) & (center != pairs.neighbor)
        if ordered.any():
            vectors = atoms.positions[pairs.neighbor] + pairs.shift @ atoms.cell.array - atoms.positions[center]
            p = np.flatnonzero(ordered)[np.argmin(np.linalg.norm(vectors[ordered], axis=1))]
            return subject, atoms, int(center[p]), int(pairs.neighbor[p]), vectors[p]
    return None


def _energy(case, atoms, i, j, vector, distance):
    """Energy with the two atoms moved along their vector, each by the same amount, to this distance."""
    moved = atoms.copy()
    change = vector * (distance / np.linalg.norm(vector) - 1.0)
    moved.positions[i] -= change / 2
    moved.positions[j] += change / 2
    return case.energy(moved)
