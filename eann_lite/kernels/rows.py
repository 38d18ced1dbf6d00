"""Filling, copying and adding rows of arrays, as plain loops: Numba takes far longer to compile slices.

And a product of single rows of K Gaussians as explicit vectors: a loop over K checks for every pair again whether its
arrays overlap, which takes longer than the row.
"""

from eann_lite.compiled import helper
from eann_lite.kernels.row_operations import row_operation
from eann_lite.kernels.vectors import multiply

#: scale_row(x, p, factor, z, n): z[n] = factor x[p].
scale_row = row_operation(lambda builder, x, factor: multiply(builder, x, factor))


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
