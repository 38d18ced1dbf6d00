"""Filling, copying and adding rows of arrays, as plain loops: Numba takes several times as long to compile slices.

And products of single rows of K Gaussians, of pairs and of atoms, as explicit vectors: a loop over K checks for every
pair again whether its arrays overlap, which takes longer than the row.
"""

from eann_lite.compiled import helper
from eann_lite.kernels.vectors import multiply, multiply_add, row_operation

#: multiply_rows(x, p, y, q, z, n): z[n] = x[p] y[q], element by element.
multiply_rows = row_operation(1, lambda builder, x, y: (multiply(builder, x, y),))
#: add_products(x, p, y, q, z, n, z, n): z[n] += x[p] y[q].
add_products = row_operation(1, lambda builder, x, y, z: (multiply_add(builder, x, y, z),))
#: sum_two_products(u, p, v, q, x, p, y, q, z, n): z[n] = u[p] v[q] + x[p] y[q].
sum_two_products = row_operation(
    1, lambda builder, u, v, x, y: (multiply_add(builder, u, v, multiply(builder, x, y)),)
)
#: multiply_and_add(x, p, y, q, u, r, z, n, v, m, z, n): v[m] = x[p] u[r] and z[n] += y[q] u[r].
multiply_and_add = row_operation(
    2, lambda builder, x, y, u, z: (multiply(builder, x, u), multiply_add(builder, y, u, z))
)
#: scale_row(x, p, factor, z, n): z[n] = factor x[p].
scale_row = row_operation(1, lambda builder, x, factor: (multiply(builder, x, factor),))


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
