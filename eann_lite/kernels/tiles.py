"""Tiles of dense products, whose results stay in registers; ``dense`` makes whole products of them.

Those that know of radial functions stand in ``orbital_tiles``.

``squared_products_tile(rows, n_bytes)``, say, is an intrinsic tile(n, o, i, arguments), with a tuple of arguments that
its definition names: it does what that says for the rows n:n+rows and the columns o:o+width of the result, where width
is how many numbers stand in ``n_bytes``; of product i, where there is one for each atom.  x and x_dot may
have any strides, where nothing else is said; rows of other arrays are contiguous; factors are floats.  Sums stay in
registers until they are complete.  A tile of which not the whole is there, made with ``whole`` False, ends with the
columns of its first argument: nothing to the right of them is read or written.

While they work, tiles of one size ask for memory that is needed soon: from the address ``ahead`` on, ``step`` bytes
with each multiplication of a row.  It comes to the second cache meanwhile.
"""

from typing import NamedTuple

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
    lane_sums_of_each,
    load,
    multiply,
    multiply_add,
    opened,
    plus,
    prefetch,
    repeated,
    rolled_range,
    store,
)

#: Rows, and bytes of a row, of the tiles that ask for memory: those of large products, with 16 registers of sums.
ASKING_PRODUCT, ASKING_SQUARES = (4, 256), (8, 128)


class _Array(NamedTuple):
    """First byte, strides in bytes and shape of an array, and its Numba type."""

    base: object
    strides: list
    shape: list
    kind: types.Array


