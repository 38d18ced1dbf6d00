"""Tiles of pair gradients: what some pairs of one atom take from all recursion steps, summed in registers.

The formulas stand in ``pair_gradients``.  Z_pak is never written to memory: some pairs are worked on together, two
monomials at a time, with all that is summed over a in registers, or to degree 2 all ten.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.kernels.radial import radial_slope
from eann_lite.kernels.second_degree import N_MONOMIALS, polynomial_and_slopes
from eann_lite.kernels.vectors import (
    AHEAD,
    COEFFICIENTS_AHEAD,
    IN_SECOND_CACHE,
    INDEX,
    address_of,
    at,
    element_of,
    first_lanes,
    index_at,
    lane_sums_of_each,
    load,
    multiply,
    multiply_add,
    opened,
    plus,
    prefetch,
    repeated,
    rolled_range,
)

#: The arrays that all tiles take, in this order; those that only some take follow.
ARRAYS = (
    "radial", "log_slope", "distance", "sums_bar", "coefficients", "neighbor", "species", "centers", "exponents",
    "sums",
)  # fmt: skip


def pair_tile(pairs, n_bytes, whole=True):
    """Intrinsic tile(p, last, c, o, i, fresh, arrays) for the pairs p:p+pairs of atom i, of which ``last`` is the last.

    Of the Gaussians from o on that fill ``n_bytes`` (not ``whole``: up to the last one, which may be fewer), and of the
    columns c:c+pairs of what holds the pairs of one atom side by side: sums[x] = or (not fresh) += sum_k R_k sum_a Z_ak
    dA_a/dx and sums[3] likewise sum_k Rbar_k dR_k/dr.  All arrays have these columns, also where they go past that of
    the last pair: what is put there nobody reads.

    The last arrays are angular, slopes and slope_place: slopes (D, ..) holds dA_a/dx in row slope_place[a, x], none
    where that is negative.
    """
    return _tile_of(_AnyDegree, pairs, n_bytes, whole)


def second_degree_tile(pairs, n_bytes, whole=True):
    """The same for monomials to degree 2; the last array is vector (3, P), of which they are made."""
    return _tile_of(_SecondDegree, pairs, n_bytes, whole)


def _tile_of(code, pairs, n_bytes, whole):
    @intrinsic
    def tile(typing_context, p, last, c, o, i, fresh, arrays):
        def generate(context, builder, signature, values):
            code(context, builder, arrays, values, (pairs, n_bytes, whole)).write()
            return context.get_dummy_value()

        index, truth = types.intp, types.boolean
        return types.void(index, index, index, index, index, truth, arrays), generate

    return tile


class _TileCode:
    """Writes the LLVM code of one tile: ``write``.

    Subclasses say how ``along`` and ``radial_bar`` are summed over monomials, from ``own_arrays``, which come last.
    """

    def __init__(self, context, builder, kinds, values, size_of_tile):
        pairs, n_bytes, whole = size_of_tile
        self.builder, self.some = builder, range(pairs)
        p, last, c, o, i, self.fresh, arrays = values
        names = ARRAYS + self.own_arrays
        self.kinds = dict(zip(names, kinds))
        self.arrays = {
            name: opened(context, builder, self.kinds[name], array)
            for name, array in zip(names, cgutils.unpack_tuple(builder, arrays))
        }
        self.element, self.size = element_of(self.kinds["radial"])
        self.vector = ir.VectorType(self.element, n_bytes // self.size)
        n_left = builder.sub(self.arrays["radial"][2][1], o)
        self.mask = None if whole else first_lanes(builder, self.vector.count, n_left)
        # All that is the same for every monomial and step is found here: strides are not known to the compiler.
        size = ir.Constant(INDEX, self.size)
        self.gaussians, self.columns = builder.mul(o, size), builder.mul(c, size)
        # The last pair counts for those that are not there, whose columns nobody reads.
        self.pairs = [p, *(self._at_most(plus(builder, p, r), last) for r in self.some[1:])]
        self.others = [self._index("neighbor", pair) for pair in self.pairs]
        self.own = self._gaussians_of("sums_bar", ir.Constant(INDEX, 0), i)
        self.theirs = [self._gaussians_of("coefficients", ir.Constant(INDEX, 0), other) for other in self.others]
        #: Sums over monomials: sum_a Z_ak dA_a/dx of every pair for each x, and Rbar_k of every pair.
        self.along, self.radial_bar = [self._zeros() for _ in range(3)], self._zeros()

    def write(self):
        """Code of the whole tile."""
        self._ask_for_next()
        self._add_all_monomials()
        self._store_sums()

    def _ask_for_next(self):
        """Ask for the coefficients of later pairs, where those of all do not stay in the second cache."""
        builder, (_, strides, shape) = self.builder, self.arrays["coefficients"]
        last = plus(builder, self.arrays["neighbor"][2][0], -1)
        many = builder.icmp_signed(">", builder.mul(shape[0], strides[0]), ir.Constant(INDEX, IN_SECOND_CACHE))
        with builder.if_then(many):
            rows = []
            for pair in self.pairs:
                after = self._at_most(plus(builder, pair, COEFFICIENTS_AHEAD), last)
                rows.append(self._gaussians_of("coefficients", ir.Constant(INDEX, 0), self._index("neighbor", after)))
            with rolled_range(builder, shape[0]) as step:
                for row in rows:
                    prefetch(builder, address_of(builder, row, (step.index, strides[0])))

    def _z(self, monomials):
        """Z_pak = sum_t Bbar^t_iak c^t_jk of some monomials: for each a list of vectors, one for every pair."""
        builder, (_, strides, shape) = self.builder, self.arrays["sums_bar"]
        starts = [address_of(builder, self.own, (a, strides[2])) for a in monomials]
        z = [self._zeros() for _ in monomials]
        with rolled_range(builder, shape[0]) as step:
            sums_bar = [self._load(address_of(builder, start, (step.index, strides[0]))) for start in starts]
            offset = builder.mul(step.index, self.arrays["coefficients"][1][0])
            for r in self.some:
                coefficients = self._load(builder.gep(self.theirs[r], [offset]))
                for totals, factor in zip(z, sums_bar):
                    self._add(totals[r], factor, coefficients)
        return [[builder.load(total) for total in totals] for totals in z]

    def _store_sums(self):
        """sums (4, ..) of the pairs: the lanes are added up last."""
        builder, vectors = self.builder, [[] for _ in range(4)]
        distances = self._columns_of("distance", ir.Constant(INDEX, 0))
        for r in self.some:
            prefetch(builder, self._gaussians_of("radial", plus(builder, self.pairs[r], AHEAD)))
            radial = self._load(self._gaussians_of("radial", self.pairs[r]))
            s = self._index("species", self.others[r])
            centers, exponents = (self._load(self._gaussians_of(name, s)) for name in ("centers", "exponents"))
            slope = radial_slope(
                builder, radial, centers, exponents, self._number(distances, r),
                self._number(self._row("log_slope", self.pairs[r]), 0),
            )
            for x in range(3):
                vectors[x].append(multiply(builder, radial, builder.load(self.along[x][r])))
            vectors[3].append(multiply(builder, builder.load(self.radial_bar[r]), slope))
        for x, of_pairs in enumerate(vectors):
            total = lane_sums_of_each(builder, of_pairs)
            place = at(builder, self._columns_of("sums", ir.Constant(INDEX, x)), total.type)
            before = builder.select(self.fresh, ir.Constant(total.type, None), builder.load(place, align=4))
            builder.store(builder.fadd(before, total), place, align=4)

    def _at_most(self, index, last):
        return self.builder.select(self.builder.icmp_signed("<", index, last), index, last)

    def _row(self, name, *indices):
        """First byte of a row of numbers that stand side by side."""
        base, strides, _ = self.arrays[name]
        return address_of(self.builder, base, *zip(indices, strides))

    def _gaussians_of(self, name, *indices):
        """Where the Gaussians from o on stand in that row."""
        return self.builder.gep(self._row(name, *indices), [self.gaussians])

    def _columns_of(self, name, row):
        """Where the columns from c on stand in that row."""
        return self.builder.gep(self._row(name, row), [self.columns])

    def _index(self, name, *indices):
        """A number of an array of whole numbers."""
        *rows, last = indices
        return index_at(self.builder, self._row(name, *rows), self.kinds[name], last)

    def _load(self, start):
        """The vector of Gaussians that begins there."""
        return load(self.builder, at(self.builder, start, self.vector), self.mask)

    def _number(self, start, r):
        """Number r of those that begin there, in every lane."""
        address = self.builder.gep(start, [ir.Constant(INDEX, r * self.size)])
        return repeated(self.builder, self.builder.load(at(self.builder, address, self.element)), self.vector.count)

    def _zeros(self):
        """A sum that is still zero for every pair."""
        return [cgutils.alloca_once_value(self.builder, ir.Constant(self.vector, None)) for _ in self.some]

    def _add(self, total, a, b):
        self.builder.store(multiply_add(self.builder, a, b, self.builder.load(total)), total)


class _AnyDegree(_TileCode):
    """Monomials and their slopes are read."""

    own_arrays = "angular", "slopes", "slope_place"

    def _add_all_monomials(self):
        builder, n_monomials, two = self.builder, self.arrays["sums_bar"][2][2], ir.Constant(INDEX, 2)
        # Two at a time, as each row of coefficients that is loaded then serves twice.
        in_twos = builder.mul(builder.sdiv(n_monomials, two), two)
        with cgutils.for_range_slice(builder, ir.Constant(INDEX, 0), in_twos, two) as (a, _):
            self._add_monomials(a, 2)
        with builder.if_then(builder.icmp_signed("<", in_twos, n_monomials)):
            self._add_monomials(in_twos, 1)

    def _add_monomials(self, first, count):
        """What the monomials from ``first`` on, ``count`` of them, add to all sums."""
        monomials = [plus(self.builder, first, n) for n in range(count)]
        for a, z in zip(monomials, self._z(monomials)):
            self._add_products("angular", a, z, self.radial_bar)
            for x in range(3):
                place = self._index("slope_place", a, ir.Constant(INDEX, x))
                with self.builder.if_then(self.builder.icmp_signed(">=", place, ir.Constant(INDEX, 0))):
                    self._add_products("slopes", place, z, self.along[x])

    def _add_products(self, name, row, z, totals):
        """totals += z times the numbers of the pairs in a row of the array ``name``."""
        start = self._columns_of(name, row)
        for r in self.some:
            self._add(totals[r], self._number(start, r), z[r])


class _SecondDegree(_TileCode):
    """All ten Z_a of a pair are in registers, the coefficients of a polynomial: ``second_degree``."""

    own_arrays = ("vector",)

    def _add_all_monomials(self):
        z_of_all = self._z([ir.Constant(INDEX, a) for a in range(N_MONOMIALS)])
        axes = [ir.Constant(INDEX, axis) for axis in range(3)]
        for r in self.some:
            vector = [self._number(self._row("vector", axis, self.pairs[r]), 0) for axis in axes]
            radial_bar, along = polynomial_and_slopes(self.builder, [z[r] for z in z_of_all], vector)
            self.builder.store(radial_bar, self.radial_bar[r])
            for total, value in zip(self.along, along):
                self.builder.store(value, total[r])
