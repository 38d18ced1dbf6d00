"""The compiled CPU kernels against the NumPy reference, and how batches are drawn for them."""

import ctypes
import mmap
import os
from dataclasses import replace
from unittest import mock

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    ELEMENTS,
    deviation,
    large_cell,
    models,
    random_model,
    random_structure,
    reference_arguments,
    reference_result,
    scale_of,
    seeds,
    structures,
)

from eann_lite import Model, Specification, Structure, reference
from eann_lite.batches import batches_of_atoms, draw_batch, pack_structures, pieces_and_atoms
from eann_lite.errors import InputError
from eann_lite.kernels import networks
from eann_lite.model.specification import NetworkSpecification
from eann_lite.model.sweeps import Sweeps, products_of_sums
from eann_lite.neighbors import neighbor_pairs
from eann_lite.training.objective import loss_gradient

# The whole model


@given(models(), structures())
@settings(max_examples=60)
def test_energies_forces_strain_derivative_and_descriptors_are_those_of_the_reference(model, structure):
    found, expected = model.evaluate(structure, descriptors=True), reference_result(model, structure)
    scale = scale_of(expected)
    assert deviation(found.energies, expected.energies) < 1e-12
    assert deviation(found.forces, expected.forces, floor=scale) < 1e-12
    assert deviation(found.strain_derivative, expected.strain_derivative, floor=scale) < 1e-12
    assert deviation(found.orbital_coefficients, expected.orbital_coefficients) < 1e-12
    assert deviation(found.density, expected.density) < 1e-12
    assert found.energy == pytest.approx(expected.energy, rel=1e-12, abs=1e-12 * np.abs(expected.energies).max())
    assert deviation(found.strain_derivative, found.strain_derivative.T, floor=scale) < 1e-14


@given(models(), structures(), seeds)
@settings(max_examples=60)
def test_loss_gradient_is_that_of_the_reference(model, structure, seed):
    rng = np.random.default_rng(seed)
    energy_weight, force_weights = rng.normal(), rng.normal(size=structure.positions.shape)
    strain_weights = rng.normal(size=(3, 3))
    found = loss_gradient(model, structure, energy_weight, force_weights, strain_weights)
    expected = reference.loss_gradient(
        *reference_arguments(model, structure), energy_weight, force_weights, strain_weights
    )
    assert list(found) == list(expected)
    scale = max(np.abs(gradient).max() for gradient in expected.values())
    for name in expected:
        assert deviation(found[name], expected[name], floor=1e-3 * scale) < 1e-9, name


@pytest.mark.parametrize("layer_norm", [False, True, "before"])
@pytest.mark.parametrize("activation", ["relu_like", "tanh_like", "silu", "tanh"])
def test_gradients_through_all_kinds_of_networks_are_those_of_the_reference(activation, layer_norm):
    network, other = (
        NetworkSpecification(widths, 2, activation, layer_norm, residual)
        for widths, residual in [((5, 9), True), ((7, 3), False)]
    )
    specification = Specification(
        ("H", "C"), 3.5, radial=3, densities=6, recursions=2, network=network, recursion_network=other
    )  # fmt: skip
    model, rng = random_model(specification, seed=11), np.random.default_rng(12)
    structure = random_structure(rng, "cluster", [1, 6, 1, 6, 6], np.zeros(3, bool))
    force_weights, strain_weights = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))
    found = loss_gradient(model, structure, 1.1, force_weights, strain_weights)
    expected = reference.loss_gradient(*reference_arguments(model, structure), 1.1, force_weights, strain_weights)
    scale = max(np.abs(gradient).max() for gradient in expected.values())
    for name in expected:
        assert deviation(found[name], expected[name], floor=1e-3 * scale) < 1e-11, name


@numba.njit
def jitted_reads_weights_once_more(n_rows, width, out, vector):
    return networks._reads_weights_once_more(n_rows, width, out, vector)


