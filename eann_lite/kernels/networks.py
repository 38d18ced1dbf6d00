"""Element networks over blocks of atoms: forward, reverse, their tangents, and the gradient of all weights.

A network is a chain of linear maps.  Map 0 takes the scaled densities; every later map takes the activation (and,
where asked, its layer normalisation) of what came before:

    pre_0 = (rho - shift) scale,  lin_0 = pre_0,           pre_{n+1} = lin_n W_n + b_n (+ pre at the block's start)
                                  lin_n = [LN] act(pre_n)  for n >= 1

Table ``maps`` (one row per map, columns below) holds widths and offsets into the flat parameter vector, counted from
the network's own start.  Stored arrays are flat: the rows (N, width) of map n stand at N * row_offset.
"""

import math

import numpy as np
from numba import prange

from eann_lite.compiled import Kernel, helper
from eann_lite.formulas import activation, activation_curvature, activation_parameter_slopes
from eann_lite.kernels.dense import add_outer, add_product

# Columns of the table; offsets are -1 where a map has no such parameter.
IN, OUT, ROW, RESIDUAL, WEIGHT, BIAS, ALPHA, BETA, SCALE, SHIFT = range(10)
COLUMNS = 10
EPSILON = 1e-5  # of the layer normalisation


@helper
def _rows(store, n_atoms, maps, n):
    """Rows (N, width) of map n in a flat store."""
    width = maps[n, IN]
    start = n_atoms * maps[n, ROW]
    return store[start : start + n_atoms * width].reshape((n_atoms, width))


@helper
def _vector(theta, offset, width):
    return theta[offset : offset + width]


@helper
def _matrix(theta, offset, rows, columns):
    return theta[offset : offset + rows * columns].reshape((rows, columns))


@helper
def _activate(kind, theta, maps, n, pre, slope, lin, start, stop):
    """lin = act(pre) and its slope for rows start to stop of map n."""
    width = maps[n, IN]
    learned = maps[n, ALPHA] >= 0
    for i in range(start, stop):
        for u in range(width):
            alpha = theta[maps[n, ALPHA] + u] if learned else 1.0
            beta = theta[maps[n, BETA] + u] if learned else 1.0
            lin[i, u], slope[i, u] = activation(kind, pre[i, u], alpha, beta)


@helper
def _normalise(row):
    """Replace a row by its normalised values; returns 1 / sqrt(variance + eps)."""
    width = row.size
    mean = 0.0
    for u in range(width):
        mean += row[u]
    mean /= width
    variance = 0.0
    for u in range(width):
        row[u] -= mean
        variance += row[u] * row[u]
    inverse = 1.0 / math.sqrt(variance / width + EPSILON)
    for u in range(width):
        row[u] *= inverse
    return inverse


@helper
def _project(row, unit, inverse):
    """The (symmetric) Jacobian of the normalisation applied to a row, in place; returns mean(row * unit)."""
    width = row.size
    mean = 0.0
    along = 0.0
    for u in range(width):
        mean += row[u]
        along += row[u] * unit[u]
    mean /= width
    along /= width
    for u in range(width):
        row[u] = inverse * (row[u] - mean - unit[u] * along)
    return along


@helper
def _unit_row(kind, theta, maps, n, pre_row):
    """Normalised activations of one row, computed anew, and 1 / sqrt(variance + eps)."""
    unit = np.empty(pre_row.size)
    learned = maps[n, ALPHA] >= 0
    for u in range(pre_row.size):
        alpha = theta[maps[n, ALPHA] + u] if learned else 1.0
        beta = theta[maps[n, BETA] + u] if learned else 1.0
        unit[u], _ = activation(kind, pre_row[u], alpha, beta)
    inverse = _normalise(unit)
    return unit, inverse


@Kernel
def forward(blocks, starts, maps, kind, vector, shift, scale, density, pre, slope, lin, output):
    """output (N, out) of every atom's network, and the stored pre, slope, lin of all maps.

    starts (S,): where each element's network begins in the parameter vector; shift, scale (S, M).
    """
    n_atoms = density.shape[0]
    last = maps.shape[0] - 1
    for b in prange(blocks.shape[0]):
        start, stop, s = blocks[b, 0], blocks[b, 1], blocks[b, 2]
        theta = vector[starts[s] :]
        inputs = _rows(lin, n_atoms, maps, 0)
        for i in range(start, stop):
            for m in range(density.shape[1]):
                inputs[i, m] = (density[i, m] - shift[s, m]) * scale[s, m]
        for n in range(last + 1):
            width = maps[n, IN]
            lin_n = _rows(lin, n_atoms, maps, n)
            if n > 0:
                _activate(
                    kind, theta, maps, n, _rows(pre, n_atoms, maps, n), _rows(slope, n_atoms, maps, n), lin_n, start, stop
                )
                if maps[n, SCALE] >= 0:
                    for i in range(start, stop):
                        _normalise(lin_n[i])
                        for u in range(width):
                            lin_n[i, u] = lin_n[i, u] * theta[maps[n, SCALE] + u] + theta[maps[n, SHIFT] + u]
            target = output if n == last else _rows(pre, n_atoms, maps, n + 1)
            for i in range(start, stop):
                for o in range(maps[n, OUT]):
                    target[i, o] = theta[maps[n, BIAS] + o]
                if maps[n, RESIDUAL] >= 0:
                    source = _rows(pre, n_atoms, maps, maps[n, RESIDUAL])
                    for o in range(maps[n, OUT]):
                        target[i, o] += source[i, o]
            add_product(lin_n[start:stop], _matrix(theta, maps[n, WEIGHT], width, maps[n, OUT]), target[start:stop])


