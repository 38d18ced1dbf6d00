"""New arrays and parts of flat ones inside of kernels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eann_lite.compiled import compile_loops, helper
from eann_lite.kernels.arrays import empty, full, matrix


@compile_loops
def new_ones(shape, like):
    """An array to be filled, and others of the dtypes that kernels use."""
    return (
        empty(shape, like.dtype), full(shape, -1, np.int64), full(shape, 0.5, np.float64), full(shape, True, np.bool_),
    )  # fmt: skip


@compile_loops
def numbered(flat, start, rows, columns):
    """Write 10 row + column into a part of a flat array; returns it."""
    part = matrix(flat, start, rows, columns)
    for i in range(rows):
        for j in range(columns):
            part[i, j] = 10 * i + j
    return part


def check_new(shape, precision):
    room, *others = new_ones(shape, np.zeros(0, precision))
    room[...] = 7.0
    expected = (np.full(shape, 7.0, precision), np.full(shape, -1), np.full(shape, 0.5), np.full(shape, True))
    for found, wanted in zip((room, *others), expected):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype and found.flags.c_contiguous
        assert found.size == 0 or found.ctypes.data % 64 == 0


@given(st.integers(0, 20), st.sampled_from([np.float32, np.float64]))
def test_new_arrays_are_as_of_numpy_and_begin_with_a_cache_line(size, precision):
    check_new(size, precision)
    check_new((size, 3), precision)
    check_new((2, size, 5), precision)


@given(st.integers(0, 9), st.integers(0, 6), st.integers(1, 6), st.sampled_from([np.float32, np.float64]))
def test_a_matrix_is_a_part_of_the_flat_array(start, rows, columns, precision):
    flat = np.full(50, -1.0, precision)
    part = numbered(flat, start, rows, columns)
    expected = np.add.outer(10.0 * np.arange(rows), np.arange(columns)).astype(precision)
    np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(flat[start : start + rows * columns], expected.ravel())
    assert np.all(flat[:start] == -1.0) and np.all(flat[start + rows * columns :] == -1.0)
    assert rows == 0 or np.shares_memory(part, flat)


def test_a_matrix_outlives_the_name_of_the_flat_array():
    part = numbered(np.zeros(50), 4, 6, 6)
    others = [np.full(50, 3.0) for _ in range(100)]
    assert part[5, 5] == 55.0 and len(others) == 100


@helper
def room_for(n):
    return empty((n, 1000), np.float64)


@compile_loops
def size_of_room(n):
    """Of an array that a helper made."""
    return room_for(n).size


@pytest.mark.parametrize("n", [10**15, -1, -(10**9)])
def test_no_memory_is_an_error(n):
    assert size_of_room(3) == 3000
    with pytest.raises(MemoryError):
        size_of_room(n)
