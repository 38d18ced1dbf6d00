"""Which variables of a function hold no references of their own: what it is given, and parts of that.

Numba counts an array up where a variable takes it, or a row of it, and down where nobody reads that variable any more:
for every atom and every field of a tuple two instructions for which a processor waits, and two threads for each other.
But what a helper is given its caller holds until it returns; what a kernel is given Python does, or ``placed``.

This builds on parts of Numba that are not its public interface.
"""

from contextlib import contextmanager

from numba.core import errors, ir, types
from numba.core.runtime.context import NRTContext

from eann_lite.compilation.by_address import LoweringByAddress

#: Intrinsics and helpers whose result is part of their first argument.
_BORROWING = []


def borrowing(function):
    """Decorator of an intrinsic or a helper whose result is part of its first argument.

    Helpers that borrow the argument borrow the result, too.  A helper for which it is not true is not compiled.
    """
    _BORROWING.append(function)
    return function


@contextmanager
def _uncounted():
    """Code that is written while this lasts counts no references.

    All code: Numba's lock keeps other threads from writing any, and none of it has other functions compiled.
    """
    before = NRTContext.incref, NRTContext.decref
    NRTContext.incref = NRTContext.decref = lambda self, builder, kind, value: None
    try:
        yield
    finally:
        NRTContext.incref, NRTContext.decref = before


def _gives_a_part(index):
    """Whether an index of this type gives a part of an array, not a new one."""
    if isinstance(index, types.BaseTuple):
        return all(map(_gives_a_part, index.types))
    return isinstance(index, (types.Integer, types.SliceType, types.EllipsisType, types.NoneType))


class _Variables:
    """What is assigned to each variable of a function: ``borrowed``.

    function : Numba's intermediate code; type_of(name): type of a variable; counts(type): whether it holds references.
    """

    def __init__(self, function, type_of, counts):
        self._type_of, self._counts = type_of, counts
        self._assigned, self._returned = {}, []
        for block in function.blocks.values():
            for statement in block.find_insts(ir.Assign):
                self._assigned.setdefault(statement.target.name, []).append(statement.value)
            self._returned += [statement.value.name for statement in block.find_insts(ir.Return)]

    def borrowed(self, first_alone=False):
        """Names of all variables that only ever hold arguments and parts of them; or the first argument's alone."""
        names = {name for name in self._assigned if self._counts(self._type_of(name))}
        while True:
            held = {name for name in names if all(self._is_held(v, names, first_alone) for v in self._assigned[name])}
            if held == names:
                return names
            names = held

    def returns_part_of_first(self):
        """Whether all that is returned is part of the first argument."""
        names = self.borrowed(first_alone=True)
        # What is returned was cast to the type of all that is.
        cast = [value for name in self._returned for value in self._assigned[name]]
        return all(isinstance(value, ir.Expr) and value.op == "cast" and value.value.name in names for value in cast)

    def _is_held(self, value, names, first_alone):
        """Whether the caller holds a value, if it does those of ``names``."""
        if isinstance(value, ir.Arg):
            return value.index == 0 or not first_alone
        if isinstance(value, ir.Var):
            return value.name in names
        if not isinstance(value, ir.Expr):
            return False
        if value.op == "build_tuple":
            return all(item.name in names or not self._counts(self._type_of(item.name)) for item in value.items)
        if value.op == "call":
            return self._is_borrowing(value.func.name) and bool(value.args) and value.args[0].name in names
        if value.op not in ("getattr", "getitem", "static_getitem", "exhaust_iter") or value.value.name not in names:
            return False
        whole = self._type_of(value.value.name)
        if not isinstance(whole, types.Array):
            return isinstance(whole, types.BaseTuple)
        if value.op == "getitem":
            return _gives_a_part(self._type_of(value.index.name))
        return value.op == "static_getitem" or value.op == "getattr" and value.attr == "T"

    def _is_borrowing(self, name):
        """Whether a variable is one of the functions that say so."""
        values = self._assigned.get(name, [])
        return len(values) == 1 and any(getattr(values[0], "value", None) is known for known in _BORROWING)


class LoweringBorrowed(LoweringByAddress):
    """Lowering of a function that counts no references of what its caller holds."""

    def pre_lower(self):
        """Before the first instruction."""
        models = self.context.data_model_manager
        variables = _Variables(self.func_ir, self.typeof, lambda kind: models[kind].contains_nrt_meminfo())
        self._borrowed = variables.borrowed()
        says_so = any(getattr(known, "py_func", None) is self.func_ir.func_id.func for known in _BORROWING)
        if says_so and not variables.returns_part_of_first():
            name = self.func_ir.func_id.func_name
            raise errors.LoweringError(f"{name}: expected it to return part of its first argument, as it says")
        super().pre_lower()

    def lower_inst(self, inst):
        """As Numba's, without an own reference for what is borrowed."""
        name = inst.target.name if isinstance(inst, ir.Assign) else None
        if name not in self._borrowed:
            super().lower_inst(inst)
        elif self._is_called_helper(inst.value):
            # It has counted what it returns; LLVM drops that with this.
            super().lower_inst(inst)
            self.decref(self.typeof(name), self.loadvar(name))
        else:
            with _uncounted():
                super().lower_inst(inst)

    def _is_called_helper(self, value):
        """Whether a value is what a helper returns."""
        called = isinstance(value, ir.Expr) and value.op == "call"
        return called and isinstance(self.typeof(value.func.name), types.Dispatcher)

    def delvar(self, name):
        """As Numba's; what was borrowed is not given back."""
        if name in self._borrowed:
            with _uncounted():
                super().delvar(name)
        else:
            super().delvar(name)
