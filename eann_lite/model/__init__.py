"""Hyperparameters, parameters and evaluation of a model: orchestration, no loops over pairs."""