def test_weights_serve_forward_and_back_where_they_are_many_and_atoms_are_few():
    many, few = np.zeros(2**16 + 1), np.zeros(2**16)
    assert jitted_reads_weights_once_more(networks.FEW_ROWS, 64, 8, many)
    assert not jitted_reads_weights_once_more(networks.FEW_ROWS + 1, 64, 8, many)
    assert not jitted_reads_weights_once_more(1, 64, 8, few)
    assert not jitted_reads_weights_once_more(1, 60, 8, many) and not jitted_reads_weights_once_more(1, 64, 1, many)
    single = np.zeros(2**17 + 1, np.float32)
    assert jitted_reads_weights_once_more(1, 64, 16, single) and not jitted_reads_weights_once_more(1, 64, 8, single)


@pytest.mark.parametrize("n_hydrogen", [4, 9])
def test_few_atoms_with_large_networks_are_as_in_the_reference(n_hydrogen):
    network = NetworkSpecification((64, 64), 1)
    specification = Specification(
        ("C", "H"), 4.0, radial=8, densities=64, recursions=3, network=network, recursion_network=network
    )  # fmt: skip
    model, rng = random_model(specification, seed=5), np.random.default_rng(6)
    assert jitted_reads_weights_once_more(4, 64, 64, model.vector)
    structure = random_structure(rng, "cluster", [6] + [1] * n_hydrogen, np.zeros(3, bool))
    found, expected = model.evaluate(structure), reference_result(model, structure)
    assert deviation(found.energies, expected.energies) < 1e-12
    assert deviation(found.forces, expected.forces, floor=scale_of(expected)) < 1e-12
    force_weights = rng.normal(size=(n_hydrogen + 1, 3))
    gradient = loss_gradient(model, structure, 1.1, force_weights, np.zeros((3, 3)))
    expected = reference.loss_gradient(*reference_arguments(model, structure), 1.1, force_weights, np.zeros((3, 3)))
    scale = max(np.abs(part).max() for part in expected.values())
    for name in expected:
        assert deviation(gradient[name], expected[name], floor=1e-3 * scale) < 1e-11, name


@pytest.mark.parametrize("layer_norm", [False, True])
def test_gradients_of_elements_in_several_blocks_are_those_of_the_reference(layer_norm):
    """In energies alone and in forces; networks are added up over blocks in more than one piece."""
    network = NetworkSpecification((32, 32), 2, layer_norm=layer_norm)
    specification = Specification(
        ("H", "C", "O"), 3.5, radial=4, densities=12, recursions=1, network=network, recursion_network=network
    )  # fmt: skip
    model, rng = random_model(specification, seed=3), np.random.default_rng(4)
    assert model.sweeps.stages[0].size > networks.PIECE
    structure = random_structure(rng, "cluster", [1, 6, 1, 6, 1, 1, 1], np.zeros(3, bool))
    for force_weights in (rng.normal(size=(7, 3)), np.zeros((7, 3))):
        with mock.patch("eann_lite.batches.BLOCK", 2):
            found = loss_gradient(model, structure, 1.1, force_weights, np.zeros((3, 3)))
            packed = pack_structures([structure], specification.elements, specification.reach)
            batch = draw_batch(packed, np.arange(1), 3)
            model.sweeps.forward(batch, keep=True)
            still = model.layout.unpack(model.sweeps.gradient(np.array([1.1])))
        assert len(batch.blocks) >= 3
        expected = reference.loss_gradient(*reference_arguments(model, structure), 1.1, force_weights, np.zeros((3, 3)))
        scale = max(np.abs(gradient).max() for gradient in expected.values())
        for name in expected:
            assert deviation(found[name], expected[name], floor=1e-3 * scale) < 1e-11, name
            if not force_weights.any():
                assert deviation(still[name], expected[name], floor=1e-3 * scale) < 1e-11, name


@pytest.mark.parametrize("layer_norm", [False, True, "before"])
def test_energies_are_the_last_map_of_the_last_hidden_activations(layer_norm):
    """The networks of the recursion are wider: the same stores serve both."""
    network, wide = (NetworkSpecification((5, 3), layer_norm=layer_norm), NetworkSpecification((8, 11)))
    specification = Specification(("H",), 3.5, densities=6, recursions=2, network=network, recursion_network=wide)
    model = random_model(specification, seed=1)
    structure = random_structure(np.random.default_rng(2), "cluster", [1] * 6, np.zeros(3, bool))
    batch = draw_batch(pack_structures([structure], ("H",), 3.5), np.arange(1), 1)
    energies = model.sweeps.forward(batch, keep=True)
    weight, bias = (model.parameters[f"network.H.output.{name}"] for name in ("weight", "bias"))
    expected = model.sweeps.last_hidden() @ weight[:, 0] + bias
    scale, reference_energies = (model.constants[name] for name in ("energy_scale", "reference_energies"))
    np.testing.assert_allclose(energies, scale * expected + reference_energies, rtol=1e-13)


