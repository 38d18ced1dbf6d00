"""Polynomials to degree 2 in the vector (x, y, z) of a pair, as pieces of LLVM code: all ten terms are in registers.

    P = c_1 + x X + y Y + z Z,   X = c_x + c_xx x + c_xy y + c_xz z,   Y = c_y + c_yy y + c_yz z,   Z = c_z + c_zz z

takes nine multiply-adds, and its derivatives X + c_xx x, Y + c_yy y + c_xy x and Z + c_zz z + c_xz x + c_yz y take six
more.  Nothing needs to be made of the vector first, and three numbers of each pair are loaded, not ten monomials or,
with their slopes, 22.
"""

from eann_lite.kernels.vectors import multiply, multiply_add

#: (parent, axis) of the monomials of degree 1 and 2, as tables of ``model.sweeps.Monomials`` have them.
SECOND_DEGREE = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 2))
#: 1 and these.
N_MONOMIALS = 1 + len(SECOND_DEGREE)


def sum_of_products(builder, start, *terms):
    """start plus the products of all terms."""
    for a, b in terms:
        start = multiply_add(builder, a, b, start)
    return start


def _brackets(builder, coefficients, vector):
    _, c_x, c_y, c_z, c_xx, c_xy, c_xz, c_yy, c_yz, c_zz = coefficients
    x, y, z = vector
    return (
        sum_of_products(builder, c_x, (c_xx, x), (c_xy, y), (c_xz, z)),
        sum_of_products(builder, c_y, (c_yy, y), (c_yz, z)),
        sum_of_products(builder, c_z, (c_zz, z)),
    )


def polynomial(builder, coefficients, vector):
    """P from its ten coefficients, in the order of the monomials, and the three components of the vector."""
    return sum_of_products(builder, coefficients[0], *zip(_brackets(builder, coefficients, vector), vector))


def polynomial_and_slopes(builder, coefficients, vector):
    """P and (dP/dx, dP/dy, dP/dz)."""
    _, _, _, _, c_xx, c_xy, c_xz, c_yy, c_yz, c_zz = coefficients
    (of_x, of_y, of_z), (x, y, z) = _brackets(builder, coefficients, vector), vector
    slopes = (
        sum_of_products(builder, of_x, (c_xx, x)),
        sum_of_products(builder, of_y, (c_yy, y), (c_xy, x)),
        sum_of_products(builder, of_z, (c_zz, z), (c_xz, x), (c_yz, y)),
    )
    return sum_of_products(builder, coefficients[0], (of_x, x), (of_y, y), (of_z, z)), slopes


def add_products(builder, totals, number, vector):
    """totals (places of ten vectors) += number times each of the ten monomials."""
    along = [multiply(builder, number, component) for component in vector]
    for total, product in zip(totals, (number, *along)):
        builder.store(builder.fadd(builder.load(total), product), total)
    for total, (parent, axis) in zip(totals[4:], SECOND_DEGREE[3:]):
        builder.store(multiply_add(builder, along[parent - 1], vector[axis], builder.load(total)), total)


def add_product_tangents(builder, totals, number, number_dot, vector, vector_dot):
    """totals += the derivatives of number times each of the ten monomials."""
    along = [multiply(builder, number, component) for component in vector]
    along_dot = [
        multiply_add(builder, number_dot, component, multiply(builder, number, component_dot))
        for component, component_dot in zip(vector, vector_dot)
    ]
    for total, product_dot in zip(totals, (number_dot, *along_dot)):
        builder.store(builder.fadd(builder.load(total), product_dot), total)
    for total, (parent, axis) in zip(totals[4:], SECOND_DEGREE[3:]):
        changed = multiply_add(builder, along[parent - 1], vector_dot[axis], builder.load(total))
        builder.store(multiply_add(builder, along_dot[parent - 1], vector[axis], changed), total)
