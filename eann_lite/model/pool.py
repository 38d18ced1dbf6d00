"""Many structures on several threads, with results that do not depend on how many."""

from eann_lite.batches import batches_of_atoms
from eann_lite.model.sweeps import Sweeps


class SweepPool:
    """Sweeps for several threads.

    A request is cut into pieces by the number of atoms alone; each piece is computed by one thread without threads
    inside, and results come in the order of the pieces.  So they do not depend on the number of threads, and threads
    wait for one another only once per request.  A single piece uses the threaded kernels if it is large.
    """

    def __init__(self, specification, constants, threads=1):
        self.specification = specification
        self.threads = threads
        self.free = [Sweeps(specification, constants) for _ in range(threads)]
        self.layout = self.free[0].layout
        self._executor = None

    def set_parameters(self, vector):
        """Use the flat parameter vector from now on."""
        for sweeps in self.free:
            sweeps.set_parameters(vector)

    def map(self, function, items):
        """[function(item) for item in items] on the threads, in order."""
        if self.threads == 1 or len(items) < 2:
            return [function(item) for item in items]
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(self.threads)
        return list(self._executor.map(function, items))

    def run(self, function, offsets, chosen, atoms_per_piece):
        """(pieces, results): function(sweeps, piece, threaded) for pieces of ``chosen`` (structure indices)."""
        pieces = batches_of_atoms(offsets, chosen, atoms_per_piece)
        threaded = False if len(pieces) > 1 else None

        def work(piece):
            sweeps = self.free.pop()
            try:
                return function(sweeps, piece, threaded)
            finally:
                self.free.append(sweeps)

        return pieces, self.map(work, pieces)
