"""Arrays of any version of the PyTorch packages -> those of the newest REANN, which ``arrays`` turns into a model.

| version                              | difference                                | what is done                      |
|--------------------------------------|-------------------------------------------|-----------------------------------|
| before the newest                    | exp(-inta (r - rs)^2)                     | the sign of inta                  |
| REANN of 2021/22                     | `hyper` (T+1, L+1, K, M), for every step  | all side by side, M' = (T+1) M;   |
|                                      |                                           | zero weights for other steps      |
| EANN (PyTorch)                       | no `hyper`: a density per degree and wave | contraction `per_degree`          |
| EANN (PyTorch), nblock = 1           | plain multilayer perceptrons              | blocks that add no input; units   |
|                                      |                                           | that nobody reads make the first  |
|                                      |                                           | and last layer as wide            |
| EANN (PyTorch), table_norm           | normalisation before the activation       | `layer_norm` = "before"           |
| training with dropout                | numbers of layers are left out            | numbered again                    |

All of it is exact.
"""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError
from eann_lite.io.published.arrays import convert_arrays

#: Entries of a state that are no parameters of a model.
BUFFER = re.compile(r"density\.(cutoff|nipsin|index_para|ENIM)$|(.*\.)?(initpot|outputneuron)$")


class Layer(NamedTuple):
    """One layer of a published network: letter L (linear), A (activation), N (normalisation), B (block); its arrays,
    or the layers of a block."""

    letter: str
    content: object


class Shape(NamedTuple):
    """What the layers of a network tell: hidden widths, blocks, whether blocks add their input, whether normalisation
    comes before the activation, and the arrays of a normalisation before the last activation (None without one)."""

    widths: list
    blocks: int
    residual: bool
    before: bool
    last_norm: dict


def _told(network, shape):
    """``NetworkSpecification`` with what the names of the newest package cannot say."""
    return replace(network, residual=shape.residual, layer_norm="before" if shape.before else network.layer_norm)


