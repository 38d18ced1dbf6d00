"""eann_lite: embedded atom neural networks (EANN) and their recursive form (REANN), to read, to check and to run fast.

Nothing heavy is imported here; every public name is loaded when it is first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "InputError": "eann_lite.errors",
    "ModelFileError": "eann_lite.errors",
    "Specification": "eann_lite.model.specification",
    "NetworkSpecification": "eann_lite.model.specification",
    "Model": "eann_lite.model.model",
    "Structure": "eann_lite.structures",
    "read_structures": "eann_lite.structures",
    "load": "eann_lite.io.model_file",
    "fit": "eann_lite.training.fit",
    "descriptors": "eann_lite.model.descriptors",
    "hessian": "eann_lite.second_derivatives",
    "hessian_products": "eann_lite.second_derivatives",
    "vibrations": "eann_lite.second_derivatives",
    "EANNCalculator": "eann_lite.calculator",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'eann_lite' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
