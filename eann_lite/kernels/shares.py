"""Workers that share blocks, loop after loop: one on each thread.

``run_workers`` starts them on Numba's own threads.  That is what a ``prange`` over workers would do, but Numba takes
seconds to compile one around whole tuples of arrays, and compiles it apart from the same loop without threads.

A worker takes the blocks of its own share first, which is the same in every loop, so that its arrays are in the caches
of its core; then it takes what others have left.  It goes on to the next loop once all blocks are done, not once all
workers are there: where another program keeps a core busy, the others do not wait for the thread that stands still
there.  Which thread works on a block changes nothing in the results.

Work on a block must not fail: a block that is never done would be waited for.  (Kernels raise nothing; they allocate
little, but where memory has run out altogether threads would wait for one another; a worker alone raises MemoryError.)
"""

import os

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.compilation.by_address import load
from eann_lite.compiled import helper
from eann_lite.kernels.arrays import full
from eann_lite.kernels.vectors import INDEX, address_of, at, opened

#: Counts stand a cache line apart, so that threads do not wait for one another's.
APART = 8
#: So often a worker asks whether others are done before it offers its core to other threads, as one of them may need it.
PATIENCE = 1000


def _place(context, builder, signature, arguments):
    """Where count [loop, row] stands."""
    base, strides, _ = opened(context, builder, signature.args[0], arguments[0])
    return at(builder, address_of(builder, base, *zip(arguments[1:], strides)), INDEX)


@intrinsic
def count_one(typing_context, counts, loop, row):
    """counts[loop, row, 0] += 1, by one thread at a time; returns what it was."""

    def generate(context, builder, signature, arguments):
        place = _place(context, builder, signature, arguments)
        # Whoever sees the new count sees all that was written before it, too, and all see counts change in one order.
        return builder.atomic_rmw("add", place, ir.Constant(INDEX, 1), "seq_cst")

    return types.int64(counts, types.int64, types.int64), generate


@intrinsic
def counted(typing_context, counts, loop, row):
    """counts[loop, row, 0] as it is now."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_place(context, builder, signature, arguments), "seq_cst", 8)

    return types.int64(counts, types.int64, types.int64), generate


@intrinsic
def let_others_run(typing_context):
    """Offer this thread's core to other threads."""

    def generate(context, builder, signature, arguments):
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


def _worker_loop(context, builder, work, kind):
    """LLVM function that runs helper ``work`` (compiled) for some of the workers.

    Of the kind that Numba's ``parallel_for`` calls: (places, sizes, steps, data).  At ``data`` stands a tuple of Numba
    type ``kind``, what the helper gets after the worker's number, and after it a flag that is set where work fails;
    places[0] minus ``data``, in bytes, is the number of the first worker; as many as sizes[0] are to be run, but none
    from sizes[1] on.
    """
    byte, numbers = ir.IntType(8).as_pointer(), INDEX.as_pointer()
    function_type = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), numbers, numbers, byte])
    function = ir.Function(builder.module, function_type, builder.module.get_unique_name("workers"))
    function.linkage = "internal"
    function.attributes.add("noinline")  # Or there would be two copies of all that a kernel does.
    inside = ir.IRBuilder(function.append_basic_block("entry"))
    places, sizes, _, data = function.args
    given = at(inside, data, ir.LiteralStructType([context.get_value_type(kind), INDEX]))
    values = [load(inside, cgutils.gep_inbounds(inside, given, 0, 0, n)) for n in range(len(kind))]
    first = inside.sub(inside.ptrtoint(inside.load(places), INDEX), inside.ptrtoint(data, INDEX))
    end, most = inside.add(first, inside.load(sizes)), inside.load(inside.gep(sizes, [ir.Constant(INDEX, 1)]))
    end = inside.select(inside.icmp_signed("<", end, most), end, most)
    called = context.declare_function(builder.module, work.fndesc)
    with cgutils.for_range_slice(inside, first, end, ir.Constant(INDEX, 1), intp=INDEX) as (worker, _):
        arguments = worker, *values
        status, _ = context.call_conv.call_function(
            inside, called, work.fndesc.restype, work.fndesc.argtypes, arguments
        )  # fmt: skip
        with cgutils.if_unlikely(inside, status.is_error):
            inside.store(ir.Constant(INDEX, 1), cgutils.gep_inbounds(inside, given, 0, 1))
    inside.ret_void()
    return function


