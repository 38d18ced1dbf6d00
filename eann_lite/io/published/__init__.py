"""Models of the published packages, in and out: REANN, EANN (PyTorch), the Fortran EANN.  PyTorch is not needed.

| module        | does                                                                                               |
|---------------|----------------------------------------------------------------------------------------------------|
| `archive`     | a PyTorch archive (zip with a pickle) -> arrays and inert objects; nothing that it names is called |
| `torchscript` | the text of an archive's forward pass -> what it computes, where versions of the packages differ   |
| `canonical`   | arrays of any version -> those of the newest, which are exactly a model of ours                    |
| `arrays`      | arrays under the published names <-> parameters under ours                                         |
| `inputs`      | ``input_nn`` and ``input_density``, which the originals execute, read as literals                  |
| `fortran`     | the folder of parameter files of the Fortran EANN                                                  |
| `load_model`  | the right reader for a path, and what it found where                                               |
| `export`      | a model -> state dictionary ``REANN.pth`` and its input files                                      |
"""

from eann_lite.io.published.arrays import (
    NEEDED,
    OPTIONAL,
    convert_arrays,
    from_arrays,
    published_names,
    to_published,
)
from eann_lite.io.published.export import save_state
from eann_lite.io.published.load_model import load

__all__ = [
    "NEEDED", "OPTIONAL", "convert_arrays", "from_arrays", "load", "published_names", "save_state", "to_published",
]  # fmt: skip
