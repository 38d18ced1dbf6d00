"""Small dense products for the inside of kernels.

Our matrices are 4 to 128 wide and every thread has its own rows.  A threaded BLAS would fight Numba's threads, its
results may depend on their number, and a call costs more than many of these products; tiles of the result that stay in
registers run at its single-thread rate or above.
"""

import numpy as np
from llvmlite.binding import get_host_cpu_features

from eann_lite.compiled import helper
from eann_lite.kernels.orbital_tiles import (
    messages_tangent_tile,
    messages_tile,
    orbital_sums_tangent_tile,
    orbital_sums_tile,
    second_degree_messages_tangent_tile,
    second_degree_messages_tile,
    second_degree_sums_tangent_tile,
    second_degree_sums_tile,
)
from eann_lite.kernels.second_degree import N_MONOMIALS
from eann_lite.kernels.tiles import (
    ASKING_PRODUCT,
    ASKING_SQUARES,
    product_tile,
    product_with_transposed_tile,
    scaled_product_tangent_tile,
    scaled_product_tile,
    squared_product_tangent_tile,
    squared_products_tile,
)
from eann_lite.kernels.vectors import any_layout, line

# Columns are counted from np.int64(0): a plain 0 is a type of its own for Numba, which would compile helpers for it, too.

#: With AVX-512 there are 32 registers of a cache line each, else 16 of half a line.  A tile needs a register (or two)
#: for the sums of each of its rows and lines.  Eight sums keep two units for multiply-adds busy while each waits for its
#: own last one; as many rows as lines make the most of what is loaded.
LONG_VECTORS = bool(get_host_cpu_features().get("avx512f"))
#: Number i of a product (``tiles``) where there is one alone.
ONLY = np.int64(0)
#: So many bytes a tile asks for while each of its 16 sums grows by one product: with more it would wait for them.
MOST_AT_A_TIME = 40


def _in_tiles(make_tile, n_bytes, *heights, whole=True):
    """Helper columns(n, end, o, i, arguments): rows n to end of the columns from o on that are as wide as ``n_bytes``;
    not ``whole``: of those up to the last one, which are fewer.

    heights : rows of the tiles, at most two numbers, tallest first; what they leave is done row by row.
    """
    one = make_tile(1, n_bytes, whole)
    tallest, lower = heights + (1,) * (2 - len(heights))
    # Numba compiles nothing that hangs on a truth it knows to be false.
    any_tall, any_low = tallest > 1, lower > 1
    tall = make_tile(tallest, n_bytes, whole) if any_tall else one
    low = make_tile(lower, n_bytes, whole) if any_low else one

    @helper
    def columns(n, end, o, i, arguments):
        if any_tall:
            while n + tallest <= end:
                tall(n, o, i, arguments)
                n += tallest
        if any_low:
            while n + lower <= end:
                low(n, o, i, arguments)
                n += lower
        while n < end:
            one(n, o, i, arguments)
            n += 1

    return columns


def _line_of_products():
    """The same for cache lines of ``product``, of which there are most: up to four rows that are left have tiles, too."""
    tallest = 8 if LONG_VECTORS else 6
    tall, four, three, two, one = (product_tile(rows, 64) for rows in (tallest, 4, 3, 2, 1))

    @helper
    def columns(n, end, o, i, arguments):
        # Eight rows that are left are better two times four than six and two.
        while n + tallest <= end and (tallest == 8 or n + 8 != end):
            tall(n, o, i, arguments)
            n += tallest
        while n + 4 <= end:
            four(n, o, i, arguments)
            n += 4
        # Not one by one: a single row has too few sums to keep the processor busy while each waits for itself.
        if end - n == 3:
            three(n, o, i, arguments)
        elif end - n == 2:
            two(n, o, i, arguments)
        elif end - n == 1:
            one(n, o, i, arguments)

    return columns


