"""The CPU loops, compiled with Numba: arrays in (``arguments``), arrays filled, loops only.

``sweeps`` says which stage runs when; each stage works on one block of atoms of one element, one thread to a block and
no two threads writing the same atom, so that results are the same bits for any number of threads.  Arrays end in the
index letters of the theory: i atom, p pair, a monomial, k Gaussian, m density, l degree, s element.  ``_dot`` marks a
derivative along the direction of the tangent sweep, ``_bar`` a derivative of the energy with respect to the named
quantity (reverse sweep).
"""

from functools import lru_cache
from importlib import import_module


@lru_cache(maxsize=None)
def kernels(name):
    """The module of this folder: imported with Numba, which takes long, when it is needed, and looked for once."""
    return import_module(f"{__name__}.{name}")
