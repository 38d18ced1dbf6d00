"""What is measured: water of any size, methane, and models with random parameters."""

import numpy as np

#: Water molecules of the cell that larger ones repeat, atoms per cubic Angstrom, closest distance between molecules.
MOLECULES, DENSITY, CLOSEST = 64, 0.1, 1.6
#: Model of the reference measurement; the activation is the published one.
REFERENCE = {"elements": ("O", "H"), "cutoff": 6.0, "radial": 8, "max_degree": 2, "densities": 64, "recursions": 3}
ACTIVATION = "relu_like"


def water_box(molecules=MOLECULES, seed=0):
    """ASE Atoms: a periodic cube of water, a cubic number of molecules, at the density of the liquid.

    Rigid molecules sit near the points of a lattice, shifted and turned at random; one that would come closer than
    ``CLOSEST`` to those already there is drawn again.
    """
    from ase import Atoms

    rng = np.random.default_rng(seed)
    per_edge = round(molecules ** (1 / 3))
    edge = (3 * molecules / DENSITY) ** (1 / 3)
    rigid = np.array([[0.0, 0.0, 0.0], [0.757, 0.586, 0.0], [-0.757, 0.586, 0.0]])
    placed = np.empty((0, 3))
    for site in np.ndindex(per_edge, per_edge, per_edge):
        while True:
            center = (np.array(site) + 0.5) * edge / per_edge + rng.normal(0.0, 0.2, 3)
            molecule = center + rigid @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
            apart = molecule[:, None] - placed
            apart -= edge * np.round(apart / edge)
            if (apart**2).sum(axis=-1).min(initial=np.inf) > CLOSEST**2:
                break
        placed = np.concatenate([placed, molecule])
    return Atoms("OHH" * molecules, positions=placed, cell=edge * np.eye(3), pbc=True)


def water(n_atoms):
    """Water of 24, 81, or 192 x (powers of 2 and cubes) atoms, as ASE Atoms."""
    cubes = {3 * n**3: n**3 for n in (2, 3, 4)}
    if n_atoms in cubes:
        return water_box(cubes[n_atoms])
    copies, repeats = n_atoms // (3 * MOLECULES), [1, 1, 1]
    for prime in (3, 2):
        while copies % prime == 0:
            repeats[int(np.argmin(repeats))] *= prime
            copies //= prime
    if n_atoms != 3 * MOLECULES * np.prod(repeats):
        raise ValueError(f"no water of {n_atoms} atoms: expected 24, 81, or 192 times powers of 2 and 3")
    return water_box().repeat(repeats)


def methane():
    """ASE Atoms of one CH4, slightly distorted."""
    from ase.build import molecule

    atoms = molecule("CH4")
    atoms.rattle(0.05, seed=0)
    return atoms


def specification(**changes):
    """The reference ``Specification`` with some hyperparameters changed."""
    from eann_lite import NetworkSpecification, Specification

    network = NetworkSpecification(widths=(64, 64), blocks=1, activation=ACTIVATION)
    return Specification(**(REFERENCE | {"network": network, "recursion_network": network} | changes))


def model(energy_scale=1.0, **changes):
    """Model of ``specification(**changes)`` with random parameters, always the same ones."""
    from eann_lite import Model
    from eann_lite.model.initial import initial_parameters

    spec = specification(**changes)
    parameters = initial_parameters(spec, seed=0)
    # A fit scales the orbital sums of every degree by its data; this is about what it would find in water.
    degrees = np.arange(spec.max_degree + 1)[:, None, None]
    parameters["contraction"] /= 3.0 * (spec.cutoff / 2.0) ** degrees
    return Model(spec, parameters, {"energy_scale": np.array(energy_scale)})


def labelled(atoms):
    """``Structure`` of ASE Atoms with an energy (eV) and forces (eV/Angstrom) drawn at random."""
    from eann_lite import Structure

    rng = np.random.default_rng(1)
    forces = rng.normal(size=(len(atoms), 3))
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, float(rng.normal()), forces)


def neighbours(atoms, cutoff):
    """Mean number of neighbours of an atom."""
    from eann_lite.neighbors import neighbor_pairs

    return len(neighbor_pairs(atoms.positions, atoms.cell, atoms.pbc, cutoff).neighbor) / len(atoms)


def first_methanes(n_structures):
    """List of ``Structure``: the first CH4 of the data set that comes with the package, with energies and forces."""
    from eann_lite import read_structures
    from eann_lite.training.parts import shipped_files

    return read_structures(shipped_files())[:n_structures]
