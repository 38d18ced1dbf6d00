"""Training, validation and test parts of a data set."""

import numpy as np

from eann_lite.errors import InputError


def split(n_structures, fractions, seed):
    """Disjoint index arrays by seed: one for each fraction, then the rest, each in increasing order.

    fractions : e.g. (0.1, 0.2) for validation and test; a fraction above 0 gives at least one structure.

    >>> valid, train = split(10, (0.2,), seed=0)
    >>> len(valid), len(train)
    (2, 8)
    """
    order = np.random.default_rng([seed, 1]).permutation(n_structures)
    parts, start = [], 0
    for fraction in fractions:
        size = max(1, round(fraction * n_structures)) if fraction > 0 else 0
        parts.append(np.sort(order[start : start + size]))
        start += size
    if start >= n_structures:
        raise InputError(
            f"{n_structures} structures cannot be split: validation and test fractions {fractions} leave none to train "
            "on. Give more structures, smaller fractions, or separate files."
        )
    return parts + [np.sort(order[start:])]
