"""The scalar formulas of the model, value and derivatives together, written once for every compiled backend.

Everything here takes and gives plain numbers (no arrays, no Python objects), so that CPU kernels and, later, CUDA
kernels call the same functions.  The plain NumPy version of all of it stands in ``reference``.
"""

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from eann_lite.compiled import FASTMATH, formula

RELU_LIKE, TANH_LIKE, SILU, TANH, IDENTITY = 0, 1, 2, 3, 4
#: Activation names of a specification and their codes in kernels.
ACTIVATION_CODES = {"relu_like": RELU_LIKE, "tanh_like": TANH_LIKE, "silu": SILU, "tanh": TANH}

#: From here on 1 / (1 + exp(y)) is taken for 0: it is 4e-18, in single precision 2e-9.  Times y, as in silu, it is less
#: than the last digit of 1, and the product of four of them is a normal number.
SATURATED, SATURATED_SINGLE = 40.0, 20.0

# Coulomb constant e^2 / (4 pi eps0) in eV Angstrom (CODATA 2018) and the universal screening of Ziegler, Biersack and
# Littmark, "The Stopping and Range of Ions in Matter" (1985): phi(x) = sum_n ZBL_FACTORS[n] exp(-ZBL_RATES[n] x).
COULOMB = 14.399645478425668
ZBL_FACTORS = (0.18175, 0.50986, 0.28022, 0.02817)
ZBL_RATES = (3.19980, 0.94229, 0.40290, 0.20162)
ZBL_LENGTH = 0.8854 * 0.529177210903


@intrinsic
def _float_bits(typing_context, x):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(signature.return_type.bitwidth))

    return (types.int32 if x == types.float32 else types.int64)(x), generate


@intrinsic
def _power_of_two(typing_context, n):
    """2^n from the bits of n, int64 or int32, which become the exponent of a float of that size."""
    bias, shift, kind = (127, 23, types.float32) if n == types.int32 else (1023, 52, types.float64)

    def generate(context, builder, signature, arguments):
        bits = arguments[0].type
        exponent = builder.shl(builder.add(arguments[0], ir.Constant(bits, bias)), ir.Constant(bits, shift))
        return builder.bitcast(exponent, context.get_value_type(kind))

    return kind(n), generate


def _by_precision(double, single):
    """A function of one number for compiled code: one formula or the other, as its argument is float64 or float32."""

    def chosen(x):
        """Compiled code alone calls it."""

    @overload(chosen, jit_options={"fastmath": FASTMATH, "forceinline": True})
    def by_type(x):
        if x == types.float32:
            return lambda x: single(x)
        return lambda x: double(x)

    return chosen


#: Coefficients of r^2 to r^11 in the polynomial 1 + r + ... that deviates least from exp(r) for |r| <= ln(2) / 2,
#: relative to it (by E. Remez' exchange): by 4e-18, with these numbers.  Taylor's does by 6e-18, with two terms more.
EXPONENTIAL = (
    0.5000000000000011, 0.16666666666666421, 0.04166666666653018, 0.008333333333494905, 0.0013888888943186764,
    0.00019841269497209967, 2.4801493773355715e-05, 2.7557599879919236e-06, 2.7629968796513574e-07,
    2.4994605993664667e-08,
)  # fmt: skip


@formula
def _exponential_double(x):
    """exp(r) by 1 + r + ``EXPONENTIAL``; arguments are clamped to [-708, 709]."""
    x = min(max(x, -708.0), 709.0)
    # Adding and subtracting 1.5 * 2^52 rounds to the nearest whole number, which then stands in the lowest bits.
    shifted = x * 1.4426950408889634 + 6755399441055744.0
    n = shifted - 6755399441055744.0
    r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    square = r * r
    fourth = square * square
    # Short chains of multiply-adds side by side: for one long chain a processor has to wait.
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 = EXPONENTIAL
    low = (c2 + r * c3) + square * (c4 + r * c5)
    middle = (c6 + r * c7) + square * (c8 + r * c9)
    high = c10 + r * c11
    p = 1.0 + (r + square * (low + fourth * (middle + fourth * high)))
    return p * _power_of_two(_float_bits(shifted))


@formula
def _exponential_single(x):
    """exp(r) by such a polynomial of degree 6, which deviates by 4e-9; arguments are clamped to [-87, 88]."""
    x = min(max(x, -87.0), 88.0)
    shifted = x * 1.4426950408889634 + 12582912.0
    n = shifted - 12582912.0
    r = (x - n * 0.693359375) + n * 2.12194440054690582767e-04
    square = r * r
    low = 0.49999994 + r * 0.16666521
    high = 0.041668389 + r * 0.00836871
    p = 1.0 + (r + square * (low + square * (high + square * 0.0013814613)))
    return p * _power_of_two(_float_bits(shifted))


