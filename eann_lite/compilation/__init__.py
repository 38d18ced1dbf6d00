"""How Numba compiles kernels for this package: sooner than by itself, and once for all processes.

``compiled`` has the decorators that kernels use.  ``linked`` says which passes there are and what becomes machine code;
``by_address``, ``borrowed`` and ``precision`` change code on the way, ``remembered`` saves work, ``placed`` makes calls
of kernels cheap, with ``cache_locks`` processes take turns.
"""
