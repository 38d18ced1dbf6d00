"""Models from the arrays and hyperparameters of the published REANN package (github.com/zhangylch/REANN).

| published              | here                   | difference                                             |
|------------------------|------------------------|--------------------------------------------------------|
| density.rs             | radial_centers         |                                                        |
| density.inta           | radial_exponents       | inta = -alpha, so its gradient changes sign as well    |
| density.params         | orbital_coefficients   |                                                        |
| density.hyper          | contraction            |                                                        |
| density.ocmod.memssage_t.elemental_nets.El | recursion.t.El |                                            |
| nnmod.elemental_nets.El | network.El            | numbered layers; weights (out, in), ours (in, out)     |

``nipsin`` is L, the largest angular degree, as in the package's input file; ``hyper`` then has L + 1 rows.  (Inside the
package the same name becomes L + 1 after reading.)  Published models have no scaling of densities and energies.
"""

from difflib import get_close_matches

import numpy as np

from eann_lite.errors import InputError
from eann_lite.model.parameters import parameter_shapes
from eann_lite.model.specification import LEARNED_ACTIVATIONS, NetworkSpecification, Specification

NEEDED = ("atomtype", "cutoff", "nl", "nblock", "oc_loop", "activate")
#: Hyperparameters that the arrays also tell, so they may be left out, or belong to networks that may not exist.
OPTIONAL = ("nipsin", "nwave", "norbit", "oc_nl", "oc_nblock", "oc_activate", "table_norm", "oc_table_norm")
#: Arrays of a published state that are no parameters.
BUFFERS = ("density.cutoff", "density.index_para")

_DENSITY_NAMES = {
    "radial_exponents": "density.inta",
    "radial_centers": "density.rs",
    "orbital_coefficients": "density.params",
    "contraction": "density.hyper",
}


def from_arrays(parameters, hyperparameters):
    """``eann_lite.model.model.Model`` from published names and arrays.

    Arguments, example and errors as for ``convert_arrays``; densities and energies of the model are not scaled.
    """
    from eann_lite.model.model import Model

    specification, converted = convert_arrays(parameters, hyperparameters)
    return Model(specification, converted)


def convert_arrays(parameters, hyperparameters):
    """(Specification, parameters by our names) from published arrays and hyperparameters.

    parameters : published name -> array, for example ``density.inta`` (S, K), ``nnmod.elemental_nets.C.0.weight``.
    hyperparameters : published name -> value: atomtype, cutoff (Angstrom), nl, nblock (hidden widths and blocks of the
        energy networks), oc_loop (T), activate; with T > 0 also oc_nl, oc_nblock.  oc_activate is activate unless
        given.  nipsin (= L), nwave (K), norbit (M), table_norm and oc_table_norm (layer normalisation) are read from
        the arrays, and checked where they are given.  Other keys are not used.

    Errors: InputError for what is missing, misspelt, contradictory, of another shape, not finite or not known.

    >>> layers = {"0.weight": np.ones((4, 3)), "0.bias": np.zeros(4), "1.alpha": np.ones((1, 4))}
    >>> layers |= {"1.beta": np.ones((1, 4)), "2.weight": np.ones((1, 4)), "2.bias": np.zeros(1)}
    >>> arrays = {f"nnmod.elemental_nets.H.{name}": array for name, array in layers.items()}
    >>> arrays |= {f"density.{name}": -np.ones((1, 2)) for name in ("rs", "inta", "params")}
    >>> arrays["density.hyper"] = np.ones((3, 2, 3))
    >>> hyper = {"atomtype": ["H"], "cutoff": 4.0, "nl": [4], "nblock": 0, "oc_loop": 0, "activate": "Relu_like"}
    >>> specification, converted = convert_arrays(arrays, hyper)
    >>> specification.max_degree, converted["network.H.input.weight"].shape, converted["radial_exponents"]
    (2, (3, 4), array([[1., 1.]]))
    """
    specification = _specification(parameters, _checked_hyperparameters(hyperparameters))
    ours = published_names(specification)
    expected = {name: array.shape for name, array in to_published(specification, _zeros(specification)).items()}
    for name in parameters:
        if name not in expected and name not in BUFFERS:
            hint = _hint(name, [each for each in expected if each not in parameters])
            raise InputError(f"published arrays: {name!r} does not belong to a model of these hyperparameters{hint}.")
    missing = [name for name in expected if name not in parameters]
    if missing:
        shape = expected[missing[0]]
        raise InputError(f"published arrays: {len(missing)} missing, the first is {missing[0]} of shape {shape}.")
    converted = {}
    for name, shape in parameter_shapes(specification).items():
        array = np.asarray(parameters[ours[name]], dtype=float)
        if array.shape != expected[ours[name]]:
            raise InputError(f"published array {ours[name]} has shape {array.shape}, expected {expected[ours[name]]}.")
        if not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0]
            raise InputError(f"published array {ours[name]} holds {array[tuple(where)]} at {tuple(map(int, where))}.")
        converted[name] = np.ascontiguousarray(_turned(name, array)).reshape(shape)
    return specification, converted


def published_names(specification):
    """Our parameter name -> published name, for every parameter of a specification with a learned contraction.

    >>> specification = Specification(("H",), cutoff=4.0, recursions=1)
    >>> published_names(specification)["recursion.0.H.block.0.1.weight"]
    'density.ocmod.memssage_0.elemental_nets.H.1.resblock.3.weight'
    """
    if specification.contraction != "learned":
        raise InputError("the published REANN package knows only a learned contraction (hyper), not 'per_degree'.")
    return {name: _published_name(specification, name) for name in parameter_shapes(specification)}


