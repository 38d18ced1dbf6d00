"""ASE calculator of a model: energies, forces and stress, with a neighbour list that lives through a dynamics."""

import copy
import math
import warnings

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.outputs import Properties, all_outputs

from eann_lite.batches import draw_batch, packed_with_pairs, species_of
from eann_lite.compiled import set_threads, set_threads_again, threads_in_use
from eann_lite.errors import InputError
from eann_lite.extrapolation import OUTSIDE, ExtrapolationWarning, warning_text
from eann_lite.kernels.packing import energies_as_given, forces_as_given
from eann_lite.model.ahead import compile_ahead, evaluation
from eann_lite.model.sweeps import PRECISIONS, Sweeps
from eann_lite.neighbors import SkinList, neighbor_pairs


#: So many times as far out as when it warned last, an atom is worth another warning.
WARNED_AGAIN = 10.0


def _bytes_of(atoms):
    """What a calculation depends on, as bytes by ASE's names: for small structures the fastest to compare."""
    return {
        "positions": atoms.positions.tobytes(),
        "numbers": atoms.numbers.tobytes(),
        "cell": atoms.cell.array.tobytes(),
        "pbc": atoms.pbc.tobytes(),
    }


class EANNCalculator(Calculator):
    """ASE calculator of a ``Model``.

    | keyword | default | meaning | unit |
    |---|---|---|---|
    | model | needed | a ``Model``, or the path of a model file; its parameters are copied | |
    | skin | 0.5 | neighbours are listed this far beyond the cutoff, anew once an atom moved half of it | Angstrom |
    | threads | None | threads of this calculator; None: as many as Numba uses at the time | |
    | precision | "float64" | or "float32", for dynamics: 1.4 to 1.7 times as fast, forces to about 1e-6 of the largest | |

    | property | shape | unit |
    |---|---|---|
    | energy, free_energy | | eV; both the same |
    | energies | (n,) | eV per atom, reference energies and repulsion included |
    | forces | (n, 3) | eV/Angstrom |
    | stress | (6,) xx yy zz yz xz xy | eV/Angstrom^3, dE/d(strain) / volume: positive under tension |
    | extrapolation | (n,) | how unlike the training data: above 1, farther out than all (``eann_lite.extrapolation``) |

    ``results["extrapolation"]`` is there where the model file has bounds, as those of fits have.  The first time that
    an atom is above 1, the calculator warns (``ExtrapolationWarning``) with its index, and again each time that one is
    ten times as far out as when it warned last.  ASE knows no such property: leave it out of what is given to its
    ``SinglePointCalculator``.

    There is a stress only where the structure is periodic in some direction and the three cell vectors span a volume;
    ASE raises PropertyNotImplementedError elsewhere.  Results are those of ``model.evaluate``, in float32 to its
    round-off, and do not depend on skin or threads, up to the order of sums.  Asking for the energy alone computes no
    forces.  Atoms are never changed.  The keywords hold for good: ``set``, ASE's way to change them, refuses.  A
    calculator is for one thread at a time, as all of ASE's; the model may serve many.

    Raises InputError for what is no model, a model file that cannot be read, a bad skin, number of threads or
    precision, and when asked without atoms, or about atoms: for an element that the model does not know, a position
    that is not a number, a cell without volume in a periodic direction, two atoms at one place, and for energies or
    forces that overflow.

    >>> from ase.build import molecule
    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("C", "H"), cutoff=5.0)
    >>> methane = molecule("CH4")
    >>> methane.calc = EANNCalculator(Model(specification, initial_parameters(specification, seed=0)))
    >>> methane.get_forces().shape
    (5, 3)
    """

    name = "eann"
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "extrapolation"]
    ignored_changes = {"initial_charges", "initial_magmoms"}

    def __init__(self, model, skin=0.5, threads=None, precision="float64"):
        from eann_lite.io.model_file import as_model

        super().__init__()
        model = as_model(model)
        if threads is not None:
            before = threads_in_use()
            set_threads(threads)
            set_threads(before)
        if precision not in PRECISIONS:
            raise InputError(f"precision = {precision!r}: expected one of {', '.join(PRECISIONS)}.")
        self.threads, self.precision = threads, precision
        self.specification = model.specification
        self.pairs = SkinList(model.specification.reach, skin)
        # Sweeps of its own: several calculators may share a model.
        self.sweeps = Sweeps(model.specification, model.constants, precision)
        self.sweeps.set_parameters(model.vector)
        self.bounds = model.bounds
        self._warn_above = OUTSIDE
        self._batch = self._shifts = self._cell = self._copy = None

    def __copy__(self):
        """A copy that shares nothing that is written: both work on."""
        return copy.deepcopy(self)

    def set(self, **changes):
        """ASE's way to change settings later on.  Here they are those of the start: InputError for any."""
        if changes:
            given = ", ".join(f"{name}={value!r}" for name, value in changes.items())
            raise InputError(
                f"set({given}): an EANNCalculator keeps the settings that it was made with. "
                f"Make another one: EANNCalculator(model, {given})."
            )
        return {}

    def export_properties(self):
        """The results that ASE has a name for; it takes no others."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def check_state(self, atoms, tol=None):
        """What changed since the last call, compared exactly: ASE's own way costs as much as the forces of CH4."""
        if self.atoms is None:
            return list(all_changes)
        now, then = _bytes_of(atoms), _bytes_of(self.atoms)
        return [name for name in now if now[name] != then[name]]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fill ``results``; called by ASE with what was asked for and what changed since the last call."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise InputError(
                "this calculator has no atoms yet: expected those to compute. Set atoms.calc = calculator and ask "
                "atoms.get_potential_energy(), or give them: calculator.get_potential_energy(atoms)."
            )
        if self.threads in (None, threads_in_use()):
            self._calculate(atoms, properties, system_changes)
            return
        before = threads_in_use()
        set_threads_again(self.threads)
        try:
            self._calculate(atoms, properties, system_changes)
        finally:
            set_threads_again(before)

    def _calculate(self, atoms, properties, system_changes):
        if system_changes or self.atoms is None:
            # Forgotten until it is done: after an error the next call starts anew.
            self.reset()
            self.results = self._energies(atoms)
            if self._copy is None or list(system_changes) != ["positions"]:
                self._copy = atoms.copy()
            else:
                # A copy costs as much as half of the energy of CH4.
                self._copy.positions[:] = atoms.positions
            self.atoms = self._copy
        if "forces" not in self.results and not {"forces", "stress"}.isdisjoint(properties):
            self.results.update(self._derivatives())

    def _energies(self, atoms):
        """Forward sweep: energies."""
        batch = self._batch_of(atoms)
        energies = np.empty(batch.order.size)
        # One compiled call, here and for the forces: after a sweep NumPy's code has left the caches, and each of its
        # functions takes 5 to 30 us.
        energy = energies_as_given(batch.order, self.sweeps.forward(batch), energies)
        if not math.isfinite(energy):
            self._refuse(atoms)
        results = {"energy": energy, "free_energy": energy, "energies": energies}
        if self.bounds is not None:
            results["extrapolation"] = self._extrapolation(atoms, batch)
        return results

    def _extrapolation(self, atoms, batch):
        """How unlike the training data every atom is; warns at the first one outside, and of each tenfold distance."""
        distances = np.empty(batch.order.size)
        distances[batch.order] = self.bounds.distances(self.sweeps.values.density[-1], batch)
        farthest = distances.max()
        if farthest > self._warn_above:
            self._warn_above = WARNED_AGAIN * farthest
            warnings.warn(warning_text(atoms, distances), ExtrapolationWarning, stacklevel=2)
        return distances

    def _derivatives(self):
        """Reverse sweep after the forward sweep of the same atoms: forces, and the stress where there is a volume."""
        n_atoms, atoms = self._batch.order.size, self.atoms
        forces, stress = np.empty((n_atoms, 3)), np.empty(6)
        batch_forces, virials = self.sweeps.reverse()
        finite, has_stress = forces_as_given(
            self._batch.order, batch_forces, virials, atoms.cell.array, atoms.pbc, forces, stress
        )
        if not finite:
            self._refuse(atoms)
        return {"forces": forces, "stress": stress} if has_stress else {"forces": forces}

    def _refuse(self, atoms):
        """Raise the InputError for energies or forces that are not finite."""
        # A neighbour list that was kept is not searched for atoms at one place; a new one is.
        pairs = neighbor_pairs(atoms.positions, atoms.cell.array, atoms.pbc, self.pairs.cutoff)
        centre = np.repeat(np.arange(len(atoms)), np.diff(pairs.first))
        vectors = atoms.positions[pairs.neighbor] + pairs.shift @ atoms.cell.array - atoms.positions[centre]
        shortest = np.linalg.norm(vectors, axis=1).min(initial=math.inf)
        raise InputError(
            f"energy or forces of these {len(atoms)} atoms are not finite (shortest distance {shortest:.3g} Angstrom): "
            "the structure is far from all that the model was fitted to. Start from another one, or use smaller steps."
        )

    def _batch_of(self, atoms):
        """Batch of one structure at the present positions; only these are written while the pairs stay the same."""
        numbers, positions, cell = atoms.numbers, atoms.positions, atoms.cell.array
        if len(numbers) == 0:
            raise InputError("atoms are empty: expected at least one atom.")
        if self._batch is None:
            compile_ahead(evaluation(self.precision), threads_in_use())
        pairs, rebuilt = self.pairs.update(positions, cell, atoms.pbc, numbers.tobytes())
        if rebuilt or self._batch is None:
            # Forgotten until it is done, so that an unknown element is reported by every call.
            self._batch = None
            elements = self.specification.elements
            species, offsets = species_of(numbers, elements, "atoms"), np.array([0, len(numbers)])
            packed = packed_with_pairs(positions, species, offsets, cell[None], atoms.pbc[None], pairs)
            self._shifts, self._cell = packed.shifts, cell.copy()
            self._batch = draw_batch(packed, np.arange(1), len(elements))
        batch = self._batch
        # Checked one by one ("raise") they would be copied twice.
        positions.take(batch.order, axis=0, out=batch.positions, mode="clip")
        if cell.tobytes() != self._cell.tobytes():
            np.matmul(self._shifts, cell, out=batch.images)
            self._cell = cell.copy()
        return batch
