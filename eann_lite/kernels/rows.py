"""Making, filling, copying and adding rows of arrays, as plain loops: Numba takes several times as long to compile slices.

And products of single rows of K Gaussians, of pairs and of atoms, as explicit vectors: a loop over K checks for every
pair again whether its arrays overlap, which takes longer than the row.
"""

import numpy as np

from eann_lite.compiled import helper
from eann_lite.kernels.vectors import line, multiply, multiply_add, row_operation

#: multiply_rows(x, p, y, q, z, n): z[n] = x[p] y[q], element by element.
multiply_rows = row_operation(1, lambda builder, x, y: (multiply(builder, x, y),))
#: add_products(x, p, y, q, z, n, z, n): z[n] += x[p] y[q].
add_products = row_operation(1, lambda builder, x, y, z: (multiply_add(builder, x, y, z),))
#: sum_two_products(u, p, v, q, x, p, y, q, z, n): z[n] = u[p] v[q] + x[p] y[q].
sum_two_products = row_operation(
    1, lambda builder, u, v, x, y: (multiply_add(builder, u, v, multiply(builder, x, y)),)
)
#: scale_row(x, p, factor, z, n): z[n] = factor x[p].
scale_row = row_operation(1, lambda builder, x, factor: (multiply(builder, x, factor),))


@helper
def new_rows(n, width, like):
    """New array (n, width) of the precision of ``like`` that begins with a cache line."""
    per_line = line(like)
    flat = np.empty(n * width + per_line, like.dtype)
    begin = -(flat.ctypes.data // flat.itemsize) % per_line
    return flat[begin : begin + n * width].reshape((n, width))


@helper
def fill_rows(start, stop, target, value):
    """target[start:stop] = value."""
    for i in range(start, stop):
        for u in range(target.shape[1]):
            target[i, u] = value


@helper
def copy_rows(start, stop, source, target):
    """target[start:stop] = source[start:stop], over the columns of ``target``."""
    for i in range(start, stop):
        for u in range(target.shape[1]):
            target[i, u] = source[i, u]


@helper
def add_rows(start, stop, source, target):
    """target[start:stop] += source[start:stop], over the columns of ``target``."""
    for i in range(start, stop):
        for u in range(target.shape[1]):
            target[i, u] += source[i, u]
