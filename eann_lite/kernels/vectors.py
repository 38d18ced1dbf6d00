"""Pieces of LLVM code of explicit vector instructions, for Numba intrinsics: loads, stores and sums of some numbers.

Left to itself LLVM does not vectorise loops over 8 Gaussians with a length it does not know: it would have to check at
run time that none of the arrays overlap.  These few pieces say what is meant: vectors of some numbers along the last,
contiguous axis, of float64 or float32 as the arrays are.  LLVM cuts them into whatever the machine has.  They know
nothing of the model; how long before kernels read its arrays they ask for them stands here, for all kernels.  What is
made of them is in ``tiles``, ``orbital_tiles``, ``pair_tiles``, ``second_degree``, ``row_operations`` and
``columns``.
"""

from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eann_lite.compilation.borrowed import borrowing

INDEX, _BYTE = ir.IntType(64), ir.IntType(8)
#: Vectors begin where numbers do, float32 at the least.
ALIGN_4 = ir.Constant(ir.IntType(32), 4)
#: So many pairs before their radial functions are needed these are asked for: what comes from the third cache or from
#: memory has arrived then.
AHEAD = 64
#: The same for vectors, which are read of all pairs of an atom at once: the next two atoms' have come then.
VECTORS_AHEAD = 192
#: Orbital coefficients that pair gradients take are asked for so many pairs before.
COEFFICIENTS_AHEAD = 8
#: What other blocks pass back to an atom is asked for so many atoms before it is summed up.
ATOMS_AHEAD = 4
#: So many bytes that are read again and again, of coefficients or weights, stay in the second cache, whatever else
#: passes through it.
IN_SECOND_CACHE = 2**20


def opened(context, builder, array_type, value):
    """First byte, strides in bytes and shape of an array argument."""
    array = context.make_array(array_type)(context, builder, value)
    base = builder.bitcast(array.data, _BYTE.as_pointer())
    return base, cgutils.unpack_tuple(builder, array.strides), cgutils.unpack_tuple(builder, array.shape)


def element_of(array_type):
    """LLVM type of the numbers of a float array, and its size in bytes."""
    single = array_type.dtype == types.float32
    return (ir.FloatType(), 4) if single else (ir.DoubleType(), 8)


def index_at(builder, base, array_type, place):
    """Number ``place`` of a contiguous array of whole numbers that begins at ``base``, as a 64-bit index."""
    kind = ir.IntType(array_type.dtype.bitwidth)
    number = builder.load(builder.gep(at(builder, base, kind), [place]))
    return number if kind == INDEX else builder.sext(number, INDEX)


def plus(builder, index, n):
    """index + n, for a whole number n that the code knows."""
    return builder.add(index, ir.Constant(INDEX, n))


def address_of(builder, base, *steps):
    """Address after steps (index, stride in bytes) from ``base``."""
    for index, stride in steps:
        base = builder.gep(base, [builder.mul(index, stride)])
    return base


def at(builder, address, kind):
    """The address as that of something of an LLVM type: where it is loaded from or stored."""
    return builder.bitcast(address, kind.as_pointer())


def prefetch(builder, address):
    """Ask for the cache line that an address is in, wherever that is: no array need go so far.

    Into the second cache: the first one can wait for few cache lines at a time.
    """
    pointer, kind = _BYTE.as_pointer(), ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [pointer, kind, kind, kind])
    function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], signature)
    to_read, second_cache, data = 0, 2, 1
    builder.call(function, [address, *(ir.Constant(kind, n) for n in (to_read, second_cache, data))])


def multiply(builder, a, b):
    """a b."""
    # With a flag of its own: Numba lets LLVM fuse operations that have none with sums, or not, as the code around is.
    return builder.fmul(a, b, flags=("nsz",))


def multiply_add(builder, a, b, c):
    """a b + c, with one rounding where the machine has an instruction for it.

    Said so, not allowed: what is only allowed depends on the code around it, and so would the last bit.
    """
    return _built_in(builder, "fmuladd", a, b, c)


def square_root(builder, x):
    """The square root of x."""
    return _built_in(builder, "sqrt", x)


