"""The compiled CPU kernels against the NumPy reference, and their small parts one by one."""

import math
from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
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

from eann_lite import Specification, formulas, reference
from eann_lite.batches import batches_of_atoms, draw_batch, pack_structures
from eann_lite.compiled import Kernel, compile_loops
from eann_lite.kernels.columns import products_of_three_rows, recursive_products, recursive_products_tangent
from eann_lite.kernels.dense import (
    add_squared_product_tangent,
    gathered_product,
    gathered_product_tangent,
    product,
    product_and_uses_tangent,
    scaled_product,
    scaled_product_tangent,
    squared_products,
)
from eann_lite.kernels.pair_gradients import _sums_over_gaussians
from eann_lite.kernels.radial import gaussian_arguments, radial_slopes
from eann_lite.kernels.row_operations import sum_of_rows
from eann_lite.kernels.rows import scale_row
from eann_lite.model.specification import ACTIVATIONS
from eann_lite.model.sweeps import Monomials, Sweeps
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
        assert not values.radial[beyond].any() and not values.log_slope[beyond].any()
        assert not values.pair_gradient[:, beyond].any()
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
    found = []
    for precision in ("float64", "float32"):
        sweeps = Sweeps(specification, model.constants, precision)
        sweeps.set_parameters(model.vector)
        sweeps.forward(batch, keep=True)
        sweeps.reverse()
        gradient = sweeps.gradient(*(arguments if moving else arguments[:1]))
        assert gradient.dtype == sweeps.values.radial.dtype == np.dtype(precision)
        found.append(gradient)
    assert np.linalg.norm(found[1] - found[0]) < 1e-4 * np.linalg.norm(found[0])


@given(models(), structures(), st.booleans())
def test_forces_asked_for_twice_are_the_same(model, structure, keep):
    sweeps = Sweeps(model.specification, model.constants)
    sweeps.set_parameters(model.vector)
    packed = pack_structures([structure], model.specification.elements, model.specification.reach)
    sweeps.forward(draw_batch(packed, np.arange(1), len(model.specification.elements)), keep)
    once, again = sweeps.reverse(), sweeps.reverse()
    assert all(np.array_equal(a, b) for a, b in zip(once, again))


# Formulas


@given(st.floats(-700.0, 700.0))
@example(0.0)
@example(-0.0)
@example(math.log(2) / 2)
def test_exponential_is_right_to_one_unit_in_the_last_place(x):
    expected = math.exp(x)
    assert abs(formulas.exponential(x) - expected) <= math.ulp(expected)


def test_exponential_of_huge_arguments_neither_overflows_nor_turns_negative():
    assert 0.0 <= formulas.exponential(-1e300) < 1e-300
    assert 1e300 < formulas.exponential(1e300) < math.inf


@given(st.floats(-86.0, 86.0, width=32))
@example(0.0)
def test_exponential_in_single_precision_is_right_to_two_units_in_the_last_place(x):
    found = np.float32(formulas.exponential(np.float32(x)))
    assert abs(float(found) - math.exp(x)) <= 2.0 * float(np.spacing(np.float32(math.exp(x))))


def test_formulas_keep_the_precision_of_their_arguments():
    single, double = (np.array([0.7], dtype) for dtype in (np.float32, np.float64))
    for arguments, precision in ((single, np.float32), (double, np.float64)):
        x = arguments[0]
        for value in jitted_activation(formulas.RELU_LIKE, arguments):
            assert value.dtype == precision
        assert np.isclose(jitted_activation(formulas.RELU_LIKE, arguments)[0][0], x / (1.0 + np.exp(-x)), rtol=1e-6)


@compile_loops
def jitted_activation(kind, x):
    """Value and slope as arrays of the types that the formulas give."""
    gate = formulas.activation_gate(kind, x[0], x[0] / x[0])
    value, slope = formulas.activation(kind, x[0], gate, x[0] / x[0], x[0] / x[0])
    return np.array([value]), np.array([slope])


@given(st.floats(0.0, math.pi / 2))
@example(math.pi / 4)
@example(math.pi / 2)
@example(1.4081016213506956)
def test_sine_and_cosine_are_right_to_round_off(x):
    # To 3e-16, beside the rounding of what they are compared with: 3 units in the last place before 1.
    assert formulas.half_pi_sine_cosine(x) == pytest.approx((math.sin(x), math.cos(x)), rel=0.0, abs=3.34e-16)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@given(st.floats(-30, 30), st.floats(0.2, 2.0), st.floats(0.2, 2.0))
