"""What SOAP does with the gradients of some matrices of one shape in every step; see ``training.solvers.soap``.

Index n counts the matrices: left (n, r, r), right (n, c, c), q_left (n, r, r), q_right and its transpose (n, c, c),
momentum and variance (n, r, c), all of one precision, as are the numbers given.  Matrix n is the part of the flat
``gradient`` from starts[n] on.
"""

import math

from eann_lite.compiled import compile_loops, helper
from eann_lite.kernels.dense import product
from eann_lite.kernels.rows import new_rows


@helper
def _matrix(flat, start, rows, columns):
    return flat[start : start + rows * columns].reshape((rows, columns))


@compile_loops
def average_products(gradient, starts, rate, left, right):
    """left += rate (G G^T - left) and right += rate (G^T G - right) of every matrix."""
    rows, columns = left.shape[1], right.shape[1]
    scaled, transposed = new_rows(rows, columns, left), new_rows(columns, rows, left)
    for n in range(starts.size):
        g = _matrix(gradient, starts[n], rows, columns)
        for i in range(rows):
            for j in range(columns):
                scaled[i, j] = rate * g[i, j]
                transposed[j, i] = g[i, j]
        for average in (left[n], right[n]):
            for i in range(average.shape[0]):
                for j in range(average.shape[1]):
                    average[i, j] *= 1.0 - rate
        product(scaled, transposed, left[n], False)
        product(scaled.T, g, right[n], False)


@compile_loops
def directions(
    gradient, starts, q_left, q_right, q_right_transposed, momentum, variance, beta1, beta2, m_factor, v_factor,
    epsilon, direction,
):  # fmt: skip
    """direction (n, r, c) = Q_L [m / (sqrt(v) + epsilon)] Q_R^T with the averages m and v of Q_L^T G Q_R, times factors
    that correct them for their start at zero."""
    rows, columns = momentum.shape[1], momentum.shape[2]
    half, rotated = new_rows(rows, columns, momentum), new_rows(rows, columns, momentum)
    for n in range(starts.size):
        product(q_left[n].T, _matrix(gradient, starts[n], rows, columns), half, True)
        product(half, q_right[n], rotated, True)
        m, v = momentum[n], variance[n]
        for i in range(rows):
            for j in range(columns):
                m[i, j] += (1.0 - beta1) * (rotated[i, j] - m[i, j])
            for j in range(columns):
                v[i, j] += (1.0 - beta2) * (rotated[i, j] * rotated[i, j] - v[i, j])
            for j in range(columns):
                rotated[i, j] = m_factor * m[i, j] / (math.sqrt(v_factor * v[i, j]) + epsilon)
        product(q_left[n], rotated, half, True)
        product(half, q_right_transposed[n], direction[n], True)
