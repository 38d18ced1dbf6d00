"""Small dense products for the inside of kernels.

Our matrices are 4 to 128 wide and every thread has its own rows.  A threaded BLAS would fight Numba's threads, its
results may depend on their number, and a call costs more than many of these products; tiles of the result that stay in
registers run at its single-thread rate or above.
"""

import numpy as np
from llvmlite.binding import get_host_cpu_features

from eann_lite.compiled import helper
from eann_lite.kernels.tiles import (
    gathered_product_tangent_tile,
    gathered_product_tile,
    product_and_use_tangent_tile,
    product_tile,
    scaled_product_tangent_tile,
    scaled_product_tile,
    scattered_product_tile,
    squared_product_tangent_tile,
    squared_products_tile,
)
from eann_lite.kernels.vectors import any_layout, line

# Columns are counted from np.int64(0): a plain 0 is a type of its own for Numba, which would compile helpers for it, too.

#: With AVX-512 there are 32 registers of a cache line each, else 16 of half a line.  A tile needs a register (or two)
#: for the sums of each of its rows and lines.  Eight sums keep two units for multiply-adds busy while each waits for its
#: own last one; as many rows as lines make the most of what is loaded.
LONG_VECTORS = bool(get_host_cpu_features().get("avx512f"))
#: Rows of a tile of ``gathered_product`` and its derivative: the monomials up to degree 2 at once, or half of them.
TALLEST = 10 if LONG_VECTORS else 5


def _product_columns(n_bytes):
    """Helper: the columns of ``product`` from o on that are as wide as ``n_bytes``."""
    tallest = 8 if LONG_VECTORS else 6
    tall, four, three, two, one = (product_tile(rows, n_bytes) for rows in (tallest, 4, 3, 2, 1))

    @helper
    def columns(x, w, o, y, fresh):
        n, n_rows = 0, y.shape[0]
        # Eight rows that are left are better two times four than six and two.
        while n + tallest <= n_rows and (tallest == 8 or n + 8 != n_rows):
            tall(x, n, w, o, y, fresh)
            n += tallest
        while n + 4 <= n_rows:
            four(x, n, w, o, y, fresh)
            n += 4
        # Not one by one: a single row has too few sums to keep the processor busy while each waits for itself.
        if n_rows - n == 3:
            three(x, n, w, o, y, fresh)
        elif n_rows - n == 2:
            two(x, n, w, o, y, fresh)
        elif n_rows - n == 1:
            one(x, n, w, o, y, fresh)

    return columns


def _narrow_columns(n_bytes, heights):
    """The same with few tiles, which are quickly compiled: for what is left beside whole cache lines."""
    one = product_tile(1, n_bytes)

    @helper
    def row_by_row(x, w, o, y, fresh):
        for n in range(y.shape[0]):
            one(x, n, w, o, y, fresh)

    if not heights:
        return row_by_row
    tall, low = (product_tile(rows, n_bytes) for rows in heights)
    tallest, lower = heights

    @helper
    def columns(x, w, o, y, fresh):
        n, n_rows = 0, y.shape[0]
        while n + tallest <= n_rows:
            tall(x, n, w, o, y, fresh)
            n += tallest
        while n + lower <= n_rows:
            low(x, n, w, o, y, fresh)
            n += lower
        while n < n_rows:
            one(x, n, w, o, y, fresh)
            n += 1

    return columns


def _gathered_columns(n_bytes, height):
    """Helper: the columns of ``gathered_product`` from o on that are as wide as ``n_bytes``."""
    one = gathered_product_tile(1, n_bytes)

    @helper
    def row_by_row(x, u, p, v, m, o, y):
        for n in range(y.shape[0]):
            one(x, n, u, p, v, m, o, y)

    if height == 1:
        return row_by_row
    tall = gathered_product_tile(height, n_bytes)

    @helper
    def columns(x, u, p, v, m, o, y):
        n, n_rows = 0, y.shape[0]
        while n + height <= n_rows:
            tall(x, n, u, p, v, m, o, y)
            n += height
        while n < n_rows:
            one(x, n, u, p, v, m, o, y)
            n += 1

    return columns


def _gathered_columns_tangent(n_bytes, height):
    """Helper: the columns of ``gathered_product_tangent`` from o on that are as wide as ``n_bytes``."""
    tall, one = (gathered_product_tangent_tile(rows, n_bytes) for rows in (height, 1))

    @helper
    def columns(x, x_dot, u, u_dot, p, v, v_dot, m, o, y):
        n, n_rows = 0, y.shape[0]
        while n + height <= n_rows:
            tall(x, x_dot, n, u, u_dot, p, v, v_dot, m, o, y)
            n += height
        while n < n_rows:
            one(x, x_dot, n, u, u_dot, p, v, v_dot, m, o, y)
            n += 1

    return columns


