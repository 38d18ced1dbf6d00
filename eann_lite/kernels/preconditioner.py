"""What SOAP does with the gradients of some matrices of one shape; see ``training.solvers.soap``."""

import math
from typing import NamedTuple

import numpy as np

from eann_lite.compilation.calls import tuple_at
from eann_lite.compiled import Kernel, helper, helper_on_separate_arrays
from eann_lite.kernels.arrays import empty, full, matrix
from eann_lite.kernels.dense import product
from eann_lite.kernels.shares import count_one, run_workers

#: Columns of a matrix whose reflections are applied together.
PANEL = 8
#: A column without a larger number counts as zero: about the smallest number whose reciprocal float32 can hold.
SMALLEST = 1e-37


class Matrices(NamedTuple):
    """Some matrices of one shape (r, c), and what is kept for them; index n counts them.

    starts (n,): where each begins in the flat vectors of parameters and of their gradient; decay (n,): its weight
    decay.  All else is of one precision: averages left (n, r, r) of G G^T and right (n, c, c) of G^T G; their
    eigenvectors q_left (n, r, r), q_right (n, c, c) and its transpose; momentum and variance (n, r, c), averages of
    Q_L^T G Q_R and of its square.
    """

    starts: np.ndarray
    decay: np.ndarray
    left: np.ndarray
    right: np.ndarray
    q_left: np.ndarray
    q_right: np.ndarray
    q_right_transposed: np.ndarray
    momentum: np.ndarray
    variance: np.ndarray


@Kernel
def soap_step(
    threads, matrices, gradient, parameters, rate, beta1, beta2, m_factor, v_factor, epsilon, step_size, turn
):  # fmt: skip
    """One step of SOAP for the matrices, which are parts of ``parameters``; both vectors are of double precision.

    threads : not used: see ``soap_steps``.
    rate : weight of this gradient in left and right; beta1, beta2 : weights of the past in momentum and variance;
    m_factor, v_factor : correct these for their start at zero; all of the precision of the matrices, as epsilon.
    turn : also have the eigenvectors follow left and right.

    Everything for one matrix before the next: what is kept for it is in the caches then.
    """
    _step(matrices, gradient, parameters, rate, beta1, beta2, m_factor, v_factor, epsilon, step_size, turn)


@Kernel
def soap_steps(
    threads, matrices, places, taken, gradient, parameters, rate, beta1, beta2, m_factor, v_factor, epsilon, step_size,
    turn,
):  # fmt: skip
    """``soap_step`` for many ``Matrices``, of the types of the one given, which are ``Placed`` at ``places`` (n,).

    Each thread takes one after the other; taken (1, 1, 1) : zero.
    """
    run_workers(
        _some_steps, threads, min(threads[0], places.size), matrices, places, taken, gradient, parameters, rate, beta1,
        beta2, m_factor, v_factor, epsilon, step_size, turn,
    )  # fmt: skip


@helper
def _some_steps(
    worker, matrices, places, taken, gradient, parameters, rate, beta1, beta2, m_factor, v_factor, epsilon, step_size,
    turn,
):  # fmt: skip
    n = count_one(taken, 0, 0)
    while n < places.size:
        own = tuple_at(matrices, places[n])
        _step(own, gradient, parameters, rate, beta1, beta2, m_factor, v_factor, epsilon, step_size, turn)
        n = count_one(taken, 0, 0)


@helper
def _step(matrices, gradient, parameters, rate, beta1, beta2, m_factor, v_factor, epsilon, step_size, turn):
    """``soap_step``."""
    _, rows, columns = matrices.momentum.shape
    g, transposed = empty((rows, columns), matrices.left.dtype), empty((columns, rows), matrices.left.dtype)
    one, other = empty((rows, columns), matrices.left.dtype), empty((rows, columns), matrices.left.dtype)
    for n in range(matrices.starts.size):
        _take(matrix(gradient, matrices.starts[n], rows, columns), g, transposed)
        _average_products(g, transposed, rate, matrices.left[n], matrices.right[n], one)
        _direction(n, matrices, g, beta1, beta2, m_factor, v_factor, epsilon, one, other)
        own = matrix(parameters, matrices.starts[n], rows, columns)
        _move(own, other, step_size, matrices.decay[n])
        if turn:
            _turn_bases(n, matrices, one, other)


@helper_on_separate_arrays
def _take(given, g, transposed):
    """A gradient and its transpose in the precision of the matrices."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            g[i, j] = given[i, j]
            transposed[j, i] = given[i, j]


@helper
def _average_products(g, transposed, rate, left, right, scaled):
    """left += rate (G G^T - left) and right += rate (G^T G - right)."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            scaled[i, j] = rate * g[i, j]
    for average in (left, right):
        for i in range(average.shape[0]):
            for j in range(average.shape[1]):
                average[i, j] *= 1.0 - rate
    product(scaled, transposed, left, False)
    product(scaled.T, g, right, False)


@helper
def _direction(n, matrices, g, beta1, beta2, m_factor, v_factor, epsilon, half, direction):
    """direction (r, c) = Q_L [m / (sqrt(v) + epsilon)] Q_R^T, averages m and v of Q_L^T G Q_R times their factors."""
    q_left, q_right = matrices.q_left[n], matrices.q_right[n]
    product(q_left.T, g, half, True)
    product(half, q_right, direction, True)
    _adam(direction, matrices.momentum[n], matrices.variance[n], beta1, beta2, m_factor, v_factor, epsilon)
    product(q_left, direction, half, True)
    product(half, matrices.q_right_transposed[n], direction, True)


@helper_on_separate_arrays
def _adam(g, m, v, beta1, beta2, m_factor, v_factor, epsilon):
    """Averages m of g and v of its square; g becomes the step of Adam."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            m[i, j] += (1.0 - beta1) * (g[i, j] - m[i, j])
            v[i, j] += (1.0 - beta2) * (g[i, j] * g[i, j] - v[i, j])
            g[i, j] = m_factor * m[i, j] / (math.sqrt(v_factor * v[i, j]) + epsilon)


@helper_on_separate_arrays
def _move(parameters, direction, step_size, decay):
    """parameters -= step_size (decay parameters + direction)."""
    for i in range(parameters.shape[0]):
        for j in range(parameters.shape[1]):
            parameters[i, j] -= step_size * (decay * parameters[i, j] + direction[i, j])


@helper
def _turn_bases(n, matrices, half, whole):
    """Eigenbases Q_L, Q_R after one step of orthogonal iteration, with momentum and variance as they are seen in them.

    Columns are ordered by their estimates of eigenvalues, the largest first; variance follows their order, momentum is
    rotated.
    """
    rows, columns = half.shape
    row_order, column_order = empty(rows, np.int64), empty(columns, np.int64)
    q_left, q_right, transposed = matrices.q_left[n], matrices.q_right[n], matrices.q_right_transposed[n]
    m, v = matrices.momentum[n], matrices.variance[n]
    product(q_left, m, half, True)
    product(half, transposed, whole, True)
    _next_basis(matrices.left[n], q_left, row_order)
    _next_basis(matrices.right[n], q_right, column_order)
    for i in range(columns):
        for j in range(columns):
            transposed[i, j] = q_right[j, i]
    product(q_left.T, whole, half, True)
    product(half, q_right, m, True)
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
