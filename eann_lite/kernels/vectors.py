"""Explicit vector instructions for the products inside kernels, as Numba intrinsics that write LLVM code.

Left to itself LLVM does not vectorise loops over 8 Gaussians with a length it does not know: it would have to check at
run time that none of the arrays overlap.  These few pieces say what is meant: vectors of some numbers along the last,
contiguous axis, of float64 or float32 as the arrays are.  LLVM cuts them into whatever the machine has.  They know
nothing of the model; the loops around them are in ``dense``, what they do on single rows is in ``rows`` and ``radial``.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

_INDEX, _BYTE = ir.IntType(64), ir.IntType(8)
#: A product and a sum may become one instruction with one rounding (as ``compiled.FASTMATH`` allows).
_CONTRACT = ("contract",)


def _open(context, builder, array_type, value):
    """First byte, strides in bytes and shape of an array argument."""
    array = context.make_array(array_type)(context, builder, value)
    base = builder.bitcast(array.data, _BYTE.as_pointer())
    return base, cgutils.unpack_tuple(builder, array.strides), cgutils.unpack_tuple(builder, array.shape)


def _element(array_type):
    """LLVM type of the numbers of a float array, and its size in bytes."""
    single = array_type.dtype == types.float32
    return (ir.FloatType(), 4) if single else (ir.DoubleType(), 8)


def _index(builder, array, array_type, place):
    """Number ``place`` of an array of whole numbers, opened, as a 64-bit index."""
    base, (stride,), _ = array
    number = builder.load(_at(builder, _address(builder, base, (place, stride)), ir.IntType(array_type.dtype.bitwidth)))
    return number if array_type.dtype.bitwidth == 64 else builder.sext(number, _INDEX)


def _plus(builder, index, n):
    return builder.add(index, ir.Constant(_INDEX, n))


def _address(builder, base, *steps):
    """Address after steps (index, stride in bytes) from ``base``."""
    for index, stride in steps:
        base = builder.gep(base, [builder.mul(index, stride)])
    return base


def _at(builder, address, kind):
    return builder.bitcast(address, kind.as_pointer())


def multiply(builder, a, b):
    """a b."""
    return builder.fmul(a, b, flags=_CONTRACT)


def multiply_add(builder, a, b, c):
    """a b + c."""
    return builder.fadd(builder.fmul(a, b, flags=_CONTRACT), c, flags=_CONTRACT)


def _repeated(builder, number, width):
    """A vector that holds one number ``width`` times."""
    undefined = ir.Constant(ir.VectorType(number.type, width), ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width))


def _lanes(builder, a, b, chosen):
    """The chosen lanes of vectors a and b, those of b counted on from those of a."""
    chosen = list(chosen)
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen))


@intrinsic
def line(typing_context, x):
    """How many numbers of an array stand in 64 bytes, a cache line: 8, or 16 of single precision."""
    n = 64 // _element(x)[1]

    def generate(context, builder, signature, arguments):
        return ir.Constant(_INDEX, n)

    return types.intp(x), generate


@intrinsic
def any_layout(typing_context, x):
    """The same array as one whose strides are not known to the compiler."""

    def generate(context, builder, signature, arguments):
        return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])

    return x.copy(layout="A")(x), generate


def product_tile(rows, n_bytes):
    """Intrinsic tile(x, n, w, o, y, fresh): y[n:n+rows, o:o+width] = or (not fresh) += x[n:n+rows] @ w[:, o:o+width].

    width: the numbers in ``n_bytes``, at least one.  x may have any strides; rows of w and y are contiguous.  The sums
    stay in registers until they are complete.
    """

    @intrinsic
    def tile(typing_context, x, n, w, o, y, fresh):
        def generate(context, builder, signature, arguments):
            n, o, fresh = arguments[1], arguments[3], arguments[5]
            element, size = _element(signature.args[0])
            vector, size = ir.VectorType(element, max(1, n_bytes // size)), ir.Constant(_INDEX, size)
            x_base, x_strides, x_shape = _open(context, builder, signature.args[0], arguments[0])
            w_base, w_strides, _ = _open(context, builder, signature.args[2], arguments[2])
            y_base, y_strides, _ = _open(context, builder, signature.args[4], arguments[4])
            x_rows = [_address(builder, x_base, (_plus(builder, n, r), x_strides[0])) for r in range(rows)]
            y_tiles = [
                _at(builder, _address(builder, y_base, (_plus(builder, n, r), y_strides[0]), (o, size)), vector)
                for r in range(rows)
            ]
            w_column = _address(builder, w_base, (o, size))
            sums = [cgutils.alloca_once(builder, vector) for _ in range(rows)]
            with builder.if_else(fresh) as (empty, continued):
                with empty:
                    for total in sums:
                        builder.store(ir.Constant(vector, None), total)
                with continued:
                    for total, place in zip(sums, y_tiles):
                        builder.store(builder.load(place, align=4), total)
            with cgutils.for_range(builder, x_shape[1]) as loop:
                row = _address(builder, w_column, (loop.index, w_strides[0]))
                row = builder.load(_at(builder, row, vector), align=4)
                for r in range(rows):
                    number = _at(builder, _address(builder, x_rows[r], (loop.index, x_strides[1])), element)
                    number = _repeated(builder, builder.load(number), vector.count)
                    builder.store(multiply_add(builder, number, row, builder.load(sums[r])), sums[r])
            for total, place in zip(sums, y_tiles):
                builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, y, types.boolean), generate

    return tile


def squared_products_tile(rows, n_bytes):
    """Intrinsic tile(x, n, w, o, kind, weight, y): y[n:n+rows, o:o+width] = sum_a weight[a] (x[:, a] @ w[kind[a]])^2.

    Of the same rows and columns; x (N, A, i) of any strides, w (.., i, o) and y (N, o) with contiguous rows.  Products
    and sums stay in registers.
    """

    @intrinsic
    def tile(typing_context, x, n, w, o, kind, weight, y):
        def generate(context, builder, signature, arguments):
            n, o = arguments[1], arguments[3]
            element, size = _element(signature.args[0])
            vector, size = ir.VectorType(element, max(1, n_bytes // size)), ir.Constant(_INDEX, size)
            x, w, kind, weight, y = (
                _open(context, builder, signature.args[place], arguments[place]) for place in (0, 2, 4, 5, 6)
            )
            x_rows = [_address(builder, x[0], (_plus(builder, n, r), x[1][0])) for r in range(rows)]
            w_column = _address(builder, w[0], (o, size))
            products, totals = ([cgutils.alloca_once(builder, vector) for _ in range(rows)] for _ in range(2))
            for total in totals:
                builder.store(ir.Constant(vector, None), total)
            with cgutils.for_range(builder, x[2][1]) as along:
                a = along.index
                for product in products:
                    builder.store(ir.Constant(vector, None), product)
                chosen = builder.load(_at(builder, _address(builder, kind[0], (a, kind[1][0])), _INDEX))
                with cgutils.for_range(builder, x[2][2]) as loop:
                    row = _address(builder, w_column, (chosen, w[1][0]), (loop.index, w[1][1]))
                    row = builder.load(_at(builder, row, vector), align=4)
                    for x_row, product in zip(x_rows, products):
                        number = _address(builder, x_row, (a, x[1][1]), (loop.index, x[1][2]))
                        number = _repeated(builder, builder.load(_at(builder, number, element)), vector.count)
                        builder.store(multiply_add(builder, number, row, builder.load(product)), product)
                factor = builder.load(_at(builder, _address(builder, weight[0], (a, weight[1][0])), element))
                factor = _repeated(builder, factor, vector.count)
                for product, total in zip(products, totals):
                    value = builder.load(product)
                    weighted = multiply(builder, factor, value)
                    builder.store(multiply_add(builder, weighted, value, builder.load(total)), total)
            for r, total in enumerate(totals):
                place = _address(builder, y[0], (_plus(builder, n, r), y[1][0]), (o, size))
                builder.store(builder.load(total), _at(builder, place, vector), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, kind, weight, y), generate

    return tile


def scaled_product_tile(rows, n_bytes):
    """Intrinsic tile(x, n, w, o, factor, z, y): y[n:n+rows, o:o+width] = factor z (x @ w) of the same rows and columns.

    Element by element with z; x may have any strides; rows of w, z and y are contiguous.
    """

    @intrinsic
    def tile(typing_context, x, n, w, o, factor, z, y):
        def generate(context, builder, signature, arguments):
            n, o = arguments[1], arguments[3]
            element, size = _element(signature.args[0])
            vector, size = ir.VectorType(element, max(1, n_bytes // size)), ir.Constant(_INDEX, size)
            x, w, z, y = (_open(context, builder, signature.args[place], arguments[place]) for place in (0, 2, 5, 6))
            indices = [_plus(builder, n, r) for r in range(rows)]
            x_rows = [_address(builder, x[0], (index, x[1][0])) for index in indices]
            w_column = _address(builder, w[0], (o, size))
            totals = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(rows)]
            with cgutils.for_range(builder, x[2][1]) as loop:
                row = _address(builder, w_column, (loop.index, w[1][0]))
                row = builder.load(_at(builder, row, vector), align=4)
                for x_row, total in zip(x_rows, totals):
                    number = _at(builder, _address(builder, x_row, (loop.index, x[1][1])), element)
                    number = _repeated(builder, builder.load(number), vector.count)
                    builder.store(multiply_add(builder, number, row, builder.load(total)), total)
            factor = context.cast(builder, arguments[4], signature.args[4], signature.args[0].dtype)
            factor = _repeated(builder, factor, vector.count)
            for index, total in zip(indices, totals):
                places = [_address(builder, a[0], (index, a[1][0]), (o, size)) for a in (z, y)]
                others = builder.load(_at(builder, places[0], vector), align=4)
                value = multiply(builder, multiply(builder, factor, others), builder.load(total))
                builder.store(value, _at(builder, places[1], vector), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, factor, z, y), generate

    return tile


def gathered_product_tile(rows, n_bytes):
    """Intrinsic tile(x, n, u, p, v, m, o, y): y[n:n+rows, o:o+width] = x[n:n+rows] @ (u[p:] v[m])[:, o:o+width].

    width: the numbers in ``n_bytes``, at least one; row c of the second factor is the product of rows u[p + c] and
    v[m[p + c]], element by element, made in registers.  x may have any strides; other rows are contiguous.
    """

    @intrinsic
    def tile(typing_context, x, n, u, p, v, m, o, y):
        def generate(context, builder, signature, arguments):
            n, p, o = arguments[1], arguments[3], arguments[6]
            element, size = _element(signature.args[0])
            vector = ir.VectorType(element, max(1, n_bytes // size))
            column = (o, ir.Constant(_INDEX, size))
            x_base, x_strides, x_shape = _open(context, builder, signature.args[0], arguments[0])
            u_base, u_strides, _ = _open(context, builder, signature.args[2], arguments[2])
            v_base, v_strides, _ = _open(context, builder, signature.args[4], arguments[4])
            m = _open(context, builder, signature.args[5], arguments[5])
            y_base, y_strides, _ = _open(context, builder, signature.args[7], arguments[7])
            x_rows = [_address(builder, x_base, (_plus(builder, n, r), x_strides[0])) for r in range(rows)]
            sums = [cgutils.alloca_once(builder, vector) for _ in range(rows)]
            for total in sums:
                builder.store(ir.Constant(vector, None), total)
            with cgutils.for_range(builder, x_shape[1]) as loop:
                place = builder.add(p, loop.index)
                a = _at(builder, _address(builder, u_base, (place, u_strides[0]), column), vector)
                row = _index(builder, m, signature.args[5], place)
                b = _at(builder, _address(builder, v_base, (row, v_strides[0]), column), vector)
                both = multiply(builder, builder.load(a, align=4), builder.load(b, align=4))
                for r in range(rows):
                    number = _at(builder, _address(builder, x_rows[r], (loop.index, x_strides[1])), element)
                    number = _repeated(builder, builder.load(number), vector.count)
                    builder.store(multiply_add(builder, number, both, builder.load(sums[r])), sums[r])
            for r, total in enumerate(sums):
                place = _address(builder, y_base, (_plus(builder, n, r), y_strides[0]), column)
                builder.store(builder.load(total), _at(builder, place, vector), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, u, types.intp, v, m, types.intp, y), generate

    return tile


def product_and_use_tile(rows, n_bytes):
    """Intrinsic tile(x, c, w, o, n, u, v, m, y, to_y, z, to_z, sums, fresh): uses of a product in registers.

    With p = x[c:c+rows] @ w[:, o:o+width] as in ``product_tile``, row by row and in the same columns, n counting
    on with c: y[n] = p where ``to_y``, z[n] = u[n] p where ``to_z``, and sums[n] = or (not fresh) += v[m[n]] p.
    """

    @intrinsic
    def tile(typing_context, x, c, w, o, n, u, v, m, y, to_y, z, to_z, sums, fresh):
        def generate(context, builder, signature, arguments):
            first, o, n, to_y, to_z, fresh = (arguments[place] for place in (1, 3, 4, 9, 11, 13))
            element, size = _element(signature.args[0])
            vector = ir.VectorType(element, max(1, n_bytes // size))
            column = (o, ir.Constant(_INDEX, size))
            x, w, u, v, m, y, z, sums = (
                _open(context, builder, signature.args[place], arguments[place]) for place in (0, 2, 5, 6, 7, 8, 10, 12)
            )

            def place(array, row):
                return _at(builder, _address(builder, array[0], (row, array[1][0]), column), vector)

            def load(array, row):
                return builder.load(place(array, row), align=4)

            def store(value, array, row):
                builder.store(value, place(array, row), align=4)

            indices = [_plus(builder, n, r) for r in range(rows)]
            x_rows = [_address(builder, x[0], (_plus(builder, first, r), x[1][0])) for r in range(rows)]
            totals = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(rows)]
            with cgutils.for_range(builder, x[2][1]) as loop:
                row = load(w, loop.index)
                for x_row, total in zip(x_rows, totals):
                    number = _at(builder, _address(builder, x_row, (loop.index, x[1][1])), element)
                    number = _repeated(builder, builder.load(number), vector.count)
                    builder.store(multiply_add(builder, number, row, builder.load(total)), total)
            products = list(zip(indices, [builder.load(total) for total in totals]))
            with builder.if_then(to_y):
                for index, product in products:
                    store(product, y, index)
            with builder.if_then(to_z):
                for index, product in products:
                    store(multiply(builder, load(u, index), product), z, index)
            factors = []
            for index in indices:
                factors.append(load(v, _index(builder, m, signature.args[7], index)))
            with builder.if_else(fresh) as (empty, continued):
                with empty:
                    for (index, product), factor in zip(products, factors):
                        store(multiply(builder, factor, product), sums, index)
                with continued:
                    for (index, product), factor in zip(products, factors):
                        store(multiply_add(builder, factor, product, load(sums, index)), sums, index)
            return context.get_dummy_value()

        index, truth = types.intp, types.boolean
        return types.void(x, index, w, index, index, u, v, m, y, truth, z, truth, sums, truth), generate

    return tile


@intrinsic
def transposed_product_tile(typing_context, x, n, y, m, z, row, column):
    """z[row + k, column + c] = x[n + c, k] y[m[c], k] for 4 rows c and 8 columns k; m is a tuple of 4 rows of y."""

    def generate(context, builder, signature, arguments):
        element, size = _element(signature.args[0])
        vector, size = ir.VectorType(element, 8), ir.Constant(_INDEX, size)
        x_base, x_strides, _ = _open(context, builder, signature.args[0], arguments[0])
        y_base, y_strides, _ = _open(context, builder, signature.args[2], arguments[2])
        z_base, z_strides, _ = _open(context, builder, signature.args[4], arguments[4])
        products = []
        for c, m_c in enumerate(cgutils.unpack_tuple(builder, arguments[3])):
            a = _address(builder, x_base, (_plus(builder, arguments[1], c), x_strides[0]))
            b = _address(builder, y_base, (m_c, y_strides[0]))
            a, b = (builder.load(_at(builder, address, vector), align=4) for address in (a, b))
            products.append(builder.fmul(a, b))
        for half in (0, 4):
            # Columns k and k + 1 of rows 0 and 1, of rows 2 and 3, and both together.
            for k in (half, half + 2):
                upper, lower = (_lanes(builder, products[c], products[c + 1], (k, k + 8, k + 1, k + 9)) for c in (0, 2))
                for offset, lanes in ((0, (0, 1, 4, 5)), (1, (2, 3, 6, 7))):
                    place = (_plus(builder, arguments[5], k + offset), z_strides[0]), (arguments[6], size)
                    address = _at(builder, _address(builder, z_base, *place), ir.VectorType(element, 4))
                    builder.store(_lanes(builder, upper, lower, lanes), address, align=4)
        return context.get_dummy_value()

    four = types.UniTuple(types.intp, 4)
    return types.void(x, types.intp, y, four, z, types.intp, types.intp), generate


def row_operation(n_results, formula, summed=False):
    """Intrinsic operation(x, p, y, q, ..., numbers, ..., z, n): rows z[n] from rows x[p], y[q], ... and numbers.

    Arrays (n, K) with contiguous rows, each followed by the index of its row; numbers are floats; the last
    ``n_results`` rows are written.  formula(builder, *rows, *numbers) gives as many vectors.  A row may stand among both.
    With ``summed`` it gives one vector more, the sum of whose elements is what the operation returns.
    """

    @intrinsic
    def operation(typing_context, *arguments):
        def generate(context, builder, signature, packed):
            (kinds,), values = signature.args, cgutils.unpack_tuple(builder, packed[0])
            rows, numbers = [], []
            for n, (kind, value) in enumerate(zip(kinds, values)):
                if isinstance(kind, types.Array):
                    base, strides, shape = _open(context, builder, kind, value)
                    index = context.cast(builder, values[n + 1], kinds[n + 1], types.intp)
                    rows.append(_address(builder, base, (index, strides[0])))
                elif isinstance(kind, types.Float):
                    numbers.append(context.cast(builder, value, kind, kinds[0].dtype))
            sources, targets = rows[: len(rows) - n_results], rows[len(rows) - n_results :]
            total = _along_row(builder, _element(kinds[0]), shape[1], sources, numbers, targets, formula, summed)
            return total if summed else context.get_dummy_value()

        result = arguments[0].dtype if summed else types.void
        return result(types.StarArgTuple.from_types(arguments)), generate

    return operation


def _along_row(builder, element, length, sources, numbers, targets, formula, summed):
    """Code of ``row_operation``: eight elements at a time, then four, then one by one; gives the sum."""
    element, size = element
    size, begin = ir.Constant(_INDEX, size), ir.Constant(_INDEX, 0)
    total = cgutils.alloca_once_value(builder, ir.Constant(element, 0.0))
    for width in (8, 4, 1):
        step = ir.Constant(_INDEX, width)
        end = builder.mul(builder.sdiv(length, step), step)
        kind = ir.VectorType(element, width) if width > 1 else element
        constants = [_repeated(builder, number, width) if width > 1 else number for number in numbers]
        with cgutils.for_range_slice(builder, begin, end, step) as (k, _):
            elements = [builder.load(_at(builder, _address(builder, row, (k, size)), kind), align=4) for row in sources]
            results = formula(builder, *elements, *constants)
            for row, result in zip(targets, results):
                builder.store(result, _at(builder, _address(builder, row, (k, size)), kind), align=4)
            if summed:
                builder.store(builder.fadd(builder.load(total), _sum(builder, results[-1], width)), total)
        begin = end
    return builder.load(total)


def _sum(builder, vector, width):
    """Sum of the elements of a vector: halves first."""
    while width > 1:
        width //= 2
        low, high = (_lanes(builder, vector, vector, range(start, start + width)) for start in (0, width))
        vector = builder.fadd(low, high)
    if isinstance(vector.type, ir.VectorType):
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))
    return vector


@intrinsic
def sum_of_rows(typing_context, x, rows, begin, end, z, n):
    """z[n] += the sum of x[rows[p]] for p from begin to end; x (.., K) and z (.., K) with contiguous rows.

    The sums stay in registers, four of them side by side, so that none waits for the one before.
    """

    def generate(context, builder, signature, arguments):
        x_base, x_strides, _ = _open(context, builder, signature.args[0], arguments[0])
        rows = _open(context, builder, signature.args[1], arguments[1])
        z_base, z_strides, z_shape = _open(context, builder, signature.args[4], arguments[4])
        element, size = _element(signature.args[0])
        size, begin, end, four = ir.Constant(_INDEX, size), arguments[2], arguments[3], ir.Constant(_INDEX, 4)
        in_fours = builder.add(begin, builder.mul(builder.sdiv(builder.sub(end, begin), four), four))
        target = _address(builder, z_base, (arguments[5], z_strides[0]))

        def along(kind, k):
            """The sum of the elements from k on, as one vector."""
            sums = [cgutils.alloca_once(builder, kind) for _ in range(4)]
            for total in sums:
                builder.store(ir.Constant(kind, None), total)

            def add(p, total):
                row = _index(builder, rows, signature.args[1], p)
                place = _at(builder, _address(builder, x_base, (row, x_strides[0]), (k, size)), kind)
                builder.store(builder.fadd(builder.load(total), builder.load(place, align=4)), total)

            with cgutils.for_range_slice(builder, begin, in_fours, four) as (p, _):
                for c, total in enumerate(sums):
                    add(_plus(builder, p, c), total)
            with cgutils.for_range_slice(builder, in_fours, end, ir.Constant(_INDEX, 1)) as (p, _):
                add(p, sums[0])
            pairs = [builder.fadd(builder.load(sums[c]), builder.load(sums[c + 1])) for c in (0, 2)]
            place = _at(builder, _address(builder, target, (k, size)), kind)
            builder.store(builder.fadd(builder.load(place, align=4), builder.fadd(*pairs)), place, align=4)

        start = ir.Constant(_INDEX, 0)
        for width in (8, 4, 1):
            step = ir.Constant(_INDEX, width)
            stop = builder.mul(builder.sdiv(z_shape[1], step), step)
            with cgutils.for_range_slice(builder, start, stop, step) as (k, _):
                along(ir.VectorType(element, width) if width > 1 else element, k)
            start = stop
        return context.get_dummy_value()

    return types.void(x, rows, types.intp, types.intp, z, types.intp), generate


@intrinsic
def products_of_three_rows(typing_context, x, begin, end, y, z, sums):
    """z[a, b] = sum_p x[a, p] y[b, p - begin] and sums[b] = sum_p y[b, p - begin] for p from begin to end.

    x, y (3, ..) of one precision with contiguous rows, z (3, 3), sums (3,) in double precision, as the sums are.
    """

    def generate(context, builder, signature, arguments):
        x, y, z = (_Columns(context, builder, signature.args[c], arguments[c]) for c in (0, 3, 4))
        sums, _, _ = _open(context, builder, signature.args[5], arguments[5])
        begin, end, eight = arguments[1], arguments[2], ir.Constant(_INDEX, 8)
        in_eights = builder.add(begin, builder.mul(builder.sdiv(builder.sub(end, begin), eight), eight))
        element, double = _element(signature.args[0])[0], ir.DoubleType()
        rows = [ir.Constant(_INDEX, row) for row in range(3)]

        def along(width, start, stop):
            """The twelve sums over columns start to stop, ``width`` at a time."""
            kind, wide = (ir.VectorType(t, width) if width > 1 else t for t in (element, double))
            zero = ir.Constant(wide, None if width > 1 else 0.0)
            totals = [cgutils.alloca_once_value(builder, zero) for _ in range(12)]
            with cgutils.for_range_slice(builder, start, stop, ir.Constant(_INDEX, width)) as (p, _):
                columns = (x, p), (y, builder.sub(p, begin))
                loaded = [[array.load(kind, row, column) for row in rows] for array, column in columns]
                if element != double:
                    loaded = [[builder.fpext(value, wide) for value in values] for values in loaded]
                for n, total in enumerate(totals):
                    a, b = divmod(n, 3)
                    before, other = builder.load(total), loaded[1][b]
                    added = multiply_add(builder, loaded[0][a], other, before) if a < 3 else builder.fadd(other, before)
                    builder.store(added, total)
            return [_sum(builder, builder.load(total), width) for total in totals]

        ends = zip(along(8, begin, in_eights), along(1, in_eights, end))
        for n, (most, rest) in enumerate(ends):
            total = builder.fadd(most, rest)
            if n < 9:
                z.store(total, rows[n // 3], rows[n % 3])
            else:
                place = _address(builder, sums, (rows[n - 9], ir.Constant(_INDEX, 8)))
                builder.store(total, _at(builder, place, double))
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, y, z, sums), generate


def _over_columns(builder, begin, end, element, body):
    """Code that calls body(kind, p) for all columns from begin to end; kind holds those from p on that it works on."""
    start = begin
    # Many at a time: what is the same for all of them, such as the row to take, is then found only once.
    for width in (32, 8, 4, 1):
        step = ir.Constant(_INDEX, width)
        stop = builder.add(start, builder.mul(builder.sdiv(builder.sub(end, start), step), step))
        with cgutils.for_range_slice(builder, start, stop, step) as (p, _):
            body(ir.VectorType(element, width) if width > 1 else element, p)
        start = stop


class _Columns:
    """Loads and stores of some columns of a two-dimensional array, row by row."""

    def __init__(self, context, builder, array_type, value):
        self.builder, self.size = builder, ir.Constant(_INDEX, _element(array_type)[1])
        self.base, (self.stride, _), _ = _open(context, builder, array_type, value)

    def _place(self, kind, row, column):
        return _at(self.builder, _address(self.builder, self.base, (row, self.stride), (column, self.size)), kind)

    def load(self, kind, row, column):
        return self.builder.load(self._place(kind, row, column), align=4)

    def store(self, value, row, column):
        self.builder.store(value, self._place(value.type, row, column), align=4)


def _tables(context, builder, signature, arguments, places):
    """Function that gives element a of each table of whole numbers (A,), and A."""
    opened = [_open(context, builder, signature.args[place], arguments[place]) for place in places]
    return (
        lambda a: [builder.load(_at(builder, _address(builder, t[0], (a, t[1][0])), _INDEX)) for t in opened],
        opened[0][2][0],
    )


@intrinsic
def recursive_products(typing_context, x, begin, end, parent, axis, z):
    """z[0] = 1 and z[a] = z[parent[a]] x[axis[a]] for a = 1, 2, ...; columns begin to end of x, in z from 0 on.

    parent[a] < a; x (3, P) and z (A, ..) with contiguous rows.
    """

    def generate(context, builder, signature, arguments):
        begin, zero, one = arguments[1], ir.Constant(_INDEX, 0), ir.Constant(_INDEX, 1)
        x, z = (_Columns(context, builder, signature.args[c], arguments[c]) for c in (0, 5))
        row_of, n_rows = _tables(context, builder, signature, arguments, (3, 4))

        def body(kind, p):
            c = builder.sub(p, begin)
            z.store(ir.Constant(kind, [1.0] * kind.count if isinstance(kind, ir.VectorType) else 1.0), zero, c)
            with cgutils.for_range_slice(builder, one, n_rows, one) as (a, _):
                row, component = row_of(a)
                z.store(multiply(builder, z.load(kind, row, c), x.load(kind, component, p)), a, c)

        _over_columns(builder, begin, arguments[2], _element(signature.args[0])[0], body)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, parent, axis, z), generate


@intrinsic
def recursive_products_tangent(typing_context, x, x_dot, begin, end, parent, axis, z, z_dot):
    """Tangent of ``recursive_products`` after it.

    z_dot[0] = 0 and z_dot[a] = z_dot[parent[a]] x[axis[a]] + z[parent[a]] x_dot[axis[a]]; columns of x_dot as of x.
    """

    def generate(context, builder, signature, arguments):
        begin, zero, one = arguments[2], ir.Constant(_INDEX, 0), ir.Constant(_INDEX, 1)
        x, x_dot, z, z_dot = (_Columns(context, builder, signature.args[c], arguments[c]) for c in (0, 1, 6, 7))
        row_of, n_rows = _tables(context, builder, signature, arguments, (4, 5))

        def body(kind, p):
            c = builder.sub(p, begin)
            z_dot.store(ir.Constant(kind, None), zero, c)
            with cgutils.for_range_slice(builder, one, n_rows, one) as (a, _):
                row, component = row_of(a)
                product = multiply(builder, z.load(kind, row, c), x_dot.load(kind, component, p))
                total = multiply_add(builder, z_dot.load(kind, row, c), x.load(kind, component, p), product)
                z_dot.store(total, a, c)

        _over_columns(builder, begin, arguments[3], _element(signature.args[0])[0], body)
        return context.get_dummy_value()

    return types.void(x, x_dot, types.intp, types.intp, parent, axis, z, z_dot), generate


@intrinsic
def recursive_products_reverse(typing_context, x, begin, end, parent, axis, z, z_bar, factor, x_bar):
    """Reverse of ``recursive_products`` after it: x_bar = factor x + what z_bar, which is lost, means for x.

    For a = A - 1, ..., 1: x_bar[axis] += z_bar[a] z[parent], z_bar[parent] += z_bar[a] x[axis].  Columns of factor
    (1, ..) and x_bar (3, ..) as of z, from 0 on.
    """

    def generate(context, builder, signature, arguments):
        begin, zero, one = arguments[1], ir.Constant(_INDEX, 0), ir.Constant(_INDEX, 1)
        x, z, z_bar, factor, x_bar = (
            _Columns(context, builder, signature.args[c], arguments[c]) for c in (0, 5, 6, 7, 8)
        )
        row_of, n_rows = _tables(context, builder, signature, arguments, (3, 4))

        def body(kind, p):
            c = builder.sub(p, begin)
            for component in (ir.Constant(_INDEX, n) for n in range(3)):
                value = multiply(builder, factor.load(kind, zero, c), x.load(kind, component, p))
                x_bar.store(value, component, c)
            with cgutils.for_range_slice(builder, one, n_rows, one) as (n, _):
                a = builder.sub(n_rows, n)
                row, component = row_of(a)
                bar = z_bar.load(kind, a, c)
                total = multiply_add(builder, bar, z.load(kind, row, c), x_bar.load(kind, component, c))
                x_bar.store(total, component, c)
                total = multiply_add(builder, bar, x.load(kind, component, p), z_bar.load(kind, row, c))
                z_bar.store(total, row, c)

        _over_columns(builder, begin, arguments[2], _element(signature.args[0])[0], body)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, parent, axis, z, z_bar, factor, x_bar), generate
