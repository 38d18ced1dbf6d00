"""Blocks shared among threads, loop after loop, within one ``prange`` over workers.

A worker takes the blocks of its own share first, which is the same in every loop, so that its arrays are in the caches
of its core; then it takes what others have left.  It goes on to the next loop once all blocks are done, not once all
workers are there: where another program keeps a core busy, the others do not wait for the thread that stands still
there.  Which thread works on a block changes nothing in the results.

Work on a block must not fail: a block that is never done would be waited for.  (Kernels raise nothing; they allocate
little, but memory that has run out altogether would end so.)
"""

import os

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.compiled import helper
from eann_lite.kernels.vectors import INDEX, address_of, at, filled, opened

#: Counts stand a cache line apart, so that threads do not wait for one another's.
APART = 8
#: So often a worker asks whether others are done before it offers its core to other threads, as one of them may need it.
PATIENCE = 1000


def _place(context, builder, signature, arguments):
    """Where count [loop, row] stands."""
    base, strides, _ = opened(context, builder, signature.args[0], arguments[0])
    return at(builder, address_of(builder, base, *zip(arguments[1:], strides)), INDEX)


@intrinsic
def _count_one(typing_context, counts, loop, row):
    """counts[loop, row, 0] += 1, by one thread at a time; returns what it was."""

    def generate(context, builder, signature, arguments):
        place = _place(context, builder, signature, arguments)
        # Whoever sees the new count sees all that was written before it, too.
        return builder.atomic_rmw("add", place, ir.Constant(INDEX, 1), "acq_rel")

    return types.int64(counts, types.int64, types.int64), generate


@intrinsic
def _counted(typing_context, counts, loop, row):
    """counts[loop, row, 0] as it is now."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_place(context, builder, signature, arguments), "acquire", 8)

    return types.int64(counts, types.int64, types.int64), generate


@intrinsic
def _let_others_run(typing_context):
    """Offer this thread's core to other threads."""

    def generate(context, builder, signature, arguments):
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@helper
def nothing_taken(loops, workers, most_blocks):
    """Counts for ``next_block`` of so many loops: blocks taken of each worker's share, then blocks done.

    There are no more workers than blocks in the longest loop: their number is ``counts.shape[1] - 1``.
    """
    workers = max(1, min(workers, most_blocks))
    return filled(np.empty((loops, workers + 1, APART), np.int64), 0)


@helper
def next_block(counts, loop, worker, n_blocks, done):
    """The next block for a worker of a loop, after it has done one (-1: none yet); -1 when all workers have done all."""
    workers = counts.shape[1] - 1
    if done >= 0:
        _count_one(counts, loop, workers)
    for n in range(workers):
        share = (worker + n) % workers
        begin, end = share * n_blocks // workers, (share + 1) * n_blocks // workers
        # Most often there is nothing left; to see that takes less than to count.
        if begin + _counted(counts, loop, share) < end:
            block = begin + _count_one(counts, loop, share)
            if block < end:
                return block
    asked = 0
    while _counted(counts, loop, workers) < n_blocks:
        asked += 1
        if asked > PATIENCE:
            _let_others_run()
    return -1
