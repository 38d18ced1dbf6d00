"""What the forward pass of a TorchScript archive computes, read from its text; nothing is executed.

The published packages exist in several versions and copies that differ in what the same arrays mean: the sign of the
exponents, an offset per atom that the last line adds, vectors that are divided by their length, activations.  An
archive carries its own forward pass as Python text, so none of this is guessed from numbers.
"""

import ast

from eann_lite.errors import InputError
from eann_lite.io.published.archive import ScriptObject, Tensor

#: Functions that known versions of GetDensity call; none of them changes what is computed but ``div``, see below.
DENSITY_FUNCTIONS = frozenset(
    "size select slice index_select index index_put_ view reshape flatten permute t transpose contiguous unsqueeze "
    "squeeze expand expand_as sub linalg_norm norm einsum append vstack cat stack mul reciprocal cos square pow add "
    "add_ exp zeros ones empty index_add index_add_ sum neg eq ne gt lt nonzero masked_scatter_ masked_scatter copy_ "
    "fill_ to int Int dtype device layout __range_length __derive_index annotate detach numel div forward len range "
    "unchecked_cast getattr arange item NumToTensor Float ones_like zeros_like empty_like clone index_put "
    "__is__ __isnot__".split()
)
#: Functions of NNMod that only send every atom through its element's network and collect the outputs.
ROUTING_FUNCTIONS = frozenset(
    "size zeros empty eq ne gt nonzero view contiguous index index_put_ index_select masked_scatter_ annotate dtype "
    "device forward unsqueeze slice select getattr squeeze to".split()
)
#: What may be done with the energy after the networks, apart from adding the offset.
ENERGY_FUNCTIONS = frozenset(
    "sum detach view reshape neg grad unchecked_cast annotate clone contiguous to __isnot__ __is__ append "
    "flatten squeeze dtype device".split()
)
#: Functions that give some rows of their first argument, or the same numbers in another shape.
VIEWS = frozenset("slice select index_select unsqueeze view reshape contiguous to expand detach".split())
LAYER_NORM_EPS = 1e-5


class Script:
    """The objects of a TorchScript archive by their paths, and the text of their methods.

    state : "density.rs" -> ``Tensor`` or plain value;  objects : "density" -> ``ScriptObject`` ("" is the whole).
    """

    def __init__(self, archive, root):
        self.archive, self.where = archive, archive.where
        self.state, self.objects = {}, {}
        self._classes = {}
        self._collect("", root, ())

    def _collect(self, path, value, above):
        if not isinstance(value, ScriptObject):
            self.state[path] = value
            return
        if id(value) in above or len(above) > 50:
            raise InputError(f"{self.where}: object {path} holds itself: the file is damaged.")
        self.objects[path] = value
        for name, item in value.attributes.items():
            self._collect(f"{path}.{name}" if path else name, item, (*above, id(value)))

    def tensors(self):
        """{path: array} of all tensors."""
        return {path: value.array(path) for path, value in self.state.items() if isinstance(value, Tensor)}

    def class_of(self, path):
        """Text of the class of an object as a syntax tree."""
        kind = self.objects[path].kind
        if kind not in self._classes:
            module, _, name = kind.rpartition(".")
            text = self.archive.code(module)
            if text is None:
                raise InputError(f"{self.where}: the code of {kind} is missing: the file is damaged.")
            try:
                body = ast.parse(text).body
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise InputError(f"{self.where}: the code of {kind} is not readable ({error}).") from None
            found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
            if not found:
                raise InputError(f"{self.where}: the code of {kind} is missing: the file is damaged.")
            self._classes[kind] = found[0]
        return self._classes[kind]

    def method(self, path, *names):
        """``_Method`` of an object: the first of these names that its class has."""
        methods = {node.name: node for node in self.class_of(path).body if isinstance(node, ast.FunctionDef)}
        for name in names:
            if name in methods:
                return _Method(methods[name], f"{self.where}: {name} of {self.objects[path].kind}")
        raise InputError(f"{self.where}: {self.objects[path].kind} has no method {names[0]}: no known model.")

    def constant(self, path):
        """Value of an attribute: of the object, or a constant that stands in the text of its class; None without it."""
        if path in self.state:
            return self.state[path]
        owner, _, name = path.rpartition(".")
        for node in self.class_of(owner).body:
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == name and node.value is not None:
                return ast.literal_eval(node.value)
        return None


