"""Child of ``run.py``: what only a fresh process can measure, printed as one JSON document.

    python probe.py import                seconds of ``import eann_lite``
    python probe.py first forces|gradient seconds from the first import to the end of the first call
    python probe.py memory ATOMS          bytes of peak memory beyond the inputs of one energy + forces call
"""

import json
import resource
import sys
import time
from pathlib import Path


def resident(which):
    """Bytes of resident memory: now (``VmRSS``) or the most so far (``VmHWM``).

    Where there is no /proc, the most so far for both.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        kilobytes = 1 if sys.platform == "darwin" else 1024  # macOS counts ru_maxrss in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes
    # Not ru_maxrss: on Linux a child inherits that of its parent.
    row = next(text for text in status.read_text().splitlines() if text.startswith(which))
    return int(row.split()[1]) * 1024


def first(what):
    start = time.perf_counter()
    import eann_lite  # noqa: F401

    imported = time.perf_counter() - start
    from calls import energy_and_forces, loss_gradient
    from systems import model, water

    call = (energy_and_forces if what == "forces" else loss_gradient)(model(), water(192))
    call()
    done = time.perf_counter() - start
    again = time.perf_counter()
    call()
    return {"import": imported, "first": done, "second": time.perf_counter() - again}


def memory(n_atoms):
    from systems import model, water

    potential, atoms = model(), water(n_atoms)
    potential.evaluate(water(192))
    before, most = resident("VmRSS"), resident("VmHWM")
    potential.evaluate(atoms)
    after = resident("VmHWM")
    return {"bytes": after - before, "raised": after > most}


def main():
    what = sys.argv[1]
    if what == "import":
        start = time.perf_counter()
        import eann_lite  # noqa: F401

        result = {"seconds": time.perf_counter() - start}
    else:
        result = first(sys.argv[2]) if what == "first" else memory(int(sys.argv[2]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
