"""Element networks of a block of atoms: forward, reverse, their tangents, and the gradient of all weights.

A network is a chain of linear maps.  Map 0 takes the scaled densities; every later map takes the activation (and,
where asked, its layer normalisation) of what came before:

    pre_0 = (rho - shift) scale,  lin_0 = pre_0,           pre_{n+1} = lin_n W_n + b_n (+ pre at the block's start)
                                  lin_n = [LN] act(pre_n)  for n >= 1

Table ``maps`` (one row per map, columns below) holds widths and offsets into the flat parameter vector, counted from
the network's own start.  Stored arrays are flat: the rows (N, width) of map n > 0 stand at N * row_offset; lin_0 stands
in a store of its own, ``inputs``.

Memory takes longer than arithmetic here, so little is kept.  What no later sweep reads has no place in a store (length
0): the rows of the block at hand are made and forgotten.  So are those that the gradients of weights take, lin, pre_bar
and the tangents of both: ``backward_tangent`` works out what the block gives to the gradients while it has them.

Arguments that all functions share: atoms start to stop of element s; step t with its maps.
"""

import math

from eann_lite.compilation.borrowed import borrowing
from eann_lite.compiled import helper, helper_on_separate_arrays
from eann_lite.formulas import (
    RELU_LIKE,
    SILU,
    TANH,
    TANH_LIKE,
    activation,
    activation_curvature,
    activation_gate,
    activation_parameter_slopes,
)
from eann_lite.kernels.arrays import empty, full, matrix
from eann_lite.kernels.dense import product, product_before, product_with_transposed, span
from eann_lite.kernels.rows import add_rows, copy_rows
from eann_lite.kernels.vectors import IN_SECOND_CACHE, line

# Columns of the table; offsets are -1 where a map has no such parameter.  A map without weights passes lin_n on.
# Map 0, whose rows stand in another store, has as ROW the sum of the widths of all others.
IN, OUT, ROW, RESIDUAL, KIND, WEIGHT, BIAS, ALPHA, BETA, SCALE, SHIFT = range(11)
COLUMNS = 11
EPSILON = 1e-5  # of the layer normalisation
#: A ``dense.span`` of no bytes.
NOTHING = 0, 0
#: For up to so many atoms a product takes less time than its weights take to come from the third cache.
FEW_ROWS = 8


@borrowing
@helper
def _inputs(store, place, maps):
    """Rows (stop - start, M) of lin_0 for some atoms."""
    t, start, stop, _ = place
    width = maps[0, IN]
    return matrix(store[t], start * width, stop - start, width)


@borrowing
@helper
def _rows(store, place, maps, n):
    """Rows (stop - start, width) of map n > 0 for some atoms; place: step, atoms start and stop of all in the store."""
    t, start, stop, n_atoms = place
    width = maps[n, IN]
    begin = n_atoms * maps[n, ROW]
    return matrix(store[t], begin + start * width, stop - start, width)


@helper
def _kept_or_new(store, place, width):
    """The store with the place of these atoms in it, or a new one for them alone, ``width`` numbers each."""
    if store.shape[0] > 0:
        return store, place
    return _new(place, width, store.dtype)


@helper
def _new(place, width, dtype):
    """A new store for these atoms alone, ``width`` numbers each, with their place in it."""
    n_atoms = place[2] - place[1]
    return empty((1, n_atoms * width), dtype), (0, 0, n_atoms, n_atoms)


@borrowing
@helper
def _vector(theta, offset, width):
    return theta[offset : offset + width]


@helper
def _unit_parameters(theta, maps, n):
    """alpha and beta (width,) of the activations of map n; ones where they are not learned."""
    width = maps[n, IN]
    if maps[n, ALPHA] >= 0:
        return _vector(theta, maps[n, ALPHA], width), _vector(theta, maps[n, BETA], width)
    return full(width, 1, theta.dtype), full(width, 1, theta.dtype)


@helper
def _normalise(row):
    """Replace a row by its normalised values; returns 1 / sqrt(variance + eps)."""
    width, number = row.size, row.dtype.type(row.size)
    mean = 0.0
    for u in range(width):
        mean += row[u]
    mean /= number
    variance = 0.0
    for u in range(width):
        row[u] -= mean
        variance += row[u] * row[u]
    inverse = 1.0 / math.sqrt(variance / number + EPSILON)
    for u in range(width):
        row[u] *= inverse
    return inverse


