"""Hyperparameters, named parameters, starting values and the scaling on data."""

import numpy as np
import pytest

from eann_lite.batches import draw_batch, pack_structures
from eann_lite.errors import InputError
from eann_lite.model.initial import SPREAD, initial_parameters, scale_to_data
from eann_lite.model.model import Model
from eann_lite.model.parameters import Layout, contraction_of, parameter_shapes
from eann_lite.model.specification import NetworkSpecification, Specification
from eann_lite.model.sweeps import Monomials, Sweeps
from eann_lite.structures import Structure

WATER = {"elements": ("O", "H"), "cutoff": 4.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cutoff": 0}, "cutoff = 0 Angstrom: expected a positive number"),
        ({"elements": ()}, "elements are empty"),
        ({"elements": ("O", "Xx")}, "'Xx' is not a chemical symbol"),
        ({"elements": ("O", "O")}, "name an element twice"),
        ({"radial": 0}, "radial = 0: expected a whole number of at least 1"),
        ({"recursions": 1.5}, "recursions = 1.5: expected a whole number"),
        ({"contraction": "none"}, "contraction = 'none': expected one of 'learned', 'per_degree'"),
        ({"repulsion": "lj"}, "repulsion = 'lj': expected one of None, 'zbl'"),
    ],
)
def test_wrong_hyperparameters_are_refused_by_name_and_value(changes, message):
    with pytest.raises(InputError) as error:
        Specification(**{**WATER, **changes})
    assert message in str(error.value)


def test_specification_survives_plain_values_and_refuses_unknown_ones():
    specification = Specification(**WATER, network=NetworkSpecification((8, 4), 2, "tanh_like", True))
    plain = specification.to_dict()
    assert Specification.from_dict(plain) == specification
    with pytest.raises(InputError, match="unknown key 'cut_off'"):
        Specification.from_dict({**plain, "cut_off": 1.0})


def test_layout_packs_and_unpacks_every_parameter_in_its_place():
    specification = Specification(**WATER, recursions=1, radial=3, densities=4)
    layout = Layout.of(specification)
    named = {name: np.random.default_rng(0).normal(size=shape) for name, shape in parameter_shapes(specification).items()}
    vector = layout.pack(named)
    assert vector.size == layout.size == sum(array.size for array in named.values())
    assert all(np.array_equal(array, named[name]) for name, array in layout.unpack(vector).items())
    with pytest.raises(InputError, match="missing .'contraction'.*not known .'W'"):
        layout.pack({("W" if name == "contraction" else name): array for name, array in named.items()})
    with pytest.raises(InputError, match=r"radial_centers has shape \(3, 2\), expected \(2, 3\)"):
        layout.pack({**named, "radial_centers": named["radial_centers"].T})


def test_per_degree_contraction_keeps_every_degree_and_gaussian_apart():
    specification = Specification(**WATER, contraction="per_degree", radial=3, max_degree=1)
    w = contraction_of(specification, {})
    assert w.shape == (2, 3, 6) and "contraction" not in parameter_shapes(specification)
    np.testing.assert_array_equal(w.sum(axis=(0, 1)), np.ones(6))
    assert w[1, 2, 5] == 1.0 and w[0, 2, 2] == 1.0


@pytest.mark.parametrize("max_degree", range(6))
def test_monomials_are_those_of_the_reference_in_its_order(max_degree):
    from eann_lite.reference import monomial_exponents, monomials

    table = Monomials(max_degree)
    r = np.random.default_rng(1).normal(size=3)
    values, exponents = [1.0], [(0, 0, 0)]
    for a in range(1, table.degree.size):
        values.append(values[table.parent[a]] * r[table.axis[a]])
        power = list(exponents[table.parent[a]])
        power[table.axis[a]] += 1
        exponents.append(tuple(power))
    assert exponents == list(map(tuple, monomial_exponents(max_degree)))
    np.testing.assert_allclose(np.sqrt(table.weight) * values, np.ravel(monomials(r[None], max_degree)[0]), rtol=1e-13)


def test_scaling_gives_standardised_densities_at_every_step_and_element():
    rng = np.random.default_rng(3)
    water = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    frames = [Structure(numbers=[8, 1, 1], positions=water + 0.1 * rng.normal(size=(3, 3))) for _ in range(40)]
    specification = Specification(**WATER, recursions=2, radial=4, densities=6)
    packed = pack_structures(frames, specification.elements, specification.reach)
    parameters, constants, scales = scale_to_data(
        specification, initial_parameters(specification, 0), packed, np.arange(40)
    )
    sweeps = Sweeps(specification, constants)
    sweeps.set_parameters(sweeps.layout.pack(parameters))
    batch = draw_batch(packed, np.arange(40), 2)
    sweeps.forward(batch, all_densities=True)
    for t in range(3):
        for s, (start, stop) in enumerate(batch.segments):
            density = sweeps.values.density[t, start:stop]
            scaled = (density - constants["density_shift"][t, s]) * constants["density_scale"][t, s]
            np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-9)
            np.testing.assert_allclose(scaled.std(axis=0), SPREAD, rtol=1e-6)
    assert {name: array.shape for name, array in scales.items()} == parameter_shapes(specification)


def test_a_constant_of_the_wrong_shape_is_refused():
    specification = Specification(**WATER, recursions=0, radial=2, densities=2)
    parameters = initial_parameters(specification, 0)
    with pytest.raises(InputError, match=r"constant reference_energies has shape \(3,\), expected \(2,\)"):
        Model(specification, parameters, {"reference_energies": np.zeros(3)})


def test_parameters_of_a_model_cannot_be_changed_behind_its_back():
    specification = Specification(**WATER, recursions=0, radial=2, densities=2)
    model = Model(specification, initial_parameters(specification, 0))
    with pytest.raises(ValueError, match="read-only"):
        model.parameters["radial_centers"][0, 0] = 1.0
