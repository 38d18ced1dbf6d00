"""How unlike the training data an atom is: the distance of its densities from those that a model was fitted on.

For every element a model file carries the mean and the covariance of the last recursion step's densities over the
training atoms, in the form of a linear map.  The measure is the Mahalanobis distance from that mean, divided by the
largest one of a training atom: every training atom has at most 1, and 2 is twice as far out as the farthest of them.
Densities fall to zero as neighbours leave, which is seldom far from their mean.  So where their sum is below the
smallest one of a training atom the measure is at least 4 (that one / the atom's own - 1): 1 at 0.8 of it, infinite
without neighbours, unless training atoms had none either.
Which measures were compared, and how well this one predicts errors: ``validation/extrapolation``.
"""

import warnings
from typing import NamedTuple

import numpy as np

from eann_lite.batches import batches_of_atoms, draw_batch

#: Variances along principal directions count as at least this part of the largest one.
SMALLEST_VARIANCE = 1e-6
#: Farther out than every training atom of its element: from here on an atom is outside.
OUTSIDE = 1.0
#: Atoms of one piece of work, and of all pieces whose sums are in memory at a time.
ATOMS_PER_PIECE, ATOMS_AT_A_TIME = 256, 16384


class ExtrapolationWarning(UserWarning):
    """An atom is farther out, or lonelier, than every one of the training atoms."""


# Python shows a text once; the next calculator of the same structure would say nothing.  A user's filters come first.
warnings.filterwarnings("always", category=ExtrapolationWarning, append=True)


class DensityBounds(NamedTuple):
    """Where the densities of the training atoms lie, element by element.

    center (S, M): their mean; whitening (S, M, M): map of a difference from the mean to a vector whose length is the
    measure; atoms (S,): how many training atoms there were (float64, as all arrays of a model file); thinnest (S,): the
    smallest sum of the densities of one of them, 0 in files of before it was kept, which ask for nothing there.
    """

    center: np.ndarray
    whitening: np.ndarray
    atoms: np.ndarray
    thinnest: np.ndarray

    def distances(self, density, batch):
        """The measure (N,) of a batch's atoms, in its order; density (N, M) is that of the last recursion step.

        Infinite where a density is not finite, and for an element that was not in the training data.
        """
        from eann_lite.kernels import bounds

        result = np.empty(density.shape[0])
        bounds.distances(batch.threaded, batch.blocks, density, *self, result)
        return result


def bounds_shapes(specification):
    """Name -> shape of the arrays of ``DensityBounds``."""
    n_elements, m = len(specification.elements), specification.densities
    return {
        "center": (n_elements, m), "whitening": (n_elements, m, m), "atoms": (n_elements,), "thinnest": (n_elements,),
    }  # fmt: skip


def density_bounds(pool, constants, packed):
    """``DensityBounds`` of packed training structures, for the constants of a ``SweepPool`` and the parameters it is set to.

    Two forward sweeps over the data, for the moments and then for the largest distance, in pieces that do not depend
    on the number of threads.  None if a density is not finite.

    A principal direction in which the training atoms hardly vary counts with ``SMALLEST_VARIANCE`` of the largest
    variance; where they do not vary at all (one atom, or copies of it), with that part of the squared mean.  With few
    training atoms of an element most of what is new is thus outside, which is what is known.
    """
    specification = pool.specification
    n_elements, m = len(specification.elements), specification.densities
    # Moments are taken of densities as the networks see them: of order one, about their mean of the first step.
    shift, scale = constants["density_shift"][-1], constants["density_scale"][-1]

    def moments(density, batch):
        atoms, total, squares = np.zeros(n_elements), np.zeros((n_elements, m)), np.zeros((n_elements, m, m))
        for s, (start, stop) in enumerate(batch.segments.tolist()):
            x = (density[start:stop] - shift[s]) * scale[s]
            atoms[s], total[s], squares[s] = stop - start, x.sum(axis=0), x.T @ x
        return atoms, total, squares

    sums = None
    for piece in _of_all_pieces(pool, packed, moments):
        sums = piece if sums is None else tuple(known + more for known, more in zip(sums, piece))
    atoms, total, squares = sums
    mean = total / np.maximum(atoms, 1.0)[:, None]
    covariance = squares / np.maximum(atoms, 1.0)[:, None, None] - mean[:, :, None] * mean[:, None, :]
    center = shift + mean / scale
    if not (np.isfinite(center).all() and np.isfinite(covariance).all()):
        return None
    whitening = np.zeros((n_elements, m, m))
    for s in np.flatnonzero(atoms):
        variances, directions = np.linalg.eigh(covariance[s])
        floor = SMALLEST_VARIANCE * max(variances[-1], SMALLEST_VARIANCE * np.max((center[s] * scale[s]) ** 2))
        # Densities that are all zero (atoms without neighbours) leave no scale but that of the densities themselves.
        whitening[s] = scale[s][:, None] * directions / np.sqrt(np.maximum(variances, floor if floor > 0.0 else 1.0))

    bare = DensityBounds(center, whitening, atoms, np.zeros(n_elements))

    def ranges(density, batch):
        distances, segments = bare.distances(density, batch), batch.segments.tolist()
        return [
            [distances[start:stop].max(initial=0.0) for start, stop in segments],
            [-density[start:stop].sum(axis=1).min(initial=np.inf) for start, stop in segments],
        ]

    radius, thinnest = np.max([piece for piece in _of_all_pieces(pool, packed, ranges)], axis=0)
    # Copies of one atom are nowhere but at their mean: one standard deviation (the floor) is then the unit.
    return bare._replace(
        whitening=whitening / np.maximum(radius, 1.0)[:, None, None], thinnest=np.where(atoms > 0.0, -thinnest, 0.0)
    )


