"""Radial functions of one pair as rows of K Gaussians, R_k(r) = exp(-alpha_k (r - r_k)^2) f_c(r), and their slopes

    dR_k/dr = R_k [f_c'/f_c - 2 alpha_k (r - r_k)],

as explicit vectors: see ``kernels.rows``.  ``log_slope`` is f_c'/f_c, taken for 0 from the cutoff on, where R_k is 0.

With Rbar_k = dE/dR_k and d = r - r_k the derivatives of the energy with respect to alpha_k and r_k are -d^2 Rbar_k R_k
and 2 alpha_k d Rbar_k R_k; their tangents take that of d, r_dot, and that of Rbar_k R_k.
"""

from eann_lite.kernels.row_operations import row_operation
from eann_lite.kernels.vectors import multiply, multiply_add


def _argument(builder, center, exponent, r):
    d = builder.fsub(r, center)
    return builder.fneg(multiply(builder, multiply(builder, exponent, d), d))


def radial_slope(builder, radial, center, exponent, r, log_slope):
    """Vector of dR_k/dr from vectors of R_k, r_k and alpha_k and of one r and f_c'/f_c."""
    alpha_d = multiply(builder, exponent, builder.fsub(r, center))
    return multiply(builder, radial, builder.fsub(log_slope, builder.fadd(alpha_d, alpha_d)))


def _radial_tangent(builder, radial, center, exponent, r, log_slope, r_dot):
    return multiply(builder, radial_slope(builder, radial, center, exponent, r, log_slope), r_dot)


def _add_parameter_tangents(
    builder, by_exponent, by_center, radial, radial_dot, bar, bar_dot, center, exponent, r, r_dot
):  # fmt: skip
    d, product = builder.fsub(r, center), multiply(builder, radial, bar)
    product_dot = multiply_add(builder, radial, bar_dot, multiply(builder, radial_dot, bar))
    by_distance = multiply(builder, r_dot, product)
    along = multiply_add(builder, d, product_dot, by_distance)  # tangent of d Rbar R
    squared = multiply(builder, d, builder.fadd(along, by_distance))
    return builder.fsub(by_exponent, squared), multiply_add(builder, builder.fadd(exponent, exponent), along, by_center)


#: gaussian_arguments(centers, s, exponents, s, r, z, p): z[p] = -alpha (r - r_k)^2 with the Gaussians of element s.
gaussian_arguments = row_operation(_argument)
#: radial_slopes(radial, p, centers, s, exponents, s, r, log_slope, z, p): z[p] = dR_k/dr.
radial_slopes = row_operation(radial_slope)
#: radial_tangents(radial, p, centers, s, exponents, s, r, log_slope, r_dot, z, p): z[p] = r_dot dR_k/dr.
radial_tangents = row_operation(_radial_tangent)
#: add_parameter_tangents(by_exponent, s, by_center, s, radial, p, radial_dot, p, bar, p, bar_dot, p, centers, s,
#: exponents, s, r, r_dot, by_exponent, s, by_center, s): adds to both what pair p gives.
add_parameter_tangents = row_operation(_add_parameter_tangents, targets=2)
