"""New arrays and parts of flat ones inside of kernels, as single pieces of LLVM code.

For each of NumPy's functions Numba compiles up to three of its own, anew for every kind of array; slices and changes of
shape become code that looks after many cases, again at every place.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from eann_lite.compilation.borrowed import borrowing
from eann_lite.kernels.vectors import INDEX

#: New arrays begin with a cache line.
ALIGNED = 64


def _array_type(shape, dtype):
    """Numba type of the array, from those of its shape and of its dtype."""
    sizes = shape.types if isinstance(shape, types.BaseTuple) else (shape,)
    assert all(isinstance(size, types.Integer) for size in sizes)
    return types.Array(dtype.dtype, len(sizes), "C")


def _allocated(context, builder, kind, shape_type, shape):
    """An array of type ``kind``, from the LLVM value of its shape."""
    if isinstance(shape_type, types.BaseTuple):
        sizes = zip(cgutils.unpack_tuple(builder, shape), shape_type.types)
    else:
        sizes = [(shape, shape_type)]
    sizes = [context.cast(builder, size, of_size, types.intp) for size, of_size in sizes]
    data = context.get_data_type(kind.dtype)
    itemsize = ir.Constant(INDEX, context.get_abi_sizeof(data))
    strides = [itemsize]
    for size in reversed(sizes):
        strides.insert(0, builder.mul(strides[0], size))
    n_bytes, *strides = strides
    # More than there can be, so that MemoryError says it.
    negative = builder.icmp_signed("<", n_bytes, ir.Constant(INDEX, 0))
    n_bytes = builder.select(negative, ir.Constant(INDEX, 2**63 - 1), n_bytes)
    memory = context.nrt.meminfo_alloc_aligned(builder, n_bytes, ir.Constant(ir.IntType(32), ALIGNED))
    array = make_array(kind)(context, builder)
    start = builder.bitcast(context.nrt.meminfo_data(builder, memory), data.as_pointer())
    populate_array(array, data=start, shape=sizes, strides=strides, itemsize=itemsize, meminfo=memory)
    return array


@intrinsic
def empty(typing_context, shape, dtype):
    """``np.empty(shape, dtype)``, from a cache line on; shape is one whole number or a tuple of some.

    Raises MemoryError where there is not enough, or for a negative size.  That sizes multiply to less than 2^63 bytes
    is for the caller to know.
    """
    kind = _array_type(shape, dtype)

    def generate(context, builder, signature, arguments):
        return _allocated(context, builder, kind, shape, arguments[0])._getvalue()

    return kind(shape, dtype), generate


@intrinsic
def full(typing_context, shape, number, dtype):
    """``np.full(shape, number, dtype)``, likewise."""
    kind = _array_type(shape, dtype)

    def generate(context, builder, signature, arguments):
        array = _allocated(context, builder, kind, shape, arguments[0])
        value = context.cast(builder, arguments[1], number, kind.dtype)
        with cgutils.for_range(builder, array.nitems, intp=array.nitems.type) as loop:
            context.pack_value(builder, kind.dtype, value, builder.gep(array.data, [loop.index]))
        return array._getvalue()

    return kind(shape, number, dtype), generate


@intrinsic
def bytes_of(typing_context, value):
    """A tuple as it stands in memory (new array of bytes), with no reference to who holds the memory of its arrays.

    What ``compilation.placed`` makes of one, by compiled code that has the arrays at hand.
    """
    kind = types.Array(types.uint8, 1, "C")

    def generate(context, builder, signature, arguments):
        (packed,), place = arguments, context.get_value_type(value)
        for n, part in enumerate(value.types):
            if isinstance(part, types.Array):
                array = make_array(part)(context, builder, builder.extract_value(packed, n))
                array.meminfo, array.parent = (cgutils.get_null_value(x.type) for x in (array.meminfo, array.parent))
                packed = builder.insert_value(packed, array._getvalue(), n)
        size = ir.Constant(INDEX, context.get_abi_sizeof(place))
        memory = _allocated(context, builder, kind, types.intp, size)
        builder.store(packed, builder.bitcast(memory.data, place.as_pointer()))
        return memory._getvalue()

    return kind(value), generate


@borrowing
@intrinsic
def matrix(typing_context, flat, start, rows, columns):
    """``flat[start : start + rows * columns].reshape((rows, columns))`` of a contiguous array.

    Nothing is checked: start is not negative, and the array reaches so far.
    """
    assert flat.ndim == 1 and flat.layout == "C"
    kind = flat.copy(ndim=2)

    def generate(context, builder, signature, arguments):
        whole = make_array(flat)(context, builder, arguments[0])
        given = zip(arguments[1:], signature.args[1:])
        start, *sizes = (context.cast(builder, number, of_number, types.intp) for number, of_number in given)
        part = make_array(kind)(context, builder)
        populate_array(
            part, data=builder.gep(whole.data, [start]), shape=sizes,
            strides=[builder.mul(whole.itemsize, sizes[1]), whole.itemsize], itemsize=whole.itemsize,
            meminfo=whole.meminfo, parent=whole.parent,
        )  # fmt: skip
        return impl_ret_borrowed(context, builder, kind, part._getvalue())

    return kind(flat, start, rows, columns), generate
