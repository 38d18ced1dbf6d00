"""Tuples that cross into kernels by their address."""

import copy
import ctypes
import gc
import pickle
import re
from typing import NamedTuple

import numba
import numpy as np
import pytest
from ase.build import molecule

from eann_lite import EANNCalculator, Model, Specification, compiled
from eann_lite.batches import draw_batch, pack_structures
from eann_lite.compilation import placed as placed_module
from eann_lite.compilation.placed import Placed, kind_of
from eann_lite.compiled import Kernel, helper
from eann_lite.kernels.arrays import bytes_of
from eann_lite.model.initial import initial_parameters
from eann_lite.structures import as_structures


class Mixed(NamedTuple):
    """Everything that may be in a tuple, none of it in a place that would be right by chance."""

    up: bool
    x: np.ndarray
    n: int
    table: np.ndarray
    scale: float
    cube: np.ndarray
    down: bool
    factor: float
    chosen: np.ndarray
    also_down: bool


def mixed(precision=np.float64, order="C"):
    return Mixed(
        True, np.arange(7, dtype=precision) - 3, -5, np.arange(12, dtype=np.int64).reshape((3, 4), order=order),
        0.5, np.arange(24, dtype=precision).reshape(2, 3, 4), False, 2.5,
        np.array([4, 1, 2], np.int32), False,
    )  # fmt: skip


@helper
def add_everything(tuple_, found):
    found[0] += tuple_.up + 2.0 * tuple_.down + 4.0 * tuple_.also_down
    found[1] += tuple_.x.sum() + tuple_.x[tuple_.chosen[0]] * tuple_.x.size
    found[2] += tuple_.n * tuple_.factor * tuple_.scale
    found[3] += tuple_.table[1, 3] + 10 * tuple_.table.shape[1] + tuple_.table[2, 0]
    found[4] += tuple_.cube[1, tuple_.chosen[2], tuple_.chosen[1]]
    tuple_.x[0] = -9.0


def everything(value):
    return [
        value.up + 2.0 * value.down + 4.0 * value.also_down, value.x.sum() + value.x[4] * 7,
        value.n * value.factor * value.scale, value.table[1, 3] + 40 + value.table[2, 0], value.cube[1, 2, 1],
    ]  # fmt: skip


@pytest.mark.parametrize("missing", [(), ("PlacedKernelCompiler",), ("PlacedKernelCompiler", "KernelCompiler")])
def test_kernels_read_of_a_placed_tuple_what_is_in_it(missing, empty_cache, monkeypatch):
    """With what builds on Numba's own parts and without."""
    for name in missing:
        monkeypatch.setattr(compiled, name, None)

    @Kernel
    def read(threads, value, found, other):
        add_everything(value, found)
        add_everything(other, found)

    for first, second in ((mixed(), mixed(order="F")), (mixed(np.float32), mixed()), (mixed(), mixed(np.float32))):
        expected, found = np.array(everything(first)) + everything(second), np.zeros(5)
        read(False, Placed(first), found, second)
        np.testing.assert_array_equal(found, expected)
        assert first.x[0] == second.x[0] == -9.0
    assert len(read.compiled.signatures) == 3
    assert read._by_address == (not missing)


@Kernel
def read_one(threads, value, found):
    add_everything(value, found)


def test_a_placed_tuple_holds_its_arrays_and_copies_stand_elsewhere():
    placed, expected = Placed(mixed()), everything(mixed())
    copies = copy.deepcopy(placed), pickle.loads(pickle.dumps(placed))
    assert len({one.address for one in (placed, *copies)}) == 3
    placed.value.x[:] = 0.0
    del placed
    gc.collect()
    others = [Placed(mixed(np.float32)) for _ in range(50)]
    for one in copies:
        found = np.zeros(5)
        read_one(False, one, found)
        np.testing.assert_array_equal(found, expected)
    assert len(others) == 50


@numba.njit
def laid_out(x, table, cube, chosen):
    value = Mixed(True, x, -5, table, 0.5, cube, False, 2.5, chosen, False)
    return value, bytes_of(value)


def test_what_compiled_code_lays_out_is_read_like_what_python_does_and_is_held():
    given = mixed()
    value, memory = laid_out(given.x, given.table, given.cube, given.chosen)
    assert memory.nbytes == len(Placed(given)._buffer)
    placed, expected = Placed.made(value, memory), everything(given)
    assert placed.kind is Placed(given).kind
    copies = copy.deepcopy(placed), pickle.loads(pickle.dumps(placed))
    del given, value, memory
    gc.collect()
    others = [mixed() for _ in range(50)]
    for one in (*copies, placed):
        found = np.zeros(5)
        read_one(False, one, found)
        np.testing.assert_array_equal(found, expected)
    assert len(others) == 50