@helper
def _project(row, unit, inverse):
    """The (symmetric) Jacobian of the normalisation applied to a row, in place; returns mean(row * unit)."""
    width, number = row.size, row.dtype.type(row.size)
    mean = 0.0
    along = 0.0
    for u in range(width):
        mean += row[u]
        along += row[u] * unit[u]
    mean /= number
    along /= number
    for u in range(width):
        row[u] = inverse * (row[u] - mean - unit[u] * along)
    return along


@helper
def _unit_row(kind, alpha, beta, pre_row):
    """Normalised activations of one row, computed anew, and 1 / sqrt(variance + eps)."""
    unit = empty(pre_row.size, pre_row.dtype)
    for u in range(pre_row.size):
        gate = activation_gate(kind, pre_row[u], beta[u])
        unit[u], _ = activation(kind, pre_row[u], gate, alpha[u], beta[u])
    inverse = _normalise(unit)
    return unit, inverse


@helper_on_separate_arrays
def _activate(kind, alpha, beta, pre, lin, slope):
    """Activations of some rows and their slopes."""
    for i in range(lin.shape[0]):
        for u in range(lin.shape[1]):
            gate = activation_gate(kind, pre[i, u], beta[u])
            lin[i, u], slope[i, u] = activation(kind, pre[i, u], gate, alpha[u], beta[u])


@helper_on_separate_arrays
def _activate_for_derivatives(kind, alpha, beta, pre, gate, lin):
    """Activations of some rows and their gates."""
    for i in range(lin.shape[0]):
        for u in range(lin.shape[1]):
            g = activation_gate(kind, pre[i, u], beta[u])
            lin[i, u], _ = activation(kind, pre[i, u], g, alpha[u], beta[u])
            gate[i, u] = g


@helper_on_separate_arrays
def _times_slopes(kind, alpha, beta, pre, gate, x, y):
    """Rows y = x times the slopes of the activations: their tangents, and adjoints of what they were taken of."""
    for i in range(x.shape[0]):
        for u in range(alpha.size):
            _, slope = activation(kind, pre[i, u], gate[i, u], alpha[u], beta[u])
            y[i, u] = slope * x[i, u]


@helper
def _weights(theta, maps, n):
    """W (in, out) of map n, which has some."""
    return matrix(theta, maps[n, WEIGHT], maps[n, IN], maps[n, OUT])


@helper
def _read_after(n, next_map, maps, ahead, theta):
    """What is asked for during the product of map n: its part of ``ahead``, or where there is none the next weights.

    The last map has no part: it is a small product.  Where no weights are next, next_map is n, whose weights are there.
    """
    (address, n_bytes), n_wide = ahead, maps.shape[0] - 1
    if n_bytes > 0:
        part = n_bytes // max(1, n_wide)
        return address + n * part, part if n < n_wide else 0
    return span(_weights(theta, maps, next_map)) if maps[next_map, WEIGHT] >= 0 else NOTHING


