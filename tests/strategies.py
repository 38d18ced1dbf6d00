"""What tests share: structures and results to compare with; the Hypothesis strategies are ``eann_lite.testing``'s."""

import itertools
import math

import numpy as np

from eann_lite import Structure, reference
from eann_lite.testing.strategies import (  # noqa: F401
    ELEMENTS,
    PERIODIC,
    models,
    random_model,
    random_structure,
    rotations,
    seeds,
    specifications,
    structures,
)


def large_cell(rng, n):
    """``Structure`` of n atoms of H and C, periodic in all directions: points of a grid, moved at random."""
    side = math.ceil(n ** (1 / 3))
    points = np.array(list(itertools.product(range(side), repeat=3)))[rng.permutation(side**3)[:n]]
    positions = 1.7 * points + rng.uniform(-0.4, 0.4, (n, 3))
    return Structure(numbers=rng.choice([1, 6], n), positions=positions, cell=1.7 * side * np.eye(3), pbc=True)


def reference_result(model, structure):
    """``eann_lite.reference.evaluate`` of a model."""
    return reference.evaluate(*reference_arguments(model, structure))


def reference_arguments(model, structure):
    """Leading arguments of the functions of ``eann_lite.reference``."""
    return (
        model.specification, model.parameters, model.constants, structure.numbers, structure.positions, structure.cell,
        structure.pbc,
    )  # fmt: skip


def changed(structure, **values):
    """The structure with other values in some fields."""
    kept = {name: getattr(structure, name) for name in ("numbers", "positions", "cell", "pbc")}
    return Structure(**{**kept, **values})


def repeated(structure, times):
    """Supercell of ``times`` (3,) copies along the lattice vectors; the copies of all atoms one after another."""
    shifts = np.array(list(itertools.product(*(range(count) for count in times))))
    positions = (structure.positions[None] + (shifts @ structure.cell)[:, None]).reshape(-1, 3)
    return changed(
        structure,
        numbers=np.tile(structure.numbers, len(shifts)),
        positions=positions,
        cell=structure.cell * np.array(times)[:, None],
    )


def scale_of(result):
    """What forces and strain derivative are compared with where little is left of large terms.

    Forces of one atom in a cell cancel; derivatives of a saturated activation are small differences of large numbers.
    """
    return max(float(np.abs(result.strain_derivative).max()), 0.01 * float(np.abs(result.energies).max()))


def deviation(found, expected, floor=0.0):
    """Largest difference relative to the largest expected entry (or to ``floor``, where that is larger)."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    if found.size == 0:
        return 0.0
    difference = float(np.abs(found - expected).max())
    scale = max(float(np.abs(expected).max()), floor)
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0.0 else math.inf
