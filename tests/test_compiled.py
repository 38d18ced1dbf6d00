"""The cache of compiled kernels and what it depends on; threads and the blocks that they share."""

import ast
import gc
import hashlib
import itertools
import json
import operator
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import types
from numba.core.bytecode import FunctionIdentity
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python, rtsys
from numba.core.runtime.context import NRTContext
from numba.extending import overload

import eann_lite
from eann_lite import compiled
from eann_lite.compilation import cache_locks, linked, remembered
from eann_lite.compilation.by_address import ByAddress
from eann_lite.compilation.linked import HelperCompiler, KernelCompiler
from eann_lite.compiled import COMPILED_SOURCES, Kernel, compile_loops, helper, set_threads, threads_in_use
from eann_lite.errors import InputError
from eann_lite.kernels.shares import next_block, nothing_taken, run_workers

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
    assert HelperCompiler is not None, "this Numba lacks what linked.py builds on: first calls take twice as long"
    assert squared_and_one(3.0) == 10.0
    (own,), (caller,) = squared.overloads.values(), squared_and_one.overloads.values()
    assert own.library.get_pointer_to_function(own.fndesc.llvm_func_name) == 0
    assert caller.library.get_pointer_to_function(caller.fndesc.llvm_func_name) != 0


@compiled.helper
def fourth_power(x):
    return squared(squared(x))


def square_and_fourth_power(x):
    return squared(x) + fourth_power(x)


def test_helpers_hold_nothing_of_those_they_call_and_are_linked_in_before_them(empty_cache):
    for compile_as in (numba.njit, compile_loops):
        assert compile_as(square_and_fourth_power)(3.0) == 90.0
        assert compile_as(lambda x: fourth_power(x) + 1.0)(3.0) == 82.0
    (called,), (caller,) = squared.overloads.values(), fourth_power.overloads.values()
    defined = [function.name for function in caller.library._final_module.functions if not function.is_declaration]
    assert defined == [caller.fndesc.llvm_func_name]
    # LLVM drops what nobody has called yet, so the order counts, whatever a kernel names first.
    for libraries in ([called.library, caller.library], [caller.library, called.library]):
        helpers = [library for library in linked._callees(libraries) if library in libraries]
        assert helpers == [caller.library, called.library]


def repeated_steps(slope):
    """x -> slope x + 1, many times, by helpers of one name that call each other: too many for all to be inlined."""

    @helper
    def steps(x):
        return slope * x + 1.0

    def thrice(inner):
        @helper
        def steps(x):
            return inner(inner(inner(x) + slope) - 1.0) if x < 0.5 else inner(inner(0.5 - inner(x)))

        return steps

    for _ in range(7):
        steps = thrice(steps)
    return steps


def repeated_steps_in_python(slope):
    with mock.patch(f"{__name__}.helper", lambda function: function):
        return repeated_steps(slope)


def test_kernels_cached_by_different_processes_call_helpers_of_their_own(empty_cache, monkeypatch):
    expected, found = [], []
    for slope in (0.25, -0.5):
        steps = repeated_steps(slope)
        # What another process compiles has the same numbers.
        monkeypatch.setattr(FunctionIdentity, "_unique_ids", itertools.count(1_000_000))
        found.append(compile_loops(lambda x: steps(x))(0.375))
        expected.append(repeated_steps_in_python(slope)(0.375))
    assert found == pytest.approx(expected, rel=1e-12) and abs(expected[0] - expected[1]) > 0.1


class Squares(NamedTuple):
    """What ``adding_squares`` reads and adds to."""

    x: np.ndarray
    y: np.ndarray


def adding_squares():
    """A kernel that adds x^2 to y, and fails where x is negative."""

    @compiled.helper
    def every_so_many(worker, workers, squares):
        x, y = squares.x, squares.y
        for n in range(worker, x.size, workers):
            if x[n] < 0.0:
                raise ValueError
            y[n] += x[n] * x[n]

    @compiled.Kernel
    def add_squares(threads, squares):
        run_workers(every_so_many, threads, threads[0], threads[0], squares)

    return lambda threaded, x, y: add_squares(threaded, Squares(x, y)), add_squares.compiled


