"""The whole model in plain NumPy, in the order of the paper: short, slow, and the judge of every faster version.

Equations: EANN, J. Phys. Chem. Lett. 10, 4962 (2019); REANN, Phys. Rev. Lett. 127, 156002 (2021).  Array names end in
their indices: i, j atom (centre, neighbour), p ordered pair i -> j, a monomial, k radial, m density, x Cartesian.
Derivatives are one reverse sweep: ``v_bar`` is dE/dv.  No function here takes an absolute value or a conjugate of
what depends on positions, and comparisons look at real parts, so complex positions give exact derivatives (complex
step): Im E(x + i h v) / h is dE/dx . v.

The 3^l ordered products of x, y, z in the published sums are collected: every distinct monomial of degree l appears
once, with the square root of its multiplicity, in the order of ``monomial_exponents``.
"""

from functools import partial
from itertools import product
from math import factorial
from typing import NamedTuple

import numpy as np

from eann_lite.elements import atomic_number
from eann_lite.errors import InputError
from eann_lite.model.parameters import default_constants

LAYER_NORM_EPS = 1e-5
#: e^2 / (4 pi epsilon_0) in eV Angstrom, and the Bohr radius in Angstrom (CODATA 2018).
COULOMB, BOHR = 14.399645478425668, 0.529177210903
#: Universal screening function of Ziegler, Biersack and Littmark (1985): (amplitude, exponent) of each term.
ZBL_TERMS = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
#: Step of the complex-step derivative: so small that its square vanishes beside 1.
COMPLEX_STEP = 1e-30


class Result(NamedTuple):
    """Energy (eV), energies (n,), forces (n, 3) eV/A, strain_derivative (3, 3) eV, and per step t = 0..T
    orbital_coefficients (T+1, n, K) and density (T+1, n, M)."""

    energy: float
    energies: np.ndarray
    forces: np.ndarray
    strain_derivative: np.ndarray
    orbital_coefficients: np.ndarray
    density: np.ndarray


def evaluate(specification, parameters, constants, numbers, positions, cell, pbc):
    """Energy and its derivatives of one structure, as a ``Result``.

    numbers (n,), positions (n, 3) and cell (3, 3) in Angstrom (rows are lattice vectors), pbc (3,).  The strain
    derivative belongs to a symmetric strain, r -> r (1 + strain).  ``constants=None`` leaves densities and energies
    unscaled.  Errors: InputError for a foreign element, a position or cell that is not finite, a flat periodic cell.

    >>> from eann_lite.model.parameters import parameter_shapes
    >>> from eann_lite.model.specification import Specification
    >>> spec = Specification(("H",), cutoff=4.0, radial=2, densities=3, recursions=0)
    >>> ones = {name: np.ones(shape) for name, shape in parameter_shapes(spec).items()}
    >>> result = evaluate(spec, ones, None, [1, 1], [[0, 0, 0], [0, 0, 0.9]], np.zeros((3, 3)), [False] * 3)
    >>> result.forces.shape, bool(result.forces[0, 2] == -result.forces[1, 2])
    ((2, 3), True)
    """
    return _sweep(specification, parameters, constants, numbers, positions, cell, pbc)[0]


def energy_gradient(specification, parameters, constants, numbers, positions, cell, pbc):
    """dE/dparameter of one structure: name -> array of the parameter's shape.  Arguments as in ``evaluate``."""
    return _sweep(specification, parameters, constants, numbers, positions, cell, pbc)[1]


def loss_gradient(
    specification, parameters, constants, numbers, positions, cell, pbc, energy_weights, force_weights, strain_weights
):
    """d loss/d parameter from energy_weights e = dloss/dE, force_weights v = dloss/dF (n, 3) and strain_weights
    s = dloss/d(strain derivative) (3, 3): the gradient of  e E + v . F + s : dE/dstrain.

    F = -dE/dx and a strain moves x by x s, so the last two are the derivative of dE/dparameter along -v + x s: one
    evaluation with complex positions and cell.  Other arguments as in ``evaluate``.
    """
    positions, cell = np.asarray(positions, dtype=float), np.asarray(cell, dtype=float)
    strain = np.asarray(strain_weights, dtype=float)
    strain = (strain + strain.T) / 2
    moved = positions + 1j * COMPLEX_STEP * (positions @ strain - np.asarray(force_weights, dtype=float))
    strained = cell + 1j * COMPLEX_STEP * (cell @ strain)
    gradient = energy_gradient(specification, parameters, constants, numbers, moved, strained, pbc)
    return {name: energy_weights * g.real + g.imag / COMPLEX_STEP for name, g in gradient.items()}


def pairs(positions, cell, pbc, cutoff):
    """All ordered pairs of an atom and another one, or an image, with |r| < cutoff: first, neighbor (P,), shift (P, 3).

    r = x_j + shift cell - x_i.  Brute force over images: along a periodic vector d, a distance r spans at most r |b_d|
    cells (b_d reciprocal vector), to which the atoms' own spread is added; so tiny and skewed cells and unwrapped
    atoms need no care.
    """
    positions, cell, pbc = np.real(positions), np.real(cell), np.asarray(pbc, dtype=bool)
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise InputError("positions or cell are not finite: expected numbers (Angstrom) in every entry.")
    periodic = cell[pbc]
    if pbc.any() and np.linalg.matrix_rank(periodic) < len(periodic):  # Of no rows older NumPy knows no rank.
        raise InputError(f"cell {cell.tolist()} is flat or zero along a periodic direction: expected independent rows.")
    reciprocal = np.linalg.pinv(periodic)
    reach = np.zeros(3, dtype=int)
    if len(positions):
        spread = np.ptp(positions @ reciprocal, axis=0)
        reach[pbc] = np.ceil(cutoff * np.sqrt(np.sum(reciprocal**2, axis=0)) + spread)
    first, neighbor, shifts = [], [], []
    for shift in product(*(range(-n, n + 1) for n in reach)):
        r_ijx = positions[None, :] + np.array(shift) @ cell - positions[:, None]
        close = np.sum(r_ijx**2, axis=-1) < cutoff**2
        if shift == (0, 0, 0):
            np.fill_diagonal(close, False)
        i, j = np.nonzero(close)
        first.append(i)
        neighbor.append(j)
        shifts.append(np.broadcast_to(shift, (len(i), 3)))
    return np.concatenate(first), np.concatenate(neighbor), np.concatenate(shifts)


def cutoff_function(r, cutoff):
    """f_c(r) = [(1 + cos(pi r / r_c)) / 2]^2 inside the cutoff, 0 beyond, and its derivative df_c/dr."""
    half = (1 + np.cos(np.pi * r / cutoff)) / 2
    slope = -half * np.sin(np.pi * r / cutoff) * np.pi / cutoff
    inside = np.real(r) < cutoff
    return np.where(inside, half**2, 0), np.where(inside, slope, 0)


def monomial_exponents(max_degree):
    """[(lx, ly, lz), ...] degree by degree, lx falling, then ly falling.

    >>> monomial_exponents(2)[4:]
    [(2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 2, 0), (0, 1, 1), (0, 0, 2)]
    """
    degrees = range(max_degree + 1)
    return [(x, y, l - x - y) for l in degrees for x in range(l, -1, -1) for y in range(l - x, -1, -1)]


def monomials(r_px, max_degree):
    """A_pa = sqrt(l! / (lx! ly! lz!)) x^lx y^ly z^lz and its derivatives dA_pax; r_px (P, 3) in Angstrom."""
    power_lpx = np.cumprod([np.ones_like(r_px)] + [r_px] * max_degree, axis=0)
    columns, slopes = [], []
    for exponents in monomial_exponents(max_degree):
        weight = np.sqrt(factorial(sum(exponents)) / np.prod([factorial(l) for l in exponents]))
        value = [power_lpx[l, :, x] for x, l in enumerate(exponents)]
        slope = [l * power_lpx[max(l - 1, 0), :, x] for x, l in enumerate(exponents)]
        columns.append(weight * value[0] * value[1] * value[2])
        others = [value[1] * value[2], value[0] * value[2], value[0] * value[1]]
        slopes.append(weight * np.stack([s * o for s, o in zip(slope, others)], axis=-1))
    return np.stack(columns, axis=1), np.stack(slopes, axis=1)


def contraction(specification, parameters):
    """W_akm of every monomial a: W of its degree, learned, or (EANN 2019) each degree and Gaussian its own density."""
    degrees, k = specification.max_degree + 1, specification.radial
    if specification.contraction == "learned":
        w_lkm = parameters["contraction"]
    else:
        w_lkm = np.eye(degrees * k).reshape(degrees, k, degrees * k)
    return w_lkm[[sum(exponents) for exponents in monomial_exponents(specification.max_degree)]]


def sum_by(index, values, size):
    """Sums of the rows of ``values`` with equal index: (size, ...)."""
    total = np.zeros((size,) + values.shape[1:], values.dtype)
    np.add.at(total, index, values)
    return total


def sigmoid(y):
    """1 / (1 + exp(-y)), also complex, without overflow on either side."""
    positive = np.real(y) >= 0
    e = np.exp(np.where(positive, -y, y))
    return np.where(positive, 1, e) / (1 + e)


def activate(kind, x, alpha=None, beta=None):
    """Activation: value, d/dx and, where they are learned, d/dalpha, d/dbeta.  silu(y) = y / (1 + exp(-y)).

    relu_like: alpha silu(beta x); tanh_like: alpha x / sqrt(1 + (beta x)^2); silu and tanh have no alpha, beta.
    Far out 1 - tanh(x)^2 would be a difference of numbers that are nearly the same.
    """
    if kind == "tanh":
        return np.tanh(x), 4 * sigmoid(2 * x) * sigmoid(-2 * x)
    if kind == "tanh_like":
        root = 1 / np.sqrt(1 + (beta * x) ** 2)
        return alpha * x * root, alpha * root**3, x * root, -alpha * beta * x**3 * root**3
    y = x if kind == "silu" else beta * x
    sigma = sigmoid(y)
    value, slope = y * sigma, sigma * (1 + y * (1 - sigma))
    if kind == "silu":
        return value, slope
    return alpha * value, alpha * beta * slope, value, alpha * x * slope


# Layers: (parameters, layer name, x (n, in)) -> output (n, out) and reverse(y_bar) -> x_bar, {parameter: gradient}.


def linear(parameters, layer, x):
    """Linear map ``x @ weight + bias`` of a layer."""
    weight = parameters[f"{layer}.weight"]

    def reverse(y_bar):
        return y_bar @ weight.T, {f"{layer}.weight": x.T @ y_bar, f"{layer}.bias": y_bar.sum(axis=0)}

    return x @ weight + parameters[f"{layer}.bias"], reverse


def activation(kind, parameters, layer, x):
    """Activation of a layer, with its learned parameters where the kind has any."""
    names = (f"{layer}.alpha", f"{layer}.beta") if kind.endswith("_like") else ()
    y, by_x, *by_parameters = activate(kind, x, *(parameters[name] for name in names))

    def reverse(y_bar):
        return y_bar * by_x, {name: (y_bar * by).sum(axis=0) for name, by in zip(names, by_parameters)}

    return y, reverse


def layer_norm(parameters, layer, x):
    """Layer normalisation of every row: biased variance, eps 1e-5, learned scale and shift."""
    scale, centred = parameters[f"{layer}.scale"], x - x.mean(axis=1, keepdims=True)
    root = np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + LAYER_NORM_EPS)
    unit = centred / root

    def reverse(y_bar):
        u_bar = y_bar * scale
        along = np.mean(u_bar * unit, axis=1, keepdims=True)
        gradient = {f"{layer}.scale": (y_bar * unit).sum(axis=0), f"{layer}.shift": y_bar.sum(axis=0)}
        return (u_bar - u_bar.mean(axis=1, keepdims=True) - unit * along) / root, gradient

    return scale * unit + parameters[f"{layer}.shift"], reverse


def network(shape, parameters, name, x):
    """Network ``name`` of a NetworkSpecification ``shape`` on rows x (n, in): input(x), then for each block
    x + links(x) (a link: activation, layer normalisation if any after or before it, linear map), then activation and
    output.  Blocks that are not residual are links(x).

    Gives output (n, out) and reverse(y_bar) -> x_bar, {parameter: gradient}.
    """
    act = partial(activation, shape.activation)
    layers = {False: (act, linear), True: (act, layer_norm, linear), "before": (layer_norm, act, linear)}
    stages = [[(linear, f"{name}.input")]]
    for b in range(shape.blocks):
        stages.append(
            [(layer, f"{name}.block.{b}.{i}") for i in range(len(shape.widths)) for layer in layers[shape.layer_norm]]
        )
    last = layers["before"] if shape.normalises_output else layers[False]
    stages.append([(layer, f"{name}.output") for layer in last])
    done = []
    for number, stage in enumerate(stages):
        start, reverses = x, []
        for layer, place in stage:
            x, reverse = layer(parameters, place, x)
            reverses.append(reverse)
        adds_input = shape.residual and 0 < number <= shape.blocks
        x = start + x if adds_input else x
        done.append((adds_input, reverses))

    def reverse_all(y_bar):
        gradient = {}
        for adds_input, reverses in reversed(done):
            x_bar = y_bar
            for reverse in reversed(reverses):
                x_bar, part = reverse(x_bar)
                gradient.update(part)
            y_bar = y_bar + x_bar if adds_input else x_bar
        return y_bar, gradient

    return x, reverse_all


def element_networks(shape, parameters, prefix, elements, s_i, x_im):
    """Each atom through its element's network ``prefix.element``: outputs (n, out), and the reverse of all."""
    rows = [np.flatnonzero(s_i == s) for s in range(len(elements))]
    runs = [network(shape, parameters, f"{prefix}.{e}", x_im[r]) for e, r in zip(elements, rows)]

    def scattered(parts):
        return sum_by(np.concatenate(rows), np.concatenate(parts), len(s_i))

    def reverse(y_bar):
        parts = [run[1](y_bar[r]) for run, r in zip(runs, rows)]
        return scattered([x_bar for x_bar, _ in parts]), {k: g for _, part in parts for k, g in part.items()}

    return scattered([y for y, _ in runs]), reverse


def repulsion(specification, numbers, i_p, j_p, r_p):
    """ZBL energy of each ordered pair (half of the pair's, eV) and its slope, switched off by the cutoff function."""
    z_i, z_j = numbers[i_p], numbers[j_p]
    a = 0.8854 * BOHR / (z_i**0.23 + z_j**0.23)
    phi = sum(c * np.exp(-d * r_p / a) for c, d in ZBL_TERMS)
    phi_slope = sum(-c * d / a * np.exp(-d * r_p / a) for c, d in ZBL_TERMS)
    switch, switch_slope = cutoff_function(r_p, specification.repulsion_cutoff)
    strength = COULOMB * z_i * z_j / (2 * r_p)
    return strength * phi * switch, strength * (phi_slope * switch + phi * switch_slope - phi * switch / r_p)


def _species(specification, numbers):
    known = [atomic_number(element) for element in specification.elements]
    for atom, number in enumerate(numbers):
        if number not in known:
            raise InputError(f"atom {atom} has atomic number {number}: the model knows {specification.elements}.")
    return np.array([known.index(number) for number in numbers], dtype=int)