@given(models(), structures(), seeds)
@settings(max_examples=30)
def test_the_gradient_for_energies_alone_is_that_of_atoms_that_stand_still(model, structure, seed):
    """Without forces to fit the tangents along the atoms' motion are left out, not computed to be zero."""
    specification, sweeps = model.specification, model.sweeps
    packed = pack_structures([structure], specification.elements, specification.reach)
    batch = draw_batch(packed, np.arange(1), len(specification.elements))
    weights = np.random.default_rng(seed).normal(size=1)
    sweeps.forward(batch, keep=True)
    found = sweeps.gradient(weights)
    sweeps.forward(batch, keep=True)
    sweeps.reverse()
    expected = sweeps.gradient(weights, np.zeros_like(batch.positions), np.zeros((1, 3, 3)))
    assert deviation(found, expected) < 1e-13


@pytest.mark.parametrize("max_degree, densities", [(2, 25), (2, 64), (3, 16)])
def test_with_power_spectra_all_is_as_in_the_reference(max_degree, densities):
    specification = Specification(
        elements=("H", "C"), cutoff=3.5, max_degree=max_degree, densities=densities, recursions=2
    )
    model = random_model(specification, seed=densities)
    assert len(model.sweeps.products) == 36 * (max_degree + 1)
    rng = np.random.default_rng(densities)
    structure = large_cell(rng, 40)
    found, expected = model.evaluate(structure), reference_result(model, structure)
    assert deviation(found.forces, expected.forces) < 1e-12
    assert deviation(found.strain_derivative, expected.strain_derivative) < 1e-12
    structure = random_structure(rng, "cell", [1, 6, 1, 6, 6], np.ones(3, bool))
    for force_weights in (rng.normal(size=structure.positions.shape), np.zeros(structure.positions.shape)):
        found = loss_gradient(model, structure, 1.3, force_weights, np.eye(3))
        expected = reference.loss_gradient(*reference_arguments(model, structure), 1.3, force_weights, np.eye(3))
        scale = max(np.abs(gradient).max() for gradient in expected.values())
        for name in expected:
            assert deviation(found[name], expected[name], floor=1e-3 * scale) < 1e-10, name


def test_power_spectra_give_what_monomials_do():
    """Also for energies alone, in products with the Hessian and in single precision."""
    network = NetworkSpecification(widths=(5, 4), blocks=1, layer_norm=True)
    specification = Specification(elements=("H", "C"), cutoff=3.5, densities=32, recursions=1, network=network)
    model, rng = random_model(specification, seed=0), np.random.default_rng(0)
    structure = random_structure(rng, "cell", [1, 6, 1, 6, 6], np.ones(3, bool))
    packed = pack_structures([structure], specification.elements, specification.reach)
    batch, direction, strain = draw_batch(packed, np.arange(1), 2), rng.normal(size=(5, 3)), np.eye(3)[None]

    def everything(precision):
        sweeps = Sweeps(specification, model.constants, precision)
        sweeps.set_parameters(model.vector)
        found = [sweeps.forward(batch, keep=True), sweeps.gradient(np.ones(1))]
        found += [*sweeps.reverse(), sweeps.gradient(np.ones(1), direction, strain)]
        if precision == "float64":
            found.append(sweeps.forces_along(direction))
        return found, len(sweeps.products)

    with mock.patch("eann_lite.model.sweeps.products_of_sums", return_value=np.zeros((0, 3), np.int64)):
        expected, n_products = everything("float64")
        assert n_products == 0
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-4)):
        found, n_products = everything(precision)
        assert n_products == 108
        for a, b in zip(found, expected):
            assert np.linalg.norm(a - b) < tolerance * np.linalg.norm(b)


