"""The cache of compiled kernels and what it depends on; processes that share it."""

import ast
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numba
import pytest

import eann_lite
from eann_lite import compiled, file_locks
from eann_lite.compilation import cache_locks
from eann_lite.compiled import COMPILED_SOURCES, compile_loops

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
    foreign = set(imports_of(path)) - known - {"eann_lite.errors", "eann_lite.file_locks", "eann_lite.kernels"}
    assert not foreign, "a compiled function could change without the cache noticing"


def test_compiled_functions_stand_nowhere_else():
    for path in PACKAGE.rglob("*.py"):
        if path not in COMPILED:
            compilers = {"compile_loops", "Kernel", "formula", "helper", "helper_on_separate_arrays", "njit", "jit"}
            used = {
                alias.name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom) and node.module in ("eann_lite.compiled", "numba")
                for alias in node.names
            }
            assert not used & compilers, f"{path} compiles functions but is not in COMPILED_SOURCES"


def test_compiled_code_is_kept_in_a_folder_named_by_the_sources(empty_cache):
    assert compiled.cache_directory() == str(empty_cache / compiled.source_digest())

    @compile_loops
    def one_more(x):
        return x + 1

    assert one_more(1) == 2
    assert [path for path in empty_cache.rglob("*.nbi") if compiled.source_digest() in str(path)]


LOCKS = pytest.mark.skipif(not file_locks.POSSIBLE, reason="files cannot be locked on this system")


@LOCKS
def test_two_processes_compile_a_kernel_once(tmp_path):
    code = (
        "import json, numpy as np; from eann_lite.kernels.lattice import complete_cell as kernel\n"
        "kernel(np.eye(3), np.ones(3, bool))\n"
        "print(json.dumps([sum(n.values()) for n in (kernel._cache_hits, kernel._cache_misses)]))"
    )
    environment = os.environ | {"EANN_LITE_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = sorted(json.loads(process.communicate(timeout=300)[0]) for process in both)
    assert found == [[0, 1], [1, 0]], "hits and misses of the cache"


@LOCKS
def test_the_cache_of_a_kernel_is_written_by_one_process_at_a_time(empty_cache):
    @compiled.compile_loops
    def one_more(x):
        return x + 1

    held = cache_locks.held(f"{one_more._cache.cache_path}/{one_more._cache._impl.filename_base}.lock")
    compiling = threading.Thread(target=one_more, args=(1,))
    with held:
        compiling.start()
        while not one_more.overloads and compiling.is_alive():
            time.sleep(0.01)
        time.sleep(0.5)
        assert compiling.is_alive() and not list(empty_cache.rglob("*.nb[ic]"))
    compiling.join()
    assert len(list(empty_cache.rglob("*.nb[ic]"))) == 2 and one_more(1) == 2


@LOCKS
def test_who_does_not_wait_leaves_a_kernel_to_the_process_that_has_it(empty_cache):
    @compiled.compile_loops
    def one_more(x):
        return x + 1

    types = (numba.int64,)
    name = hashlib.sha256(str(types).encode()).hexdigest()[:16]
    path = f"{one_more._cache.cache_path}/{one_more._cache._impl.filename_base}.{name}.lock"
    with cache_locks.without_waiting():
        with cache_locks.held(path), pytest.raises(cache_locks.CompiledElsewhere):
            one_more.compile(types)
        assert not one_more.overloads
        one_more.compile(types)
        with cache_locks.held(path):
            one_more.compile(types)  # What is there needs no lock.


@LOCKS
def test_nobody_waits_for_ever(tmp_path):
    with cache_locks.held(tmp_path / "lock"):
        begun = time.monotonic()
        with cache_locks.held(tmp_path / "lock", seconds=0.2):
            assert 0.2 <= time.monotonic() - begun < 20.0
    with cache_locks.held(tmp_path / "no" / "such" / "folder", seconds=None):
        pass
