"""Finding a jump of a vector-valued function of one number, without being told where it is.

Between two neighbouring points of a scan the function is extrapolated to the middle from three points on the left and
from three on the right.  For a smooth function the two agree up to the third power of the spacing, for one whose slope
jumps up to the first; a jump of the function itself stays, however fine the spacing.  So intervals where both sides
disagree more than around are cut in half again and again: the middle belongs to the side that predicts it better.
A jump is missed where it is small against what the third differences of the scan are there anyway.
"""

from typing import NamedTuple

import numpy as np

#: Spacing of the scan; its variable is the logarithm of a distance, so 0.05 Angstrom at 6 Angstrom.
SPACING = 1 / 120
#: Bisection ends at this width.
NARROWEST = 1e-8
#: How many intervals are narrowed down: those that stand out most, and those with the largest disagreement.
CANDIDATES = 4
#: Weights that extrapolate from one, two and three spacings away (nearest first: 1/2, 3/2, 5/2) to a point.
EXTRAPOLATION = np.array([15.0, -10.0, 3.0]) / 8.0


class Jump(NamedTuple):
    """The worst jump: its size, the limit it is held against, its place, and the entry of the function."""

    size: float
    limit: float
    place: float
    entry: int


def largest_jump(function, start, stop, absolute, relative):
    """The largest ``Jump`` relative to its limit of ``function`` (number -> vector) between start and stop.

    The limit of an entry is ``absolute + relative * size``, size being the largest entry of the vector nearby.

    >>> step = lambda x: np.array([np.sin(x), x + 0.01 * (x > 0.7)])
    >>> jump = largest_jump(step, 0.0, 1.0, absolute=1e-6, relative=1e-6)
    >>> round(jump.size, 6), round(jump.place, 6), jump.entry
    (0.01, 0.7, 1)
    """
    # Room for three points on either side of the first and last interval that is looked at.
    n = max(int(np.ceil((stop - start) / SPACING)), 6)
    points = np.linspace(start, stop, n + 1)
    values = np.array([function(point) for point in points])
    if not np.isfinite(values).all():
        row, entry = np.argwhere(~np.isfinite(values))[0]
        return Jump(float("nan"), absolute, float(points[row]), int(entry))
    left = _extrapolated(values[2:-3], values[1:-4], values[:-5])
    right = _extrapolated(values[3:-2], values[4:-1], values[5:])
    sizes = np.abs(values).max(axis=1)
    limits = absolute + relative * np.maximum(sizes[2:-3], sizes[3:-2])
    scores = np.abs(left - right).max(axis=1) / limits
    jumps = [
        _narrowed(function, float(points[i + 2]), float(points[i + 3]), absolute, relative) for i in _candidates(scores)
    ]
    return max(jumps, key=lambda jump: jump.size / jump.limit)


def _extrapolated(first, second, third):
    return EXTRAPOLATION[0] * first + EXTRAPOLATION[1] * second + EXTRAPOLATION[2] * third


def _candidates(scores):
    """Intervals worth a closer look: they stand out from those four to six away, or have the largest scores."""
    padded = np.pad(scores, 6, mode="edge")
    around = [padded[6 + shift : 6 + shift + scores.size] for shift in (-6, -5, -4, 4, 5, 6)]
    # A score of nearly nothing that stands out from less is nothing either.
    outstanding = scores / (np.median(around, axis=0) + 1e-3)
    chosen = []
    for ranking in (outstanding, scores):
        taken = 0
        for i in np.argsort(-ranking, kind="stable"):
            if taken == CANDIDATES:
                break
            # A jump shows in the two intervals on either side as well, and most in one of these if the slope jumps too.
            if ranking[i] >= ranking[max(i - 2, 0) : i + 3].max():
                taken += 1
                chosen.extend(range(max(i - 2, 0), min(i + 3, scores.size)))
    return sorted(set(chosen))


def _narrowed(function, low, high, absolute, relative):
    """``Jump`` in the interval (low, high) after bisection; ends early where too little is left to break the limit."""
    known = {}

    def at(point):
        if point not in known:
            known[point] = np.asarray(function(point))
        return known[point]

    while True:
        width = high - low
        from_left = _extrapolated(at(low), at(low - width), at(low - 2 * width))
        from_right = _extrapolated(at(high), at(high + width), at(high + 2 * width))
        difference = np.abs(from_left - from_right)
        entry = int(np.argmax(difference))
        limit = absolute + relative * float(max(np.abs(at(low)).max(), np.abs(at(high)).max()))
        middle = float(0.5 * (low + high))
        if difference[entry] <= 0.1 * limit or not np.isfinite(difference).all():
            return Jump(float(difference[entry]), limit, middle, entry)
        if width < NARROWEST:
            # Exactly at an end the jump may lie just outside, where extrapolation sees but a part of it.
            nearby = [at(point) for point in (low - width, low, high, high + width, high + 2 * width)]
            steps = np.abs(np.diff(nearby, axis=0)).max(axis=0)
            return Jump(float(steps[entry]), limit, middle, entry)
        value = at(middle)
        if np.abs(value - from_left).max() <= np.abs(value - from_right).max():
            low = middle
        else:
            high = middle
