"""How kernels, their helpers and their loops over threads are compiled.

Helpers and loops become code that kernels link in and optimise, not machine code.

Numba turns every function that it compiles into machine code, those that only kernels call as well, and with each the
functions that it calls: code at the bottom of four calls is generated five times before a kernel is ready, and the body
of a ``prange`` four times.  This more than halves the time of the first call.

All of them ask for vectors of 512 bits, where the machine has them.  Left to itself LLVM takes 256 for most Intel
processors, since some lower their clock for longer ones; the explicit vectors of ``kernels.vectors`` do so anyway.

This builds on parts of Numba that are not its public interface; where the attributes used are missing,
``HelperCompiler`` and ``KernelCompiler`` are None and all is compiled as usual.
"""

from contextlib import contextmanager

from numba.core import ir
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

from eann_lite.precision import ConstantPrecision, FormulaCompiler

#: How the names begin of the three libraries that Numba makes of the body of a ``prange``, one inside of the next.
LOOP_BODIES = ("__numba_parfor_gufunc", "<numba.np.ufunc.wrappers._GufuncWrapper", "parallelgufuncwrapper")


class _NoEnvironment:
    """In place of the code generator where Numba gives a function its globals in Python, which helpers do not use."""

    @staticmethod
    def set_env(name, environment):
        """Nothing to do."""


class _LongVectors(JITCodeLibrary):
    """Code of functions whose loops may use vectors of 512 bits."""

    def add_ir_module(self, module):
        """As Numba's, after every function of the module has been told."""
        for function in module.functions:
            # Should llvmlite keep attributes otherwise, loops are as long as LLVM makes them.
            if not function.is_declaration and isinstance(function.attributes, set):
                # Not their own ``add``, which knows attributes without a value only.
                set.add(function.attributes, '"prefer-vector-width"="512"')
        super().add_ir_module(module)


class _LinkedLibrary(_LongVectors):
    """LLVM code of one helper."""

    codegen = _NoEnvironment

    def _optimize_final_module(self):
        """Optimised where it is linked in."""

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name):
        """No machine code, so no address."""
        return 0


class _Borrowing(Lower):
    """Lowering that leaves the reference counts of arguments alone: the caller holds them until the helper returns.

    Otherwise every call of a helper counts all arrays of the tuples it is given up and down again, a hundred and more.
    """

    def lower_assign(self, ty, inst):
        """As Numba's, without an own reference for an argument."""
        if not isinstance(inst.value, ir.Arg):
            return super().lower_assign(ty, inst)
        self._borrowed.add(inst.target.name)
        self._counts = False
        try:
            return super().lower_assign(ty, inst)
        finally:
            self._counts = True

    def delvar(self, name):
        """As Numba's; what was borrowed is not given back."""
        self._counts = name not in self._borrowed
        try:
            super().delvar(name)
        finally:
            self._counts = True

    def pre_lower(self):
        """Before the first instruction."""
        self._borrowed, self._counts = set(), True
        super().pre_lower()

    def incref(self, typ, val):
        """One more reference."""
        if self._counts:
            super().incref(typ, val)

    def decref(self, typ, val):
        """One reference less."""
        if self._counts:
            super().decref(typ, val)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LinkedLowering(NativeLowering):
    """From typed code to a ``_LinkedLibrary``."""

    _name = "linked_lowering"
    lowering_class = _Borrowing

    def run_pass(self, state):
        """Numba's own pass with our library."""
        state.library = _LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().run_pass(state)


class HelperCompiler(CompilerBase):
    """Numba's passes with ``ConstantPrecision`` before those that know types, and ``_LinkedLowering`` for the lowering."""

    def define_pipelines(self):
        """The one pipeline."""
        manager = PassManager("helper")
        for part in ("untyped_pipeline", "typed_pipeline", "nopython_lowering_pipeline"):
            passes = getattr(DefaultPassBuilder, f"define_{part}")(self.state).passes
            manager.passes += [(_LinkedLowering if own is NativeLowering else own, text) for own, text in passes]
            if part == "untyped_pipeline":
                manager.add_pass(ConstantPrecision, "precision of constants")
        manager.finalize()
        return [manager]


@contextmanager
def _kernel_libraries(codegen):
    """Kernels have long vectors while this lasts, and bodies of ``prange`` become libraries of LLVM code."""

    before = codegen._library_class

    def library(codegen, name, **options):
        kind = _LinkedLibrary if name.startswith(LOOP_BODIES) else _LongVectors
        return kind(codegen, name, **options)

    # What reads code from the cache, a class method, asks for a library as everybody does.
    library._unserialize = before._unserialize
    codegen._library_class = library
    try:
        yield
    finally:
        codegen._library_class = before


class KernelCompiler(FormulaCompiler):
    """Numba's passes with ``ConstantPrecision`` among them, for kernels, with ``prange`` or without."""

    def _compile_core(self):
        """As Numba's, into libraries of our own."""
        with _kernel_libraries(self.state.targetctx.codegen()):
            return super()._compile_core()


if not hasattr(JITCPUCodegen, "_library_class") or not hasattr(CompilerBase, "_compile_core"):
    KernelCompiler = None
if not all(hasattr(JITCodeLibrary, name) for name in ("_finalize_dynamic_globals", "_verify_declare_only_symbols")):
    HelperCompiler = KernelCompiler = None