# Four cache lines: of four rows, as each number that is loaded then serves four sums (in the 32 registers of AVX-512),
# or of one row, where each sum waits for its own last addition.  What is left beside cache lines has few tiles, which
# are quickly compiled: half a line, as eight Gaussians are in single precision, and any other number of columns.
_four_lines_of_product = _in_tiles(product_tile, 256, *((4,) if LONG_VECTORS else ()))
_line_of_product, _half_of_product = _line_of_products(), _in_tiles(product_tile, 32, 8, 4)
_rest_of_product = _in_tiles(product_tile, 64, *((8, 4) if LONG_VECTORS else (6, 2)), whole=False)
_line_of_product_with_transposed = product_with_transposed_tile(1, 64)


def _all_columns(make_tile, sizes):
    """Helper rows(n, end, n_out, wide, i, arguments): rows n to end of all ``n_out`` columns, ``wide`` to a cache line.

    sizes : for tiles of so many bytes their numbers of rows: of a cache line, 64, and there may be 128 or 256, and 32,
        for half a line where nothing else is left.  Any other number of columns that is left has tiles as a line has.
    """
    many = max(sizes)
    any_many, any_half = many > 64, 32 in sizes
    of_many, of_line = (_in_tiles(make_tile, n_bytes, *sizes[n_bytes]) for n_bytes in (many, 64))
    of_half = _in_tiles(make_tile, 32, *sizes.get(32, ()))
    of_rest = _in_tiles(make_tile, 64, *sizes[64], whole=False)
    lines = many // 64

    @helper
    def rows(n, end, n_out, wide, i, arguments):
        o = np.int64(0)
        if any_many:
            while o + lines * wide <= n_out:
                of_many(n, end, o, i, arguments)
                o += lines * wide
        while o + wide <= n_out:
            of_line(n, end, o, i, arguments)
            o += wide
        if any_half:
            if o + wide // 2 == n_out:
                of_half(n, end, o, i, arguments)
                o = n_out
        if o < n_out:
            of_rest(n, end, o, i, arguments)

    return rows


# Squares need two sums a row, and products with their derivative, too.  Several cache lines together with AVX-512:
# eight rows by two lines of squares are faster than four, though some totals leave the registers between monomials.
# Orbital sums have a row for each monomial, 20 to degree 3; those to degree 2 have tiles of their own, and to degree 0
# and 1 they go row by row.
if LONG_VECTORS:
    _squared = _all_columns(squared_products_tile, {128: (8, 4), 64: (8, 4)})
    _scaled = _all_columns(scaled_product_tile, {256: (4, 2), 64: (8, 4), 32: (8, 2)})
    _squared_tangent = _all_columns(squared_product_tangent_tile, {128: (4,), 64: (4,)})
    _scaled_tangent = _all_columns(scaled_product_tangent_tile, {128: (4,), 64: (4,)})
    _sums = _all_columns(orbital_sums_tile, {64: (10,), 32: (10,)})
    _sums_tangent = _all_columns(orbital_sums_tangent_tile, {64: (10,), 32: (10,)})
    _messages_tangent = _all_columns(messages_tangent_tile, {64: (8, 4), 32: (6,)})
    _messages = _all_columns(messages_tile, {64: (8, 4), 32: (8,)})
else:
    _squared = _all_columns(squared_products_tile, {64: (3, 2)})
    _scaled = _all_columns(scaled_product_tile, {64: (4, 2), 32: (8, 2)})
    _squared_tangent = _all_columns(squared_product_tangent_tile, {64: (2,)})
    _scaled_tangent = _all_columns(scaled_product_tangent_tile, {64: (2,)})
    _sums = _all_columns(orbital_sums_tile, {64: (5,), 32: (5,)})
    _sums_tangent = _all_columns(orbital_sums_tangent_tile, {64: (5,), 32: (5,)})
    _messages_tangent = _all_columns(messages_tangent_tile, {64: (3,), 32: (6,)})
    _messages = _all_columns(messages_tile, {64: (4,), 32: (8,)})


