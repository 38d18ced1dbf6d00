"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, with decoupled weight decay.

N. Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv 2409.11321.  For a weight matrix with
gradient G, the averages of G G^T and G^T G have eigenvectors Q_L, Q_R; Adam runs on Q_L^T G Q_R.  Our matrices are at
most about 128 wide, so the products are cheap; the eigenbases are refreshed by one QR step every ``refresh`` steps.
Vectors (biases, Gaussian parameters) take plain Adam.  What is kept and computed for matrices may be of single
precision: a step needs much less than that of a direction, and it takes half the time.
"""

import numpy as np

#: Matrices of one shape that one thread works on together.
MATRICES_PER_STACK = 3


class _Stack:
    """Some matrices of one shape: their place in the vector, averages G G^T and G^T G, and eigenbases.

    momentum and variance live in the eigenbasis: between two turns of it, rotating the averaged gradient is the same
    as averaging the rotated ones, and saves two products a step.
    """

    def __init__(self, starts, shape, dtype):
        rows, columns = shape
        n = len(starts)
        self.starts = np.array(starts)
        self.left, self.right = np.zeros((n, rows, rows), dtype), np.zeros((n, columns, columns), dtype)
        self.q_left, self.q_right = np.zeros_like(self.left), np.zeros_like(self.right)
        self.momentum, self.variance = np.zeros((2, n, rows, columns), dtype)
        self._transpose()

    NAMES = ("left", "right", "q_left", "q_right", "momentum", "variance")

    def step(self, parameters, gradient, step_size, soap):
        """Change these matrices, parts of ``parameters`` (flat), by one step; updates their averages."""
        from eann_lite.kernels import preconditioner

        number = self.left.dtype.type
        rate = number(1.0 - soap.beta2 if soap.steps > 1 else 1.0)
        preconditioner.average_products(gradient, self.starts, rate, self.left, self.right)
        if soap.steps == 1:
            self.q_left = np.linalg.eigh(self.left)[1][:, :, ::-1].copy()
            self.q_right = np.linalg.eigh(self.right)[1][:, :, ::-1].copy()
            self._transpose()
        direction = np.empty_like(self.momentum)
        preconditioner.directions(
            gradient, self.starts, self.q_left, self.q_right, self.q_right_transposed, self.momentum, self.variance,
            *map(number, (soap.beta1, soap.beta2, *soap.corrections, soap.epsilon)), direction,
        )  # fmt: skip
        if soap.steps % soap.refresh == 0:
            preconditioner.turn_bases(
                self.left, self.right, self.q_left, self.q_right, self.q_right_transposed, self.momentum, self.variance
            )
        preconditioner.move(parameters, self.starts, direction, step_size, soap.decay_factor)

    def _transpose(self):
        self.q_right_transposed = np.ascontiguousarray(self.q_right.transpose(0, 2, 1))

    def restore(self, arrays):
        """Set the state to named arrays."""
        for name in self.NAMES:
            setattr(self, name, np.array(arrays[name]))
        self._transpose()


class Soap:
    """State of the solver for a flat parameter vector.

    matrices : list of (start, stop, (rows, columns)) places that are treated as matrices; the rest is a vector.
    decayed : places of the parameters that decay, p -= step * decay * p.
    precision : float64 or float32, of what is kept for matrices and computed with it.

    Without matrices this is Adam with decoupled weight decay (AdamW).
    """

    def __init__(
        self, size, matrices, *, decayed=(), beta1=0.95, beta2=0.95, decay=0.0, refresh=10, epsilon=1e-8,
        precision="float64",
    ):  # fmt: skip
        self.dtype = np.dtype(precision)
        self.beta1, self.beta2, self.decay, self.refresh, self.epsilon = beta1, beta2, decay, refresh, epsilon
        self.steps = 0
        self.stacks = []
        is_vector = np.ones(size, dtype=bool)
        for shape in sorted({shape for _, _, shape in matrices}):
            starts = [start for start, _, own in matrices if own == shape]
            for n in range(0, len(starts), MATRICES_PER_STACK):
                self.stacks.append(_Stack(starts[n : n + MATRICES_PER_STACK], shape, self.dtype))
        for start, stop, _ in matrices:
            is_vector[start:stop] = False
        self.vector_index = np.flatnonzero(is_vector)
        self.momentum, self.variance = np.zeros((2, self.vector_index.size))
        self.decay_factor = np.zeros(size)
        for start, stop, _ in decayed:
            self.decay_factor[start:stop] = decay

    @property
    def corrections(self):
        """Factors that correct the averages of gradients and of their squares for their start at zero."""
        return [1.0 / (1.0 - beta**self.steps) for beta in (self.beta1, self.beta2)]

    def step(self, parameters, gradient, step_size, map=map):
        """Change ``parameters`` (flat) in place by one step along ``gradient``; ``map`` may use threads."""
        from eann_lite.kernels.parameter_steps import adam_step

        self.steps += 1
        matrices = gradient.astype(self.dtype, copy=False)
        # Each stack changes parameters of its own, so threads change nothing in the result.
        list(map(lambda stack: stack.step(parameters, matrices, float(step_size), self), self.stacks))
        adam_step(
            parameters, gradient, self.vector_index, self.momentum, self.variance, self.beta1, self.beta2,
            *self.corrections, self.epsilon, float(step_size), self.decay_factor,
        )  # fmt: skip

    def state(self):
        """Arrays that ``restore`` needs to go on as if never stopped."""
        arrays = {"steps": np.array(self.steps), "momentum": self.momentum, "variance": self.variance}
        for n, stack in enumerate(self.stacks):
            arrays |= {f"{n}.{name}": getattr(stack, name) for name in stack.NAMES}
        return arrays

    def restore(self, arrays):
        """Set the state to what ``state`` gave."""
        self.steps = int(arrays["steps"])
        self.momentum, self.variance = np.array(arrays["momentum"]), np.array(arrays["variance"])
        for n, stack in enumerate(self.stacks):
            stack.restore({name: arrays[f"{n}.{name}"] for name in stack.NAMES})