def test_tangents_of_all_densities_come_with_gradients_in_turn():
    specification = Specification(elements=("H", "C"), cutoff=3.5, densities=4, recursions=2)
    model, rng = random_model(specification, seed=0), np.random.default_rng(0)
    structure = random_structure(rng, "cluster", [1, 6, 1, 6], np.zeros(3, bool))
    packed = pack_structures([structure], specification.elements, specification.reach)
    batch, direction, strain = draw_batch(packed, np.arange(1), 2), rng.normal(size=(4, 3)), np.zeros((1, 3, 3))

    def gradient(sweeps):
        sweeps.forward(batch, keep=True)
        sweeps.reverse()
        return sweeps.gradient(np.ones(1), direction, strain)

    def densities_dot(sweeps):
        sweeps.forward(batch, keep=True, all_densities=True)
        sweeps.tangent(direction, strain)
        return sweeps.tangents.density.copy()

    fresh = [Model(specification, model.parameters, model.constants).sweeps for _ in range(2)]
    gradient_alone, densities_alone = gradient(fresh[0]), densities_dot(fresh[1])
    assert len(densities_alone) == 3
    for _ in range(2):
        np.testing.assert_array_equal(gradient(model.sweeps), gradient_alone)
        np.testing.assert_array_equal(densities_dot(model.sweeps), densities_alone)


def test_gradients_of_no_atoms_are_zero():
    specification = Specification(elements=("H", "C"), cutoff=3.5, densities=32, recursions=1)
    model = random_model(specification, seed=0)
    structure = random_structure(np.random.default_rng(0), "cluster", [1, 6], np.zeros(3, bool))
    packed = pack_structures([structure], specification.elements, specification.reach)
    for chosen in ([0], []):
        model.sweeps.forward(draw_batch(packed, np.array(chosen, int), 2), keep=True)
        assert model.sweeps.gradient(np.ones(len(chosen))).any() == bool(chosen)


def test_power_spectra_are_taken_only_where_they_save_work():
    def products(**choices):
        return len(products_of_sums(Specification(elements=("H",), cutoff=3.5, **choices)))

    assert products(densities=64) == 108
    assert products(densities=64, max_degree=3) == 144
    assert products(densities=24) == products(densities=64, max_degree=1) == products(densities=64, radial=9) == 0


def test_large_structures_run_with_threads_and_small_ones_without_and_both_give_the_reference():
    specification = Specification(elements=("H", "C"), cutoff=3.5, radial=8, densities=5, recursions=2, repulsion="zbl")
    model = random_model(specification, seed=1)
    rng = np.random.default_rng(1)
    large = large_cell(rng, 150)
    small = random_structure(rng, "cluster", [1, 6, 1], np.zeros(3, bool))
    for structure, threaded in ((large, True), (small, False)):
        packed = pack_structures([structure], specification.elements, specification.reach)
        assert draw_batch(packed, np.arange(1), 2).threaded is threaded
        found, expected = model.evaluate(structure), reference_result(model, structure)
        assert deviation(found.energies, expected.energies) < 1e-12
        assert deviation(found.forces, expected.forces) < 1e-12


@pytest.mark.parametrize("asked", [True, False])
def test_a_batch_runs_with_threads_where_that_is_asked_for_whatever_its_size(asked):
    for n_atoms in (3, 150):
        packed = pack_structures([large_cell(np.random.default_rng(1), n_atoms)], ("H", "C"), 3.5)
        assert draw_batch(packed, np.arange(1), 2, threaded=asked).threaded is asked


@pytest.mark.parametrize(
    ("n_atoms", "threaded", "size"),
    [(100, False, 100), (600, False, 120), (130, True, 21), (192, True, 32), (1536, True, 64), (9216, True, 96)],
)
def test_blocks_are_small_where_threads_would_lack_some_and_large_where_there_are_enough(n_atoms, threaded, size):
    lonely = Structure(np.ones(n_atoms, int), 9.0 * np.mgrid[:n_atoms, :1, :1].reshape(3, -1).T)
    batch = draw_batch(pack_structures([lonely], ("H",), 3.5), np.arange(1), 1, threaded)
    first, end, element = batch.blocks.T
    assert first[0] == 0 and (first[1:] == end[:-1]).all() and end[-1] == n_atoms and (element == 0).all()
    assert abs(end - first - size).max() <= 1


