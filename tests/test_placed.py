"""Tuples that cross into kernels by their address."""

import gc
from typing import NamedTuple

import numba
import numpy as np
import pytest

from eann_lite import compiled
from eann_lite.compilation.placed import Placed, kind_of
from eann_lite.compiled import Kernel, helper


class Ends(NamedTuple):
    """A tuple inside of another."""

    begin: int
    end: int
    scale: float


class Mixed(NamedTuple):
    """Everything that may be in a tuple, none of it in a place that would be right by chance."""

    up: bool
    x: np.ndarray
    n: int
    table: np.ndarray
    ends: Ends
    cube: np.ndarray
    down: bool
    also_down: bool
    factor: float
    chosen: np.ndarray


def mixed(precision=np.float64, order="C"):
    return Mixed(
        True, np.arange(7, dtype=precision) - 3, -5, np.arange(12, dtype=np.int64).reshape((3, 4), order=order),
        Ends(1, 3, 0.5), np.arange(24, dtype=precision).reshape(2, 3, 4), False, False, 2.5,
        np.array([4, 1, 2], np.int32),
    )  # fmt: skip


@helper
def add_everything(tuple_, found):
    found[0] += tuple_.up + 2.0 * tuple_.down + 4.0 * tuple_.also_down
    found[1] += tuple_.x.sum() + tuple_.x[tuple_.chosen[0]] * tuple_.x.size
    found[2] += tuple_.n * tuple_.factor * tuple_.ends.scale
    found[3] += tuple_.table[tuple_.ends.begin, tuple_.ends.end] + 10 * tuple_.table.shape[1] + tuple_.table[2, 0]
    found[4] += tuple_.cube[1, tuple_.chosen[2], tuple_.chosen[1]]
    tuple_.x[0] = -9.0


def everything(value):
    return [
        value.up + 2.0 * value.down + 4.0 * value.also_down, value.x.sum() + value.x[4] * 7,
        value.n * value.factor * value.ends.scale, value.table[1, 3] + 40 + value.table[2, 0], value.cube[1, 2, 1],
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

    assert read._by_address == (not missing)
    for first, second in ((mixed(), mixed(order="F")), (mixed(np.float32), mixed()), (mixed(), mixed(np.float32))):
        expected, found = np.array(everything(first)) + everything(second), np.zeros(5)
        read(False, Placed(first), found, second)
        np.testing.assert_array_equal(found, expected)
        assert first.x[0] == second.x[0] == -9.0
    assert len(read.compiled.signatures) == 3


def test_a_placed_tuple_holds_its_arrays():
    placed = Placed(mixed())
    gc.collect()
    others = [mixed() for _ in range(50)]
    assert placed.value.x[6] == 3.0 and len(others) == 50


def test_kinds_are_as_different_as_the_types_of_numba():
    array = np.zeros((4, 4))
    read_only = np.zeros((4, 4))
    read_only.flags.writeable = False
    values = [
        array, array[1:], array[:, 1:], array.T, array[0], array[:, 0], array.astype(np.float32), array.astype(int),
        read_only, 1.0, 1, True, (1, 2.0), (1, 2), (array, 1), (array.T, 1), Ends(1, 2, 3.0), Ends(1, 2, 3), mixed(),
        mixed(np.float32), mixed(order="F"),
    ]  # fmt: skip
    for one in values:
        for other in values:
            assert (kind_of(one) == kind_of(other)) == (numba.typeof(one) == numba.typeof(other))
    assert Placed(mixed()).kind is Placed(mixed()).kind is not Placed(mixed(np.float32)).kind


def test_what_kernels_cannot_read_of_a_tuple_is_refused_with_what_came():
    with pytest.raises(TypeError, match=r"expected an array, bool, int, float or tuple, got \['H'\]"):
        Placed((np.zeros(3), ["H"]))


def test_another_layout_of_tuples_is_refused_before_it_is_read(empty_cache, monkeypatch):
    @Kernel
    def read(threads, value, found):
        add_everything(value, found)

    placed = Placed(mixed())
    monkeypatch.setattr(placed.kind, "size_is_right", lambda found: False)
    with pytest.raises(RuntimeError, match="lays out tuples otherwise than eann_lite.compilation.placed expects"):
        read(False, placed, np.zeros(5))
    assert not read.compiled.signatures
