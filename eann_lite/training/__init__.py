"""From labelled structures to fitted parameters: splits, loss, objective, solvers, checkpoints, history."""