@intrinsic
def run_workers(typing_context, work, threads, n_workers, *arguments):
    """work(worker, *arguments) for workers 0 to n_workers - 1, at once on as many threads.

    work : a helper that returns nothing; threads : (number of threads, address of Numba's ``parallel_for``, which one
    worker alone does not need); n_workers : no more than threads.

    Raises MemoryError where work fails, which it must for no other reason.
    """
    called = work.get_call_type(typing_context, (types.int64, *arguments), {})

    def generate(context, builder, signature, values):
        compiled = work.dispatcher.overloads[tuple(called.args)]
        context.active_code_library.add_linking_library(compiled.library)
        loop = _worker_loop(context, builder, compiled, signature.args[3])
        n_threads, launcher = cgutils.unpack_tuple(builder, values[1])
        workers, byte = values[2], ir.IntType(8).as_pointer()
        none, one = ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
        given = cgutils.alloca_once_value(builder, cgutils.make_anonymous_struct(builder, [values[3], none]))
        data = builder.bitcast(given, byte)
        # One "array" of bytes that begins at ``data``, of which each thread gets the next one, and one size more.
        places, steps = cgutils.alloca_once_value(builder, data), cgutils.alloca_once_value(builder, one)
        sizes = cgutils.alloca_once(builder, INDEX, size=2)
        builder.store(workers, builder.gep(sizes, [one]))
        with builder.if_else(builder.icmp_signed("==", workers, one)) as (alone, at_once):
            with alone:
                builder.store(one, sizes)
                builder.call(loop, [places, sizes, steps, data])
            with at_once:
                # All threads, those without a worker too: Numba would use fewer from now on.
                builder.store(n_threads, sizes)
                # parallel_for(function, places, sizes, steps, data, inner dimensions, arrays, threads)
                kind = ir.FunctionType(ir.VoidType(), [byte] * 5 + [INDEX] * 3)
                pointers = [builder.bitcast(pointer, byte) for pointer in (loop, places, sizes, steps, data)]
                start = builder.inttoptr(launcher, kind.as_pointer())
                builder.call(start, [*pointers, one, one, n_threads])
        failed = builder.load(cgutils.gep_inbounds(builder, given, 0, 1))
        with cgutils.if_unlikely(builder, builder.icmp_signed("!=", failed, none)):
            context.call_conv.return_user_exc(builder, MemoryError, ("a kernel found no memory to work in",))
        return context.get_dummy_value()

    return types.void(work, threads, n_workers, types.StarArgTuple.from_types(arguments)), generate


@intrinsic
def fails(typing_context, work, *arguments):
    """Run work(*arguments), a helper that returns nothing; whether it failed, which it may for want of memory alone."""
    called = work.get_call_type(typing_context, arguments, {})

    def generate(context, builder, signature, values):
        compiled = work.dispatcher.overloads[tuple(called.args)]
        context.active_code_library.add_linking_library(compiled.library)
        function = context.declare_function(builder.module, compiled.fndesc)
        given = cgutils.unpack_tuple(builder, values[1])
        status, _ = context.call_conv.call_function(
            builder, function, compiled.fndesc.restype, compiled.fndesc.argtypes, given
        )  # fmt: skip
        return status.is_error

    return types.boolean(work, types.StarArgTuple.from_types(arguments)), generate


@helper
def nothing_taken(loops, threads, most_blocks):
    """Counts for ``next_block`` of so many loops: blocks taken of each worker's share, then blocks done.

    A worker for each of the threads (``run_workers``), but no more than ``most_blocks``: their number is
    ``counts.shape[1] - 1``.
    """
    workers = max(1, min(threads[0], most_blocks))
    return full((loops, workers + 1, APART), 0, np.int64)


@helper
def next_block(counts, loop, worker, n_blocks, done):
    """The next block for a worker of a loop, after it has done one (-1: none yet); -1 when all workers have done all.

    Loops of odd number take the blocks of a share from the last one on: after a loop of even number they begin with what
    is in the caches still.
    """
    workers = counts.shape[1] - 1
    if done >= 0:
        count_one(counts, loop, workers)
    for n in range(workers):
        share = (worker + n) % workers
        begin, end = share * n_blocks // workers, (share + 1) * n_blocks // workers
        # Most often there is nothing left; to see that takes less than to count.
        if begin + counted(counts, loop, share) < end:
            block = begin + count_one(counts, loop, share)
            if block < end:
                return block if loop % 2 == 0 else begin + end - 1 - block
    asked = 0
    while counted(counts, loop, workers) < n_blocks:
        asked += 1
        if asked > PATIENCE:
            let_others_run()
    return -1


@helper
def block_after(loop, b, n_blocks):
    """The block that most often comes after b in a loop; -1 where there is none."""
    after = b + 1 if loop % 2 == 0 else b - 1
    return after if after < n_blocks else -1