def test_a_batch_of_more_pairs_than_32_bits_count_is_refused_with_their_number():
    packed = pack_structures(
        [random_structure(np.random.default_rng(1), "cluster", [1, 6], np.zeros(3, bool))], ("H", "C"), 3.5
    )
    many = packed._replace(first=np.array([0, 2**30, 2**31]))
    with pytest.raises(InputError, match="^2147483648 pairs in one batch: expected less than 2147483648. Give fewer"):
        draw_batch(many, np.arange(1), 2)


@given(models(), structures(), st.floats(0.1, 3.0))
def test_pairs_beyond_the_cutoff_in_the_list_add_exactly_nothing(model, structure, skin):
    """A neighbour list with a skin holds pairs that do not interact; their terms are zeros, not small numbers."""
    specification = model.specification
    results = []
    for reach in (specification.reach, specification.reach + skin):
        packed = pack_structures([structure], specification.elements, reach)
        batch = draw_batch(packed, np.arange(1), len(specification.elements))
        sweeps = model.sweeps
        energies = sweeps.forward(batch)
        values = sweeps.values
        beyond = np.linalg.norm(values.vector, axis=0) >= specification.reach
        forces, virials = sweeps.reverse()
        assert np.array_equal(virials, virials.transpose(0, 2, 1))
        assert not values.radial[beyond].any() and not values.log_slope[beyond].any()
        assert not values.recoil[np.setdiff1d(batch.row[beyond], batch.row[~beyond])].any()
        results.append((batch, energies, forces, virials.sum(axis=0)))
    (few, *exact), (many, *found) = results
    assert many.neighbor.size >= few.neighbor.size
    scale = max(np.abs(exact[2]).max(), 0.01 * np.abs(exact[0]).max())
    # Only the order of the sums may differ.
    for a, b in zip(found, exact):
        assert deviation(a, b, floor=scale) < 1e-12


def test_elements_that_are_absent_take_no_part_and_have_no_gradient():
    specification = Specification(elements=ELEMENTS, cutoff=3.5, radial=8, densities=4, recursions=1)
    model = random_model(specification, seed=2)
    structure = random_structure(np.random.default_rng(2), "cluster", [6, 6, 6], np.zeros(3, bool))
    gradient = loss_gradient(model, structure, 1.0, np.ones((3, 3)), np.eye(3))
    carbon = specification.elements.index("C")
    for name in ("radial_exponents", "radial_centers", "orbital_coefficients"):
        assert gradient[name][carbon].any()
        assert not np.delete(gradient[name], carbon, axis=0).any()
    for name, values in gradient.items():
        if name.startswith(("network", "recursion")):
            assert values.any() == (".C." in name), name


@given(models(), structures(), st.booleans(), seeds)
@settings(max_examples=40)
def test_gradients_in_single_precision_are_those_of_double_precision_to_round_off(model, structure, moving, seed):
    rng, specification = np.random.default_rng(seed), model.specification
    packed = pack_structures([structure], specification.elements, specification.reach)
    batch = draw_batch(packed, np.arange(1), len(specification.elements))
    strain = rng.normal(size=(1, 3, 3))
    arguments = [rng.normal(size=1), rng.normal(size=(batch.species.size, 3)), strain + strain.transpose(0, 2, 1)]
    single, found = model.vector.astype(np.float32), []
    for precision, vector in (("float64", model.vector), ("float64", single), ("float32", single)):
        sweeps = Sweeps(specification, model.constants, precision)
        sweeps.set_parameters(vector)
        sweeps.forward(batch, keep=True)
        sweeps.reverse()
        gradient = sweeps.gradient(*(arguments if moving else arguments[:1]))
        assert gradient.dtype == sweeps.values.radial.dtype == np.dtype(precision)
        found.append(gradient)
    # Layer normalisation of numbers that are nearly the same makes much of little: what rounding parameters alone does.
    rounded = np.linalg.norm(found[1] - found[0])
    assert np.linalg.norm(found[2] - found[1]) < 1e-4 * np.linalg.norm(found[1]) + 10.0 * rounded


