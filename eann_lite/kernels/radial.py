"""Radial functions of one pair as rows of K Gaussians, R_k(r) = exp(-alpha_k (r - r_k)^2) f_c(r), and their slopes

    dR_k/dr = R_k [f_c'/f_c - 2 alpha_k (r - r_k)],

as explicit vectors: see ``kernels.rows``.  ``log_slope`` is f_c'/f_c, taken for 0 from the cutoff on, where R_k is 0.
"""

from eann_lite.kernels.row_operations import row_operation
from eann_lite.kernels.vectors import multiply


def _argument(builder, center, exponent, r):
    d = builder.fsub(r, center)
    return builder.fneg(multiply(builder, multiply(builder, exponent, d), d))


def radial_slope(builder, radial, center, exponent, r, log_slope):
    """Vector of dR_k/dr from vectors of R_k, r_k and alpha_k and of one r and f_c'/f_c."""
    alpha_d = multiply(builder, exponent, builder.fsub(r, center))
    return multiply(builder, radial, builder.fsub(log_slope, builder.fadd(alpha_d, alpha_d)))


#: gaussian_arguments(centers, s, exponents, s, r, z, p): z[p] = -alpha (r - r_k)^2 with the Gaussians of element s.
gaussian_arguments = row_operation(_argument)
#: radial_slopes(radial, p, centers, s, exponents, s, r, log_slope, z, p): z[p] = dR_k/dr.
radial_slopes = row_operation(radial_slope)
