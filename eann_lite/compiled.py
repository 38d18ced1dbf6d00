"""The one place that decides how loops are compiled, where compiled code is kept, and how many threads run.

Numba's own ``cache=True`` watches only the file a function stands in, so a kernel that calls a formula from another
file returns old numbers after that formula changed.  Here the cache directory carries a digest of every source file
that holds compiled code: any change of one of them starts from an empty cache.
"""

import hashlib
import os
import sys
import threading
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import numba
from llvmlite.binding import address_of_symbol

from eann_lite.compilation.by_address import goes_by_address
from eann_lite.compilation.cache_locks import take_turns
from eann_lite.compilation.linked import HelperCompiler, KernelCompiler, PlacedKernelCompiler, SeparateArraysCompiler
from eann_lite.compilation.placed import Placed, kind_of
from eann_lite.compilation.precision import FormulaCompiler

#: Contraction of a*b + c into one rounding is allowed; nothing else that changes results (no reassociation).
FASTMATH = {"contract", "nsz", "arcp"}


#: Where compiled functions stand.  These files import nothing else of the package but errors (a test holds them to
#: it), so their text decides the machine code.
COMPILED_SOURCES = ("compiled.py", "compilation/*.py", "formulas.py", "neighbors.py", "kernels/*.py")


@lru_cache(maxsize=1)
def source_digest():
    """Hexadecimal digest (16 digits) of all sources that compiled code comes from."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for pattern in COMPILED_SOURCES for path in package.glob(pattern)):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def cache_directory():
    """Folder of the compiled kernels of exactly these sources (``EANN_LITE_CACHE`` moves it)."""
    base = os.environ.get("EANN_LITE_CACHE")
    if not base:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eann_lite"
    return str(Path(base) / source_digest())


def formula(function):
    """Decorator of a scalar formula: compiled into whichever kernel calls it, never cached on its own."""
    return numba.njit(
        fastmath=FASTMATH, error_model="numpy", forceinline=True, pipeline_class=FormulaCompiler
    )(function)  # fmt: skip


def helper(function):
    """Decorator of a function on small arrays that only kernels call: compiled with them, never cached on its own."""
    return _part_of_kernels(function, HelperCompiler)


def helper_on_separate_arrays(function):
    """The same where no array that the function writes has a number in common with another of its arguments.

    So loops that take many arrays become vector code.  Nothing checks it: results are wrong where arrays overlap.
    """
    return _part_of_kernels(function, SeparateArraysCompiler)


def _part_of_kernels(function, compiler):
    return numba.njit(
        fastmath=FASTMATH, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True,
        pipeline_class=compiler or FormulaCompiler,
    )(function)  # fmt: skip


def compile_loops(function):
    """Decorator of a kernel: Numba ``njit`` with the options of this package and its cache."""
    return _cached(function, KernelCompiler or FormulaCompiler)


def _cached(function, compiler):
    """Numba's dispatcher of a kernel, with the options of this package and its cache."""
    dispatcher = numba.njit(
        nogil=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True,
        pipeline_class=compiler,
    )(function)  # fmt: skip
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = cache_directory()
    try:
        dispatcher.enable_caching()
        take_turns(dispatcher)
    except (RuntimeError, OSError):
        pass  # No writable folder anywhere: compile anew in each process rather than refuse to run.
    finally:
        numba.config.CACHE_DIR = before
    return dispatcher


#: For a kernel that works alone: one thread, and no need of what starts others.
ALONE = (1, 0)


