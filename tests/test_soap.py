"""Steps of the stochastic solvers: SOAP for matrices, Adam for all else, against plain versions."""

import numpy as np
import pytest

from eann_lite.compiled import Kernel
from eann_lite.kernels.parameter_steps import add_to_average, scale_gradient
from eann_lite.kernels.preconditioner import Matrices, soap_step
from eann_lite.training.solvers.soap import Soap


def test_soap_minimises_a_badly_scaled_quadratic_where_matrices_mix():
    rng = np.random.default_rng(1)
    left, right = (q * np.logspace(0, 2, 6) for q in np.linalg.qr(rng.normal(size=(2, 6, 6)))[0])
    target = rng.normal(size=(6, 6))

    def gradient(x):
        return left @ left.T @ (x.reshape(6, 6) - target) @ right @ right.T

    x = np.zeros(36)
    solver = Soap(36, [(0, 36, (6, 6))], beta1=0.9, beta2=0.95)
    for step in range(1500):
        solver.step(x, gradient(x).ravel(), 0.05 * (1 - step / 1500))
    np.testing.assert_allclose(x.reshape(6, 6), target, atol=2e-2)


def plain_soap(places, decayed, gradients, x, step_size, decay, refresh, epsilon, beta=0.95):
    """The parameters after every step of SOAP, matrix by matrix, as its paper has it."""
    x, states = x.copy(), [None] * len(places)
    for step, gradient in enumerate(gradients, 1):
        for n, (start, stop, shape) in enumerate(places):
            g = gradient[start:stop].reshape(shape)
            if step == 1:
                left, right = g @ g.T, g.T @ g
                bases = [np.linalg.eigh(average)[1][:, ::-1] for average in (left, right)]
                states[n] = left, right, *bases, np.zeros(shape), np.zeros(shape)
            left, right, q_left, q_right, m, v = states[n]
            left, right = beta * left + (1.0 - beta) * g @ g.T, beta * right + (1.0 - beta) * g.T @ g
            turned = q_left.T @ g @ q_right
            m, v = beta * m + (1.0 - beta) * turned, beta * v + (1.0 - beta) * turned**2
            correction = 1.0 - beta**step
            direction = q_left @ (m / correction / (np.sqrt(v / correction) + epsilon)) @ q_right.T
            own = x[start:stop]
            own -= step_size * ((decay if n in decayed else 0.0) * own + direction.ravel())
            if step % refresh == 0:
                m = q_left @ m @ q_right.T
                for axis, (average, basis) in enumerate(((left, q_left), (right, q_right))):
                    product = average @ basis
                    order = np.argsort(-np.sum(basis * product, axis=0), kind="stable")
                    new, v = np.linalg.qr(product[:, order])[0], np.take(v, order, axis)
                    q_left, q_right = (new, q_right) if axis == 0 else (q_left, new)
                m = q_left.T @ m @ q_right
            states[n] = left, right, q_left, q_right, m, v
    return x


@pytest.mark.parametrize("precision, steps, accuracy", [("float64", 13, 1e-12), ("float32", 1, 1e-4)])
def test_soap_moves_matrices_as_its_paper_says(precision, steps, accuracy):
    rng = np.random.default_rng(8)
    shapes = [(6, 6), (6, 6), (6, 6), (6, 6), (5, 1)]  # Of the first four stacks of three and of one are made.
    starts = [2, 40, 77, 113, 150]
    places = [(start, start + rows * columns, (rows, columns)) for start, (rows, columns) in zip(starts, shapes)]
    decayed, gradients, x = (0, 3, 4), rng.normal(size=(steps, 160)), rng.normal(size=160)
    expected = plain_soap(places, decayed, gradients, x, 0.05, 0.1, 4, 1e-3)
    solver = Soap(
        160, places, decayed=[places[n] for n in decayed], decay=0.1, refresh=4, epsilon=1e-3, precision=precision
    )
    found = x.copy()
    for gradient in gradients:
        solver.step(found, gradient, 0.05)
    for start, stop, _ in places:
        np.testing.assert_allclose(found[start:stop], expected[start:stop], rtol=accuracy, atol=accuracy)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(20, 7), (8, 16), (1, 3)])
