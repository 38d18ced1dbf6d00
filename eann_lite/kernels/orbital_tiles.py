"""Tiles of orbital sums and messages of an atom, and of their tangents.

They are as ``tiles`` says, with product i for atom i.  Its pairs p: i->j are first[i] to first[i + 1], and column c of
angular (A, ..), which holds the monomials A_a of its pairs alone, belongs to pair first[i] + c.  Pair p has R_k(r_p) in
row p of radial (P, K), and distance, log_slope (f_c'/f_c) and distance_dot (P,); its neighbour is j = neighbor[p] of
element species[j], whose r_k and alpha_k stand in centers and exponents (S, K).  All arrays are contiguous, so rows of
Gaussians are equally far apart, and one multiplication finds a row of any of them.  Tiles to degree 2 take the vectors
(3, P) of pairs in place of monomials.

Tangents of radial functions are made in registers, not kept: they would take as much memory as the radial functions,
when what a gradient works on is more than the caches hold, and reading them would take as long.
"""

from typing import NamedTuple

from llvmlite import ir

from eann_lite.kernels.radial import parameter_tangents, relative_slope
from eann_lite.kernels.second_degree import (
    add_product_tangents,
    add_products,
    polynomial,
    polynomial_and_slopes,
    sum_of_products,
)
from eann_lite.kernels.tiles import tile_maker
from eann_lite.kernels.vectors import (
    AHEAD,
    INDEX,
    address_of,
    at,
    multiply,
    multiply_add,
    plus,
    prefetch,
    rolled_range,
)

#: Monomial 0 is 1, and its tangent 0: messages begin with what it is multiplied by, and do not read its row.
MONOMIAL_ONE = ir.Constant(INDEX, 0)


class _Rows:
    """Rows of Gaussians, for the columns of a tile."""

    def __init__(self, tile, like):
        self.tile, (self.stride, _) = tile, like.strides

    def load(self, array, index):
        """What stands in a row of an array (n, K)."""
        return self.tile.load(array, index, strides=(self.stride,))

    def change(self, array, index, changed):
        """Put changed(it) in place of what stands there."""
        self.tile.store(changed(self.load(array, index)), array, index, strides=(self.stride,))

    def number(self, array, p):
        """Number p of a one-dimensional array, in every lane."""
        builder, tile = self.tile.builder, self.tile
        return tile.in_every_lane(builder.load(builder.gep(at(builder, array.base, tile.element), [p])))

    def vector(self, array, p):
        """The components of column p of an array (3, P), each in every lane."""
        builder, (stride, _) = self.tile.builder, array.strides
        rows = [address_of(builder, array.base, (ir.Constant(INDEX, axis), stride)) for axis in range(3)]
        return [self.number(array._replace(base=row), p) for row in rows]

    def of_atom(self, array):
        """The rows of an array (N, A, K) that belong to the atom, as one (A, K)."""
        builder = self.tile.builder
        base = address_of(builder, array.base, (self.tile.atom, array.strides[0]))
        return array._replace(base=base, strides=array.strides[1:], shape=array.shape[1:])


def _pairs_of_atom(tile, first):
    """The first pair of the atom, and how many there are."""
    begin = tile.chosen(first, tile.atom)
    return begin, tile.builder.sub(tile.chosen(first, plus(tile.builder, tile.atom, 1)), begin)


@tile_maker
def orbital_sums_tile(tile, y, angular, first, radial, neighbor, coefficients):
    """B_iak = sum_p A_a(r_p) R_k(r_p) c_jk, in y (N, A, K); coefficients (N, K)."""
    builder, sums, rows, (begin, n_pairs) = tile.builder, tile.zeros(), _Rows(tile, radial), _pairs_of_atom(tile, first)
    angular_rows = [address_of(builder, angular.base, (tile.index(a), angular.strides[0])) for a in tile.some]
    with rolled_range(builder, n_pairs) as loop:
        p = builder.add(begin, loop.index)
        prefetch(builder, tile.address(radial, plus(builder, p, AHEAD)))
        orbital = multiply(builder, rows.load(radial, p), rows.load(coefficients, tile.chosen(neighbor, p)))
        for row, total in zip(angular_rows, sums):
            tile.add(total, tile.number(address_of(builder, row, (loop.index, angular.strides[1]))), orbital)
    found = rows.of_atom(y)
    for a, value in enumerate(tile.sums(sums)):
        tile.store(value, found, tile.index(a))


