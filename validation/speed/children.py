"""Measurements that need a process of their own: the published code, first calls, and peak memory."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
#: Settings of the GNU C library's allocator that keep large blocks instead of giving them back to the system.
TUNED = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
#: Largest deviation, relative to the largest entry, of the published code's numbers from ours.
SAME = 1e-9


class Published:
    """The published code as a child process that answers over a pipe, for one of "forces" and "gradient".

    See ``against_reann.py``.  tuned : with the C library's allocator tuned, or as a user gets it.
    """

    def __init__(self, folder, python, what, tuned):
        self.what = what
        settings = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        environment = {name: value for name, value in os.environ.items() if name not in TUNED}
        environment |= settings | (TUNED if tuned else {})
        command = [str(python), str(HERE / "against_reann.py"), str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request):
        """The child's answer to a request."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{HERE / 'against_reann.py'} ended with {self.process.wait()}: see its message above")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def seconds(self, loops):
        """Seconds of so many calls, measured in the child."""
        return self.ask(loops=loops)["seconds"]

    def prepare(self, model, structure, ours):
        """Build ``model`` for a labelled structure; RuntimeError unless the child gives our numbers.

        ours : energy, forces, contraction_gradient by name
        """
        from eann_lite.neighbors import neighbor_pairs

        pairs = neighbor_pairs(structure.positions, structure.cell, structure.pbc, model.specification.cutoff)
        centers = np.repeat(np.arange(structure.n_atoms), np.diff(pairs.first))
        elements = list(model.specification.elements)
        arrays = dict(model.parameters)
        arrays |= {
            "/positions": structure.positions, "/cell": structure.cell, "/shift": pairs.shift,
            "/species": np.array([elements.index(symbol) for symbol in structure.symbols]),
            "/pairs": np.stack([centers, pairs.neighbor]),
            "/energy": np.array(structure.energy), "/forces": structure.forces,
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "arrays.npz")
            np.savez(path, **arrays)
            answer = self.ask(prepare=self.what, specification=model.specification.to_dict(), arrays=path)
        for quantity, theirs in answer.items():
            deviation = np.abs(np.array(theirs) - ours[quantity]).max() / np.abs(ours[quantity]).max()
            if not deviation < SAME:
                raise RuntimeError(f"{quantity} of the published code: {deviation:.1e} from ours, limit {SAME:g}")


def probe(*arguments, cache=None):
    """What ``probe.py`` prints for these arguments, in a fresh process; ``cache`` is its folder of compiled kernels."""
    environment = dict(os.environ) | ({"EANN_LITE_CACHE": str(cache)} if cache else {})
    command = [sys.executable, str(HERE / "probe.py"), *map(str, arguments)]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)