@given(models(layer_norms=False), st.lists(structures(most=3), min_size=2, max_size=4), st.booleans(), seeds)
@settings(max_examples=30)
def test_batches_in_turn_leave_nothing_for_one_another(model, structures, spread, seed):
    """Arrays are kept, also those with room for more pairs than the next batch has."""
    rng, specification, found = np.random.default_rng(seed), model.specification, []
    if spread:  # The same atoms with fewer and fewer neighbours.
        one = structures[0]
        structures = [replace(one, positions=n * one.positions, cell=n * one.cell) for n in (1.0, 1.3, 3.0, 1.2)]
    packed = pack_structures(structures, specification.elements, specification.reach)
    batches = [draw_batch(packed, np.array([q]), len(specification.elements)) for q in range(len(structures))]
    direction = rng.normal(size=(max(batch.species.size for batch in batches), 3))
    for sweeps in (model.sweeps, *(Sweeps(specification, model.constants) for _ in batches)):
        sweeps.set_parameters(model.vector)
        found.append([])
        for batch in batches if sweeps is model.sweeps else batches[len(found) - 2 : len(found) - 1]:
            energies, along = sweeps.forward(batch, keep=True), direction[: batch.species.size]
            forces, _ = sweeps.reverse()
            gradient = sweeps.gradient(np.ones(1), along, np.zeros((1, 3, 3)))
            found[-1].append((energies, forces, gradient, sweeps.forces_along(along)))
    in_turn, *alone = found
    for one, (other,) in zip(in_turn, alone, strict=True):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)


@given(models(), structures(), st.booleans())
def test_forces_asked_for_twice_are_the_same(model, structure, keep):
    sweeps = Sweeps(model.specification, model.constants)
    sweeps.set_parameters(model.vector)
    packed = pack_structures([structure], model.specification.elements, model.specification.reach)
    sweeps.forward(draw_batch(packed, np.arange(1), len(model.specification.elements)), keep)
    once, again = sweeps.reverse(), sweeps.reverse()
    assert all(np.array_equal(a, b) for a, b in zip(once, again))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that may be killed by the system")
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("sizes", [(7, 19, 13), (12, 36, 20), (17, 33, 9)])
def test_nothing_beyond_the_ends_of_arrays_is_read_or_written(sizes, precision):
    """The arrays of a batch and of the sweeps end where memory does: what goes on there is killed."""
    radial, densities, width = sizes
    network = NetworkSpecification(widths=(width, width), activation="relu_like")
    specification = Specification(
        elements=ELEMENTS, cutoff=4.0, radial=radial, densities=densities, recursions=1, network=network,
        recursion_network=network,
    )  # fmt: skip
    model, structure = random_model(specification, 0), large_cell(np.random.default_rng(0), 20)
    packed = pack_structures([structure], specification.elements, specification.reach)
    batch = draw_batch(packed, np.arange(1), len(specification.elements))

    def results(batch):
        sweeps = Sweeps(specification, model.constants, precision)
        sweeps.set_parameters(model.vector)
        direction, strain = np.random.default_rng(1).normal(size=structure.positions.shape), np.zeros((1, 3, 3))
        found = [sweeps.forward(batch), *sweeps.reverse(), sweeps.forward(batch, keep=True), *sweeps.reverse()]
        return [*found, sweeps.gradient(np.ones(1), direction, strain)]

    expected = results(batch)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            arrays = {name: array for name, array in batch._asdict().items() if isinstance(array, np.ndarray)}
            moved = {name: at_the_end_of_memory(array) for name, array in arrays.items()}
            with mock.patch("eann_lite.model.sweeps._aligned", before_the_end_of_memory):
                found = results(batch._replace(**moved))
            status = 0 if all(np.array_equal(*pair) for pair in zip(expected, found, strict=True)) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


#: Memory of `before_the_end_of_memory`, which arrays do not keep.
MAPPED = []


def before_the_end_of_memory(size, dtype):
    """New array (size,), filled with NaN, after which there is nothing that may be read or written."""
    n_bytes, page = int(size) * np.dtype(dtype).itemsize, mmap.PAGESIZE
    pages = -(-n_bytes // page)
    MAPPED.append(mmap.mmap(-1, (pages + 1) * page))
    address = ctypes.addressof(ctypes.c_char.from_buffer(MAPPED[-1]))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + pages * page), ctypes.c_size_t(page), 0) == 0
    array = np.frombuffer(MAPPED[-1], dtype, int(size), pages * page - n_bytes) if size else np.empty(0, dtype)
    if array.dtype.kind == "f":
        array[:] = np.nan
    return array