@tile_maker
def second_degree_sums_tile(tile, y, vector, first, radial, neighbor, coefficients):
    """The same to degree 2, with all ten rows in a tile; vector (3, P)."""
    builder, sums, rows, (begin, n_pairs) = tile.builder, tile.zeros(), _Rows(tile, radial), _pairs_of_atom(tile, first)
    with rolled_range(builder, n_pairs) as loop:
        p = builder.add(begin, loop.index)
        prefetch(builder, tile.address(radial, plus(builder, p, AHEAD)))
        orbital = multiply(builder, rows.load(radial, p), rows.load(coefficients, tile.chosen(neighbor, p)))
        add_products(builder, sums, orbital, rows.vector(vector, p))
    found = rows.of_atom(y)
    for a, value in enumerate(tile.sums(sums)):
        tile.store(value, found, tile.index(a))


@tile_maker
def messages_tile(tile, sums_bar, angular, first, radial, rows_of_pairs, message):
    """message[rows_of_pairs[p]] += R_k S_pk, where S_pk = sum_a A_a(r_p) Bbar_iak; sums_bar (N, A, K)."""
    builder, rows = tile.builder, _Rows(tile, radial)
    own, begin = rows.of_atom(sums_bar), builder.sub(tile.first, tile.chosen(first, tile.atom))
    sums = tile.sums_from(rows.load(own, MONOMIAL_ONE))
    with rolled_range(builder, angular.shape[0], 1) as loop:
        tile.add_column(sums, tile.column_of(angular, begin, loop.index), rows.load(own, loop.index))
    for r, s in enumerate(tile.sums(sums)):
        p = tile.index(r)
        prefetch(builder, tile.address(radial, plus(builder, p, AHEAD)))
        factor = rows.load(radial, p)
        rows.change(message, tile.chosen(rows_of_pairs, p), lambda before: multiply_add(builder, factor, s, before))


@tile_maker
def second_degree_messages_tile(tile, sums_bar, vector, first, radial, rows_of_pairs, message):
    """``messages_tile`` to degree 2, for all pairs of the atom, with all ten rows of sums_bar in a tile."""
    builder, rows, (begin, n_pairs) = tile.builder, _Rows(tile, radial), _pairs_of_atom(tile, first)
    own = rows.of_atom(sums_bar)
    coefficients = [rows.load(own, ir.Constant(INDEX, a)) for a in tile.some]
    with rolled_range(builder, n_pairs) as loop:
        p = builder.add(begin, loop.index)
        prefetch(builder, tile.address(radial, plus(builder, p, AHEAD)))
        s, factor = polynomial(builder, coefficients, rows.vector(vector, p)), rows.load(radial, p)
        rows.change(message, tile.chosen(rows_of_pairs, p), lambda before: multiply_add(builder, factor, s, before))


class _MovingPair:
    """What the Gaussians of a tile have for one pair."""

    def __init__(self, rows, p, pairs):
        radial, distance, self.distance_dot, self.log_slope, neighbor, species, centers, self.exponents = pairs
        self.tile, self.rows, self.p = rows.tile, rows, p
        self.neighbor = self.tile.chosen(neighbor, p)
        self.element = self.tile.chosen(species, self.neighbor)
        prefetch(self.tile.builder, self.tile.address(radial, plus(self.tile.builder, p, AHEAD)))
        self.radial = rows.load(radial, p)
        #: r - r_k
        self.d = self.tile.builder.fsub(rows.number(distance, p), rows.load(centers, self.element))

    def r_dot(self):
        """How fast the pair grows, in every lane."""
        return self.rows.number(self.distance_dot, self.p)

    def relative_tangent(self, r_dot):
        """R_k_dot / R_k."""
        builder, exponents = self.tile.builder, self.rows.load(self.exponents, self.element)
        log_slope = self.rows.number(self.log_slope, self.p)
        return multiply(builder, relative_slope(builder, self.d, exponents, log_slope), r_dot)