class _Method:
    """Syntax tree of a method; every temporary name is traced back to what it was assigned."""

    def __init__(self, tree, where):
        self.tree, self.where = tree, where
        self.arguments = [argument.arg for argument in tree.args.args[1:]]
        self.assigned = {}
        for node in ast.walk(tree):
            for name in _targets(node):
                self.assigned[name] = node.value

    def calls(self):
        """All calls, as (function name, node)."""
        return [(_function(node), node) for node in ast.walk(self.tree) if isinstance(node, ast.Call)]

    def path(self, node):
        """ "nnmod.initpot" for what stands for ``self.nnmod.initpot``; None for anything else."""
        for _ in range(100):
            if isinstance(node, ast.Name) and node.id in self.assigned:
                node = self.assigned[node.id]
            else:
                break
        if isinstance(node, ast.Name):
            return "" if node.id == "self" else None
        if isinstance(node, ast.Attribute):
            above = self.path(node.value)
            return None if above is None else f"{above}.{node.attr}".lstrip(".")
        return None

    def refuse(self, node, what):
        """Raise the InputError for something that no known version does."""
        raise InputError(f"{self.where}: {what}: {ast.unparse(node)[:120]!r}. This model is not supported.")


def _function(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "?")


def _targets(node):
    """Names that a statement assigns to; none for other statements."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def check_density(script):
    """Refuse a density that is not the one of REANN and EANN: fields, unit vectors, other cutoff functions."""
    forward = script.method("density", "forward")
    if "ef" in forward.arguments or "density.ef_para" in script.state:
        raise InputError(
            f"{script.where} is a model of the field package FIREANN (an electric field enters its densities): it is "
            "not supported. REANN and EANN models are."
        )
    for node in script.class_of("density").body:
        if not isinstance(node, ast.FunctionDef):
            continue
        method = _Method(node, f"{script.where}: {node.name} of the density")
        for name, call in method.calls():
            own = isinstance(call.func, ast.Attribute) and method.path(call.func.value) == ""
            if name == "div" and not node.name.startswith("cutoff"):
                method.refuse(
                    call,
                    "vectors are divided by their lengths (some LAMMPS copies and the version of August 2021 do so; "
                    "the PES file of the same training may not)",
                )
            if not own and name not in DENSITY_FUNCTIONS:
                method.refuse(call, f"unknown function {name}")
    cutoff = script.method("density", "cutoff_cosine", "cutoff_cos")
    text = ast.unparse(cutoff.tree)
    if not all(word in text for word in ("torch.cos(", "torch.square(", "0.5", "3.14159265358979")):
        cutoff.refuse(cutoff.tree.body[-1], "another cutoff function than [(1 + cos(pi r / r_c)) / 2]^2")


def exponent_sign(script):
    """+1 where the archive computes exp(inta (r - rs)^2), -1 where exp(-inta (r - rs)^2)."""
    method = script.method("density", "gaussian")
    exponentials = [call for name, call in method.calls() if name == "exp"]
    if len(exponentials) != 1:
        method.refuse(method.tree.body[-1], "not one exponential")
    has_inta = []

    def sign(node, depth=0):
        if depth > 50:
            method.refuse(exponentials[0], "the exponent is not understood")
        if isinstance(node, ast.Name) and node.id in method.assigned:
            return sign(method.assigned[node.id], depth + 1)
        if method.path(node) == "inta":
            has_inta.append(node)
            return 1
        if isinstance(node, ast.Call):
            name = _function(node)
            if name == "mul":
                return sign(node.args[0], depth + 1) * sign(node.args[1], depth + 1)
            if name == "neg":
                return -sign(node.args[0], depth + 1)
            if name == "square":
                return 1
            if name in VIEWS:
                return sign(node.args[0], depth + 1)
        method.refuse(exponentials[0], "the exponent is not understood")

    found = sign(exponentials[0].args[0])
    if len(has_inta) != 1:
        method.refuse(exponentials[0], "the exponent does not hold inta once")
    return found


def energy_offset(script):
    """(offset in eV that the forward pass adds to every atom, where it was found), (0.0, "...") where it adds none."""
    paths = _added_to_energy(script.method("", "forward")) + _added_in_networks(script)
    total = 0.0
    for path in paths:
        value = script.constant(path)
        if isinstance(value, Tensor):
            value = value.array(path)
            value = float(value.ravel()[0]) if value.size == 1 else None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise InputError(f"{script.where}: the forward pass adds {path}, which is no number in this file.")
        total += float(value)
    if not paths:
        return 0.0, "the forward pass adds none"
    kind = "tensor" if isinstance(script.state.get(paths[0]), Tensor) else "plain attribute"
    return total, f"{kind} {', '.join(paths)}, added by the forward pass"


def _added_to_energy(method):
    """Paths of what the forward pass adds to the output of the energy networks; anything else done to it is refused."""
    added, energies = [], set()

    def is_energy(node):
        if isinstance(node, ast.Name):
            return node.id in energies
        if isinstance(node, ast.Call):
            own = isinstance(node.func, ast.Attribute) and node.func.attr == "forward"
            return (own and method.path(node.func.value) == "nnmod") or any(map(is_energy, node.args))
        if isinstance(node, (ast.List, ast.Tuple)):
            return any(map(is_energy, node.elts))
        return isinstance(node, ast.Subscript) and is_energy(node.value)

    def visit(value):
        for node in (node for node in ast.walk(value) if isinstance(node, ast.Call)):
            used = [argument for argument in node.args if is_energy(argument)]
            if not used or _function(node) in ENERGY_FUNCTIONS:
                continue
            others = [argument for argument in node.args if argument not in used]
            path = method.path(others[0]) if others else None
            factors = [*others[1:], *(keyword.value for keyword in node.keywords)]
            scaled = any(getattr(factor, "value", None) != 1 for factor in factors)
            if _function(node) not in ("add", "add_") or not path or not path.endswith("initpot") or scaled:
                method.refuse(node, "the energy is not the plain sum over atoms of the networks' outputs")
            added.append(path)

    for node in _statements(method.tree.body):
        value = getattr(node, "value", None)
        if value is None:
            continue
        visit(value)
        if is_energy(value):
            energies.update(_targets(node))
    if not any(isinstance(node, ast.Return) and is_energy(node.value) for node in _statements(method.tree.body)):
        method.refuse(method.tree.body[-1], "the output is not made by nnmod")
    return added


def _added_in_networks(script):
    method = script.method("nnmod", "forward")
    added = []
    for name, call in method.calls():
        paths = [path for path in map(method.path, call.args) if path and path.endswith("initpot")]
        if name in ("add", "add_") and len(paths) == 1:
            added.append(f"nnmod.{paths[0]}")
        elif name not in ROUTING_FUNCTIONS:
            method.refuse(call, f"unknown function {name}")
    return added


def _statements(body):
    """Statements in the order of the text, those inside of ``if`` and ``for`` too."""
    for node in body:
        yield node
        for name in ("body", "orelse"):
            yield from _statements(getattr(node, name, []))


def activation(script, prefix):
    """Published name of the activation of all networks below ``prefix``."""
    found = {}
    for path, item in script.objects.items():
        if path.startswith(prefix + ".") and "alpha" in item.attributes:
            names = {name for name, _ in script.method(path, "forward").calls()}
            has_silu = any(
                below.startswith(path + ".") and other.kind.endswith(".SiLU") for below, other in script.objects.items()
            )
            if has_silu or "silu" in names:
                found["Relu_like"] = path
            elif {"sqrt", "square"} <= names:
                found["Tanh_like"] = path
            else:
                raise InputError(f"{script.where}: activation {item.kind} is neither Relu_like nor Tanh_like.")
    if len(found) != 1:
        raise InputError(
            f"{script.where}: the networks {prefix} have {' and '.join(found) or 'no'} activations with alpha and "
            "beta. Expected Relu_like or Tanh_like throughout."
        )
    return next(iter(found))


def check_networks(script):
    """Refuse layer normalisation with another eps, and blocks that do not add their input."""
    for path, item in script.objects.items():
        if item.kind.endswith(".LayerNorm"):
            eps = script.constant(f"{path}.eps")
            if eps is not None and abs(eps - LAYER_NORM_EPS) > 1e-12:
                raise InputError(f"{script.where}: {path} normalises with eps = {eps}; models have {LAYER_NORM_EPS}.")
        if item.kind.endswith(".ResBlock") and not any(
            name in ("add", "add_") for name, _ in script.method(path, "forward").calls()
        ):
            raise InputError(f"{script.where}: block {path} does not add its input: no known version does so.")
