"""The CPU loops, compiled with Numba: plain arrays in and out, loops only.

Each kernel fills arrays given by its caller, one thread writing one atom (or one block of atoms), so that results are
the same bits for any number of threads.  Arrays end in the index letters of the theory: i atom, p pair, a monomial,
k Gaussian, m density, l degree, s element.  ``_dot`` marks a derivative along the direction of the tangent sweep,
``_bar`` a derivative of the energy with respect to the named quantity (reverse sweep).
"""