def with_bounds(model, structures, threads=1):
    """The model with the bounds of these training structures, for one that has none (imported, or of an older file).

    structures : list of ``ase.Atoms`` or ``Structure``.  Labels are not looked at; the model given stays as it is.

    >>> from ase.build import molecule
    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("C", "H"), cutoff=5.0)
    >>> model = Model(specification, initial_parameters(specification, seed=0))
    >>> with_bounds(model, [molecule("CH4"), molecule("C2H6")]).bounds.atoms.tolist()
    [3.0, 10.0]
    """
    from eann_lite.batches import pack_structures
    from eann_lite.model.model import Model
    from eann_lite.structures import as_structures

    specification = model.specification
    packed = pack_structures(as_structures(structures), specification.elements, specification.reach)
    bounds = density_bounds(model.pool(threads), model.constants, packed)
    return Model(specification, model.parameters, model.constants, model.provenance, bounds)


def structure_distances(model, packed):
    """The measure (N,) of all atoms of packed structures, in their order; ``model`` has bounds."""
    from eann_lite.compiled import threads_in_use

    result = np.empty(packed.species.size)
    start = 0
    for piece in _of_all_pieces(model.pool(threads_in_use()), packed, model.bounds.distances, given_order=True):
        result[start : start + piece.size] = piece
        start += piece.size
    return result


def outside_summary(model, packed):
    """What ``eann-lite evaluate`` tells about packed structures, as plain data; ``model`` has bounds.

    Keys: fraction of atoms and of structures (any of its atoms) outside; worst_structure and its worst_atom, counted
    from 0, with worst_distance, the measure there (None: infinite).
    """
    distances = structure_distances(model, packed)
    worst = np.maximum.reduceat(distances, packed.offsets[:-1])
    structure = int(np.argmax(worst))
    atom = int(np.argmax(distances[packed.offsets[structure] : packed.offsets[structure + 1]]))
    return {
        "fraction_atoms_outside": float(np.mean(distances > OUTSIDE)),
        "fraction_structures_outside": float(np.mean(worst > OUTSIDE)),
        "worst_structure": structure,
        "worst_atom": atom,
        "worst_distance": float(worst[structure]) if np.isfinite(worst[structure]) else None,
    }


def outside_text(summary):
    """One line about ``outside_summary``; None: the model has no bounds.

    >>> print(outside_text(None))
    unlike the training data: not known, the model file has no bounds
    """
    if summary is None:
        return "unlike the training data: not known, the model file has no bounds"
    worst = summary["worst_distance"]
    return (
        f"unlike the training data: {summary['fraction_atoms_outside']:.1%} of the atoms, in "
        f"{summary['fraction_structures_outside']:.1%} of the structures; worst is structure "
        f"{summary['worst_structure']}, atom {summary['worst_atom']}: {np.inf if worst is None else worst:.3g} "
        "(1: as far out as the farthest training atom)"
    )


def warning_text(atoms, distances):
    """What a run says at its first atom outside, about the farthest one."""
    atom = int(np.argmax(distances))
    return (
        f"atom {atom} ({atoms.symbols[atom]}) is unlike the training data: its densities are {distances[atom]:.3g} "
        "times as far out as those of the farthest (or loneliest) of the training atoms. Energies and forces may be far "
        "off from here on; results['extrapolation'] tells for every atom."
    )


def _of_all_pieces(pool, packed, function, given_order=False):
    """Yield function(density (N, M), batch) of consecutive pieces of packed structures, in order.

    given_order : the function gives one number per atom; put them back from the batch's order to the structures' own.
    """

    def work(sweeps, piece, threaded):
        batch = draw_batch(packed, piece, len(pool.specification.elements), threaded)
        sweeps.forward(batch)
        found = function(sweeps.values.density[-1], batch)
        if not given_order:
            return found
        given = np.empty_like(found)
        given[batch.order - packed.offsets[piece[0]]] = found
        return given

    for chunk in batches_of_atoms(packed.offsets, np.arange(packed.n_structures), ATOMS_AT_A_TIME):
        yield from pool.run(work, packed.offsets, chunk, ATOMS_PER_PIECE)[1]