def _used_columns_tangent(n_bytes, height):
    """Helper: the columns of ``product_and_uses_tangent`` from o on that are as wide as ``n_bytes``."""
    tall, one = (product_and_use_tangent_tile(rows, n_bytes) for rows in (height, 1))

    @helper
    def columns(begin, end, x, x_dot, w, w_dot, o, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving):
        n = begin
        while n + height <= end:
            tall(x, x_dot, n - begin, w, w_dot, o, n, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving)
            n += height
        while n < end:
            one(x, x_dot, n - begin, w, w_dot, o, n, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving)
            n += 1

    return columns


def _columns_in_tiles(make_tile, n_bytes, heights):
    """Helper: the columns from o on that are as wide as ``n_bytes``, in tiles(x, n, w, o, first, second, y).

    make_tile(rows, n_bytes) : a tile of so many rows, whose two arguments before the last are its own
    """
    tall, middle, one = (make_tile(rows, n_bytes) for rows in (*heights, 1))
    tallest, lower = heights

    @helper
    def columns(x, w, o, first, second, y):
        n, n_rows = 0, y.shape[0]
        while n + tallest <= n_rows:
            tall(x, n, w, o, first, second, y)
            n += tallest
        while n + lower <= n_rows:
            middle(x, n, w, o, first, second, y)
            n += lower
        while n < n_rows:
            one(x, n, w, o, first, second, y)
            n += 1

    return columns


def _scattered_columns(n_bytes, height):
    """Helper: the columns of ``add_scattered_product`` from o on that are as wide as ``n_bytes``."""
    tall, one = (scattered_product_tile(rows, n_bytes) for rows in (height, 1))

    @helper
    def columns(x, w, o, z, m, y):
        n, n_rows = 0, z.shape[0]
        while n + height <= n_rows:
            tall(x, n, w, o, z, m, y)
            n += height
        while n < n_rows:
            one(x, n, w, o, z, m, y)
            n += 1

    return columns


def _columns_tangent(make_tile, n_bytes, height):
    """Helper: the columns from o on that are as wide as ``n_bytes``, in tiles(x, x_dot, n, w, o, factor, *others).

    The last of the others is written, and has as many rows as count.
    """
    tall, one = (make_tile(rows, n_bytes) for rows in (height, 1))

    @helper
    def columns(x, x_dot, w, o, factor, *others):
        n, n_rows = 0, others[-1].shape[0]
        while n + height <= n_rows:
            tall(x, x_dot, n, w, o, factor, *others)
            n += height
        while n < n_rows:
            one(x, x_dot, n, w, o, factor, *others)
            n += 1

    return columns


# Four cache lines: of four rows, as each number that is loaded then serves four sums (in the 32 registers of AVX-512),
# or of one row, where each sum waits for its own last addition.
_four_lines_of_four_rows, _four_lines_of_one_row = (product_tile(rows, 256) for rows in (4, 1))
# A cache line, a half and a quarter of it, and a single number.
_line_of_product = _product_columns(64)
_half_of_product, _quarter_of_product, _one_of_product = map(_narrow_columns, (32, 16, 1), ((8, 4), (4, 2), ()))
_line_gathered, _half_gathered = _gathered_columns(64, TALLEST), _gathered_columns(32, TALLEST)
_quarter_gathered, _one_gathered = _gathered_columns(16, 5), _gathered_columns(1, 1)
_line_gathered_tangent, _half_gathered_tangent, _one_gathered_tangent = (
    _gathered_columns_tangent(n_bytes, height) for n_bytes, height in ((64, TALLEST), (32, TALLEST), (1, 2))
)
_line_used_tangent, _half_used_tangent, _one_used_tangent = (
    _used_columns_tangent(n_bytes, height) for n_bytes, height in ((64, 8 if LONG_VECTORS else 3), (32, 6), (1, 2))
)
# Squares need two sums a row, and products with their derivative, too.  Several cache lines together with AVX-512:
# eight rows by two lines of squares are faster than four, though some totals leave the registers between monomials.
_two_lines_squared = _columns_in_tiles(squared_products_tile, 128, (8, 4))
_line_squared = _columns_in_tiles(squared_products_tile, 64, (8, 4) if LONG_VECTORS else (3, 2))
_four_lines_scaled = _columns_in_tiles(scaled_product_tile, 256, (4, 2))
_line_scaled = _columns_in_tiles(scaled_product_tile, 64, (8, 4) if LONG_VECTORS else (4, 2))
_half_scaled = _columns_in_tiles(scaled_product_tile, 32, (8, 2))
_line_scattered, _half_scattered, _one_scattered = (
    _scattered_columns(n_bytes, height) for n_bytes, height in ((64, 8 if LONG_VECTORS else 4), (32, 8), (1, 2))
)
_one_squared = _columns_in_tiles(squared_products_tile, 1, (4, 2))
_one_scaled = _columns_in_tiles(scaled_product_tile, 1, (4, 2))


