"""Energy, force and second derivative are continuous where a pair of atoms passes the cutoff.

One atom is moved along a straight line, away from the others of a molecule or through a cell; every place where a pair
passes the cutoff (also that of the repulsion) is found exactly.  On either side of it a polynomial through energies
and forces is continued to the crossing: what differs there is the jump.
"""

import time

import numpy as np

from eann_lite.audit.check import Check, counted, worst
from eann_lite.errors import InputError

#: Distances (Angstrom) from a crossing at which the two sides are sampled.
SAMPLES = 4e-4 * np.arange(1, 6)
#: Allowed jumps in eV, eV/Angstrom, eV/Angstrom^2, and per size of the quantity around the crossing.
LIMITS, RELATIVE = np.array([1e-7, 1e-6, 1e-4]), 1e-6
#: Round-off of an energy after it is continued to the crossing, per eV of the energy.
ROUND_OFF = 1e-13
#: Length (Angstrom) of a path through a cell; points of the plotted curve; crossings looked at on one path.
CELL_PATH, CURVE_POINTS, MOST_CROSSINGS = 1.0, 161, 12
#: Crossings closer than this (Angstrom) are one.
TOGETHER = 1e-5
NAMES = (("energy", "eV"), ("force", "eV/A"), ("second derivative", "eV/A^2"))


def check_smoothness(case, seconds):
    """(checks, record) of paths on which atoms cross the cutoff, in about ``seconds``."""
    until, found, curve = time.monotonic() + seconds, [[], [], []], {}
    for subject in case.subjects:
        if len(subject.atoms) < 2 and not subject.atoms.pbc.any():
            continue
        for atom in _one_of_each_element(subject.atoms):
            cost = subject.seconds * 2 * SAMPLES.size
            if found[0] and time.monotonic() + cost > until:
                break
            path = _path(case, subject, atom)
            if path is None:
                continue
            most = max(1, min(MOST_CROSSINGS, int((until - time.monotonic()) / cost)))
            crossings = _spread(path.crossings, most)
            try:
                for crossing in crossings:
                    where = f"{subject.name}, {path.text}, cutoff crossed at {crossing:.3f} A"
                    for row, jump, limit in zip(found, *path.jumps(crossing)):
                        row.append((jump, limit, where))
                if not curve:
                    curve = path.curve(min(CURVE_POINTS, max(31, int(seconds / (4 * subject.seconds)))))
            except InputError:
                continue
    crossed = f"{counted(len(found[0]), 'crossing')}."
    checks = [
        worst(f"jump of the {name} at the cutoff", rows, unit, detail=crossed)
        for rows, (name, unit) in zip(found, NAMES)
    ]
    if not found[0]:
        checks = [Check(f"jump of the {name} at the cutoff", detail="No path could be made.") for name, _ in NAMES]
    return checks, {"path": curve}


class _Path:
    """A straight line of one atom: positions start + s direction, 0 <= s <= length."""

    def __init__(self, case, atoms, atom, direction, length, crossings, text):
        self.case, self.atoms, self.atom, self.direction = case, atoms, atom, direction
        self.length, self.crossings, self.text = length, crossings, text

    def at(self, s):
        """Energy, and the slope dE/ds, at s."""
        moved = self.case.attached(self.atoms)
        moved.positions[self.atom] += s * self.direction
        return moved.get_potential_energy(), -moved.get_forces()[self.atom] @ self.direction

    def jumps(self, crossing):
        """Jumps of energy, slope and curvature at a crossing; what each may be, from the size of what jumps and the
        uncertainty of the two values that are compared."""
        sides = [self._continued(crossing, sign) for sign in (-1.0, 1.0)]
        (left, left_error), (right, right_error) = sides
        force, curvature = abs(left[1]) + abs(right[1]), abs(left[2]) + abs(right[2])
        sizes = np.array([force * SAMPLES[-1], force, curvature])
        round_off = ROUND_OFF * abs(left[0]) * np.array([1.0, 0.0, 0.0])
        return np.abs(right - left), LIMITS + RELATIVE * sizes + round_off + left_error + right_error

    def _continued(self, crossing, sign):
        """Energy, slope and curvature at a crossing from one side, and their uncertainties: what the farthest point
        changes in them."""
        energies, slopes = np.transpose([self.at(crossing + sign * step) for step in SAMPLES])
        found = []
        for points in (SAMPLES.size, SAMPLES.size - 1):
            # A polynomial through the nearest points, in units of the largest distance: its value and slope at 0.
            powers = np.vander(SAMPLES[:points] / SAMPLES[-1], increasing=True)
            energy = np.linalg.solve(powers, energies[:points] - energies[0])
            slope = np.linalg.solve(powers, slopes[:points])
            found.append(np.array([energies[0] + energy[0], slope[0], sign * slope[1] / SAMPLES[-1]]))
        return found[0], np.abs(found[0] - found[1])

    def curve(self, points):
        """Plain data of the path for the plot."""
        s = np.linspace(0.0, self.length, points)
        energies, slopes = np.transpose([self.at(value) for value in s])
        curvature = np.gradient(slopes, s)
        return {
            "text": self.text, "position_angstrom": s.tolist(), "energy_ev": (energies - energies[-1]).tolist(),
            "force_ev_per_ang": (-slopes).tolist(), "second_derivative_ev_per_ang2": curvature.tolist(),
            "crossings_angstrom": [float(c) for c in self.crossings],
        }  # fmt: skip


