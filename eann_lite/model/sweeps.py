"""The three sweeps over a batch: energies forward, forces in reverse, and the tangent that trains on both.

Orchestration only: which stage runs when, on which arrays.  The loops are in ``kernels``, the formulas in
``formulas``, the mathematics in the order of the paper in ``reference``.
"""

import math

import numpy as np

from eann_lite.elements import atomic_number
from eann_lite.model.networks import network_stages, transpose_weights
from eann_lite.model.parameters import Layout, contraction_of


class Monomials:
    """Distinct monomials x^lx y^ly z^lz of degree 0 to L, degree by degree, as tables for the kernels.

    degree, weight (A,): l and l! / (lx! ly! lz!); parity (A,): (-1)^l; parent, axis (A,): monomial a is monomial
    parent[a] times component axis[a]; factors (F, 4): rows (a, axis, parent, power) of every nonzero derivative.

    >>> Monomials(2).degree.tolist()
    [0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    """

    def __init__(self, max_degree):
        exponents = [
            (lx, ly, l - lx - ly) for l in range(max_degree + 1) for lx in range(l, -1, -1) for ly in range(l - lx, -1, -1)
        ]
        index = {e: a for a, e in enumerate(exponents)}
        self.degree = np.array([sum(e) for e in exponents])
        self.weight = np.array([math.factorial(sum(e)) / math.prod(map(math.factorial, e)) for e in exponents])
        self.parity = (-1.0) ** self.degree
        factors = [
            (a, x, index[tuple(n - (y == x) for y, n in enumerate(e))], e[x])
            for a, e in enumerate(exponents)
            for x in range(3)
            if e[x]
        ]
        self.factors = np.array(factors, dtype=np.int64).reshape(-1, 4)
        self.parent, self.axis = np.zeros(len(exponents), np.int64), np.zeros(len(exponents), np.int64)
        for a, x, parent, _ in factors:
            self.parent[a], self.axis[a] = parent, x


class Buffers:
    """Arrays kept from one batch to the next, so that large ones are not given back and zeroed by the system."""

    def __init__(self):
        self._store = {}

    def __call__(self, name, *shape):
        size = math.prod(shape)
        flat = self._store.get(name)
        if flat is None or flat.size < size:
            flat = self._store[name] = np.empty(max(size, 1))
        return flat[:size].reshape(shape)