_two_lines_squared_tangent, _line_squared_tangent, _one_squared_tangent = (
    _columns_tangent(squared_product_tangent_tile, n_bytes, 4 if LONG_VECTORS else 2) for n_bytes in (128, 64, 1)
)
_two_lines_scaled_tangent, _line_scaled_tangent, _one_scaled_tangent = (
    _columns_tangent(scaled_product_tangent_tile, n_bytes, 4 if LONG_VECTORS else 2) for n_bytes in (128, 64, 1)
)


@helper
def _four_lines_of_product(x, w, o, y, fresh):
    n, n_rows = 0, y.shape[0]
    if LONG_VECTORS:
        while n + 4 <= n_rows:
            _four_lines_of_four_rows(x, n, w, o, y, fresh)
            n += 4
    while n < n_rows:
        _four_lines_of_one_row(x, n, w, o, y, fresh)
        n += 1


@helper
def product(x, w, y, fresh):
    """y = or (not fresh) += x @ w with x (n, i) of any strides, w (i, o) and y (n, o) with contiguous rows.

    Here and below as many rows count as y has, and x may have more.
    """
    # Whatever the arrays are parts of, one compilation serves.
    _product(any_layout(x), any_layout(w), any_layout(y), fresh)


@helper
def _product(x, w, y, fresh):
    o, n_out, wide = np.int64(0), w.shape[1], line(y)
    if LONG_VECTORS or y.shape[0] == 1:
        while o + 4 * wide <= n_out:
            _four_lines_of_product(x, w, o, y, fresh)
            o += 4 * wide
    while o + wide <= n_out:
        _line_of_product(x, w, o, y, fresh)
        o += wide
    while o + wide // 2 <= n_out:
        _half_of_product(x, w, o, y, fresh)
        o += wide // 2
    while o + wide // 4 <= n_out:
        _quarter_of_product(x, w, o, y, fresh)
        o += wide // 4
    while o < n_out:
        _one_of_product(x, w, o, y, fresh)
        o += 1


@helper
def squared_products(x, w, kind, weight, y):
    """y = sum_a weight[a] (x[:, a] @ w[kind[a]])^2 with x (n, A, i) of any strides, w (.., i, o) and y (n, o)."""
    o, n_out, wide = np.int64(0), y.shape[1], line(y)
    while LONG_VECTORS and o + 2 * wide <= n_out:
        _two_lines_squared(x, w, o, kind, weight, y)
        o += 2 * wide
    while o + wide <= n_out:
        _line_squared(x, w, o, kind, weight, y)
        o += wide
    while o < n_out:
        _one_squared(x, w, o, kind, weight, y)
        o += 1


@helper
def scaled_product(x, w, factor, z, y):
    """y = factor z (x @ w), element by element with z (n, o); x (n, i) of any strides, w (i, o), y (n, o)."""
    _scaled_product(any_layout(x), any_layout(w), factor, any_layout(z), any_layout(y))


@helper
def _scaled_product(x, w, factor, z, y):
    o, n_out, wide = np.int64(0), y.shape[1], line(y)
    while LONG_VECTORS and o + 4 * wide <= n_out:
        _four_lines_scaled(x, w, o, factor, z, y)
        o += 4 * wide
    while o + wide <= n_out:
        _line_scaled(x, w, o, factor, z, y)
        o += wide
    while o + wide // 2 <= n_out:
        _half_scaled(x, w, o, factor, z, y)
        o += wide // 2
    while o < n_out:
        _one_scaled(x, w, o, factor, z, y)
        o += 1


@helper
def add_scattered_product(x, w, z, m, y):
    """Row m[n] of y += z[n] (x.T @ w)[n], row by row, element by element with z (n, o); as many rows count as z has.

    Rows of x (i, ..), too, are contiguous.
    """
    _add_scattered_product(any_layout(x), any_layout(w), any_layout(z), any_layout(m), any_layout(y))


@helper
def _add_scattered_product(x, w, z, m, y):
    o, n_out, wide = np.int64(0), y.shape[1], line(y)
    while o + wide <= n_out:
        _line_scattered(x, w, o, z, m, y)
        o += wide
    while o + wide // 2 <= n_out:
        _half_scattered(x, w, o, z, m, y)
        o += wide // 2
    while o < n_out:
        _one_scattered(x, w, o, z, m, y)
        o += 1


