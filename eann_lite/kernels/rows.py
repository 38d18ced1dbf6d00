"""Filling, copying and adding rows of arrays, as plain loops: Numba takes several times as long to compile slices."""

from eann_lite.compiled import helper


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
