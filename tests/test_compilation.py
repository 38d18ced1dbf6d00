"""How kernels and their helpers are compiled, and that it is the code that was written."""

import gc
import itertools
import operator
import re
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import numba
import numpy as np
import pytest
from numba import types
from numba.core.bytecode import FunctionIdentity
from numba.core.codegen import JITCodeLibrary
from numba.core.errors import LoweringError
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python, rtsys
from numba.core.runtime.context import NRTContext
from numba.extending import overload
from test_shares import adding_squares

from eann_lite import compiled
from eann_lite.compilation import linked, remembered
from eann_lite.compilation.borrowed import borrowing
from eann_lite.compilation.by_address import ByAddress
from eann_lite.compilation.linked import HelperCompiler, KernelCompiler
from eann_lite.compiled import compile_loops, helper
from eann_lite.kernels.arrays import empty, matrix


@compiled.helper
def squared(x):
    return x * x


@numba.njit
def squared_and_one(x):
    return squared(x) + 1.0


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


@contextmanager
def all_is_freed(least):
    """Arrays that compiled code makes meanwhile, so many or more, are given back."""
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        yield
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    assert after.alloc - before.alloc == after.free - before.free >= least


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
    with all_is_freed(2000):
        assert total(x, 3000) == 1000 * expected
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
        with all_is_freed(200):
            for _ in range(100):
                compiled_sum(x, 4)
    for own in add_row.overloads.values():
        assert [isinstance(kind, ByAddress) for kind in own.fndesc.argtypes] == [True, False]


@helper
def note(arrays, n, found):
    for a in range(len(found[n])):
        found[n, a] = arrays[a][n]


@helper
def turn(arrays):
    return arrays[1], arrays[2], arrays[0]


def turned(x, y, z, found):
    arrays = (x, y, z)
    for n in range(0, found.shape[0], 2):
        before = arrays
        arrays = turn(arrays)
        note(before, n, found)
        note(arrays, n + 1, found)


def swapped(x, y, z, found):
    arrays, others = (x, y, z), (z, x, y)
    for n in range(found.shape[0]):
        arrays, others = others, arrays
        note(arrays, n, found)


def changed_at_times(x, y, z, found):
    arrays = (x, y, z)
    for n in range(found.shape[0]):
        before = arrays
        if n % 3 == 0:
            arrays = (z, y, x)
        note(before, n, found)


@pytest.mark.parametrize("function", [turned, swapped, changed_at_times])
def test_helpers_get_tuples_in_variables_as_they_are_at_every_call(function, empty_cache):
    called, numbers = helper(function), np.random.default_rng(0).normal(size=(3, 8))
    found, expected = np.empty((2, 8, 3))

    @compile_loops
    def run(x, y, z, found):
        called(x, y, z, found)

    run(*numbers, found)
    with mock.patch.dict(globals(), {"note": note.py_func, "turn": turn.py_func}):
        function(*numbers, expected)
    assert found.tolist() == expected.tolist()
    assert isinstance(next(iter(note.overloads.values())).fndesc.argtypes[0], ByAddress)


@borrowing
@helper
def rest_of(x, n):
    return x[n:]


@borrowing
@helper
def rest_or_new(x, y, n):
    return x[n:] if n > 0 else empty(x.size, x.dtype)


@borrowing
@helper
def rest_of_second(x, y, n):
    return y[n:]


@pytest.mark.parametrize("function", [rest_or_new, rest_of_second])
def test_helpers_that_return_more_than_part_of_their_first_argument_must_not_say_so(function, empty_cache):
    with pytest.raises(LoweringError, match=r"rest_o.*: expected it to return part of its first argument"):
        compile_loops(lambda x, n: function(x, x, n).sum())(np.arange(5.0), 1)


def test_borrowing_helpers_may_be_called_by_the_names_of_their_arguments(empty_cache):
    @helper
    def sum_of_rest(x, n):
        return rest_of(n=n, x=x).sum()

    assert compile_loops(lambda x, n: sum_of_rest(x, n))(np.arange(5.0), 2) == 9.0


@helper
def add_parts(rows, flat, pairs):
    total = 0.0
    for n in range(rows.ends[1]):
        row, column = rows.x[n], rows.x.T[n]
        part, rest, first, pair = row[1:], rest_of(row, 1), matrix(flat, n, 1, 3)[0], pairs[n % 2]
        total += part[0] + rest[1] + first[2] + pair[0][3] + pair[1][n] + column[0]
        row[0] = total
    return total


def test_helpers_count_no_references_of_parts_of_what_they_are_given(empty_cache):
    x, flat = np.arange(20.0).reshape(4, 5), np.arange(9.0)
    pairs, expected, changed = ((x[1], flat), (x[2], flat)), 0.0, x.copy()
    for n in range(4):
        expected += changed[n, 1] + changed[n, 2] + flat[n + 2] + changed[1 + n % 2, 3] + flat[n] + changed[0, n]
        changed[n, 0] = expected
    kernel = compile_loops(lambda rows, flat, pairs: add_parts(rows, flat, pairs))
    assert kernel(Rows(x, flat, 1.0, (0, 4)), flat, pairs) == expected
    np.testing.assert_array_equal(x, changed)
    (own,) = add_parts.overloads.values()
    text = own.library._final_module.functions
    (body,) = (str(function) for function in text if function.name == own.fndesc.llvm_func_name)
    # What rest_of returns is given back at once, and nothing else is counted.
    assert body.count("@NRT_incref") == 0 and body.count("@NRT_decref") == 1


@helper
def filled(x, number):
    new = empty(40, x.dtype)
    for n in range(40):
        new[n] = number
    return new


@helper
def parts_that_outlive_names(x, times):
    total = 0.0
    for n in range(times):
        # Each time the name of an array is another's before its part is read, whose place is the same if it was freed.
        own = filled(x, 1.0)
        part = own[20:]
        own = filled(x, -1.0)
        total += part[0]
        own = filled(x, 2.0)
        square = matrix(own, 4, 5, 6)
        own = filled(x, -1.0)
        total += square[0, 0]
        own = filled(x, 4.0)
        rest = rest_of(own, 20)
        own = filled(x, -1.0)
        total += rest[0]
        own = filled(x, 8.0)
        pair = own, 1.0
        own = filled(x, -1.0)
        total += pair[0][0]
        own = filled(x, 16.0)
        other = own
        own = filled(x, -1.0)
        total += other[0]
        own = filled(x, 32.0)
        turned = own.T
        own = filled(x, -1.0)
        total += turned[0]
        own = filled(x, 64.0)
        chosen = x[1:] if n % 2 == 0 else own[20:]
        own = filled(x, -1.0)
        total += chosen[0] + x[np.array([0, 2])].sum()
    return total, chosen, part


def test_helpers_keep_arrays_of_their_own_alive_for_their_parts(empty_cache):
    kernel = compile_loops(lambda x, times: parts_that_outlive_names(x, times))
    x = np.array([2.0, 3.0, 5.0])
    total, chosen, part = kernel(x, 6)
    others = [np.full(40, 9.0) for _ in range(50)]
    assert total == 6 * (63.0 + 7.0) + 3 * (3.0 + 64.0)
    assert (chosen == 64.0).all() and (part == 1.0).all() and len(others) == 50
    assert np.shares_memory(kernel(x, 5)[1], x)
    del chosen, part
    with all_is_freed(20 * 6 * 14):
        for _ in range(20):
            kernel(x, 6)


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
