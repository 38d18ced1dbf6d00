"""What SOAP does with the gradients of some matrices of one shape; see ``training.solvers.soap``.

Index n counts the matrices: left (n, r, r), right (n, c, c), q_left (n, r, r), q_right and its transpose (n, c, c),
momentum and variance (n, r, c), all of one precision, as are the numbers given.  Matrix n is the part of the flat
``gradient`` from starts[n] on.
"""

import math

import numpy as np

from eann_lite.compiled import compile_loops, helper, helper_on_separate_arrays
from eann_lite.kernels.arrays import empty, full, matrix
from eann_lite.kernels.dense import product

#: Columns of a matrix whose reflections are applied together.
PANEL = 8
#: A column without a larger number counts as zero: about the smallest number whose reciprocal float32 can hold.
SMALLEST = 1e-37


@compile_loops
def average_products(gradient, starts, rate, left, right):
    """left += rate (G G^T - left) and right += rate (G^T G - right) of every matrix."""
    rows, columns = left.shape[1], right.shape[1]
    scaled, transposed = empty((rows, columns), left.dtype), empty((columns, rows), left.dtype)
    for n in range(starts.size):
        g = matrix(gradient, starts[n], rows, columns)
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
    half, rotated = empty((rows, columns), momentum.dtype), empty((rows, columns), momentum.dtype)
    for n in range(starts.size):
        product(q_left[n].T, matrix(gradient, starts[n], rows, columns), half, True)
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


@compile_loops
def move(parameters, starts, direction, step_size, decay):
    """parameters (flat) -= step_size (decay parameters + direction) in the places of the matrices; decay (flat)."""
    _, rows, columns = direction.shape
    for n in range(starts.size):
        own = matrix(parameters, starts[n], rows, columns)
        _move(own, direction[n], step_size, matrix(decay, starts[n], rows, columns))


@helper_on_separate_arrays
def _move(parameters, direction, step_size, decay):
    for i in range(parameters.shape[0]):
        for j in range(parameters.shape[1]):
            parameters[i, j] -= step_size * (decay[i, j] * parameters[i, j] + direction[i, j])


@compile_loops
def turn_bases(left, right, q_left, q_right, q_right_transposed, momentum, variance):
    """Eigenbases Q_L, Q_R after one step of orthogonal iteration, with momentum and variance as they are seen in them.

    Columns are ordered by their estimates of eigenvalues, the largest first; variance follows their order, momentum is
    rotated.
    """
    rows, columns = momentum.shape[1], momentum.shape[2]
    half, whole = empty((rows, columns), momentum.dtype), empty((rows, columns), momentum.dtype)
    row_order, column_order = empty(rows, np.int64), empty(columns, np.int64)
    for n in range(left.shape[0]):
        m, v = momentum[n], variance[n]
        product(q_left[n], m, half, True)
        product(half, q_right_transposed[n], whole, True)
        _next_basis(left[n], q_left[n], row_order)
        _next_basis(right[n], q_right[n], column_order)
        for i in range(columns):
            for j in range(columns):
                q_right_transposed[n, i, j] = q_right[n, j, i]
        product(q_left[n].T, whole, half, True)
        product(half, q_right[n], m, True)
        for i in range(rows):
            for j in range(columns):
                half[i, j] = v[row_order[i], column_order[j]]
        for i in range(rows):
            for j in range(columns):
                v[i, j] = half[i, j]


@helper
def _next_basis(average, basis, order):
    """basis = orthonormal columns that span, one after the other, what average @ basis[:, order] spans."""
    size = average.shape[0]
    turned, sorted_columns = empty((size, size), average.dtype), empty((size, size), average.dtype)
    product(average, basis, turned, True)
    estimates = full(size, 0, average.dtype)
    for i in range(size):
        for j in range(size):
            estimates[j] += basis[i, j] * turned[i, j]
    _descending(estimates, order)
    for i in range(size):
        for j in range(size):
            sorted_columns[i, j] = turned[i, order[j]]
    _orthonormal_columns(sorted_columns, basis)


@helper
def _descending(values, order):
    """order: the places of the values from the largest to the smallest, equal ones as they come (insertion sort)."""
    for n in range(values.size):
        place = n
        while place > 0 and values[order[place - 1]] < values[n]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = n


@helper
def _orthonormal_columns(a, q):
    """q: the Q of the QR decomposition of a square matrix by Householder reflections; a is used up.

    Unlike Gram-Schmidt, it gives an orthonormal Q whatever the rank of a.  The reflections of PANEL columns together are
    I - V T V^T (R. Schreiber and C. Van Loan, SIAM J. Sci. Stat. Comput. 10, 53, 1989), so most work is products.
    """
    size = a.shape[0]
    v, t = full((size, size), 0, a.dtype), full((size, PANEL), 0, a.dtype)
    along, turned = empty((PANEL, size), a.dtype), empty((PANEL, size), a.dtype)
    for begin in range(0, size, PANEL):
        end = min(size, begin + PANEL)
        _reflections(begin, a[:, begin:end], v[:, begin:end], t[begin:end], along)
        _reflect(v[begin:, begin:end], t[begin:end].T, a[begin:, end:], along, turned)
    for i in range(size):
        for j in range(size):
            q[i, j] = 1.0 if i == j else 0.0
    for begin in range((size - 1) // PANEL * PANEL, -1, -PANEL):
        end = min(size, begin + PANEL)
        _reflect(v[begin:, begin:end], t[begin:end], q[begin:, begin:], along, turned)


@helper
def _reflections(begin, panel, v, t, scratch):
    """V and T (upper triangular) of the reflections that clear the columns of a panel below rows begin, begin + 1, ..."""
    size, width = panel.shape
    along = scratch[:1, :width]
    for c in range(width):
        k = begin + c
        largest, square, factor = 0.0, 0.0, 0.0
        for i in range(k, size):
            largest = max(largest, abs(panel[i, c]))
        if largest > SMALLEST:
            for i in range(k, size):
                v[i, c] = panel[i, c] / largest
                square += v[i, c] * v[i, c]
            norm = math.sqrt(square)
            # v = column +- |column| e_k: the sign that adds up.
            v[k, c] += norm if v[k, c] >= 0.0 else -norm
            factor = 1.0 / (norm * abs(v[k, c]))
        product(v[k:, c : c + 1].T, panel[k:], along, True)
        for j in range(width):
            along[0, j] *= -factor
        product(v[k:, c : c + 1], along, panel[k:], False)
        # I - V T V^T gets one more column: T = [T, -factor T V^T v; 0, factor].
        product(v[k:, c : c + 1].T, v[k:], along, True)
        for r in range(c):
            t[r, c] = 0.0
            for j in range(r, c):
                t[r, c] -= factor * t[r, j] * along[0, j]
        t[c, c] = factor


@helper
def _reflect(v, t, target, along, turned):
    """target -= v t v^T target; t may be any strided matrix."""
    width, columns = v.shape[1], target.shape[1]
    if columns == 0:
        return
    along, turned = along[:width, :columns], turned[:width, :columns]
    product(v.T, target, along, True)
    product(t[:, :width], along, turned, True)
    for i in range(width):
        for j in range(columns):
            turned[i, j] = -turned[i, j]
    product(v, turned, target, False)