def _to_degree_2(make_tile):
    """Helper of_atom(i, arguments): what a tile of all ten monomials does for atom i, for all Gaussians.

    The arguments, whose first one is (N, A, K), serve all atoms of a block.
    """
    # Without AVX-512 there are registers for ten rows of half a cache line.
    any_line = LONG_VECTORS
    of_line, of_half = (make_tile(N_MONOMIALS, n_bytes) for n_bytes in (64, 32))
    of_rest = make_tile(N_MONOMIALS, 64 if any_line else 32, whole=False)

    @helper
    def of_atom(i, arguments):
        y, n, o = arguments[0], np.int64(0), np.int64(0)
        wide, n_radial = line(y), y.shape[2]
        if any_line:
            while o + wide <= n_radial:
                of_line(n, o, i, arguments)
                o += wide
            if o + wide // 2 == n_radial:
                of_half(n, o, i, arguments)
                o = n_radial
        else:
            while o + wide // 2 <= n_radial:
                of_half(n, o, i, arguments)
                o += wide // 2
        if o < n_radial:
            of_rest(n, o, i, arguments)

    return of_atom


#: Orbital sums, messages and the tangents of both to degree 2: see ``orbital_tiles``.
second_degree_sums = _to_degree_2(second_degree_sums_tile)
second_degree_sums_tangent = _to_degree_2(second_degree_sums_tangent_tile)
second_degree_messages = _to_degree_2(second_degree_messages_tile)
second_degree_messages_tangent = _to_degree_2(second_degree_messages_tangent_tile)


@helper
def span(x):
    """Address and bytes of a contiguous array: what ``product_before`` and ``squared_products`` may ask for."""
    return np.int64(x.ctypes.data), x.size * x.itemsize


@helper
def _asked(ahead, tile, w, y, depth):
    """Address of what tiles (rows, bytes) of y ask for, and how much of it with each of their ``depth`` products."""
    address, n_bytes = ahead
    height, width = tile[0], tile[1] // 64 * line(y)
    times = y.shape[0] // height * (y.shape[1] // width) * depth
    if n_bytes == 0 or times == 0:
        return np.int64(w.ctypes.data), np.int64(0)  # Again and again for what is in the first cache.
    return address, MOST_AT_A_TIME if n_bytes >= MOST_AT_A_TIME * times else n_bytes // times


@helper
def product(x, w, y, fresh):
    """y = or (not fresh) += x @ w with x (n, i) of any strides, w (i, o) and y (n, o) with contiguous rows.

    Here and below as many rows count as y has, and x may have more.
    """
    # Whatever the arrays are parts of, one compilation serves.
    _product(any_layout(x), any_layout(w), any_layout(y), fresh, np.int64(w.ctypes.data), np.int64(0))


@helper
def product_before(ahead, x, w, y, fresh):
    """``product``, and meanwhile ask for ``ahead``, a ``span`` that is needed soon after; nothing has 0 bytes.

    Where that would take longer than the product, for the beginning alone.  (With AVX-512 alone.)
    """
    address, step = _asked(ahead, ASKING_PRODUCT, w, y, w.shape[0])
    _product(any_layout(x), any_layout(w), any_layout(y), fresh, address, step)


@helper
def _product(x, w, y, fresh, address, step):
    n, end, o, i, n_out, wide = np.int64(0), y.shape[0], np.int64(0), ONLY, y.shape[1], line(y)
    arguments = y, x, w, fresh, address, step
    if LONG_VECTORS or end == 1:
        while o + 4 * wide <= n_out:
            _four_lines_of_product(n, end, o, i, arguments)
            o += 4 * wide
    while o + wide <= n_out:
        _line_of_product(n, end, o, i, arguments)
        o += wide
    if o + wide // 2 == n_out:
        _half_of_product(n, end, o, i, arguments)
    elif o < n_out:
        _rest_of_product(n, end, o, i, arguments)


