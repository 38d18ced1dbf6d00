"""Small steps on batches, with averaged parameters and a step size that falls to zero (SOAP or AdamW)."""

import numpy as np

from eann_lite.errors import InputError
from eann_lite.training.solvers.soap import Soap
from eann_lite.training.trainer import Trainer

#: Steps over which the step size rises to its largest value.
WARM_UP = 100
#: Largest weight of the past in the averaged parameters.
AVERAGE = 0.999


def matrix_places(specification, layout):
    """(start, stop, (rows, columns)) of every parameter that is treated as a matrix and that weight decay applies to."""
    places = []
    for name, (start, stop, shape) in layout.places.items():
        if name == "contraction":
            places.append((start, stop, (shape[0] * shape[1], shape[2])))
        elif name.endswith(".weight"):
            places.append((start, stop, shape))
    return places


class StochasticTrainer(Trainer):
    """Epochs of batches; one step is one batch.

    The order of structures in an epoch comes from (seed, epoch) alone, and the step size from the step (in a fit
    limited by time, from the time), so a checkpoint needs the solver's arrays and a few numbers.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        settings, evaluator = self.settings, self.evaluator
        matrices = matrix_places(evaluator.specification, evaluator.layout)
        self.solver = Soap(
            self.parameters.size,
            matrices if settings.solver != "adam" else [],
            decayed=matrices,
            decay=settings.weight_decay,
            precision=settings.precision,
        )
        self.average = self.parameters.copy()
        self.loss_sum = 0.0
        n = self.train.packed.n_structures
        self.batch = min(settings.batch, n)
        self.steps_per_epoch = n // self.batch
        self._order_of = (-1, None)

    def advance(self):
        """One step on one batch."""
        from eann_lite.kernels.parameter_steps import add_to_average, scale_gradient

        epoch, position = divmod(self.step, self.steps_per_epoch)
        if position == 0:
            self.loss_sum = 0.0
        chosen = self._order(epoch)[position * self.batch : (position + 1) * self.batch]
        self.evaluator.set_parameters(self.parameters * self.scales)
        value, gradient = self.evaluator.loss_and_gradient(self.train, chosen, self.loss)
        if not scale_gradient(gradient, self.scales, chosen.size) or not np.isfinite(value):
            raise InputError(
                f"the loss became {value} at step {self.step} (epoch {epoch + 1}). The checkpoint and its best "
                f"parameters are kept. Try a smaller step_size (now {self.settings.step_size:g})."
            )
        self.loss_sum += value / chosen.size
        self.solver.step(self.parameters, gradient, self.step_size(), self.evaluator.threads)
        factor = min(AVERAGE, (1.0 + self.step) / (10.0 + self.step))
        add_to_average(self.average, self.parameters, 1.0 - factor)
        self.step += 1
        if self.step % self.steps_per_epoch == 0:
            return self.end_epoch(self.current(), self.mean_loss(), self.step_size())
        return None

    def _order(self, epoch):
        if self._order_of[0] != epoch:
            rng = np.random.default_rng([self.settings.seed, 2, epoch])
            self._order_of = (epoch, rng.permutation(self.train.packed.n_structures))
        return self._order_of[1]

    def step_size(self):
        """Rises over the first steps, then falls as a cosine to zero at the end of the fit."""
        rise = min(1.0, (self.step + 1) / WARM_UP)
        return float(self.settings.step_size * rise * 0.5 * (1.0 + np.cos(np.pi * self.fraction())))

    def current(self):
        """The averaged parameters."""
        return self.average * self.scales

    def mean_loss(self):
        """Mean training loss per structure over the steps of the present epoch."""
        return self.loss_sum / ((self.step - 1) % self.steps_per_epoch + 1)

    def state(self):
        """(values, arrays) that ``restore`` needs."""
        values, arrays = super().state()
        arrays |= {"average": self.average, **{f"solver.{name}": v for name, v in self.solver.state().items()}}
        return values | {"loss_sum": self.loss_sum}, arrays

    def restore(self, values, arrays):
        """Set the state to what ``state`` gave."""
        super().restore(values, arrays)
        self.loss_sum, self.average = values["loss_sum"], np.array(arrays["average"])
        prefix = "solver."
        self.solver.restore({n[len(prefix) :]: value for n, value in arrays.items() if n.startswith(prefix)})