def to_published(specification, arrays):
    """Parameters, or gradients with respect to them, by our names -> the same by published names, signs and shapes.

    inta = -alpha, and so d/dinta = -d/dalpha: parameters and gradients are turned alike.
    """
    names = published_names(specification)
    turned = {}
    for name, array in arrays.items():
        array = _turned(name, np.asarray(array))
        turned[names[name]] = array[None] if name.endswith((".alpha", ".beta")) else array
    return turned


def _published_name(specification, name):
    if name in _DENSITY_NAMES:
        return _DENSITY_NAMES[name]
    kind, *rest = name.split(".")
    if kind == "recursion":
        step, element, part, *rest = rest
        prefix, network = f"density.ocmod.memssage_{step}", specification.recursion_network
    else:
        element, part, *rest = rest
        prefix, network = "nnmod", specification.network
    prefix = f"{prefix}.elemental_nets.{element}"
    if part == "input":
        return f"{prefix}.0.{rest[0]}"
    if part == "output":
        is_linear = rest[0] in ("weight", "bias")
        return f"{prefix}.{network.blocks + 1 + is_linear}.{rest[0]}"
    # A published block lists activation, layer normalisation (if any) and linear map of each link in turn.
    block, link, leaf = rest
    per_link = 2 + network.layer_norm
    place = {"alpha": 0, "beta": 0, "scale": 1, "shift": 1, "weight": per_link - 1, "bias": per_link - 1}[leaf]
    leaf = {"scale": "weight", "shift": "bias"}.get(leaf, leaf)
    return f"{prefix}.{int(block) + 1}.resblock.{per_link * int(link) + place}.{leaf}"


def _turned(name, array):
    """Sign and orientation, the same in both directions."""
    if name == "radial_exponents":
        return -array
    return array.T if name.endswith(".weight") else array


def _zeros(specification):
    return {name: np.zeros(shape) for name, shape in parameter_shapes(specification).items()}


def _hint(name, known):
    close = get_close_matches(name, known, n=1, cutoff=0.8)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _checked_hyperparameters(given):
    """Plain Python values of the hyperparameters that are used."""
    known = NEEDED + OPTIONAL
    for name in given:
        hint = "" if name in known else _hint(name, known)
        if hint:
            raise InputError(f"published hyperparameters: {name!r} is not known{hint}.")
    needed = NEEDED
    if "oc_loop" in given and np.asarray(given["oc_loop"]) > 0:
        needed = needed + ("oc_nl", "oc_nblock")
    missing = [name for name in needed if name not in given]
    if missing:
        raise InputError(f"published hyperparameters: {', '.join(missing)} missing; needed are {', '.join(needed)}.")
    return {name: np.asarray(given[name]).tolist() for name in known if name in given}


def _activation(name):
    ours = str(name).lower()
    if ours not in LEARNED_ACTIVATIONS:
        raise InputError(f"published activation {name!r}: expected 'Relu_like' or 'Tanh_like'.")
    return ours


def _specification(parameters, hyper):
    """Specification from checked hyperparameters and the shapes of ``density.hyper``; both must agree."""
    if "density.hyper" not in parameters or np.ndim(parameters["density.hyper"]) != 3:
        raise InputError("published arrays: density.hyper of shape (nipsin + 1, nwave, norbit) is needed.")
    degrees, radial, densities = np.shape(parameters["density.hyper"])
    for name, found in (("nipsin", degrees - 1), ("nwave", radial), ("norbit", densities)):
        if hyper.get(name, found) != found:
            raise InputError(
                f"published hyperparameters: {name} = {hyper[name]}, but density.hyper has shape "
                f"{(degrees, radial, densities)} = (nipsin + 1, nwave, norbit), nipsin being the largest degree L."
            )
    elements = tuple(map(str, np.atleast_1d(hyper["atomtype"])))
    first = f"nnmod.elemental_nets.{elements[0]}"
    network = NetworkSpecification(
        widths=np.atleast_1d(hyper["nl"]).tolist(),
        blocks=hyper["nblock"],
        activation=_activation(hyper["activate"]),
        layer_norm=_layer_norm(parameters, first, hyper.get("table_norm"), "table_norm"),
    )
    recursion_network = NetworkSpecification()
    if hyper["oc_loop"]:
        first = f"density.ocmod.memssage_0.elemental_nets.{elements[0]}"
        recursion_network = NetworkSpecification(
            widths=np.atleast_1d(hyper["oc_nl"]).tolist(),
            blocks=hyper["oc_nblock"],
            activation=_activation(hyper.get("oc_activate", hyper["activate"])),
            layer_norm=_layer_norm(parameters, first, hyper.get("oc_table_norm"), "oc_table_norm"),
        )
    return Specification(
        elements=elements,
        cutoff=float(hyper["cutoff"]),
        max_degree=degrees - 1,
        radial=radial,
        densities=densities,
        recursions=hyper["oc_loop"],
        network=network,
        recursion_network=recursion_network,
    )


def _layer_norm(parameters, network, stated, name):
    """Whether the blocks of a network are normalised: there, layer 1 of a block is a vector, else a matrix."""
    weight = parameters.get(f"{network}.1.resblock.1.weight")
    if weight is None:
        return bool(stated)
    found = np.ndim(weight) == 1
    if stated is not None and bool(stated) != found:
        raise InputError(
            f"published hyperparameters: {name} = {stated}, but the arrays {network}.1.resblock.* "
            f"{'hold' if found else 'hold no'} layer normalisation."
        )
    return found