@Kernel
def forward_tangent(
    blocks, starts, maps, kind, vector, scale, density_dot, pre, slope, pre_dot, lin_dot, output_dot
):
    """output_dot (N, out) along density_dot (N, M), and the stored pre_dot, lin_dot of all maps."""
    n_atoms = density_dot.shape[0]
    last = maps.shape[0] - 1
    for b in prange(blocks.shape[0]):
        start, stop, s = blocks[b, 0], blocks[b, 1], blocks[b, 2]
        theta = vector[starts[s] :]
        inputs = _rows(lin_dot, n_atoms, maps, 0)
        for i in range(start, stop):
            for m in range(density_dot.shape[1]):
                inputs[i, m] = density_dot[i, m] * scale[s, m]
        for n in range(last + 1):
            width = maps[n, IN]
            lin_n = _rows(lin_dot, n_atoms, maps, n)
            if n > 0:
                pre_n = _rows(pre, n_atoms, maps, n)
                slope_n = _rows(slope, n_atoms, maps, n)
                pre_dot_n = _rows(pre_dot, n_atoms, maps, n)
                for i in range(start, stop):
                    for u in range(width):
                        lin_n[i, u] = slope_n[i, u] * pre_dot_n[i, u]
                    if maps[n, SCALE] >= 0:
                        unit, inverse = _unit_row(kind, theta, maps, n, pre_n[i])
                        _project(lin_n[i], unit, inverse)
                        for u in range(width):
                            lin_n[i, u] *= theta[maps[n, SCALE] + u]
            target = output_dot if n == last else _rows(pre_dot, n_atoms, maps, n + 1)
            for i in range(start, stop):
                for o in range(maps[n, OUT]):
                    target[i, o] = 0.0
                if maps[n, RESIDUAL] >= 0:
                    source = _rows(pre_dot, n_atoms, maps, maps[n, RESIDUAL])
                    for o in range(maps[n, OUT]):
                        target[i, o] += source[i, o]
            add_product(lin_n[start:stop], _matrix(theta, maps[n, WEIGHT], width, maps[n, OUT]), target[start:stop])


@Kernel
def backward(
    blocks, starts, maps, kind, vector, transposed, scale, output_bar, pre, slope, pre_bar, act_bar, lin_bar, density_bar
):
    """density_bar (N, M) from output_bar (N, out), and the stored pre_bar, act_bar, lin_bar of all maps.

    transposed: the parameter vector with every weight matrix the other way round, at the same offset.
    Without layer normalisation anywhere act_bar and lin_bar may be the same array.
    """
    n_atoms = density_bar.shape[0]
    last = maps.shape[0] - 1
    for b in prange(blocks.shape[0]):
        start, stop, s = blocks[b, 0], blocks[b, 1], blocks[b, 2]
        theta = vector[starts[s] :]
        theta_t = transposed[starts[s] :]
        for n in range(last, -1, -1):
            width = maps[n, IN]
            source = output_bar if n == last else _rows(pre_bar, n_atoms, maps, n + 1)
            lin_n = _rows(lin_bar, n_atoms, maps, n)
            _back_through_map(maps, n, theta_t, source[start:stop], scale[s], lin_n[start:stop], density_bar[start:stop])
            if n > 0:
                pre_n = _rows(pre, n_atoms, maps, n)
                act_n = _rows(act_bar, n_atoms, maps, n)
                slope_n = _rows(slope, n_atoms, maps, n)
                pre_bar_n = _rows(pre_bar, n_atoms, maps, n)
                for i in range(start, stop):
                    if maps[n, SCALE] >= 0:
                        unit, inverse = _unit_row(kind, theta, maps, n, pre_n[i])
                        for u in range(width):
                            act_n[i, u] = lin_n[i, u] * theta[maps[n, SCALE] + u]
                        _project(act_n[i], unit, inverse)
                    else:
                        act_n[i] = lin_n[i]
                    for u in range(width):
                        pre_bar_n[i, u] = slope_n[i, u] * act_n[i, u]
            # What entered this map's block also left it unchanged: the end of a block passes its adjoint to the start.
            _add_residual(maps, n, n_atoms, pre_bar, start, stop)


