"""Pair gradients g_p = dE/dr_p from all recursion steps at once, and what they give to forces and virials.

With Bbar^t = dE/dB^t, the derivative of the energy with respect to A_a(r_p) R_k(r_p) in pair p: i->j is

    Z_pak = sum_t Bbar^t_iak c^t_jk,

whence Rbar_pk = sum_a A_a Z_pak = dE/dR_k and

    g_p = sum_k R_k sum_a Z_pak grad A_a + (sum_k Rbar_pk dR_k/dr + half of the repulsion's slope) r_p / r.

Z is never written to memory: some pairs are worked on together, one monomial after the other, with all that is summed
over a in registers.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.compiled import helper
from eann_lite.kernels.columns import products_of_three_rows
from eann_lite.kernels.dense import LONG_VECTORS
from eann_lite.kernels.geometry import length
from eann_lite.kernels.monomials import columns_of_pairs, monomial_slopes, monomials
from eann_lite.kernels.radial import slope_of
from eann_lite.kernels.repulsion import add_zbl_slopes
from eann_lite.kernels.vectors import (
    INDEX,
    address_of,
    at,
    element_of,
    index_at,
    line,
    multiply,
    multiply_add,
    opened,
    plus,
    repeated,
    rolled_range,
    sums_of_lanes,
)

#: The arrays that a tile takes, in this order.
ARRAYS = (
    "angular", "slopes", "place", "sums_bar", "coefficients", "neighbor", "species", "centers", "exponents", "distance",
    "log_slope", "radial", "radial_bar", "sums",
)  # fmt: skip


def _tile(pairs, n_bytes):
    """Intrinsic tile(p, c, o, i, fresh, keep, *arrays) for the pairs p:p+pairs of atom i.

    Of the Gaussians from o on that fill ``n_bytes`` (at least one), and of the columns c:c+pairs of what holds the pairs
    of an atom side by side: sums[x] = or (not fresh) += sum_k R_k sum_a Z_ak dA_a/dx and sums[3] likewise sum_k Rbar_k
    dR_k/dr; with ``keep`` radial_bar = Rbar, too.  slopes (D, ..) holds dA_a/dx in row place[a, x], none where that is
    negative.
    """

    @intrinsic
    def tile(
        typing_context, p, c, o, i, fresh, keep, angular, slopes, place, sums_bar, coefficients, neighbor, species,
        centers, exponents, distance, log_slope, radial, radial_bar, sums,
    ):  # fmt: skip
        arrays = (
            angular, slopes, place, sums_bar, coefficients, neighbor, species, centers, exponents, distance, log_slope,
            radial, radial_bar, sums,
        )  # fmt: skip

        def generate(context, builder, signature, arguments):
            p, c, o, i, fresh, keep = arguments[:6]
            kinds = dict(zip(ARRAYS, signature.args[6:]))
            given = dict(zip(ARRAYS, arguments[6:]))
            array = {name: opened(context, builder, kinds[name], given[name]) for name in ARRAYS}
            element, size = element_of(kinds["radial"])
            vector, n_bytes_each = ir.VectorType(element, max(1, n_bytes // size)), ir.Constant(INDEX, size)
            some = range(pairs)

            def row(name, *indices):
                """First byte of a row of numbers that stand side by side."""
                base, strides, _ = array[name]
                return address_of(builder, base, *zip(indices, strides))

            def load(start):
                """The numbers of Gaussians o on of the row that begins there."""
                return builder.load(at(builder, start, vector), align=4)

            def number(start, r):
                """Number r of those that begin there, in every lane."""
                address = builder.gep(start, [ir.Constant(INDEX, r * size)])
                return repeated(builder, builder.load(at(builder, address, element)), vector.count)

            def zeros():
                return [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in some]

            def add(total, a, b):
                builder.store(multiply_add(builder, a, b, builder.load(total)), total)

            # All that is the same for every monomial and step is found here: strides are not known to the compiler.
            gaussians, columns = (builder.mul(first, n_bytes_each) for first in (o, c))
            pair = [plus(builder, p, r) for r in some]
            other = [index_at(builder, array["neighbor"], kinds["neighbor"], n) for n in pair]
            own = builder.gep(row("sums_bar", i), [gaussians])
            theirs = [builder.gep(row("coefficients", ir.Constant(INDEX, 0), j), [gaussians]) for j in other]
            _, (_, a_stride, t_stride, _), (_, n_monomials, n_steps, _) = array["sums_bar"]
            along, bar = [zeros() for _ in range(3)], zeros()

            def add_monomials(a, count):
                """What monomials a to a + count add to bar and along."""
                starts = [address_of(builder, own, (plus(builder, a, n), a_stride)) for n in range(count)]
                z = [zeros() for _ in starts]
                with rolled_range(builder, n_steps) as step:
                    sums_bar = [load(address_of(builder, start, (step.index, t_stride))) for start in starts]
                    offset = builder.mul(step.index, array["coefficients"][1][0])
                    for r in some:
                        coefficients = load(builder.gep(theirs[r], [offset]))
                        for n in range(count):
                            add(z[n][r], sums_bar[n], coefficients)
                for n in range(count):
                    one, found = plus(builder, a, n), [builder.load(total) for total in z[n]]
                    values = builder.gep(row("angular", one), [columns])
                    for r in some:
                        add(bar[r], number(values, r), found[r])
                    for x in range(3):
                        place = builder.gep(row("place", one), [ir.Constant(INDEX, 8 * x)])
                        place = builder.load(at(builder, place, INDEX))
                        with builder.if_then(builder.icmp_signed(">=", place, ir.Constant(INDEX, 0))):
                            values = builder.gep(row("slopes", place), [columns])
                            for r in some:
                                add(along[x][r], number(values, r), found[r])

            # Two at a time, as each row of coefficients that is loaded then serves twice.
            zero, two = ir.Constant(INDEX, 0), ir.Constant(INDEX, 2)
            in_twos = builder.mul(builder.sdiv(n_monomials, two), two)
            with cgutils.for_range_slice(builder, zero, in_twos, two) as (a, _):
                add_monomials(a, 2)
            with builder.if_then(builder.icmp_signed("<", in_twos, n_monomials)):
                add_monomials(in_twos, 1)
            results = [[] for _ in range(4)]
            distances = builder.gep(row("distance"), [columns])
            for r in some:
                functions = load(builder.gep(row("radial", pair[r]), [gaussians]))
                s = index_at(builder, array["species"], kinds["species"], other[r])
                center, exponent = (load(builder.gep(row(name, s), [gaussians])) for name in ("centers", "exponents"))
                slope = slope_of(
                    builder, functions, center, exponent, number(distances, r), number(row("log_slope", p), r)
                )
                for x in range(3):
                    results[x].append(multiply(builder, functions, builder.load(along[x][r])))
                results[3].append(multiply(builder, builder.load(bar[r]), slope))
            with builder.if_then(keep):
                for r in some:
                    target = builder.gep(row("radial_bar", pair[r]), [gaussians])
                    builder.store(builder.load(bar[r]), at(builder, target, vector), align=4)
            for x, vectors in enumerate(results):
                total = sums_of_lanes(builder, vectors)
                target = builder.gep(row("sums", ir.Constant(INDEX, x)), [columns])
                target = at(builder, target, total.type)
                before = builder.select(fresh, ir.Constant(total.type, None), builder.load(target, align=4))
                builder.store(builder.fadd(before, total), target, align=4)
            return context.get_dummy_value()

        index, truth = types.intp, types.boolean
        return types.void(index, index, index, index, truth, truth, *arrays), generate

    return tile


def _gaussians(n_bytes, height):
    """Helper: tiles for all pairs of an atom, of the Gaussians from o on that are as wide as ``n_bytes``."""
    one = _tile(1, n_bytes)

    @helper
    def pair_by_pair(begin, end, o, i, fresh, *others):
        for p in range(begin, end):
            one(p, p - begin, o, i, fresh, *others)

    if height == 1:
        return pair_by_pair
    tall = _tile(height, n_bytes)

    @helper
    def pairs(begin, end, o, i, fresh, *others):
        p = begin
        while p + height <= end:
            tall(p, p - begin, o, i, fresh, *others)
            p += height
        if p < end and fresh and end - begin >= height:
            # Some pairs once more with the last ones is faster than those one by one.
            tall(end - height, end - height - begin, o, i, fresh, *others)
            p = end
        while p < end:
            one(p, p - begin, o, i, fresh, *others)
            p += 1

    return pairs


_line_of_gaussians = _gaussians(64, 4 if LONG_VECTORS else 1)
_half_of_gaussians = _gaussians(32, 4 if LONG_VECTORS else 2)
_one_gaussian = _gaussians(1, 1)


@helper
def _sums_over_gaussians(begin, end, i, keep, *arrays):
    """sums (4, ..) of the pairs begin to end of atom i, and radial_bar where ``keep``: see ``_tile``."""
    radial = arrays[11]
    o, n_radial, wide = np.int64(0), radial.shape[1], line(radial)
    while o + wide <= n_radial:
        _line_of_gaussians(begin, end, o, i, o == 0, keep, *arrays)
        o += wide
    while o + wide // 2 <= n_radial:
        _half_of_gaussians(begin, end, o, i, o == 0, keep, *arrays)
        o += wide // 2
    while o < n_radial:
        _one_gaussian(begin, end, o, i, o == 0, keep, *arrays)
        o += 1


@helper
def pair_gradients(start, stop, potential, batch, values, forces, virials):
    """pair_gradient (3, P) = g_p of the pairs of atoms start to stop; it may stand where the vectors stood.

    forces (N, 3) = sum_p g_p and virials (N, 3, 3) = sum_p r_p (x) g_p, symmetrised, of each atom.  Where values.slope
    has place, radial_bar = Rbar_pk is kept, too.
    """
    first, radial, vector, pair_gradient = batch.first, values.radial, values.vector, values.pair_gradient
    keep, n_monomials = values.slope.shape[0] > 0, potential.parent.size
    angular = columns_of_pairs(n_monomials, start, stop, first, radial)
    slopes = columns_of_pairs(potential.slope_of.size, start, stop, first, radial)
    distance, sums = columns_of_pairs(1, start, stop, first, radial), columns_of_pairs(4, start, stop, first, radial)
    products, total = np.empty((3, 3)), np.empty(3)
    for i in range(start, stop):
        begin, end = first[i], first[i + 1]
        monomials(i, potential, batch, values, angular)
        monomial_slopes(end - begin, potential, angular, slopes)
        for p in range(begin, end):
            distance[0, p - begin] = length(vector, p)
        _sums_over_gaussians(
            begin, end, i, keep, angular, slopes, potential.slope_place, values.sums_bar, values.coefficients,
            batch.neighbor, batch.species, potential.centers, potential.exponents, distance, values.log_slope, radial,
            values.radial_bar, sums,
        )  # fmt: skip
        for c in range(end - begin):
            sums[3, c] /= distance[0, c]
        if potential.repulsion_cutoff > 0.0:
            add_zbl_slopes(i, potential, batch, values, sums[3])
        for x in range(3):
            for c in range(end - begin):
                sums[x, c] += sums[3, c] * vector[x, begin + c]
        products_of_three_rows(vector, begin, end, sums, products, total)
        for x in range(3):
            forces[i, x] = total[x]
            for y in range(3):
                virials[i, x, y] = 0.5 * (products[x, y] + products[y, x])
            for p in range(begin, end):
                pair_gradient[x, p] = sums[x, p - begin]


@helper
def subtract_reversed(start, stop, batch, values, forces):
    """forces (N, 3) -= sum_p g_rev(p) of each atom, after ``pair_gradients``."""
    first, reverse, gradient = batch.first, batch.reverse, values.pair_gradient
    for i in range(start, stop):
        # In double precision as the forces are, whatever that of the gradients.
        x, y, z = forces[i, 0], forces[i, 1], forces[i, 2]
        for p in range(first[i], first[i + 1]):
            q = reverse[p]
            x, y, z = x - gradient[0, q], y - gradient[1, q], z - gradient[2, q]
        forces[i, 0], forces[i, 1], forces[i, 2] = x, y, z
