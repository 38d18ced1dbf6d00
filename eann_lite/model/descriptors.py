"""The embedded densities of a model on their own, for methods that bring their own regression."""

from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError

#: Atoms that are computed at a time; for derivatives every copy of a structure counts.  This bounds the memory.
ATOMS_AT_A_TIME = 2048


class Descriptors(NamedTuple):
    """Embedded densities of all atoms of all structures, one after another, and their derivatives where asked for.

    values (N, M): axes (atom, density), Angstrom^(2 l) mixed by the contraction.
    structure (N,): index of the structure that each row of ``values`` belongs to.
    atom (N,): index of the row's atom in its structure.
    derivatives (E, 3, M): axes (entry, Cartesian component x, density m), d values[center, m] / d x of atom ``moved``,
        per Angstrom; only entries that are not zero throughout, sorted by ``center``, then ``moved``.  None if not
        asked for.
    center, moved (E,): rows of ``values`` of the atom described and of the atom that moves (with all its periodic
        images); both belong to the same structure, and may be the same atom.
    """

    values: np.ndarray
    structure: np.ndarray
    atom: np.ndarray
    derivatives: np.ndarray = None
    center: np.ndarray = None
    moved: np.ndarray = None


def descriptors(structures, model, derivatives=False, step=-1, seed=0):
    """Embedded densities rho_im of every atom (REANN, PRL 127, 156002 (2021), eq. 2), as ``Descriptors``.

    structures : ``ase.Atoms``, ``Structure``, or a list of these; they are not changed.
    model : a ``Model``, the path of a model file, or a ``Specification``, which is given the starting parameters of
        ``seed``.
    derivatives : also give d rho_im / d x_j, exact (tangent of the forward sweep, one direction for each coordinate).
    step : recursion step 0 .. T whose densities are meant; -1 is the last, which the energy networks see.

    Raises InputError for what is no model, a step that the model does not have, and as ``Model.evaluate`` does.

    Energies of a few structures by linear ridge regression on sums over atoms:

    >>> from ase.build import molecule
    >>> from eann_lite import Specification, descriptors
    >>> frames = [molecule("CH4") for _ in range(8)]
    >>> for seed, frame in enumerate(frames):
    ...     frame.rattle(0.1, seed=seed)
    >>> found = descriptors(frames, Specification(elements=("C", "H"), cutoff=4.0, densities=16, recursions=0))
    >>> found.values.shape, found.structure.shape
    ((40, 16), (40,))
    >>> features = np.zeros((8, 16))
    >>> np.add.at(features, found.structure, found.values)
    >>> energies = np.array([frame.get_all_distances().sum() for frame in frames])
    >>> kernel = features @ features.T
    >>> weights = features.T @ np.linalg.solve(kernel + 1e-8 * np.trace(kernel) * np.eye(8), energies)
    >>> bool(np.abs(features @ weights - energies).max() < 0.1)
    True
    """
    from eann_lite.io.model_file import as_model
    from eann_lite.model.model import Model
    from eann_lite.model.specification import Specification
    from eann_lite.structures import as_structures

    if isinstance(model, Specification):
        from eann_lite.model.initial import initial_parameters

        model = Model(model, initial_parameters(model, seed))
    else:
        model = as_model(model, also="a Specification")
    steps = model.specification.recursions + 1
    if not -steps <= step < steps:
        raise InputError(f"step = {step}: the model has the steps 0 to {steps - 1}; -1 is the last one.")
    items = as_structures(structures)
    counts = np.array([item.n_atoms for item in items])
    rows = np.concatenate([[0], np.cumsum(counts)])
    values = np.empty((rows[-1], model.specification.densities))
    step = step - steps if step >= 0 else step
    for chosen in _portions(counts):
        batch = _batch(model, [items[q] for q in chosen])
        model.sweeps.forward(batch, all_densities=step != -1)
        values[rows[chosen[0]] + batch.order] = model.sweeps.values.density[step]
    structure = np.repeat(np.arange(len(items)), counts)
    found = Descriptors(values, structure, np.arange(rows[-1]) - rows[structure])
    if not derivatives:
        return found
    parts = []
    # A structure of n atoms is computed in 3n copies, in each of which another coordinate moves.
    for chosen in _portions(3 * counts**2):
        parts.extend(_slopes(model, [items[q] for q in chosen], rows[chosen], step))
    center, moved, slopes = (np.concatenate(part) for part in zip(*parts))
    return found._replace(derivatives=slopes, center=center, moved=moved)


def _portions(costs):
    """Consecutive indices into ``costs`` (in atoms), each portion within ATOMS_AT_A_TIME or of one structure."""
    start, total = 0, 0
    for q, cost in enumerate(costs):
        if q > start and total + cost > ATOMS_AT_A_TIME:
            yield np.arange(start, q)
            start, total = q, 0
        total += cost
    yield np.arange(start, len(costs))


def _batch(model, items):
    from eann_lite.batches import draw_batch, pack_structures

    specification = model.specification
    packed = pack_structures(items, specification.elements, specification.reach)
    return draw_batch(packed, np.arange(len(items)), len(specification.elements))


def _slopes(model, items, rows, step):
    """[(center, moved, slopes)] of each structure; rows: where each begins among all atoms.

    Several small structures make one batch; the copies of a large one are computed a few at a time, by tangents along
    other directions of the same batch.
    """
    sizes = [item.n_atoms for item in items]
    if len(items) == 1:
        copies = [max(1, min(3 * sizes[0], ATOMS_AT_A_TIME // sizes[0]))]
    else:
        copies = [3 * n for n in sizes]
    batch = _batch(model, [item for item, count in zip(items, copies) for _ in range(count)])
    sweeps = model.sweeps
    sweeps.forward(batch, keep=True, all_densities=True)
    no_strain = np.zeros((batch.n_structures, 3, 3))
    blocks = [np.empty((3 * n, n, model.specification.densities)) for n in sizes]
    for begin in range(0, 3 * sizes[0] if len(items) == 1 else 1, copies[0]):
        direction = np.zeros((batch.order.size, 3))
        start = 0
        for n, count in zip(sizes, copies):
            # Copy c moves coordinate begin + c; the last copies of a large structure may have none left.
            coordinate = np.arange(begin, min(begin + count, 3 * n))
            direction[start + (coordinate - begin) * n + coordinate // 3, coordinate % 3] = 1.0
            start += n * count
        sweeps.tangent(direction[batch.order], no_strain)
        slopes = np.empty((batch.order.size, model.specification.densities))
        slopes[batch.order] = sweeps.tangents.density[step]
        start = 0
        for n, count, block in zip(sizes, copies, blocks):
            part = block[begin : begin + count]
            part[:] = slopes[start : start + len(part) * n].reshape(part.shape)
            start += n * count
    parts = []
    for n, block, row in zip(sizes, blocks, rows):
        # Axes (moved atom, component, centre, density) -> (centre, moved atom, component, density).
        by_center = block.reshape(n, 3, n, -1).transpose(2, 0, 1, 3)
        center, moved = np.nonzero(by_center.any(axis=(2, 3)))
        parts.append((row + center, row + moved, by_center[center, moved]))
    return parts