def test_activations_and_all_their_derivatives_are_those_of_the_reference(kind, x, alpha, beta):
    code, step = formulas.ACTIVATION_CODES[kind], 1e-30
    learned = (alpha, beta) if kind.endswith("_like") else ()
    value, slope, *by_parameters = (float(v) for v in reference.activate(kind, x, *learned))
    gate = formulas.activation_gate(code, x, beta)
    assert formulas.activation(code, x, gate, alpha, beta) == pytest.approx((value, slope), rel=1e-13, abs=1e-14)
    _, slope_moved, *parameters_moved = reference.activate(kind, x + 1j * step, *learned)
    curvature = slope_moved.imag / step
    assert formulas.activation_curvature(code, x, gate, alpha, beta) == pytest.approx(curvature, rel=1e-12, abs=1e-13)
    if learned:
        expected = (*by_parameters, *(moved.imag / step for moved in parameters_moved))
        found = formulas.activation_parameter_slopes(code, x, gate, alpha, beta)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-13)


@given(st.floats(0.1, 5.0), st.floats(0.5, 5.0))
def test_cutoff_function_is_that_of_the_reference_and_ends_at_zero(r, cutoff):
    expected = tuple(float(v) for v in reference.cutoff_function(r, cutoff))
    assert formulas.cutoff_function(r, cutoff) == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert formulas.cutoff_function(cutoff, cutoff) == formulas.cutoff_function(cutoff + 1.0, cutoff) == (0.0, 0.0)


@compile_loops
def jitted_radial_function(r, alpha, center, f_c, log_slope):
    """R and dR/dr of one Gaussian."""
    centers, exponents, radial, slope = np.full((1, 1), center), np.full((1, 1), alpha), np.empty((1, 1)), np.empty((1, 1))
    gaussian_arguments(centers, 0, exponents, 0, r, radial, 0)
    radial[0, 0] = f_c * formulas.exponential(radial[0, 0])
    radial_slopes(radial, 0, centers, 0, exponents, 0, r, log_slope, slope, 0)
    return radial[0, 0], slope[0, 0]


@given(st.floats(0.1, 4.0), st.floats(0.1, 3.0), st.floats(0.0, 4.0))
def test_slopes_of_a_gaussian_are_its_derivatives(r, alpha, center):
    """Complex step of the formula written a second time."""
    cutoff, step = 4.5, 1e-30

    def radial(r, alpha, center):
        return np.exp(-alpha * (r - center) ** 2) * ((1 + np.cos(np.pi * r / cutoff)) / 2) ** 2

    def radial_slope(r, alpha, center):
        switch = (1 + np.cos(np.pi * r / cutoff)) / 2
        switch_slope = -np.pi / cutoff * np.sin(np.pi * r / cutoff) * switch
        return np.exp(-alpha * (r - center) ** 2) * (switch_slope - 2 * alpha * (r - center) * switch**2)

    f_c, f_c_slope = formulas.cutoff_function(r, cutoff)
    value, slope = jitted_radial_function(r, alpha, center, f_c, f_c_slope / f_c)
    expected = (radial(r, alpha, center), radial(r + 1j * step, alpha, center).imag / step)
    assert (value, slope) == pytest.approx(expected, rel=1e-11, abs=1e-13)
    expected = [
        f(r, alpha + 1j * step * (n == 0), center + 1j * step * (n == 1)).imag / step
        for f in (radial, radial_slope)
        for n in range(2)
    ]
    found = formulas.radial_parameter_slopes(r, alpha, center, value, slope)
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-13)


# Dense products and batches


@numba.njit
def jitted_product(x, w, y, fresh):
    product(x, w, y, fresh)


#: Precisions and how far sums of a few dozen numbers of size 1 may be off.
PRECISIONS = st.sampled_from([(np.float64, 1e-13), (np.float32, 3e-5)])


