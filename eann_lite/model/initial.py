"""Starting parameters, and the constants that a model takes from its training data before the first step."""

import numpy as np

from eann_lite.model.parameters import default_constants, network_names, parameter_shapes

#: Standard deviation of a starting Gaussian, as a part of the cutoff: wide ones, which overlap, extrapolate better to rare
#: close contacts (validation/RECIPES.md).
WIDTH = 1.0 / 6.0
#: Factor on the last weights of a recursion network: messages start small, so a REANN starts as an EANN.
MESSAGE_FACTOR = 0.1
#: So many times the median deviation, three robust standard deviations, errors of energies count in full.
FAR = 4.5
#: Standard deviation of what networks take in; with a larger one they learn finer detail in the same number of steps.
SPREAD = 2.0


def initial_parameters(specification, seed):
    """Random starting parameters, named arrays.

    Gaussians are spread evenly over [0, cutoff]; their standard deviation is a sixth of the cutoff, or their distance where
    that is larger.  Orbital coefficients differ by element; weights are normal with variance 1 / inputs; the last weights
    of every network are small.

    >>> from eann_lite import Specification
    >>> initial_parameters(Specification(elements=("H",), cutoff=4.0, radial=5), seed=1)["radial_centers"]
    array([[0., 1., 2., 3., 4.]])
    """
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(specification)
    n_elements, k = len(specification.elements), specification.radial
    spacing = specification.cutoff / max(k - 1, 1)
    width = max(spacing, WIDTH * specification.cutoff)
    parameters = {
        "radial_exponents": np.full((n_elements, k), 0.5 / width**2),
        "radial_centers": np.tile(np.arange(k) * spacing, (n_elements, 1)),
        "orbital_coefficients": 1.0 + 0.3 * rng.standard_normal((n_elements, k)),
    }
    if "contraction" in shapes:
        parameters["contraction"] = rng.standard_normal(shapes["contraction"]) / np.sqrt(k)
    for name, *_ in network_names(specification):
        for full, shape in shapes.items():
            if not full.startswith(name + "."):
                continue
            kind = full.rsplit(".", 1)[1]
            if kind == "weight":
                parameters[full] = rng.standard_normal(shape) / np.sqrt(shape[0])
                if full == f"{name}.output.weight":
                    parameters[full] *= MESSAGE_FACTOR
            else:
                parameters[full] = np.ones(shape) if kind in ("alpha", "beta", "scale") else np.zeros(shape)
    return {name: parameters[name] for name in shapes}


def scale_to_data(specification, parameters, packed, chosen, precision="float64"):
    """Make orbital sums and densities of the structures ``chosen`` of order one.

    The contraction is divided by the root mean square of the orbital sums of each degree and Gaussian, so that far
    Gaussians (whose monomials grow as r^l) do not drown the near ones; density_shift and density_scale give the
    densities of every step and element a mean of 0 and a standard deviation of SPREAD.  Returns (parameters, constants, variable_scales): the last is the size
    of each parameter that solvers take as one unit (named arrays).
    """
    from eann_lite.batches import draw_batch
    from eann_lite.model.sweeps import Sweeps

    constants = default_constants(specification)
    parameters = {name: array.copy() for name, array in parameters.items()}
    scales = {name: np.ones_like(array) for name, array in parameters.items()}
    sweeps = Sweeps(specification, constants, precision)
    batch = draw_batch(packed, chosen, len(specification.elements), threaded=False)
    sweeps.set_parameters(sweeps.layout.pack(parameters))
    sweeps.forward(batch)
    if "contraction" in parameters:
        squares = (sweeps.values.sums[0].astype(float) ** 2).mean(axis=0) * sweeps.monomials.weight[:, None]
        by_degree = np.zeros((specification.max_degree + 1, specification.radial))
        np.add.at(by_degree, sweeps.monomials.degree, squares)
        largest = by_degree.max(axis=1, keepdims=True)
        # A Gaussian that hardly any neighbour reaches is not blown up without bound.
        size = np.sqrt(np.maximum(by_degree, 1e-4 * largest))
        size[size == 0.0] = 1.0
        parameters["contraction"] /= size[:, :, None]
        scales["contraction"] /= size[:, :, None]
    for t in range(specification.recursions + 1):
        # Step t's densities depend on the messages of the steps before, so they are scaled in turn.
        sweeps.set_parameters(sweeps.layout.pack(parameters))
        sweeps.forward(batch, all_densities=True)
        for s, (start, stop) in enumerate(batch.segments):
            if stop > start:
                density = sweeps.values.density[t, start:stop].astype(float)
                spread = density.std(axis=0)
                floor = 1e-3 * spread.max()
                constants["density_shift"][t, s] = density.mean(axis=0)
                constants["density_scale"][t, s] = SPREAD / np.maximum(spread, floor) if floor > 0 else 1.0
    return parameters, constants, scales


def fit_reference_energies(counts, energies):
    """Energy per element (S,) in eV by least squares on composition; the smallest such solution where it is not unique.

    counts (Q, S): atoms of each element in each structure; energies (Q,) eV.
    """
    from scipy.linalg import lstsq

    # Compositions that are multiples of one another leave a rank of less than S: the cut keeps round-off out of it.
    return lstsq(np.asarray(counts, dtype=float), np.asarray(energies, dtype=float), cond=1e-10)[0]


def shift_of_reference_energies(counts, rest, weights):
    """What to add to the reference energies (S,), in eV, so that a fitted model leaves as little of energies as it can.

    By least squares of the errors per atom, beside one that is zero for each element: structures decide where many
    tell the same, and a single one of an odd composition, which would move all elements a long way, hardly at all.
    Errors of more than FAR times what most have count as ones of that size, so that a broken energy moves nothing, and
    a small group that all others disagree with not much.

    counts (Q, S): atoms of each element in each structure; rest (Q,) eV: energies minus the model's; weights (Q,).

    >>> shift = shift_of_reference_energies([[1, 4]] * 999, [0.05] * 999, [1.0] * 999)
    >>> round(float(shift @ [1, 4]), 4)
    0.0499
    """
    counts, weights = np.asarray(counts, dtype=float), np.asarray(weights, dtype=float)
    n_elements = counts.shape[1]
    if not weights.any():
        return np.zeros(n_elements)
    n_atoms = counts.sum(axis=1)
    per_atom, error = counts / n_atoms[:, None], np.asarray(rest, dtype=float) / n_atoms
    weights = weights / weights[weights > 0.0].mean()  # Neither their unit nor those of no weight are of concern.
    left, shift = error, np.zeros(n_elements)
    for _ in range(30):
        limit = FAR * np.median(np.abs(left[weights > 0.0]))
        far = np.abs(left) > limit
        root = np.sqrt(weights * np.where(far, limit / np.where(far, np.abs(left), 1.0), 1.0))
        rows = np.concatenate([root[:, None] * per_atom, np.eye(n_elements)])
        shift = np.linalg.lstsq(rows, np.concatenate([root * error, np.zeros(n_elements)]), rcond=None)[0]
        left = error - per_atom @ shift
    return shift
