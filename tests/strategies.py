"""Hypothesis strategies: random structures, models and symmetry operations.

Numbers come from a NumPy generator with a drawn seed, choices (kind of structure, hyperparameters) from Hypothesis
itself: a failing example shrinks to the simplest choices, and no example wastes itself on atoms at one place.
"""

import itertools
import math

import numpy as np
from hypothesis import strategies as st

from eann_lite import Model, NetworkSpecification, Specification, Structure, reference
from eann_lite.elements import atomic_number
from eann_lite.model.parameters import default_constants, parameter_shapes
from eann_lite.model.specification import ACTIVATIONS, CONTRACTIONS

ELEMENTS = ("H", "C", "O", "Ni")
#: Kernels are compiled once for each number of Gaussians, so only these are drawn.
RADIALS = (1, 3, 8)
#: Atoms are never closer than this (Angstrom), their own images included.
SHORTEST = 0.7
CUTOFFS = (2.5, 3.5)

seeds = st.integers(0, 2**32 - 1)

MOLECULES = ("cluster", "atom", "far apart")
PERIODIC = ("cell", "skewed", "tiny", "slab", "wire")
KINDS = MOLECULES + PERIODIC


@st.composite
def structures(draw, elements=ELEMENTS[:2], kinds=KINDS, most=8):
    """A ``Structure`` of ``elements`` (some may be absent) with at most ``most`` atoms.

    kinds : ``cluster``; ``atom`` alone; ``far apart`` (no pair within any cutoff); ``cell``; ``skewed``, by up to
        three lattice vectors; ``tiny``, 1 or 2 atoms in a cell smaller than the cutoff; ``slab`` and ``wire``,
        periodic in two directions or one, any of them.  Periodic atoms lie in any image.
    """
    kind = draw(st.sampled_from(kinds))
    n = {"atom": 1, "tiny": draw(st.integers(1, 2))}.get(kind) or draw(st.integers(2, most))
    numbers = [atomic_number(draw(st.sampled_from(elements))) for _ in range(n)]
    pbc = np.full(3, kind in PERIODIC)
    if kind in ("slab", "wire"):
        pbc = np.roll([kind == "slab", kind == "slab", kind == "wire"], draw(st.integers(0, 2)))
    return random_structure(np.random.default_rng(draw(seeds)), kind, numbers, pbc)


def random_structure(rng, kind, numbers, pbc):
    """``Structure`` of one of ``KINDS`` with these atoms; the volume of a cell grows until they fit."""
    n = len(numbers)
    size = {"far apart": 40.0, "tiny": 1.2}.get(kind, 1.9) * n ** (1 / 3)
    apart = 8.0 if kind == "far apart" else SHORTEST
    while True:
        cell = size * (np.eye(3) + 0.25 * rng.uniform(-1, 1, (3, 3)))
        if kind == "skewed":
            cell[1] += rng.integers(-3, 4) * cell[0]
            cell[2] += rng.integers(-3, 4) * cell[0] + rng.integers(-3, 4) * cell[1]
        if kind in MOLECULES:
            cell[:] = 0.0
        box = cell if kind in PERIODIC else size * np.eye(3)
        positions = rng.uniform(0, 1, (n, 3)) @ box
        if len(reference.pairs(positions, cell, pbc, apart)[0]) == 0:
            break
        size *= 1.02
    positions = positions + rng.integers(-2, 3, (n, 3)) * pbc @ cell
    if pbc.any() and rng.random() < 0.5:
        cell[~pbc] = 0.0
    return Structure(numbers=np.array(numbers), positions=positions, cell=cell, pbc=pbc)


@st.composite
def networks(draw):
    """A small ``NetworkSpecification`` of any activation, with one to three widths and up to two blocks."""
    widths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    layer_norm = draw(st.booleans())
    if layer_norm:
        widths = [max(width, 3) for width in widths]  # Normalising two values leaves only their signs.
    return NetworkSpecification(
        widths=tuple(widths),
        blocks=draw(st.integers(0, 2)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        layer_norm=layer_norm,
    )


@st.composite
def specifications(draw, elements=ELEMENTS[:2], radials=RADIALS, repulsions=(None, "zbl"), layer_norms=True):
    """A ``Specification`` over ``elements`` in any order."""
    drawn_networks = networks() if layer_norms else networks().filter(lambda network: not network.layer_norm)
    return Specification(
        elements=tuple(draw(st.permutations(elements))),
        cutoff=draw(st.sampled_from(CUTOFFS)),
        max_degree=draw(st.integers(0, 3)),
        radial=draw(st.sampled_from(radials)),
        densities=draw(st.integers(1, 6)),
        contraction=draw(st.sampled_from(CONTRACTIONS)),
        recursions=draw(st.integers(0, 3)),
        network=draw(drawn_networks),
        recursion_network=draw(drawn_networks),
        repulsion=draw(st.sampled_from(repulsions)),
        repulsion_cutoff=draw(st.sampled_from((1.5, 4.5))),
    )


def random_model(specification, seed):
    """``Model`` with parameters and constants of ordinary size, none at a special value.

    Monomials grow as r^l and sums with the number of neighbours; the contraction and density_scale make up for it,
    so that energies and messages stay of order one and differences of round-off mean what they say.
    """
    rng = np.random.default_rng(seed)
    reach = 0.6 * specification.cutoff
    parameters = {}
    for name, shape in parameter_shapes(specification).items():
        if name == "radial_exponents":
            parameters[name] = rng.uniform(0.3, 1.5, shape)
        elif name == "radial_centers":
            parameters[name] = rng.uniform(0.0, specification.cutoff, shape)
        elif name == "contraction":
            degrees = np.arange(shape[0])[:, None, None]
            parameters[name] = rng.normal(size=shape) / (np.sqrt(shape[1]) * reach**degrees)
        elif name.endswith((".alpha", ".beta", ".scale")):
            parameters[name] = rng.uniform(0.6, 1.4, shape)
        elif name.startswith("recursion") and ".output." in name:
            parameters[name] = 0.3 * rng.normal(size=shape) / np.sqrt(shape[0])
        else:
            parameters[name] = rng.normal(size=shape) / np.sqrt(shape[0] if name.endswith("weight") else 1.0)
    constants = default_constants(specification)
    shape = constants["density_scale"].shape
    constants["density_shift"] = rng.normal(size=shape)
    constants["density_scale"] = rng.uniform(0.1, 0.3, shape)
    if specification.contraction == "per_degree":
        degrees = np.repeat(np.arange(specification.max_degree + 1), specification.radial)
        constants["density_scale"] /= reach ** (2 * degrees)
    constants["reference_energies"] = rng.normal(size=len(specification.elements))
    constants["energy_scale"] = rng.uniform(0.5, 2.0, ())
    return Model(specification, parameters, constants)


@st.composite
def models(draw, **choices):
    """A random ``Model``; ``choices`` as for ``specifications``."""
    return random_model(draw(specifications(**choices)), draw(seeds))


@st.composite
def rotations(draw):
    """Orthogonal matrix (3, 3), a rotation with or without inversion; it acts from the right, on vectors as rows."""
    q, r = np.linalg.qr(np.random.default_rng(draw(seeds)).normal(size=(3, 3)))
    return q * np.sign(np.diag(r)) * draw(st.sampled_from((1.0, -1.0)))


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
