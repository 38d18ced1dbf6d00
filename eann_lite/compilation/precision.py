"""One text of a formula for float64 and float32: its constants take the precision of its arguments.

A constant of Python is a float64, and one of them in a formula would turn all that follows into float64 as well.  So
where arguments are of single precision (arrays, also inside of tuples, or numbers) and none is a number of double
precision, constants become float32 before types are inferred, by a compiler pass of our own (Numba's manual, "Notes on
custom pipelines").
"""

import numpy as np
from numba import types
from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.typed_passes import NopythonTypeInference
from numba.core.untyped_passes import IRProcessing

from eann_lite.compilation.remembered import RememberingTypeInference


def is_single(arguments):
    """Whether a function of arguments of these Numba types computes in single precision."""
    if types.float64 in arguments:
        return False
    return any(
        kind == types.float32
        or (isinstance(kind, types.Array) and kind.dtype == types.float32)
        or (isinstance(kind, types.BaseTuple) and any(getattr(t, "dtype", None) == types.float32 for t in kind.types))
        for kind in arguments
    )


@register_pass(mutates_CFG=False, analysis_only=False)
class ConstantPrecision(FunctionPass):
    """Constants of a function that computes in single precision become float32."""

    _name = "constant_precision"

    def __init__(self):
        super().__init__()

    def run_pass(self, state):
        """Replace them in place; returns whether there were any."""
        changed = False
        for block in state.func_ir.blocks.values() if is_single(state.args) else ():
            for statement in block.find_insts(ir.Assign):
                if isinstance(statement.value, (ir.Const, ir.Global, ir.FreeVar)):
                    if type(statement.value.value) is float:
                        statement.value = ir.Const(np.float32(statement.value.value), statement.loc)
                        changed = True
        return changed


class FormulaCompiler(CompilerBase):
    """Numba's passes with ``ConstantPrecision`` among them, and ``RememberingTypeInference`` for the types."""

    #: Passes of our own in place of Numba's.
    own_passes = {NopythonTypeInference: RememberingTypeInference}

    def define_pipelines(self):
        """The one pipeline."""
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state, "formula")
        manager.add_pass_after(ConstantPrecision, IRProcessing)
        manager.passes = [(self.own_passes.get(each, each), text) for each, text in manager.passes]
        manager.finalize()
        return [manager]
