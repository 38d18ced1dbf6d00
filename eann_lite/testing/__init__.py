"""Property tests for any interatomic potential: laws of physics, random structures, and a check in one call.

    from eann_lite.testing import check_laws
    check_laws(MyCalculator(), elements=("Cu",))

``laws`` (any ASE calculator, one structure), ``jumps`` (smoothness), ``strategies`` (Hypothesis) and ``checks``
(``check_laws``).  Strategies and ``check_laws`` need Hypothesis: ``pip install "eann_lite[test]"``; the laws do not.
"""

from importlib import import_module

_HOMES = {
    "LAWS": "laws",
    "Violation": "laws",
    "check_laws": "checks",
    "as_python": "checks",
    "atoms": "strategies",
    "models": "strategies",
    "networks": "strategies",
    "permutations": "strategies",
    "random_model": "strategies",
    "random_structure": "strategies",
    "rotations": "strategies",
    "specifications": "strategies",
    "structures": "strategies",
}
__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(f"eann_lite.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'eann_lite.testing' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