def test_a_copy_of_used_sweeps_takes_new_parameters():
    specification = Specification(elements=("C", "H"), cutoff=4.0, radial=3, densities=5, recursions=1)
    first, second = (Model(specification, initial_parameters(specification, seed=n)) for n in (0, 1))
    packed = pack_structures(as_structures(molecule("CH4")), specification.elements, specification.reach)
    batch = draw_batch(packed, np.arange(1), 2)
    before, expected = (model.sweeps.forward(batch).copy() for model in (first, second))
    copied = copy.deepcopy(first.sweeps)
    copied.set_parameters(second.vector)
    np.testing.assert_array_equal(copied.forward(batch), expected)
    np.testing.assert_array_equal(first.sweeps.forward(batch), before)


def test_calculators_and_models_can_be_copied_after_they_were_used():
    specification = Specification(elements=("C", "H"), cutoff=4.0, radial=3, densities=5, recursions=0)
    model, methane = Model(specification, initial_parameters(specification, seed=0)), molecule("CH4")
    methane.calc = EANNCalculator(model)
    before, here = methane.get_forces(), model.evaluate(methane).forces
    for copied in (copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
        calculator, of_copy = copied(methane.calc), copied(model).evaluate(methane).forces
        methane.rattle(0.1, seed=0)
        moved = methane.get_forces()
        methane_again = methane.copy()
        methane_again.calc = calculator
        np.testing.assert_array_equal(methane_again.get_forces(), moved)
        np.testing.assert_array_equal(of_copy, here)
        methane.positions = molecule("CH4").positions
        np.testing.assert_array_equal(methane.get_forces(), before)


@pytest.mark.parametrize("value", [(np.arange(3.0),), (2, 3.0)])
def test_kernels_take_small_tuples_as_numba_does(value, empty_cache):
    @Kernel
    def read(threads, value, found):
        found[0] = value[0].sum() if len(value) == 1 else value[0] + value[1]

    for argument in (value, Placed(value)):
        found = np.zeros(1)
        read(False, argument, found)
        assert found[0] == (3.0 if len(value) == 1 else 5.0)


def test_kernels_return_nothing(empty_cache):
    @Kernel
    def first(threads, value):
        return value.x

    with pytest.raises(TypeError, match="kernel first: expected it to return nothing"):
        first(False, mixed())


def test_kinds_are_as_different_as_the_types_of_numba():
    array, read_only = np.zeros((4, 4)), np.zeros((4, 4))
    read_only.flags.writeable = False
    values = [
        array, array[1:], array[:, 1:], array.T, array[0], array[:, 0], array.astype(np.float32), array.astype(int),
        read_only, 1.0, 1, True,
    ]  # fmt: skip
    for one in values:
        for other in values:
            assert (kind_of(one) == kind_of(other)) == (numba.typeof(one) == numba.typeof(other))
    tuples = [(1, 2.0), (1, 2), (array, 1), (array.T, 1), mixed(), mixed(np.float32), mixed(order="F"), tuple(mixed())]
    for one in tuples:
        for other in tuples:
            assert (Placed(one).kind is Placed(other).kind) == (numba.typeof(one) == numba.typeof(other))


@pytest.mark.parametrize("part", [["H"], (1, 2), "H", None])
def test_what_kernels_cannot_read_of_a_tuple_is_refused_with_what_came(part):
    with pytest.raises(TypeError, match=r"expected an array, bool, int or float, got .*" + re.escape(repr(part))):
        Placed((np.zeros(3), part))


def test_tuples_cross_as_usual_where_numba_lays_them_out_in_another_way(empty_cache, monkeypatch):
    @Kernel
    def read(threads, value, found):
        add_everything(value, found)

    monkeypatch.setattr(placed_module, "ARRAY", "PPqqPq")
    monkeypatch.setattr(placed_module, "_KINDS", {})
    monkeypatch.setattr(placed_module._Kind, "place", lambda self, value: ctypes.create_string_buffer(8))
    for value in (mixed(), Placed(mixed()), mixed(np.float32)):
        expected, found = everything(getattr(value, "value", value)), np.zeros(5)
        read(False, value, found)
        np.testing.assert_array_equal(found, expected)
    assert not read._by_address