@helper
def product_with_transposed(x, w, y):
    """y = x @ w^T with x (n, i), w (o, i) and y (n, o): rows are contiguous, i and o whole cache lines of numbers.

    For few rows: ``product`` with w^T takes less time for many.
    """
    arguments = any_layout(y), any_layout(x), any_layout(w)
    # A line of w's rows is in the first cache for all rows of x but one.
    for o in range(0, y.shape[1], line(y)):
        for n in range(y.shape[0]):
            _line_of_product_with_transposed(n, o, ONLY, arguments)


@helper
def squared_products(ahead, x, w, kind, weight, y):
    """y = sum_a weight[a] (x[:, a] @ w[kind[a]])^2 with x (n, A, i) of any strides, w (.., i, o) and y (n, o).

    It asks for ``ahead`` as ``product_before`` does.  Here and below tables of whole numbers, as kind, are contiguous,
    and factors are floats.
    """
    address, step = _asked(ahead, ASKING_SQUARES, w, y, x.shape[1] * x.shape[2])
    arguments = (
        any_layout(y), any_layout(x), any_layout(w), any_layout(kind), any_layout(weight), address, step,
    )  # fmt: skip
    _squared(np.int64(0), y.shape[0], y.shape[1], line(y), ONLY, arguments)


@helper
def scaled_product(x, w, factor, z, y):
    """y = factor z (x @ w), element by element with z (n, o); x (n, i) of any strides, w (i, o), y (n, o)."""
    arguments = any_layout(y), any_layout(x), any_layout(w), factor, any_layout(z)
    _scaled(np.int64(0), y.shape[0], y.shape[1], line(y), ONLY, arguments)


@helper
def add_squared_product_tangent(x, x_dot, w, factor, y):
    """y += factor (x @ w) (x_dot @ w), element by element; x, x_dot (n, i) of any strides, w (i, o), y (n, o)."""
    arguments = any_layout(y), any_layout(x), any_layout(x_dot), any_layout(w), factor
    _squared_tangent(np.int64(0), y.shape[0], y.shape[1], line(y), ONLY, arguments)


@helper
def scaled_product_tangent(x, x_dot, w, factor, z, z_dot, y, y_dot):
    """y as in ``scaled_product``, and its derivative y_dot along x_dot and z_dot."""
    arguments = (
        any_layout(y), any_layout(y_dot), any_layout(x), any_layout(x_dot), any_layout(w), factor, any_layout(z),
        any_layout(z_dot),
    )  # fmt: skip
    _scaled_tangent(np.int64(0), y.shape[0], y.shape[1], line(y), ONLY, arguments)


@helper
def orbital_sums(i, arguments):
    """Orbital sums of atom i: ``orbital_tiles.orbital_sums_tile``.

    Here and below the arguments serve all atoms of a block: to put them together takes as long as the work for a few
    pairs.
    """
    y = arguments[0]
    _sums(np.int64(0), y.shape[1], y.shape[2], line(y), i, arguments)


@helper
def orbital_sums_tangent(i, arguments):
    """Their tangents: ``orbital_tiles.orbital_sums_tangent_tile``."""
    y = arguments[0]
    _sums_tangent(np.int64(0), y.shape[1], y.shape[2], line(y), i, arguments)


@helper
def messages(i, first, arguments):
    """What the pairs first[i] to first[i + 1] of atom i pass back: ``orbital_tiles.messages_tile``."""
    w = arguments[0]
    _messages(first[i], first[i + 1], w.shape[2], line(w), i, arguments)


@helper
def messages_tangent(i, first, arguments):
    """Its tangent: ``orbital_tiles.messages_tangent_tile``."""
    w = arguments[0]
    _messages_tangent(first[i], first[i + 1], w.shape[2], line(w), i, arguments)
