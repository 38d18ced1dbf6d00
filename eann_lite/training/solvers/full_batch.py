"""Second-order solvers of SciPy on the whole training set: L-BFGS-B, and least squares with matrix-free products."""

import numpy as np

from eann_lite.training.trainer import Trainer

#: Iterations between restarts.  SciPy cannot be stopped and continued inside a run, so a fit is a chain of short runs,
#: each from the parameters of the one before, and a checkpoint stands between two of them.
ROUND = 25
#: Pairs of steps and gradients that L-BFGS remembers.
MEMORY = 25
#: Relative size of the central difference in J u.
DIFFERENCE = 1e-5


class LbfgsTrainer(Trainer):
    """``scipy.optimize.minimize(method="L-BFGS-B")``; one step (and epoch) is one iteration."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.everything = np.arange(self.train.packed.n_structures)
        self.loss_now = np.nan

    def objective(self, parameters):
        """Mean loss per structure and its gradient, in the solver's units; weight decay enters nowhere here."""
        self.evaluator.set_parameters(parameters * self.scales)
        value, gradient = self.evaluator.loss_and_gradient(self.train, self.everything, self.loss)
        return value / self.everything.size, gradient * self.scales / self.everything.size

    def advance(self):
        """One round of iterations; returns the history row."""
        from scipy.optimize import minimize

        iterations = ROUND
        if self.settings.epochs:
            iterations = min(iterations, self.settings.epochs - self.step)
        result = minimize(
            self.objective, self.parameters, jac=True, method="L-BFGS-B",
            options={"maxiter": iterations, "maxcor": MEMORY, "ftol": 0.0, "gtol": 1e-10},
        )  # fmt: skip
        return self._end_round(result, iterations)

    def _end_round(self, result, iterations):
        self.parameters, self.loss_now = np.array(result.x), float(result.fun)
        self.step += max(int(result.nit), 1)
        if result.nit < iterations:
            self.stop_reason = f"the solver cannot make the loss smaller ({result.message})"
        return self.end_epoch(self.current(), self.mean_loss())

    def mean_loss(self):
        """Mean training loss per structure after the last round."""
        return self.loss_now


class LeastSquaresTrainer(LbfgsTrainer):
    """``scipy.optimize.least_squares`` (trust region, LSMR) with J u and J^T w as products, for small problems.

    Residuals are the square roots of the loss terms, without the Huber rule.  J^T w is exact, by the tangent of the
    reverse sweep; J u is a central difference of the residuals along u.
    """

    def advance(self):
        """One round of trust-region steps; returns the history row."""
        from scipy.optimize import least_squares
        from scipy.sparse.linalg import LinearOperator

        def jacobian(parameters):
            size = np.linalg.norm(parameters)

            def forward(u):
                u = np.ravel(u)
                h = DIFFERENCE * size / max(np.linalg.norm(u), 1e-300)
                return (self.residuals(parameters + h * u) - self.residuals(parameters - h * u)) / (2.0 * h)

            shape = (self.residuals(parameters).size, parameters.size)
            return LinearOperator(shape, matvec=forward, rmatvec=lambda w: self.transposed(parameters, np.ravel(w)))

        rounds = ROUND // 5
        result = least_squares(
            self.residuals, self.parameters, jac=jacobian, method="trf", tr_solver="lsmr", max_nfev=rounds,
            tr_options={"maxiter": 50}, ftol=1e-12, xtol=1e-12, gtol=1e-12,
        )  # fmt: skip
        result.fun = 2.0 * result.cost / self.everything.size
        result.nit = rounds if result.status == 0 else result.nfev
        return self._end_round(result, rounds if result.status == 0 else rounds + result.nfev)

    def residuals(self, parameters):
        """Weighted residuals of the whole training set, whose sum of squares is the loss."""
        self.evaluator.set_parameters(parameters * self.scales)
        predictions = self.evaluator.predict(self.train)
        energy, forces, strains = self.loss.root_weights(self.train)
        errors = (
            energy * _known_errors(predictions.energies, self.train.energies),
            forces * _known_errors(predictions.forces, self.train.forces),
            strains * _known_errors(predictions.strains, self.train.strains),
        )
        return np.concatenate([e.ravel() for e in errors])

    def transposed(self, parameters, w):
        """J^T w by the tangent of the reverse sweep."""
        n, atoms = self.everything.size, self.train.packed.species.size
        energy, forces, strains = self.loss.root_weights(self.train)
        weights = (
            energy * w[:n] * ~np.isnan(self.train.energies),
            forces * w[n : n + 3 * atoms].reshape(atoms, 3) * ~np.isnan(self.train.forces),
            strains * w[n + 3 * atoms :].reshape(n, 3, 3) * ~np.isnan(self.train.strains),
        )
        self.evaluator.set_parameters(parameters * self.scales)
        return self.evaluator.weighted_gradient(self.train, *weights) * self.scales


def _known_errors(predicted, labels):
    """predicted - labels, 0 where there is no label: a prediction that is not finite stays so, and SciPy refuses it."""
    return np.where(np.isnan(labels), 0.0, predicted - labels)
