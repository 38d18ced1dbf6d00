"""The cache of compiled kernels: what it depends on."""

import ast
import re
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.codegen import JITCodeLibrary
from numba.core.runtime import _nrt_python, rtsys

import eann_lite
from eann_lite import compiled, linked
from eann_lite.compiled import COMPILED_SOURCES, Kernel, compile_loops, helper, set_threads
from eann_lite.errors import InputError
from eann_lite.linked import HelperCompiler, KernelCompiler

PACKAGE = Path(eann_lite.__file__).parent
COMPILED = sorted(path for pattern in COMPILED_SOURCES for path in PACKAGE.glob(pattern))


def imports_of(path):
    """Modules of the package that a source file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.startswith("eann_lite"))


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_compiled_sources_depend_only_on_each_other(path):
    known = {"eann_lite." + p.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for p in COMPILED}
    foreign = set(imports_of(path)) - known - {"eann_lite.errors", "eann_lite.kernels"}
    assert not foreign, "a compiled function could change without the cache noticing"


def test_compiled_functions_stand_nowhere_else():
    for path in PACKAGE.rglob("*.py"):
        if path not in COMPILED:
            compilers = {"compile_loops", "Kernel", "formula", "helper", "njit", "jit"}
            used = {
                alias.name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom) and node.module in ("eann_lite.compiled", "numba")
                for alias in node.names
            }
            assert not used & compilers, f"{path} compiles functions but is not in COMPILED_SOURCES"


@pytest.mark.parametrize("threads", [0, -1, 10**6, 1.5, True])
def test_a_wrong_number_of_threads_is_refused_with_the_limit(threads):
    with pytest.raises(InputError, match="expected a whole number from 1 to"):
        set_threads(threads)


@compiled.helper
def squared(x):
    return x * x


@numba.njit
def squared_and_one(x):
    return squared(x) + 1.0


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """Folder of compiled kernels for one test."""
    monkeypatch.setenv("EANN_LITE_CACHE", str(tmp_path))
    compiled.cache_directory.cache_clear()
    yield tmp_path
    compiled.cache_directory.cache_clear()


def test_helpers_are_linked_into_what_calls_them_and_are_no_machine_code_of_their_own():
    assert HelperCompiler is not None, "this Numba lacks what eann_lite.linked builds on: first calls take twice as long"
    assert squared_and_one(3.0) == 10.0
    (own,), (caller,) = squared.overloads.values(), squared_and_one.overloads.values()
    assert own.library.get_pointer_to_function(own.fndesc.llvm_func_name) == 0
    assert caller.library.get_pointer_to_function(caller.fndesc.llvm_func_name) != 0


def squares(x, y):
    for n in numba.prange(x.size):
        y[n] = squared(x[n])


def test_kernels_run_without_what_the_long_vectors_build_on(empty_cache, monkeypatch):
    monkeypatch.setattr(compiled, "KernelCompiler", None)
    kernel, x = compiled.Kernel(squares), np.arange(50.0)
    for threaded in (False, True):
        y = np.zeros(50)
        kernel(threaded, x, y)
        assert np.array_equal(y, x * x)


def test_kernels_and_their_threaded_loops_ask_for_vectors_of_512_bits(empty_cache):
    assert KernelCompiler is not None, "this Numba lacks what eann_lite.linked builds on: first calls take longer"
    kernel, x = compiled.Kernel(squares), np.arange(50.0)
    for threaded in (False, True):
        kernel(threaded, x, np.zeros(50))
    for dispatcher in (kernel.serial, kernel.parallel):
        (text,) = dispatcher.inspect_llvm().values()
        groups = dict(re.findall(r"^attributes (#\d+) = {(.*)}$", text, re.M))
        # The definition that multiplies is the loop, whatever Numba calls it.
        loops = [part for part in re.findall(r"^define .*?^}$", text, re.M | re.S) if " fmul " in part]
        assert loops
        for loop in loops:
            head = loop.splitlines()[0]
            assert '"prefer-vector-width"="512"' in head + "".join(groups[name] for name in re.findall(r"#\d+", head))


def test_bodies_of_threaded_loops_are_linked_into_their_kernel_alone(empty_cache, monkeypatch):
    assert KernelCompiler is not None, "this Numba lacks what eann_lite.linked builds on: first calls take longer"
    names, make = [], linked._LinkedLibrary.__init__
    monkeypatch.setattr(linked._LinkedLibrary, "__init__", lambda *a: (names.append(a[2]), make(*a))[1])
    x, y = np.arange(50.0), np.zeros(50)
    compiled.Kernel(squares)(True, x, y)
    assert np.array_equal(y, x * x)
    assert [any(name.startswith(start) for name in names) for start in linked.LOOP_BODIES] == [True, True, True]
    # Whatever is compiled next has libraries of Numba's own kind again.
    after = numba.njit(lambda x: x + 1.0)
    assert after(1.0) == 2.0
    (overload,) = after.overloads.values()
    assert type(overload.library) is JITCodeLibrary


def test_helpers_are_compiled_as_usual_where_numba_lacks_what_linking_builds_on(monkeypatch):
    monkeypatch.setattr(compiled, "HelperCompiler", None)

    @compiled.helper
    def doubled(x):
        return 2.0 * x

    assert numba.njit(lambda x: doubled(x) + 1.0)(3.0) == 7.0


def test_helpers_leave_the_arrays_that_they_borrow_alive_and_give_back_their_own():
    @helper
    def doubled(x, n):
        own = x
        if n > 0:
            x = 2.0 * x  # the name of an argument for an array of the helper's own
        for _ in range(n):
            own = x[1:]
            x = own
        return x, own

    @numba.njit
    def total(x, times):
        result = 0.0
        for n in range(times):
            first, second = doubled(x, n % 3)
            result += first.sum() + second.sum()
        return result

    x = np.arange(5.0)
    # 0: x and x; 1: 2 x without its first number, twice; 2: without its first two, twice.
    expected = 2.0 * (10.0 + 20.0 + 18.0)
    assert total(x, 3) == expected
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        assert total(x, 3000) == 1000 * expected
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    assert after.alloc - before.alloc >= 2000
    assert after.alloc - before.alloc == after.free - before.free
    assert (x == np.arange(5.0)).all()


def test_compiled_code_is_kept_in_a_folder_named_by_the_sources(empty_cache):
    assert compiled.cache_directory() == str(empty_cache / compiled.source_digest())

    @compile_loops
    def one_more(x):
        return x + 1

    assert one_more(1) == 2
    assert [path for path in empty_cache.rglob("*.nbi") if compiled.source_digest() in str(path)]


def test_serial_and_threaded_variants_of_a_kernel_are_the_same_function():
    from numba import prange

    @Kernel
    def squares(x, y):
        for i in prange(x.size):
            y[i] = x[i] * x[i]

    x = np.arange(5.0)
    for threaded in (False, True):
        y = np.empty(5)
        squares(threaded, x, y)
        assert np.array_equal(y, x * x)