@helper
def _back_through_map(maps, n, theta_t, source, scale, lin, density):
    """lin = source W^T of map n; at map 0 also what that means for the densities of these rows."""
    lin[:] = 0.0
    add_product(source, _matrix(theta_t, maps[n, WEIGHT], maps[n, OUT], maps[n, IN]), lin)
    if n == 0:
        for i in range(lin.shape[0]):
            for m in range(lin.shape[1]):
                density[i, m] = lin[i, m] * scale[m]


@helper
def _add_residual(maps, n, n_atoms, pre_bar, start, stop):
    """Where map n starts a block, add the adjoint of that block's result to the adjoint of its start."""
    for end in range(maps.shape[0]):
        if n > 0 and maps[end, RESIDUAL] == n:
            begin_rows = _rows(pre_bar, n_atoms, maps, n)
            end_rows = _rows(pre_bar, n_atoms, maps, end + 1)
            for i in range(start, stop):
                for u in range(maps[n, IN]):
                    begin_rows[i, u] += end_rows[i, u]


@Kernel
def backward_tangent(
    blocks, starts, maps, kind, vector, transposed, scale, output_bar_dot, pre, slope, pre_dot, act_bar, lin_bar,
    pre_bar_dot, act_bar_dot, lin_bar_dot, density_bar_dot,
):  # fmt: skip
    """Tangent of ``backward``: density_bar_dot (N, M) and the stored pre_bar_dot, act_bar_dot, lin_bar_dot."""
    n_atoms = density_bar_dot.shape[0]
    last = maps.shape[0] - 1
    for b in prange(blocks.shape[0]):
        start, stop, s = blocks[b, 0], blocks[b, 1], blocks[b, 2]
        theta = vector[starts[s] :]
        theta_t = transposed[starts[s] :]
        for n in range(last, -1, -1):
            width = maps[n, IN]
            source = output_bar_dot if n == last else _rows(pre_bar_dot, n_atoms, maps, n + 1)
            lin_n = _rows(lin_bar_dot, n_atoms, maps, n)
            _back_through_map(maps, n, theta_t, source[start:stop], scale[s], lin_n[start:stop], density_bar_dot[start:stop])
            if n > 0:
                pre_n = _rows(pre, n_atoms, maps, n)
                slope_n = _rows(slope, n_atoms, maps, n)
                pre_dot_n = _rows(pre_dot, n_atoms, maps, n)
                act_n = _rows(act_bar, n_atoms, maps, n)
                act_dot_n = _rows(act_bar_dot, n_atoms, maps, n)
                pre_bar_dot_n = _rows(pre_bar_dot, n_atoms, maps, n)
                learned = maps[n, ALPHA] >= 0
                for i in range(start, stop):
                    if maps[n, SCALE] >= 0:
                        _norm_reverse_tangent(
                            kind, theta, maps, n, pre_n[i], slope_n[i], pre_dot_n[i],
                            _rows(lin_bar, n_atoms, maps, n)[i], act_n[i], lin_n[i], act_dot_n[i],
                        )  # fmt: skip
                    else:
                        act_dot_n[i] = lin_n[i]
                    for u in range(width):
                        alpha = theta[maps[n, ALPHA] + u] if learned else 1.0
                        beta = theta[maps[n, BETA] + u] if learned else 1.0
                        curvature = activation_curvature(kind, pre_n[i, u], alpha, beta)
                        pre_bar_dot_n[i, u] = (
                            slope_n[i, u] * act_dot_n[i, u] + curvature * pre_dot_n[i, u] * act_n[i, u]
                        )
            _add_residual(maps, n, n_atoms, pre_bar_dot, start, stop)


@helper
def _unit_tangent(kind, theta, maps, n, pre_row, slope_row, pre_dot_row):
    """Normalised row, its tangent, 1 / sqrt(variance + eps), and the relative tangent of that."""
    unit, inverse = _unit_row(kind, theta, maps, n, pre_row)
    unit_dot = np.empty(unit.size)
    for u in range(unit.size):
        unit_dot[u] = slope_row[u] * pre_dot_row[u]
    along = _project(unit_dot, unit, inverse)
    return unit, unit_dot, inverse, -inverse * along


