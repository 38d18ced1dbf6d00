"""Power spectra of weighted orbital sums: P^l_ikk' = sum_a weight_a B_iak B_iak' over the monomials a of degree l.

Densities are sums of squares of linear combinations of the B_iak, so they are linear in these products:

    rho_im = sum_l sum_{k <= k'} P^l_ikk' V^l_kk'm,  with V^l_kkm = W_lkm^2 and V^l_kk'm = 2 W_lkm W_lk'm for k < k'.

Hence Pbar^l_ikk' = dE/dP^l_ikk' = sum_m V^l_kk'm rhobar_im, one product of matrices for all monomials of a degree, and

    Bbar_iak = weight_a (2 Pbar^l_ikk B_iak + sum_{k' != k} Pbar^l_ikk' B_iak').

Eight Gaussians have 36 products for each degree.  They are kept by k' - k, counted round from 7 to 0: eight each with
0, 1, 2 and 3, for k = 0 to 7, and four with 4 (``model.sweeps.products_of_sums`` has them as a table).  So a row of
products is a row of eight times the same row turned, all in registers.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.compiled import compile_loops, helper, helper_on_separate_arrays
from eann_lite.kernels.vectors import (
    INDEX,
    address_of,
    at,
    element_of,
    lanes,
    multiply,
    multiply_add,
    opened,
    plus,
    repeated,
)

GAUSSIANS, PRODUCTS = 8, 36
#: k' - k of a row of products, and how many it has.
ROWS = ((0, 8), (1, 8), (2, 8), (3, 8), (4, 4))


@helper
def power_spectra(x, weight, y):
    """y (n, 36 (L + 1)) = P of the weighted orbital sums x (n, A, 8)."""
    for i in range(x.shape[0]):
        begin = 0
        for l in range(y.shape[1] // PRODUCTS):
            end = begin + (l + 1) * (l + 2) // 2
            _spectrum(x, i, begin, end, weight, y, l * PRODUCTS)
            begin = end


@helper
def power_spectra_tangent(x, x_dot, weight, y):
    """Derivative y of ``power_spectra`` along x_dot."""
    for i in range(x.shape[0]):
        begin = 0
        for l in range(y.shape[1] // PRODUCTS):
            end = begin + (l + 1) * (l + 2) // 2
            _spectrum_tangent(x, x_dot, i, begin, end, weight, y, l * PRODUCTS)
            begin = end


@helper
def power_spectra_reverse(power_bar, x, weight, fresh, y):
    """y (n, A, 8) = or (not fresh) += Bbar from Pbar (n, 36 (L + 1)); with fresh y may be x."""
    for i in range(x.shape[0]):
        begin = 0
        for l in range(power_bar.shape[1] // PRODUCTS):
            end = begin + (l + 1) * (l + 2) // 2
            _spectrum_reverse(x, i, begin, end, weight, power_bar, l * PRODUCTS, fresh, y)
            begin = end


@compile_loops
def fill_power_contraction(products, contraction, v, v_transposed):
    """Fill v (C, M) = V^l_kk'm and v_transposed (M, C), for the rows (l, k, k') of products (C, 3)."""
    for c in range(products.shape[0]):
        l, k, other = products[c, 0], products[c, 1], products[c, 2]
        for m in range(v.shape[1]):
            product = contraction[l, k, m] * contraction[l, other, m]
            v[c, m] = v_transposed[m, c] = product if k == other else product + product


@helper_on_separate_arrays
def add_through_power_contraction(products, contraction, v_bar, contraction_bar):
    """contraction_bar ((L + 1) K, M) += what v_bar (C, M), the derivative with respect to V, means for W."""
    for c in range(products.shape[0]):
        l, k, other = products[c, 0], products[c, 1], products[c, 2]
        for m in range(v_bar.shape[1]):
            bar = v_bar[c, m] + v_bar[c, m]
            contraction_bar[l * GAUSSIANS + k, m] += bar * contraction[l, other, m]
            if k != other:
                contraction_bar[l * GAUSSIANS + other, m] += bar * contraction[l, k, m]


class _Rows:
    """Loads and stores of rows of eight numbers, or parts of them, of an array."""

    def __init__(self, context, builder, kind, value):
        self.builder, (self.element, size) = builder, element_of(kind)
        self.base, self.strides, _ = opened(context, builder, kind, value)
        self.size = ir.Constant(INDEX, size)

    def _place(self, width, column, *indices):
        address = address_of(self.builder, self.base, *zip(indices, self.strides), (column, self.size))
        return at(self.builder, address, ir.VectorType(self.element, width))

    def load(self, *indices):
        """The row with these indices."""
        return self.builder.load(self._place(GAUSSIANS, ir.Constant(INDEX, 0), *indices), align=4)

    def store(self, row, *indices):
        """Put a row there."""
        self.builder.store(row, self._place(GAUSSIANS, ir.Constant(INDEX, 0), *indices), align=4)

    def places_of_products(self, i, column):
        """Where the rows of products stand in row i, from a column on."""
        return [self._place(width, plus(self.builder, column, GAUSSIANS * d), i) for d, width in ROWS]

    def number(self, a):
        """Number a of a vector in all of eight lanes."""
        address = address_of(self.builder, self.base, (a, self.strides[0]))
        return repeated(self.builder, self.builder.load(at(self.builder, address, self.element)), GAUSSIANS)


def _turned(builder, row, d):
    """Number k + d, counted round, for every k."""
    return lanes(builder, row, row, [(k + d) % GAUSSIANS for k in range(GAUSSIANS)]) if d else row


def _times_turned(builder, row, other, d):
    """The numbers of a row and those of another one d places on, as factors of a row of products."""
    turned = _turned(builder, other, d)
    return (row, turned) if d < 4 else tuple(lanes(builder, x, x, range(4)) for x in (row, turned))


def _sums_over_monomials(builder, begin, end, rows, column, i, factors):
    """Code that sets the rows of products, from a column on in row i, to sums over the monomials begin to end.

    factors(a, d): pairs of vectors, whose products monomial a adds to those with k' - k = d.
    """
    kinds = [ir.VectorType(rows.element, width) for _, width in ROWS]
    totals = [cgutils.alloca_once_value(builder, ir.Constant(kind, None)) for kind in kinds]
    with cgutils.for_range_slice(builder, begin, end, ir.Constant(INDEX, 1)) as (a, _):
        of_monomial = factors(a)
        for (d, _), total in zip(ROWS, totals):
            value = builder.load(total)
            for one, other in of_monomial(d):
                value = multiply_add(builder, one, other, value)
            builder.store(value, total)
    for total, place in zip(totals, rows.places_of_products(i, column)):
        builder.store(builder.load(total), place, align=4)


@intrinsic
def _spectrum(typing_context, x, i, begin, end, weight, y, column):
    """y[i, column:column+36] = products of x[i, begin:end]."""

    def generate(context, builder, signature, arguments):
        x, weight, y = (_Rows(context, builder, signature.args[n], arguments[n]) for n in (0, 4, 5))
        _, i, begin, end, _, _, column = arguments

        def factors(a):
            row = x.load(i, a)
            weighted = multiply(builder, weight.number(a), row)
            return lambda d: [_times_turned(builder, weighted, row, d)]

        _sums_over_monomials(builder, begin, end, y, column, i, factors)
        return context.get_dummy_value()

    index = types.intp
    return types.void(x, index, index, index, weight, y, index), generate


@intrinsic
def _spectrum_tangent(typing_context, x, x_dot, i, begin, end, weight, y, column):
    """y[i, column:column+36] = the derivative of ``_spectrum`` along x_dot."""

    def generate(context, builder, signature, arguments):
        x, x_dot, weight, y = (_Rows(context, builder, signature.args[n], arguments[n]) for n in (0, 1, 5, 6))
        _, _, i, begin, end, _, _, column = arguments

        def factors(a):
            row, row_dot, factor = x.load(i, a), x_dot.load(i, a), weight.number(a)
            weighted, weighted_dot = multiply(builder, factor, row), multiply(builder, factor, row_dot)
            return lambda d: [
                _times_turned(builder, weighted, row_dot, d), _times_turned(builder, weighted_dot, row, d),
            ]  # fmt: skip

        _sums_over_monomials(builder, begin, end, y, column, i, factors)
        return context.get_dummy_value()

    index = types.intp
    return types.void(x, x_dot, index, index, index, weight, y, index), generate


@intrinsic
def _spectrum_reverse(typing_context, x, i, begin, end, weight, power_bar, column, fresh, y):
    """y[i, begin:end] = or (not fresh) += derivatives with respect to x[i, begin:end], from power_bar[i, column:]."""

    def generate(context, builder, signature, arguments):
        x, weight, power_bar, y = (_Rows(context, builder, signature.args[n], arguments[n]) for n in (0, 4, 5, 8))
        _, i, begin, end, _, _, column, fresh, _ = arguments
        bars = [builder.load(place, align=4) for place in power_bar.places_of_products(i, column)]
        # What belongs to k' = k + d for every k, for all d from 0 to 7: with k' - k stands k - k', too.
        of_turned = [builder.fadd(bars[0], bars[0]), *bars[1:4], lanes(builder, bars[4], bars[4], [0, 1, 2, 3] * 2)]
        of_turned += [_turned(builder, bars[8 - d], d) for d in (5, 6, 7)]
        with cgutils.for_range_slice(builder, begin, end, ir.Constant(INDEX, 1)) as (a, _):
            row = x.load(i, a)
            total = multiply(builder, of_turned[0], row)
            for d in range(1, GAUSSIANS):
                total = multiply_add(builder, of_turned[d], _turned(builder, row, d), total)
            before = builder.select(fresh, ir.Constant(row.type, None), y.load(i, a))
            y.store(multiply_add(builder, weight.number(a), total, before), i, a)
        return context.get_dummy_value()

    index = types.intp
    return types.void(x, index, index, index, weight, power_bar, index, types.boolean, y), generate
