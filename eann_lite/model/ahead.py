"""Kernels that will be needed soon, compiled by other processes on cores that have nothing to do meanwhile.

Kernels are compiled one after the other, when each is called for the first time: half a minute or more for energies and
forces, a minute or two for a fit.  So whoever knows what it will call says so before (``compile_ahead``), and processes
of their own compile it from the last to the first, until they meet what is compiled already (``cache_locks``).  They
begin at once, with an atom that has no neighbours.  Once per folder of compiled kernels, and never on one thread.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from eann_lite import file_locks

#: Processes at most: each takes some 300 MB of memory, and there are few kernels.
MOST_PROCESSES = 3

#: What this process asked for.
_asked = set()


def evaluation(precision):
    """What energies and forces call, for ``compile_ahead``."""
    return [(name, precision) for name in ("energies", "bounds", "forces")]


def compile_ahead(calls, threads):
    """Have ``calls`` compiled by up to threads - 1 other processes, and return at once.

    calls : (name, precision) in the order in which they will be needed: name one of ``CALLS``, precision as in ``Sweeps``.
    """
    calls = tuple(dict.fromkeys(calls))
    # The executable is another program where Python runs inside of it.
    possible = file_locks.POSSIBLE and Path(sys.executable or "").name.startswith("python")
    if threads < 2 or calls in _asked or not possible:
        return
    _asked.add(calls)
    last_first, processes = calls[::-1], min(threads - 1, len(calls), MOST_PROCESSES)
    for n in range(processes):
        part = last_first[n::processes]
        marker = _claim(part)
        if marker is not None:
            _start(part, marker)


def _claim(calls):
    """Make a file in the folder of compiled kernels that says that somebody compiles ``calls`` for it.

    Returns its path, or None where it is there already or nothing can be kept.
    """
    import numba
    from llvmlite.binding import get_host_cpu_name

    from eann_lite.compiled import cache_directory

    # All that Numba keeps compiled code apart by.
    kind = [calls, numba.__version__, sys.version, get_host_cpu_name()]
    name = hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:16]
    marker = os.path.join(cache_directory(), f"ahead-{name}")
    try:
        os.makedirs(cache_directory(), exist_ok=True)
        open(marker, "x").close()
    except OSError:
        return None
    return marker


def _start(calls, marker):
    """Start a process that compiles ``calls``; where none can be started, kernels are compiled when they are called."""
    from eann_lite.compiled import cache_directory

    path = [entry for entry in sys.path if isinstance(entry, str)]
    code = (
        f"import sys; sys.path[:] = {path!r}\n"  # As this process, whatever changed its path since it began.
        f"from eann_lite.model.ahead import compile_and_end; compile_and_end({calls!r}, {marker!r}, {os.getpid()})"
    )
    environment = os.environ | {"EANN_LITE_CACHE": os.path.dirname(cache_directory())}
    nothing = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=nothing, stdout=nothing, stderr=nothing, env=environment
        )
    except OSError:
        return
    # Somebody must take notice of its end.
    threading.Thread(target=process.wait, daemon=True).start()


def compile_and_end(calls, marker, parent):
    """The whole life of a process that compiles ahead for another; it ends early once that has ended.

    What it leaves undone, after Ctrl-C too, may be asked for again.
    """
    done = False
    try:
        for call in calls:
            if os.getppid() != parent:
                return
            compile_call(*call)
        done = True
    finally:
        if not done:
            with suppress(OSError):
                os.unlink(marker)


def compile_call(name, precision):
    """Compile one of the calls of ``compile_ahead`` in this process, unless another is about to."""
    from eann_lite.compilation.cache_locks import CompiledElsewhere, without_waiting

    sweeps = _sweeps_of_lone_atom(precision)
    with without_waiting(), suppress(CompiledElsewhere):
        CALLS[name](sweeps)


def _sweeps_of_lone_atom(precision):
    """Sweeps that have been given an atom without neighbours, by some model: types do not depend on it.

    What puts structures into batches is compiled here.
    """
    import numpy as np

    from eann_lite.batches import draw_batch, packed_with_pairs
    from eann_lite.model.initial import initial_parameters
    from eann_lite.model.parameters import default_constants
    from eann_lite.model.specification import Specification
    from eann_lite.model.sweeps import Sweeps
    from eann_lite.neighbors import Pairs

    integers = np.zeros(0, np.int64)
    pairs = Pairs(np.zeros(2, np.int64), integers, np.zeros((0, 3), np.int64), integers)
    packed = packed_with_pairs(
        np.zeros((1, 3)), np.zeros(1, np.int64), np.array([0, 1]), np.zeros((1, 3, 3)), np.zeros((1, 3), bool), pairs
    )
    specification = Specification(elements=("H",), cutoff=5.0, recursions=1)
    sweeps = Sweeps(specification, default_constants(specification), precision)
    sweeps.set_parameters(sweeps.layout.pack(initial_parameters(specification, seed=0)))
    sweeps.take(draw_batch(packed, np.zeros(1, np.int64), 1), keep=True)
    return sweeps


def _tangent(sweeps):
    import numpy as np

    sweeps.tangent(np.zeros((1, 3)), np.zeros((1, 3, 3)))


def _gradient(sweeps):
    import numpy as np

    sweeps.gradient(np.zeros(1))


def _bounds(sweeps):
    import numpy as np

    from eann_lite.extrapolation import DensityBounds

    m = sweeps.specification.densities
    bounds = DensityBounds(np.zeros((1, m)), np.zeros((1, m, m)), np.zeros(1), np.zeros(1))
    bounds.distances(sweeps.values.density[-1], sweeps.batch)


#: What can be compiled ahead: by name, calls that need no other kernel before.
CALLS = {
    "energies": lambda sweeps: sweeps.forward(sweeps.batch, keep=True),
    "forces": lambda sweeps: sweeps.reverse(),
    "tangent": _tangent,
    "gradient": _gradient,
    "bounds": _bounds,
}