_exponential_of = _by_precision(_exponential_double, _exponential_single)


@formula
def exponential(x):
    """exp(x) to 1 ulp, in float32 to 2, in arithmetic that LLVM vectorises: Numba from PyPI has no vector mathematics library.

    x = n ln 2 + r with |r| <= ln(2) / 2, and exp(x) = 2^n exp(r).  Arguments are clamped to where floats are normal.
    """
    return _exponential_of(x)


@formula
def half_pi_sine_cosine(x):
    """sin(x) and cos(x) for 0 <= x <= pi / 2 to 3e-16, in arithmetic that LLVM vectorises.

    Taylor series around pi / 4, where sine and cosine are equal: |x - pi / 4| <= 0.79, remainder below 1e-17.
    """
    z = x - 0.25 * math.pi
    q = z * z
    c = 1.0 / 2432902008176640000.0
    c = c * q - 1.0 / 6402373705728000.0
    c = c * q + 1.0 / 20922789888000.0
    c = c * q - 1.0 / 87178291200.0
    c = c * q + 1.0 / 479001600.0
    c = c * q - 1.0 / 3628800.0
    c = c * q + 1.0 / 40320.0
    c = c * q - 1.0 / 720.0
    c = c * q + 1.0 / 24.0
    c = c * q - 0.5
    c = c * q + 1.0
    s = -1.0 / 121645100408832000.0
    s = s * q + 1.0 / 355687428096000.0
    s = s * q - 1.0 / 1307674368000.0
    s = s * q + 1.0 / 6227020800.0
    s = s * q - 1.0 / 39916800.0
    s = s * q + 1.0 / 362880.0
    s = s * q - 1.0 / 5040.0
    s = s * q + 1.0 / 120.0
    s = s * q - 1.0 / 6.0
    s = z + z * (s * q)
    return math.sqrt(0.5) * (c + s), math.sqrt(0.5) * (c - s)


@formula
def cutoff_function(r, r_c):
    """f_c = [(1 + cos(pi r / r_c)) / 2]^2 = cos(pi r / (2 r_c))^4 and its derivative, both 0 from r_c on."""
    sine, cosine = half_pi_sine_cosine(min(0.5 * math.pi / r_c * r, 0.5 * math.pi))
    if r >= r_c:
        cosine = 0.0
    cube = cosine * cosine * cosine
    return cube * cosine, -2.0 * math.pi / r_c * cube * sine


@formula
def cutoff_curvature(r, r_c):
    """Second derivative of f_c."""
    sine, cosine = half_pi_sine_cosine(min(0.5 * math.pi / r_c * r, 0.5 * math.pi))
    if r >= r_c:
        return 0.0
    square = (math.pi / r_c) * (math.pi / r_c) * cosine * cosine
    return square * (3.0 * sine * sine - cosine * cosine)


@formula
def radial_curvature(r, alpha, center, f_c, f_c_slope, f_c_curvature):
    """d2R/dr2 = exp(-alpha d^2) [f_c'' - 4 alpha d f_c' + (4 alpha^2 d^2 - 2 alpha) f_c] with d = r - center."""
    d = r - center
    by_slope = 4.0 * alpha * d
    return exponential(-alpha * d * d) * (f_c_curvature - by_slope * f_c_slope + alpha * (by_slope * d - 2.0) * f_c)


@formula
def _tail_up_to(y, saturated):
    # What is not a number is not far out, and stays what it is.
    far = y >= saturated
    tail = 1.0 / (1.0 + exponential(saturated if far else y))
    return 0.0 if far else tail


@formula
def _tail_double(y):
    return _tail_up_to(y, SATURATED)


@formula
def _tail_single(y):
    return _tail_up_to(y, SATURATED_SINGLE)


_tail_of = _by_precision(_tail_double, _tail_single)


@formula
def logistic_tail(y):
    """1 / (1 + exp(y)), and 0 from ``SATURATED`` on (``SATURATED_SINGLE`` in single precision).

    Networks of saturated units would have products of such numbers, too small to be normal, which take many times as
    long and matter to nobody.
    """
    return _tail_of(y)


@formula
def activation_gate(kind, x, beta):
    """What takes long in an activation, and gives all its derivatives by a few products.

    relu_like and silu: s = 1 / (1 + exp(-beta x)); tanh_like: q = 1 / sqrt(1 + (beta x)^2);
    tanh: h = 1 / (1 + exp(2 |x|)) with the sign of x, so that 1 - |tanh(x)| = 2 |h| has all its digits.
    """
    if kind == IDENTITY:
        return 1.0
    if kind == TANH_LIKE:
        return 1.0 / math.sqrt(1.0 + beta * beta * x * x)
    if kind == TANH:
        return math.copysign(logistic_tail(2.0 * abs(x)), x)
    if kind == SILU:
        return logistic_tail(-x)
    return logistic_tail(-beta * x)


