"""The model: hyperparameters, parameters and constants together, and what it says about structures."""

import itertools
import threading
from typing import NamedTuple

import numpy as np

from eann_lite.batches import draw_placed_batch, pack_structures
from eann_lite.errors import InputError
from eann_lite.model.parameters import Layout, default_constants

#: Atoms of one piece of an evaluation of many structures: its arrays stay in the caches of one core.
ATOMS_PER_PIECE = 256


class Result(NamedTuple):
    """What a model says about one structure.

    energy (eV); energies (n,) eV; forces (n, 3) eV/Angstrom; strain_derivative (3, 3) eV, dE/d(strain) of a symmetric
    strain; stress (3, 3) eV/Angstrom^3 (strain derivative / volume, ASE's sign), None without a cell volume;
    orbital_coefficients (T+1, n, K) and density (T+1, n, M) of every recursion step where asked for, else None;
    extrapolation (n,): how unlike the training data each atom is, above 1 outside (``eann_lite.extrapolation``), None
    where the model has no bounds.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray
    strain_derivative: np.ndarray
    stress: np.ndarray | None = None
    orbital_coefficients: np.ndarray | None = None
    density: np.ndarray | None = None
    extrapolation: np.ndarray | None = None


class Model:
    """An EANN or REANN potential.  Several threads may ask the same one at once.

    specification : ``Specification``.
    parameters : named arrays as in ``eann_lite.model.parameters.parameter_shapes``.
    constants : density_shift, density_scale (T+1, S, M), reference_energies (S,) in eV, energy_scale; default: none.
    provenance : plain dictionary kept in the model file: what the model was fitted to, how, and its errors.
    bounds : ``DensityBounds`` of the training data; None: nothing is said about extrapolation.

    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> from ase.build import molecule
    >>> specification = Specification(elements=("C", "H"), cutoff=5.0)
    >>> model = Model(specification, initial_parameters(specification, seed=0))
    >>> model.evaluate(molecule("CH4")).forces.shape
    (5, 3)
    """

    def __init__(self, specification, parameters, constants=None, provenance=None, bounds=None):
        self.specification = specification
        self.layout = Layout.of(specification)
        self.vector = self.layout.pack(parameters)
        # The sweeps keep what they derived from it.
        self.vector.flags.writeable = False
        expected = default_constants(specification)
        self.constants = expected | {name: np.array(value, dtype=float) for name, value in (constants or {}).items()}
        for name, value in self.constants.items():
            if name not in expected or value.shape != expected[name].shape:
                shape = expected[name].shape if name in expected else "none of that name"
                raise InputError(f"constant {name} has shape {value.shape}, expected {shape}.")
        self.provenance = dict(provenance or {})
        self.bounds = bounds
        # Sweeps hold what they work on, so every thread that asks has its own.
        self._kept = threading.local()

    def __getstate__(self):
        """What a copy or a pickle has: all but the sweeps, which are made again."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.vector.flags.writeable = False
        self._kept = threading.local()

    @property
    def parameters(self):
        """Named views of the parameters."""
        return self.layout.unpack(self.vector)

    def pool(self, threads=1):
        """``SweepPool`` set to this model's parameters, kept from call to call for the thread that asks."""
        from eann_lite.model.pool import SweepPool

        pool = getattr(self._kept, "pool", None)
        if pool is None or pool.threads != threads:
            pool = SweepPool(self.specification, self.constants, threads)
            pool.set_parameters(self.vector)
            self._kept.pool = pool
        return pool

    @property
    def sweeps(self):
        """The compiled stages, set to this model's parameters, for one batch at a time of the thread that asks."""
        sweeps = getattr(self._kept, "sweeps", None)
        if sweeps is None:
            from eann_lite.model.sweeps import Sweeps

            sweeps = Sweeps(self.specification, self.constants)
            sweeps.set_parameters(self.vector)
            self._kept.sweeps = sweeps
        return sweeps

    def evaluate(self, structures, descriptors=False):
        """Energy, forces and strain derivative of one structure (``Result``) or of a list (one ``Result`` each).

        structures : ``ase.Atoms``, ``Structure`` or a list of these; a list is computed in batches.  They are not
            changed, and ASE constraints play no role.
        descriptors : also give orbital coefficients and densities of every recursion step.

        Raises InputError for an element the model does not know, a position that is not a number, or a cell without
        volume in a periodic direction.
        """
        from eann_lite.compiled import threads_in_use
        from eann_lite.model.ahead import compile_ahead, evaluation
        from eann_lite.structures import as_structures

        single = not isinstance(structures, (list, tuple))
        items = as_structures(structures)
        if not items:
            return []
        threads, everything = threads_in_use(), np.arange(len(items))
        compile_ahead(evaluation("float64"), threads)
        packed = pack_structures(items, self.specification.elements, self.specification.reach)
        volumes = _volumes(packed.cells, packed.pbc)

        def compute(sweeps, piece, threaded):
            nonlocal packed
            placed = draw_placed_batch(packed, piece, len(self.specification.elements), threaded)
            if piece.size == packed.n_structures:
                packed = packed.without_pairs()  # All are in the batch: of a large structure they take much memory.
            return _results(sweeps, packed, volumes, piece, placed, descriptors, self.bounds)

        pool = self.pool(threads)
        _, results = pool.run(compute, packed.offsets, everything, ATOMS_PER_PIECE)
        results = [result for piece in results for result in piece]
        return results[0] if single else results

    def save(self, path):
        """Write the model file (``.npz``); see ``eann_lite.io.model_file``."""
        from eann_lite.io.model_file import save_model

        save_model(self, path)


