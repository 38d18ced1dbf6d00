"""Small products, sums and tiles of the kernels against NumPy, for every remainder of their vectors."""

import importlib.util
from itertools import product as product_of
from unittest import mock

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core.runtime import _nrt_python, rtsys
from strategies import seeds

from eann_lite import compiled, reference
from eann_lite.compiled import compile_loops
from eann_lite.kernels import dense, pair_gradients, tiles
from eann_lite.kernels.columns import (
    add_along,
    lengths,
    products_of_three_rows,
    recursive_products,
    recursive_products_tangent,
    scaled_rows,
)
from eann_lite.kernels.dense import (
    add_squared_product_tangent,
    product,
    scaled_product,
    scaled_product_tangent,
    squared_products,
)
from eann_lite.kernels.pair_gradients import (
    pairs_in_tiles,
    second_degree_sums_over_gaussians,
    sums_over_gaussians,
)
from eann_lite.kernels.pair_tiles import pair_tile, second_degree_tile
from eann_lite.kernels.row_operations import sum_of_rows
from eann_lite.kernels.rows import scale_row
from eann_lite.kernels.second_degree import N_MONOMIALS, SECOND_DEGREE
from eann_lite.model.sweeps import Monomials


@numba.njit
def jitted_product(x, w, y, fresh):
    product(x, w, y, fresh)


#: Precisions and how far sums of a few dozen numbers of size 1 may be off.
PRECISIONS = st.sampled_from([(np.float64, 1e-13), (np.float32, 3e-5)])