def _one_of_each_element(atoms):
    return sorted({symbol: k for k, symbol in reversed(list(enumerate(atoms.get_chemical_symbols())))}.values())


def _spread(values, most):
    """At most so many of the values, evenly chosen."""
    return values if len(values) <= most else [values[int(k)] for k in np.linspace(0, len(values) - 1, most)]


def _path(case, subject, atom):
    """The path of an atom, or None where there is none without a collision or without a crossing."""
    atoms, spec = subject.atoms, case.model.specification
    others = [k for k in range(len(atoms)) if k != atom]
    radii = [spec.cutoff] + ([spec.repulsion_cutoff] if spec.repulsion else [])
    symbol = atoms.get_chemical_symbols()[atom]
    if not atoms.pbc.any():
        outward = atoms.positions[atom] - atoms.positions[others].mean(axis=0)
        if np.linalg.norm(outward) < 0.3:
            # The atom sits in the middle of the others: it leaves where most room is.
            outward = _roomiest(atoms, atom, case.rng(), 4.0)
        direction = outward / np.linalg.norm(outward)
        length, text = spec.reach + 1.0, f"{symbol} (atom {atom}) leaves"
    else:
        direction = _roomiest(atoms, atom, case.rng(), CELL_PATH)
        length, text = CELL_PATH, f"{symbol} (atom {atom}) moves through the cell"
    vectors = _vectors_from(atoms, atom, max(radii) + length)
    if len(vectors) == 0:
        return None
    crossings = np.sort(np.concatenate([_roots(vectors, direction, radius) for radius in radii]))
    margin = 2 * SAMPLES[-1]
    crossings = crossings[(crossings > margin) & (crossings < length - margin)]
    # Atoms that are equal by symmetry cross together.  A crossing among the samples of another one would spoil both.
    crossings = crossings[np.diff(crossings, prepend=-np.inf) > TOGETHER]
    apart = np.diff(crossings, prepend=-np.inf, append=np.inf)
    crossings = [float(c) for c in crossings[np.minimum(apart[:-1], apart[1:]) > margin]]
    if not crossings:
        return None
    return _Path(case, atoms, atom, direction, length, crossings, text)


def _vectors_from(atoms, atom, reach):
    """Vectors (m, 3) from an atom to all other atoms and images of them within ``reach``."""
    from eann_lite.neighbors import neighbor_pairs

    pairs = neighbor_pairs(atoms.positions, atoms.cell.array, atoms.pbc, reach)
    row = slice(pairs.first[atom], pairs.first[atom + 1])
    neighbor = pairs.neighbor[row]
    vectors = atoms.positions[neighbor] + pairs.shift[row] @ atoms.cell.array - atoms.positions[atom]
    return vectors[neighbor != atom]  # Its own images move with it.


def _roots(vectors, direction, radius):
    """All s with |v - s d| = radius."""
    along = vectors @ direction
    inside = radius**2 - np.sum(vectors**2, axis=1) + along**2
    root = np.sqrt(inside[inside > 0])
    return np.concatenate([along[inside > 0] - root, along[inside > 0] + root])


def _roomiest(atoms, atom, rng, length):
    """Of some random directions the one on which the atom stays farthest from all others."""
    directions = rng.normal(size=(60, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    vectors = _vectors_from(atoms, atom, length + 6.0)
    if len(vectors) == 0:
        return directions[0]
    steps = np.linspace(0.0, length, 21)
    points = directions[:, None, None, :] * steps[None, :, None, None]
    nearest = np.linalg.norm(vectors - points, axis=-1).min(axis=(1, 2))
    # The start is the same for all: the sum over the path breaks the tie.
    total = np.linalg.norm(vectors - points, axis=-1).min(axis=2).sum(axis=1)
    return directions[np.lexsort((total, nearest))[-1]]
