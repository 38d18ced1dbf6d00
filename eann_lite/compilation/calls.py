"""Kernels called from compiled code, by the address of their machine code (``compiled.Kernel.address``), and the tuples
that each thread has for them.

So one call from Python can run several kernels, which are compiled, and kept, once and on their own all the same.

This builds on parts of Numba that are not its public interface.
"""

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.compilation.by_address import ByAddress, goes_by_address, load


@intrinsic
def call_kernel(typing_context, address, *arguments):
    """Run the kernel whose machine code for arguments of exactly these types stands at ``address``.

    arguments : (number of threads, address of what starts them), then those of the kernel.  Nothing tells whether they
    are what it was compiled for.
    """
    passed = [ByAddress(kind) if goes_by_address(kind) else kind for kind in arguments]

    def generate(context, builder, signature, values):
        kind = context.call_conv.get_function_type(types.none, passed)
        kernel = builder.inttoptr(values[0], kind.as_pointer())
        given = cgutils.unpack_tuple(builder, values[1])
        status, _ = context.call_conv.call_function(builder, kernel, types.none, passed, given)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(address, types.StarArgTuple.from_types(arguments)), generate


@intrinsic
def tuple_at(typing_context, like, address):
    """The tuple of the type of ``like`` that is ``Placed`` at an address; somebody else holds its arrays."""

    def generate(context, builder, signature, values):
        place = context.get_value_type(like).as_pointer()
        return load(builder, builder.inttoptr(values[1], place))

    return like(like, address), generate
