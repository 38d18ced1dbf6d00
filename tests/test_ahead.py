"""Kernels compiled ahead of their use by other processes: which, when, and for the right types."""

import os
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

import eann_lite.calculator
import eann_lite.training.run
from eann_lite import EANNCalculator, Model, Specification, compiled, file_locks, fit
from eann_lite.compilation.placed import Placed
from eann_lite.model import ahead
from eann_lite.model.ahead import compile_ahead, compile_and_end, evaluation
from eann_lite.model.initial import initial_parameters

LOCKS = pytest.mark.skipif(not file_locks.POSSIBLE, reason="files cannot be locked on this system")
#: The kernels of ``kernels.sweeps`` and ``kernels.bounds`` by the names of the calls.
KERNELS = {
    "forward": "energies",
    "reverse": "forces",
    "forward_tangent": "tangent",
    "reverse_tangent": "gradient",
    "distances": "bounds",
}


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """Folder of compiled kernels for one test, to which nobody has asked for anything."""
    monkeypatch.setenv("EANN_LITE_CACHE", str(tmp_path))
    monkeypatch.setattr(ahead, "_asked", set())
    compiled.cache_directory.cache_clear()
    yield tmp_path
    compiled.cache_directory.cache_clear()


def frames(n, forces=True):
    """Methanes with energies, and forces if wanted."""
    found = []
    for seed in range(n):
        atoms = molecule("CH4")
        atoms.rattle(0.05, seed=seed)
        atoms.calc = LennardJones()
        labels = {"energy": atoms.get_potential_energy()} | ({"forces": atoms.get_forces()} if forces else {})
        atoms.calc = SinglePointCalculator(atoms, **labels)
        found.append(atoms)
    return found


def random_model(elements=("C", "H")):
    specification = Specification(elements=elements, cutoff=4.0, radial=3, densities=5, recursions=0)
    return Model(specification, initial_parameters(specification, seed=0))


TYPES = """
import numpy as np
from ase.build import bulk, molecule
from numba.core.caching import NullCache
from eann_lite import EANNCalculator
from eann_lite.compiled import Kernel
from eann_lite.kernels import bounds, packing, sweeps
from eann_lite.model.ahead import CALLS, compile_call
from tests.test_ahead import fit, frames, random_model

def signatures():
    kernels = [kernel for room in (bounds, packing, sweeps) for kernel in vars(room).values()]
    kernels = [kernel.compiled if isinstance(kernel, Kernel) else kernel for kernel in kernels]
    cached = [kernel for kernel in kernels if not isinstance(getattr(kernel, "_cache", NullCache()), NullCache)]
    return {(kernel.py_func.__name__, str(types)) for kernel in cached for types in kernel.signatures}

for name in CALLS:
    for precision in ("float64", "float32"):
        compile_call(name, precision)
before = signatures()
kernels = {name for name, _ in before}
assert {"forward", "reverse", "forward_tangent", "reverse_tangent", "distances", "drawn"} <= kernels
model = random_model(("C", "H", "Cu"))
for precision in ("float64", "float32"):
    methane = molecule("CH4")
    methane.calc = EANNCalculator(model, precision=precision)
    methane.get_forces()
model.evaluate(bulk("Cu", cubic=True) * (4, 4, 3), descriptors=True)
fit(frames(8), epochs=1, radial=4, densities=8, recursions=1, out=None, batch=4)
later = {(name, types) for name, types in signatures() - before if name in kernels}
assert not later, later
"""


