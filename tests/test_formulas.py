"""Scalar formulas of the kernels, one by one."""

import math
from decimal import Context, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eann_lite import formulas, reference
from eann_lite.compiled import compile_loops
from eann_lite.kernels.radial import gaussian_arguments, radial_slopes
from eann_lite.model.specification import ACTIVATIONS


@given(st.floats(-700.0, 700.0))
@example(0.0)
@example(-0.0)
@example(math.log(2) / 2)
def test_exponential_is_right_to_one_unit_in_the_last_place(x):
    expected = math.exp(x)
    assert abs(formulas.exponential(x) - expected) <= math.ulp(expected)


def test_polynomial_of_the_exponential_deviates_by_4e_18_between_whole_powers_of_two():
    """In 40 digits, where the test above sees what rounding leaves of it."""
    coefficients = [1, 1, *map(Decimal, formulas.EXPONENTIAL)]
    with localcontext(Context(prec=40)):
        for n in range(-500, 501):
            r = Decimal(2).ln() / 2 * n / 500
            value = Decimal(0)
            for c in reversed(coefficients):
                value = value * r + c
            assert abs(value / r.exp() - 1) < Decimal("4e-18")


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
        for kind in (formulas.RELU_LIKE, formulas.TANH):
            for value in jitted_activation(kind, arguments):
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


@given(st.floats(-formulas.SATURATED / 2, formulas.SATURATED / 2, exclude_min=True, exclude_max=True))
def test_slopes_of_saturated_tanh_have_all_their_digits(x):
    expected = 1.0 / math.cosh(x) ** 2
    _, slope = formulas.activation(formulas.TANH, x, formulas.activation_gate(formulas.TANH, x, 1.0), 1.0, 1.0)
    # Rounding of the argument of an exponential, too.
    assert slope == pytest.approx(expected, rel=1e-13, abs=0.0)
    assert reference.activate("tanh", x)[1] == pytest.approx(expected, rel=1e-13, abs=0.0)


@pytest.mark.parametrize(
    ("saturated", "precision"), [(formulas.SATURATED, np.float64), (formulas.SATURATED_SINGLE, np.float32)]
)
def test_what_saturated_units_lose_is_less_than_the_last_digit_of_one(saturated, precision):
    limits = np.finfo(precision)
    assert saturated * math.exp(-saturated) < limits.eps
    assert precision(math.tanh(saturated / 2)) == 1.0
    assert math.exp(-saturated) ** 4 > limits.tiny


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("x", [-formulas.SATURATED, -800.0, -1e30, -math.inf])
def test_units_far_out_are_saturated(x, precision):
    one = np.ones(1, precision)
    for sign in (1.0, -1.0):
        found = jitted_values(formulas.TANH, precision([sign * x]), one)
        assert found.tolist() == [sign * math.copysign(1.0, x), 0.0, 0.0]
    for kind in (formulas.SILU, formulas.RELU_LIKE) if x > -math.inf else ():
        assert jitted_values(kind, precision([x]), one).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("saturated", "precision"), [(formulas.SATURATED, np.float64), (formulas.SATURATED_SINGLE, np.float32)]
)
def test_gates_close_at_the_threshold_of_their_precision(saturated, precision):
    for kind, factor in ((formulas.SILU, 1.0), (formulas.RELU_LIKE, 1.0), (formulas.TANH, 0.5)):
        at, one = np.full(1, -factor * saturated, precision), np.ones(1, precision)
        inside = np.nextafter(at, precision(0.0))
        assert jitted_values(kind, at, one)[1] == 0.0 != jitted_values(kind, inside, one)[1]


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_activations_of_what_is_not_a_number_are_none(kind, precision):
    code, one = formulas.ACTIVATION_CODES[kind], np.ones(1, precision)
    assert np.isnan(jitted_values(code, np.full(1, np.nan, precision), one)).all()
    assert np.isfinite(jitted_values(code, one, one)).all()


@compile_loops
def jitted_values(kind, x, one):
    """Value, slope and curvature of an activation with alpha = beta = 1."""
    gate = formulas.activation_gate(kind, x[0], one[0])
    value, slope = formulas.activation(kind, x[0], gate, one[0], one[0])
    return np.array([value, slope, formulas.activation_curvature(kind, x[0], gate, one[0], one[0])])


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
def test_the_slope_of_a_gaussian_is_its_derivative(r, alpha, center):
    """Complex step of the formula written a second time."""
    cutoff, step = 4.5, 1e-30

    def radial(r, alpha, center):
        return np.exp(-alpha * (r - center) ** 2) * ((1 + np.cos(np.pi * r / cutoff)) / 2) ** 2

    f_c, f_c_slope = formulas.cutoff_function(r, cutoff)
    value, slope = jitted_radial_function(r, alpha, center, f_c, f_c_slope / f_c)
    expected = (radial(r, alpha, center), radial(r + 1j * step, alpha, center).imag / step)
    assert (value, slope) == pytest.approx(expected, rel=1e-11, abs=1e-13)
