"""Loss and its exact gradient with respect to all parameters, over batches of a labelled set."""

import threading
from typing import NamedTuple

import numpy as np

from eann_lite.batches import PackedStructures, blocks_of, check_pairs, draw_batch, draw_placed_batch, pack_structures
from eann_lite.compilation.placed import Placed
from eann_lite.kernels import kernels
from eann_lite.model.pool import SweepPool, pieces_of

#: Atoms of one piece of a gradient, of a prediction: large enough to keep a thread busy, small enough for its caches.
GRADIENT_ATOMS, PREDICTION_ATOMS = 64, 256


class LabelledSet(NamedTuple):
    """Packed structures with their labels; NaN where a label is missing.

    energies (Q,) eV; forces (N, 3) eV/Angstrom; strains (Q, 3, 3) eV (stress times volume); weights (Q,).
    """

    packed: PackedStructures
    energies: np.ndarray
    forces: np.ndarray
    strains: np.ndarray
    weights: np.ndarray

    @property
    def n_atoms(self):
        """Atoms of every structure (Q,)."""
        return np.diff(self.packed.offsets)


def atom_counts(labelled, n_elements):
    """Atoms of each element in each structure (Q, S) of a LabelledSet."""
    counts = np.zeros((labelled.packed.n_structures, n_elements))
    np.add.at(counts, (np.repeat(np.arange(len(counts)), labelled.n_atoms), labelled.packed.species), 1.0)
    return counts


def labelled_set(structures, specification):
    """LabelledSet of a list of ``Structure`` for the elements and the reach of a specification."""
    packed = pack_structures(structures, specification.elements, specification.reach)
    nan_strain = np.full((3, 3), np.nan)
    return LabelledSet(
        packed,
        np.array([np.nan if s.energy is None else s.energy for s in structures], dtype=float),
        np.concatenate([np.full((len(s.numbers), 3), np.nan) if s.forces is None else s.forces for s in structures]),
        np.array([nan_strain if s.stress is None else s.stress * abs(np.linalg.det(s.cell)) for s in structures]),
        np.array([s.weight for s in structures], dtype=float),
    )


class Predictions(NamedTuple):
    """energies (Q,) eV, forces (N, 3) eV/Angstrom in the set's own order of atoms, strains (Q, 3, 3) eV."""

    energies: np.ndarray
    forces: np.ndarray
    strains: np.ndarray


def take(labelled, predictions, index):
    """The structures ``index`` (one at least) of a LabelledSet as one of its own (labels and sizes; its pairs are left
    out), and their Predictions."""
    packed = labelled.packed
    sizes = np.diff(packed.offsets)[index]
    atoms = np.concatenate([np.arange(packed.offsets[q], packed.offsets[q + 1]) for q in index])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    part = packed.without_pairs()._replace(
        positions=packed.positions[atoms], species=packed.species[atoms], offsets=offsets, cells=packed.cells[index],
        pbc=packed.pbc[index],
    )  # fmt: skip
    labels = (labelled.energies[index], labelled.forces[atoms], labelled.strains[index], labelled.weights[index])
    energies, forces, strains = predictions
    return LabelledSet(part, *labels), Predictions(energies[index], forces[atoms], strains[index])


def sum_by_structure(batch, values):
    """Sum of atomic values (N, ...) over the atoms of each structure of a batch."""
    total = np.empty((batch.n_structures,) + values.shape[1:])
    flat = (array.reshape(len(array), -1) for array in (values, total))
    kernels("losses").sums_of_structures(batch.structure, *flat)
    return total


def batch_loss_and_gradient(sweeps, labelled, chosen, loss, threaded=None):
    """Sum of the losses of the structures ``chosen``, and its gradient (flat) with respect to all parameters."""
    placed = draw_placed_batch(labelled.packed, chosen, len(sweeps.specification.elements), threaded)
    batch, atom_energies = placed.value, sweeps.forward(placed, keep=True)
    moving = kernels("losses").has_derivatives(chosen, batch.order, labelled.forces, labelled.strains)
    if moving:
        forces, virials = sweeps.reverse()
    else:
        forces, virials = np.zeros((batch.order.size, 3)), np.zeros((batch.order.size, 3, 3))
    total, by_energy, by_force, by_strain = loss.of_batch(labelled, chosen, batch, atom_energies, forces, virials)
    gradient = sweeps.gradient(by_energy, -by_force, by_strain) if moving else sweeps.gradient(by_energy)
    return total, gradient


def batch_predictions(sweeps, labelled, chosen, threaded=None):
    """(energies, forces, strains, batch) of the structures ``chosen``; forces are in the batch's own order of atoms."""
    placed = draw_placed_batch(labelled.packed, chosen, len(sweeps.specification.elements), threaded)
    batch, atom_energies = placed.value, sweeps.forward(placed)
    forces, virials = sweeps.reverse()
    return sum_by_structure(batch, atom_energies), forces, sum_by_structure(batch, virials), batch


