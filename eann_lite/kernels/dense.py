"""Small dense products for the inside of kernels.

Our matrices are 8 to 128 wide and every thread has its own rows.  A threaded BLAS would fight Numba's threads, and its
results may depend on their number; these loops reach about three quarters of its single-thread rate.  Four rows times
four columns at once: each loaded vector then serves four multiply-adds.
"""

from eann_lite.compiled import helper


@helper
def add_product(x, w, y):
    """y += x @ w with x (n, i), w (i, o), y (n, o)."""
    n_rows, n_in = x.shape
    n_out = w.shape[1]
    n = 0
    while n + 4 <= n_rows:
        i = 0
        while i + 4 <= n_in:
            a0, a1, a2, a3 = x[n, i], x[n, i + 1], x[n, i + 2], x[n, i + 3]
            b0, b1, b2, b3 = x[n + 1, i], x[n + 1, i + 1], x[n + 1, i + 2], x[n + 1, i + 3]
            c0, c1, c2, c3 = x[n + 2, i], x[n + 2, i + 1], x[n + 2, i + 2], x[n + 2, i + 3]
            d0, d1, d2, d3 = x[n + 3, i], x[n + 3, i + 1], x[n + 3, i + 2], x[n + 3, i + 3]
            for o in range(n_out):
                w0, w1, w2, w3 = w[i, o], w[i + 1, o], w[i + 2, o], w[i + 3, o]
                y[n, o] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                y[n + 1, o] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                y[n + 2, o] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                y[n + 3, o] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
            i += 4
        while i < n_in:
            a0, b0, c0, d0 = x[n, i], x[n + 1, i], x[n + 2, i], x[n + 3, i]
            for o in range(n_out):
                w0 = w[i, o]
                y[n, o] += a0 * w0
                y[n + 1, o] += b0 * w0
                y[n + 2, o] += c0 * w0
                y[n + 3, o] += d0 * w0
            i += 1
        n += 4
    while n < n_rows:
        i = 0
        while i + 4 <= n_in:
            a0, a1, a2, a3 = x[n, i], x[n, i + 1], x[n, i + 2], x[n, i + 3]
            for o in range(n_out):
                y[n, o] += a0 * w[i, o] + a1 * w[i + 1, o] + a2 * w[i + 2, o] + a3 * w[i + 3, o]
            i += 4
        while i < n_in:
            a0 = x[n, i]
            for o in range(n_out):
                y[n, o] += a0 * w[i, o]
            i += 1
        n += 1


@helper
def set_product(x, w, y):
    """y = x @ w with x (n, i), w (i, o), y (n, o)."""
    y[:] = 0.0
    add_product(x, w, y)


@helper
def add_outer(x, y, w, start, stop):
    """Rows ``start`` to ``stop`` of w += x.T @ y with x (n, i), y (n, o), w (i, o)."""
    n_rows = x.shape[0]
    n_out = y.shape[1]
    i = start
    while i + 4 <= stop:
        n = 0
        while n + 4 <= n_rows:
            a0, a1, a2, a3 = x[n, i], x[n, i + 1], x[n, i + 2], x[n, i + 3]
            b0, b1, b2, b3 = x[n + 1, i], x[n + 1, i + 1], x[n + 1, i + 2], x[n + 1, i + 3]
            c0, c1, c2, c3 = x[n + 2, i], x[n + 2, i + 1], x[n + 2, i + 2], x[n + 2, i + 3]
            d0, d1, d2, d3 = x[n + 3, i], x[n + 3, i + 1], x[n + 3, i + 2], x[n + 3, i + 3]
            for o in range(n_out):
                y0, y1, y2, y3 = y[n, o], y[n + 1, o], y[n + 2, o], y[n + 3, o]
                w[i, o] += a0 * y0 + b0 * y1 + c0 * y2 + d0 * y3
                w[i + 1, o] += a1 * y0 + b1 * y1 + c1 * y2 + d1 * y3
                w[i + 2, o] += a2 * y0 + b2 * y1 + c2 * y2 + d2 * y3
                w[i + 3, o] += a3 * y0 + b3 * y1 + c3 * y2 + d3 * y3
            n += 4
        while n < n_rows:
            a0, a1, a2, a3 = x[n, i], x[n, i + 1], x[n, i + 2], x[n, i + 3]
            for o in range(n_out):
                y0 = y[n, o]
                w[i, o] += a0 * y0
                w[i + 1, o] += a1 * y0
                w[i + 2, o] += a2 * y0
                w[i + 3, o] += a3 * y0
            n += 1
        i += 4
    while i < stop:
        for n in range(n_rows):
            a0 = x[n, i]
            for o in range(n_out):
                w[i, o] += a0 * y[n, o]
        i += 1
