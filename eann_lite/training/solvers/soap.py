"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, with decoupled weight decay.

N. Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv 2409.11321.  For a weight matrix with
gradient G, the averages of G G^T and G^T G have eigenvectors Q_L, Q_R; Adam runs on Q_L^T G Q_R.  Our matrices are at
most about 128 wide, so the products are cheap; the eigenbases are refreshed by one QR step every ``refresh`` steps.
Vectors (biases, Gaussian parameters) take plain Adam.  What is kept and computed for matrices may be of single
precision: a step needs much less than that of a direction, and it takes half the time.
"""

import numpy as np

from eann_lite.compilation.placed import Placed
from eann_lite.kernels import kernels

#: Matrices of one shape that one thread works on together.
MATRICES_PER_STACK = 3


class _Stack:
    """Some matrices of one shape: their place in the vector, averages G G^T and G^T G, and eigenbases.

    momentum and variance live in the eigenbasis: between two turns of it, rotating the averaged gradient is the same
    as averaging the rotated ones, and saves two products a step.
    """

    NAMES = ("left", "right", "q_left", "q_right", "momentum", "variance")

    def __init__(self, starts, shape, decay, dtype):
        rows, columns = shape
        n = len(starts)
        shapes = (rows, rows), (columns, columns), (rows, rows), (columns, columns), shape, shape
        self._set({name: np.zeros((n, *own), dtype) for name, own in zip(self.NAMES, shapes)}, np.array(starts), decay)

    def _set(self, arrays, starts, decay):
        matrices = kernels("preconditioner").Matrices
        arrays["q_right_transposed"] = np.ascontiguousarray(arrays["q_right"].transpose(0, 2, 1))
        self.placed = Placed(matrices(starts=starts, decay=decay, **arrays))

    @property
    def matrices(self):
        """The arrays: ``kernels.preconditioner.Matrices``."""
        return self.placed.value

    def begin(self):
        """Take the eigenbases of the averages."""
        own = self.matrices
        for average, basis in ((own.left, own.q_left), (own.right, own.q_right)):
            basis[:] = np.linalg.eigh(average)[1][:, :, ::-1]
        own.q_right_transposed[:] = own.q_right.transpose(0, 2, 1)

    def restore(self, arrays):
        """Set the state to named arrays."""
        dtype = self.matrices.left.dtype
        given = {name: np.array(arrays[name], dtype, order="C") for name in self.NAMES}
        self._set(given, self.matrices.starts, self.matrices.decay)


class Soap:
    """State of the solver for a flat parameter vector.

    matrices : list of (start, stop, (rows, columns)) places that are treated as matrices; the rest is a vector.
    decayed : places of the parameters that decay, p -= step * decay * p; of a matrix all or none.
    precision : float64 or float32, of what is kept for matrices and computed with it.

    Without matrices this is Adam with decoupled weight decay (AdamW).
    """

    def __init__(
        self, size, matrices, *, decayed=(), beta1=0.95, beta2=0.95, decay=0.0, refresh=10, epsilon=1e-8,
        precision="float64",
    ):  # fmt: skip
        self.dtype = np.dtype(precision)
        self.beta1, self.beta2, self.refresh, self.epsilon = beta1, beta2, refresh, epsilon
        self.steps = 0
        self.decay_factor = np.zeros(size)
        for start, stop, _ in decayed:
            self.decay_factor[start:stop] = decay
        self.stacks = []
        is_vector = np.ones(size, dtype=bool)
        for shape in sorted({shape for _, _, shape in matrices}):
            starts = [start for start, _, own in matrices if own == shape]
            for n in range(0, len(starts), MATRICES_PER_STACK):
                own = starts[n : n + MATRICES_PER_STACK]
                self.stacks.append(_Stack(own, shape, self.decay_factor[own], self.dtype))
        for start, stop, _ in matrices:
            is_vector[start:stop] = False
        self.vector_index = np.flatnonzero(is_vector)
        self.momentum, self.variance = np.zeros((2, self.vector_index.size))

    @property
    def corrections(self):
        """Factors that correct the averages of gradients and of their squares for their start at zero."""
        return [1.0 / (1.0 - beta**self.steps) for beta in (self.beta1, self.beta2)]

    def step(self, parameters, gradient, step_size, threads=1):
        """Change ``parameters`` (flat) in place by one step along ``gradient``, on so many threads."""
        self.steps += 1
        gradient = np.ascontiguousarray(gradient, dtype=float)
        number, rate = self.dtype.type, 1.0 - self.beta2
        if self.steps == 1:
            # A step of length zero in bases of zeros changes left and right alone: the first bases come from them.
            rate = 0.0
            self._step_matrices(threads, gradient, parameters, *6 * [number(1.0)], 0.0, False)
            for stack in self.stacks:
                stack.begin()
        factors = rate, self.beta1, self.beta2, *self.corrections, self.epsilon
        turn = self.steps % self.refresh == 0
        self._step_matrices(
            threads, gradient, parameters, *[number(factor) for factor in factors], float(step_size), turn
        )  # fmt: skip
        kernels("parameter_steps").adam_step(
            parameters, gradient, self.vector_index, self.momentum, self.variance, self.beta1, self.beta2,
            *self.corrections, self.epsilon, float(step_size), self.decay_factor,
        )  # fmt: skip

    def _step_matrices(self, threads, *arguments):
        """One step for all stacks: what ``kernels.preconditioner.soap_step`` takes from gradient to turn.

        Each stack changes parameters of its own, so threads change nothing in the result.
        """
        compiled, placed = kernels("preconditioner"), [stack.placed for stack in self.stacks]
        if placed and compiled.soap_steps.reads(placed[0]):
            places, taken = np.array([each.address for each in placed]), np.zeros((1, 1, 1), np.int64)
            compiled.soap_steps.on_threads(threads, placed[0], places, taken, *arguments)
            return
        for each in placed:
            compiled.soap_step(False, each, *arguments)

    def state(self):
        """Arrays that ``restore`` needs to go on as if never stopped."""
        arrays = {"steps": np.array(self.steps), "momentum": self.momentum, "variance": self.variance}
        for n, stack in enumerate(self.stacks):
            arrays |= {f"{n}.{name}": getattr(stack.matrices, name) for name in stack.NAMES}
        return arrays

    def restore(self, arrays):
        """Set the state to what ``state`` gave."""
        self.steps = int(arrays["steps"])
        self.momentum, self.variance = np.array(arrays["momentum"]), np.array(arrays["variance"])
        for n, stack in enumerate(self.stacks):
            stack.restore({name: arrays[f"{n}.{name}"] for name in stack.NAMES})