@helper
def forward(start, stop, s, t, maps, potential, values, density, last_hidden, output, ahead):
    """output (N, out) += result of every atom's network, and the stored inputs, pre, act_gate and act_slope.

    density has the rows of these atoms alone.  And last_hidden (N, width), what the last map takes, where it has
    place.  Here and below ``ahead`` (``dense.span``) is needed soon after, and stands in the third cache or in memory,
    or is nothing: products ask for it.
    """
    place = (t, start, stop, output.shape[0])
    n_rows, last = stop - start, maps.shape[0] - 1
    theta = potential.vector[potential.starts[t, s] :]
    shift, scale = potential.density_shift[t, s], potential.density_scale[t, s]
    pre_store, pre_place = _kept_or_new(values.pre, place, maps[0, ROW])
    input_store, input_place = _kept_or_new(values.inputs, place, maps[0, IN])
    inputs = _inputs(input_store, input_place, maps)
    for i in range(n_rows):
        for m in range(density.shape[1]):
            inputs[i, m] = (density[i, m] - shift[m]) * scale[m]
    for n in range(last + 1):
        width, out = maps[n, IN], maps[n, OUT]
        lin = inputs
        if n > 0:
            keep = n == last and last_hidden.shape[0] > 0
            lin = last_hidden[start:stop] if keep else empty((n_rows, width), theta.dtype)
            pre, kind = _rows(pre_store, pre_place, maps, n), maps[n, KIND]
            alpha, beta = _unit_parameters(theta, maps, n)
            if values.act_gate.shape[0] > 0:
                _activate_for_derivatives(kind, alpha, beta, pre, _rows(values.act_gate, place, maps, n), lin)
            else:
                _activate(kind, alpha, beta, pre, lin, _rows(values.act_slope, place, maps, n))
            if maps[n, SCALE] >= 0:
                norm_scale, norm_shift = _vector(theta, maps[n, SCALE], width), _vector(theta, maps[n, SHIFT], width)
                for i in range(n_rows):
                    _normalise(lin[i])
                    for u in range(width):
                        lin[i, u] = lin[i, u] * norm_scale[u] + norm_shift[u]
        target = output[start:stop] if n == last else _rows(pre_store, pre_place, maps, n + 1)
        if maps[n, WEIGHT] < 0:
            copy_rows(0, n_rows, lin, target)
            continue
        bias = _vector(theta, maps[n, BIAS], out)
        for i in range(n_rows):
            for o in range(out):
                target[i, o] = bias[o] + (target[i, o] if n == last else 0.0)
        if maps[n, RESIDUAL] >= 0:
            add_rows(0, n_rows, _rows(pre_store, pre_place, maps, maps[n, RESIDUAL]), target)
        read_next = _read_after(n, min(n + 1, last), maps, ahead, theta)
        product_before(read_next, lin, _weights(theta, maps, n), target, False)


@helper
def forward_tangent(start, stop, s, t, maps, potential, values, tangents, output_dot):
    """output_dot (N, out) += derivative along the densities' tangent, and the tangents of inputs and pre."""
    place = (t, start, stop, output_dot.shape[0])
    n_rows, last = stop - start, maps.shape[0] - 1
    theta = potential.vector[potential.starts[t, s] :]
    scale, density_dot = potential.density_scale[t, s], tangents.density[t % tangents.density.shape[0], start:stop]
    inputs = _inputs(tangents.inputs, place, maps)
    for i in range(n_rows):
        for m in range(density_dot.shape[1]):
            inputs[i, m] = density_dot[i, m] * scale[m]
    for n in range(last + 1):
        width = maps[n, IN]
        lin_dot = inputs
        if n > 0:
            lin_dot = empty((n_rows, width), theta.dtype)
            pre, gate = _rows(values.pre, place, maps, n), _rows(values.act_gate, place, maps, n)
            alpha, beta = _unit_parameters(theta, maps, n)
            _times_slopes(maps[n, KIND], alpha, beta, pre, gate, _rows(tangents.pre, place, maps, n), lin_dot)
            if maps[n, SCALE] >= 0:
                norm_scale = _vector(theta, maps[n, SCALE], width)
                for i in range(n_rows):
                    unit, inverse = _unit_row(maps[n, KIND], alpha, beta, pre[i])
                    _project(lin_dot[i], unit, inverse)
                    for u in range(width):
                        lin_dot[i, u] *= norm_scale[u]
        target = output_dot[start:stop] if n == last else _rows(tangents.pre, place, maps, n + 1)
        if maps[n, WEIGHT] < 0:
            copy_rows(0, n_rows, lin_dot, target)
            continue
        adds_input = maps[n, RESIDUAL] >= 0  # The last map never does.
        if adds_input:
            copy_rows(0, n_rows, _rows(tangents.pre, place, maps, maps[n, RESIDUAL]), target)
        read_next = _read_after(n, min(n + 1, last), maps, NOTHING, theta)
        product_before(read_next, lin_dot, _weights(theta, maps, n), target, n < last and not adds_input)


