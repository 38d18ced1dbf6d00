"""Models in and out: the model file, and the arrays of the published packages."""
