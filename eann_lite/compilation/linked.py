"""How kernels and their helpers are compiled: helpers become code that kernels link in and optimise, not machine code.

Numba turns every function that it compiles into machine code, those that only kernels call as well, and with each the
functions that it calls: code at the bottom of four calls is generated five times before a kernel is ready.  This more
than halves the time of the first call.

All functions ask for vectors of 512 bits, where the machine has them.  Left to itself LLVM takes 256 for most Intel
processors, since some lower their clock for longer ones; the explicit vectors of ``kernels.vectors`` do so anyway.

This builds on parts of Numba that are not its public interface; where the attributes used are missing,
``HelperCompiler`` and the other compilers here are None and all is compiled as usual.
"""

import gc
from contextlib import contextmanager
from functools import lru_cache

from llvmlite.binding import Linkage
from numba.core import typed_passes, untyped_passes
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.lowering import Lower
from numba.core.runtime.context import NRTContext
from numba.core.typed_passes import NativeLowering, NopythonTypeInference

from eann_lite.compilation.borrowed import LoweringBorrowed
from eann_lite.compilation.precision import ConstantPrecision, FormulaCompiler
from eann_lite.compilation.remembered import RememberingTypeInference

#: Numba's passes for what no helper has: ``with``, functions within functions, exceptions with arguments known only at
#: run time, functions that ask to be inlined, sums of whole arrays that could be one loop.  Each looks at every statement.
NOTHING_TO_DO = {
    getattr(untyped_passes, name, None) or getattr(typed_passes, name, None)
    for name in (
        "WithLifting", "InlineClosureLikes", "RewriteDynamicRaises", "MakeFunctionToJitFunction", "InlineInlinables",
        "FindLiterallyCalls", "LiteralUnroll", "LiteralPropagationSubPipelinePass", "InlineOverloads",
        "NopythonRewrites",
    )
}  # fmt: skip

#: So many new objects may come up, while kernels are compiled, before Python looks for what can go.
TIDY_AFTER = 20_000


class _NoEnvironment:
    """In place of the code generator where Numba gives a function its globals in Python, which helpers do not use."""

    @staticmethod
    def set_env(name, environment):
        """Nothing to do."""


def _callees(libraries):
    """These libraries and those that helpers among them call, callers first: as long as nobody has called it, LLVM
    leaves out what it is given to link in."""
    found = {}

    def find(library):
        if library not in found:
            for callee in library._linking_libraries if isinstance(library, _HelperLibrary) else ():
                find(callee)
            found[library] = None

    for library in libraries:
        find(library)
    return reversed(found)


def _link_callees(module, library):
    """Put all that a library calls into its module."""
    for callee in _callees(library._linking_libraries):
        own = isinstance(callee, _HelperLibrary)
        module.link_in(callee._final_module if own else callee._get_module_for_linking(), preserve=True)


class _KernelLibrary(JITCodeLibrary):
    """Code of a kernel, with that of its helpers, or of what Numba compiles on the way there.

    Its loops may use vectors of 512 bits.
    """

    def add_ir_module(self, module):
        """As Numba's, after every function of the module has been told."""
        for function in module.functions:
            # Should llvmlite keep attributes otherwise, loops are as long as LLVM makes them.
            if not function.is_declaration and isinstance(function.attributes, set):
                # Not their own ``add``, which knows attributes without a value only.
                set.add(function.attributes, '"prefer-vector-width"="512"')
        super().add_ir_module(module)

    def finalize(self):
        """As Numba's, with every helper linked in once, whoever calls it."""
        _link_callees(self._final_module, self)
        self._linking_libraries = []
        super().finalize()

    def _finalize_final_module(self):
        """As Numba's, with a copy of its own of every helper that is still called.

        Helpers of one name are told apart by a number that counts what a process compiles, so kernels that were cached
        by different processes may mean different code by the same name; of those LLVM would take the first for all.
        """
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.internal
        super()._finalize_final_module()


class _HelperLibrary(_KernelLibrary):
    """LLVM code of one helper, without what it calls."""

    codegen = _NoEnvironment

    def finalize(self):
        """Nothing is done here that its callers would do again."""
        self._finalize_dynamic_globals()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                function.linkage = Linkage.linkonce_odr
        self._finalized = True

    def _get_module_for_linking(self):
        """With all that it calls, for callers that are compiled as Numba does."""
        if self._shared_module is None:
            self._shared_module = self._final_module.clone()
            _link_callees(self._shared_module, self)
        return self._shared_module

    def get_pointer_to_function(self, name):
        """No machine code, so no address."""
        return 0


@register_pass(mutates_CFG=True, analysis_only=False)
class _LinkedLowering(NativeLowering):
    """From typed code to a ``_HelperLibrary``."""

    _name = "linked_lowering"
    lowering_class = LoweringBorrowed

    def run_pass(self, state):
        """Numba's own pass with our library."""
        state.library = _HelperLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().run_pass(state)