@helper
def backward(start, stop, s, t, maps, potential, values, output_bar, density_bar, ahead):
    """density_bar = rhobar of step t of these atoms from output_bar (N, out), and the stored act_bar and lin_bar.

    Without layer normalisation anywhere act_bar and lin_bar may be the same array.
    """
    place = (t, start, stop, output_bar.shape[0])
    n_rows, last = stop - start, maps.shape[0] - 1
    theta = potential.vector[potential.starts[t, s] :]
    pre_bar_store, pre_bar_place = _new(place, maps[0, ROW], theta.dtype)
    lin_bar_store, lin_bar_place = _kept_or_new(values.lin_bar, place, maps[0, ROW])
    for n in range(last, -1, -1):
        width = maps[n, IN]
        source = output_bar[start:stop] if n == last else _rows(pre_bar_store, pre_bar_place, maps, n + 1)
        # That of map 0 goes on as rhobar alone.
        lin_bar = _rows(lin_bar_store, lin_bar_place, maps, n) if n > 0 else empty((n_rows, width), theta.dtype)
        _back_through_map(s, t, maps, n, potential, source, lin_bar, density_bar, ahead)
        if n > 0:
            pre_bar, (alpha, beta) = _rows(pre_bar_store, pre_bar_place, maps, n), _unit_parameters(theta, maps, n)
            act_bar = _rows(values.act_bar, place, maps, n) if values.act_bar.shape[0] > 0 else lin_bar
            if maps[n, SCALE] >= 0:
                pre, norm_scale = _rows(values.pre, place, maps, n), _vector(theta, maps[n, SCALE], width)
                for i in range(n_rows):
                    unit, inverse = _unit_row(maps[n, KIND], alpha, beta, pre[i])
                    for u in range(width):
                        act_bar[i, u] = lin_bar[i, u] * norm_scale[u]
                    _project(act_bar[i], unit, inverse)
            elif lin_bar.ctypes.data != act_bar.ctypes.data:
                copy_rows(0, n_rows, lin_bar, act_bar)
            if values.act_gate.shape[0] > 0:
                pre, gate = _rows(values.pre, place, maps, n), _rows(values.act_gate, place, maps, n)
                _times_slopes(maps[n, KIND], alpha, beta, pre, gate, act_bar, pre_bar)
            else:
                slope = _rows(values.act_slope, place, maps, n)
                for i in range(n_rows):
                    for u in range(width):
                        pre_bar[i, u] = slope[i, u] * act_bar[i, u]
        _add_residual(maps, n, pre_bar_store, pre_bar_place)


@helper
def _reads_weights_once_more(n_rows, width, out, vector):
    """Whether the weights of the forward sweep serve to go back, too.

    Where the second cache cannot hold them and their transposes, and each is read for so few atoms that this is what
    takes time.
    """
    whole_lines = width % line(vector) == 0 and out % line(vector) == 0
    return whole_lines and n_rows <= FEW_ROWS and 2 * vector.nbytes > IN_SECOND_CACHE


@helper
def _back_through_map(s, t, maps, n, potential, source, lin_bar, density_bar, ahead):
    """lin_bar = source W^T of map n; at map 0 also what that means for the densities of these atoms."""
    n_rows, width, out, start = lin_bar.shape[0], maps[n, IN], maps[n, OUT], potential.starts[t, s]
    if maps[n, WEIGHT] < 0:
        copy_rows(0, n_rows, source, lin_bar)
    elif _reads_weights_once_more(n_rows, width, out, potential.vector):
        product_with_transposed(source, _weights(potential.vector[start:], maps, n), lin_bar)
    else:
        transposed = potential.transposed[start:]
        read_next, weights = _read_after(n, max(n - 1, 0), maps, ahead, transposed), maps[n, WEIGHT]
        product_before(read_next, source, matrix(transposed, weights, out, width), lin_bar, True)
    if n == 0:
        scale = potential.density_scale[t, s]
        for i in range(density_bar.shape[0]):
            for m in range(density_bar.shape[1]):
                density_bar[i, m] = lin_bar[i, m] * scale[m]