def test_kernels_compiled_for_a_lone_atom_serve_every_batch():
    command = [sys.executable, "-c", TYPES]
    here = os.path.dirname(os.path.dirname(__file__))
    environment = os.environ | {"PYTHONPATH": here, "NUMBA_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def asked_and_called(monkeypatch):
    """(asked, called): what code asks to have compiled, and the kernels that it calls then."""
    asked, called, run, address = set(), set(), compiled.Kernel.__call__, compiled.Kernel.address

    def note(kernel, arguments):
        given = [argument.value if isinstance(argument, Placed) else argument for argument in arguments]
        fields = [value for group in given if isinstance(group, tuple) for value in group]
        single = any(getattr(value, "dtype", None) == np.float32 for value in fields)
        if (name := kernel.compiled.py_func.__name__) in KERNELS:
            called.add((KERNELS[name], "float32" if single else "float64"))

    def call(kernel, threaded, *arguments):
        note(kernel, arguments)
        return run(kernel, threaded, *arguments)

    def call_by_address(kernel, *arguments):
        note(kernel, arguments)
        return address(kernel, *arguments)

    monkeypatch.setattr(compiled.Kernel, "__call__", call)
    monkeypatch.setattr(compiled.Kernel, "address", call_by_address)
    for module in (ahead, eann_lite.calculator, eann_lite.training.run):
        monkeypatch.setattr(module, "compile_ahead", lambda calls, threads: asked.update(calls))
    return asked, called


@pytest.mark.parametrize("n", [1, 200])
def test_evaluations_ask_for_the_kernels_that_they_call(asked_and_called, n):
    asked, called = asked_and_called
    model = random_model(("Cu",))
    atoms = bulk("Cu") * (n, 1, 1)
    model.evaluate(atoms)
    evaluated = {(name, "float64") for name in ("energies", "forces")}
    assert called == evaluated and called <= asked
    asked.clear(), called.clear()
    atoms.calc = EANNCalculator(model)
    atoms.get_forces()
    assert called == evaluated and called <= asked


@pytest.mark.parametrize("forces, precision", [(True, "float32"), (False, "float32"), (True, "float64")])
def test_a_fit_asks_for_the_kernels_that_it_calls(asked_and_called, forces, precision):
    asked, called = asked_and_called
    data, valid = frames(8, forces), frames(30, forces)
    fit(data, valid=valid, epochs=1, radial=4, densities=8, recursions=1, out=None, batch=4, precision=precision)
    assert called <= asked
    assert ("gradient", precision) in called and (("tangent", precision) in called) == forces
    assert ("forces", precision) in called


@LOCKS
def test_another_process_compiles_what_will_be_needed_and_is_asked_once(empty_cache, monkeypatch):
    started, start = [], subprocess.Popen

    def popen(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    calls = [("bounds", "float64")]
    compile_ahead(calls, threads=1)
    assert not started, "one thread means one core"
    compile_ahead(calls, threads=8)
    (process,) = started
    try:
        assert process.wait(timeout=300) == 0
    finally:
        process.kill()
    assert [path for path in empty_cache.rglob("*.nbc") if "bounds.distances" in path.name]
    for asked in (ahead._asked, set()):
        monkeypatch.setattr(ahead, "_asked", asked)
        compile_ahead(calls, threads=8)
    assert len(started) == 1, "this process has asked, and then another one"


@LOCKS
def test_last_calls_are_compiled_first_and_shared_among_processes(empty_cache, monkeypatch):
    started = []
    monkeypatch.setattr(ahead, "_start", lambda calls, marker: started.append(calls))
    calls = [(name, "float64") for name in ("energies", "bounds", "forces", "tangent", "gradient")]
    compile_ahead(calls + calls[:1], threads=2)
    assert started == [tuple(calls[::-1])]
    started.clear()
    compile_ahead(calls[:3], threads=3)
    assert started == [(calls[2], calls[0]), (calls[1],)]


def test_what_is_left_undone_may_be_asked_for_again(tmp_path):
    marker = tmp_path / "marker"
    marker.touch()
    compile_and_end([("energies", "float64")], str(marker), parent=-1)  # Whoever asked is gone.
    assert not marker.exists()


@LOCKS
def test_nothing_is_asked_for_where_nothing_can_be_kept(empty_cache, monkeypatch):
    started = []
    monkeypatch.setattr(ahead, "_start", lambda calls, marker: started.append(calls))
    (empty_cache / "file").write_text("not a folder")
    monkeypatch.setenv("EANN_LITE_CACHE", str(empty_cache / "file"))
    compiled.cache_directory.cache_clear()
    compile_ahead(evaluation("float64"), threads=8)
    assert not started
