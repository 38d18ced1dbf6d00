"""What a result was made with: processor and versions."""

import os
import platform
from pathlib import Path

import numpy as np


def hardware():
    """Name of the processor and the number of its cores, as far as the system tells."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # Not Linux, or a processor without a name: the architecture is said.
    return f"{name}, {os.cpu_count()} cores"


def versions():
    """Versions of this package and of what it computes with."""
    import numba
    import scipy

    import eann_lite

    return {
        "eann_lite": eann_lite.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }
