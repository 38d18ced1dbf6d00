"""The folder of parameter files of the Fortran EANN (J. Phys. Chem. Lett. 10, 4962 (2019)) -> ``Model``.

There the orbital coefficients depend on the centre i as well as on the type t of the neighbours,

    rho_ilk = sum_{a of degree l} ( sum_t c_{s_i l k t} / f_{s_i l k} sum_{j of type t} A_a(r_ij) G_tk(r_ij) )^2,

G_tk(r) = exp(-a_t (r - k d_t)^2) [(1 + cos(pi r / r_c)) / 2]^2 with d_t = r_c / (n_t + 1/3), k = 0 .. n_t, and plain
tanh perceptrons of rho give the atoms' energies.  This is a model of ours without recursion: Gaussian (t, k) has the
orbital coefficient 1 at atoms of type t and 0 at others, the contraction takes c / f into the density (s, l, k) of
every kind of centre s, and a centre's network has zero input weights for the densities of other kinds.

| file             | content                                                                                        |
|------------------|------------------------------------------------------------------------------------------------|
| `input`          | a number or more in every line; rc, degrees, Gaussians; for each element hidden widths, a d^2  |
| `weight_wave_X`  | c for the centre X: degree, Gaussian, type of the neighbour (the last runs fastest)            |
| `scalfactor_X`   | f for the centre X: degree, Gaussian                                                           |
| `W_X1`           | two lines of text, then of every layer the weights (out, in) and the biases                    |
"""

import os
import re

import numpy as np

from eann_lite.errors import InputError
from eann_lite.model.parameters import parameter_shapes
from eann_lite.model.specification import NetworkSpecification, Specification

#: Line (from 0) of what is read in ``input``; the lines of the elements follow the last of them.
LINES = {
    "table_grid": 4, "numtype": 6, "ipsin": 9, "maxnwave": 10, "nwave": 11, "rc": 19, "nkpoint": 22, "outputneuron": 23
}  # fmt: skip
#: Name of tanh in the last line of a file of a network.
ACTIVATION = "tansig"
#: Exponents of three digits are written without their letter.
BARE_EXPONENT = re.compile(r"(?<=[\d.])([+-]\d{3})$")


def read_folder(folder):
    """``Model`` of a folder with ``input``, ``weight_wave_X``, ``scalfactor_X``, ``W_X1``, here or in ``para/``.

    InputError for missing or damaged files and for what is not of this form: PEANN and FEANN have piecewise switching
    functions and are not supported.
    """
    from eann_lite.io.published.load_model import Finding, make_model

    if not (folder / "input").is_file() and (folder / "para").is_dir():
        folder = folder / "para"
    where = os.fspath(folder)
    _check_kind(folder, where)
    given = _read_input(folder / "input")
    elements, k, degrees = given["elements"], given["nwave"] + 1, given["ipsin"] + 1
    layers = {
        element: _read_network(folder / f"W_{element}1", hidden, k * degrees)
        for element, hidden in zip(elements, given["hidden"])
    }
    widths = [max(len(layers[element][n][0]) for element in elements) for n in range(len(given["hidden"][0]))]
    # A block of ours ends as wide as it begins: the first and the last hidden layer.
    widths[0] = widths[-1] = max(widths[0], widths[-1])
    specification = Specification(
        elements=tuple(elements),
        cutoff=given["rc"],
        max_degree=degrees - 1,
        radial=len(elements) * k,
        densities=len(elements) * degrees * k,
        recursions=0,
        network=NetworkSpecification(
            widths=tuple(widths[:-1] or widths), blocks=int(len(widths) > 1), activation="tanh", residual=False
        ),
    )
    parameters = {name: np.zeros(shape) for name, shape in parameter_shapes(specification).items()}
    _fill_orbitals(parameters, given)
    contraction = parameters["contraction"].reshape(degrees, len(elements), k, len(elements), degrees, k)
    for s, element in enumerate(elements):
        c_lkt = _read_numbers(folder / f"weight_wave_{element}", degrees * k * len(elements), 0)
        f_lk = _read_numbers(folder / f"scalfactor_{element}", degrees * k, 0).reshape(degrees, k, 1)
        if not f_lk.all():
            raise InputError(f"{folder / f'scalfactor_{element}'} holds a zero, and coefficients are divided by it.")
        c_lkt = c_lkt.reshape(degrees, k, len(elements)) / f_lk
        for l in range(degrees):
            for n in range(k):
                contraction[l, :, n, s, l, n] = c_lkt[l, n]
        _fill_network(parameters, f"network.{element}", layers[element], s * degrees * k)
    findings = [
        Finding("elements", list(elements), "lines of the elements in input"),
        Finding("cutoff", given["rc"], "rc in input"),
        Finding("exponents", f"exp(-a (r - rs)^2), {given['grid']}", "table_grid and lines of the elements in input"),
        Finding("offset per atom", 0.0, "none: the networks give total energies"),
    ]
    return make_model(specification, parameters, 0.0, "parameter files of the Fortran EANN", folder, findings)


