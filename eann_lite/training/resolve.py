"""What the data decide where a person did not, and the specification of the model."""

from dataclasses import replace

import numpy as np

#: Contacts that fits count as close: below, the fixed repulsion helps where data are few, above, it does not
#: (validation/RECIPES.md).
CLOSE = 0.75
#: Weight decay where nobody said it (validation/RECIPES.md).
WEIGHT_DECAY = 0.05


def resolve(settings, parts):
    """Settings without None where the data decide, and the Specification."""
    from eann_lite.elements import chemical_symbol
    from eann_lite.model.specification import NetworkSpecification, Specification

    train = parts["train"]
    changes = {}
    if settings.cutoff is None:
        changes["cutoff"] = 6.0 if any(s.pbc.any() for s in train) else 7.0
    if settings.batch is None:
        # Steps of single frames, however large, are too noisy (validation/RECIPES.md).
        changes["batch"] = int(np.clip(round(160 / np.mean([s.n_atoms for s in train])), 4, 32))
    if settings.epochs is None and settings.minutes is None:
        changes["minutes"] = 2.9
    if settings.solver == "auto":
        changes["solver"] = "soap"
    if settings.weight_decay is None:
        changes["weight_decay"] = WEIGHT_DECAY
    if settings.precision is None:
        # Line searches of full-batch solvers look at differences of the loss that single precision does not show.
        stochastic = settings.solver in ("auto", "soap", "adam")
        changes["precision"] = "float32" if stochastic else "float64"
    if settings.repulsion == "auto":
        changes["repulsion"] = "zbl" if _close_contacts(train) else "none"
    settings = replace(settings, **changes)
    numbers = sorted({int(z) for s in train for z in s.numbers})
    shape = {"activation": settings.activation, "layer_norm": settings.layer_norm}
    specification = Specification(
        elements=tuple(chemical_symbol(z) for z in numbers),
        cutoff=settings.cutoff,
        max_degree=settings.max_degree,
        radial=settings.radial,
        densities=settings.densities,
        contraction=settings.contraction,
        recursions=settings.recursions,
        network=NetworkSpecification(tuple(settings.widths), settings.blocks, **shape),
        recursion_network=NetworkSpecification(tuple(settings.recursion_widths), settings.recursion_blocks, **shape),
        repulsion="zbl" if settings.repulsion == "zbl" else None,
        repulsion_cutoff=settings.repulsion_cutoff,
    )
    return settings, specification


def _close_contacts(structures):
    """Whether some pair is closer than CLOSE times the sum of its covalent radii: a wall is then part of the data."""
    from ase.data import covalent_radii

    from eann_lite.neighbors import neighbor_pairs

    for s in structures:
        radii = covalent_radii[s.numbers]
        pairs = neighbor_pairs(s.positions, s.cell, s.pbc, 1.4 * radii.max())
        i = np.repeat(np.arange(s.n_atoms), np.diff(pairs.first))
        vectors = s.positions[pairs.neighbor] - s.positions[i] + pairs.shift @ s.cell
        if np.any(np.linalg.norm(vectors, axis=1) < CLOSE * (radii[i] + radii[pairs.neighbor])):
            return True
    return False