@given(st.integers(0, 20), st.integers(0, 9), st.integers(1, 100), st.booleans(), PRECISIONS, seeds)
# Columns of every width, from four cache lines to half a line and the rest, and rows of every tile.
@example(15, 7, 95, False, (np.float64, 1e-13), 0)
@example(14, 7, 93, False, (np.float32, 3e-5), 0)
@example(15, 7, 92, False, (np.float64, 1e-13), 0)
@example(14, 7, 88, False, (np.float32, 3e-5), 0)
@example(1, 7, 95, True, (np.float64, 1e-13), 0)
def test_products_are_those_of_numpy_for_every_remainder_of_their_tiles(rows, inner, outer, fresh, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    wide = rng.normal(size=(rows + inner, 40)).astype(dtype)
    w, y = rng.normal(size=(inner, outer)).astype(dtype), rng.normal(size=(rows, outer)).astype(dtype)
    # Contiguous, a part of wider rows, and transposed.
    for x in (wide[:rows, :inner].copy(), wide[:rows, 3 : 3 + inner], wide[:inner, 5 : 5 + rows].T):
        around = np.full((rows + 2, outer + 3), 7.0, dtype)
        around[1:-1, 1:-2] = y
        jitted_product(x, w, around[1:-1, 1:-2], fresh)
        assert around[1:-1, 1:-2] == pytest.approx(x @ w + (0.0 if fresh else y), rel=tolerance, abs=tolerance)
        around[1:-1, 1:-2] = 7.0
        assert np.all(around == 7.0)


@numba.njit
def jitted_product_with_transposed(x, w, y):
    dense.product_with_transposed(x, w, y)


@given(st.integers(0, 9), st.integers(0, 3), st.integers(1, 3), PRECISIONS, seeds)
@example(8, 3, 2, (np.float32, 3e-5), 0)
def test_products_with_transposed_matrices_are_those_of_numpy(rows, inner_lines, outer_lines, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    per_line = 64 // np.dtype(dtype).itemsize
    inner, outer = inner_lines * per_line, outer_lines * per_line
    wide, w = rng.normal(size=(rows, inner + 5)).astype(dtype), rng.normal(size=(outer, inner)).astype(dtype)
    for x in (wide[:, :inner].copy(), wide[:, 3 : 3 + inner]):
        around = np.full((rows + 2, outer + 3), 7.0, dtype)
        jitted_product_with_transposed(x, w, around[1:-1, 1:-2])
        assert around[1:-1, 1:-2] == pytest.approx(x @ w.T, rel=tolerance, abs=tolerance)
        around[1:-1, 1:-2] = 7.0
        assert np.all(around == 7.0)


@numba.njit
def products_of_temporaries(x, w, y, n):
    for _ in range(n):
        product(2.0 * x, (w + 1.0)[1:], y, True)


def test_products_hold_what_their_caller_alone_names():
    rng = np.random.default_rng(0)
    x, w, y = rng.normal(size=(9, 40)), rng.normal(size=(41, 33)), np.zeros((9, 33))
    products_of_temporaries(x, w, y, 1)
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        products_of_temporaries(x, w, y, 50)
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    assert y == pytest.approx(2.0 * x @ (w + 1.0)[1:], rel=1e-13, abs=1e-13)
    assert after.alloc - before.alloc == after.free - before.free >= 100


def anew(module):
    """A module of kernels once more, nothing of it compiled."""
    spec = importlib.util.spec_from_file_location("anew", module.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    return again


def dense_of_another_machine():
    """``kernels.dense`` as it is with long vectors where there are none, and without where there are."""
    with mock.patch("llvmlite.binding.get_host_cpu_features", return_value={"avx512f": not dense.LONG_VECTORS}):
        module = anew(dense)
    assert module.LONG_VECTORS is not dense.LONG_VECTORS
    return module


class Orbitals:
    """Random arrays of some atoms and their pairs, as orbital sums, messages and their tangents take them.

    moving : without it, what need not be known where atoms stand still is not a number.
    """

    def __init__(self, rng, pairs, n_monomials, n_radial, dtype, moving=True):
        self.n_atoms, self.n_rows, self.moving = 4, 5, moving
        n_pairs = 2 + pairs + 3
        #: Atom 1 has ``pairs`` pairs; columns of monomials beyond them do not count.
        self.i, self.own, self.first = 1, slice(2, 2 + pairs), np.array([0, 2, 2 + pairs, n_pairs, n_pairs])
        numbers = {
            "angular": (n_monomials, pairs + 1), "radial": (n_pairs, n_radial), "distance": (n_pairs,),
            "coefficients": (self.n_atoms, n_radial), "sums_bar": (self.n_atoms, n_monomials, n_radial),
            "log_slope": (n_pairs,),
            "centers": (2, n_radial), "exponents": (2, n_radial),
        }  # fmt: skip
        for name, shape in numbers.items():
            setattr(self, name, rng.normal(size=shape).astype(dtype))
        for name in ("angular", "coefficients", "sums_bar", "distance"):
            still = np.nan if not moving and name != "sums_bar" else 1.0
            setattr(self, f"{name}_dot", still * rng.normal(size=numbers[name]).astype(dtype))
        self.angular[0] = 1.0
        if moving:
            self.angular_dot[0] = 0.0
        self.angular[:, pairs:] = self.angular_dot[:, pairs:] = np.nan
        self.neighbor = rng.integers(0, self.n_atoms, n_pairs).astype(np.int32)
        self.species = rng.integers(0, 2, self.n_atoms)
        self.rows = rng.integers(0, self.n_rows, n_pairs).astype(np.int32)
        self.sums, self.sums_dot = np.full((2, self.n_atoms, n_monomials, n_radial), 7.0, dtype)
        self.message, self.message_dot = np.full((2, self.n_rows, n_radial), 6.0, dtype)
        self.exponents_bar_dot, self.centers_bar_dot = np.full((2, 2, n_radial), 5.0, dtype)

    def arguments(self):
        """What the four functions take, one after the other."""
        angular, angular_dot = self.of_pairs()
        moving_pairs = (
            self.radial, self.distance, self.distance_dot, self.log_slope, self.neighbor, self.species, self.centers,
            self.exponents,
        )  # fmt: skip
        return (
            (self.sums, angular, self.first, self.radial, self.neighbor, self.coefficients),
            (self.sums_dot, angular, angular_dot, self.first, self.coefficients, self.coefficients_dot,
             *moving_pairs),
            (self.sums_bar, angular, self.first, self.radial, self.rows, self.message),
            (self.sums_bar, self.sums_bar_dot, angular, angular_dot, self.first, self.coefficients,
             self.coefficients_dot, self.rows, self.message_dot, self.exponents_bar_dot, self.centers_bar_dot,
             self.moving, *moving_pairs),
        )  # fmt: skip

    def of_pairs(self):
        """What they know of the directions of pairs, and its tangent."""
        return self.angular, self.angular_dot

    def expected(self):
        """What they leave, from the equations: sums, sums_dot, message, message_dot, exponents_ and centers_bar_dot."""
        own, i, n = self.own, self.i, self.own.stop - self.own.start
        j = self.neighbor[own]
        s, angular, c = self.species[j], self.angular[:, :n], self.coefficients[j]
        radial = self.radial[own].astype(float)
        d = self.distance[own, None].astype(float) - self.centers[s]
        back, back_dot = (angular.astype(float).T @ bar[i] for bar in (self.sums_bar, self.sums_bar_dot))
        r_dot, radial_dot, c_dot, sums_dot = 0.0, 0.0, 0.0, self.sums_dot.astype(float)
        if self.moving:
            angular_dot, r_dot, c_dot = self.angular_dot[:, :n], self.distance_dot[own, None], self.coefficients_dot[j]
            radial_dot = radial * (self.log_slope[own, None] - 2.0 * self.exponents[s] * d) * r_dot
            back_dot = back_dot + angular_dot.T @ self.sums_bar[i]
            sums_dot[i] = angular_dot @ (radial * c) + angular @ (radial_dot * c + radial * c_dot)
        sums, message, message_dot = (a.astype(float) for a in (self.sums, self.message, self.message_dot))
        sums[i] = angular @ (radial * c)
        np.add.at(message, self.rows[own], radial * back)
        changed = radial * back_dot + radial_dot * back
        np.add.at(message_dot, self.rows[own], changed)
        q, q_dot = radial * c * back, c * changed + c_dot * radial * back
        by_exponent, by_center = self.exponents_bar_dot.astype(float), self.centers_bar_dot.astype(float)
        np.add.at(by_exponent, s, -(d * d * q_dot + 2.0 * d * r_dot * q))
        np.add.at(by_center, s, d * q_dot + r_dot * q)
        return sums, sums_dot, message, message_dot, by_exponent, by_center

    def found(self):
        """The same as it stands in the arrays."""
        return (
            self.sums, self.sums_dot, self.message, self.message_dot, self.exponents_bar_dot, self.centers_bar_dot,
        )  # fmt: skip


class SecondDegreeOrbitals(Orbitals):
    """The same with the monomials to degree 2 of random vectors, of which the functions know alone."""

    def __init__(self, rng, pairs, n_radial, dtype, moving=True):
        super().__init__(rng, pairs, N_MONOMIALS, n_radial, dtype, moving)
        x, x_dot = rng.normal(size=(2, 3, self.first[-1])).astype(dtype)
        self.vector, self.vector_dot = x, x_dot if moving else np.full_like(x_dot, np.nan)
        rows, rows_dot = self.angular[:, :pairs], self.angular_dot[:, :pairs]
        for a, (parent, axis) in enumerate(SECOND_DEGREE, 1):
            along, along_dot = self.vector[axis, self.own], self.vector_dot[axis, self.own]
            rows[a] = rows[parent] * along
            rows_dot[a] = rows_dot[parent] * along + rows[parent] * along_dot

    def of_pairs(self):
        return self.vector, self.vector_dot


def all_products(module):
    """A function that makes every kind of product in the way of a module: x, x_dot (n, A, i) and so on."""
    product, squared_products, scaled_product = module.product, module.squared_products, module.scaled_product
    squared_tangent, scaled_tangent = module.add_squared_product_tangent, module.scaled_product_tangent
    product_with_transposed, span = module.product_with_transposed, module.span

    @numba.njit(fastmath=compiled.FASTMATH)
    def run(x, x_dot, w, kind, weight, z, y, lines, columns, of_lines):
        product_with_transposed(lines, columns, of_lines)
        product(x[:, 0], w[0], y[0], True)
        squared_products(span(z[0]), x, w, kind, weight, y[1])
        scaled_product(x[:, 0], w[1], 2.5, z[0], y[2])
        squared_tangent(x[:, 0], x_dot[:, 0], w[0], 1.5, y[0])
        scaled_tangent(x[:, 0], x_dot[:, 0], w[1], 0.5, z[0], z[1], y[3], y[4])

    return run


def orbitals_and_messages(module, compile_them):
    """A function that makes orbital sums, messages and their tangents of one atom in the way of a module."""
    orbital_sums, orbital_sums_tangent = module.orbital_sums, module.orbital_sums_tangent
    messages, messages_tangent = module.messages, module.messages_tangent

    @compile_them
    def run(i, moving, first, of_sums, of_sums_tangent, of_messages, of_messages_tangent):
        orbital_sums(i, of_sums)
        if moving:
            orbital_sums_tangent(i, of_sums_tangent)
        messages(i, first, of_messages)
        messages_tangent(i, first, of_messages_tangent)

    return run


def second_degree_orbitals_and_messages(module, compile_them):
    """The same to degree 2."""
    sums, sums_tangent = module.second_degree_sums, module.second_degree_sums_tangent
    messages, messages_tangent = module.second_degree_messages, module.second_degree_messages_tangent

    @compile_them
    def run(i, moving, first, of_sums, of_sums_tangent, of_messages, of_messages_tangent):
        sums(i, of_sums)
        if moving:
            sums_tangent(i, of_sums_tangent)
        messages(i, of_messages)
        messages_tangent(i, of_messages_tangent)

    return run


def any_degree(*arguments):
    """``Orbitals`` with as many monomials as there are to degree 2."""
    return Orbitals(*arguments[:2], N_MONOMIALS, *arguments[2:])


def test_machines_with_other_registers_get_the_same_bits():
    modules = dense, dense_of_another_machine()
    rng, run, run_elsewhere = np.random.default_rng(0), *map(all_products, modules)
    for rows, outer in ((1, 70), (2, 3), (5, 36), (8, 32), (14, 20), (23, 71)):
        x, x_dot = rng.normal(size=(2, rows, 4, 7))
        w, z, weight = rng.normal(size=(3, 7, outer)), rng.normal(size=(2, rows, outer)), rng.normal(size=4)
        here, elsewhere = np.zeros((2, 5, rows, outer))
        kind = rng.integers(0, 3, 4)
        lines, columns = rng.normal(size=(rows, 24)), rng.normal(size=(16, 24))
        of_lines, of_others = np.zeros((2, rows, 16))
        run(x, x_dot, w, kind, weight, z, here, lines, columns, of_lines)
        run_elsewhere(x, x_dot, w, kind, weight, z, elsewhere, lines, columns, of_others)
        assert np.array_equal(here, elsewhere) and np.all(here != 0.0)
        assert np.array_equal(of_lines, of_others) and np.all(of_lines != 0.0)


@pytest.mark.parametrize(
    "make_run, make_case",
    [(orbitals_and_messages, any_degree), (second_degree_orbitals_and_messages, SecondDegreeOrbitals)],
)
def test_machines_with_other_registers_get_the_same_bits_of_orbital_sums_and_messages(make_run, make_case):
    modules = dense, dense_of_another_machine()
    run, run_elsewhere = (make_run(m, numba.njit(fastmath=compiled.FASTMATH)) for m in modules)
    for (pairs, n_radial), moving in product_of(((1, 70), (5, 36), (14, 12), (23, 4), (9, 19)), (True, False)):
        here, elsewhere = (make_case(np.random.default_rng(pairs), pairs, n_radial, float, moving) for _ in range(2))
        run(here.i, moving, here.first, *here.arguments())
        run_elsewhere(elsewhere.i, moving, elsewhere.first, *elsewhere.arguments())
        for found, other, start in zip(here.found(), elsewhere.found(), (7, 7, 6, 6, 5, 5)):
            assert np.array_equal(found, other) and (np.any(found != start) or not moving)


jitted_orbitals_and_messages = orbitals_and_messages(dense, compile_loops)
jitted_second_degree_orbitals_and_messages = second_degree_orbitals_and_messages(dense, compile_loops)


def check_orbitals(run, case, tolerance):
    """Compare what a function leaves of a case with NumPy."""
    expected = case.expected()
    run(case.i, case.moving, case.first, *case.arguments())
    for found, value in zip(case.found(), expected):
        assert np.abs(found - value).max() < 10.0 * tolerance * max(10.0, np.abs(value).max())


@given(st.integers(0, 23), st.integers(1, 12), st.integers(1, 29), st.booleans(), PRECISIONS, seeds)
@example(21, 10, 29, True, (np.float64, 1e-13), 0)
@example(21, 5, 29, False, (np.float32, 3e-5), 0)
def test_orbital_sums_messages_and_their_tangents_are_those_of_numpy(
    pairs, n_monomials, n_radial, moving, precision, seed
):
    dtype, tolerance = precision
    case = Orbitals(np.random.default_rng(seed), pairs, n_monomials, n_radial, dtype, moving)
    check_orbitals(jitted_orbitals_and_messages, case, tolerance)


@given(st.integers(0, 23), st.integers(1, 29), st.booleans(), PRECISIONS, seeds)
@example(21, 29, True, (np.float64, 1e-13), 0)
@example(21, 29, False, (np.float32, 3e-5), 0)
def test_orbital_sums_and_messages_to_degree_2_are_those_of_numpy(pairs, n_radial, moving, precision, seed):
    dtype, tolerance = precision
    case = SecondDegreeOrbitals(np.random.default_rng(seed), pairs, n_radial, dtype, moving)
    check_orbitals(jitted_second_degree_orbitals_and_messages, case, tolerance)


@compile_loops
def jitted_squared_products(ahead, x, w, kind, weight, y):
    squared_products(dense.span(ahead), x, w, kind, weight, y)


@compile_loops
def jitted_scaled_product(x, w, factor, z, y):
    scaled_product(x, w, factor, z, y)


@given(st.integers(0, 21), st.integers(0, 4), st.integers(0, 9), st.integers(1, 100), PRECISIONS, seeds)
@example(15, 3, 8, 95, (np.float64, 1e-13), 0)
@example(15, 3, 8, 93, (np.float32, 3e-5), 0)
def test_squared_and_scaled_products_are_those_of_numpy(rows, monomials, inner, outer, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    # A part of wider rows, as those of one monomial are, and one more than counts.
    longer = rng.normal(size=(rows + 1, monomials + 1, 2, inner)).astype(dtype)[:, :, 1]
    x = longer[:rows]
    w, weight = rng.normal(size=(3, inner, outer)).astype(dtype), rng.normal(size=monomials + 1).astype(dtype)
    kind, z = rng.integers(0, 3, monomials + 1), rng.normal(size=(rows, outer)).astype(dtype)
    around = np.full((rows + 2, outer + 3), 7.0, dtype)
    found = around[1:-1, 1:-2]
    jitted_squared_products(w[0, :0], x, w, kind, weight, found)
    products = np.einsum("nai,aio->nao", x, w[kind])
    assert found == pytest.approx(np.einsum("a,nao->no", weight, products**2), rel=tolerance, abs=30 * tolerance)
    jitted_scaled_product(longer[:, 0], w[kind[0]], 2.5, z, found)
    assert found == pytest.approx(2.5 * z * products[:, 0], rel=tolerance, abs=3 * tolerance)
    found[:] = 7.0
    assert np.all(around == 7.0)


@compile_loops
def jitted_product_before(ahead, x, w, y, fresh):
    dense.product_before(dense.span(ahead), x, w, y, fresh)


@given(st.integers(0, 21), st.integers(0, 9), st.integers(1, 100), st.integers(0, 99), st.booleans(), PRECISIONS, seeds)
@example(20, 9, 96, 0, False, (np.float64, 1e-13), 0)
@example(21, 9, 95, 99, True, (np.float32, 3e-5), 0)
def test_what_products_ask_for_changes_no_bit(rows, inner, outer, asked, fresh, precision, seed):
    rng, (dtype, _) = np.random.default_rng(seed), precision
    x, w = rng.normal(size=(rows, 3, inner)).astype(dtype), rng.normal(size=(2, inner, outer)).astype(dtype)
    kind, weight, ahead = rng.integers(0, 2, 3), rng.normal(size=3).astype(dtype), np.ones((asked, 8), dtype)
    found, expected = (np.full((2, rows, outer), 7.0, dtype) for _ in range(2))
    jitted_product(x[:, 0], w[0], expected[0], fresh)
    jitted_product_before(ahead, x[:, 0], w[0], found[0], fresh)
    jitted_squared_products(ahead[:0], x, w, kind, weight, expected[1])
    jitted_squared_products(ahead, x, w, kind, weight, found[1])
    assert np.array_equal(found, expected)


def asking_products():
    """(product_before, squared_products) whose tiles count one more at every byte that they ask for."""

    def count_there(builder, address):
        before = builder.load(address)
        builder.store(builder.add(before, before.type(1)), address)

    module = anew(dense)
    product_before, squared_products, span = module.product_before, module.squared_products, module.span

    @numba.njit
    def products(ahead, x, w, y):
        product_before(span(ahead), x[:, 0], w[0], y, True)

    @numba.njit
    def squares(ahead, x, w, y):
        squared_products(span(ahead), x, w, np.zeros(x.shape[1], np.int64), np.ones(x.shape[1], x.dtype), y)

    with mock.patch.object(tiles, "prefetch", count_there):
        for dtype in (np.float64, np.float32):
            for function in (products, squares):
                function(np.zeros(0), np.zeros((0, 3, 1), dtype), np.zeros((1, 1, 1), dtype), np.zeros((0, 1), dtype))
    return products, squares


def test_tiles_ask_for_all_parts_in_turn_and_for_nothing_beyond():
    for function, (height, n_bytes), n_monomials in zip(
        asking_products(), (tiles.ASKING_PRODUCT, tiles.ASKING_SQUARES), (1, 3)
    ):
        for rows, outer, inner, size, dtype in product_of(
            (3, 13, 32), (31, 65, 96), (1, 8), (0, 7, 3000), (np.float64, np.float32)
        ):
            around = np.zeros(8 * size + 64, np.uint8)
            ahead, expected = around[32 : 32 + 8 * size].view(float), np.zeros_like(around)
            x, w = np.zeros((rows, 3, inner), dtype), np.ones((1, inner, outer), dtype)
            y = np.zeros((rows, outer), dtype)
            times = rows // height * (outer // (n_bytes // y.itemsize)) * inner * n_monomials
            if times > 0 and size > 0 and dense.LONG_VECTORS:
                step = min(ahead.nbytes // times, dense.MOST_AT_A_TIME)
                np.add.at(expected, 32 + step * np.arange(times), 1)
            function(ahead, x, w, y)
            assert np.array_equal(around, expected), (rows, outer, inner, size, dtype)


@compile_loops
def jitted_squared_product_tangent(x, x_dot, w, factor, y):
    add_squared_product_tangent(x, x_dot, w, factor, y)


@compile_loops
def jitted_scaled_product_tangent(x, x_dot, w, factor, z, z_dot, y, y_dot):
    scaled_product_tangent(x, x_dot, w, factor, z, z_dot, y, y_dot)


@given(st.integers(0, 13), st.integers(0, 9), st.integers(1, 60), PRECISIONS, seeds)
@example(7, 8, 31, (np.float64, 1e-13), 0)
@example(7, 8, 53, (np.float32, 3e-5), 0)
def test_derivatives_of_squared_and_scaled_products_are_those_of_numpy(rows, inner, outer, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    x, x_dot = rng.normal(size=(2, rows, inner, 2)).astype(dtype)[..., 1]
    w, (z, z_dot) = rng.normal(size=(inner, outer)).astype(dtype), rng.normal(size=(2, rows, outer)).astype(dtype)
    around = np.full((2, rows + 2, outer + 3), 7.0, dtype)
    found, found_dot = around[:, 1:-1, 1:-2]
    jitted_squared_product_tangent(x, x_dot, w, 2.5, found)
    assert found == pytest.approx(7.0 + 2.5 * (x @ w) * (x_dot @ w), rel=tolerance, abs=30 * tolerance)
    jitted_scaled_product_tangent(x, x_dot, w, 2.5, z, z_dot, found, found_dot)
    assert found == pytest.approx(2.5 * z * (x @ w), rel=tolerance, abs=10 * tolerance)
    expected = 2.5 * (z_dot * (x @ w) + z * (x_dot @ w))
    assert found_dot == pytest.approx(expected, rel=tolerance, abs=20 * tolerance)
    found[:] = found_dot[:] = 7.0
    assert np.all(around == 7.0)


@compile_loops
def jitted_scale_row(x, p, factor, z, n):
    scale_row(x, p, factor, z, n)


@given(st.integers(0, 13), st.integers(0, 4), st.integers(0, 4), seeds)
def test_operations_on_single_rows_are_those_of_numpy_for_every_length(columns, p, n, seed):
    x = np.random.default_rng(seed).normal(size=(5, columns))
    around = np.full((7, columns + 5), 7.0)
    jitted_scale_row(x, p, 2.5, around[1:-1, 2:-3], n)
    assert around[1 + n, 2:-3] == pytest.approx(2.5 * x[p], rel=1e-14)
    around[1 + n, 2:-3] = 7.0
    assert np.all(around == 7.0)


@compile_loops
def jitted_sum_of_rows(x, rows, begin, end, z, n):
    sum_of_rows(x, rows, begin, end, z, n)


@given(st.integers(0, 13), st.integers(0, 3), st.integers(0, 9), seeds)
def test_sums_of_rows_are_those_of_numpy_for_every_number_of_rows_and_length(columns, begin, count, seed):
    rng = np.random.default_rng(seed)
    x, rows = rng.normal(size=(5, columns)), rng.integers(0, 5, begin + count + 1).astype(np.int32)
    around = np.full((3, columns + 2), 7.0)
    jitted_sum_of_rows(x, rows, begin, begin + count, around[:, 1:-1], 1)
    assert around[1, 1:-1] == pytest.approx(7.0 + x[rows[begin : begin + count]].sum(axis=0), rel=1e-13, abs=1e-13)
    around[1, 1:-1] = 7.0
    assert np.all(around == 7.0)


@compile_loops
def jitted_monomials(x, x_dot, begin, end, parent, axis, z, z_dot):
    recursive_products(x, begin, end, parent, axis, z)
    recursive_products_tangent(x, x_dot, begin, end, parent, axis, z, z_dot)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 46), PRECISIONS, seeds)
def test_monomials_their_tangents_and_slopes_are_those_of_the_reference(max_degree, begin, pairs, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    end, tables = begin + pairs, Monomials(max_degree)
    x, x_dot = rng.normal(size=(2, 3, end + 1)).astype(dtype)
    z, z_dot = np.full((2, len(tables.parent), pairs + 2), 7.0, dtype)
    weighted, slopes = reference.monomials(x[:, begin:end].T.astype(float), max_degree)
    root = np.sqrt(tables.weight)
    value, slope = weighted / root, slopes / root[:, None]
    jitted_monomials(x, x_dot, begin, end, tables.parent, tables.axis, z, z_dot)
    assert z[:, :pairs] == pytest.approx(value.T, rel=tolerance, abs=tolerance)
    along = np.einsum("pax,xp->ap", slope, x_dot[:, begin:end])
    assert z_dot[:, :pairs] == pytest.approx(along, rel=tolerance, abs=20 * tolerance)
    assert all(np.all(array[:, pairs:] == 7.0) for array in (z, z_dot))
    for a, place_x in enumerate(tables.slope_place):
        for axis, d in enumerate(place_x):
            found = tables.slope_power[d] * value[:, tables.slope_of[d]] if d >= 0 else 0.0
            assert slope[:, a, axis] == pytest.approx(found, rel=1e-12, abs=1e-12)


def test_tiles_to_degree_2_have_the_order_of_the_tables():
    tables = Monomials(2)
    assert list(zip(tables.parent[1:], tables.axis[1:])) == list(SECOND_DEGREE)


@compile_loops
def jitted_sums_over_gaussians(begin, end, i, arrays):
    sums_over_gaussians(begin, end, i, arrays)


@compile_loops
def jitted_second_degree_sums_over_gaussians(begin, end, i, arrays):
    second_degree_sums_over_gaussians(begin, end, i, arrays)


def check_sums_over_gaussians(sums_of, max_degree, steps, pairs, n_radial, precision, seed, of_vectors=False):
    """Compare what ``sums_of(begin, end, i, arrays)`` leaves with NumPy.

    of_vectors : the arrays end with vectors, not with monomials and their slopes.
    """
    rng, (dtype, tolerance), tables = np.random.default_rng(seed), precision, Monomials(max_degree)
    n_atoms, begin, n_monomials = 4, 2, len(tables.parent)
    # Tiles fill in up to four columns at a time; others, and some pairs, come after them.
    end, i, columns = begin + pairs, 1, 4 * -(-pairs // 4) + 8
    neighbor = rng.integers(0, n_atoms, end + 8).astype(np.int32)
    species = rng.integers(0, 2, n_atoms)
    angular, slopes, sums_bar, coefficients, centers, exponents, distance, log_slope, radial = (
        rng.normal(size=size).astype(dtype)
        for size in (
            (n_monomials, columns), (tables.slope_of.size, columns), (steps + 1, n_atoms, n_monomials, n_radial),
            (steps + 1, n_atoms, n_radial), (2, n_radial), (2, n_radial), (1, columns), end + 8, (end + 8, n_radial),
        )
    )  # fmt: skip
    for array in (angular, slopes, distance):
        array[:, pairs:] = array[:, max(0, pairs - 1) : max(1, pairs)]
    sums = np.full((4, columns), 7.0, dtype)
    last = angular, slopes, tables.slope_place
    if of_vectors:
        last = vector, = rng.normal(size=(1, 3, end + 8)).astype(dtype)
        angular[0] = 1.0
        for a, (parent, axis) in enumerate(zip(tables.parent[1:], tables.axis[1:]), 1):
            angular[a, :pairs] = angular[parent, :pairs] * vector[axis, begin:end]
        slopes[:] = tables.slope_power[:, None] * angular[tables.slope_of]
    sums_of(
        begin, end, i,
        (radial, log_slope, distance, sums_bar, coefficients, neighbor, species, centers, exponents, sums, *last),
    )  # fmt: skip
    own, j = slice(begin, end), neighbor[begin:end]
    z_pak = np.einsum("tak,tpk->pak", sums_bar[:, i], coefficients[:, j])
    bar_pk = np.einsum("ap,pak->pk", angular[:, :pairs], z_pak)
    # Place -1, for a derivative that is zero everywhere, is the last row.
    slope_pxa = np.vstack([slopes, np.zeros(columns)])[:, :pairs][tables.slope_place.T].transpose(2, 0, 1)
    delta_pk = distance[0, :pairs, None] - centers[species[j]]
    slope_pk = radial[own] * (log_slope[own, None] - 2.0 * exponents[species[j]] * delta_pk)
    expected = [*np.einsum("pk,pxa,pak->xp", radial[own], slope_pxa, z_pak), np.sum(bar_pk * slope_pk, axis=1)]
    scale = tolerance * (10.0 + np.abs(expected).max(initial=0.0)) * n_monomials
    assert sums[:, :pairs] == pytest.approx(np.array(expected), abs=scale)
    if radial[0].nbytes in (32, 64):  # One tile has all Gaussians: where it goes on, no pair counts but the last.
        assert all(np.all(rest == 7.0) or np.array_equal(rest, sums[:, pairs - 1]) for rest in sums[:, pairs:].T)
    assert np.all(sums[:, columns - 8 :] == 7.0)


@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 13), st.integers(1, 29), PRECISIONS, seeds)
@example(3, 2, 5, 8, (np.float64, 1e-13), 0)
@settings(max_examples=200)
def test_sums_of_pair_gradients_are_those_of_numpy(max_degree, steps, pairs, n_radial, precision, seed):
    check_sums_over_gaussians(jitted_sums_over_gaussians, max_degree, steps, pairs, n_radial, precision, seed)


@given(st.integers(0, 4), st.integers(0, 13), st.integers(1, 29), PRECISIONS, seeds)
@example(2, 5, 8, (np.float64, 1e-13), 0)
@settings(max_examples=200)
def test_sums_of_pair_gradients_to_degree_2_are_those_of_numpy(steps, pairs, n_radial, precision, seed):
    sums_of = jitted_second_degree_sums_over_gaussians
    check_sums_over_gaussians(sums_of, 2, steps, pairs, n_radial, precision, seed, of_vectors=True)


def test_sums_of_pair_gradients_of_machines_with_other_registers_are_those_of_numpy():
    with mock.patch.object(dense, "LONG_VECTORS", not dense.LONG_VECTORS):
        elsewhere = anew(pair_gradients)
    assert elsewhere.LONG_VECTORS is not dense.LONG_VECTORS

    def in_numba(sums_over_gaussians):
        return numba.njit(lambda begin, end, i, arrays: sums_over_gaussians(begin, end, i, arrays))

    of_monomials, of_vectors = map(
        in_numba, (elsewhere.sums_over_gaussians, elsewhere.second_degree_sums_over_gaussians)
    )
    for precision, pairs, n_radial in product_of(((np.float64, 1e-13), (np.float32, 3e-5)), (1, 6, 11), (8, 15, 29)):
        check_sums_over_gaussians(of_monomials, 3, 2, pairs, n_radial, precision, 0)
        check_sums_over_gaussians(of_vectors, 2, 2, pairs, n_radial, precision, 0, of_vectors=True)


def jitted_pairs_in_tiles(make_tile, n_bytes, height):
    """Tiles of this width and height, whatever this machine takes, for all Gaussians at once."""
    tiles = pairs_in_tiles(make_tile, n_bytes, height)

    @numba.njit
    def sums_of(begin, end, i, arrays):
        tiles(begin, end, np.int64(0), i, True, arrays)

    return sums_of


#: Width in bytes and pairs of the tiles of machines with and without AVX-512.
TILES = {size: jitted_pairs_in_tiles(pair_tile, *size) for size in ((64, 4), (64, 1), (32, 4), (32, 2))}
SECOND_DEGREE_TILES = {
    size: jitted_pairs_in_tiles(second_degree_tile, *size) for size in ((64, 2), (64, 1), (32, 2), (32, 1))
}


@pytest.mark.parametrize("size", SECOND_DEGREE_TILES)
@given(st.integers(0, 3), st.integers(0, 9), PRECISIONS, seeds)
@settings(max_examples=25)
def test_tiles_of_degree_2_of_all_machines_are_those_of_numpy(size, steps, pairs, precision, seed):
    n_radial = size[0] // np.dtype(precision[0]).itemsize
    check_sums_over_gaussians(SECOND_DEGREE_TILES[size], 2, steps, pairs, n_radial, precision, seed, of_vectors=True)


@pytest.mark.parametrize("size", TILES)
@given(st.integers(0, 2), st.integers(0, 3), st.integers(0, 9), PRECISIONS, seeds)
@settings(max_examples=25)
def test_tiles_of_pair_gradients_of_all_machines_are_those_of_numpy(size, max_degree, steps, pairs, precision, seed):
    n_radial = size[0] // np.dtype(precision[0]).itemsize
    check_sums_over_gaussians(TILES[size], max_degree, steps, pairs, n_radial, precision, seed)


@compile_loops
def jitted_products_of_three_rows(x, begin, end, y, z, sums):
    products_of_three_rows(x, begin, end, y, z, sums)


@given(st.integers(0, 3), st.integers(0, 26), PRECISIONS, seeds)
def test_products_of_three_rows_are_those_of_numpy_in_double_precision(begin, count, precision, seed):
    rng, (dtype, _) = np.random.default_rng(seed), precision
    end = begin + count
    x, y = rng.normal(size=(2, 3, end + 1)).astype(dtype)
    z, sums = np.full((3, 3), 7.0), np.full(3, 7.0)
    jitted_products_of_three_rows(x, begin, end, y, z, sums)
    x, y = x[:, begin:end].astype(float), y[:, :count].astype(float)
    assert z == pytest.approx(x @ y.T, rel=1e-13, abs=1e-13)
    assert sums == pytest.approx(y.sum(axis=1), rel=1e-13, abs=1e-13)


@compile_loops
def jitted_columns_of_vectors(x, begin, end, y, distance, rows, factors, z):
    lengths(x, begin, end, distance)
    add_along(y, x, begin, end, distance, z)
    scaled_rows(y, rows, factors, end - begin, z[3:])


@given(st.integers(0, 3), st.integers(0, 46), PRECISIONS, seeds)
def test_lengths_what_is_added_along_vectors_and_multiples_of_rows_are_those_of_numpy(begin, count, precision, seed):
    rng, (dtype, tolerance) = np.random.default_rng(seed), precision
    x, y = (rng.normal(size=(n, begin + count + 1)).astype(dtype) for n in (3, 4))
    distance, z = np.full((1, count + 1), 7.0, dtype), np.full((5, count + 1), 7.0, dtype)
    rows, factors = np.array([3, 1]), np.array([0.5, -3.0], dtype)
    jitted_columns_of_vectors(x, begin, begin + count, y, distance, rows, factors, z)
    x, y = x[:, begin : begin + count].astype(float), y[:, :count].astype(float)
    length = np.linalg.norm(x, axis=0)
    assert distance[0, :count] == pytest.approx(length, rel=tolerance)
    assert z[:3, :count] == pytest.approx(y[:3] + y[3] * x / length, rel=tolerance, abs=20 * tolerance)
    assert z[3:, :count] == pytest.approx(factors[:, None] * y[rows], rel=tolerance)
    assert np.all(distance[:, count:] == 7.0) and np.all(z[:, count:] == 7.0)