@given(st.integers(0, 20), st.integers(0, 9), st.integers(1, 29), st.booleans(), PRECISIONS, seeds)
def test_products_are_those_of_numpy_for_every_remainder_of_their_tiles(rows, inner, outer, fresh, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    wide = rng.normal(size=(rows + inner, 40)).astype(dtype)
    w, y = rng.normal(size=(inner, outer)).astype(dtype), rng.normal(size=(rows, outer)).astype(dtype)
    # Contiguous, a part of wider rows, and transposed.
    for x in (wide[:rows, :inner].copy(), wide[:rows, 3 : 3 + inner], wide[:inner, 5 : 5 + rows].T):
        around = np.full((rows + 2, outer + 3), 7.0, dtype)
        around[1:-1, 1:-2] = y
        jitted_product(x, w, around[1:-1, 1:-2], fresh)
        assert around[1:-1, 1:-2] == pytest.approx(x @ w + (0.0 if fresh else y), rel=tolerance, abs=tolerance)
        around[1:-1, 1:-2] = 7.0
        assert np.all(around == 7.0)


@compile_loops
def jitted_gathered_product(x, u, p, v, m, y):
    gathered_product(x, u, p, v, m, y)


@given(st.integers(0, 23), st.integers(0, 9), st.integers(1, 29), st.integers(0, 3), PRECISIONS, seeds)
def test_products_with_products_of_gathered_rows_are_those_of_numpy(rows, inner, outer, p, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    x, u, v = (rng.normal(size=s).astype(dtype) for s in ((rows, inner), (p + inner, outer), (4, outer)))
    m = rng.integers(0, 4, p + inner).astype(np.int32)
    found = np.full((rows + 1, outer + 2), 7.0, dtype)
    jitted_gathered_product(x, u, p, v, m, found[:-1, 1:-1])
    assert found[:-1, 1:-1] == pytest.approx(x @ (u * v[m])[p:], rel=tolerance, abs=tolerance)
    found[:-1, 1:-1] = 7.0
    assert np.all(found == 7.0)


@compile_loops
def jitted_gathered_product_tangent(x, x_dot, u, u_dot, p, v, v_dot, m, y):
    gathered_product_tangent(x, x_dot, u, u_dot, p, v, v_dot, m, y)


@compile_loops
def jitted_product_and_uses_tangent(begin, end, x, x_dot, w, w_dot, u, u_dot, v, v_dot, m, z, sums, fresh, moving):
    product_and_uses_tangent(begin, end, x, x_dot, w, w_dot, u, u_dot, v, v_dot, m, z, sums, fresh, moving)


@given(st.integers(0, 23), st.integers(0, 9), st.integers(1, 29), st.integers(0, 3), PRECISIONS, seeds)
def test_the_derivative_of_products_of_gathered_rows_is_that_of_numpy(rows, inner, outer, p, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    (x, x_dot), (u, u_dot), (v, v_dot) = (
        rng.normal(size=(2, *shape)).astype(dtype) for shape in ((rows, inner), (p + inner, outer), (4, outer))
    )
    m = rng.integers(0, 4, p + inner).astype(np.int32)
    around = np.full((rows + 2, outer + 3), 7.0, dtype)
    jitted_gathered_product_tangent(x, x_dot, u, u_dot, p, v, v_dot, m, around[1:-1, 1:-2])
    expected = x_dot @ (u * v[m])[p:] + x @ (u_dot * v[m] + u * v_dot[m])[p:]
    assert around[1:-1, 1:-2] == pytest.approx(expected, rel=tolerance, abs=5 * tolerance)
    around[1:-1, 1:-2] = 7.0
    assert np.all(around == 7.0)


@given(st.integers(0, 3), st.integers(0, 23), st.integers(1, 29), st.booleans(), st.booleans(), PRECISIONS, seeds)
def test_the_derivative_of_uses_of_a_product_is_that_of_numpy(begin, rows, outer, fresh, moving, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    end = begin + rows
    (x, x_dot), (w, w_dot), (u, u_dot), (v, v_dot) = (
        rng.normal(size=(2, *shape)).astype(dtype)
        for shape in ((rows + 1, 7), (7, outer), (end + 1, outer), (4, outer))
    )
    m = rng.integers(0, 4, end + 1).astype(np.int32)
    z, sums = (np.full((end + 1, outer), n, dtype) for n in (6.0, 7.0))
    still = (x_dot, u_dot, v_dot) if moving else [np.full_like(a, np.nan) for a in (x_dot, u_dot, v_dot)]
    jitted_product_and_uses_tangent(
        begin, end, x, still[0], w, w_dot, u, still[1], v, still[2], m, z, sums, fresh, moving
    )
    p, p_dot = np.zeros((2, end + 1, outer), dtype)
    p[begin:end], p_dot[begin:end] = (x @ w)[:rows], (x @ w_dot + moving * (x_dot @ w))[:rows]
    chosen = np.arange(end + 1)[:, None]
    chosen = (begin <= chosen) & (chosen < end)
    expected = np.where(chosen, u * p_dot + moving * u_dot * p, np.full_like(z, 6.0))
    assert z == pytest.approx(expected, rel=tolerance, abs=5 * tolerance)
    expected = v[m] * p_dot + moving * v_dot[m] * p + (0.0 if fresh else 7.0)
    assert sums == pytest.approx(np.where(chosen, expected, np.full_like(z, 7.0)), rel=tolerance, abs=5 * tolerance)


@compile_loops
def jitted_squared_products(x, w, kind, weight, y):
    squared_products(x, w, kind, weight, y)


@compile_loops
def jitted_scaled_product(x, w, factor, z, y):
    scaled_product(x, w, factor, z, y)


@given(st.integers(0, 21), st.integers(0, 4), st.integers(0, 9), st.integers(1, 19), PRECISIONS, seeds)
def test_squared_and_scaled_products_are_those_of_numpy(rows, monomials, inner, outer, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    # A part of wider rows, as the orbital sums of one step are.
    x = rng.normal(size=(rows, monomials + 1, 2, inner)).astype(dtype)[:, :, 1]
    w, weight = rng.normal(size=(3, inner, outer)).astype(dtype), rng.normal(size=monomials + 1).astype(dtype)
    kind, z = rng.integers(0, 3, monomials + 1), rng.normal(size=(rows, outer)).astype(dtype)
    around = np.full((rows + 2, outer + 3), 7.0, dtype)
    found = around[1:-1, 1:-2]
    jitted_squared_products(x, w, kind, weight, found)
    products = np.einsum("nai,aio->nao", x, w[kind])
    assert found == pytest.approx(np.einsum("a,nao->no", weight, products**2), rel=tolerance, abs=30 * tolerance)
    jitted_scaled_product(x[:, 0], w[kind[0]], 2.5, z, found)
    assert found == pytest.approx(2.5 * z * products[:, 0], rel=tolerance, abs=3 * tolerance)
    found[:] = 7.0
    assert np.all(around == 7.0)


@compile_loops
def jitted_squared_product_tangent(x, x_dot, w, factor, y):
    add_squared_product_tangent(x, x_dot, w, factor, y)


@compile_loops
def jitted_scaled_product_tangent(x, x_dot, w, factor, z, z_dot, y, y_dot):
    scaled_product_tangent(x, x_dot, w, factor, z, z_dot, y, y_dot)


@given(st.integers(0, 13), st.integers(0, 9), st.integers(1, 29), PRECISIONS, seeds)
def test_derivatives_of_squared_and_scaled_products_are_those_of_numpy(rows, inner, outer, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    x, x_dot = rng.normal(size=(2, rows, inner, 2)).astype(dtype)[..., 1]
    w, (z, z_dot) = rng.normal(size=(inner, outer)).astype(dtype), rng.normal(size=(2, rows, outer)).astype(dtype)
    around = np.full((2, rows + 2, outer + 3), 7.0, dtype)
    found, found_dot = around[:, 1:-1, 1:-2]
    jitted_squared_product_tangent(x, x_dot, w, 2.5, found)
    assert found == pytest.approx(7.0 + 2.5 * (x @ w) * (x_dot @ w), rel=tolerance, abs=30 * tolerance)
    jitted_scaled_product_tangent(x, x_dot, w, 2.5, z, z_dot, found, found_dot)
    assert found == pytest.approx(2.5 * z * (x @ w), rel=tolerance, abs=10 * tolerance)
    expected = 2.5 * (z_dot * (x @ w) + z * (x_dot @ w))
    assert found_dot == pytest.approx(expected, rel=tolerance, abs=20 * tolerance)
    found[:] = found_dot[:] = 7.0
    assert np.all(around == 7.0)


@compile_loops
def jitted_scale_row(x, p, factor, z, n):
    scale_row(x, p, factor, z, n)


@given(st.integers(0, 13), st.integers(0, 4), st.integers(0, 4), seeds)
def test_operations_on_single_rows_are_those_of_numpy_for_every_length(columns, p, n, seed):
    x = np.random.default_rng(seed).normal(size=(5, columns))
    around = np.full((7, columns + 5), 7.0)
    jitted_scale_row(x, p, 2.5, around[1:-1, 2:-3], n)
    assert around[1 + n, 2:-3] == pytest.approx(2.5 * x[p], rel=1e-14)
    around[1 + n, 2:-3] = 7.0
    assert np.all(around == 7.0)


@compile_loops
def jitted_sum_of_rows(x, rows, begin, end, z, n):
    sum_of_rows(x, rows, begin, end, z, n)


@given(st.integers(0, 13), st.integers(0, 3), st.integers(0, 9), seeds)
def test_sums_of_rows_are_those_of_numpy_for_every_number_of_rows_and_length(columns, begin, count, seed):
    rng = np.random.default_rng(seed)
    x, rows = rng.normal(size=(5, columns)), rng.integers(0, 5, begin + count + 1).astype(np.int32)
    around = np.full((3, columns + 2), 7.0)
    jitted_sum_of_rows(x, rows, begin, begin + count, around[:, 1:-1], 1)
    assert around[1, 1:-1] == pytest.approx(7.0 + x[rows[begin : begin + count]].sum(axis=0), rel=1e-13, abs=1e-13)
    around[1, 1:-1] = 7.0
    assert np.all(around == 7.0)


@compile_loops
def jitted_monomials(x, x_dot, begin, end, parent, axis, z, z_dot):
    recursive_products(x, begin, end, parent, axis, z)
    recursive_products_tangent(x, x_dot, begin, end, parent, axis, z, z_dot)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 46), PRECISIONS, seeds)
def test_monomials_their_tangents_and_slopes_are_those_of_the_reference(max_degree, begin, pairs, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    end, tables = begin + pairs, Monomials(max_degree)
    x, x_dot = rng.normal(size=(2, 3, end + 1)).astype(dtype)
    z, z_dot = np.full((2, len(tables.parent), pairs + 2), 7.0, dtype)
    weighted, slopes = reference.monomials(x[:, begin:end].T.astype(float), max_degree)
    root = np.sqrt(tables.weight)
    value, slope = weighted / root, slopes / root[:, None]
    jitted_monomials(x, x_dot, begin, end, tables.parent, tables.axis, z, z_dot)
    assert z[:, :pairs] == pytest.approx(value.T, rel=tolerance, abs=tolerance)
    along = np.einsum("pax,xp->ap", slope, x_dot[:, begin:end])
    assert z_dot[:, :pairs] == pytest.approx(along, rel=tolerance, abs=20 * tolerance)
    assert all(np.all(array[:, pairs:] == 7.0) for array in (z, z_dot))
    for a, place_x in enumerate(tables.slope_place):
        for axis, d in enumerate(place_x):
            found = tables.slope_power[d] * value[:, tables.slope_of[d]] if d >= 0 else 0.0
            assert slope[:, a, axis] == pytest.approx(found, rel=1e-12, abs=1e-12)


@compile_loops
def jitted_sums_over_gaussians(begin, end, i, keep, arrays):
    _sums_over_gaussians(begin, end, i, keep, *arrays)


@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 13), st.integers(1, 29), st.booleans(), PRECISIONS, seeds)
@settings(max_examples=200)
def test_sums_of_pair_gradients_are_those_of_numpy(max_degree, steps, pairs, n_radial, keep, precision, seed):
    rng, (dtype, tolerance), tables = np.random.default_rng(seed), precision, Monomials(max_degree)
    n_atoms, begin, n_monomials = 4, 2, len(tables.parent)
    end, i = begin + pairs, 1
    neighbor = rng.integers(0, n_atoms, end + 1).astype(np.int32)
    species = rng.integers(0, 2, n_atoms)
    angular, slopes, sums_bar, coefficients, centers, exponents, distance, log_slope, radial = (
        rng.normal(size=size).astype(dtype)
        for size in (
            (n_monomials, pairs + 1), (tables.slope_of.size, pairs + 1), (n_atoms, n_monomials, steps + 1, n_radial),
            (steps + 1, n_atoms, n_radial), (2, n_radial), (2, n_radial), (1, pairs + 1), end + 1, (end + 1, n_radial),
        )
    )  # fmt: skip
    radial_bar, sums = np.full((end + 1, n_radial), 7.0, dtype), np.full((4, pairs + 1), 7.0, dtype)
    jitted_sums_over_gaussians(
        begin, end, i, keep,
        (angular, slopes, tables.slope_place, sums_bar, coefficients, neighbor, species, centers, exponents, distance,
         log_slope, radial, radial_bar, sums),
    )  # fmt: skip
    own, j = slice(begin, end), neighbor[begin:end]
    z_pak = np.einsum("atk,tpk->pak", sums_bar[i], coefficients[:, j])
    bar_pk = np.einsum("ap,pak->pk", angular[:, :pairs], z_pak)
    # Place -1, for a derivative that is zero everywhere, is the last row.
    slope_pxa = np.vstack([slopes, np.zeros(pairs + 1)])[:, :pairs][tables.slope_place.T].transpose(2, 0, 1)
    delta_pk = distance[0, :pairs, None] - centers[species[j]]
    slope_pk = radial[own] * (log_slope[own, None] - 2.0 * exponents[species[j]] * delta_pk)
    expected = [*np.einsum("pk,pxa,pak->xp", radial[own], slope_pxa, z_pak), np.sum(bar_pk * slope_pk, axis=1)]
    scale = tolerance * (10.0 + np.abs(expected).max(initial=0.0)) * n_monomials
    assert sums[:, :pairs] == pytest.approx(np.array(expected), abs=scale)
    assert radial_bar[own] == pytest.approx(bar_pk if keep else np.full_like(bar_pk, 7.0), abs=scale)
    radial_bar[own] = sums[:, :pairs] = 7.0
    assert np.all(radial_bar == 7.0) and np.all(sums == 7.0)


@compile_loops
def jitted_products_of_three_rows(x, begin, end, y, z, sums):
    products_of_three_rows(x, begin, end, y, z, sums)


@given(st.integers(0, 3), st.integers(0, 26), PRECISIONS, seeds)
def test_products_of_three_rows_are_those_of_numpy_in_double_precision(begin, count, precision, seed):
    rng, (dtype, _) = np.random.default_rng(seed), precision
    end = begin + count
    x, y = rng.normal(size=(2, 3, end + 1)).astype(dtype)
    z, sums = np.full((3, 3), 7.0), np.full(3, 7.0)
    jitted_products_of_three_rows(x, begin, end, y, z, sums)
    x, y = x[:, begin:end].astype(float), y[:, :count].astype(float)
    assert z == pytest.approx(x @ y.T, rel=1e-13, abs=1e-13)
    assert sums == pytest.approx(y.sum(axis=1), rel=1e-13, abs=1e-13)


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
    assert np.array_equal(batch.reverse[batch.reverse], np.arange(batch.neighbor.size))
    assert np.array_equal(centre[batch.reverse], batch.neighbor)
    vector = batch.positions[batch.neighbor] + batch.images[batch.image] - batch.positions[centre]
    assert vector[batch.reverse] == pytest.approx(-vector, abs=1e-12)
    assert (np.linalg.norm(vector, axis=1) < 3.0 + 1e-12).all()
    centre_of_packed = np.repeat(np.arange(packed.species.size), np.diff(packed.first))
    assert sorted(zip(batch.order[centre], batch.order[batch.neighbor])) == sorted(
        zip(centre_of_packed, packed.neighbor)
    )


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


def test_compiled_code_is_kept_in_a_folder_named_by_the_sources(tmp_path, monkeypatch):
    from eann_lite import compiled

    monkeypatch.setenv("EANN_LITE_CACHE", str(tmp_path))
    compiled.cache_directory.cache_clear()
    try:
        assert compiled.cache_directory() == str(tmp_path / compiled.source_digest())

        @compile_loops
        def one_more(x):
            return x + 1

        assert one_more(1) == 2
        assert [path for path in tmp_path.rglob("*.nbi") if compiled.source_digest() in str(path)]
    finally:
        compiled.cache_directory.cache_clear()


def test_serial_and_threaded_variants_of_a_kernel_are_the_same_function():
    from numba import prange

    @Kernel
    def squares(x, y):
        for i in prange(x.size):
            y[i] = x[i] * x[i]

    x = np.arange(5.0)
    for threaded in (False, True):
        y = np.empty(5)
        squares(threaded, x, y)
        assert np.array_equal(y, x * x)
