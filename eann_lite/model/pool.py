"""Many structures on several threads, with results that do not depend on how many."""

import itertools
import os

from eann_lite.batches import THREADED_FROM, pieces_and_atoms
from eann_lite.model.sweeps import Sweeps


def pieces_of(offsets, chosen, atoms_per_piece):
    """(pieces, threaded): a request in pieces, and whether kernels use threads inside of them."""
    pieces, n_atoms = pieces_and_atoms(offsets, chosen, atoms_per_piece)
    return pieces, len(pieces) == 1 and n_atoms >= THREADED_FROM


class SweepPool:
    """Sweeps for several threads.

    A request is cut into pieces by the number of atoms alone; each piece is computed by one thread without threads
    inside, and results come, or are added up, in the order of the pieces.  So they do not depend on the number of
    threads, and threads wait for one another only once per request.  Kernels use threads inside of a single piece if it
    is large.
    """

    def __init__(self, specification, constants, threads=1, precision="float64"):
        self.specification = specification
        self.threads = threads
        self.sweeps = [Sweeps(specification, constants, precision) for _ in range(threads)]
        self.layout = self.sweeps[0].layout
        self._executor = self._started_by = None

    def set_parameters(self, vector):
        """Use the flat parameter vector from now on."""
        self.sweeps[0].set_parameters(vector)
        for sweeps in self.sweeps[1:]:
            sweeps.share_parameters(self.sweeps[0])

    def _work(self, function, items):
        """[function(sweeps, item) for item in items]: each thread has its own sweeps and takes item after item.

        The calling thread is one of them: it would have nothing else to do, and waking another takes time.
        """
        items = list(items)
        helpers = min(self.threads, len(items)) - 1
        results = [None] * len(items)
        numbers = itertools.count()

        def work(sweeps):
            while (number := next(numbers)) < len(items):
                results[number] = function(sweeps, items[number])

        if helpers > 0 and self._started_by != os.getpid():  # A process that was forked has none of the threads.
            from concurrent.futures import ThreadPoolExecutor

            self._executor, self._started_by = ThreadPoolExecutor(self.threads - 1), os.getpid()
        others = [self._executor.submit(work, self.sweeps[1 + n]) for n in range(helpers)]
        try:
            work(self.sweeps[0])
        finally:
            for other in others:
                other.exception()  # waits: nobody works on after an error
        for other in others:
            other.result()
        return results

    def run(self, function, offsets, chosen, atoms_per_piece):
        """(pieces, results): function(sweeps, piece, threaded) for pieces of ``chosen`` (structure indices)."""
        pieces, threaded = pieces_of(offsets, chosen, atoms_per_piece)
        return pieces, self._work(lambda sweeps, piece: function(sweeps, piece, threaded), pieces)