@pytest.mark.parametrize("missing", [(), ("KernelCompiler",), ("KernelCompiler", "HelperCompiler")])
def test_kernels_do_their_work_once_with_threads_and_without_by_the_same_code(missing, empty_cache, monkeypatch):
    """Without what builds on Numba's own parts, too."""
    for name in missing:
        monkeypatch.setattr(compiled, name, None)
    (kernel, compiled_kernel), x = adding_squares(), np.arange(50.0)
    for threaded in (False, True):
        y = np.zeros(50)
        for _ in range(20):
            kernel(threaded, x, y)
        assert np.array_equal(y, 20 * x * x)
    assert len(compiled_kernel.signatures) == 1
    assert compiled._parallel_for(), "Numba starts threads in another way"


def test_work_that_fails_is_an_error_of_the_kernel(empty_cache):
    (kernel, _), x = adding_squares(), np.arange(50.0)
    x[7] = -1.0
    for threaded in (False, True):
        with pytest.raises(MemoryError, match="a kernel found no memory to work in"):
            kernel(threaded, x, np.zeros(50))


def test_kernels_of_few_blocks_leave_the_number_of_threads_as_it_is():
    code = """
import numpy as np
from eann_lite.compiled import threads_in_use
from tests.test_compiled import sums_of_neighbours
for n_blocks in (2, 3, 7, 1):
    x = np.ones((5, n_blocks))
    sums_of_neighbours(True, x)
    assert (x == 2.0 ** np.arange(5)[:, None]).all(), x
    assert threads_in_use() == 4, threads_in_use()
"""
    here = os.path.dirname(os.path.dirname(__file__))
    environment = os.environ | {"PYTHONPATH": here, "NUMBA_NUM_THREADS": "4"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, cwd=here, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_kernels_and_what_their_threads_run_ask_for_vectors_of_512_bits(empty_cache):
    assert KernelCompiler is not None, "this Numba lacks what linked.py builds on: first calls take longer"
    (kernel, compiled_kernel), x = adding_squares(), np.arange(50.0)
    kernel(True, x, np.zeros(50))
    (text,) = compiled_kernel.inspect_llvm().values()
    groups = dict(re.findall(r"^attributes (#\d+) = {(.*)}$", text, re.M))
    # The definition that multiplies floats is the loop, whatever it was put into.
    loops = [part for part in re.findall(r"^define .*?^}$", text, re.M | re.S) if " fmul " in part]
    assert loops
    for loop in loops:
        head = loop.splitlines()[0]
        assert '"prefer-vector-width"="512"' in head + "".join(groups[name] for name in re.findall(r"#\d+", head))


def test_what_is_compiled_after_a_kernel_is_compiled_as_numba_does(empty_cache):
    counted = NRTContext.get_meminfos
    adding_squares()[0](True, np.arange(50.0), np.zeros(50))
    assert NRTContext.get_meminfos is counted
    after = numba.njit(lambda x: x + 1.0)
    assert after(1.0) == 2.0
    (overload,) = after.overloads.values()
    assert type(overload.library) is JITCodeLibrary


ARRAY, PAIR = types.float64[:, ::1], types.UniTuple(types.int64, 2)


@pytest.mark.parametrize(
    "operation, arguments",
    [
        (operator.getitem, (ARRAY, PAIR)),
        (operator.getitem, (ARRAY, types.Tuple((types.int64, types.literal(1))))),
        (operator.setitem, (ARRAY, PAIR, types.float64)),
        (operator.add, (types.float32, types.literal(1))),
        (operator.add, (PAIR, PAIR)),
        (operator.lt, (types.uint64, types.float64)),
        (bool, (types.boolean,)),
    ],
)
def test_remembered_types_of_operations_are_those_of_numba(operation, arguments):
    context = cpu_target.typing_context
    context.refresh()
    own = remembered._Remembering(context)
    for function in (operation, context.resolve_value_type(operation)):
        expected = context.resolve_function_type(function, arguments, {})
        first, again = (own.resolve_function_type(function, arguments, {}) for _ in range(2))
        assert again is first == expected
    assert own.callstack is context.callstack


def test_operators_that_a_package_teaches_numba_are_compiled_after_it_has(empty_cache):
    class Kind(types.Type):
        """A type of somebody else."""

    @helper
    def one_if(x):
        return 1 if x else 0

    @helper
    def two_if(x):
        return 2 if x else 0

    assert compile_loops(lambda x: one_if(x))(5) == 1
    overload(bool)(lambda x: (lambda x: False) if isinstance(x, Kind) else None)
    assert compile_loops(lambda x: two_if(x))(5) == 2


def test_types_of_operations_are_asked_for_once_unless_they_may_change():
    context = mock.Mock(resolve_function_type=mock.Mock(side_effect=lambda *a: object()))
    own = remembered._Remembering(context)

    def calls(function, arguments, keywords):
        context.resolve_function_type.reset_mock()
        answers = [own.resolve_function_type(function, arguments, keywords) for _ in range(3)]
        assert (context.resolve_function_type.call_count == 1) == (answers[0] is answers[1] is answers[2])
        return context.resolve_function_type.call_count

    assert calls(operator.getitem, (ARRAY, types.int64), {}) == 1
    assert calls(operator.getitem, (types.float32[:, ::1], types.int64), {}) == 1
    assert calls(operator.getitem, (types.List(types.int64), types.int64), {}) == 3
    assert calls(operator.getitem, (types.Tuple((types.List(types.int64),)), types.int64), {}) == 3
    assert calls(operator.add, (types.int64,), {"b": types.int64}) == 3
    assert calls(numba.njit(lambda x: x), (types.int64,), {}) == 3
    assert calls(types.int64, (types.float64,), {}) == 3


def test_helpers_are_compiled_as_usual_where_numba_lacks_what_linking_builds_on(monkeypatch):
    monkeypatch.setattr(compiled, "HelperCompiler", None)

    @compiled.helper
    def doubled(x):
        return 2.0 * x

    assert numba.njit(lambda x: doubled(x) + 1.0)(3.0) == 7.0


@pytest.mark.parametrize("compile_as", [numba.njit, compile_loops])
def test_helpers_leave_the_arrays_that_they_borrow_alive_and_give_back_their_own(compile_as, empty_cache):
    @helper
    def doubled(x, n):
        own = x
        if n > 0:
            x = 2.0 * x  # the name of an argument for an array of the helper's own
        for _ in range(n):
            own = x[1:]
            x = own
        return x, own

    @compile_as
    def total(x, times):
        result, kept = 0.0, (0, (x, x))
        for n in range(times):
            kept = n, doubled(x, n % 3)
            result += kept[1][0].sum() + kept[1][1].sum()
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


class Rows(NamedTuple):
    """As the tuples of ``kernels.arguments``: arrays, numbers and tuples of them."""

    x: np.ndarray
    y: np.ndarray
    factor: float
    ends: tuple


@helper
def add_row(rows, n):
    for i in range(rows.ends[0], rows.ends[1]):
        rows.y[i] += rows.factor * rows.x[n, i]
    return rows.y.size


@helper
def chosen(rows, others, n):
    kept = rows
    if n % 2 == 1:
        rows = others
    return rows, kept


@helper
def add_rows_in_turn(rows, others, times):
    for n in range(times):
        # Of one type as what is given, and another in every round.
        here, first = chosen(rows, others, n)
        mine = Rows(here.x, first.y[: here.y.size], here.factor + n, here.ends)
        add_row(mine, n % here.x.shape[0])
    return rows, here


def sum_of_rows(x, times):
    y = np.zeros(x.shape[1])
    rows, others = Rows(x, y, 1.0, (0, y.size)), Rows(x[1:], y.copy(), -2.0, (1, y.size))
    given, last = add_rows_in_turn(rows, others, times)
    return given.y, last.factor, add_row(given, 0)


def test_helpers_get_tuples_by_their_address(empty_cache):
    x = np.arange(12.0).reshape(3, 4)
    for compile_as in (numba.njit, compile_loops):
        # What the helpers say, without any compiler.
        expected = np.zeros(4)
        for n in range(5):
            rows, factor, begin = (x, 1.0, 0) if n % 2 == 0 else (x[1:], -2.0, 1)
            expected[begin:] += (factor + n) * rows[n % len(rows), begin:]
        expected += x[0]
        compiled_sum = compile_as(sum_of_rows)
        y, factor, size = compiled_sum(x, 5)
        assert (y == expected).all() and factor == 1.0 and size == 4
        del y
        _nrt_python.memsys_enable_stats()
        try:
            before = rtsys.get_allocation_stats()
            for _ in range(100):
                compiled_sum(x, 4)
            after = rtsys.get_allocation_stats()
        finally:
            _nrt_python.memsys_disable_stats()
        assert after.alloc - before.alloc == after.free - before.free >= 200
    for own in add_row.overloads.values():
        assert [isinstance(kind, ByAddress) for kind in own.fndesc.argtypes] == [True, False]


@pytest.mark.parametrize("before, meanwhile", [(700, 20_000), (0, 0), (50_000, 50_000)])
def test_unreachable_objects_are_looked_for_less_often_while_a_kernel_is_compiled(before, meanwhile, empty_cache):
    thresholds = gc.get_threshold()
    seen = []

    def observed(number):
        raise NotImplementedError("compiled code alone calls it")

    @overload(observed)
    def observed_when_compiled(number):
        seen.append(gc.get_threshold())
        if number == types.int64:
            return None  # No such function: compilation fails.
        return lambda number: number + 1.0

    kernel = compile_loops(lambda x: observed(x))
    try:
        gc.set_threshold(before, 5, 6)
        assert kernel(1.0) == 2.0
        assert gc.get_threshold() == (before, 5, 6)
        with pytest.raises(numba.TypingError):
            kernel(1)
        assert gc.get_threshold() == (before, 5, 6)
        assert set(seen) == {(meanwhile, 5, 6)}
        with linked._tidying_less():
            gc.set_threshold(1234, 7, 8)
        assert gc.get_threshold() == (1234, 7, 8)
    finally:
        gc.set_threshold(*thresholds)


def test_compiled_code_is_kept_in_a_folder_named_by_the_sources(empty_cache):
    assert compiled.cache_directory() == str(empty_cache / compiled.source_digest())

    @compile_loops
    def one_more(x):
        return x + 1

    assert one_more(1) == 2
    assert [path for path in empty_cache.rglob("*.nbi") if compiled.source_digest() in str(path)]


# Processes that share a cache

LOCKS = pytest.mark.skipif(not cache_locks.POSSIBLE, reason="files cannot be locked on this system")


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


# Blocks shared among threads


@compile_loops
def all_blocks_of_one_worker(workers, worker, n_blocks):
    """What a worker gets that is alone, and the counts after it."""
    counts, blocks = nothing_taken(1, (workers, 0), workers), np.empty(n_blocks, np.int64)
    n = 0
    b = next_block(counts, 0, worker, n_blocks, -1)
    while b >= 0:
        blocks[n] = b
        n += 1
        b = next_block(counts, 0, worker, n_blocks, b)
    return blocks[:n], counts[0, workers, 0]


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 23))
def test_a_worker_takes_its_own_share_first_and_then_what_the_others_left(workers, worker, n_blocks):
    worker %= workers
    blocks, done = all_blocks_of_one_worker(workers, worker, n_blocks)
    shares = [range(n_blocks * w // workers, n_blocks * (w + 1) // workers) for w in range(workers)]
    assert blocks.tolist() == [b for w in range(workers) for b in shares[(worker + w) % workers]]
    assert done == n_blocks


@helper
def _sums_of_neighbours(worker, counts, x):
    for t in range(x.shape[0] - 1):
        b = next_block(counts, t, worker, x.shape[1], -1)
        while b >= 0:
            x[t + 1, b] = x[t, b - 1] + x[t, (b + 1) % x.shape[1]]
            b = next_block(counts, t, worker, x.shape[1], b)


@Kernel
def sums_of_neighbours(threads, x):
    """x[t + 1, b] = x[t, b - 1] + x[t, b + 1] around a ring: every loop reads what other workers wrote in the one before."""
    counts = nothing_taken(x.shape[0] - 1, threads, x.shape[1])
    run_workers(_sums_of_neighbours, threads, counts.shape[1] - 1, counts, x)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_loop_over_blocks_begins_when_the_one_before_is_done(threads):
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"this machine has {numba.config.NUMBA_NUM_THREADS} core")
    before = threads_in_use()
    set_threads(threads)
    try:
        for n_blocks in (1, 2, 3, 50):
            expected = np.zeros((200, n_blocks), np.int64)
            expected[0] = np.arange(n_blocks)
            for t in range(199):
                expected[t + 1] = (np.roll(expected[t], 1) + np.roll(expected[t], -1)) % 2**40
            for threaded in (False, True):
                found = np.zeros_like(expected)
                found[0] = np.arange(n_blocks)
                sums_of_neighbours(threaded, found)
                assert np.array_equal(found % 2**40, expected)
    finally:
        set_threads(before)


def test_threads_sleep_while_they_have_no_work_unless_the_environment_says_otherwise():
    code = (
        "import os; os.environ.update({settings}); from eann_lite.compiled import threads_in_use; seen = []\n"
        "import numba; start = numba.get_num_threads\n"
        "numba.get_num_threads = lambda: (seen.append(os.environ.get('OMP_WAIT_POLICY')), start())[1]\n"
        "threads_in_use(); print(seen[0], os.environ.get('OMP_WAIT_POLICY'))"
    )
    for settings, expected in (({}, "passive None"), ({"OMP_WAIT_POLICY": "active"}, "active active")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        command = [sys.executable, "-c", code.format(settings=settings)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
