"""Clocks: several calls taking turns, and how fast this machine multiplies meanwhile."""

import statistics
import time

import numpy as np

#: Rows of the square matrices whose product measures the dense rate.
DENSE = 1024


def here(call):
    """seconds(loops) of a function of this process; the other processes have such functions of their own."""

    def seconds(loops):
        start = time.perf_counter()
        for _ in range(loops):
            call()
        return time.perf_counter() - start

    return seconds


def dense_product():
    """seconds(loops) of one product of two float64 matrices."""
    a, b = np.random.default_rng(0).normal(size=(2, DENSE, DENSE))
    out = np.empty_like(a)
    return here(lambda: np.dot(a, b, out=out))


class Times(dict):
    """Seconds per call of everything that took turns: {name: [one of every round]}."""

    def median(self, name):
        return statistics.median(self[name])

    def spread(self, name):
        """Half of what lies between the quartiles, relative to the median."""
        low, high = np.percentile(self[name], [25, 75])
        return (high - low) / 2.0 / self.median(name)

    @property
    def rate(self):
        """Dense multiply-adds per second in these rounds."""
        return DENSE**3 / self.median("dense")


def take_turns(timers, repeats, shortest, longest):
    """``Times`` of {name: seconds(loops)} and of the dense product, in rounds A B C, A B C, ...

    One measurement repeats short calls for at least ``shortest`` seconds: the first call of a turn, which finds the
    caches full of what the others left, takes up to a third longer than those of a fit or a dynamics.  There are
    ``repeats`` rounds, fewer (but 3) when they take more than ``longest`` seconds.
    """
    timers = timers | {"dense": dense_product()}
    loops = {}
    for name, seconds in timers.items():
        seconds(1)  # compiles
        # The best of three: right after that Python may look for objects that nobody needs, for half a second.
        loops[name] = max(1, round(shortest / max(min(seconds(1) for _ in range(3)), 1e-7)))
    times = Times({name: [] for name in timers})
    start = time.perf_counter()
    for n in range(repeats):
        if n >= 3 and time.perf_counter() - start > longest:
            break
        for name, seconds in timers.items():
            times[name].append(seconds(loops[name]) / loops[name])
    return times


def exponent(sizes, seconds):
    """b of the straight line log(seconds) = a + b log(size)."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