def _orbital_and_tangent(rows, p, coefficients, coefficients_dot, pairs):
    """R_k c_jk and its tangent."""
    builder, pair = rows.tile.builder, _MovingPair(rows, p, pairs)
    orbital = multiply(builder, pair.radial, rows.load(coefficients, pair.neighbor))
    changed = multiply(builder, pair.radial, rows.load(coefficients_dot, pair.neighbor))
    return orbital, multiply_add(builder, pair.relative_tangent(pair.r_dot()), orbital, changed)


@tile_maker
def orbital_sums_tangent_tile(tile, y, angular, angular_dot, first, coefficients, coefficients_dot, *pairs):
    """Tangents of ``orbital_sums_tile``.

    Pairs: radial, distance, distance_dot, log_slope, neighbor, species, centers, exponents.
    """
    builder, sums, rows = tile.builder, tile.zeros(), _Rows(tile, coefficients)
    begin, n_pairs = _pairs_of_atom(tile, first)
    with rolled_range(builder, n_pairs) as loop:
        p = builder.add(begin, loop.index)
        orbital, orbital_dot = _orbital_and_tangent(rows, p, coefficients, coefficients_dot, pairs)
        for a, total in enumerate(sums):
            for array, factor in ((angular_dot, orbital), (angular, orbital_dot)):
                steps = zip((tile.index(a), loop.index), array.strides)
                tile.add(total, tile.number(address_of(builder, array.base, *steps)), factor)
    found = rows.of_atom(y)
    for a, value in enumerate(tile.sums(sums)):
        tile.store(value, found, tile.index(a))


@tile_maker
def second_degree_sums_tangent_tile(tile, y, vector, vector_dot, first, coefficients, coefficients_dot, *pairs):
    """The same to degree 2, with all ten rows in a tile; vector and vector_dot (3, P)."""
    builder, sums, rows = tile.builder, tile.zeros(), _Rows(tile, coefficients)
    begin, n_pairs = _pairs_of_atom(tile, first)
    with rolled_range(builder, n_pairs) as loop:
        p = builder.add(begin, loop.index)
        orbital_and_tangent = _orbital_and_tangent(rows, p, coefficients, coefficients_dot, pairs)
        moving = (rows.vector(array, p) for array in (vector, vector_dot))
        add_product_tangents(builder, sums, *orbital_and_tangent, *moving)
    found = rows.of_atom(y)
    for a, value in enumerate(tile.sums(sums)):
        tile.store(value, found, tile.index(a))


class _PassedBack(NamedTuple):
    """What tangents of messages take for pairs, after monomials or vectors, and write."""

    first: object
    coefficients: object
    coefficients_dot: object
    rows_of_pairs: object
    message_dot: object
    exponents_bar_dot: object
    centers_bar_dot: object
    moving: object

    def add(self, rows, p, pairs, s, s_dot):
        """What pair p passes back with S_pk and its tangent; without S_pk atoms stand still."""
        builder, pair = rows.tile.builder, _MovingPair(rows, p, pairs)
        c, message = rows.load(self.coefficients, pair.neighbor), multiply(builder, pair.radial, s_dot)
        if s is None:
            r_dot, q, q_dot = None, None, multiply(builder, c, message)
        else:
            r_dot, still = pair.r_dot(), multiply(builder, pair.radial, s)
            message = multiply_add(builder, pair.relative_tangent(r_dot), still, message)
            changed = multiply(builder, rows.load(self.coefficients_dot, pair.neighbor), still)
            q, q_dot = multiply(builder, c, still), multiply_add(builder, c, message, changed)
        row = rows.tile.chosen(self.rows_of_pairs, p)
        rows.change(self.message_dot, row, lambda before: builder.fadd(before, message))
        along, both, d = *parameter_tangents(builder, pair.d, q, q_dot, r_dot), builder.fneg(pair.d)
        rows.change(self.centers_bar_dot, pair.element, lambda before: builder.fadd(before, along))
        rows.change(self.exponents_bar_dot, pair.element, lambda before: multiply_add(builder, d, both, before))