@helper
def _add_residual(maps, n, pre_bar_store, place):
    """Where map n starts a block, add the adjoint of that block's result to the adjoint of its start.

    What entered a block also left it unchanged.
    """
    for end in range(maps.shape[0]):
        if n > 0 and maps[end, RESIDUAL] == n:
            pre_bar = _rows(pre_bar_store, place, maps, n)
            add_rows(0, pre_bar.shape[0], _rows(pre_bar_store, place, maps, end + 1), pre_bar)


def _reverse_tangent_of_rows(kind, learned):
    """Helper: ``_activation_reverse_tangent`` of one kind of activations."""

    @helper_on_separate_arrays
    def of_rows(
        alpha, beta, pre, gate, pre_dot, act_bar, act_bar_dot, pre_bar_dot, pre_bar, act, act_dot, alpha_bar_dot,
        beta_bar_dot,
    ):  # fmt: skip
        if learned:
            _clear(alpha_bar_dot)
            _clear(beta_bar_dot)
        for i in range(pre.shape[0]):
            for u in range(alpha.size):
                x, g, along, bar_dot = pre[i, u], gate[i, u], pre_dot[i, u] * act_bar[i, u], act_bar_dot[i, u]
                act[i, u], slope = activation(kind, x, g, alpha[u], beta[u])
                act_dot[i, u], pre_bar[i, u] = slope * pre_dot[i, u], slope * act_bar[i, u]
                curvature = activation_curvature(kind, x, g, alpha[u], beta[u])
                pre_bar_dot[i, u] = slope * bar_dot + curvature * along
                if learned:
                    by_alpha, by_beta, by_alpha_slope, by_beta_slope = activation_parameter_slopes(
                        kind, x, g, alpha[u], beta[u]
                    )
                    alpha_bar_dot[u] += bar_dot * by_alpha + along * by_alpha_slope
                    beta_bar_dot[u] += bar_dot * by_beta + along * by_beta_slope

    return of_rows


_relu_like, _tanh_like = (_reverse_tangent_of_rows(kind, True) for kind in (RELU_LIKE, TANH_LIKE))
_silu, _tanh = (_reverse_tangent_of_rows(kind, False) for kind in (SILU, TANH))


@helper
def _activation_reverse_tangent(kind, *arrays):
    """pre_bar_dot of some rows, and once more their activations, their tangents and pre_bar.

    arrays : alpha, beta, pre, gate, pre_dot, act_bar, act_bar_dot, and then what is filled in: pre_bar_dot, pre_bar,
        act, act_dot and, where they are learned, alpha_bar_dot and beta_bar_dot (width,), what these rows give to the
        gradients of alpha and beta.

    Each kind has a loop of its own: in one for all of them LLVM would work out the formulas of every kind for each
    number, and choose by masks.
    """
    if kind == RELU_LIKE:
        _relu_like(*arrays)
    elif kind == TANH_LIKE:
        _tanh_like(*arrays)
    elif kind == TANH:
        _tanh(*arrays)
    else:
        # The identity, too: its gate is 1, and x / (1 + exp(-x)) is x times the gate.
        _silu(*arrays)