class HelperCompiler(CompilerBase):
    """Numba's passes for what helpers have, with ``ConstantPrecision`` before those that know types.

    ``RememberingTypeInference`` infers types, and ``_LinkedLowering`` does the lowering.
    """

    def define_pipelines(self):
        """The one pipeline."""
        manager = PassManager("helper")
        own = {NopythonTypeInference: RememberingTypeInference, NativeLowering: _LinkedLowering}
        for part in ("untyped_pipeline", "typed_pipeline", "nopython_lowering_pipeline"):
            passes = getattr(DefaultPassBuilder, f"define_{part}")(self.state).passes
            manager.passes += [(own.get(each, each), text) for each, text in passes if each not in NOTHING_TO_DO]
            if part == "untyped_pipeline":
                manager.add_pass(ConstantPrecision, "precision of constants")
        manager.finalize()
        return [manager]


class SeparateArraysCompiler(HelperCompiler):
    """The same for helpers that are never given arrays with numbers in common.

    LLVM vectorises a loop only where it can see or test beforehand that what is written is not read; it tests few
    pairs of arrays.  Numba has a flag that says so, but no option of ``njit`` for it.  It says the same of who holds
    their memory, which arrays may share, as helpers count no references there (``LoweringBorrowed``).
    """

    def define_pipelines(self):
        """The one pipeline."""
        self.state.flags.noalias = True
        return super().define_pipelines()


@lru_cache(maxsize=None)
def _has_count(models, kind):
    return models[kind].contains_nrt_meminfo()


def _counted_parts(self, builder, ty, val):
    """What has a reference count in a value, as (type, pointer).

    As Numba's, which takes apart what has none as well, such as the shape of an array: a fifth of all its LLVM code.
    """
    models = self._context.data_model_manager
    found = [(ty, models[ty].get_nrt_meminfo(builder, val))] if models[ty].has_nrt_meminfo() else []
    for kind, part_of in models[ty].traverse(builder):
        if _has_count(models, kind):
            found += self.get_meminfos(builder, kind, part_of(val))
    return found


@contextmanager
def _counting_less():
    """Code that counts references is short while this lasts; it counts the same."""
    before = NRTContext.get_meminfos
    NRTContext.get_meminfos = _counted_parts
    try:
        yield
    finally:
        NRTContext.get_meminfos = before


@contextmanager
def _kernel_libraries(codegen):
    """Code that is compiled while this lasts may have long vectors."""
    before, codegen._library_class = codegen._library_class, _KernelLibrary
    try:
        yield
    finally:
        codegen._library_class = before


@contextmanager
def _tidying_less():
    """Python looks less often for objects that nobody can reach while this lasts.

    A compiler makes millions that live on; to go through them again and again took a tenth of its time.  Memory grows
    by some 30 MB.
    """
    before = gc.get_threshold()
    meanwhile = (TIDY_AFTER, *before[1:]) if 0 < before[0] < TIDY_AFTER else before
    gc.set_threshold(*meanwhile)
    try:
        yield
    finally:
        if gc.get_threshold() == meanwhile:  # Or somebody else has set them.
            gc.set_threshold(*before)


class KernelCompiler(FormulaCompiler):
    """Numba's passes with ``ConstantPrecision`` among them, for kernels."""

    def _compile_core(self):
        """As Numba's, into libraries of our own."""
        with _kernel_libraries(self.state.targetctx.codegen()), _counting_less(), _tidying_less():
            return super()._compile_core()


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(NativeLowering):
    """From typed code to LLVM code that gets tuples by their address, and counts no references of what it is given."""

    _name = "kernel_lowering"
    lowering_class = LoweringBorrowed


class PlacedKernelCompiler(KernelCompiler):
    """The same for kernels that get tuples by their address from Python, too (``placed``)."""

    own_passes = {**KernelCompiler.own_passes, NativeLowering: _KernelLowering}


def _has(owner, *names):
    return all(hasattr(owner, name) for name in names)


if not (
    _has(JITCPUCodegen, "_library_class")
    and _has(CompilerBase, "_compile_core")
    and _has(NRTContext, "get_meminfos")
):
    KernelCompiler = PlacedKernelCompiler = None
if not (
    _has(JITCodeLibrary, "_finalize_dynamic_globals", "_finalize_final_module", "_get_module_for_linking")
    and _has(Lower, "extract_function_arguments", "lower_inst", "lower_expr", "loadvar", "storevar", "delvar")
    and _has(NRTContext, "incref", "decref")
):
    HelperCompiler = SeparateArraysCompiler = KernelCompiler = PlacedKernelCompiler = None
