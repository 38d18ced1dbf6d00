"""Operations on single rows of K numbers, and sums of rows, as explicit vectors."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.kernels.vectors import (
    INDEX,
    address_of,
    at,
    element_of,
    first_lanes,
    index_at,
    load,
    opened,
    plus,
    prefetch,
    repeated,
    store,
)


def row_operation(formula):
    """Intrinsic operation(x, p, y, q, ..., numbers, ..., z, n): row z[n] from rows x[p], y[q], ... and numbers.

    Arrays (n, K) with contiguous rows, each followed by the index of its row; numbers are floats.  The last array is
    written: formula(builder, *rows, *numbers) gives the vector.
    """

    @intrinsic
    def operation(typing_context, *arguments):
        def generate(context, builder, signature, packed):
            (kinds,), values = signature.args, cgutils.unpack_tuple(builder, packed[0])
            rows, numbers = [], []
            for n, (kind, value) in enumerate(zip(kinds, values)):
                if isinstance(kind, types.Array):
                    base, strides, shape = opened(context, builder, kind, value)
                    index = context.cast(builder, values[n + 1], kinds[n + 1], types.intp)
                    rows.append(address_of(builder, base, (index, strides[0])))
                elif isinstance(kind, types.Float):
                    numbers.append(context.cast(builder, value, kind, kinds[0].dtype))
            _along_row(builder, element_of(kinds[0]), shape[1], rows[:-1], numbers, rows[-1], formula)
            return context.get_dummy_value()

        return types.void(types.StarArgTuple.from_types(arguments)), generate

    return operation


def _along_row(builder, element, length, sources, numbers, target, formula):
    """Code of ``row_operation``."""
    element, size = element
    size = ir.Constant(INDEX, size)

    def part(kind, k, mask):
        constants = [repeated(builder, number, kind.count) for number in numbers]
        *places, into = (at(builder, address_of(builder, row, (k, size)), kind) for row in (*sources, target))
        elements = [load(builder, place, mask) for place in places]
        store(builder, formula(builder, *elements, *constants), into, mask)

    _in_parts(builder, element, length, part)


def _in_parts(builder, element, length, part):
    """Code that calls part(kind, k, mask) for the elements of a row from k on, eight at a time.

    Four that are left are whole vectors, too; of fewer or more the mask says which are there.
    """
    zero, four, eight = (ir.Constant(INDEX, n) for n in (0, 4, 8))
    wide = ir.VectorType(element, 8)
    end = builder.mul(builder.sdiv(length, eight), eight)
    with cgutils.for_range_slice(builder, zero, end, eight) as (k, _):
        part(wide, k, None)
    left = builder.sub(length, end)
    with builder.if_then(builder.icmp_signed("!=", left, zero)):
        with builder.if_else(builder.icmp_signed("==", left, four)) as (half, some):
            with half:
                part(ir.VectorType(element, 4), end, None)
            with some:
                part(wide, end, first_lanes(builder, 8, left))


@intrinsic
def sum_of_rows(typing_context, x, rows, begin, end, z, n):
    """z[n] += the sum of x[rows[p]] for p from begin to end; x (.., K) and z (.., K) with contiguous rows.

    The sums stay in registers, four of them side by side, so that none waits for the one before.
    """

    def generate(context, builder, signature, arguments):
        x_base, x_strides, _ = opened(context, builder, signature.args[0], arguments[0])
        rows = opened(context, builder, signature.args[1], arguments[1])
        z_base, z_strides, z_shape = opened(context, builder, signature.args[4], arguments[4])
        element, size = element_of(signature.args[0])
        size, begin, end, four = ir.Constant(INDEX, size), arguments[2], arguments[3], ir.Constant(INDEX, 4)
        in_fours = builder.add(begin, builder.mul(builder.sdiv(builder.sub(end, begin), four), four))
        target = address_of(builder, z_base, (arguments[5], z_strides[0]))

        def part(kind, k, mask):
            """The sums of the elements from k on, as vectors."""
            sums = [cgutils.alloca_once(builder, kind) for _ in range(4)]
            for total in sums:
                builder.store(ir.Constant(kind, None), total)

            def add(p, total):
                row = index_at(builder, rows[0], signature.args[1], p)
                place = at(builder, address_of(builder, x_base, (row, x_strides[0]), (k, size)), kind)
                builder.store(builder.fadd(builder.load(total), load(builder, place, mask)), total)

            with cgutils.for_range_slice(builder, begin, in_fours, four) as (p, _):
                for c, total in enumerate(sums):
                    add(plus(builder, p, c), total)
            with cgutils.for_range_slice(builder, in_fours, end, ir.Constant(INDEX, 1)) as (p, _):
                add(p, sums[0])
            pairs = [builder.fadd(builder.load(sums[c]), builder.load(sums[c + 1])) for c in (0, 2)]
            place = at(builder, address_of(builder, target, (k, size)), kind)
            store(builder, builder.fadd(load(builder, place, mask), builder.fadd(*pairs)), place, mask)

        _in_parts(builder, element, z_shape[1], part)
        return context.get_dummy_value()

    return types.void(x, rows, types.intp, types.intp, z, types.intp), generate


@intrinsic
def ask_for_rows(typing_context, x, rows, begin, end):
    """Ask for x[rows[p]], the cache line that it begins in, for p from begin to end: ``vectors.prefetch``."""

    def generate(context, builder, signature, arguments):
        x_base, x_strides, _ = opened(context, builder, signature.args[0], arguments[0])
        rows, _, _ = opened(context, builder, signature.args[1], arguments[1])
        with cgutils.for_range_slice(builder, arguments[2], arguments[3], ir.Constant(INDEX, 1)) as (p, _):
            row = index_at(builder, rows, signature.args[1], p)
            prefetch(builder, address_of(builder, x_base, (row, x_strides[0])))
        return context.get_dummy_value()

    return types.void(x, rows, types.intp, types.intp), generate
