"""Processes that compile the same kernel for the same types take turns: the first compiles, the others read its result.

Without that two processes that start with an empty cache do all the work twice, and two that compile one kernel for
different types at the same time may write to one file of Numba's cache and note it down for both.

Nobody waits for ever: a process that is stopped, or a lock left over on a network file system, costs the others
LONGEST_WAIT, then they compile for themselves.  So they do where files cannot be locked (Windows).
"""

import hashlib
import os
from contextlib import ExitStack, contextmanager

from numba.core.compiler_lock import global_compiler_lock

from eann_lite.file_locks import locked

#: Seconds that a process waits for another, several times what a kernel takes.
LONGEST_WAIT = 300.0


class CompiledElsewhere(Exception):
    """Another process is about to compile this kernel."""


class _Patience:
    """How long this process waits for others, in seconds."""

    seconds = LONGEST_WAIT


@contextmanager
def without_waiting():
    """In this process kernels that another is about to compile raise CompiledElsewhere while this lasts."""
    before, _Patience.seconds = _Patience.seconds, None
    try:
        yield
    finally:
        _Patience.seconds = before


@contextmanager
def held(path, seconds=LONGEST_WAIT):
    """While this lasts no other process gets past the same line with the same path, but after so many seconds.

    seconds : None raises CompiledElsewhere at once.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "ab"))
            stack.enter_context(locked(file, seconds or 0.0))
        except BlockingIOError:
            if seconds is None:
                raise CompiledElsewhere(path) from None
        except OSError:
            pass
        yield


def take_turns(dispatcher):
    """Have a dispatcher of Numba with a cache compile, and write to the cache, while no other process does so.

    This builds on parts of Numba that are not its public interface; where they are missing, nobody takes turns.
    """
    cache = dispatcher._cache
    if not all(hasattr(cache, name) for name in ("_impl", "_index_key", "_cache_file")):
        return
    compile_or_load, save = dispatcher.compile, cache.save_overload
    stem = os.path.join(cache.cache_path, cache._impl.filename_base)

    def is_kept(signature):
        return cache._index_key(signature, dispatcher.targetctx.codegen()) in cache._cache_file._load_index()

    # Numba's own lock comes first: a thread that has it may compile a kernel that this one calls.
    @global_compiler_lock
    def compile_in_turn(signature):
        if signature in dispatcher.overloads or is_kept(signature):
            return compile_or_load(signature)
        types = hashlib.sha256(str(signature).encode()).hexdigest()[:16]
        with held(f"{stem}.{types}.lock", _Patience.seconds):
            return compile_or_load(signature)

    def save_in_turn(signature, compiled):
        # The index, which is read, added to and written, is the same for all types.
        with held(f"{stem}.lock"):
            save(signature, compiled)

    dispatcher.compile, cache.save_overload = compile_in_turn, save_in_turn