class Kernel:
    """A kernel that may share its work among threads (``kernels.shares.run_workers``).

    ``kernel(threaded, *arguments)`` runs it, with one more argument, the first: (number of threads, address of what
    starts them).  It is the same machine code with threads and without.  Arguments are arrays, numbers and tuples of
    these, which cross faster where they are ``Placed`` already.  It returns nothing.
    """

    def __init__(self, function):
        self.__doc__ = function.__doc__
        self._function, self._entries, self._read = function, {}, {}
        self._by_address = PlacedKernelCompiler is not None
        self.compiled = _cached(function, PlacedKernelCompiler or KernelCompiler or FormulaCompiler)

    def __call__(self, threaded, *arguments):
        self.run(_threads(threads_in_use()) if threaded else ALONE, *arguments)

    def on_threads(self, threads, *arguments):
        """Run it on so many threads, but no more than Numba was started with, whatever it is set to use now."""
        if threads == 1:
            self.run(ALONE, *arguments)
            return
        before = threads_in_use()
        try:
            self.run(_threads(min(threads, numba.config.NUMBA_NUM_THREADS)), *arguments)
        finally:
            if threads_in_use() != before:  # Numba uses as many from now on as it was asked for here.
                set_threads_again(before)

    def run(self, threads, *arguments):
        """Run it with its first argument, (number of threads, address of what starts them)."""
        with _turn() if threads[0] > 1 else _NO_TURN:
            self._run(threads, *arguments)

    def _run(self, threads, *arguments):
        if not self._by_address:
            self.compiled(threads, *[a.value if isinstance(a, Placed) else a for a in arguments])
            return
        arguments = [Placed(a) if isinstance(a, tuple) else a for a in arguments]
        kinds = tuple([kind_of(a) for a in arguments])
        if kinds not in self._entries:
            self._compile(kinds, threads, arguments)
            if not self._by_address:
                self._run(threads, *arguments)
                return
        entry, crossing, _ = self._entries[kinds]
        entry(threads, *[a if part is None else getattr(a, part) for a, part in zip(arguments, crossing)])

    def reads(self, placed):
        """Whether it reads such tuples where they are ``Placed``."""
        if placed.kind not in self._read:
            self._read[placed.kind] = placed.kind.size_is_right(numba.typeof(placed.value))
        return self._by_address and self._read[placed.kind]

    def address(self, *arguments):
        """Where its machine code for such arguments stands (``compilation.calls``); 0 where it takes whole tuples."""
        arguments = [Placed(a) if isinstance(a, tuple) else a for a in arguments]
        kinds = tuple([kind_of(a) for a in arguments])
        if self._by_address and kinds not in self._entries:
            self._compile(kinds, ALONE, arguments)
        return self._entries[kinds][2] if self._by_address else 0

    def _compile(self, kinds, threads, arguments):
        """Note what runs the kernel for such arguments, and what of each argument crosses.

        Numba's dispatcher, which finds that by itself, looks at every array in every tuple.
        """
        types = [numba.typeof(a.value if isinstance(a, Placed) else a) for a in arguments]
        placed = [isinstance(a, Placed) for a in arguments]
        if not all(a.kind.size_is_right(type_) for a, type_, here in zip(arguments, types, placed) if here):
            self._by_address, self.compiled = False, _cached(self._function, KernelCompiler)
            return
        signature = (numba.typeof(threads), *types)
        entry, found = self.compiled.compile(signature), self.compiled.overloads[signature]
        if found.signature.return_type != numba.types.none:
            raise TypeError(f"kernel {self._function.__name__}: expected it to return nothing")
        parts = ["address" if goes_by_address(type_) else "value" for type_ in types]
        crossing = [part if here else None for part, here in zip(parts, placed)]
        address = found.library.get_pointer_to_function(found.fndesc.llvm_func_name)
        self._entries[kinds] = entry, crossing, address


def _threads(threads):
    """A number of threads, and the address of Numba's function that has them run something.

    In a process that was forked from one with threads there are none, and OpenMP would end it for asking.
    """
    launcher = _parallel_for()
    return (threads, launcher) if launcher and not _forked else ALONE


#: Whether this process was forked from one, with this module in it, in which Numba had started threads.
_forked = False


def _note_fork():
    global _forked
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    _forked = _forked or (parallel is not None and getattr(parallel, "_is_initialized", True))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)

_TURN, _NO_TURN = threading.RLock(), nullcontext()


def _turn():
    """Within this, Numba's threads run something: where they are its own, as there is no OpenMP or TBB, two of Python's
    threads must not ask them at the same time."""
    return _TURN if numba.threading_layer() == "workqueue" else _NO_TURN


@lru_cache(maxsize=1)
def _parallel_for():
    # The symbol exists once threads have been started.
    return address_of_symbol("numba_parallel_for")


@lru_cache(maxsize=1)
def _start_threads():
    """Have Numba start its threads, and have them sleep while they have no work.

    Those of OpenMP look for work for some milliseconds first, unless ``OMP_WAIT_POLICY`` says something else.  Where
    another program wants their core, they have used up their time when there is work, and everybody waits for them:
    192 atoms took 2.3 times as long on two threads as on one, with this 0.9 times.
    """
    policy = "OMP_WAIT_POLICY"
    unset = policy not in os.environ
    if unset:
        os.environ[policy] = "passive"  # OpenMP reads it once, when it is loaded.
    try:
        numba.get_num_threads()
    finally:
        if unset:
            os.environ.pop(policy, None)


def threads_in_use():
    """Number of threads that kernels with threads use now, as set by ``set_threads`` or ``numba.set_num_threads``.

    The first call starts them, if nobody has: where Numba was asked before, they do not sleep.
    """
    return _number_of_threads()()


@lru_cache(maxsize=1)
def _number_of_threads():
    """What tells it: of Numba's own function the part that asks, for its locks take longer."""
    _start_threads()
    return getattr(numba.np.ufunc.parallel, "_get_num_threads", None) or numba.get_num_threads


@lru_cache(maxsize=1)
def _set_number_of_threads():
    """What sets it, likewise, for numbers that have been in use."""
    return getattr(numba.np.ufunc.parallel, "_set_num_threads", None) or numba.set_num_threads


def set_threads_again(threads):
    """``set_threads`` for a number that it, or Numba, has taken before: in a fifth of the time."""
    _set_number_of_threads()(threads)


def set_threads(threads):
    """Use ``threads`` threads from now on (``None`` keeps the present number); returns the number in use.

    Raises InputError for a number below 1 or above what Numba was started with (the number of cores, or
    ``NUMBA_NUM_THREADS``).  Results do not depend on it, bit for bit.
    """
    from eann_lite.errors import InputError

    if threads is None:
        return threads_in_use()
    limit = numba.config.NUMBA_NUM_THREADS
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= limit:
        raise InputError(
            f"threads = {threads!r}: expected a whole number from 1 to {limit}, the number of cores that Numba found "
            "(NUMBA_NUM_THREADS). Give a smaller number."
        )
    _start_threads()
    numba.set_num_threads(threads)
    return threads