def at_the_end_of_memory(array):
    """A copy of an array there."""
    copy = before_the_end_of_memory(array.size, array.dtype)
    copy[:] = array.reshape(-1)
    return copy.reshape(array.shape)


# Batches


@given(st.lists(structures(), min_size=1, max_size=5), st.integers(0, 2**20))
def test_a_batch_holds_every_atom_and_pair_once_sorted_by_element_in_blocks(items, seed):
    packed = pack_structures(items, ("H", "C"), 3.0)
    chosen = np.random.default_rng(seed).permutation(len(items))
    batch = draw_batch(packed, chosen, 2)
    assert sorted(batch.order.tolist()) == list(range(packed.species.size))
    assert np.all(np.diff(batch.species) >= 0)
    assert np.array_equal(np.diff(packed.offsets)[chosen], np.bincount(batch.structure, minlength=len(items)))
    assert np.array_equal(batch.positions, packed.positions[batch.order])
    covered = [atom for start, stop, _ in batch.blocks.tolist() for atom in range(start, stop)]
    assert covered == list(range(batch.order.size))
    assert all((batch.species[start:stop] == s).all() for start, stop, s in batch.blocks.tolist())
    centre = np.repeat(np.arange(batch.order.size), np.diff(batch.first))
    assert np.array_equal(batch.structure[centre], batch.structure[batch.neighbor])
    vector = batch.positions[batch.neighbor] + batch.images[batch.image] - batch.positions[centre]
    assert (np.linalg.norm(vector, axis=1) < 3.0 + 1e-12).all()
    # A row for each block and each neighbour it has, those of a block and those of an atom listed in order.
    block = np.repeat(np.arange(len(batch.blocks)), np.diff(batch.blocks)[:, 0])[centre]
    rows = sorted(set(zip(batch.row.tolist(), block.tolist(), batch.neighbor.tolist())))
    assert [row for row, _, _ in rows] == list(range(batch.atom_rows.size))
    assert len({named[1:] for named in rows}) == len(rows)
    for b in range(len(batch.blocks)):
        mine = [row for row, of, _ in rows if of == b]
        assert mine == list(range(batch.block_first[b], batch.block_first[b + 1]))
    for j in range(batch.order.size):
        mine = [row for row, _, to in rows if to == j]
        assert batch.atom_rows[batch.atom_first[j] : batch.atom_first[j + 1]].tolist() == mine
    centre_of_packed = np.repeat(np.arange(packed.species.size), np.diff(packed.first))
    assert sorted(zip(batch.order[centre], batch.order[batch.neighbor])) == sorted(
        zip(centre_of_packed, packed.neighbor)
    )


@given(models(), structures())
@settings(max_examples=20)
def test_a_structure_chosen_twice_is_two_structures(model, structure):
    specification = model.specification
    packed = pack_structures([structure], specification.elements, specification.reach)
    batch = draw_batch(packed, np.zeros(2, int), len(specification.elements))
    assert np.array_equal(batch.structure[batch.neighbor], np.repeat(batch.structure, np.diff(batch.first)))
    energies = model.sweeps.forward(batch)
    expected = model.evaluate(structure).energies
    for n in range(2):
        mine = batch.structure == n
        assert deviation(energies[mine][np.argsort(batch.order[mine])], expected) < 1e-12


