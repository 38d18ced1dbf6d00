"""The sweeps over a batch, with the arrays they work on: energies forward, forces in reverse, and the tangent of both.

Which stage runs when stands in ``kernels.sweeps``, the formulas in ``formulas``, the mathematics in the order of the
paper in ``reference``.
"""

import math

import numpy as np

from eann_lite.compilation.placed import Placed
from eann_lite.elements import atomic_number
from eann_lite.kernels import kernels
from eann_lite.model.networks import network_stages, weight_places
from eann_lite.model.parameters import Layout, contraction_of


class Monomials:
    """Distinct monomials x^lx y^ly z^lz of degree 0 to L, degree by degree, as tables for the kernels.

    degree, weight (A,): l and l! / (lx! ly! lz!); parent, axis (A,): monomial a > 0 is monomial parent[a] times
    component axis[a].  slope_place (A, 3), slope_of, slope_power (D,): the derivative of monomial a along component x
    is number slope_place[a, x] of all that are not zero, where it is not -1, and derivative d is slope_power[d] times
    monomial slope_of[d].

    >>> Monomials(2).degree.tolist()
    [0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    """

    def __init__(self, max_degree):
        exponents = [
            (lx, ly, l - lx - ly)
            for l in range(max_degree + 1)
            for lx in range(l, -1, -1)
            for ly in range(l - lx, -1, -1)
        ]
        index = {e: a for a, e in enumerate(exponents)}
        self.degree = np.array([sum(e) for e in exponents], np.int64)
        self.weight = np.array([math.factorial(sum(e)) / math.prod(map(math.factorial, e)) for e in exponents])
        self.parent, self.axis = np.zeros(len(exponents), np.int64), np.zeros(len(exponents), np.int64)
        for a, e in enumerate(exponents[1:], 1):
            self.axis[a] = max(x for x in range(3) if e[x])
            self.parent[a] = index[_lowered(e, self.axis[a])]
        self.slope_place = np.full((len(exponents), 3), -1, np.int64)
        slopes = [(a, x) for a, e in enumerate(exponents) for x in range(3) if e[x]]
        for d, (a, x) in enumerate(slopes):
            self.slope_place[a, x] = d
        self.slope_of = np.array([index[_lowered(exponents[a], x)] for a, x in slopes], np.int64)
        self.slope_power = np.array([float(exponents[a][x]) for a, x in slopes])


def _lowered(exponents, axis):
    """The exponents with that of one component smaller by 1."""
    return tuple(n - (x == axis) for x, n in enumerate(exponents))


def products_of_sums(specification):
    """Table (C, 3) of l, k and k' of the products that ``kernels.power`` works with; no rows where it does not.

    It does where that saves work: for eight Gaussians, whose 36 products of each degree and density stand against
    twice eight of each monomial and density, if monomials share degrees, but for some work for each monomial.

    >>> from eann_lite import Specification
    >>> products_of_sums(Specification(elements=["H"], cutoff=5.0, densities=64)).shape
    (108, 3)
    """
    degrees, monomials, densities = specification.max_degree + 1, specification.monomials, specification.densities
    saved = (16 * monomials - 36 * degrees) * densities
    if specification.radial != 8 or saved < 128 * monomials:
        return np.zeros((0, 3), np.int64)
    apart = [(k, (k + d) % 8) for d in range(5) for k in range(8 if d < 4 else 4)]
    return np.array([(l, *pair) for l in range(degrees) for pair in apart], np.int64)


#: Arrays of ``Values`` that only derivatives of energies and forces need.
FOR_DERIVATIVES = (
    "distance", "act_gate", "inputs", "last_hidden", "density_bar", "power_bar", "act_bar", "lin_bar",
)  # fmt: skip
#: Arrays that are float64 whatever the precision, as what they are sums of goes into forces.
ALWAYS_DOUBLE = ("recoil",)
#: Parameters that belong to no network; the contraction may be fixed.
OUTSIDE_NETWORKS = ("radial_exponents", "radial_centers", "orbital_coefficients", "contraction")
#: Bytes of a cache line.
LINE = 64
#: Names of the precisions in which energies and forces can be computed, and their kinds of numbers.
PRECISIONS = {"float64": np.float64, "float32": np.float32}