@helper
def _norm_reverse_tangent(
    kind, theta, maps, n, pre_row, slope_row, pre_dot_row, lin_bar_row, act_bar_row, lin_bar_dot_row, act_bar_dot_row
):
    """Tangent of the reverse of one normalised row: fills act_bar_dot_row."""
    width = pre_row.size
    unit, unit_dot, inverse, relative = _unit_tangent(kind, theta, maps, n, pre_row, slope_row, pre_dot_row)
    along = 0.0
    along_dot = 0.0
    mean_dot = 0.0
    for u in range(width):
        g = lin_bar_row[u] * theta[maps[n, SCALE] + u]
        g_dot = lin_bar_dot_row[u] * theta[maps[n, SCALE] + u]
        along += g * unit[u]
        along_dot += g_dot * unit[u] + g * unit_dot[u]
        mean_dot += g_dot
    along /= width
    along_dot /= width
    mean_dot /= width
    for u in range(width):
        g_dot = lin_bar_dot_row[u] * theta[maps[n, SCALE] + u]
        act_bar_dot_row[u] = relative * act_bar_row[u] + inverse * (
            g_dot - mean_dot - unit_dot[u] * along - unit[u] * along_dot
        )


@Kernel
def weight_gradients(
    tasks, segments, starts, maps, kind, vector, output_bar, output_bar_dot, pre, slope, lin, pre_bar, act_bar, lin_bar,
    pre_dot, lin_dot, pre_bar_dot, act_bar_dot, lin_bar_dot, gradient,
):  # fmt: skip
    """gradient (flat) += tangent of dE/dtheta of these networks.

    tasks (n, 4): element, map, first and last row of the weight matrix; each task writes its own part, so the order
    of threads does not matter.  segments (S, 2): first and last atom of each element.  A task that starts at row 0
    also writes the bias and the parameters of the map's activation and normalisation.
    """
    n_atoms = output_bar.shape[0]
    last = maps.shape[0] - 1
    for task in prange(tasks.shape[0]):
        s, n, row, row_end = tasks[task, 0], tasks[task, 1], tasks[task, 2], tasks[task, 3]
        start, stop = segments[s, 0], segments[s, 1]
        grad = gradient[starts[s] :]
        target = output_bar if n == last else _rows(pre_bar, n_atoms, maps, n + 1)
        target_dot = output_bar_dot if n == last else _rows(pre_bar_dot, n_atoms, maps, n + 1)
        weight = _matrix(grad, maps[n, WEIGHT], maps[n, IN], maps[n, OUT])
        add_outer(_rows(lin, n_atoms, maps, n)[start:stop], target_dot[start:stop], weight, row, row_end)
        add_outer(_rows(lin_dot, n_atoms, maps, n)[start:stop], target[start:stop], weight, row, row_end)
        if row == 0:
            for i in range(start, stop):
                for o in range(maps[n, OUT]):
                    grad[maps[n, BIAS] + o] += target_dot[i, o]
            if maps[n, ALPHA] >= 0:
                _activation_gradient(
                    kind, vector[starts[s] :], maps, n, start, stop, _rows(pre, n_atoms, maps, n),
                    _rows(pre_dot, n_atoms, maps, n), _rows(act_bar, n_atoms, maps, n),
                    _rows(act_bar_dot, n_atoms, maps, n), grad,
                )  # fmt: skip
            if maps[n, SCALE] >= 0:
                _norm_gradient(
                    kind, vector[starts[s] :], maps, n, start, stop, _rows(pre, n_atoms, maps, n),
                    _rows(slope, n_atoms, maps, n), _rows(pre_dot, n_atoms, maps, n),
                    _rows(lin_bar, n_atoms, maps, n), _rows(lin_bar_dot, n_atoms, maps, n), grad,
                )  # fmt: skip


@helper
def _activation_gradient(kind, theta, maps, n, start, stop, pre, pre_dot, act_bar, act_bar_dot, grad):
    for i in range(start, stop):
        for u in range(maps[n, IN]):
            by_alpha, by_beta, alpha_slope, beta_slope = activation_parameter_slopes(
                kind, pre[i, u], theta[maps[n, ALPHA] + u], theta[maps[n, BETA] + u]
            )
            grad[maps[n, ALPHA] + u] += act_bar_dot[i, u] * by_alpha + act_bar[i, u] * alpha_slope * pre_dot[i, u]
            grad[maps[n, BETA] + u] += act_bar_dot[i, u] * by_beta + act_bar[i, u] * beta_slope * pre_dot[i, u]


@helper
def _norm_gradient(kind, theta, maps, n, start, stop, pre, slope, pre_dot, lin_bar, lin_bar_dot, grad):
    for i in range(start, stop):
        unit, unit_dot, _, _ = _unit_tangent(kind, theta, maps, n, pre[i], slope[i], pre_dot[i])
        for u in range(maps[n, IN]):
            grad[maps[n, SCALE] + u] += lin_bar_dot[i, u] * unit[u] + lin_bar[i, u] * unit_dot[u]
            grad[maps[n, SHIFT] + u] += lin_bar_dot[i, u]