@pytest.mark.parametrize("pbc", [(True, True, True), (False, True, False), (False, False, False)])
def test_large_structures_are_taken_along_a_curve_whatever_the_order_of_their_atoms(pbc):
    specification = Specification(elements=("H", "C"), cutoff=3.5, radial=4, densities=3, recursions=1)
    model, rng = random_model(specification, seed=3), np.random.default_rng(3)
    structure = replace(large_cell(rng, 600), pbc=np.array(pbc))
    mixed = rng.permutation(600)
    permuted = replace(structure, positions=structure.positions[mixed], numbers=structure.numbers[mixed])
    small = random_structure(rng, "cluster", [1, 6, 1], np.zeros(3, bool))
    found, expected = model.evaluate([small, permuted, small])[1], model.evaluate(structure)
    assert deviation(found.energies, expected.energies[mixed]) < 1e-12
    assert deviation(found.forces, expected.forces[mixed]) < 1e-12
    assert deviation(found.strain_derivative, expected.strain_derivative) < 1e-12
    packed = pack_structures([permuted], specification.elements, specification.reach)
    in_the_order_given = packed._replace(sequence=np.arange(600))
    sizes = [draw_batch(p, np.arange(1), 2).atom_rows.size for p in (packed, in_the_order_given)]
    # The atoms of a block have neighbours in common.
    assert sizes[0] < 0.8 * sizes[1]


@given(st.lists(structures(), min_size=1, max_size=4), st.sampled_from([0, 1, 3, 10**6]), seeds)
def test_a_batch_has_the_vectors_of_its_pairs_however_far_atoms_are_outside_of_their_cell(items, farthest, seed):
    rng = np.random.default_rng(seed)
    moves = [rng.integers(-farthest, farthest + 1, (item.n_atoms, 3)) * item.pbc for item in items]
    items = [replace(item, positions=item.positions + move @ item.cell) for item, move in zip(items, moves)]
    packed = pack_structures(items, ("H", "C"), 3.0)
    batch = draw_batch(packed, np.arange(len(items)), 2)
    centre = np.repeat(np.arange(batch.order.size), np.diff(batch.first))
    vector = batch.positions[batch.neighbor] + batch.images[batch.image] - batch.positions[centre]
    for q, item in enumerate(items):
        pairs = neighbor_pairs(item.positions, item.cell, item.pbc, 3.0)
        for i in range(item.n_atoms):
            mine = slice(pairs.first[i], pairs.first[i + 1])
            expected = item.positions[pairs.neighbor[mine]] + pairs.shift[mine] @ item.cell - item.positions[i]
            (n,) = np.flatnonzero(batch.order == packed.offsets[q] + i)
            found = vector[batch.first[n] : batch.first[n + 1]]
            assert found == pytest.approx(expected, abs=1e-12 * (1.0 + farthest) * 100.0)
    # Few displacements serve all pairs, or as many as there are.
    assert len(batch.images) <= sum(max(1, n) for n in np.diff(packed.first[packed.offsets]))


@given(st.integers(1, 8), st.integers(1, 200), st.integers(1, 100))
def test_structures_of_one_size_are_cut_into_one_piece_or_an_even_number_of_them(n_atoms, n_structures, per_batch):
    offsets, chosen = n_atoms * np.arange(n_structures + 1), np.random.default_rng(0).permutation(n_structures)
    pieces = batches_of_atoms(offsets, chosen, per_batch)
    assert np.array_equal(np.concatenate(pieces), chosen)
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) in (1, n_structures) or len(pieces) % 2 == 0
    assert len(pieces) - 2 <= n_atoms * n_structures / per_batch


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 200), seeds)
def test_a_structure_is_in_the_piece_of_its_last_atom(sizes, per_batch, seed):
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(sizes))[: rng.integers(1, len(sizes) + 1)]
    ends = np.cumsum(np.array(sizes)[chosen])
    n_pieces = max(1, round(ends[-1] / per_batch))
    n_pieces += n_pieces > 1 and n_pieces % 2
    piece = (ends - 1) * n_pieces // ends[-1]
    expected = np.split(chosen, np.flatnonzero(np.diff(piece)) + 1)
    pieces, n_atoms = pieces_and_atoms(offsets, chosen, per_batch)
    assert n_atoms == ends[-1]
    assert [found.tolist() for found in pieces] == [part.tolist() for part in expected]


def test_lengths_of_another_unit_are_refused_before_pairs_fill_the_memory():
    cluster = Structure([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.8]])
    dense = Structure([1], np.zeros((1, 3)), 0.2 * np.eye(3), True, source="bad.xyz, structure 7")
    message = r"bad.xyz, structure 7: 1 atoms in 0.008 Angstrom\^3 have about 3.* neighbours each within 4 Angstrom"
    with pytest.raises(InputError, match=message):
        pack_structures([cluster, cluster, dense], ("H",), 4.0)