class Sweeps:
    """Runs the stages of one specification for given parameters.

    ``set_parameters`` first; then ``forward``, ``reverse`` and ``gradient`` in this order on one batch.  The arrays
    they leave in ``state`` live until the next batch.  Not for use from several threads at once.
    """

    def __init__(self, specification, constants):
        self.specification = specification
        self.constants = constants
        self.layout = Layout.of(specification)
        self.stages = network_stages(specification, self.layout)
        self.monomials = Monomials(specification.max_degree)
        self.width = (0,) * specification.radial
        self.numbers = np.array([float(atomic_number(symbol)) for symbol in specification.elements])
        self.vector = np.empty(self.layout.size)
        self.transposed = np.empty(self.layout.size)
        self.buffers = Buffers()
        self.state = {}

    def set_parameters(self, vector):
        """Use the flat parameter vector from now on (a copy of it)."""
        self.vector[:] = vector
        named = self.layout.unpack(self.vector)
        self.exponents, self.centers = named["radial_exponents"], named["radial_centers"]
        self.initial = named["orbital_coefficients"]
        self.contraction = contraction_of(self.specification, named)
        self.contraction_transposed = np.ascontiguousarray(self.contraction.transpose(0, 2, 1))
        transpose_weights(self.stages, self.vector, self.transposed)

    def _network_store(self, name, t, n_atoms):
        return self.buffers(f"{name}{t}", n_atoms * self.stages[t].row_width)

    def forward(self, batch):
        """Atomic energies (N,) in eV of the batch's atoms, reference energies and repulsion included."""
        from eann_lite.kernels import contraction, geometry, networks, orbitals, repulsion

        spec, new, threaded, mono = self.specification, self.buffers, batch.threaded, self.monomials
        n_atoms, n_pairs, n_steps = batch.species.size, batch.neighbor.size, spec.recursions + 1
        k, m, n_mono = spec.radial, spec.densities, spec.monomials
        state = self.state = {
            "batch": batch, "vector": new("vector", n_pairs, 3), "distance": new("distance", n_pairs),
            "angular": new("angular", n_pairs, n_mono), "radial": new("radial", n_pairs, k),
            "slope": new("slope", n_pairs, k), "coefficients": new("coefficients", n_steps, n_atoms, k),
            "sums": new("sums", n_steps, n_atoms, n_mono, k), "density": new("density", n_steps, n_atoms, m),
        }  # fmt: skip
        geometry.pair_geometry(
            threaded, batch.positions, batch.species, batch.first, batch.neighbor, batch.image, self.exponents,
            self.centers, spec.cutoff, mono.parent, mono.axis, state["vector"], state["distance"], state["angular"],
            state["radial"], state["slope"],
        )  # fmt: skip
        coefficients = state["coefficients"]
        coefficients[0] = self.initial[batch.species]
        for t in range(n_steps):
            stage = self.stages[t]
            orbitals.orbital_sums(
                threaded, batch.first, batch.neighbor, state["angular"], state["radial"], coefficients[t], self.width,
                state["sums"][t],
            )  # fmt: skip
            contraction.densities(
                threaded, batch.blocks, state["sums"][t], self.contraction, mono.degree, mono.weight, state["density"][t]
            )
            output = new(f"output{t}", n_atoms, stage.outputs)
            networks.forward(
                threaded, batch.blocks, stage.starts, stage.maps, stage.kind, self.vector,
                self.constants["density_shift"][t], self.constants["density_scale"][t], state["density"][t],
                self._network_store("pre", t, n_atoms), self._network_store("act_slope", t, n_atoms),
                self._network_store("lin", t, n_atoms), output,
            )  # fmt: skip
            if t < spec.recursions:
                np.add(coefficients[t], output, out=coefficients[t + 1])
        energies = output[:, 0] * float(self.constants["energy_scale"])
        energies += self.constants["reference_energies"][batch.species]
        state["energies"] = energies
        gradient = state["pair_gradient"] = new("pair_gradient", n_pairs, 3)
        gradient[:] = 0.0
        if spec.repulsion:
            repulsion.add_zbl(
                threaded, batch.first, batch.neighbor, batch.species, self.numbers, state["vector"], state["distance"],
                spec.repulsion_cutoff, energies, gradient,
            )  # fmt: skip
        return energies

    def reverse(self):
        """Forces (N, 3) in eV/Angstrom and virials (N, 3, 3) in eV of the batch's atoms, after ``forward``.

        The sum of the virials of a structure is its strain derivative dE/d(strain).
        """
        from eann_lite.kernels import contraction, networks, orbitals

        spec, new, state, mono = self.specification, self.buffers, self.state, self.monomials
        batch = state["batch"]
        threaded, n_atoms, n_steps = batch.threaded, batch.species.size, spec.recursions + 1
        sums_bar = state["sums_bar"] = new("sums_bar", *state["sums"].shape)
        density_bar = state["density_bar"] = new("density_bar", *state["density"].shape)
        coefficients_bar = state["coefficients_bar"] = new("coefficients_bar", *state["coefficients"].shape)
        energy_bar = state["energy_bar"] = new("energy_bar", n_atoms, 1)
        energy_bar[:] = float(self.constants["energy_scale"])
        for t in range(spec.recursions, -1, -1):
            stage = self.stages[t]
            act_bar = self._network_store("act_bar", t, n_atoms)
            networks.backward(
                threaded, batch.blocks, stage.starts, stage.maps, stage.kind, self.vector, self.transposed,
                self.constants["density_scale"][t], energy_bar if t == spec.recursions else coefficients_bar[t + 1],
                self._network_store("pre", t, n_atoms), self._network_store("act_slope", t, n_atoms),
                self._network_store("pre_bar", t, n_atoms), act_bar,
                self._network_store("lin_bar", t, n_atoms) if stage.normed else act_bar, density_bar[t],
            )  # fmt: skip
            contraction.densities_reverse(
                threaded, batch.blocks, state["sums"][t], density_bar[t], self.contraction, self.contraction_transposed,
                mono.degree, mono.weight, sums_bar[t],
            )  # fmt: skip
            if t > 0:
                coefficients_bar[t] = 0.0 if t == spec.recursions else coefficients_bar[t + 1]
                orbitals.gather_coefficients(
                    threaded, batch.first, batch.neighbor, batch.reverse, state["angular"], state["radial"], mono.parity,
                    sums_bar[t], self.width, coefficients_bar[t],
                )  # fmt: skip
        orbitals.pair_gradients(
            threaded, batch.first, batch.neighbor, state["vector"], state["distance"], state["angular"],
            state["radial"], state["slope"], state["coefficients"], sums_bar, mono.factors, self.width,
            state["pair_gradient"],
        )  # fmt: skip
        forces, virials = np.empty((n_atoms, 3)), np.empty((n_atoms, 3, 3))
        orbitals.forces_and_virials(
            threaded, batch.first, batch.reverse, state["vector"], state["pair_gradient"], forces, virials
        )
        return forces, virials

    def gradient(self, energy_weights, direction, strain):
        """Gradient (flat) with respect to all parameters of a loss on energies, forces and strain derivatives.

        energy_weights (Q,) = dLoss/dE of each structure; direction (N, 3) = -dLoss/dF of each batch atom; strain
        (Q, 3, 3) = dLoss/d(strain derivative), symmetric.  Since F = -dE/dx, the force and strain terms are the
        derivative of dE/dtheta along ``direction`` and ``strain``: the tangent of the reverse sweep, where the energy
        term enters as the tangent of its seed.  After ``reverse``.
        """
        from eann_lite.kernels import geometry

        state, new = self.state, self.buffers
        batch = state["batch"]
        for name in ("vector", "distance", "angular", "radial", "coefficients", "sums", "density"):
            state[f"{name}_dot"] = new(f"{name}_dot", *state[name].shape)
        for name in ("coefficients", "sums", "density"):
            state[f"{name}_bar_dot"] = new(f"{name}_bar_dot", *state[name].shape)
        geometry.pair_directions(
            batch.threaded, batch.first, batch.neighbor, batch.structure, state["vector"], state["distance"], direction,
            strain, self.monomials.factors, state["angular"], state["slope"], state["vector_dot"],
            state["distance_dot"], state["angular_dot"], state["radial_dot"],
        )  # fmt: skip
        self._forward_tangent()
        gradient = np.zeros(self.layout.size)
        seeds = np.asarray(energy_weights)[batch.structure][:, None] * float(self.constants["energy_scale"])
        self._reverse_tangent(seeds, gradient)
        return gradient

    def _forward_tangent(self):
        from eann_lite.kernels import contraction, networks, orbitals

        spec, new, state, mono = self.specification, self.buffers, self.state, self.monomials
        batch = state["batch"]
        threaded, n_atoms = batch.threaded, batch.species.size
        coefficients_dot = state["coefficients_dot"]
        coefficients_dot[0] = 0.0
        for t in range(spec.recursions + 1):
            stage = self.stages[t]
            orbitals.orbital_sums_tangent(
                threaded, batch.first, batch.neighbor, state["angular"], state["radial"], state["coefficients"][t],
                state["angular_dot"], state["radial_dot"], coefficients_dot[t], self.width, state["sums_dot"][t],
            )  # fmt: skip
            contraction.densities_tangent(
                threaded, batch.blocks, state["sums"][t], state["sums_dot"][t], self.contraction, mono.degree,
                mono.weight, state["density_dot"][t],
            )  # fmt: skip
            output_dot = new(f"output_dot{t}", n_atoms, stage.outputs)
            networks.forward_tangent(
                threaded, batch.blocks, stage.starts, stage.maps, stage.kind, self.vector,
                self.constants["density_scale"][t], state["density_dot"][t], self._network_store("pre", t, n_atoms),
                self._network_store("act_slope", t, n_atoms), self._network_store("pre_dot", t, n_atoms),
                self._network_store("lin_dot", t, n_atoms), output_dot,
            )  # fmt: skip
            if t < spec.recursions:
                np.add(coefficients_dot[t], output_dot, out=coefficients_dot[t + 1])

    def _reverse_tangent(self, seeds, gradient):
        from eann_lite.kernels import contraction, orbitals

        spec, new, state, mono = self.specification, self.buffers, self.state, self.monomials
        batch = state["batch"]
        threaded, n_atoms = batch.threaded, batch.species.size
        named = self.layout.unpack(gradient)
        coefficients_bar_dot = state["coefficients_bar_dot"]
        exponents_bar_dot, centers_bar_dot = np.zeros((n_atoms, spec.radial)), np.zeros((n_atoms, spec.radial))
        contraction_bar_dot = new("contraction_bar_dot", len(batch.blocks), *self.contraction.shape)
        contraction_bar_dot[:] = 0.0
        for t in range(spec.recursions, -1, -1):
            is_last = t == spec.recursions
            self._networks_reverse_tangent(t, seeds if is_last else coefficients_bar_dot[t + 1], gradient)
            contraction.densities_reverse_tangent(
                threaded, batch.blocks, state["sums"][t], state["sums_dot"][t], state["density_bar"][t],
                state["density_bar_dot"][t], self.contraction, self.contraction_transposed, mono.degree, mono.weight,
                state["sums_bar_dot"][t], contraction_bar_dot,
            )  # fmt: skip
            coefficients_bar_dot[t] = 0.0 if is_last else coefficients_bar_dot[t + 1]
            orbitals.gather_coefficients_tangent(
                threaded, batch.first, batch.neighbor, batch.reverse, batch.species, mono.parity, self.exponents,
                self.centers, state["distance"], state["angular"], state["radial"], state["slope"],
                state["coefficients"][t], state["sums_bar"][t], state["distance_dot"], state["angular_dot"],
                state["radial_dot"], state["coefficients_dot"][t], state["sums_bar_dot"][t], self.width,
                coefficients_bar_dot[t], exponents_bar_dot, centers_bar_dot,
            )  # fmt: skip
        for s, (start, stop) in enumerate(batch.segments):
            named["radial_exponents"][s] = exponents_bar_dot[start:stop].sum(axis=0)
            named["radial_centers"][s] = centers_bar_dot[start:stop].sum(axis=0)
            named["orbital_coefficients"][s] = coefficients_bar_dot[0, start:stop].sum(axis=0)
        if "contraction" in named:
            named["contraction"][:] = contraction_bar_dot.sum(axis=0)

    def _networks_reverse_tangent(self, t, output_bar_dot, gradient):
        """Reverse tangent and weight gradients of the networks of step t."""
        from eann_lite.kernels import networks

        spec, state, stage = self.specification, self.state, self.stages[t]
        batch = state["batch"]
        n_atoms = batch.species.size
        output_bar = state["energy_bar"] if t == spec.recursions else state["coefficients_bar"][t + 1]
        names = ("pre", "act_slope", "lin", "pre_bar", "act_bar", "pre_dot", "lin_dot", "pre_bar_dot", "act_bar_dot")
        pre, slope, lin, pre_bar, act_bar, pre_dot, lin_dot, pre_bar_dot, act_bar_dot = (
            self._network_store(name, t, n_atoms) for name in names
        )
        lin_bar = self._network_store("lin_bar", t, n_atoms) if stage.normed else act_bar
        lin_bar_dot = self._network_store("lin_bar_dot", t, n_atoms) if stage.normed else act_bar_dot
        networks.backward_tangent(
            batch.threaded, batch.blocks, stage.starts, stage.maps, stage.kind, self.vector, self.transposed,
            self.constants["density_scale"][t], output_bar_dot, pre, slope, pre_dot, act_bar, lin_bar, pre_bar_dot,
            act_bar_dot, lin_bar_dot, state["density_bar_dot"][t],
        )  # fmt: skip
        networks.weight_gradients(
            batch.threaded, stage.tasks, batch.segments, stage.starts, stage.maps, stage.kind, self.vector, output_bar,
            output_bar_dot, pre, slope, lin, pre_bar, act_bar, lin_bar, pre_dot, lin_dot, pre_bar_dot, act_bar_dot,
            lin_bar_dot, gradient,
        )  # fmt: skip
