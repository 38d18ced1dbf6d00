"""Types of operations that are asked for once, not at every place where they stand.

To find the type of ``a[i]`` or ``x + y`` Numba tries some thirty candidates (numbers, arrays, strings, lists, ...), and
does so anew at every place in every function: a fifth of the time of a first call.  Here a typing context is put in front of
Numba's and remembers what operators of numbers, arrays and indices give.

This builds on parts of Numba that are not its public interface, but on what they have been for years.
"""

import operator

from numba import types
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NopythonTypeInference

#: Operators of Python, written in C.
OPERATORS = {value for value in vars(operator).values() if type(value) is type(operator.add)} | {bool}
#: What is as it is said to be: functions, for example, may be given types later.
SETTLED = (types.Number, types.Boolean, types.Array, types.SliceType)

#: What is known: by typing context, type of the function and types of its arguments.
_known = {}


def _settled(kind):
    return isinstance(kind, SETTLED) or (isinstance(kind, types.BaseTuple) and all(map(_settled, kind.types)))


class _Remembering:
    """A typing context that asks another one, but for what it remembers."""

    def __init__(self, context):
        self._context = context

    def __getattr__(self, name):
        return getattr(self._context, name)

    def resolve_function_type(self, function, arguments, keywords):
        """The signature, or None, as of every typing context."""
        operation = function.typing_key if isinstance(function, types.Function) else function
        known = not isinstance(operation, types.Type) and operation in OPERATORS
        if not known or keywords or not all(map(_settled, arguments)):
            return self._context.resolve_function_type(function, arguments, keywords)
        # Another one once a package has given Numba new candidates for the operator; it is what must know the signature
        # when code is made.
        owner = function if isinstance(function, types.Function) else self._context.resolve_value_type(operation)
        key = self._context, owner, tuple(arguments)
        if key not in _known:
            found = self._context.resolve_function_type(function, arguments, keywords)
            if found is None:
                return None
            _known[key] = found
        return _known[key]


@register_pass(mutates_CFG=True, analysis_only=False)
class RememberingTypeInference(NopythonTypeInference):
    """Numba's type inference, with ``_Remembering`` for its context."""

    _name = "remembering_type_inference"

    def run_pass(self, state):
        """As Numba's."""
        before = state.typingctx
        state.typingctx = _Remembering(before)
        try:
            return super().run_pass(state)
        finally:
            state.typingctx = before