def test_bases_of_soap_turn_as_by_qr(shape, precision):
    rng = np.random.default_rng(3)
    rows, columns = shape
    accuracy = 1e-12 if precision == "float64" else 1e-4
    gradients = rng.normal(size=(2, rows, columns))  # so one of the two averages is of deficient rank
    gradients[1] *= 1e-16  # near the end of a fit; the averages hold its square
    averages = [gradients @ gradients.transpose(0, 2, 1), gradients.transpose(0, 2, 1) @ gradients]
    bases = [np.linalg.qr(rng.normal(size=(2, n, n)))[0] for n in shape]
    momentum, variance = rng.normal(size=(2, 2, rows, columns))
    variance = abs(variance)
    arrays = [array.astype(precision) for array in (*averages, *bases, momentum, variance)]
    q_left, q_right = arrays[2:4]
    transposed = np.ascontiguousarray(q_right.transpose(0, 2, 1))
    matrices = Matrices(np.array([0, rows * columns]), np.zeros(2), *arrays[:4], transposed, *arrays[4:])
    parameters, one = rng.normal(size=2 * rows * columns), np.dtype(precision).type(1.0)
    # Of no length, and with averages that stay as they are: what is left is that bases turn.
    zero, same_parameters = np.zeros_like(parameters), parameters.copy()
    soap_step(False, matrices, zero, parameters, 0 * one, one, one, one, one, one, 0.0, True)
    assert (parameters == same_parameters).all()
    assert (transposed == q_right.transpose(0, 2, 1)).all()
    places = []
    for average, before, after in zip(averages, bases, (q_left, q_right)):
        product = average @ before
        place = np.argsort(-np.einsum("nij,nij->nj", before, product), axis=1)
        places.append(place)
        expected = np.linalg.qr(np.take_along_axis(product, place[:, None, :], axis=2))[0]
        rank = min(shape)
        same = np.einsum("nij,nij->nj", expected[:, :, :rank], after[:, :, :rank])  # columns may change their sign
        np.testing.assert_allclose(abs(same), 1.0, atol=accuracy)
        one = np.broadcast_to(np.eye(after.shape[1]), after.shape)
        np.testing.assert_allclose(after.transpose(0, 2, 1) @ after, one, atol=10 * np.finfo(precision).eps)
    turned = q_left @ arrays[4] @ transposed
    np.testing.assert_allclose(turned, bases[0] @ momentum @ bases[1].transpose(0, 2, 1), atol=accuracy)
    for n in range(2):
        assert (arrays[5][n] == variance[n].astype(precision)[np.ix_(places[0][n], places[1][n])]).all()


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_threads_and_steps_matrix_by_matrix_change_no_bit_of_soap(precision, monkeypatch):
    rng = np.random.default_rng(11)
    shapes = [(6, 4), (4, 6)] * 4 + [(5, 5)]
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    places = [(end - rows * columns, end, (rows, columns)) for end, (rows, columns) in zip(ends, shapes)]
    gradients, start = rng.normal(size=(25, ends[-1])), rng.normal(size=ends[-1])

    def after_all(threads):
        solver, x = Soap(ends[-1], places, decayed=places[::2], decay=0.1, precision=precision), start.copy()
        for gradient in gradients:
            solver.step(x, gradient, 0.05, threads)
        return [x.tobytes(), *(array.tobytes() for array in solver.state().values())]

    expected = after_all(1)
    assert after_all(2) == after_all(3) == expected
    # As where kernels cannot read placed tuples.
    monkeypatch.setattr(Kernel, "reads", lambda self, placed: False)
    assert after_all(2) == expected


def test_adam_moves_what_is_no_matrix_as_its_paper_says():
    rng = np.random.default_rng(6)
    places = np.array([0, 3, 4])
    solver = Soap(5, [(1, 3, (1, 2))], decayed=[(3, 4, None)], beta1=0.9, beta2=0.99, decay=0.1, epsilon=1e-3)
    x = rng.normal(size=5)
    expected, m, v, decay = x[places], np.zeros(3), np.zeros(3), np.array([0.0, 0.1, 0.0])
    for step in range(1, 8):
        gradient = rng.normal(size=5)
        solver.step(x, gradient, 0.05)
        m, v = 0.9 * m + 0.1 * gradient[places], 0.99 * v + 0.01 * gradient[places] ** 2
        root = np.sqrt(v / (1.0 - 0.99**step)) + 1e-3
        expected = expected - 0.05 * (decay * expected + m / (1.0 - 0.9**step) / root)
    np.testing.assert_allclose(x[places], expected, rtol=1e-13)


def test_gradients_are_scaled_and_parameters_averaged_and_what_is_not_finite_is_seen():
    rng = np.random.default_rng(7)
    gradient, scales, average = rng.normal(size=(3, 21))
    found, again = gradient.copy(), average.copy()
    assert scale_gradient(found, scales, 7)
    np.testing.assert_allclose(found, gradient * scales / 7, rtol=1e-15)
    add_to_average(again, gradient, 0.25)
    np.testing.assert_allclose(again, 0.75 * average + 0.25 * gradient, rtol=1e-14)
    for n, wrong in [(0, np.nan), (9, np.inf), (20, -np.inf)]:
        broken = gradient.copy()
        broken[n] = wrong
        assert not scale_gradient(broken, scales, 7)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_soap_goes_on_from_its_state_with_the_same_bits(precision):
    rng = np.random.default_rng(2)
    gradients = rng.normal(size=(30, 40))
    places = [(0, 12, (3, 4)), (12, 24, (3, 4)), (24, 34, (5, 2))]
    one, other = (Soap(40, places, decayed=places, decay=0.1, refresh=5, precision=precision) for _ in range(2))
    x, y = np.ones(40), np.ones(40)
    for g in gradients[:17]:
        one.step(x, g, 1e-2)
        other.step(y, g, 1e-2)
    again = Soap(40, places, decayed=places, decay=0.1, refresh=5, precision=precision)
    again.restore({name: np.array(value) for name, value in other.state().items()})
    for g in gradients[17:]:
        one.step(x, g, 1e-2)
        again.step(y, g, 1e-2)
    assert x.tobytes() == y.tobytes()