def _sweep(specification, parameters, constants, numbers, positions, cell, pbc):
    """Forward and reverse sweep: Result and {parameter: dE/dparameter}."""
    numbers, positions, cell = np.asarray(numbers), 1.0 * np.asarray(positions), 1.0 * np.asarray(cell)
    constants = constants or default_constants(specification)
    n, elements, steps = len(numbers), specification.elements, specification.recursions
    s_i = _species(specification, numbers)

    # Pairs, Gaussians of the neighbour's element, monomials.
    i_p, j_p, shift_px = pairs(positions, cell, pbc, specification.reach)
    r_px = positions[j_p] + shift_px @ cell - positions[i_p]
    r_p = np.sqrt(np.sum(r_px * r_px, axis=1))
    fc_p, fc_slope_p = cutoff_function(r_p, specification.cutoff)
    alpha_pk = parameters["radial_exponents"][s_i[j_p]]
    delta_pk = r_p[:, None] - parameters["radial_centers"][s_i[j_p]]
    gauss_pk = np.exp(-alpha_pk * delta_pk**2)
    radial_pk = gauss_pk * fc_p[:, None]
    angular_pa, angular_slope_pax = monomials(r_px, specification.max_degree)
    w_akm = contraction(specification, parameters)

    # Orbital sums, densities and recursion; the last density goes to the energy networks.
    c_jk = parameters["orbital_coefficients"][s_i]
    trail = []
    for t in range(steps + 1):
        b_iak = sum_by(i_p, np.einsum("pa,pk,pk->pak", angular_pa, radial_pk, c_jk[j_p]), n)
        d_iam = np.einsum("iak,akm->iam", b_iak, w_akm)
        density_im = np.einsum("iam,iam->im", d_iam, d_iam)
        scale_im = constants["density_scale"][t][s_i]
        x_im = (density_im - constants["density_shift"][t][s_i]) * scale_im
        shape, prefix = (
            (specification.recursion_network, f"recursion.{t}") if t < steps else (specification.network, "network")
        )
        y, reverse = element_networks(shape, parameters, prefix, elements, s_i, x_im)
        trail.append((c_jk, b_iak, d_iam, density_im, scale_im, reverse))
        c_jk = c_jk + y if t < steps else c_jk
    energies = constants["reference_energies"][s_i] + constants["energy_scale"] * y[:, 0]

    # Reverse sweep, t = T .. 0.
    y_bar = np.full((n, 1), constants["energy_scale"])
    c_bar_jk = np.zeros_like(c_jk)
    radial_bar_pk, angular_bar_pa = 0 * radial_pk, 0 * angular_pa
    w_bar_akm, gradient = np.zeros(w_akm.shape, r_px.dtype), {}
    for t in reversed(range(steps + 1)):
        c_jk, b_iak, d_iam, _, scale_im, reverse = trail[t]
        x_bar_im, network_gradient = reverse(y_bar)
        gradient.update(network_gradient)
        d_bar_iam = 2 * np.einsum("im,iam->iam", x_bar_im * scale_im, d_iam)
        w_bar_akm = w_bar_akm + np.einsum("iak,iam->akm", b_iak, d_bar_iam)
        b_bar_pak = np.einsum("iam,akm->iak", d_bar_iam, w_akm)[i_p]
        along_pk = np.einsum("pa,pak->pk", angular_pa, b_bar_pak)
        radial_bar_pk = radial_bar_pk + along_pk * c_jk[j_p]
        angular_bar_pa = angular_bar_pa + np.einsum("pak,pk->pa", b_bar_pak, radial_pk * c_jk[j_p])
        c_bar_jk = c_bar_jk + sum_by(j_p, along_pk * radial_pk, n)
        y_bar = c_bar_jk

    # Gradients of the embedding, and g_p = dE/dr_p with the pair repulsion.
    common_pk = radial_bar_pk * radial_pk
    size = len(elements)
    gradient["radial_exponents"] = sum_by(s_i[j_p], -common_pk * delta_pk**2, size)
    gradient["radial_centers"] = sum_by(s_i[j_p], 2 * common_pk * alpha_pk * delta_pk, size)
    gradient["orbital_coefficients"] = sum_by(s_i, c_bar_jk, size)
    if specification.contraction == "learned":
        degree_a = np.array([sum(exponents) for exponents in monomial_exponents(specification.max_degree)])
        gradient["contraction"] = sum_by(degree_a, w_bar_akm, specification.max_degree + 1)
    slope_p = np.sum(-2 * common_pk * alpha_pk * delta_pk + radial_bar_pk * gauss_pk * fc_slope_p[:, None], axis=1)
    if specification.repulsion == "zbl":
        pair_p, pair_slope_p = repulsion(specification, numbers, i_p, j_p, r_p)
        energies, slope_p = energies + sum_by(i_p, pair_p, n), slope_p + pair_slope_p
    g_px = slope_p[:, None] * r_px / r_p[:, None] + np.einsum("pa,pax->px", angular_bar_pa, angular_slope_pax)

    forces = sum_by(i_p, g_px, n) - sum_by(j_p, g_px, n)
    virial = np.einsum("px,py->xy", r_px, g_px)
    coefficients, densities = np.stack([step[0] for step in trail]), np.stack([step[3] for step in trail])
    result = Result(energies.sum(), energies, forces, (virial + virial.T) / 2, coefficients, densities)
    return result, {name: gradient[name] for name in parameters}