@tile_maker
def messages_tangent_tile(tile, sums_bar, sums_bar_dot, angular, angular_dot, *others):
    """Tangents of ``messages_tile``, and of what pairs pass back to alpha_k and r_k of the neighbour's element.

    With q = R_k c_jk S_pk and d = r_p - r_k: centers_bar_dot (S, K) += the tangent of d q, exponents_bar_dot that of
    -d^2 q.  Without ``moving`` the tangents but sums_bar_dot, which nobody reads, count as 0.

    Others: first, coefficients, coefficients_dot, rows_of_pairs, message_dot, exponents_bar_dot, centers_bar_dot,
    moving, and pairs as above.
    """
    back, pairs = _PassedBack(*others[:8]), others[8:]
    builder, rows = tile.builder, _Rows(tile, back.coefficients)
    own, own_dot = rows.of_atom(sums_bar), rows.of_atom(sums_bar_dot)
    begin = builder.sub(tile.first, tile.chosen(back.first, tile.atom))
    with builder.if_else(back.moving) as (all_move, few_move):
        with all_move:
            sums, sums_dot = (tile.sums_from(rows.load(array, MONOMIAL_ONE)) for array in (own, own_dot))
            with rolled_range(builder, angular.shape[0], 1) as loop:
                row, row_dot = rows.load(own, loop.index), rows.load(own_dot, loop.index)
                start, start_dot = (tile.column_of(array, begin, loop.index) for array in (angular, angular_dot))
                tile.add_column(sums, start, row)
                tile.add_column(sums_dot, start, row_dot)
                tile.add_column(sums_dot, start_dot, row)
            for r, (s, s_dot) in enumerate(zip(tile.sums(sums), tile.sums(sums_dot))):
                back.add(rows, tile.index(r), pairs, s, s_dot)
        with few_move:
            sums_dot = tile.sums_from(rows.load(own_dot, MONOMIAL_ONE))
            with rolled_range(builder, angular.shape[0], 1) as loop:
                tile.add_column(sums_dot, tile.column_of(angular, begin, loop.index), rows.load(own_dot, loop.index))
            for r, s_dot in enumerate(tile.sums(sums_dot)):
                back.add(rows, tile.index(r), pairs, None, s_dot)


@tile_maker
def second_degree_messages_tangent_tile(tile, sums_bar, sums_bar_dot, vector, vector_dot, *others):
    """The same to degree 2, for all pairs of the atom, with all ten rows of sums_bar and its tangent in a tile."""
    back, pairs = _PassedBack(*others[:8]), others[8:]
    builder, rows, (begin, n_pairs) = tile.builder, _Rows(tile, back.coefficients), _pairs_of_atom(tile, back.first)
    own, own_dot = (
        [rows.load(of_atom, ir.Constant(INDEX, a)) for a in tile.some]
        for of_atom in map(rows.of_atom, (sums_bar, sums_bar_dot))
    )
    with builder.if_else(back.moving) as (all_move, few_move):
        with all_move, rolled_range(builder, n_pairs) as loop:
            p = builder.add(begin, loop.index)
            x, x_dot = (rows.vector(array, p) for array in (vector, vector_dot))
            s, slopes = polynomial_and_slopes(builder, own, x)
            s_dot = sum_of_products(builder, polynomial(builder, own_dot, x), *zip(slopes, x_dot))
            back.add(rows, p, pairs, s, s_dot)
        with few_move, rolled_range(builder, n_pairs) as loop:
            p = builder.add(begin, loop.index)
            back.add(rows, p, pairs, None, polynomial(builder, own_dot, rows.vector(vector, p)))
