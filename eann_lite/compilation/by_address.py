"""Tuples of arrays that helpers, and kernels that share their work among threads, get by their address.

Numba passes every part of a tuple on its own, of each array in it seven numbers and more: hundreds from one function
to the next, a third of all LLVM code.  Helpers get the address of a tuple that their caller holds, and load from there
what they ask for.  (A helper that gets such a tuple cannot call itself: of recursion Numba has its own way.)

This builds on parts of Numba that are not its public interface.
"""

from contextlib import suppress

from numba import types
from numba.core import cgutils, ir
from numba.core.datamodel import register_default
from numba.core.datamodel.models import DataModel
from numba.core.lowering import Lower
from numba.extending import NativeValue, unbox

#: Tuples of fewer numbers are passed as Numba does.
FEWEST = 9
#: Attribute of an LLVM value: where it was loaded from, if it stands there as long as the value is used.
STANDS_AT = "stands_at"


class ByAddress(types.Type):
    """Type of an argument: the address of a tuple of type ``of``, which is what callers give."""

    def __init__(self, of):
        self.of = of
        super().__init__(f"ByAddress({of})")

    def __eq__(self, other):
        """Numba compares what a function takes, on the left, with what it is given (``OverloadSelector._match``).

        Not the other way round, and hashes differ: in tables the two are two types.
        """
        return self.of == (other.of if isinstance(other, ByAddress) else other)

    def __hash__(self):
        return hash(self.name)


@register_default(ByAddress)
class _Model(DataModel):
    """How such an argument is passed."""

    def get_value_type(self):
        return self._dmm.lookup(self._fe_type.of).get_value_type().as_pointer()

    get_argument_type = get_value_type

    def as_argument(self, builder, value):
        """The address of a tuple: where it was loaded from, if it still stands there, or a new place.

        From Python the address has come already.
        """
        address = value if value.type == self.get_value_type() else getattr(value, STANDS_AT, None)
        if address is None:
            with builder.goto_entry_block():
                address = builder.alloca(value.type)
            builder.store(value, address)
        # Numba has two LLVM types for tuples of one kind of arrays.
        return builder.bitcast(address, self.get_value_type())

    def from_argument(self, builder, value):
        return value


@unbox(ByAddress)
def _from_python(kind, number, c):
    """From Python such an argument comes as the address alone (``placed``)."""
    address = c.pyapi.long_as_voidptr(number)
    return NativeValue(c.builder.bitcast(address, c.context.get_value_type(kind)), is_error=c.pyapi.c_api_error())


def _size(kind):
    """How many numbers there are in a value."""
    if isinstance(kind, types.BaseTuple):
        return sum(map(_size, kind.types))
    return 5 + 2 * kind.ndim if isinstance(kind, types.Array) else 1


def goes_by_address(kind):
    """Whether arguments of this type do."""
    return isinstance(kind, types.BaseTuple) and _size(kind) >= FEWEST


def _passed(kind):
    """How a helper gets an argument of this type."""
    return ByAddress(kind) if goes_by_address(kind) else kind


def load(builder, address):
    """What stands at an address, and does so as long as it is used, as a value that knows where."""
    value = builder.load(address)
    setattr(value, STANDS_AT, address)
    return value


class LoweringByAddress(Lower):
    """Lowering of a function that gets tuples by their address, and no references of its own with them."""

    def __init__(self, context, library, fndesc, func_ir, metadata=None):
        fndesc.argtypes = tuple(map(_passed, fndesc.argtypes))
        super().__init__(context, library, fndesc, func_ir, metadata)

    def pre_lower(self):
        """Before the first instruction."""
        self._given = {}
        super().pre_lower()

    def extract_function_arguments(self):
        """As Numba's; LLVM is told that these tuples are reached by no other address, and none of them is kept."""
        found = super().extract_function_arguments()
        for kind, argument in zip(self.fndesc.argtypes, found):
            if isinstance(kind, ByAddress):
                for name in ("noalias", "nonnull", "captures(none)", "nocapture"):
                    with suppress(ValueError):  # The last two are one; which of them there is depends on llvmlite.
                        argument.add_attribute(name)
        return found

    def lower_inst(self, inst):
        """As Numba's, but such an argument has a place already."""
        if isinstance(inst, ir.Assign) and isinstance(inst.value, ir.Arg):
            if isinstance(self.fndesc.argtypes[inst.value.index], ByAddress):
                self._given[inst.target.name] = self.fnargs[inst.value.index]
                return
        super().lower_inst(inst)

    def loadvar(self, name):
        """As Numba's; an argument is loaded from where it stands, and so is a tuple that stands in a variable.

        A helper that is called again and again, in a loop, then gets the variable's address, not one of a new copy.
        """
        if name in self._given:
            return load(self.builder, self._given[name])
        value = super().loadvar(name)
        if name in self.varmap and goes_by_address(self.typeof(name)):
            setattr(value, STANDS_AT, self.varmap[name])
        return value

    def storevar(self, value, name, argidx=None):
        """As Numba's; what gets a second name no longer stands where the first one may be given something else."""
        if getattr(value, STANDS_AT, None) in self.varmap.values():
            delattr(value, STANDS_AT)
        super().storevar(value, name, argidx)

    def delvar(self, name):
        """As Numba's; an argument stays."""
        if name not in self._given:
            super().delvar(name)

    def lower_expr(self, resty, expr):
        """As Numba's, but a field of an argument is loaded alone."""
        if expr.op == "getattr" and expr.value.name in self._given:
            kind = self.typeof(expr.value.name)
            if isinstance(kind, types.BaseNamedTuple) and expr.attr in kind.fields:
                field = kind.fields.index(expr.attr)
                value = self.builder.load(cgutils.gep_inbounds(self.builder, self._given[expr.value.name], 0, field))
                self.incref(resty, value)
                return value
        return super().lower_expr(resty, expr)
