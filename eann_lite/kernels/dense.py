"""Small dense products for the inside of kernels.

Our matrices are 4 to 128 wide and every thread has its own rows.  A threaded BLAS would fight Numba's threads, its
results may depend on their number, and a call costs more than many of these products; tiles of the result that stay in
registers run at its single-thread rate or above.
"""

from eann_lite.compiled import helper
from eann_lite.kernels.vectors import any_layout, line, product_tile, transposed_product_tile

#: Tiles of some rows by a cache line, by half and a quarter of it, and of a single number.
_tile_6, _tile_4, _tile_3, _tile_2, _tile_1 = (product_tile(rows, 64) for rows in (6, 4, 3, 2, 1))
_half_6, _half_4, _half_1 = (product_tile(rows, 32) for rows in (6, 4, 1))
_quarter_4, _quarter_1 = (product_tile(rows, 16) for rows in (4, 1))
_single = product_tile(1, 1)


@helper
def product(x, w, y, fresh):
    """y = or (not fresh) += x @ w with x (n, i) of any strides, w (i, o) and y (n, o) with contiguous rows."""
    # Whatever the arrays are parts of, one compilation serves.
    _product(any_layout(x), any_layout(w), any_layout(y), fresh)


@helper
def _product(x, w, y, fresh):
    n_rows, n_out, wide = x.shape[0], w.shape[1], line(y)
    o = 0
    while o + wide <= n_out:
        n = 0
        while n + 6 <= n_rows and n + 8 != n_rows:
            _tile_6(x, n, w, o, y, fresh)
            n += 6
        while n + 4 <= n_rows:
            _tile_4(x, n, w, o, y, fresh)
            n += 4
        # Not one by one: a single row has too few sums to keep the processor busy while each waits for itself.
        if n_rows - n == 3:
            _tile_3(x, n, w, o, y, fresh)
        elif n_rows - n == 2:
            _tile_2(x, n, w, o, y, fresh)
        elif n_rows - n == 1:
            _tile_1(x, n, w, o, y, fresh)
        o += wide
    while o + wide // 2 <= n_out:
        n = 0
        while n + 6 <= n_rows and n + 8 != n_rows:
            _half_6(x, n, w, o, y, fresh)
            n += 6
        while n + 4 <= n_rows:
            _half_4(x, n, w, o, y, fresh)
            n += 4
        while n < n_rows:
            _half_1(x, n, w, o, y, fresh)
            n += 1
        o += wide // 2
    while o + wide // 4 <= n_out:
        n = 0
        while n + 4 <= n_rows:
            _quarter_4(x, n, w, o, y, fresh)
            n += 4
        while n < n_rows:
            _quarter_1(x, n, w, o, y, fresh)
            n += 1
        o += wide // 4
    while o < n_out:
        for n in range(n_rows):
            _single(x, n, w, o, y, fresh)
        o += 1


@helper
def transposed_products(begin, end, x, y, rows, z, row):
    """z[row + k, p - begin] = x[p, k] y[rows[p], k] for p from begin to end; x, y with contiguous rows of one length."""
    k = 0
    while k + 8 <= x.shape[1]:
        p = begin
        while p + 4 <= end:
            four = (rows[p], rows[p + 1], rows[p + 2], rows[p + 3])
            transposed_product_tile(x[:, k:], p, y[:, k:], four, z, row + k, p - begin)
            p += 4
        while p < end:
            for c in range(k, k + 8):
                z[row + c, p - begin] = x[p, c] * y[rows[p], c]
            p += 1
        k += 8
    while k < x.shape[1]:
        for p in range(begin, end):
            z[row + k, p - begin] = x[p, k] * y[rows[p], k]
        k += 1