def canonical_model_arrays(arrays, elements, cutoff, sign, activations, where):
    """(Specification, parameters) of published arrays.

    arrays : published name -> array, buffers included;  elements : in the order of the rows;  cutoff : Angstrom;
    sign : that of inta in the exponent;  activations : those of the energy and recursion networks, by published names.
    """
    arrays = {name: np.asarray(array, dtype=float) for name, array in arrays.items() if not BUFFER.match(name)}
    foreign = [name for name in arrays if not name.startswith(("density.", "nnmod."))]
    if foreign:
        raise InputError(
            f"{where}: {foreign[0]} belongs to no energy model (polarizabilities have nnmod1 and nnmod2). Expected "
            "density.* and nnmod.* only."
        )
    steps = len({name.split(".")[2] for name in arrays if name.startswith("density.ocmod.")})
    table = {name: array for name, array in arrays.items() if name.count(".") == 1}
    if table.get("density.params", np.zeros(0)).shape != table.get("density.rs", np.zeros((0, 0))).shape:
        raise InputError(
            f"{where}: density.params has shape {table.get('density.params', np.zeros(0)).shape}; expected (elements, "
            "Gaussians), as density.rs. The REANN of August 2021, with coefficients for every degree, is not supported."
        )
    prefixes = {}
    for element in elements:
        for t in range(steps):
            prefixes[f"density.ocmod.memssage_{t}.elemental_nets.{element}"] = t
        prefixes[f"nnmod.elemental_nets.{element}"] = steps
    networks = {prefix: read_layers(arrays, prefix, where) for prefix in prefixes}
    k = table["density.rs"].shape[-1]
    learned = "density.hyper" in table
    if learned:
        hyper = table["density.hyper"]
    else:
        inputs = networks[f"nnmod.elemental_nets.{elements[0]}"][0].content["weight"].shape[1]
        if steps or inputs % k:
            raise InputError(f"{where}: density.hyper is missing. Only models without recursion can do without it.")
        hyper = np.eye(inputs).reshape(inputs // k, k, inputs)
    if hyper.ndim == 4:
        hyper = _all_steps(hyper, networks, prefixes, steps, where)
    converted = {**table, "density.inta": sign * table["density.inta"], "density.hyper": hyper}
    shapes = {}
    for prefix, layers in networks.items():
        numbered, shapes[prefix] = _numbered(layers, prefix, where)
        converted.update(numbered)
    used = {name for name in arrays if any(name.startswith(prefix + ".") for prefix in prefixes)} | set(table)
    left = [name for name in arrays if name not in used]
    if left:
        raise InputError(f"{where}: {left[0]} belongs to no network of the elements {', '.join(elements)}.")
    network = shapes[f"nnmod.elemental_nets.{elements[0]}"]
    hyperparameters = {
        "atomtype": list(elements), "cutoff": cutoff, "oc_loop": steps,
        "nl": network.widths, "nblock": network.blocks, "activate": activations[0],
    }  # fmt: skip
    if steps:
        recursion = shapes[f"density.ocmod.memssage_0.elemental_nets.{elements[0]}"]
        hyperparameters |= {"oc_nl": recursion.widths, "oc_nblock": recursion.blocks, "oc_activate": activations[1]}
    try:
        specification, parameters = convert_arrays(converted, hyperparameters)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    specification = replace(specification, network=_told(specification.network, network))
    if steps:
        specification = replace(specification, recursion_network=_told(specification.recursion_network, recursion))
    for prefix, t in prefixes.items():
        ours = f"network.{prefix.rpartition('.')[2]}" if t == steps else f"recursion.{t}.{prefix.rpartition('.')[2]}"
        for leaf, name in (("weight", "scale"), ("bias", "shift")):
            if shapes[prefix].last_norm:
                parameters[f"{ours}.output.{name}"] = shapes[prefix].last_norm[leaf]
    if not learned:
        specification = replace(specification, contraction="per_degree")
        del parameters["contraction"]
    return specification, parameters


def read_layers(arrays, prefix, where):
    """List of ``Layer`` of the network whose arrays are named ``prefix.NUMBER.leaf``."""
    members = {}
    for name, array in arrays.items():
        if name.startswith(prefix + "."):
            number, _, leaf = name[len(prefix) + 1 :].partition(".")
            if not number.isdecimal():
                raise InputError(f"{where}: {name} is no layer of a known network.")
            members.setdefault(int(number), {})[leaf] = array
    if not members:
        raise InputError(f"{where}: the network {prefix} is missing.")
    return [_layer(members[number], f"{prefix}.{number}", where) for number in sorted(members)]


def _layer(leaves, name, where):
    if all(leaf.startswith("resblock.") for leaf in leaves):
        inside = {f"{name}.{leaf}": array for leaf, array in leaves.items()}
        return Layer("B", read_layers(inside, f"{name}.resblock", where))
    if set(leaves) == {"alpha", "beta"}:
        return Layer("A", leaves)
    if set(leaves) in ({"weight", "bias"}, {"weight"}) and leaves["weight"].ndim == 2:
        return Layer("L", {"bias": np.zeros(len(leaves["weight"])), **leaves})
    if set(leaves) == {"weight", "bias"} and leaves["weight"].ndim == 1:
        return Layer("N", leaves)
    raise InputError(f"{where}: layer {name} holds {', '.join(leaves)}, as no known network does.")


def _all_steps(hyper, networks, prefixes, steps, where):
    """Contractions of every step side by side; networks of step t read their own part (changes ``networks``)."""
    if len(hyper) != steps + 1:
        raise InputError(f"{where}: density.hyper has {len(hyper)} contractions for {steps} recursions.")
    densities = hyper.shape[-1]
    for prefix, t in prefixes.items():
        first, *rest = networks[prefix]
        weight = np.zeros((len(first.content["weight"]), (steps + 1) * densities))
        if first.content["weight"].shape[1] != densities:
            raise InputError(f"{where}: {prefix}.0.weight does not read the {densities} densities of density.hyper.")
        weight[:, t * densities : (t + 1) * densities] = first.content["weight"]
        networks[prefix] = [Layer("L", {**first.content, "weight": weight}), *rest]
    return np.concatenate(list(hyper), axis=-1)


def _numbered(layers, prefix, where):
    """Arrays under the names of the newest package, and the ``Shape`` of the network."""
    letters = "".join(layer.letter for layer in layers)
    inside = ["".join(layer.letter for layer in block.content) for block in layers if block.letter == "B"]
    before = "NA" in letters or any("NA" in block for block in inside)
    last_norm = None
    if re.fullmatch("LB*AL", letters) and len(set(inside)) <= 1 and all(re.fullmatch("(AN?L|NAL)+", b) for b in inside):
        blocks, residual = [block.content for block in layers if block.letter == "B"], True
        widths = [len(layers[0].content["weight"])]
        if blocks:
            widths = [layer.content["weight"].shape[1] for layer in blocks[0] if layer.letter == "L"]
    elif re.fullmatch("LA(LA)+L|L(ANL)+AL|LNA(LNA)+L", letters):
        if before:
            last_norm = layers[-3].content
            layers = [*layers[:-3], *layers[-2:]]
        layers = _closed(layers, prefix, where)
        blocks, residual = [layers[1:-2]], False
        widths = [layer.content["weight"].shape[1] for layer in layers[1:-2] if layer.letter == "L"]
    else:
        raise InputError(
            f"{where}: {prefix} has the layers {letters} (L linear, A activation with alpha and beta, N normalisation, "
            f"B block{f' of {inside[0]}' if inside else ''}). Expected L B ... B A L, or L A L A ... L."
        )
    if before:
        # The newest package names the activation first; that it comes second is said by layer_norm.
        blocks = [
            [block[n + {"N": 1, "A": -1, "L": 0}[layer.letter]] for n, layer in enumerate(block)] for block in blocks
        ]
    arrays = {}
    flat = [layers[0], *blocks, *layers[-2:]]
    for number, item in enumerate(flat):
        for place, layer in enumerate(item if isinstance(item, list) else [item]):
            name = f"{number}.resblock.{place}" if isinstance(item, list) else f"{number}"
            arrays.update({f"{prefix}.{name}.{leaf}": array for leaf, array in layer.content.items()})
    return arrays, Shape(widths, len(blocks), residual, before, last_norm)


def _closed(layers, prefix, where):
    """A plain perceptron whose first and last hidden layers are as wide as one another: the narrower one gets units
    that give act(0) = 0 and that nobody reads."""
    first, last = len(layers[0].content["weight"]), len(layers[-3].content["weight"])
    if first == last:
        return layers
    if any(layer.letter == "N" for layer in layers):
        raise InputError(
            f"{where}: {prefix} is a plain perceptron with layer normalisation whose first and last hidden layers have "
            f"{first} and {last} units. Only equal widths are supported there."
        )
    wide = max(first, last)
    layers = list(layers)
    for place in (0, len(layers) - 3):
        layers[place : place + 3] = _widened(*layers[place : place + 3], wide)
    return layers


def _widened(linear, activation, following, width):
    more = width - len(linear.content["weight"])
    return [
        Layer("L", {name: _padded(array, 0, more) for name, array in linear.content.items()}),
        Layer("A", {name: _padded(array, 1, more, 1.0) for name, array in activation.content.items()}),
        Layer("L", {**following.content, "weight": _padded(following.content["weight"], 1, more)}),
    ]


def _padded(array, axis, more, value=0.0):
    widths = [(0, more if at == axis else 0) for at in range(array.ndim)]
    return np.pad(array, widths, constant_values=value)
