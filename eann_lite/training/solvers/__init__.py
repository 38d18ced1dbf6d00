"""Solvers: ways to make the loss small, behind one interface (``eann_lite.training.trainer.Trainer``)."""


def trainer_class(name):
    """Trainer of a solver by its name in the settings: soap, adam, lbfgs or least_squares."""
    from eann_lite.training.solvers.full_batch import LbfgsTrainer, LeastSquaresTrainer
    from eann_lite.training.solvers.stochastic import StochasticTrainer

    return {
        "soap": StochasticTrainer,
        "adam": StochasticTrainer,
        "lbfgs": LbfgsTrainer,
        "least_squares": LeastSquaresTrainer,
    }[name]