class _SumInOrder:
    """Losses and gradients of pieces, added up in the order of the pieces, whichever of them are done first.

    So threads add while others still work, and few gradients are held at a time.
    """

    def __init__(self):
        self.loss, self.gradient = 0.0, None
        self._done, self._next, self._lock = {}, 0, threading.Lock()

    def add(self, number, loss, gradient):
        """Take what piece ``number`` gave."""
        with self._lock:
            self._done[number] = loss, gradient
            while self._next in self._done:
                loss, gradient = self._done.pop(self._next)
                self.loss += loss
                if self.gradient is None:
                    # Where it is of double precision already, the first one, which nobody else has, takes up the others.
                    self.gradient = gradient.astype(float, copy=False)
                else:
                    self.gradient += gradient
                self._next += 1


class _Kept:
    """What ``kernels.pieces`` takes and what stays from one request of an ``Evaluator`` to the next.

    addresses : ``Placed``, of the kernels of a gradient; blocks : how batches are cut, by whether threads share them
    (None: as sizes say); first : parameters, values, tangents and places to work in of the first worker;
    places (W, 3) : where the last three stand for each; gradients (R, size).
    """

    def __init__(self):
        self.addresses = self.first = self.places = self.gradients = None
        self.blocks = {threaded: Placed(blocks_of(threaded)) for threaded in (None, False, True)}
        self._room, self._workers, self._given = (-1, -1, -1), None, (None, None, None)

    def __reduce__(self):
        """A copy begins anew: addresses would be those of the original's arrays."""
        return _Kept, ()

    def have_room(self, all_sweeps, *largest):
        """Have arrays for pieces of at most so many atoms, pairs and blocks, and hold the parameters that are set."""
        fits = all(size <= room for size, room in zip(largest, self._room))
        if fits and self.first[0].value is all_sweeps[0].potential:
            return
        room, self._room = tuple(map(max, largest, self._room)), (-1, -1, -1)  # Should memory run out, there is none.
        self._workers = self.first = self.gradients = None
        # These stay what they are when the sweeps take up other batches.
        self._workers = [sweeps.placed_for_gradients(*room) for sweeps in all_sweeps]
        self.first = self._workers[0]
        self.places = np.array([[part.address for part in own] for _, *own in self._workers])
        # Two for each worker: one to be filled while another waits for what comes before it.
        n_rows = 2 * len(all_sweeps) if len(all_sweeps) > 1 else 1
        self.gradients = np.empty((n_rows, all_sweeps[0].layout.size), all_sweeps[0].dtype)
        self._room = room

    def placed(self, loss, labelled):
        """Settings of the loss, labels and packed structures."""
        if self._given[0] is not loss or self._given[1] is not labelled:
            placed = Placed(loss.settings), Placed(labelled[1:]), Placed(labelled.packed)
            self._given = loss, labelled, placed
        return self._given[2]