@helper
def backward_tangent(
    start, stop, s, t, maps, moving, potential, values, tangents, output_bar, output_bar_dot, network_bar_dot
):
    """Tangent of ``backward``: that of rhobar, and what these atoms give to the gradient of their network.

    That is the tangent of dE/dtheta, in network_bar_dot: all parameters of the network, in the order of the flat
    vector, or none where nobody asks for it.  output_bar and output_bar_dot (N, out).  Without ``moving`` the atoms
    stand still, and only the tangents of the seeds' adjoints count.
    """
    place = (t, start, stop, output_bar_dot.shape[0])
    n_rows, last = stop - start, maps.shape[0] - 1
    theta, density_bar_dot = potential.vector[potential.starts[t, s] :], tangents.density_bar
    density_bar_dot = density_bar_dot[t % density_bar_dot.shape[0], start:stop]
    pre_bar_store, here = _new(place, maps[0, ROW], theta.dtype)
    pre_bar_dot_store, _ = _new(place, maps[0, ROW], theta.dtype)
    learns = network_bar_dot.size > 0
    for n in range(last, -1, -1):
        width = maps[n, IN]
        target = output_bar[start:stop] if n == last else _rows(pre_bar_store, here, maps, n + 1)
        target_dot = output_bar_dot[start:stop] if n == last else _rows(pre_bar_dot_store, here, maps, n + 1)
        lin_bar_dot = empty((n_rows, width), theta.dtype)
        _back_through_map(s, t, maps, n, potential, target_dot, lin_bar_dot, density_bar_dot, NOTHING)
        if n == 0:
            lin, lin_dot = _inputs(values.inputs, place, maps), _inputs(tangents.inputs, place, maps)
        else:
            lin, lin_dot = empty((n_rows, width), theta.dtype), empty((n_rows, width), theta.dtype)
            pre, pre_dot = _rows(values.pre, place, maps, n), _rows(tangents.pre, place, maps, n)
            gate, act_bar = _rows(values.act_gate, place, maps, n), _rows(values.act_bar, place, maps, n)
            pre_bar, pre_bar_dot = _rows(pre_bar_store, here, maps, n), _rows(pre_bar_dot_store, here, maps, n)
            kind, (alpha, beta) = maps[n, KIND], _unit_parameters(theta, maps, n)
            if not moving:
                # Tangents of pre and adjoints of the activations were not computed: zeros in their place.
                pre_dot = act_bar = full((n_rows, width), 0, theta.dtype)
            act_bar_dot = lin_bar_dot
            if maps[n, SCALE] >= 0:
                lin_bar, act_bar_dot = _rows(values.lin_bar, place, maps, n), empty((n_rows, width), theta.dtype)
                norm_scale = _vector(theta, maps[n, SCALE], width)
                for i in range(n_rows):
                    _norm_reverse_tangent(
                        kind, alpha, beta, norm_scale, pre[i], pre_dot[i], lin_bar[i], act_bar[i], lin_bar_dot[i],
                        act_bar_dot[i], moving,
                    )  # fmt: skip
                if learns:
                    _norm_gradients(
                        kind, alpha, beta, pre, pre_dot, lin_bar, lin_bar_dot, moving,
                        _vector(network_bar_dot, maps[n, SCALE], width),
                        _vector(network_bar_dot, maps[n, SHIFT], width),
                    )  # fmt: skip
            alpha_bar_dot, beta_bar_dot = empty(width, theta.dtype), empty(width, theta.dtype)
            if learns and maps[n, ALPHA] >= 0:
                alpha_bar_dot = _vector(network_bar_dot, maps[n, ALPHA], width)
                beta_bar_dot = _vector(network_bar_dot, maps[n, BETA], width)
            _activation_reverse_tangent(
                kind, alpha, beta, pre, gate, pre_dot, act_bar, act_bar_dot, pre_bar_dot, pre_bar, lin, lin_dot,
                alpha_bar_dot, beta_bar_dot,
            )  # fmt: skip
            if maps[n, SCALE] >= 0 and maps[n, WEIGHT] >= 0:
                norm_scale, norm_shift = _vector(theta, maps[n, SCALE], width), _vector(theta, maps[n, SHIFT], width)
                for i in range(n_rows):
                    inverse = _normalise(lin[i])
                    _project(lin_dot[i], lin[i], inverse)
                    for u in range(width):
                        lin[i, u] = lin[i, u] * norm_scale[u] + norm_shift[u]
                        lin_dot[i, u] *= norm_scale[u]
        if learns and maps[n, WEIGHT] >= 0:
            weight = matrix(network_bar_dot, maps[n, WEIGHT], width, maps[n, OUT])
            # Now, as these rows are in the cache.
            product(lin.T, target_dot, weight, True)
            if moving:
                product(lin_dot.T, target, weight, False)
            _sum_rows(target_dot, _vector(network_bar_dot, maps[n, BIAS], maps[n, OUT]))
        _add_residual(maps, n, pre_bar_dot_store, here)
        _add_residual(maps, n, pre_bar_store, here)


@helper
def _unit_tangent(kind, alpha, beta, pre_row, pre_dot_row):
    """Normalised row, its tangent, 1 / sqrt(variance + eps), and the relative tangent of that."""
    unit, unit_dot = empty(pre_row.size, pre_row.dtype), empty(pre_row.size, pre_row.dtype)
    for u in range(unit.size):
        gate = activation_gate(kind, pre_row[u], beta[u])
        unit[u], slope = activation(kind, pre_row[u], gate, alpha[u], beta[u])
        unit_dot[u] = slope * pre_dot_row[u]
    inverse = _normalise(unit)
    along = _project(unit_dot, unit, inverse)
    return unit, unit_dot, inverse, -inverse * along


