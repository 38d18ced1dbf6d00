"""Radial functions of one pair as rows of K Gaussians, R_k(r) = exp(-alpha_k (r - r_k)^2) f_c(r), and their slopes

    dR_k/dr = R_k [f_c'/f_c - 2 alpha_k (r - r_k)],

as explicit vectors: see ``kernels.rows``.  ``log_slope`` is f_c'/f_c, taken for 0 from the cutoff on, where R_k is 0.

With q_k = R_k dE/dR_k and d = r - r_k the derivatives of the energy with respect to alpha_k and r_k are -d^2 q_k and
2 alpha_k d q_k.
"""

from eann_lite.kernels.row_operations import row_operation
from eann_lite.kernels.vectors import filled, multiply, multiply_add


def _argument(builder, center, exponent, r):
    d = builder.fsub(r, center)
    return builder.fneg(multiply(builder, multiply(builder, exponent, d), d))


def relative_slope(builder, d, exponent, log_slope):
    """Vector of dR_k/dr / R_k from vectors of r - r_k and alpha_k and of f_c'/f_c."""
    return multiply_add(builder, filled(d.type, -2.0), multiply(builder, exponent, d), log_slope)


def radial_slope(builder, radial, center, exponent, r, log_slope):
    """Vector of dR_k/dr from vectors of R_k, r_k and alpha_k and of one r and f_c'/f_c."""
    return multiply(builder, radial, relative_slope(builder, builder.fsub(r, center), exponent, log_slope))


def parameter_tangents(builder, d, q, q_dot, r_dot):
    """Vectors of the tangent of d q, and of that of d^2 q over d, from d, q, q_dot and r_dot in every lane.

    q and r_dot None: distances stand still.
    """
    if r_dot is None:
        along = multiply(builder, d, q_dot)
        return along, along
    by_distance = multiply(builder, r_dot, q)
    along = multiply_add(builder, d, q_dot, by_distance)
    return along, builder.fadd(along, by_distance)


#: gaussian_arguments(centers, s, exponents, s, r, z, p): z[p] = -alpha (r - r_k)^2 with the Gaussians of element s.
gaussian_arguments = row_operation(_argument)
#: radial_slopes(radial, p, centers, s, exponents, s, r, log_slope, z, p): z[p] = dR_k/dr.
radial_slopes = row_operation(radial_slope)