@helper
def add_squared_product_tangent(x, x_dot, w, factor, y):
    """y += factor (x @ w) (x_dot @ w), element by element; x, x_dot (n, i) of any strides, w (i, o), y (n, o)."""
    o, n_out, wide = np.int64(0), y.shape[1], line(y)
    while LONG_VECTORS and o + 2 * wide <= n_out:
        _two_lines_squared_tangent(x, x_dot, w, o, factor, y)
        o += 2 * wide
    while o + wide <= n_out:
        _line_squared_tangent(x, x_dot, w, o, factor, y)
        o += wide
    while o < n_out:
        _one_squared_tangent(x, x_dot, w, o, factor, y)
        o += 1


@helper
def scaled_product_tangent(x, x_dot, w, factor, z, z_dot, y, y_dot):
    """y as in ``scaled_product``, and its derivative y_dot along x_dot and z_dot."""
    o, n_out, wide = np.int64(0), y.shape[1], line(y)
    while LONG_VECTORS and o + 2 * wide <= n_out:
        _two_lines_scaled_tangent(x, x_dot, w, o, factor, z, z_dot, y, y_dot)
        o += 2 * wide
    while o + wide <= n_out:
        _line_scaled_tangent(x, x_dot, w, o, factor, z, z_dot, y, y_dot)
        o += wide
    while o < n_out:
        _one_scaled_tangent(x, x_dot, w, o, factor, z, z_dot, y, y_dot)
        o += 1


@helper
def gathered_product(x, columns, u, p, v, m, y):
    """y = x[:, :columns] @ w where row c of w is u[p + c] v[m[p + c]], element by element.

    x (n, ..) of any strides, y (n, o) and rows of u and v (.., o) contiguous, m: rows of v.
    """
    _gathered_product(any_layout(x)[:, :columns], u, p, v, m, y)


@helper
def _gathered_product(x, u, p, v, m, y):
    o, n_out, wide = np.int64(0), y.shape[1], line(y)
    while o + wide <= n_out:
        _line_gathered(x, u, p, v, m, o, y)
        o += wide
    while o + wide // 2 <= n_out:
        _half_gathered(x, u, p, v, m, o, y)
        o += wide // 2
    while o + wide // 4 <= n_out:
        _quarter_gathered(x, u, p, v, m, o, y)
        o += wide // 4
    while o < n_out:
        _one_gathered(x, u, p, v, m, o, y)
        o += 1


@helper
def gathered_product_tangent(x, x_dot, columns, u, u_dot, p, v, v_dot, m, y):
    """Derivative y of ``gathered_product`` along x_dot, u_dot and v_dot, whose rows are as far apart as those of u."""
    _gathered_product_tangent(any_layout(x)[:, :columns], any_layout(x_dot)[:, :columns], u, u_dot, p, v, v_dot, m, y)


@helper
def _gathered_product_tangent(x, x_dot, u, u_dot, p, v, v_dot, m, y):
    o, n_out, wide = np.int64(0), y.shape[1], line(y)
    while o + wide <= n_out:
        _line_gathered_tangent(x, x_dot, u, u_dot, p, v, v_dot, m, o, y)
        o += wide
    while o + wide // 2 <= n_out:
        _half_gathered_tangent(x, x_dot, u, u_dot, p, v, v_dot, m, o, y)
        o += wide // 2
    while o < n_out:
        _one_gathered_tangent(x, x_dot, u, u_dot, p, v, v_dot, m, o, y)
        o += 1


@helper
def product_and_uses_tangent(begin, end, x, x_dot, w, w_dot, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving):
    """Derivatives of u p, added to rows z[h], and sums of v[m] p, with p = x.T @ w in rows begin to end, along all dots.

    sums = or (not fresh) +=; products with u and v are element by element; all rows are contiguous, and those of all
    arrays but x and x_dot equally far apart.
    Without ``moving`` only w_dot counts; the others with a dot may then hold anything.
    """
    _product_and_uses_tangent(
        begin, end, any_layout(x), any_layout(x_dot), any_layout(w), any_layout(w_dot), u, u_dot, v, v_dot, m, h, z,
        sums, fresh, moving,
    )  # fmt: skip


@helper
def _product_and_uses_tangent(begin, end, x, x_dot, w, w_dot, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving):
    o, n_out, wide = np.int64(0), w.shape[1], line(w)
    while o + wide <= n_out:
        _line_used_tangent(begin, end, x, x_dot, w, w_dot, o, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving)
        o += wide
    while o + wide // 2 <= n_out:
        _half_used_tangent(begin, end, x, x_dot, w, w_dot, o, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving)
        o += wide // 2
    while o < n_out:
        _one_used_tangent(begin, end, x, x_dot, w, w_dot, o, u, u_dot, v, v_dot, m, h, z, sums, fresh, moving)
        o += 1