@helper
def _norm_reverse_tangent(
    kind, alpha, beta, norm_scale, pre_row, pre_dot_row, lin_bar_row, act_bar_row, lin_bar_dot_row, act_bar_dot_row,
    moving,
):  # fmt: skip
    """Tangent of the reverse of one normalised row: fills act_bar_dot_row."""
    width, number = pre_row.size, pre_row.dtype.type(pre_row.size)
    unit, unit_dot, inverse, relative = _unit_tangent(kind, alpha, beta, pre_row, pre_dot_row)
    along = 0.0
    along_dot = 0.0
    mean_dot = 0.0
    for u in range(width):
        g_dot = lin_bar_dot_row[u] * norm_scale[u]
        along_dot += g_dot * unit[u]
        mean_dot += g_dot
        if moving:
            g = lin_bar_row[u] * norm_scale[u]
            along += g * unit[u]
            along_dot += g * unit_dot[u]
    along /= number
    along_dot /= number
    mean_dot /= number
    for u in range(width):
        g_dot = lin_bar_dot_row[u] * norm_scale[u]
        act_bar_dot_row[u] = inverse * (g_dot - mean_dot - unit_dot[u] * along - unit[u] * along_dot)
        if moving:
            act_bar_dot_row[u] += relative * act_bar_row[u]


@helper
def _clear(vector):
    for u in range(vector.size):
        vector[u] = 0.0


@helper
def _sum_rows(rows, total):
    """total (width,) = sum of the rows (n, width)."""
    _clear(total)
    for i in range(rows.shape[0]):
        for u in range(total.size):
            total[u] += rows[i, u]


@helper
def _norm_gradients(kind, alpha, beta, pre, pre_dot, lin_bar, lin_bar_dot, moving, scale_bar, shift_bar):
    """Fill in scale_bar and shift_bar what some atoms give to the gradient of the normalisation of a map."""
    _clear(scale_bar)
    _clear(shift_bar)
    for i in range(pre.shape[0]):
        unit, unit_dot, _, _ = _unit_tangent(kind, alpha, beta, pre[i], pre_dot[i])
        for u in range(unit.size):
            scale_bar[u] += lin_bar_dot[i, u] * unit[u]
            shift_bar[u] += lin_bar_dot[i, u]
            if moving:
                scale_bar[u] += lin_bar[i, u] * unit_dot[u]


#: So many parameters at a time are added up over blocks.
PIECE = 2048


@helper
def pieces(t, potential):
    """In how many pieces the gradients of all networks of step t are added up."""
    return potential.starts.shape[1] * ((potential.network_sizes[t] + PIECE - 1) // PIECE)


@helper
def place_of_block(b, t, potential, blocks, network_bar_dot, gradient):
    """Where block b leaves what it gives to the gradient of its network: the first of an element in gradient (flat).

    All blocks of an element stand side by side; ``add_up_blocks`` adds the others to the first.
    """
    s = blocks[b, 2]
    if b == 0 or blocks[b - 1, 2] != s:
        return _vector(gradient, potential.starts[t, s], potential.network_sizes[t])
    return network_bar_dot[b]


@helper
def add_up_blocks(piece, t, potential, blocks, network_bar_dot, gradient):
    """Fill in gradient (flat) one of the pieces of step t, from what the blocks have left in their places."""
    size, n_elements = potential.network_sizes[t], potential.starts.shape[1]
    s, begin = piece % n_elements, piece // n_elements * PIECE
    total = _vector(gradient, potential.starts[t, s] + begin, min(PIECE, size - begin))
    found = False
    for b in range(blocks.shape[0]):
        if blocks[b, 2] == s:
            if found:
                given = _vector(network_bar_dot[b], begin, total.size)
                for u in range(total.size):
                    total[u] += given[u]
            found = True
    if not found:
        _clear(total)