def _check_kind(folder, where):
    if (folder / "input").is_file():
        return
    archives = sorted(path.name for suffix in ("*.pt", "*.pth") for path in folder.glob(suffix))
    if archives:
        raise InputError(f"{where} is a folder: give the file, {os.path.join(where, archives[0])}.")
    if (folder / "input_density").is_file() and list(folder.glob("W_*")):
        raise InputError(
            f"{where} holds a PEANN or FEANN (input_density and input_nn of the Fortran package): their orbitals have "
            "piecewise switching functions, which are not supported. Its neighbour EANN is."
        )
    raise InputError(
        f"{where} holds no file input: no folder of the Fortran EANN. Expected input, W_X1, weight_wave_X, ..."
    )


def _read_lines(path):
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. A folder of the Fortran EANN has it."
        ) from error


def _number(word, where):
    try:
        value = float(BARE_EXPONENT.sub(r"e\1", word.lower().replace("d", "e")))
    except ValueError:
        raise InputError(f"{where}: {word!r} is no number.") from None
    if not np.isfinite(value):
        raise InputError(f"{where}: {word!r} is not finite.")
    return value


def _read_numbers(path, count, skip):
    """``count`` numbers of a file after ``skip`` lines of text; the name of the activation may stand at the end."""
    numbers = []
    for line, text in enumerate(_read_lines(path)[skip:], start=skip + 1):
        words = text.split()
        if len(numbers) == count and words and set(words) <= {ACTIVATION}:
            break
        numbers += [_number(word, f"{path}, line {line}") for word in words]
    if len(numbers) != count:
        raise InputError(
            f"{path} holds {len(numbers)} numbers, expected {count} by input: truncated, or of another model."
        )
    return np.array(numbers)


