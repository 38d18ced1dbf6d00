"""Tuples of arrays that cross from Python into kernels once, not at every call.

To take an array across, Numba looks at a dozen things in it and makes an object that counts its references.  For the
sixty arrays of a model and a batch, twice, that took half as long as one CH4 itself.  A tuple that is ``Placed`` stands
in memory as compiled code reads it (``by_address``), and its address crosses.

This builds on how Numba lays out arrays and tuples, which ``size_is_right`` compares.
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
    """What decides the Numba type of a value: much sooner known than the type."""
    if isinstance(value, Placed):
        return value.kind
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.num & ~OWNS_ITS_MEMORY
    if isinstance(value, tuple):
        return type(value), *map(kind_of, value)
    return type(value)


class _Kind:
    """How tuples of one ``kind_of`` stand in memory."""

    def __init__(self, value):
        self._layout = struct.Struct(_format(value) + "0q")  # Padded at the end, as in C.

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


def _format(value):
    """Format of ``struct`` for a value."""
    if isinstance(value, np.ndarray):
        return f"{ARRAY}{2 * value.ndim}q"
    if isinstance(value, tuple):
        return "".join(map(_format, value))
    for kind, letter in NUMBERS:
        if isinstance(value, kind):
            return letter
    raise TypeError(f"part of a tuple for kernels: expected an array, bool, int, float or tuple, got {value!r}")


def _numbers(value):
    """The numbers of a tuple, in the order of ``_format``."""
    found = []
    for part in value:
        if isinstance(part, np.ndarray):
            found += (0, 0, part.size, part.itemsize, part.ctypes.data, *part.shape, *part.strides)
        elif isinstance(part, tuple):
            found += _numbers(part)
        else:
            found.append(part)
    return found


#: Every ``_Kind`` that there has been, by what ``kind_of`` says of its tuples.
_KINDS = {}


class Placed:
    """A tuple of arrays, numbers and tuples of them, and a copy of it that kernels read: ``address``.

    The arrays themselves are not copied.  It holds them, and must live as long as a kernel works on it.
    """

    __slots__ = ("value", "kind", "address", "_buffer")

    def __init__(self, value):
        self.value = value
        key = kind_of(value)
        self.kind = _KINDS.get(key)
        if self.kind is None:
            self.kind = _KINDS[key] = _Kind(value)
        self._buffer = self.kind.place(value)
        self.address = ctypes.addressof(self._buffer)