class Evaluator(SweepPool):
    """Losses, gradients and predictions of labelled sets, on several threads."""

    def __init__(self, specification, constants, threads=1, precision="float64"):
        super().__init__(specification, constants, threads, precision)
        self._kept = _Kept()

    def loss_and_gradient(self, labelled, chosen, loss):
        """Sum of the losses of the structures ``chosen`` (indices), and its gradient (flat)."""
        chosen = np.ascontiguousarray(chosen, np.int64)
        if not chosen.flags.writeable:
            chosen = chosen.copy()  # Kernels would be compiled once more for what is read-only.
        if chosen.size == 0:
            return 0.0, np.zeros(self.layout.size)
        if self._kept.addresses is None:
            known = (not np.isnan(labels).all() for labels in (labelled.forces, labelled.strains))
            self._find_kernels(labelled, chosen, any(known))
        if self._kept.addresses.value[0]:
            return self._by_compiled_code(labelled, chosen, loss)
        return self._sum(
            lambda sweeps, piece, threaded: batch_loss_and_gradient(sweeps, labelled, piece, loss, threaded),
            labelled, chosen,
        )  # fmt: skip

    def _find_kernels(self, labelled, chosen, moving):
        """Have the kernels of a gradient compiled, with or without those that forces and strain derivatives need."""
        batch = draw_batch(labelled.packed, chosen[:1], len(self.specification.elements))
        found = self.sweeps[0].addresses_for_gradients(batch, moving)
        self._kept.addresses = Placed(found if all(found if moving else found[::3]) else (0, 0, 0, 0))

    def _by_compiled_code(self, labelled, chosen, loss):
        """``loss_and_gradient`` with as little as possible done in Python: see ``kernels.pieces``."""
        pieces, packed, kept, size = kernels("pieces"), labelled.packed, self._kept, self.layout.size
        cuts, threaded, most_atoms, most_pairs, most_blocks = kernels("packing").cuts_and_largest(
            packed.offsets, packed.first, chosen, GRADIENT_ATOMS, len(self.specification.elements),
            *kept.blocks[None].value,
        )  # fmt: skip
        check_pairs(most_pairs)
        kept.have_room(self.sweeps, most_atoms, most_pairs, most_blocks)
        n_pieces, apart = cuts.size - 1, kernels("shares").APART
        states, totals = np.zeros((2, n_pieces, apart), np.int64), np.zeros((1, 4, apart), np.int64)
        places, losses = kept.places[:n_pieces], np.empty(n_pieces)
        if n_pieces > 1:
            total, gradients = np.empty(size), kept.gradients
        else:
            total, gradients = np.empty(0), np.empty((1, size), self.sweeps[0].dtype)
        while totals[0, pieces.TAKEN, 0] < n_pieces:
            pieces.losses_and_gradient.on_threads(
                self.threads if threaded else len(places), kept.addresses, states, totals, *kept.placed(loss, labelled),
                chosen, cuts, kept.blocks[threaded], *kept.first, places, gradients, losses, total,
            )  # fmt: skip
        if totals[0, pieces.WANTING, 0] > 0:  # Until now nobody knew forces or strain derivatives.
            self._find_kernels(labelled, chosen, True)
            return self.loss_and_gradient(labelled, chosen, loss)
        value = 0.0
        for loss_of_piece in losses.tolist():
            value += loss_of_piece  # As ``_SumInOrder`` does; Python's sum, since 3.12, rounds once.
        return value, total if n_pieces > 1 else gradients[0].astype(float, copy=False)

    def weighted_gradient(self, labelled, energy_weights, force_weights, strain_weights):
        """Gradient (flat) of sum energy_weights E + sum force_weights F + sum strain_weights (strain derivative).

        energy_weights (Q,), force_weights (N, 3), strain_weights (Q, 3, 3), symmetric.
        """

        def gradient(sweeps, piece, threaded):
            placed = draw_placed_batch(labelled.packed, piece, len(self.specification.elements), threaded)
            sweeps.forward(placed, keep=True)
            sweeps.reverse()
            direction = -force_weights[placed.value.order]
            return 0.0, sweeps.gradient(energy_weights[piece], direction, strain_weights[piece])

        return self._sum(gradient, labelled, np.arange(labelled.packed.n_structures))[1]

    def _sum(self, function, labelled, chosen):
        """Sums of the loss and the gradient that function(sweeps, piece, threaded) gives for pieces of ``chosen``."""
        pieces, threaded = pieces_of(labelled.packed.offsets, chosen, GRADIENT_ATOMS)
        total = _SumInOrder()
        self._work(lambda sweeps, item: total.add(item[0], *function(sweeps, item[1], threaded)), enumerate(pieces))
        return total.loss, total.gradient

    def predict(self, labelled):
        """``Predictions`` of a whole LabelledSet."""
        packed = labelled.packed
        pieces, results = self.run(
            lambda sweeps, piece, threaded: batch_predictions(sweeps, labelled, piece, threaded),
            packed.offsets, np.arange(packed.n_structures), PREDICTION_ATOMS,
        )  # fmt: skip
        energies, strains = np.empty(packed.n_structures), np.empty((packed.n_structures, 3, 3))
        forces = np.empty((packed.species.size, 3))
        for piece, (energy, force, strain, batch) in zip(pieces, results):
            energies[piece], strains[piece], forces[batch.order] = energy, strain, force
        return Predictions(energies, forces, strains)


def predict(model, labelled, threads=None):
    """``Predictions`` of a model for a whole LabelledSet, on ``threads`` threads (default: those Numba is set to)."""
    from eann_lite.compiled import threads_in_use

    evaluator = Evaluator(model.specification, model.constants, threads or threads_in_use())
    evaluator.set_parameters(model.vector)
    return evaluator.predict(labelled)


def loss_gradient(model, atoms, energy_weight, force_weights, strain_weights):
    """Gradient of any loss of one structure from its partial derivatives, as named arrays.

    energy_weight : dLoss/dE.
    force_weights : (n, 3) dLoss/dF.
    strain_weights : (3, 3) dLoss/d(strain derivative).

    The gradient is energy_weight dE/dtheta + sum force_weights dF/dtheta + sum strain_weights d(strain derivative)/dtheta,
    by the tangent of the reverse sweep (see ``Sweeps.gradient``).
    """
    from eann_lite.structures import as_structures

    specification = model.specification
    packed = pack_structures(as_structures(atoms), specification.elements, specification.reach)
    batch = draw_batch(packed, np.arange(1), len(specification.elements))
    sweeps = model.sweeps
    sweeps.forward(batch, keep=True)
    sweeps.reverse()
    strain = np.asarray(strain_weights, dtype=float)
    gradient = sweeps.gradient(
        np.array([energy_weight], dtype=float),
        -np.asarray(force_weights, dtype=float)[batch.order],
        np.ascontiguousarray(0.5 * (strain + strain.T))[None],
    )
    return model.layout.unpack(gradient)