@formula
def activation(kind, x, gate, alpha, beta):
    """Activation and its first derivative with respect to x, from its gate.

    relu_like: alpha silu(beta x) with silu(y) = y / (1 + exp(-y)); tanh_like: alpha x / sqrt(1 + (beta x)^2).
    """
    if kind == IDENTITY:
        return x, 1.0
    if kind == TANH_LIKE:
        return alpha * x * gate, alpha * gate * gate * gate
    if kind == TANH:
        tail = abs(gate)
        return math.copysign(1.0 - 2.0 * tail, gate), 4.0 * tail * (1.0 - tail)
    if kind == SILU:
        return x * gate, gate * (1.0 + x * (1.0 - gate))
    y = beta * x
    # Here and below bracketed so that compilers, which do not reassociate, see what formulas have in common.
    return alpha * (y * gate), alpha * beta * (gate * (1.0 + y * (1.0 - gate)))


@formula
def activation_curvature(kind, x, gate, alpha, beta):
    """Second derivative of the activation with respect to x, from its gate."""
    if kind == IDENTITY:
        return 0.0
    if kind == TANH_LIKE:
        return -3.0 * alpha * beta * beta * x * gate * gate * gate * gate * gate
    if kind == TANH:
        tail = abs(gate)
        return math.copysign(1.0 - 2.0 * tail, gate) * (-8.0 * tail * (1.0 - tail))
    if kind == SILU:
        return gate * (1.0 - gate) * (2.0 + x * (1.0 - 2.0 * gate))
    y = beta * x
    return alpha * beta * beta * (gate * (1.0 - gate) * (2.0 + y * (1.0 - 2.0 * gate)))


@formula
def activation_parameter_slopes(kind, x, gate, alpha, beta):
    """d act/d alpha, d act/d beta and the derivatives of both with respect to x, of a learned activation."""
    if kind == TANH_LIKE:
        cube = gate * gate * gate
        return x * gate, -alpha * beta * x * x * x * cube, cube, -3.0 * alpha * beta * x * x * cube * gate * gate
    y = beta * x
    slope = gate * (1.0 + y * (1.0 - gate))
    curvature = gate * (1.0 - gate) * (2.0 + y * (1.0 - 2.0 * gate))
    return y * gate, alpha * x * slope, beta * slope, alpha * (slope + y * curvature)


@formula
def zbl_pair(r, z_i, z_j, r_c):
    """Repulsion of one pair in eV, Z_i Z_j e^2 / r phi(r / a) f_c(r; r_c), and its derivative with respect to r.

    a = 0.8854 a_0 / (Z_i^0.23 + Z_j^0.23); the switch is the model's own cutoff function.
    """
    f_c, f_c_slope = cutoff_function(r, r_c)
    inverse_length = (z_i**0.23 + z_j**0.23) / ZBL_LENGTH
    phi = 0.0
    phi_slope = 0.0
    for n in range(4):
        term = ZBL_FACTORS[n] * exponential(-ZBL_RATES[n] * inverse_length * r)
        phi += term
        phi_slope -= ZBL_RATES[n] * inverse_length * term
    bare = COULOMB * z_i * z_j / r
    value = bare * phi * f_c
    return value, bare * (phi_slope * f_c + phi * f_c_slope) - value / r


@formula
def zbl_curvature(r, z_i, z_j, r_c):
    """Second derivative of ``zbl_pair`` with respect to r."""
    f_c, f_c_slope = cutoff_function(r, r_c)
    inverse_length = (z_i**0.23 + z_j**0.23) / ZBL_LENGTH
    phi = 0.0
    phi_slope = 0.0
    phi_curvature = 0.0
    for n in range(4):
        rate = ZBL_RATES[n] * inverse_length
        term = ZBL_FACTORS[n] * exponential(-rate * r)
        phi += term
        phi_slope -= rate * term
        phi_curvature += rate * rate * term
    product = phi * f_c
    product_slope = phi_slope * f_c + phi * f_c_slope
    product_curvature = phi_curvature * f_c + 2.0 * phi_slope * f_c_slope + phi * cutoff_curvature(r, r_c)
    return COULOMB * z_i * z_j / r * (product_curvature - 2.0 / r * (product_slope - product / r))


@formula
def huber(size, limit):
    """h(x) = x^2 up to ``limit``, linear beyond, and h'(x) / x; for x >= 0."""
    if size > limit:
        return limit * (2.0 * size - limit), 2.0 * limit / size
    return size * size, 2.0