class _Tile:
    """Where a tile stands, and what code of tiles is written with."""

    def __init__(self, context, builder, size_of_tile, n, o, i, like):
        rows, n_bytes, whole = size_of_tile
        self.context, self.builder, self.kind, self.some = context, builder, like.kind, range(rows)
        self.element, self.size = element_of(self.kind)
        self.vector = ir.VectorType(self.element, n_bytes // self.size)
        self.mask = None if whole else first_lanes(builder, self.vector.count, builder.sub(like.shape[-1], o))
        self.atom, self.first, self.column = i, n, (o, ir.Constant(INDEX, self.size))
        self.rows_and_bytes = rows, n_bytes

    def argument(self, kind, value):
        """An argument as code of a tile gets it: an opened array, an index, a truth, or a factor in every lane."""
        if isinstance(kind, types.Array):
            return _Array(*opened(self.context, self.builder, kind, value), kind)
        if isinstance(kind, types.Boolean):
            return value
        if isinstance(kind, types.Integer):
            return self.context.cast(self.builder, value, kind, types.intp)
        return self.in_every_lane(self.context.cast(self.builder, value, kind, self.kind.dtype))

    def index(self, r):
        """Row r of the tile, counted from the first of all."""
        return plus(self.builder, self.first, r)

    def in_every_lane(self, number):
        """A vector of one number."""
        return repeated(self.builder, number, self.vector.count)

    def number(self, address):
        """The number there, in every lane."""
        return self.in_every_lane(self.builder.load(at(self.builder, address, self.element)))

    def address(self, array, *indices, strides=None):
        """First byte of the columns of the tile in the row with these indices."""
        return address_of(self.builder, array.base, *zip(indices, strides or array.strides), self.column)

    def place(self, array, *indices, strides=None):
        """Where these columns stand, as a vector."""
        return at(self.builder, self.address(array, *indices, strides=strides), self.vector)

    def load(self, array, *indices, strides=None):
        """What stands there."""
        return load(self.builder, self.place(array, *indices, strides=strides), self.mask)

    def store(self, value, array, *indices, strides=None):
        """Put a vector there."""
        store(self.builder, value, self.place(array, *indices, strides=strides), self.mask)

    def chosen(self, array, index):
        """A number of an array of whole numbers, as an index."""
        return index_at(self.builder, array.base, array.kind, index)

    def zeros(self):
        """A sum that is still zero for every row."""
        return self.sums_from(ir.Constant(self.vector, None))

    def sums_from(self, value):
        """A sum that begins with a vector for every row."""
        return [cgutils.alloca_once_value(self.builder, value) for _ in self.some]

    def add(self, total, a, b):
        """total += a b."""
        self.builder.store(multiply_add(self.builder, a, b, self.builder.load(total)), total)

    def sums(self, totals):
        """What the sums have come to."""
        return [self.builder.load(total) for total in totals]

    def products(self, w, *factors):
        """For each factor x its rows of x @ w."""
        totals = [self.zeros() for _ in factors]
        with rolled_range(self.builder, factors[0].shape[1]) as loop:
            row = self.load(w, loop.index)
            for r in self.some:
                for x, total in zip(factors, totals):
                    steps = zip((self.index(r), loop.index), x.strides)
                    self.add(total[r], self.number(address_of(self.builder, x.base, *steps)), row)
        return [self.sums(total) for total in totals]

    def column_of(self, x, c, row):
        """First byte of number c of a row of x, whose rows are contiguous."""
        return address_of(self.builder, x.base, (row, x.strides[0]), (c, self.column[1]))

    def add_column(self, totals, start, row):
        """Each of ``totals`` += its number times a row: these numbers stand side by side from ``start`` on.

        So the compiler has one address for all of them.
        """
        start = at(self.builder, start, self.element)
        for r, total in enumerate(totals):
            number = self.builder.load(self.builder.gep(start, [ir.Constant(INDEX, r)]))
            self.add(total, self.in_every_lane(number), row)


def tile_maker(write):
    """Maker of intrinsics, given the code of a tile: write(tile, *arguments)."""

    def make(rows, n_bytes, whole=True):
        @intrinsic
        def tile(typing_context, n, o, i, arguments):
            def generate(context, builder, signature, values):
                n, o, i, packed = values
                given = cgutils.unpack_tuple(builder, packed)
                like = _Array(*opened(context, builder, arguments[0], given[0]), arguments[0])
                tile = _Tile(context, builder, (rows, n_bytes, whole), n, o, i, like)
                write(tile, *map(tile.argument, arguments, given))
                return context.get_dummy_value()

            return types.void(types.intp, types.intp, types.intp, arguments), generate

        return tile

    make.__name__, make.__doc__ = write.__name__, write.__doc__
    return make


def _asking(tile, y, depth, ahead, step):
    """Function ask(i) for the numbers i from 0 to ``depth``, which a tile (of y) goes through.

    Tiles of this size ask for one part after the other, from the uppermost to the lowest and then on to the right.
    """
    builder, (rows, _) = tile.builder, tile.rows_and_bytes
    height, width = ir.Constant(INDEX, rows), ir.Constant(INDEX, tile.vector.count)
    above, to_the_left = builder.sdiv(tile.first, height), builder.sdiv(tile.column[0], width)
    part = builder.add(builder.mul(to_the_left, builder.sdiv(y.shape[0], height)), above)
    begin = builder.inttoptr(ahead, ir.IntType(8).as_pointer())
    begin = address_of(builder, begin, (builder.mul(part, depth), step))
    return lambda i: prefetch(builder, address_of(builder, begin, (i, step)))


@tile_maker
def product_tile(tile, y, x, w, fresh, ahead, step):
    """y = or (not fresh) += x @ w."""
    builder = tile.builder
    ask = _asking(tile, y, x.shape[1], ahead, step) if tile.rows_and_bytes == ASKING_PRODUCT else None
    x_rows = [address_of(builder, x.base, (tile.index(r), x.strides[0])) for r in tile.some]
    sums = [cgutils.alloca_once(builder, tile.vector) for _ in tile.some]
    with builder.if_else(fresh) as (empty, continued):
        with empty:
            for total in sums:
                builder.store(ir.Constant(tile.vector, None), total)
        with continued:
            for r, total in enumerate(sums):
                builder.store(tile.load(y, tile.index(r)), total)
    with rolled_range(builder, x.shape[1]) as loop:
        if ask:
            ask(loop.index)
        row = tile.load(w, loop.index)
        for x_row, total in zip(x_rows, sums):
            tile.add(total, tile.number(address_of(builder, x_row, (loop.index, x.strides[1]))), row)
    for r, value in enumerate(tile.sums(sums)):
        tile.store(value, y, tile.index(r))


@tile_maker
def product_with_transposed_tile(tile, y, x, w):
    """y = x @ w^T for one row; w (o, i), of whole cache lines."""
    builder, (o, _), width = tile.builder, tile.column, tile.vector.count
    x_row = address_of(builder, x.base, (tile.first, x.strides[0]))
    w_rows = [address_of(builder, w.base, (plus(builder, o, q), w.strides[0])) for q in range(width)]
    sums = [cgutils.alloca_once_value(builder, ir.Constant(tile.vector, None)) for _ in w_rows]
    with rolled_range(builder, builder.sdiv(x.shape[1], ir.Constant(INDEX, width))) as loop:
        column = builder.mul(loop.index, ir.Constant(INDEX, width * tile.size))
        factor, *rows = (
            builder.load(at(builder, builder.gep(row, [column]), tile.vector), align=4) for row in (x_row, *w_rows)
        )
        for row, total in zip(rows, sums):
            tile.add(total, factor, row)
    tile.store(lane_sums_of_each(builder, tile.sums(sums)), y, tile.first)


@tile_maker
def squared_products_tile(tile, y, x, w, kind, weight, ahead, step):
    """y = sum_a weight[a] (x[:, a] @ w[kind[a]])^2; x (N, A, i), w (.., i, o).

    Products stay in registers, and so do sums where there are enough of them.
    """
    builder = tile.builder
    x_rows = [address_of(builder, x.base, (tile.index(r), x.strides[0])) for r in tile.some]
    products, totals = [cgutils.alloca_once(builder, tile.vector) for _ in tile.some], tile.zeros()
    depth = builder.mul(x.shape[1], x.shape[2])
    ask = _asking(tile, y, depth, ahead, step) if tile.rows_and_bytes == ASKING_SQUARES else None
    with rolled_range(builder, x.shape[1]) as along:
        a = along.index
        for product in products:
            builder.store(ir.Constant(tile.vector, None), product)
        chosen = tile.chosen(kind, a)
        with rolled_range(builder, x.shape[2]) as loop:
            if ask:
                ask(builder.add(builder.mul(a, x.shape[2]), loop.index))
            row = tile.load(w, chosen, loop.index)
            for x_row, product in zip(x_rows, products):
                tile.add(product, tile.number(address_of(builder, x_row, *zip((a, loop.index), x.strides[1:]))), row)
        factor = tile.number(address_of(builder, weight.base, (a, weight.strides[0])))
        for product, total in zip(products, totals):
            value = builder.load(product)
            tile.add(total, multiply(builder, factor, value), value)
    for r, value in enumerate(tile.sums(totals)):
        tile.store(value, y, tile.index(r))


@tile_maker
def scaled_product_tile(tile, y, x, w, factor, z):
    """y = factor z (x @ w), element by element with z."""
    (products,) = tile.products(w, x)
    for r, product in enumerate(products):
        factors = multiply(tile.builder, factor, tile.load(z, tile.index(r)))
        tile.store(multiply(tile.builder, factors, product), y, tile.index(r))


@tile_maker
def squared_product_tangent_tile(tile, y, x, x_dot, w, factor):
    """y += factor (x @ w) (x_dot @ w), element by element."""
    products, products_dot = tile.products(w, x, x_dot)
    for r, (product, product_dot) in enumerate(zip(products, products_dot)):
        weighted = multiply(tile.builder, factor, product)
        value = multiply_add(tile.builder, weighted, product_dot, tile.load(y, tile.index(r)))
        tile.store(value, y, tile.index(r))


@tile_maker
def scaled_product_tangent_tile(tile, y, y_dot, x, x_dot, w, factor, z, z_dot):
    """``scaled_product_tile`` and its derivative: y_dot = factor (z_dot (x @ w) + z (x_dot @ w))."""
    builder = tile.builder
    products, products_dot = tile.products(w, x, x_dot)
    for r, (product, product_dot) in enumerate(zip(products, products_dot)):
        index = tile.index(r)
        bar, bar_dot = (multiply(builder, factor, tile.load(array, index)) for array in (z, z_dot))
        changed = multiply(builder, bar_dot, product)
        tile.store(multiply(builder, bar, product), y, index)
        tile.store(multiply_add(builder, bar, product_dot, changed), y_dot, index)