def _volumes(cells, pbc):
    """Volumes (Q,) of cells (Q, 3, 3); 0 for one that is periodic in no direction or has linearly dependent vectors."""
    from eann_lite.kernels.lattice import FLATTEST

    volumes, boxes = np.abs(np.linalg.det(cells)), np.linalg.norm(cells, axis=2).prod(axis=1)
    return np.where(pbc.any(axis=1) & (volumes > FLATTEST * boxes), volumes, 0.0)


def _results(sweeps, packed, volumes, chosen, placed, descriptors, bounds):
    """List of ``Result`` for consecutive structures (indices ``chosen``) of packed ones, drawn into a placed batch.

    volumes (Q,) of all packed structures.
    """
    energies, batch = sweeps.forward(placed, all_densities=descriptors), placed.value
    if bounds is not None:
        distances = bounds.distances(sweeps.values.density[-1], batch)
    forces, virials = sweeps.reverse()
    # Back from the batch's order (by element) to the order in which the atoms were given; each structure has its own
    # part of arrays that are made here.
    given = np.empty_like(batch.order)
    given[batch.order - packed.offsets[chosen[0]]] = np.arange(batch.order.size)
    energies, forces, virials = energies[given], forces[given], virials[given]
    offsets = packed.offsets[chosen[0] : chosen[-1] + 2] - packed.offsets[chosen[0]]
    totals, strain_derivatives = (np.add.reduceat(atomic, offsets[:-1]) for atomic in (energies, virials))
    results = []
    parts = zip(itertools.pairwise(offsets.tolist()), totals.tolist(), volumes[chosen].tolist(), strain_derivatives)
    for (start, stop), total, volume, strain_derivative in parts:
        rows = given[start:stop]
        results.append(
            Result(
                energy=total,
                energies=energies[start:stop],
                forces=forces[start:stop],
                strain_derivative=strain_derivative,
                stress=strain_derivative / volume if volume > 0.0 else None,
                extrapolation=None if bounds is None else distances[rows],
                orbital_coefficients=sweeps.values.coefficients[:, rows] if descriptors else None,
                density=sweeps.values.density[:, rows] if descriptors else None,
            )
        )
    return results