def _read_input(path):
    """Plain values of ``input``: elements, rc, ipsin, nwave, hidden widths, exponents and centres (S, nwave + 1)."""
    lines = [line.split("#")[0].replace(",", " ").split() for line in _read_lines(path)]

    def numbers(name, count=1):
        at = LINES[name]
        words = lines[at] if at < len(lines) else []
        if len(words) < count:
            raise InputError(f"{path}, line {at + 1}: expected {count} numbers ({name}), found {len(words)}.")
        return [_number(word, f"{path}, line {at + 1}") for word in words[:count]]

    def whole(name, least, most=1000):
        (value,) = numbers(name)
        if value != int(value) or not least <= value <= most:
            raise InputError(
                f"{path}, line {LINES[name] + 1}: {name} = {value:g}: expected a whole number from {least}."
            )
        return int(value)

    n_types, degree, most = whole("numtype", 1, 118), whole("ipsin", 0, 20), whole("maxnwave", 0)
    gaussians, cutoffs = [int(n) for n in numbers("nwave", n_types)], numbers("rc", n_types)
    for name in ("nkpoint", "outputneuron"):
        if whole(name, 0) != 1:
            raise InputError(f"{path}, line {LINES[name] + 1}: {name} = {whole(name, 0)}: only one is supported.")
    if len(set(cutoffs)) > 1:
        raise InputError(f"{path}, line {LINES['rc'] + 1}: rc = {cutoffs} differ between elements: not supported.")
    if not cutoffs[0] > 0 or not all(0 <= n <= most for n in gaussians):
        raise InputError(f"{path}: rc = {cutoffs} or nwave = {gaussians} is out of range (maxnwave = {most}).")
    on_grid = whole("table_grid", 0) != 0
    values = {
        "elements": [], "hidden": [], "ipsin": degree, "nwave": most, "rc": cutoffs[0], "gaussians": gaussians,
        "exponents": np.zeros((n_types, most + 1)), "centers": np.zeros((n_types, most + 1)),
        "grid": "rs on an even grid" if on_grid else "a and rs listed",
    }  # fmt: skip
    at = LINES["outputneuron"] + 1
    for s, count in enumerate(gaussians):
        words = lines[at] if at < len(lines) else []
        place = f"{path}, line {at + 1}"
        hidden = int(_number(words[1], place)) if len(words) > 2 else 0
        if hidden < 1 or len(words) < 2 + hidden + on_grid:
            raise InputError(f"{place}: expected 'ELEMENT', the number of hidden layers, their widths, a d^2.")
        values["elements"].append(words[0].strip("'\""))
        values["hidden"].append([int(_number(word, place)) for word in words[2 : 2 + hidden]])
        at += 1
        if on_grid:
            spacing = cutoffs[0] / (count + 1 / 3)
            values["exponents"][s] = _number(words[2 + hidden], place) / spacing**2
            values["centers"][s] = spacing * np.arange(most + 1)
            continue
        for n in range(count + 1):
            words = lines[at] if at < len(lines) else []
            if len(words) < 3:
                raise InputError(f"{path}, line {at + 1}: expected number, exponent and centre of Gaussian {n}.")
            values["exponents"][s, n], values["centers"][s, n] = (
                _number(word, f"{path}, line {at + 1}") for word in words[1:3]
            )
            at += 1
    if len({len(hidden) for hidden in values["hidden"]}) > 1 or min(min(hidden) for hidden in values["hidden"]) < 1:
        raise InputError(f"{path}: hidden layers {values['hidden']}: expected as many for every element.")
    return values


def _read_network(path, hidden, inputs):
    """[(weight (out, in), bias (out,)), ...] of the layers of one element's network."""
    sizes = [inputs, *hidden, 1]
    shapes = list(zip(sizes[1:], sizes))
    numbers = _read_numbers(path, sum(out * width + out for out, width in shapes), 2)
    layers, at = [], 0
    for out, width in shapes:
        weight = numbers[at : at + out * width].reshape(out, width)
        at += out * width
        layers.append((weight, numbers[at : at + out]))
        at += out
    return layers


def _fill_orbitals(parameters, given):
    """Gaussians of every type, seen at its own atoms only."""
    n_types, k = given["exponents"].shape
    # The Gaussians of other types at an atom have the coefficient 0; any finite exponent does.
    parameters["radial_exponents"][:] = np.tile(given["exponents"], n_types)
    parameters["radial_centers"][:] = np.tile(given["centers"], n_types)
    own = parameters["orbital_coefficients"].reshape(n_types, n_types, k)
    for t, most in enumerate(given["gaussians"]):
        own[t, t, : most + 1] = 1.0


def _fill_network(parameters, name, layers, first):
    """Put the layers of one element into its parameters; what they do not fill stays 0, tanh(0) is 0."""
    linear = [f"{name}.input", *(f"{name}.block.0.{n}" for n in range(len(layers) - 2)), f"{name}.output"]
    for n, (place, (weight, bias)) in enumerate(zip(linear, layers)):
        start = first if n == 0 else 0
        parameters[f"{place}.weight"][start : start + weight.shape[1], : len(bias)] = weight.T
        parameters[f"{place}.bias"][: len(bias)] = bias
