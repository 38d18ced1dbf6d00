"""Named parameters and their place in one flat vector."""

import math
from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError
from eann_lite.model.specification import LEARNED_ACTIVATIONS


def network_names(specification):
    """(name, network specification, output width, step, element index) of every network, in packing order.

    The networks of recursion steps 0 .. T-1 come first, then the energy networks (step T).
    """
    rows = []
    for t in range(specification.recursions):
        for s, element in enumerate(specification.elements):
            rows.append((f"recursion.{t}.{element}", specification.recursion_network, specification.radial, t, s))
    for s, element in enumerate(specification.elements):
        rows.append((f"network.{element}", specification.network, 1, specification.recursions, s))
    return rows


def _network_shapes(name, network, inputs, outputs):
    learned = network.activation in LEARNED_ACTIVATIONS
    first = network.widths[0]
    shapes = {f"{name}.input.weight": (inputs, first), f"{name}.input.bias": (first,)}
    for b in range(network.blocks):
        for i, (width, out) in enumerate(network.links):
            link = f"{name}.block.{b}.{i}"
            if learned:
                shapes[f"{link}.alpha"] = shapes[f"{link}.beta"] = (width,)
            if network.layer_norm:
                shapes[f"{link}.scale"] = shapes[f"{link}.shift"] = (width,)
            shapes[f"{link}.weight"], shapes[f"{link}.bias"] = (width, out), (out,)
    if learned:
        shapes[f"{name}.output.alpha"] = shapes[f"{name}.output.beta"] = (first,)
    if network.normalises_output:
        shapes[f"{name}.output.scale"] = shapes[f"{name}.output.shift"] = (first,)
    shapes[f"{name}.output.weight"], shapes[f"{name}.output.bias"] = (first, outputs), (outputs,)
    return shapes


def parameter_shapes(specification):
    """Ordered dictionary name -> shape of all trained parameters.

    Weights are (in, out): a linear map is ``x @ weight + bias``.
    """
    n_elements, k = len(specification.elements), specification.radial
    shapes = dict.fromkeys(("radial_exponents", "radial_centers", "orbital_coefficients"), (n_elements, k))
    if specification.contraction == "learned":
        shapes["contraction"] = (specification.max_degree + 1, k, specification.densities)
    for name, network, outputs, _, _ in network_names(specification):
        shapes.update(_network_shapes(name, network, specification.densities, outputs))
    return shapes


def contraction_of(specification, parameters):
    """W (L + 1, K, M): the learned contraction, or the fixed one that keeps degrees and Gaussians apart (EANN 2019)."""
    if specification.contraction == "learned":
        return np.ascontiguousarray(parameters["contraction"])
    k = specification.radial
    w = np.zeros((specification.max_degree + 1, k, specification.densities))
    for l in range(specification.max_degree + 1):
        w[l, np.arange(k), l * k + np.arange(k)] = 1.0
    return w


class Layout(NamedTuple):
    """Where each named parameter lies in the flat vector: name -> (start, stop, shape)."""

    places: dict
    size: int

    @classmethod
    def of(cls, specification):
        """Layout of a specification's parameters, in the order of ``parameter_shapes``."""
        places, start = {}, 0
        for name, shape in parameter_shapes(specification).items():
            stop = start + math.prod(shape)
            places[name] = (start, stop, shape)
            start = stop
        return cls(places, start)

    def pack(self, parameters):
        """One float64 vector (size,) from named arrays; missing, foreign or misshapen names are errors."""
        missing = [name for name in self.places if name not in parameters]
        foreign = [name for name in parameters if name not in self.places]
        if missing or foreign:
            raise InputError(
                f"parameters do not fit the specification: missing {missing[:5]}, not known {foreign[:5]}."
            )
        vector = np.empty(self.size)
        for name, (start, stop, shape) in self.places.items():
            array = np.asarray(parameters[name], dtype=float)
            if array.shape != shape:
                raise InputError(f"parameter {name} has shape {array.shape}, expected {shape}.")
            vector[start:stop] = array.ravel()
        return vector

    def view(self, vector, name):
        """The parameter of this name as a view into ``vector`` (size,)."""
        start, stop, shape = self.places[name]
        return vector[start:stop].reshape(shape)

    def unpack(self, vector):
        """Named views into ``vector`` (size,)."""
        return {name: self.view(vector, name) for name in self.places}


def default_constants(specification):
    """Constants of a model that was not scaled on data: networks see the bare densities, energies have no offset."""
    steps, n_elements, m = specification.recursions + 1, len(specification.elements), specification.densities
    return {
        "density_shift": np.zeros((steps, n_elements, m)),
        "density_scale": np.ones((steps, n_elements, m)),
        "reference_energies": np.zeros(n_elements),
        "energy_scale": np.ones(()),
    }
