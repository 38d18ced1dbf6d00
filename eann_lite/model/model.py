"""The model: hyperparameters, parameters and constants together, and what it says about structures."""

from dataclasses import dataclass

import numpy as np

from eann_lite.batches import draw_batch, pack_structures
from eann_lite.errors import InputError
from eann_lite.model.parameters import Layout, default_constants

#: Atoms that one batch of an evaluation holds at least, where there are that many: arrays stay in the caches.
ATOMS_PER_BATCH = 512


@dataclass(frozen=True)
class Result:
    """What a model says about one structure.

    energy (eV); energies (n,) eV; forces (n, 3) eV/Angstrom; strain_derivative (3, 3) eV, dE/d(strain) of a symmetric
    strain; stress (3, 3) eV/Angstrom^3 (strain derivative / volume, ASE's sign), None without a cell volume;
    orbital_coefficients (T+1, n, K) and density (T+1, n, M) of every recursion step where asked for, else None.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray
    strain_derivative: np.ndarray
    stress: np.ndarray = None
    orbital_coefficients: np.ndarray = None
    density: np.ndarray = None


class Model:
    """An EANN or REANN potential.

    specification : ``Specification``.
    parameters : named arrays as in ``eann_lite.model.parameters.parameter_shapes``.
    constants : density_shift, density_scale (T+1, S, M), reference_energies (S,) in eV, energy_scale; default: none.
    provenance : plain dictionary kept in the model file: what the model was fitted to, how, and its errors.

    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> from ase.build import molecule
    >>> specification = Specification(elements=("C", "H"), cutoff=5.0)
    >>> model = Model(specification, initial_parameters(specification, seed=0))
    >>> model.evaluate(molecule("CH4")).forces.shape
    (5, 3)
    """

    def __init__(self, specification, parameters, constants=None, provenance=None):
        self.specification = specification
        self.layout = Layout.of(specification)
        self.vector = self.layout.pack(parameters)
        expected = default_constants(specification)
        self.constants = expected | {name: np.array(value, dtype=float) for name, value in (constants or {}).items()}
        for name, value in self.constants.items():
            if name not in expected or value.shape != expected[name].shape:
                shape = expected[name].shape if name in expected else "none of that name"
                raise InputError(f"constant {name} has shape {value.shape}, expected {shape}.")
        self.provenance = dict(provenance or {})
        self._sweeps = None

    @property
    def parameters(self):
        """Named views of the parameters."""
        return self.layout.unpack(self.vector)

    @property
    def sweeps(self):
        """The compiled stages, set to this model's parameters."""
        from eann_lite.model.sweeps import Sweeps

        if self._sweeps is None:
            self._sweeps = Sweeps(self.specification, self.constants)
        self._sweeps.set_parameters(self.vector)
        return self._sweeps

    def evaluate(self, structures, descriptors=False):
        """Energy, forces and strain derivative of one structure (``Result``) or of a list (one ``Result`` each).

        structures : ``ase.Atoms``, ``Structure`` or a list of these; a list is computed in batches.  They are not
            changed, and ASE constraints play no role.
        descriptors : also give orbital coefficients and densities of every recursion step.

        Raises InputError for an element the model does not know, a position that is not a number, or a cell without
        volume in a periodic direction.
        """
        from eann_lite.structures import as_structures

        single = not isinstance(structures, (list, tuple))
        items = as_structures(structures)
        if not items:
            return []
        packed = pack_structures(items, self.specification.elements, self.specification.reach)
        results = []
        for chosen in _batches(packed.offsets):
            results += self.evaluate_packed(packed, chosen, descriptors)
        return results[0] if single else results

    def evaluate_packed(self, packed, chosen, descriptors=False):
        """List of ``Result`` for the structures ``chosen`` (indices) of a ``PackedStructures``."""
        sweeps = self.sweeps
        batch = draw_batch(packed, chosen, len(self.specification.elements))
        energies = sweeps.forward(batch)
        forces, virials = sweeps.reverse()
        place = np.argsort(batch.order, kind="stable")
        sizes = packed.offsets[chosen + 1] - packed.offsets[chosen]
        place_of = dict(zip(batch.order[place].tolist(), place.tolist()))
        results = []
        for q, size in zip(chosen, sizes):
            begin = packed.offsets[q]
            rows = np.array([place_of[i] for i in range(begin, begin + size)], dtype=np.int64)
            strain_derivative = virials[rows].sum(axis=0)
            volume = abs(np.linalg.det(packed.cells[q])) if packed.pbc[q].any() else 0.0
            results.append(
                Result(
                    energy=float(energies[rows].sum()),
                    energies=energies[rows],
                    forces=forces[rows],
                    strain_derivative=strain_derivative,
                    stress=strain_derivative / volume if volume > 0 else None,
                    orbital_coefficients=sweeps.state["coefficients"][:, rows].copy() if descriptors else None,
                    density=sweeps.state["density"][:, rows].copy() if descriptors else None,
                )
            )
        return results

    def save(self, path):
        """Write the model file (``.npz``); see ``eann_lite.io.model_file``."""
        from eann_lite.io.model_file import save_model

        save_model(self, path)


def _batches(offsets):
    """Index arrays of consecutive structures with about ``ATOMS_PER_BATCH`` atoms each."""
    begin = 0
    for q in range(1, offsets.size):
        if offsets[q] - offsets[begin] >= ATOMS_PER_BATCH or q == offsets.size - 1:
            yield np.arange(begin, q)
            begin = q
