"""What every fit has in common: the clock, the history, the best parameters on validation, and its state on disk."""

import signal
import threading
import time
from contextlib import contextmanager

import numpy as np

from eann_lite.termination import Terminated, is_heeded
from eann_lite.training.metrics import error_metrics

#: Plain values and arrays of the common state, as checkpoints hold them.
VALUES = ("step", "seconds", "best_score", "best_epoch", "history", "stop_reason")
ARRAYS = ("parameters", "best")


@contextmanager
def _patient_interrupt():
    """A list that Ctrl-C fills, so that a step ends and is saved before the fit stops; a second Ctrl-C stops at once.

    So does SIGTERM, where it is heeded (``eann_lite.termination``).  It has the numbers of the signals.
    """
    interrupted = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    numbers = [signal.SIGINT, signal.SIGTERM] if is_heeded() else [signal.SIGINT]
    # A process in the background may be one that ignores Ctrl-C.
    before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}

    def note(number, frame):
        interrupted.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """A fit that can stop and go on without a difference in any bit; solvers fill in the work.

    evaluator : ``Evaluator``; loss : ``Loss``; train, valid : ``LabelledSet``; settings : resolved ``FitSettings``.
    vector : starting parameters (flat); scales : their units (flat): solvers work on vector / scales.
    """

    def __init__(self, evaluator, vector, scales, loss, train, valid, settings):
        self.evaluator, self.loss, self.train, self.valid, self.settings = evaluator, loss, train, valid, settings
        self.scales = scales
        self.parameters = vector / scales
        self.best = vector.copy()
        self.best_score, self.best_epoch = np.inf, 0
        self.step = 0
        self.seconds = 0.0
        self.history = []
        self.stop_reason = None
        self._clock = None

    #: Steps of one epoch; what one step is depends on the solver.
    steps_per_epoch = 1

    @property
    def epoch(self):
        """Number of whole epochs done."""
        return self.step // self.steps_per_epoch

    def fraction(self):
        """How much of the fit is done, 0 to 1, by epochs or by time, whichever is further."""
        done = 0.0
        if self.settings.epochs:
            done = self.step / (self.settings.epochs * self.steps_per_epoch)
        if self.settings.minutes:
            done = max(done, self.seconds / (60.0 * self.settings.minutes))
        return min(done, 1.0)

    def run(self, save, report):
        """Train until the epochs or the minutes are over or the solver or patience says stop.

        save() writes a checkpoint, report(row) is called with the history row after an epoch and with None between.
        """
        last_save = time.monotonic()
        self._clock = time.monotonic() - self.seconds
        with _patient_interrupt() as interrupted:
            while self.fraction() < 1.0 and not self.stop_reason:
                row = self.advance()
                self.seconds = time.monotonic() - self._clock
                report(row)
                if interrupted or time.monotonic() - last_save > self.settings.checkpoint_seconds:
                    save()
                    last_save = time.monotonic()
                if interrupted:
                    raise Terminated if interrupted[0] == signal.SIGTERM else KeyboardInterrupt
        if not self.history or self.history[-1]["step"] < self.step:
            report(self.end_epoch(self.current(), self.mean_loss()))

    def advance(self):
        """Work on; returns the history row if an epoch ended, else None."""
        raise TypeError("a Trainer by itself has no solver: use one of eann_lite.training.solvers")

    def mean_loss(self):
        """Mean training loss per structure since the last epoch ended."""
        raise TypeError("a Trainer by itself has no solver: use one of eann_lite.training.solvers")

    def current(self):
        """The parameters (flat, in the model's units) that validation is to judge."""
        return self.parameters * self.scales

    def end_epoch(self, vector, mean_loss, step_size=None):
        """Judge parameters on the validation part, keep them if they are the best so far, and add a history row."""
        self.seconds = time.monotonic() - self._clock
        self.evaluator.set_parameters(vector)
        predictions = self.evaluator.predict(self.valid)
        losses = self.loss.by_structure(self.valid, predictions)
        # The mean of the roots, not of the losses: a few structures with close contacts hold most of the sum of squares,
        # and by that sum a fit would keep whichever model happens to do well on them.
        score = np.mean(np.sqrt(losses))
        better = bool(score < self.best_score)
        number = len(self.history) + 1
        if better:
            self.best, self.best_score, self.best_epoch = vector.copy(), float(score), number
        elif self.settings.patience and number - self.best_epoch >= self.settings.patience:
            self.stop_reason = f"no better validation score for {self.settings.patience} epochs"
        metrics = error_metrics(self.valid, predictions)
        row = {
            "epoch": number,
            "seconds": round(self.seconds, 3),
            "step": self.step,
            "step_size": step_size,
            "loss": mean_loss,
            "validation_loss": float(np.mean(losses)),
            "validation_score": float(score),
            **{name: value for name, value in metrics.items() if name.startswith(("energy", "forces", "stress"))},
            "best": better,
        }
        self.history.append(row)
        return row

    def state(self):
        """(values, arrays) that ``restore`` needs to go on as if never stopped."""
        return {name: getattr(self, name) for name in VALUES}, {name: getattr(self, name) for name in ARRAYS}

    def restore(self, values, arrays):
        """Set the state to what ``state`` gave."""
        for name in VALUES:
            setattr(self, name, values[name])
        for name in ARRAYS:
            setattr(self, name, np.array(arrays[name]))