class Buffers:
    """Arrays kept from one batch to the next, so that large ones are not given back and zeroed by the system."""

    def __init__(self, dtype=float):
        self._store = {}
        self._dtype = np.dtype(dtype)

    def __call__(self, name, *shape):
        size = math.prod(shape)
        flat = self._store.get(name)
        if flat is None or flat.size < size:
            dtype = np.dtype(float) if name in ALWAYS_DOUBLE else self._dtype
            flat = self._store[name] = _aligned(size, dtype)
        return flat[:size].reshape(shape)


def _aligned(size, dtype):
    """New array (size,) that begins with a cache line: rows of eight numbers then never lie across two."""
    per_line = LINE // np.dtype(dtype).itemsize
    flat = np.empty(size + per_line, dtype)
    begin = -(flat.ctypes.data // flat.itemsize) % per_line
    return flat[begin : begin + size]


class Sweeps:
    """Runs the stages of one specification for given parameters.

    ``set_parameters`` first; then ``forward``, ``reverse``, ``tangent`` and ``gradient`` in this order on one batch.
    What they leave in ``values`` and ``tangents`` (``kernels.arguments``) lives until the next batch.  Unless
    ``forward`` was to keep them, orbital sums live only until ``reverse``.  Densities are those of the last step alone,
    unless those of all were asked for.  Not for use from several threads at once.

    precision : float64 or float32: then pairs, networks and all between them are of single precision; distances are
        taken from positions, and energies and forces summed up, in double precision.  Hessians need float64.
    """

    def __init__(self, specification, constants, precision="float64"):
        self.specification = specification
        self.constants = constants
        self.layout = Layout.of(specification)
        self.stages = network_stages(specification, self.layout)
        self.monomials = Monomials(specification.max_degree)
        self.products = products_of_sums(specification)
        self._normed = any(stage.normed for stage in self.stages)
        self.dtype = PRECISIONS[precision]
        self.vector, self.transposed = (_aligned(self.layout.size, self.dtype) for _ in range(2))
        self.weights = weight_places(self.stages)
        self.potential = None
        self.buffers = Buffers(self.dtype)
        self.batch = self.values = self.tangents = None
        self._places = {}
        self._work = None
        self._reversed = False
        # Arrays of the last batch serve the next one of as many atoms, if they have room for its pairs.
        self._sizes, self._values = (-1, 0, 0), {}

    def set_parameters(self, vector):
        """Use the flat parameter vector from now on (a copy of it).

        Of the constants density_shift and density_scale are read anew, which scaling to data changes on the way.
        """
        self.vector[:] = vector
        self.transposed[:] = self.vector
        kernels("packing").transpose_matrices(self.weights, self.vector, self.transposed)
        # That of other sweeps, and a copy's, is made of other arrays.
        if self.potential is None or not np.may_share_memory(self.potential.exponents, self.vector):
            self.potential = self._new_potential()
        # All else in it is a part of these vectors, or stays as it is.
        self.potential.contraction_transposed[:] = self.potential.contraction.transpose(0, 2, 1)
        if len(self.products):
            kernels("power").fill_power_contraction(
                self.products, self.potential.contraction, self.potential.power_contraction,
                self.potential.power_contraction_transposed,
            )  # fmt: skip
        for name in ("density_shift", "density_scale"):
            getattr(self.potential, name)[:] = self.constants[name]

    def _new_potential(self):
        """``Potential`` whose parameters are parts of ``vector`` and ``transposed``."""
        from eann_lite.kernels.arguments import Potential

        named = self.layout.unpack(self.vector)
        spec, mono, constants = self.specification, self.monomials, self.constants
        contraction = contraction_of(spec, named)
        recursion, energy = self.stages[0], self.stages[-1]

        def numbers(array):
            return np.ascontiguousarray(array, self.dtype)

        return Potential(
            cutoff=spec.cutoff,
            repulsion_cutoff=spec.repulsion_cutoff if spec.repulsion else 0.0,
            exponents=named["radial_exponents"],
            centers=named["radial_centers"],
            coefficients=named["orbital_coefficients"],
            contraction=numbers(contraction),
            contraction_transposed=np.empty((len(contraction), spec.densities, spec.radial), self.dtype),
            products=self.products,
            power_contraction=np.empty((len(self.products), spec.densities), self.dtype),
            power_contraction_transposed=np.empty((spec.densities, len(self.products)), self.dtype),
            degree=mono.degree,
            weight=numbers(mono.weight),
            parent=mono.parent,
            axis=mono.axis,
            slope_place=mono.slope_place,
            slope_of=mono.slope_of,
            slope_power=numbers(mono.slope_power),
            numbers=np.array([float(atomic_number(symbol)) for symbol in spec.elements]),
            reference_energies=constants["reference_energies"],
            energy_scale=float(constants["energy_scale"]),
            vector=self.vector,
            transposed=self.transposed,
            places=np.array([self.layout.places[n][0] if n in self.layout.places else -1 for n in OUTSIDE_NETWORKS]),
            density_shift=numbers(constants["density_shift"]),
            density_scale=numbers(constants["density_scale"]),
            starts=np.array([stage.starts for stage in self.stages]),
            recursion_maps=recursion.maps,
            energy_maps=energy.maps,
            network_sizes=np.array([stage.size for stage in self.stages]),
        )

    def share_parameters(self, other):
        """Use the parameters that ``other`` is set to, in its arrays: for sweeps that never run while it is set anew."""
        self.potential = other.potential

    def forward(self, batch, keep=False, all_densities=False):
        """Atomic energies (N,) in eV of the batch's atoms, reference energies and repulsion included.

        With ``keep`` what derivatives of energies and forces need later is kept, too: for ``gradient``, ``tangent``
        and ``forces_along``.  With ``all_densities`` the densities of all steps are, and ``tangent`` has them, too.
        """
        sweeps = kernels("sweeps")
        self.take(batch, keep, all_densities)
        energies = np.empty(self.batch.species.size)
        sweeps.forward(self.batch.threaded, *self._placed("potential", "batch", "values"), energies)
        return energies

    def take(self, batch, keep=False, all_densities=False):
        """Make ``batch`` the one that is worked on, with arrays for what ``forward`` and what follows it will leave."""
        if isinstance(batch, Placed):
            self._places["batch"], batch = batch, batch.value
        self._reversed = False
        if batch is self.batch and self.values is self._values.get((keep, all_densities)):
            return  # As at every step of a dynamics.
        n_atoms, *others = batch.species.size, batch.neighbor.size, batch.atom_rows.size
        had_atoms, *room = self._sizes
        if n_atoms != had_atoms or others[0] > room[0] or others[1] > room[1]:
            # The same atoms in other places may have fewer pairs next time: then everything has its place already.
            self._have_room(n_atoms, *(map(max, others, room) if n_atoms == had_atoms else others))
        self._provide_values(keep, all_densities)
        self.batch = batch  # Last: were there no memory for its arrays, the next call would take them for there.

    def _have_room(self, *sizes):
        """From now on ``values`` and ``tangents`` are for so many atoms, pairs and rows of a batch."""
        self._sizes = sizes
        self._values, self.tangents = {}, None
        for name in ("values", "tangents"):
            self._places.pop(name, None)  # It would keep arrays that have become too small.

    def _provide_values(self, keep, all_densities):
        """Have ``values``, with or without what only derivatives of them need, and all densities."""
        kept = keep, all_densities
        if kept not in self._values:
            self._values[kept] = self._new_values(*kept)
        self.values = self._values[kept]

    def placed_for_gradients(self, most_atoms, most_pairs, most_blocks):
        """(potential, values, tangents, work), ``Placed``, for the gradients of any batches of at most such sizes.

        work is what ``reverse_tangent`` works in.  For ``kernels.pieces``, which runs the kernels itself.
        """
        needed = most_atoms, most_pairs, min(most_pairs, most_atoms * most_blocks)
        if any(size > room for size, room in zip(needed, self._sizes)):
            self._have_room(*map(max, needed, self._sizes))
        self.batch = None
        self._provide_values(True, False)
        self._provide_tangents()
        self._work_of_reverse_tangent(most_blocks)
        return self._placed("potential", "values", "tangents", "_work")

    def addresses_for_gradients(self, batch, moving):
        """Addresses of the machine code of forward, reverse, forward_tangent and reverse_tangent.

        They are compiled for such a ``Batch``.  Without ``moving`` those of reverse and forward_tangent, which a loss of
        energies alone does not need, are 0; where kernels cannot be called so, all are.
        """
        sweeps = kernels("sweeps")
        self.take(batch, keep=True)
        self._provide_tangents()
        potential, batch, values, tangents = self._placed("potential", "batch", "values", "tangents")
        one, two, three = (np.empty((0, 3, 3)[:n]) for n in (1, 2, 3))
        work, gradient = self._work_of_reverse_tangent(), np.empty(0, self.dtype)
        return (
            sweeps.forward.address(potential, batch, values, one),
            sweeps.reverse.address(potential, batch, values, two, three) if moving else 0,
            sweeps.forward_tangent.address(potential, batch, values, tangents, two, three) if moving else 0,
            sweeps.reverse_tangent.address(moving, potential, batch, values, tangents, one, *work, gradient),
        )

    def _new_values(self, keep, all_densities):
        """``Values`` for the present batch, with or without what only derivatives of them need, and all densities."""
        from eann_lite.kernels.arguments import Values

        shapes = self._shapes()
        if keep:
            unused = ["act_slope"]  # Slopes are made of gates, which are kept for more than that.
        else:
            # The reverse of a layer normalisation takes what came before its activations.
            unused = FOR_DERIVATIVES if self._normed else (*FOR_DERIVATIVES, "pre")
        shapes |= {name: (0, *shapes[name][1:]) for name in unused}
        if not all_densities:
            shapes["density"] = (1, *shapes["density"][1:])
        # Without layer normalisation the adjoints before and after it are the same.
        shared = {} if self._normed else {"lin_bar": "act_bar"}
        if not keep:
            # Once their own derivatives are there, orbital sums are not needed any more.
            shared["sums_bar"] = "sums"
        stores = {name: self.buffers(name, *shapes[name]) for name in Values._fields if name not in shared}
        return Values(**stores, **{name: stores[other] for name, other in shared.items()})

    def last_hidden(self):
        """Activations (N, width) that the last map of the energy networks takes, right after ``forward`` with keep.

        They live until the next such sweep.
        """
        return self.values.last_hidden

    def _placed(self, *names):
        """These tuples, ``Placed`` for kernels."""
        for name in names:
            value = getattr(self, name)
            if name not in self._places or self._places[name].value is not value:
                self._places[name] = Placed(value)
        return [self._places[name] for name in names]

    def _shapes(self):
        """Shapes of the arrays of ``Values`` and ``Tangents``, with room for the present batch."""
        spec = self.specification
        n_atoms, n_pairs, n_rows, n_steps = (*self._sizes, spec.recursions + 1)
        shapes = dict.fromkeys(("distance", "log_slope"), (n_pairs,))
        shapes |= {"vector": (3, n_pairs), "radial": (n_pairs, spec.radial)}
        shapes |= {"message": (n_rows, spec.radial), "recoil": (n_rows, 3)}
        shapes["inputs"] = (n_steps, n_atoms * spec.densities)
        hidden = n_atoms * max(stage.hidden_width for stage in self.stages)
        shapes |= dict.fromkeys(("pre", "act_gate", "act_slope", "act_bar", "lin_bar"), (n_steps, hidden))
        shapes["last_hidden"] = n_atoms, spec.network.widths[0]
        shapes |= dict.fromkeys(("coefficients", "coefficients_bar"), (n_steps, n_atoms, spec.radial))
        shapes |= dict.fromkeys(("sums", "sums_bar"), (n_steps, n_atoms, spec.monomials, spec.radial))
        shapes |= dict.fromkeys(("density", "density_bar"), (n_steps, n_atoms, spec.densities))
        shapes["power_bar"] = (n_steps, n_atoms, len(self.products))
        return shapes | {"output_bar": (n_atoms, 1)}

    def reverse(self):
        """Forces (N, 3) in eV/Angstrom and virials (N, 3, 3) in eV of the batch's atoms, after ``forward``.

        The sum of the virials of a structure is its strain derivative dE/d(strain).
        """
        sweeps = kernels("sweeps")
        if self._reversed:
            # It may leave derivatives where orbital sums stood.
            self.forward(self.batch, *next(kept for kept, values in self._values.items() if values is self.values))
        self._reversed = True
        n_atoms = self.batch.species.size
        forces, virials = np.empty((n_atoms, 3)), np.empty((n_atoms, 3, 3))
        sweeps.reverse(self.batch.threaded, *self._placed("potential", "batch", "values"), forces, virials)
        return forces, virials

    def _check_kept(self):
        if self.values is None or len(self.values.act_gate) == 0:
            raise ValueError(
                "derivatives of energies and forces: call forward(batch, keep=True) before, not forward(batch)"
            )

    def _provide_tangents(self, all_steps=False):
        """Have ``tangents``: densities as ``values`` has them, adjoints of orbital sums of one step or of all."""
        n_densities, n_sums = len(self.values.density), len(self.values.sums) if all_steps else 1
        found = self.tangents
        if found is not None and len(found.density) == n_densities and len(found.sums_bar) >= n_sums:
            return
        from eann_lite.kernels.arguments import Tangents

        shapes = self._shapes()
        parts = {"density": n_densities, "sums_bar": n_sums, "density_bar": 1}
        shapes |= {name: (n_parts, *shapes[name][1:]) for name, n_parts in parts.items()}
        self.tangents = Tangents(**{name: self.buffers(f"{name}_dot", *shapes[name]) for name in Tangents._fields})

    def tangent(self, direction, strain):
        """Derivatives of what ``forward`` left along ``direction`` (N, 3) of the atoms and ``strain`` (Q, 3, 3).

        They stand in ``tangents``: coefficients (T + 1, N, K), density (T + 1, N, M), or (1, N, M) without
        ``all_densities``, and the rest.  After ``forward`` with ``keep``.
        """
        sweeps = kernels("sweeps")
        self._check_kept()
        self._provide_tangents()
        sweeps.forward_tangent(
            self.batch.threaded, *self._placed("potential", "batch", "values", "tangents"), direction, strain
        )

    def gradient(self, energy_weights, direction=None, strain=None):
        """Gradient (flat) with respect to all parameters of a loss on energies, forces and strain derivatives.

        energy_weights (Q,) = dLoss/dE of each structure; direction (N, 3) = -dLoss/dF of each batch atom; strain
        (Q, 3, 3) = dLoss/d(strain derivative), symmetric.  Since F = -dE/dx, the force and strain terms are the
        derivative of dE/dtheta along ``direction`` and ``strain``: the tangent of the reverse sweep, where the energy
        term enters as the tangent of its seed.  After ``forward`` with ``keep`` and ``reverse``; for energies alone (no
        direction) ``forward`` is enough.
        """
        sweeps = kernels("sweeps")
        moving = direction is not None
        self._check_kept()
        if moving:
            self.tangent(direction, strain)
        else:
            self._provide_tangents()
        gradient = np.empty(self.layout.size, self.dtype)
        sweeps.reverse_tangent(
            self.batch.threaded,
            moving,
            *self._placed("potential", "batch", "values", "tangents"),
            np.asarray(energy_weights, dtype=float),
            *self._work_of_reverse_tangent(),
            gradient,
        )
        return gradient

    def _work_of_reverse_tangent(self, n_blocks=None):
        """Places for what the blocks give to the gradients of networks, contraction, exponents and centers."""
        n_blocks = len(self.batch.blocks) if n_blocks is None else n_blocks
        if not self._work or len(self._work[0]) != n_blocks:
            spec, largest = self.specification, max(stage.size for stage in self.stages)
            rows = len(self.products) or (spec.max_degree + 1) * spec.radial
            self._work = (
                self.buffers("by_network", n_blocks, largest),
                self.buffers("by_contraction", n_blocks, rows, spec.densities),
                self.buffers("by_exponent", n_blocks, len(spec.elements), spec.radial),
                self.buffers("by_center", n_blocks, len(spec.elements), spec.radial),
            )
        return self._work

    def forces_along(self, direction):
        """Derivative (N, 3) of the forces along ``direction`` (N, 3) of the batch's atoms: minus Hessian times direction.

        Exact: the tangent of the reverse sweep with respect to positions.  After ``forward`` with ``keep`` and ``reverse``.
        """
        sweeps = kernels("sweeps")
        if self.dtype != np.float64:
            raise ValueError("derivatives of forces: expected Sweeps of precision float64, these are of float32")
        self._check_kept()
        batch = self.batch
        n_pairs, n_atoms = batch.neighbor.size, batch.species.size
        self._provide_tangents(all_steps=True)
        self.tangent(direction, np.zeros((batch.n_structures, 3, 3)))
        self.tangents.output_bar[:] = 0.0
        forces_dot = np.empty((n_atoms, 3))
        sweeps.forces_along(
            batch.threaded, *self._placed("potential", "batch", "values", "tangents"),
            # No gradient is asked for.
            np.empty((len(batch.blocks), 0)), *self._work_of_reverse_tangent()[1:],
            *np.empty((2, n_pairs, self.specification.radial)),
            np.empty((3, n_pairs)), forces_dot,
        )  # fmt: skip
        return forces_dot
