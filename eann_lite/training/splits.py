"""Training, validation and test parts of a data set."""

import numpy as np

from eann_lite.elements import chemical_symbol
from eann_lite.errors import InputError


def split(n_structures, fractions, seed, elements=None):
    """Disjoint index arrays by seed: one for each fraction, then the rest, each in increasing order.

    fractions : e.g. (0.1, 0.2) for validation and test; a fraction above 0 gives at least one structure.
    elements : the atomic numbers in each structure (sets).  Where the rest, to train on, would lack one that only
        structures of the other parts have, the first of these (as they were drawn) changes places with the last of the
        rest that has no element alone.  So parts are the same with and without ``elements`` where none is lost.

    InputError where nothing is left to train on, or where no change of places gives the rest all elements.

    >>> valid, train = split(10, (0.2,), seed=0)
    >>> len(valid), len(train)
    (2, 8)
    >>> valid, train = split(10, (0.2,), seed=0, elements=[{29}] * 8 + [{29, 28}, {29}])
    >>> 8 in train, len(valid)
    (True, 2)
    """
    order = np.random.default_rng([seed, 1]).permutation(n_structures)
    sizes = [max(1, round(fraction * n_structures)) if fraction > 0 else 0 for fraction in fractions]
    start = sum(sizes)
    if start >= n_structures:
        raise InputError(
            f"{n_structures} structures cannot be split: validation and test fractions {fractions} leave none to train "
            "on. Give more structures, smaller fractions, or separate files."
        )
    if elements is not None:
        _keep_elements(order, start, elements)
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes))]


def _keep_elements(order, start, elements):
    """Change places in ``order`` so that what follows ``start`` has every element of all structures."""
    counts = {}
    for index in order[start:]:
        for element in elements[index]:
            counts[element] = counts.get(element, 0) + 1
    for missing in sorted(set().union(*elements) - set(counts)):
        if missing in counts:
            continue  # It came with another one.
        spare = (
            (taken, given)
            for taken in range(start)
            if missing in elements[order[taken]]
            for given in reversed(range(start, order.size))
            if all(counts[element] > 1 or element in elements[order[taken]] for element in elements[order[given]])
        )
        taken, given = next(spare, (None, None))
        if given is None:
            raise InputError(
                f"{order.size} structures, split by this seed, leave none with {chemical_symbol(missing)} to train on, "
                f"and each of the {order.size - start} left has an element that no other of them has. Give more "
                "structures, smaller fractions, another split_seed, or separate files for validation and test."
            )
        for element in elements[order[given]]:
            counts[element] -= 1
        for element in elements[order[taken]]:
            counts[element] = counts.get(element, 0) + 1
        order[[taken, given]] = order[[given, taken]]
