"""Structures and settings of fits that take a moment."""

import numpy as np
from ase import Atoms
from ase.calculators.lj import LennardJones

SMALL = {"radial": 4, "densities": 6, "widths": [6, 6], "recursion_widths": [6, 6], "recursions": 1, "cutoff": 4.0}


def frames(n, periodic=False):
    """Labelled argon-like clusters or cells of carbon and hydrogen (Lennard-Jones)."""
    rng = np.random.default_rng(5)
    result = []
    for _ in range(n):
        positions = np.array([[0, 0, 0], [1.2, 0, 0], [0, 1.3, 0], [0, 0, 1.1]]) + 0.06 * rng.normal(size=(4, 3))
        atoms = Atoms("CH3", positions, cell=np.diag([6.0, 6.5, 7.0]) if periodic else None, pbc=periodic)
        atoms.calc = LennardJones(sigma=1.0, epsilon=0.5, rc=3.0)
        atoms.get_potential_energy()
        if periodic:
            atoms.get_stress()
        result.append(atoms)
    return result
