"""Tiles of dense products, whose results stay in registers; ``dense`` makes whole products of them."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.kernels.vectors import (
    INDEX,
    address_of,
    at,
    element_of,
    index_at,
    multiply,
    multiply_add,
    opened,
    plus,
    prefetch,
    repeated,
    rolled_range,
)


def product_tile(rows, n_bytes):
    """Intrinsic tile(x, n, w, o, y, fresh): y[n:n+rows, o:o+width] = or (not fresh) += x[n:n+rows] @ w[:, o:o+width].

    width: the numbers in ``n_bytes``, at least one.  x may have any strides; rows of w and y are contiguous.  The sums
    stay in registers until they are complete.
    """

    @intrinsic
    def tile(typing_context, x, n, w, o, y, fresh):
        def generate(context, builder, signature, arguments):
            n, o, fresh = arguments[1], arguments[3], arguments[5]
            element, size = element_of(signature.args[0])
            vector, size = ir.VectorType(element, max(1, n_bytes // size)), ir.Constant(INDEX, size)
            x_base, x_strides, x_shape = opened(context, builder, signature.args[0], arguments[0])
            w_base, w_strides, _ = opened(context, builder, signature.args[2], arguments[2])
            y_base, y_strides, _ = opened(context, builder, signature.args[4], arguments[4])
            x_rows = [address_of(builder, x_base, (plus(builder, n, r), x_strides[0])) for r in range(rows)]
            y_tiles = [
                at(builder, address_of(builder, y_base, (plus(builder, n, r), y_strides[0]), (o, size)), vector)
                for r in range(rows)
            ]
            w_column = address_of(builder, w_base, (o, size))
            sums = [cgutils.alloca_once(builder, vector) for _ in range(rows)]
            with builder.if_else(fresh) as (empty, continued):
                with empty:
                    for total in sums:
                        builder.store(ir.Constant(vector, None), total)
                with continued:
                    for total, place in zip(sums, y_tiles):
                        builder.store(builder.load(place, align=4), total)
            with rolled_range(builder, x_shape[1]) as loop:
                row = address_of(builder, w_column, (loop.index, w_strides[0]))
                row = builder.load(at(builder, row, vector), align=4)
                for r in range(rows):
                    number = at(builder, address_of(builder, x_rows[r], (loop.index, x_strides[1])), element)
                    number = repeated(builder, builder.load(number), vector.count)
                    builder.store(multiply_add(builder, number, row, builder.load(sums[r])), sums[r])
            for total, place in zip(sums, y_tiles):
                builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, y, types.boolean), generate

    return tile


def squared_products_tile(rows, n_bytes):
    """Intrinsic tile(x, n, w, o, kind, weight, y): y[n:n+rows, o:o+width] = sum_a weight[a] (x[:, a] @ w[kind[a]])^2.

    Of the same rows and columns; x (N, A, i) of any strides, w (.., i, o) and y (N, o) with contiguous rows.  Products
    stay in registers, and so do sums where there are enough of them.
    """

    @intrinsic
    def tile(typing_context, x, n, w, o, kind, weight, y):
        def generate(context, builder, signature, arguments):
            n, o = arguments[1], arguments[3]
            element, size = element_of(signature.args[0])
            vector, size = ir.VectorType(element, max(1, n_bytes // size)), ir.Constant(INDEX, size)
            x, w, kind, weight, y = (
                opened(context, builder, signature.args[place], arguments[place]) for place in (0, 2, 4, 5, 6)
            )
            x_rows = [address_of(builder, x[0], (plus(builder, n, r), x[1][0])) for r in range(rows)]
            w_column = address_of(builder, w[0], (o, size))
            products, totals = ([cgutils.alloca_once(builder, vector) for _ in range(rows)] for _ in range(2))
            for total in totals:
                builder.store(ir.Constant(vector, None), total)
            with rolled_range(builder, x[2][1]) as along:
                a = along.index
                for product in products:
                    builder.store(ir.Constant(vector, None), product)
                chosen = builder.load(at(builder, address_of(builder, kind[0], (a, kind[1][0])), INDEX))
                with rolled_range(builder, x[2][2]) as loop:
                    row = address_of(builder, w_column, (chosen, w[1][0]), (loop.index, w[1][1]))
                    row = builder.load(at(builder, row, vector), align=4)
                    for x_row, product in zip(x_rows, products):
                        number = address_of(builder, x_row, (a, x[1][1]), (loop.index, x[1][2]))
                        number = repeated(builder, builder.load(at(builder, number, element)), vector.count)
                        builder.store(multiply_add(builder, number, row, builder.load(product)), product)
                factor = builder.load(at(builder, address_of(builder, weight[0], (a, weight[1][0])), element))
                factor = repeated(builder, factor, vector.count)
                for product, total in zip(products, totals):
                    value = builder.load(product)
                    weighted = multiply(builder, factor, value)
                    builder.store(multiply_add(builder, weighted, value, builder.load(total)), total)
            for r, total in enumerate(totals):
                place = address_of(builder, y[0], (plus(builder, n, r), y[1][0]), (o, size))
                builder.store(builder.load(total), at(builder, place, vector), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, kind, weight, y), generate

    return tile


def _products(builder, arrays, first, rows, w, column, element, vector):
    """Products of rows ``first`` on of opened arrays with w, in these columns: a list of vectors for each array."""
    totals = [[cgutils.alloca_once(builder, vector) for _ in range(rows)] for _ in arrays]
    for total in sum(totals, []):
        builder.store(ir.Constant(vector, None), total)
    with rolled_range(builder, arrays[0][2][1]) as loop:
        row = address_of(builder, w[0], (loop.index, w[1][0]), column)
        row = builder.load(at(builder, row, vector), align=4)
        for r in range(rows):
            index = plus(builder, first, r)
            for array, total in zip(arrays, totals):
                number = address_of(builder, array[0], (index, array[1][0]), (loop.index, array[1][1]))
                number = repeated(builder, builder.load(at(builder, number, element)), vector.count)
                builder.store(multiply_add(builder, number, row, builder.load(total[r])), total[r])
    return [[builder.load(total) for total in part] for part in totals]


def scaled_product_tile(rows, n_bytes):
    """Intrinsic tile(x, n, w, o, factor, z, y): y[n:n+rows, o:o+width] = factor z (x @ w) of the same rows and columns.

    Element by element with z; x may have any strides; rows of w, z and y are contiguous.
    """

    @intrinsic
    def tile(typing_context, x, n, w, o, factor, z, y):
        def generate(context, builder, signature, arguments):
            n, o = arguments[1], arguments[3]
            element, size = element_of(signature.args[0])
            vector, size = ir.VectorType(element, max(1, n_bytes // size)), ir.Constant(INDEX, size)
            x, w, z, y = (opened(context, builder, signature.args[place], arguments[place]) for place in (0, 2, 5, 6))
            (products,) = _products(builder, (x,), n, rows, w, (o, size), element, vector)
            factor = context.cast(builder, arguments[4], signature.args[4], signature.args[0].dtype)
            factor = repeated(builder, factor, vector.count)
            for r, product in enumerate(products):
                index = plus(builder, n, r)
                places = [address_of(builder, a[0], (index, a[1][0]), (o, size)) for a in (z, y)]
                others = builder.load(at(builder, places[0], vector), align=4)
                value = multiply(builder, multiply(builder, factor, others), product)
                builder.store(value, at(builder, places[1], vector), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, factor, z, y), generate

    return tile


def _column(builder, x, size, c, column):
    """First byte of number c of row ``column`` of an opened array with contiguous rows of numbers of ``size`` bytes."""
    return address_of(builder, x[0], (column, x[1][0]), (c, ir.Constant(INDEX, size)))


def _add_column(builder, start, row, totals):
    """Each of ``totals`` += its number times a row: these numbers stand side by side from ``start`` on.

    So the compiler has one address for all of them.
    """
    for r, total in enumerate(totals):
        number = builder.gep(at(builder, start, row.type.element), [ir.Constant(INDEX, r)])
        number = repeated(builder, builder.load(number), row.type.count)
        builder.store(multiply_add(builder, number, row, builder.load(total)), total)


def scattered_product_tile(rows, n_bytes):
    """Intrinsic tile(x, n, w, o, z, m, y): row m[c] of y += z[c] (x.T @ w)[c] for c from n to n + rows, one by one.

    Of the columns o:o+width, element by element with z; rows of x, w, z and y are contiguous.
    """

    @intrinsic
    def tile(typing_context, x, n, w, o, z, m, y):
        def generate(context, builder, signature, arguments):
            n, o = arguments[1], arguments[3]
            element, size = element_of(signature.args[0])
            vector = ir.VectorType(element, max(1, n_bytes // size))
            column = (o, ir.Constant(INDEX, size))
            x, w, z, m, y = (opened(context, builder, signature.args[place], arguments[place]) for place in (0, 2, 4, 5, 6))
            products = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(rows)]
            with rolled_range(builder, x[2][0]) as loop:
                row = at(builder, address_of(builder, w[0], (loop.index, w[1][0]), column), vector)
                _add_column(builder, _column(builder, x, size, n, loop.index), builder.load(row, align=4), products)
            for r, product in enumerate(products):
                index = plus(builder, n, r)
                factor = address_of(builder, z[0], (index, z[1][0]), column)
                prefetch(builder, factor, z[1][0])
                factor = builder.load(at(builder, factor, vector), align=4)
                row = index_at(builder, m[0], signature.args[5], index)
                target = at(builder, address_of(builder, y[0], (row, y[1][0]), column), vector)
                before = builder.load(target, align=4)
                builder.store(multiply_add(builder, factor, builder.load(product), before), target, align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, z, m, y), generate

    return tile


def squared_product_tangent_tile(rows, n_bytes):
    """Intrinsic tile(x, x_dot, n, w, o, factor, y): y += factor (x @ w) (x_dot @ w), element by element.

    Of the rows n:n+rows and the columns o:o+width.
    """

    @intrinsic
    def tile(typing_context, x, x_dot, n, w, o, factor, y):
        def generate(context, builder, signature, arguments):
            n, o = arguments[2], arguments[4]
            element, size = element_of(signature.args[0])
            vector = ir.VectorType(element, max(1, n_bytes // size))
            x, x_dot, w, y = (
                opened(context, builder, signature.args[place], arguments[place]) for place in (0, 1, 3, 6)
            )
            column = (o, ir.Constant(INDEX, size))
            products, products_dot = _products(builder, (x, x_dot), n, rows, w, column, element, vector)
            factor = context.cast(builder, arguments[5], signature.args[5], signature.args[0].dtype)
            factor = repeated(builder, factor, vector.count)
            for r in range(rows):
                target = at(builder, address_of(builder, y[0], (plus(builder, n, r), y[1][0]), column), vector)
                weighted = multiply(builder, factor, products[r])
                value = multiply_add(builder, weighted, products_dot[r], builder.load(target, align=4))
                builder.store(value, target, align=4)
            return context.get_dummy_value()

        return types.void(x, x_dot, types.intp, w, types.intp, factor, y), generate

    return tile


def scaled_product_tangent_tile(rows, n_bytes):
    """Intrinsic tile(x, x_dot, n, w, o, factor, z, z_dot, y, y_dot): ``scaled_product_tile`` and its derivative.

    y = factor z (x @ w) and y_dot = factor (z_dot (x @ w) + z (x_dot @ w)) of the same rows and columns.
    """

    @intrinsic
    def tile(typing_context, x, x_dot, n, w, o, factor, z, z_dot, y, y_dot):
        def generate(context, builder, signature, arguments):
            n, o = arguments[2], arguments[4]
            element, size = element_of(signature.args[0])
            vector = ir.VectorType(element, max(1, n_bytes // size))
            x, x_dot, w, z, z_dot, y, y_dot = (
                opened(context, builder, signature.args[place], arguments[place]) for place in (0, 1, 3, 6, 7, 8, 9)
            )
            column = (o, ir.Constant(INDEX, size))
            products, products_dot = _products(builder, (x, x_dot), n, rows, w, column, element, vector)
            factor = context.cast(builder, arguments[5], signature.args[5], signature.args[0].dtype)
            factor = repeated(builder, factor, vector.count)
            for r in range(rows):
                places = [
                    at(builder, address_of(builder, array[0], (plus(builder, n, r), array[1][0]), column), vector)
                    for array in (z, z_dot, y, y_dot)
                ]
                bar, bar_dot = (multiply(builder, factor, builder.load(place, align=4)) for place in places[:2])
                changed = multiply(builder, bar_dot, products[r])
                builder.store(multiply(builder, bar, products[r]), places[2], align=4)
                builder.store(multiply_add(builder, bar, products_dot[r], changed), places[3], align=4)
            return context.get_dummy_value()

        return types.void(x, x_dot, types.intp, w, types.intp, factor, z, z_dot, y, y_dot), generate

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
            element, size = element_of(signature.args[0])
            vector = ir.VectorType(element, max(1, n_bytes // size))
            column = (o, ir.Constant(INDEX, size))
            x_base, x_strides, x_shape = opened(context, builder, signature.args[0], arguments[0])
            u_base, u_strides, _ = opened(context, builder, signature.args[2], arguments[2])
            v_base, v_strides, _ = opened(context, builder, signature.args[4], arguments[4])
            m = opened(context, builder, signature.args[5], arguments[5])
            y_base, y_strides, _ = opened(context, builder, signature.args[7], arguments[7])
            x_rows = [address_of(builder, x_base, (plus(builder, n, r), x_strides[0])) for r in range(rows)]
            sums = [cgutils.alloca_once(builder, vector) for _ in range(rows)]
            for total in sums:
                builder.store(ir.Constant(vector, None), total)
            with rolled_range(builder, x_shape[1]) as loop:
                place = builder.add(p, loop.index)
                a = address_of(builder, u_base, (place, u_strides[0]), column)
                prefetch(builder, a, u_strides[0])
                row = index_at(builder, m[0], signature.args[5], place)
                b = at(builder, address_of(builder, v_base, (row, v_strides[0]), column), vector)
                both = multiply(builder, builder.load(at(builder, a, vector), align=4), builder.load(b, align=4))
                for r in range(rows):
                    number = at(builder, address_of(builder, x_rows[r], (loop.index, x_strides[1])), element)
                    number = repeated(builder, builder.load(number), vector.count)
                    builder.store(multiply_add(builder, number, both, builder.load(sums[r])), sums[r])
            for r, total in enumerate(sums):
                place = address_of(builder, y_base, (plus(builder, n, r), y_strides[0]), column)
                builder.store(builder.load(total), at(builder, place, vector), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, u, types.intp, v, m, types.intp, y), generate

    return tile


def gathered_product_tangent_tile(rows, n_bytes):
    """Intrinsic tile(x, x_dot, n, u, u_dot, p, v, v_dot, m, o, y): derivative of what ``gathered_product_tile`` gives.

    y[n:n+rows, o:o+width] = x_dot[n:n+rows] @ (u[p:] v[m]) + x[n:n+rows] @ (u_dot[p:] v[m] + u[p:] v_dot[m]), of the
    same columns.
    """

    @intrinsic
    def tile(typing_context, x, x_dot, n, u, u_dot, p, v, v_dot, m, o, y):
        def generate(context, builder, signature, arguments):
            n, p, o = arguments[2], arguments[5], arguments[9]
            element, size = element_of(signature.args[0])
            vector = ir.VectorType(element, max(1, n_bytes // size))
            column = (o, ir.Constant(INDEX, size))
            x, x_dot, u, u_dot, v, v_dot, m, y = (
                opened(context, builder, signature.args[place], arguments[place]) for place in (0, 1, 3, 4, 6, 7, 8, 10)
            )

            def place(array, row):
                """Where a row of u, u_dot, v or v_dot is, which all have the same length: one multiplication serves."""
                return at(builder, address_of(builder, array[0], (row, u[1][0]), column), vector)

            indices = [plus(builder, n, r) for r in range(rows)]
            sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(rows)]
            with rolled_range(builder, x[2][1]) as loop:
                pair = builder.add(p, loop.index)
                other = index_at(builder, m[0], signature.args[8], pair)
                a, a_dot = (builder.load(place(array, pair), align=4) for array in (u, u_dot))
                b, b_dot = (builder.load(place(array, other), align=4) for array in (v, v_dot))
                both, both_dot = multiply(builder, a, b), multiply_add(builder, a_dot, b, multiply(builder, a, b_dot))
                for index, total in zip(indices, sums):
                    value = builder.load(total)
                    for array, factor in ((x_dot, both), (x, both_dot)):
                        number = address_of(builder, array[0], (index, array[1][0]), (loop.index, array[1][1]))
                        number = repeated(builder, builder.load(at(builder, number, element)), vector.count)
                        value = multiply_add(builder, number, factor, value)
                    builder.store(value, total)
            for index, total in zip(indices, sums):
                target = address_of(builder, y[0], (index, y[1][0]), column)
                builder.store(builder.load(total), at(builder, target, vector), align=4)
            return context.get_dummy_value()

        return types.void(x, x_dot, types.intp, u, u_dot, types.intp, v, v_dot, m, types.intp, y), generate

    return tile


def product_and_use_tangent_tile(rows, n_bytes):
    """Intrinsic tile(x, x_dot, c, w, w_dot, o, n, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving).

    Derivative of u[n] p and v[m[n]] p: with p = x[:, c:c+rows].T @ w and p_dot = x[:, c:c+rows].T @ w_dot +
    x_dot[:, c:c+rows].T @ w in the columns o:o+width, z[h[n]] += u[n] p_dot + u_dot[n] p, one by one, and sums[n] = or (not
    fresh) += v[m[n]] p_dot + v_dot[m[n]] p.  Without ``moving`` x_dot, u_dot and v_dot, which nobody reads, count as 0.
    """

    @intrinsic
    def tile(typing_context, x, x_dot, c, w, w_dot, o, n, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving):
        def generate(context, builder, signature, arguments):
            first, o, n, fresh, moving = (arguments[place] for place in (2, 5, 6, 15, 16))
            element, size = element_of(signature.args[0])
            vector = ir.VectorType(element, max(1, n_bytes // size))
            column = (o, ir.Constant(INDEX, size))
            x, x_dot, w, w_dot, u, u_dot, v, v_dot, m, h, z, sums = (
                opened(context, builder, signature.args[place], arguments[place])
                for place in (0, 1, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14)
            )

            def place(array, row):
                """Rows of all arrays but x and x_dot have the same length: one multiplication serves for one number."""
                return at(builder, address_of(builder, array[0], (row, u[1][0]), column), vector)

            def load(array, row):
                return builder.load(place(array, row), align=4)

            zero = ir.Constant(vector, None)
            products, products_dot = ([cgutils.alloca_once_value(builder, zero) for _ in range(rows)] for _ in range(2))
            with builder.if_else(moving) as (all_move, few_move):
                with all_move, rolled_range(builder, x[2][0]) as loop:
                    row, row_dot = load(w, loop.index), load(w_dot, loop.index)
                    start, start_dot = (_column(builder, array, size, first, loop.index) for array in (x, x_dot))
                    _add_column(builder, start, row, products)
                    _add_column(builder, start, row_dot, products_dot)
                    _add_column(builder, start_dot, row, products_dot)
                with few_move, rolled_range(builder, x[2][0]) as loop:
                    start = _column(builder, x, size, first, loop.index)
                    _add_column(builder, start, load(w_dot, loop.index), products_dot)
            for r in range(rows):
                index = plus(builder, n, r)
                other = index_at(builder, m[0], signature.args[11], index)
                p, p_dot = builder.load(products[r]), builder.load(products_dot[r])
                results = [multiply(builder, load(u, index), p_dot), multiply(builder, load(v, other), p_dot)]
                places = [cgutils.alloca_once_value(builder, result) for result in results]
                with builder.if_then(moving):
                    for result, slot, (array, row) in zip(results, places, ((u_dot, index), (v_dot, other))):
                        builder.store(multiply_add(builder, load(array, row), p, result), slot)
                target = place(z, index_at(builder, h[0], signature.args[12], index))
                value = builder.fadd(builder.load(target, align=4), builder.load(places[0]))
                builder.store(value, target, align=4)
                before = builder.select(fresh, zero, load(sums, index))
                value = builder.fadd(before, builder.load(places[1]))
                builder.store(value, place(sums, index), align=4)
            return context.get_dummy_value()

        index, truth = types.intp, types.boolean
        arrays = (u, u_dot, v, v_dot, m, h, z, sums)
        return types.void(x, x_dot, index, w, w_dot, index, index, *arrays, truth, truth), generate

    return tile