def _built_in(builder, name, *arguments):
    """What a function of LLVM gives for arguments of one kind."""
    kind = arguments[0].type
    of = f"v{kind.count}{kind.element.intrinsic_name}" if isinstance(kind, ir.VectorType) else kind.intrinsic_name
    function_type = ir.FunctionType(kind, [kind] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.{of}"), arguments)


def first_lanes(builder, width, n):
    """Mask of the first n of so many lanes, for ``load`` and ``store``: truths as a vector."""
    kind = ir.VectorType(ir.IntType(32), width)
    n = repeated(builder, builder.trunc(n, kind.element), width)
    return builder.icmp_signed("<", ir.Constant(kind, list(range(width))), n)


def load(builder, place, mask=None):
    """The number or vector there, wherever it begins; with a mask the other lanes are zero and are not looked at."""
    if mask is None:
        return builder.load(place, align=4)
    kind = place.type.pointee
    return _masked(builder, "load", kind, place, (place, ALIGN_4, mask, ir.Constant(kind, None)))


def store(builder, value, place, mask=None):
    """Put a number or vector there, wherever it begins; with a mask what stands in the other lanes stays."""
    if mask is None:
        builder.store(value, place, align=4)
    else:
        _masked(builder, "store", ir.VoidType(), place, (value, place, ALIGN_4, mask))


def _masked(builder, what, result, place, arguments):
    """LLVM's load or store of some lanes of the vector that stands at ``place``."""
    vector = f"v{place.type.pointee.count}{place.type.pointee.element.intrinsic_name}"
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    name = f"llvm.masked.{what}.{vector}.p0{vector}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


def filled(kind, number):
    """A constant number of an LLVM type, or a vector that holds it in every lane."""
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def repeated(builder, number, width):
    """A vector that holds one number ``width`` times."""
    undefined = ir.Constant(ir.VectorType(number.type, width), ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width))


def lanes(builder, a, b, chosen):
    """The chosen lanes of vectors a and b, those of b counted on from those of a."""
    chosen = list(chosen)
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen))


@contextmanager
def rolled_range(builder, end, start=0):
    """As ``cgutils.for_range``, as a loop that LLVM does not unroll: its body fills the registers as it is."""
    with cgutils.for_range(builder, end, ir.Constant(INDEX, start)) as loop:
        yield loop
        last = builder.block
    module = builder.module
    loop_id = module.add_metadata([module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])])
    if loop_id.operands[0] is not loop_id:  # Loops of one module share it.
        # LLVM wants the metadata of a loop to begin with a reference to themselves.
        loop_id.operands = (loop_id, *loop_id.operands)
    last.terminator.set_metadata("llvm.loop", loop_id)


@intrinsic
def line(typing_context, x):
    """How many numbers of an array stand in 64 bytes, a cache line: 8, or 16 of single precision."""
    n = 64 // element_of(x)[1]

    def generate(context, builder, signature, arguments):
        return ir.Constant(INDEX, n)

    return types.intp(x), generate


@borrowing
@intrinsic
def any_layout(typing_context, x):
    """The same array as one whose strides are not known to the compiler, and that counts no references.

    For arguments of helpers alone, which their callers hold: what is made of it does not keep the numbers alive.
    """

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.return_type)(context, builder, arguments[0])
        array.meminfo, array.parent = (cgutils.get_null_value(part.type) for part in (array.meminfo, array.parent))
        return array._getvalue()

    return x.copy(layout="A")(x), generate


def lane_sums_of_each(builder, vectors):
    """The sum of the lanes of each of 1, 2, 4, ... vectors, which have as many or more, as one vector, or a number."""
    width, size = vectors[0].type.count, 1
    while len(vectors) > 1:
        # Lanes 0 and 1 of a and of b, 2 and 3 of both, ... are added up; then the same with pairs of lanes, and so on.
        starts = [range(first * size, width, 2 * size) for first in (0, 1)]
        even, odd = (
            [part + q + lane for q in own for part in (0, width) for lane in range(size)] for own in starts
        )
        vectors = [
            builder.fadd(lanes(builder, a, b, even), lanes(builder, a, b, odd))
            for a, b in zip(vectors[::2], vectors[1::2])
        ]
        size *= 2
    (vector,) = vectors
    return sum_of_lanes(builder, vector, width) if size == 1 else _folded(builder, vector, width, size)


def _folded(builder, vector, width, least):
    """The halves of a vector added up, and again, until there are ``least`` lanes."""
    while width > least:
        width //= 2
        low, high = (lanes(builder, vector, vector, range(start, start + width)) for start in (0, width))
        vector = builder.fadd(low, high)
    return vector


def sum_of_lanes(builder, vector, width):
    """Sum of the elements of a vector: halves first."""
    vector = _folded(builder, vector, width, 1)
    if isinstance(vector.type, ir.VectorType):
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))
    return vector
