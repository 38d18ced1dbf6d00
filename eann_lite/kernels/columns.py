"""Operations on many pairs side by side: rows are components or monomials, columns are pairs."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.kernels.vectors import (
    INDEX,
    VECTORS_AHEAD,
    address_of,
    at,
    element_of,
    filled,
    multiply,
    multiply_add,
    opened,
    plus,
    prefetch,
    repeated,
    square_root,
    sum_of_lanes,
)


@intrinsic
def products_of_three_rows(typing_context, x, begin, end, y, z, sums):
    """z[a, b] = sum_p x[a, p] y[b, p - begin] and sums[b] = sum_p y[b, p - begin] for p from begin to end.

    x and y, of one precision with contiguous rows, have three or more, of which the first three count; z (3, 3), sums
    (3,) in double precision, as the sums are.
    """

    def generate(context, builder, signature, arguments):
        x, y, z = (_Columns(context, builder, signature.args[c], arguments[c]) for c in (0, 3, 4))
        sums, _, _ = opened(context, builder, signature.args[5], arguments[5])
        begin, end, eight = arguments[1], arguments[2], ir.Constant(INDEX, 8)
        in_eights = builder.add(begin, builder.mul(builder.sdiv(builder.sub(end, begin), eight), eight))
        element, double = element_of(signature.args[0])[0], ir.DoubleType()
        rows = [ir.Constant(INDEX, row) for row in range(3)]

        def along(width, start, stop):
            """The twelve sums over columns start to stop, ``width`` at a time."""
            kind, wide = (ir.VectorType(t, width) if width > 1 else t for t in (element, double))
            zero = ir.Constant(wide, None if width > 1 else 0.0)
            totals = [cgutils.alloca_once_value(builder, zero) for _ in range(12)]
            with cgutils.for_range_slice(builder, start, stop, ir.Constant(INDEX, width)) as (p, _):
                columns = (x, p), (y, builder.sub(p, begin))
                loaded = [[array.load(kind, row, column) for row in rows] for array, column in columns]
                if element != double:
                    loaded = [[builder.fpext(value, wide) for value in values] for values in loaded]
                for n, total in enumerate(totals):
                    a, b = divmod(n, 3)
                    before, other = builder.load(total), loaded[1][b]
                    added = multiply_add(builder, loaded[0][a], other, before) if a < 3 else builder.fadd(other, before)
                    builder.store(added, total)
            return [sum_of_lanes(builder, builder.load(total), width) for total in totals]

        ends = zip(along(8, begin, in_eights), along(1, in_eights, end))
        for n, (most, rest) in enumerate(ends):
            total = builder.fadd(most, rest)
            if n < 9:
                z.store(total, rows[n // 3], rows[n % 3])
            else:
                place = address_of(builder, sums, (rows[n - 9], ir.Constant(INDEX, 8)))
                builder.store(total, at(builder, place, double))
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, y, z, sums), generate


def _over_columns(builder, count, element, body):
    """Code that calls body(kind, c) for all columns from 0 to count; kind holds those from c on that it works on.

    The last whole cache line may overlap the one before, so body must give the same when it is done twice.
    """
    per_line = 64 // (4 if element == ir.FloatType() else 8)
    zero, wide = ir.Constant(INDEX, 0), ir.Constant(INDEX, per_line)
    with builder.if_else(builder.icmp_signed(">=", count, wide)) as (many, few):
        with many:
            last = builder.sub(count, wide)
            with cgutils.for_range_slice(builder, zero, last, wide) as (c, _):
                body(ir.VectorType(element, per_line), c)
            body(ir.VectorType(element, per_line), last)
        with few:
            start = zero
            for width in (4, 1):
                step = ir.Constant(INDEX, width)
                stop = builder.add(start, builder.mul(builder.sdiv(builder.sub(count, start), step), step))
                with cgutils.for_range_slice(builder, start, stop, step) as (c, _):
                    body(ir.VectorType(element, width) if width > 1 else element, c)
                start = stop


class _Columns:
    """Loads and stores of some columns of a two-dimensional array, row by row."""

    def __init__(self, context, builder, array_type, value):
        self.builder, self.size = builder, ir.Constant(INDEX, element_of(array_type)[1])
        self.base, (self.stride, _), _ = opened(context, builder, array_type, value)

    def _address(self, row, column):
        return address_of(self.builder, self.base, (row, self.stride), (column, self.size))

    def _place(self, kind, row, column):
        return at(self.builder, self._address(row, column), kind)

    def load(self, kind, row, column):
        return self.builder.load(self._place(kind, row, column), align=4)

    def ask_for_later(self, column):
        """Ask for the vectors of later pairs than those from a column on."""
        for axis in range(3):
            prefetch(self.builder, self._address(ir.Constant(INDEX, axis), plus(self.builder, column, VECTORS_AHEAD)))

    def store(self, value, row, column):
        self.builder.store(value, self._place(value.type, row, column), align=4)


@intrinsic
def ask_for_vectors(typing_context, x, begin, end):
    """Ask for the vectors x (3, P) of so many pairs as from begin to end, ``VECTORS_AHEAD`` pairs later."""

    def generate(context, builder, signature, arguments):
        x = _Columns(context, builder, signature.args[0], arguments[0])
        per_line = 64 // element_of(signature.args[0])[1]
        with cgutils.for_range_slice(builder, *arguments[1:], ir.Constant(INDEX, per_line)) as (p, _):
            x.ask_for_later(p)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp), generate


def _tables(context, builder, signature, arguments, places):
    """Function that gives element a of each table of whole numbers (A,), and A."""
    tables = [opened(context, builder, signature.args[place], arguments[place]) for place in places]
    return (
        lambda a: [builder.load(at(builder, address_of(builder, t[0], (a, t[1][0])), INDEX)) for t in tables],
        tables[0][2][0],
    )


@intrinsic
def recursive_products(typing_context, x, begin, end, parent, axis, z):
    """z[0] = 1 and z[a] = z[parent[a]] x[axis[a]] for a = 1, 2, ...; columns begin to end of x, in z from 0 on.

    parent[a] < a; x (3, P) and z (A, ..) with contiguous rows.
    """

    def generate(context, builder, signature, arguments):
        begin, zero, one = arguments[1], ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
        count, element = builder.sub(arguments[2], begin), element_of(signature.args[0])[0]
        x, z = (_Columns(context, builder, signature.args[n], arguments[n]) for n in (0, 5))
        row_of, n_rows = _tables(context, builder, signature, arguments, (3, 4))

        def first(kind, c):
            x.ask_for_later(builder.add(begin, c))
            z.store(filled(kind, 1.0), zero, c)

        _over_columns(builder, count, element, first)
        with cgutils.for_range_slice(builder, one, n_rows, one) as (a, _):
            row, component = row_of(a)

            def body(kind, c):
                along = x.load(kind, component, builder.add(begin, c))
                z.store(multiply(builder, z.load(kind, row, c), along), a, c)

            _over_columns(builder, count, element, body)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, parent, axis, z), generate


@intrinsic
def recursive_products_tangent(typing_context, x, x_dot, begin, end, parent, axis, z, z_dot):
    """Tangent of ``recursive_products`` after it.

    z_dot[0] = 0 and z_dot[a] = z_dot[parent[a]] x[axis[a]] + z[parent[a]] x_dot[axis[a]]; columns of x_dot as of x.
    """

    def generate(context, builder, signature, arguments):
        begin, zero, one = arguments[2], ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
        count, element = builder.sub(arguments[3], begin), element_of(signature.args[0])[0]
        x, x_dot, z, z_dot = (_Columns(context, builder, signature.args[n], arguments[n]) for n in (0, 1, 6, 7))
        row_of, n_rows = _tables(context, builder, signature, arguments, (4, 5))

        def first(kind, c):
            x_dot.ask_for_later(builder.add(begin, c))
            z_dot.store(filled(kind, 0.0), zero, c)

        _over_columns(builder, count, element, first)
        with cgutils.for_range_slice(builder, one, n_rows, one) as (a, _):
            row, component = row_of(a)

            def body(kind, c):
                p = builder.add(begin, c)
                product = multiply(builder, z.load(kind, row, c), x_dot.load(kind, component, p))
                z_dot.store(
                    multiply_add(builder, z_dot.load(kind, row, c), x.load(kind, component, p), product), a, c
                )

            _over_columns(builder, count, element, body)
        return context.get_dummy_value()

    return types.void(x, x_dot, types.intp, types.intp, parent, axis, z, z_dot), generate


@intrinsic
def scaled_rows(typing_context, x, rows, factors, count, z):
    """z[d] = factors[d] x[rows[d]] in columns 0 to ``count``; rows of x and z are contiguous."""

    def generate(context, builder, signature, arguments):
        x, z = (_Columns(context, builder, signature.args[n], arguments[n]) for n in (0, 4))
        row_of, n_rows = _tables(context, builder, signature, arguments, (1,))
        base, strides, _ = opened(context, builder, signature.args[2], arguments[2])
        element = element_of(signature.args[0])[0]
        with cgutils.for_range(builder, n_rows) as loop:
            (row,) = row_of(loop.index)
            factor = builder.load(at(builder, address_of(builder, base, (loop.index, strides[0])), element))

            def body(kind, c):
                factors = repeated(builder, factor, kind.count) if isinstance(kind, ir.VectorType) else factor
                z.store(multiply(builder, factors, x.load(kind, row, c)), loop.index, c)

            _over_columns(builder, arguments[3], element, body)
        return context.get_dummy_value()

    return types.void(x, rows, factors, types.intp, z), generate


@intrinsic
def lengths(typing_context, x, begin, end, z):
    """z[0] = lengths of the columns begin to end of x (3, P), from column 0 on; rows are contiguous."""

    def generate(context, builder, signature, arguments):
        begin, zero = arguments[1], ir.Constant(INDEX, 0)
        x, z = (_Columns(context, builder, signature.args[n], arguments[n]) for n in (0, 3))

        def body(kind, c):
            along = [x.load(kind, ir.Constant(INDEX, axis), builder.add(begin, c)) for axis in range(3)]
            square = multiply(builder, along[0], along[0])
            for value in along[1:]:
                square = multiply_add(builder, value, value, square)
            z.store(square_root(builder, square), zero, c)

        _over_columns(builder, builder.sub(arguments[2], begin), element_of(signature.args[0])[0], body)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, z), generate


@intrinsic
def add_along(typing_context, y, x, begin, end, distance, z):
    """z[a] = y[a] + y[3] x[a, begin:end] / distance[0] for a = 0, 1, 2; columns of y, distance and z from 0 on.

    Rows are contiguous.
    """

    def generate(context, builder, signature, arguments):
        begin = arguments[2]
        y, x, distance, z = (_Columns(context, builder, signature.args[n], arguments[n]) for n in (0, 1, 4, 5))
        zero, last = ir.Constant(INDEX, 0), ir.Constant(INDEX, 3)

        def body(kind, c):
            central = builder.fdiv(y.load(kind, last, c), distance.load(kind, zero, c))
            for axis in range(3):
                row = ir.Constant(INDEX, axis)
                along = x.load(kind, row, builder.add(begin, c))
                z.store(multiply_add(builder, central, along, y.load(kind, row, c)), row, c)

        _over_columns(builder, builder.sub(arguments[3], begin), element_of(signature.args[0])[0], body)
        return context.get_dummy_value()

    return types.void(y, x, types.intp, types.intp, distance, z), generate
