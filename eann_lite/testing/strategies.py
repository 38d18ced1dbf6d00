"""Hypothesis strategies: random structures, models and symmetry operations.

``atoms`` gives ``ase.Atoms`` of any elements for any calculator; its coordinates are drawn by Hypothesis, so that a
failing example shrinks to few atoms at round places.  ``structures`` and ``models`` are for this package's own models:
numbers come from a NumPy generator with a drawn seed, choices (kind of structure, hyperparameters) from Hypothesis,
and no example wastes itself on atoms at one place.
"""

import math

import numpy as np

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError('eann_lite.testing draws structures with Hypothesis: pip install "eann_lite[test]"') from error

from eann_lite import Model, NetworkSpecification, Specification, Structure, reference
from eann_lite.elements import atomic_number
from eann_lite.model.parameters import default_constants, parameter_shapes
from eann_lite.model.specification import ACTIVATIONS, CONTRACTIONS, LAYER_NORMS

ELEMENTS = ("H", "C", "O", "Ni")
#: One Gaussian, an odd number, and one that fills a vector register.
RADIALS = (1, 3, 8)
#: Few, so that everything is done quickly, and so many that kernels take power spectra (of 8 Gaussians, to degree 2).
DENSITIES = (1, 2, 3, 4, 5, 6, 32)
#: Atoms are never closer than this (Angstrom), their own images included.
SHORTEST = 0.7
CUTOFFS = (2.5, 3.5)

seeds = st.integers(0, 2**32 - 1)

MOLECULES = ("cluster", "atom", "far apart")
PERIODIC = ("cell", "skewed", "tiny", "slab", "wire")
KINDS = MOLECULES + PERIODIC
#: Kinds of ``atoms``; one atom alone is the smallest cluster.
ATOMS_KINDS = ("cluster",) + PERIODIC
#: Coordinates of ``atoms`` are multiples of this (Angstrom).
GRID = 0.1
#: Two atoms are at least this part of the sum of their covalent radii apart, unless a distance is given.
CLOSEST = 0.85


@st.composite
def atoms(draw, elements, kinds=ATOMS_KINDS, most=5, closest=None, density=None):
    """``ase.Atoms`` of some of ``elements`` with at most ``most`` atoms, at multiples of 0.1 Angstrom.

    kinds : some of ``ATOMS_KINDS``: ``cluster``; ``cell``; ``skewed``, by up to three lattice vectors; ``tiny``, 1 or 2
        atoms in a cell hardly longer than their distance; ``slab`` and ``wire``, periodic in two directions or one.
    closest : shortest distance (Angstrom), images included; default: 0.85 times the sum of the largest covalent radii.
    density : atoms per cubic Angstrom that coordinates and cells are drawn for (a crowded one is left for more room);
        default: one atom in a cube of 1.4 times the shortest distance.

    Atoms that come too close are moved on along a line (x in a cluster); without a place in a cell they are left out.
    """
    from ase import Atoms
    from ase.data import covalent_radii

    if closest is None:
        closest = 2 * CLOSEST * max(float(covalent_radii[atomic_number(symbol)]) for symbol in elements)
    kind = draw(st.sampled_from(kinds))
    n = draw(st.integers(1, min(most, 2) if kind == "tiny" else most))
    symbols = [draw(st.sampled_from(elements)) for _ in range(n)]
    volume = n / density if density else n * (1.4 * closest) ** 3
    side = closest if kind == "tiny" else max(volume ** (1 / 3), closest)
    cell, pbc = np.zeros((3, 3)), np.zeros(3, bool)
    if kind != "cluster":
        pbc[:] = True
        if kind in ("slab", "wire"):
            pbc = np.roll([kind == "slab", kind == "slab", kind == "wire"], draw(st.integers(0, 2)))
        cell = _drawn_cell(draw, kind, side, closest)
    steps = st.integers(0, max(1, round(side / GRID)))
    # The first atom at the origin: where a structure lies is the business of the translation law.
    placed = np.zeros((1, 3))
    # Differences are wrapped into the cell first, which leaves them half of its vectors at most.
    lattice = _lattice_vectors(cell, pbc, closest + 0.5 * np.linalg.norm(cell, axis=1)[pbc].sum())
    # In a cell a line along x would come back to where it began.
    along = np.array([1.0, 0.7, 0.4] if pbc.any() else [1.0, 0.0, 0.0])
    onwards = GRID * np.round(math.ceil(closest / (2 * GRID)) * np.arange(50)[:, None] * along)
    for _ in symbols[1:]:
        places = GRID * np.array([draw(steps) for _ in range(3)]) + onwards
        apart = places[:, None] - placed
        apart = apart - np.round(apart @ np.linalg.pinv(cell)) * pbc @ cell
        nearest = np.linalg.norm(apart[:, :, None] + lattice, axis=-1).min(axis=(1, 2))
        if (nearest >= closest).any():
            placed = np.vstack([placed, places[np.argmax(nearest >= closest)]])
    return Atoms(symbols[: len(placed)], positions=np.round(placed, 6), cell=np.round(cell, 6), pbc=pbc)


def _drawn_cell(draw, kind, side, closest):
    """Lattice vectors as rows, lower triangular, as long as needed for images to be ``closest`` apart."""
    longest = 1.2 if kind == "tiny" else 1.5
    lengths = [draw(st.integers(math.ceil(side / GRID), math.ceil(longest * side / GRID))) for _ in range(3)]
    skew = {"skewed": 3.0, "tiny": 0.5}.get(kind, 0.4)
    shears = [draw(st.integers(-round(skew * side / GRID), round(skew * side / GRID))) for _ in range(3)]
    while True:
        cell = GRID * np.array([[lengths[0], 0, 0], [shears[0], lengths[1], 0], [shears[1], shears[2], lengths[2]]])
        if len(_lattice_vectors(cell, np.ones(3, bool), closest)) == 1:
            return cell
        lengths = [length + 1 for length in lengths]


def _lattice_vectors(cell, pbc, radius):
    """Vectors (., 3) from an atom to its images within ``radius`` (Angstrom), zero included."""
    reach = np.floor(radius * np.linalg.norm(np.linalg.pinv(cell), axis=0)).astype(int) * pbc
    vectors = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach)), axis=-1).reshape(-1, 3) @ cell
    return vectors[np.linalg.norm(vectors, axis=1) < radius]


def permutations(n):
    """Orders of n atoms, as lists of indices."""
    return st.permutations(range(n))


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
    layer_norm = draw(st.sampled_from(LAYER_NORMS))
    if layer_norm:
        widths = [max(width, 3) for width in widths]  # Normalising two values leaves only their signs.
    return NetworkSpecification(
        widths=tuple(widths),
        blocks=draw(st.integers(0, 2)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        layer_norm=layer_norm,
        residual=draw(st.booleans()),
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
        densities=draw(st.sampled_from(DENSITIES)),
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
