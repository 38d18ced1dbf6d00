"""Tuples of arrays that cross from Python into kernels once, not at every call.

To take an array across, Numba looks at a dozen things in it and makes an object that counts its references.  For the
sixty arrays of a model and a batch, twice, that took half as long as one CH4 itself.  A tuple that is ``Placed`` stands
in memory as compiled code reads it (``by_address``), and its address crosses.  Nobody counts references there: Python
holds the arrays while a kernel works on them.

This builds on how Numba lays out arrays and tuples; where a tuple takes another number of bytes, kernels get it as it
is.
"""

import ctypes
import struct

import numpy as np

#: An array: two pointers to who holds its memory (nobody does here), size, bytes of a number, and where they begin.
ARRAY = "PPqqP"
NUMBERS = ((bool, "?"), (int, "q"), (float, "d"))
#: Flag of an array that its type does not depend on.
OWNS_ITS_MEMORY = 0x4


def kind_of(value):
    """What decides the Numba type of a value, and takes far less time to find."""
    if isinstance(value, Placed):
        return value.kind
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.num & ~OWNS_ITS_MEMORY
    return type(value)


class _Kind:
    """How tuples of one ``kind_of`` stand in memory."""

    def __init__(self, value):
        self._layout = struct.Struct("".join(map(_format, value)) + "0q")  # Padded at the end, as in C.

    def place(self, value):
        """A buffer with a tuple in it."""
        buffer = ctypes.create_string_buffer(self._layout.size)
        self._layout.pack_into(buffer, 0, *_numbers(value))
        return buffer

    def size_is_right(self, numba_type):
        """Whether Numba gives a tuple of this type as many bytes."""
        from numba.core.registry import cpu_target

        context = cpu_target.target_context
        return self._layout.size == context.get_abi_sizeof(context.get_value_type(numba_type))


def _format(part):
    """Format of ``struct`` for a part of a tuple."""
    if isinstance(part, np.ndarray):
        return f"{ARRAY}{2 * part.ndim}q"
    for kind, letter in NUMBERS:
        if isinstance(part, kind):
            return letter
    raise TypeError(f"part of a tuple for kernels: expected an array, bool, int or float, got {part!r}")


def _numbers(value):
    """The numbers of a tuple, in the order of ``_format``."""
    found = []
    for part in value:
        if isinstance(part, np.ndarray):
            found += (0, 0, part.size, part.itemsize, _address(part), *part.shape, *part.strides)
        else:
            found.append(part)
    return found


def _address(array):
    """Where the numbers of an array begin: ``array.ctypes.data``, but most often sooner."""
    if array.size:
        try:
            return ctypes.addressof(ctypes.c_char.from_buffer(array))
        except (TypeError, ValueError):
            pass  # It is read-only or has gaps.
    return array.ctypes.data


#: Every ``_Kind`` that there has been, by what ``kind_of`` says of its tuples, and of those that compiled code makes.
_KINDS, _KINDS_MADE = {}, {}


def _kind_of_tuple(value):
    key = type(value), *map(kind_of, value)
    if key not in _KINDS:
        _KINDS[key] = _Kind(value)
    return _KINDS[key]


class Placed:
    """A tuple of arrays and numbers, and a copy of it that kernels read: ``address``.

    The arrays themselves are not copied.  It holds them, and must live as long as a kernel works on it.
    """

    __slots__ = ("value", "kind", "address", "_buffer")

    def __init__(self, value):
        self.value = value
        self.kind = _kind_of_tuple(value)
        self._buffer = self.kind.place(value)
        self.address = ctypes.addressof(self._buffer)

    @classmethod
    def made(cls, value, memory):
        """A tuple that compiled code has made, with the ``kernels.arrays.bytes_of`` it: in a tenth of the time.

        All of one class have parts of the same types.
        """
        placed, made = cls.__new__(cls), type(value)
        if made not in _KINDS_MADE:
            _KINDS_MADE[made] = _kind_of_tuple(value)
        placed.value, placed.kind, placed._buffer, placed.address = value, _KINDS_MADE[made], memory, _address(memory)
        return placed

    def __reduce__(self):
        """A copy stands in a place of its own."""
        return Placed, (self.value,)
