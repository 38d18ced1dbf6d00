"""What a step of a stochastic fit does to vectors of all parameters: one pass over each, where NumPy makes several."""

import math

from eann_lite.compiled import compile_loops, helper_on_separate_arrays


@compile_loops
def scale_gradient(gradient, scales, size):
    """gradient *= scales / size, all flat; returns whether it was finite everywhere before."""
    return _scale_gradient(gradient, scales, float(size))


@helper_on_separate_arrays
def _scale_gradient(gradient, scales, size):
    not_finite = 0
    for n in range(gradient.size):
        # Of NaN and of infinity the difference is NaN, which is no number's equal.
        not_finite += gradient[n] - gradient[n] != 0.0
        gradient[n] *= scales[n] / size
    return not_finite == 0


@compile_loops
def add_to_average(average, parameters, weight):
    """average += weight (parameters - average), all flat."""
    _add_to_average(average, parameters, weight)


@helper_on_separate_arrays
def _add_to_average(average, parameters, weight):
    for n in range(average.size):
        average[n] += weight * (parameters[n] - average[n])


@compile_loops
def adam_step(
    parameters, gradient, places, momentum, variance, beta1, beta2, m_factor, v_factor, epsilon, step_size, decay
):
    """parameters -= step_size (decay parameters + m / (sqrt(v) + epsilon)) in some places of the flat vectors.

    m and v are momentum and variance, averages of the gradient and its square at these places, times factors that
    correct them for their start at zero.  decay (flat), as gradient.
    """
    for n in range(places.size):
        p = places[n]
        g = gradient[p]
        momentum[n] += (1.0 - beta1) * (g - momentum[n])
        variance[n] += (1.0 - beta2) * (g * g - variance[n])
        direction = m_factor * momentum[n] / (math.sqrt(v_factor * variance[n]) + epsilon)
        parameters[p] -= step_size * (decay[p] * parameters[p] + direction)
