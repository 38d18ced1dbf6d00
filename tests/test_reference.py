"""The NumPy reference against its own derivatives, sums written a second time, hand-computed and published numbers."""

import ast
import importlib.util
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eann_lite import reference
from eann_lite.errors import InputError
from eann_lite.model.parameters import default_constants, parameter_shapes
from eann_lite.model.specification import ACTIVATIONS, NetworkSpecification, Specification

STEP = 1e-30  # of complex steps
OPEN, CUBE = np.zeros((3, 3)), 4.0 * np.eye(3)
SKEWED = np.array([[2.6, 0.1, 0.0], [2.1, 2.2, -0.3], [-0.2, 1.9, 2.8]])
METHANE = np.array([[0, 0, 0], [0.63, 0.6, 0.7], [-0.6, -0.66, 0.62], [0.65, -0.6, -0.6], [-0.7, 0.61, -0.66]])


def specification(**changes):
    """Small model of C and H; networks of two different widths, so that no transposed matrix fits."""
    network = NetworkSpecification(widths=(4, 3), blocks=1, activation="silu")
    values = dict(elements=("C", "H"), cutoff=3.5, max_degree=2, radial=3, densities=5, recursions=1)
    return Specification(**{**values, "network": network, "recursion_network": network, **changes})


MODELS = {
    "EANN 2019": specification(contraction="per_degree", recursions=0, repulsion="zbl", repulsion_cutoff=1.5),
    "EANN": specification(recursions=0, network=NetworkSpecification((4,), 2, "tanh", layer_norm=True)),
    "REANN tanh_like": specification(
        max_degree=1,
        network=NetworkSpecification((3, 5), 2, "tanh_like", layer_norm=True),
        recursion_network=NetworkSpecification((2, 4, 3), 1, "relu_like"),
    ),
    "REANN relu_like": specification(
        max_degree=3,
        recursions=2,
        network=NetworkSpecification((4, 3), 1, "relu_like"),
        recursion_network=NetworkSpecification((3, 4), 1, "tanh_like", layer_norm=True),
        repulsion="zbl",
        repulsion_cutoff=4.0,
    ),
}
each_model = pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS.keys())


def random_model(spec, seed=0):
    """Parameters and constants of ordinary size, none of them at a special value."""
    rng = np.random.default_rng(seed)
    parameters = {}
    for name, shape in parameter_shapes(spec).items():
        if name in ("radial_exponents", "radial_centers"):
            parameters[name] = rng.uniform(0.2, 1.2, shape)
        elif name.endswith((".alpha", ".beta", ".scale")):
            parameters[name] = rng.uniform(0.6, 1.4, shape)
        else:
            parameters[name] = rng.normal(size=shape) / math.sqrt(shape[0])
    constants = {
        name: value + 0.3 * rng.uniform(0.5, 1.5, np.shape(value)) for name, value in default_constants(spec).items()
    }
    return parameters, constants


def methane():
    return np.array([6, 1, 1, 1, 1]), METHANE, OPEN, np.zeros(3, dtype=bool)


def crystal():
    """Three atoms in a skewed cell much smaller than the cutoff, periodic along two vectors."""
    positions = np.array([[0.1, 0.2, 0.0], [1.6, 0.9, 0.4], [1.1, 2.4, 1.3]])
    return np.array([1, 6, 1]), positions, SKEWED, np.array([True, True, False])


each_structure = pytest.mark.parametrize("structure", [methane(), crystal()], ids=["molecule", "skewed slab"])


def assert_close(found, expected, limit):
    """Largest deviation below ``limit`` times the largest expected entry."""
    assert np.shape(found) == np.shape(expected)
    assert np.max(np.abs(np.asarray(found) - expected)) <= limit * max(np.max(np.abs(expected)), 1e-3)


# Derivatives


@each_model
@each_structure
def test_forces_and_strain_derivative_are_derivatives_of_the_energy(spec, structure):
    numbers, positions, cell, pbc = structure
    parameters, constants = random_model(spec)
    rng = np.random.default_rng(1)
    along, strain = rng.normal(size=positions.shape), rng.normal(size=(3, 3))
    strain = strain + strain.T

    def energy(step):
        moved = positions + step * along, cell
        strained = positions + step * positions @ strain, cell + step * cell @ strain
        model = spec, parameters, constants
        return np.array([reference.evaluate(*model, numbers, *x, pbc).energy for x in (moved, strained)])

    result = reference.evaluate(spec, parameters, constants, numbers, positions, cell, pbc)
    slopes = np.array([-np.sum(result.forces * along), np.sum(result.strain_derivative * strain)])
    assert_close(energy(1j * STEP).imag / STEP, slopes, 1e-12)
    assert_close((energy(1e-5) - energy(-1e-5)) / 2e-5, slopes, 1e-7)
    assert_close(result.energies.sum(), result.energy, 1e-14)
    assert np.array_equal(result.strain_derivative, result.strain_derivative.T)


@each_model
@each_structure
def test_parameter_gradients_are_derivatives_of_energy_and_loss(spec, structure):
    parameters, constants = random_model(spec)
    rng = np.random.default_rng(2)
    e, v, s = 0.7, rng.normal(size=structure[1].shape), rng.normal(size=(3, 3))
    s = s + s.T
    along = {name: rng.normal(size=array.shape) for name, array in parameters.items()}

    def values(step, names):
        changed = {name: array + step * along[name] if name in names else array for name, array in parameters.items()}
        r = reference.evaluate(spec, changed, constants, *structure)
        return np.array([r.energy, e * r.energy + np.sum(v * r.forces) + np.sum(s * r.strain_derivative)])

    of_energy = reference.energy_gradient(spec, parameters, constants, *structure)
    of_loss = reference.loss_gradient(spec, parameters, constants, *structure, e, v, s)
    assert list(of_energy) == list(of_loss) == list(parameters)
    slopes = {name: np.array([np.sum(g[name] * along[name]) for g in (of_energy, of_loss)]) for name in parameters}
    for name, slope in slopes.items():
        assert of_energy[name].shape == of_loss[name].shape == parameters[name].shape
        assert_close(values(1j * STEP, {name}).imag / STEP, slope, 1e-11)
    central = (values(1e-5, set(parameters)) - values(-1e-5, set(parameters))) / 2e-5
    assert_close(sum(slopes.values()), central, 1e-6)


def test_loss_gradient_takes_only_the_symmetric_part_of_strain_weights():
    spec = MODELS["REANN tanh_like"]
    parameters, constants = random_model(spec)
    s, none = np.arange(9.0).reshape(3, 3), np.zeros((3, 3))
    found = [
        reference.loss_gradient(spec, parameters, constants, *crystal(), 0.0, none, weights) for weights in (s, s.T)
    ]
    for name in parameters:
        assert np.array_equal(found[0][name], found[1][name])


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_are_what_they_are_called_and_survive_large_arguments(kind):
    x, alpha, beta = np.array([-900.0, -1.3, 0.0, 0.4, 900.0]), 0.8, 1.7
    expected = {
        "silu": lambda y: y / (1 + math.exp(-min(y, 700)) if y > -700 else math.inf),
        "tanh": math.tanh,
        "tanh_like": lambda y: alpha * y / math.sqrt(1 + (beta * y) ** 2),
    }
    expected["relu_like"] = lambda y: alpha * expected["silu"](beta * y)
    learned = (alpha, beta) if kind.endswith("_like") else ()
    with np.errstate(all="raise", under="ignore"):
        value, by_x, *others = reference.activate(kind, x + 0j, *learned)
        stepped = reference.activate(kind, x + 1j * STEP, *learned)[0]
    assert value == pytest.approx([expected[kind](y) for y in x], rel=1e-14, abs=1e-300)
    assert by_x.real == pytest.approx(stepped.imag / STEP, rel=1e-12, abs=1e-15)
    assert len(others) == len(learned)
    for k, by_parameter in enumerate(others):
        moved = [alpha + 1j * STEP * (k == 0), beta + 1j * STEP * (k == 1)]
        expected_slope = reference.activate(kind, x, *moved)[0].imag / STEP
        assert by_parameter.real == pytest.approx(expected_slope, rel=1e-12, abs=1e-15)


# Symmetries


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(MODELS)), st.booleans())
@settings(max_examples=12)
def test_energy_does_not_change_under_rotation_inversion_translation_and_permutation(seed, name, periodic):
    spec = MODELS[name]
    parameters, constants = random_model(spec, seed)
    rng = np.random.default_rng(seed)
    numbers, positions, cell, pbc = crystal() if periodic else methane()
    positions = positions + rng.normal(scale=0.1, size=positions.shape)
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(numbers))
    images = rng.integers(-2, 3, size=(len(numbers), 3)) * pbc @ cell
    moved = ((positions + images) @ q + rng.normal(size=3))[order]

    a = reference.evaluate(spec, parameters, constants, numbers, positions, cell, pbc)
    b = reference.evaluate(spec, parameters, constants, numbers[order], moved, cell @ q, pbc)
    assert_close(b.energies, a.energies[order], 1e-10)
    assert_close(b.density, a.density[:, order], 1e-10)
    assert_close(b.forces, (a.forces @ q)[order], 1e-9)
    assert_close(b.strain_derivative, q.T @ a.strain_derivative @ q, 1e-9)
    assert np.abs(a.forces.sum(axis=0)).max() < 1e-11 * max(1, np.abs(a.forces).max())


def test_supercell_of_a_tiny_cell_has_the_same_atomic_energies_and_forces():
    spec = MODELS["REANN relu_like"]
    parameters, constants = random_model(spec)
    numbers, positions, cell, pbc = crystal()
    small = reference.evaluate(spec, parameters, constants, numbers, positions, cell, pbc)
    doubled = np.concatenate([positions, positions + cell[0]])
    large = reference.evaluate(spec, parameters, constants, np.tile(numbers, 2), doubled, cell * [[2], [1], [1]], pbc)
    assert_close(large.energies, np.tile(small.energies, 2), 1e-12)
    assert_close(large.forces, np.tile(small.forces, (2, 1)), 1e-11)
    assert_close(large.strain_derivative, 2 * small.strain_derivative, 1e-12)


# Pairs


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.floats(0.5, 3.0),
    st.integers(1, 4),
)
def test_pairs_are_those_of_ase(seed, pbc, cutoff, n):
    from ase.neighborlist import primitive_neighbor_list

    rng = np.random.default_rng(seed)
    cell = rng.uniform(-1, 1, size=(3, 3)) + np.diag(rng.uniform(1.5, 3, 3))
    positions = rng.uniform(-4, 4, size=(n, 3))
    i, j, shifts = reference.pairs(positions, cell, pbc, cutoff)
    ase_i, ase_j, ase_shifts = primitive_neighbor_list("ijS", pbc, cell, positions, cutoff, self_interaction=False)
    found = {(*pair, *shift) for *pair, shift in zip(i, j, map(tuple, shifts))}
    expected = {(*pair, *shift) for *pair, shift in zip(ase_i, ase_j, map(tuple, ase_shifts))}
    assert found == expected
    assert len(found) == len(i)


def test_a_cell_much_smaller_than_the_cutoff_has_all_its_images():
    i, j, shifts = reference.pairs([[0.3, -0.2, 0.9]], 0.5 * np.eye(3), [True] * 3, 2.1)
    lattice = itertools.product(range(-5, 6), repeat=3)
    expected = {point for point in lattice if 0 < 0.25 * sum(x * x for x in point) < 2.1**2}
    assert {tuple(shift) for shift in shifts} == expected
    assert len(shifts) == len(expected) and not i.any() and not j.any()


# Formulas written a second time


def test_monomials_equal_the_sum_over_all_ordered_products():
    """Published form: sum over all 3^l products of components, none of them collected."""
    spec = specification(max_degree=3, recursions=0)
    parameters, constants = random_model(spec)
    numbers, positions, cell, pbc = methane()
    found = reference.evaluate(spec, parameters, constants, numbers, positions, cell, pbc).density[0]
    species = {6: 0, 1: 1}
    for i, m in itertools.product(range(5), range(spec.densities)):
        total = 0.0
        for l in range(4):
            for axes in itertools.product(range(3), repeat=l):
                amplitude = 0.0
                for j, k in itertools.product(range(5), range(spec.radial)):
                    if j != i:
                        d, s = positions[j] - positions[i], species[numbers[j]]
                        r = math.dist(positions[j], positions[i])
                        width, center = parameters["radial_exponents"][s, k], parameters["radial_centers"][s, k]
                        switch = (0.5 + 0.5 * math.cos(math.pi * r / spec.cutoff)) ** 2 if r < spec.cutoff else 0.0
                        orbital = math.exp(-width * (r - center) ** 2) * switch * math.prod(d[x] for x in axes)
                        coefficient = parameters["orbital_coefficients"][s, k] * parameters["contraction"][l, k, m]
                        amplitude += coefficient * orbital
                total += amplitude**2
        assert found[i, m] == pytest.approx(total, rel=1e-12)


def test_per_degree_contraction_is_the_density_of_the_2019_paper():
    """rho_lk = sum over lx + ly + lz = l of l! / (lx! ly! lz!) (sum_j c_jk x^lx y^ly z^lz R_k(r))^2."""
    spec = MODELS["EANN 2019"]
    parameters, constants = random_model(spec)
    numbers, positions, cell, pbc = methane()
    found = reference.evaluate(spec, parameters, constants, numbers, positions, cell, pbc).density[0]
    for i, l, k in itertools.product(range(5), range(3), range(spec.radial)):
        expected = 0.0
        for lx, ly, lz in itertools.product(range(l + 1), repeat=3):
            if lx + ly + lz != l:
                continue
            amplitude = 0.0
            for j in range(5):
                s = 0 if numbers[j] == 6 else 1
                x, y, z = positions[j] - positions[i]
                r = math.sqrt(x * x + y * y + z * z)
                if 0 < r < spec.cutoff:
                    switch = (0.5 * math.cos(math.pi * r / spec.cutoff) + 0.5) ** 2
                    width, center = parameters["radial_exponents"][s, k], parameters["radial_centers"][s, k]
                    radial = parameters["orbital_coefficients"][s, k] * math.exp(-width * (r - center) ** 2) * switch
                    amplitude += x**lx * y**ly * z**lz * radial
            count = math.factorial(l) / (math.factorial(lx) * math.factorial(ly) * math.factorial(lz))
            expected += count * amplitude**2
        assert found[i, l * spec.radial + k] == pytest.approx(expected, rel=1e-12)


def test_network_is_linear_maps_with_normalised_residual_blocks():
    """One atom's network written line by line: published order activation, layer normalisation, linear map."""
    shape = NetworkSpecification((3, 2), 1, "tanh", layer_norm=True)
    parameters, _ = random_model(specification(recursions=0, elements=("H",), network=shape))
    p = {name.removeprefix("network.H."): array for name, array in parameters.items()}
    x = np.linspace(-1, 1, 5)

    def normalised(y, link):
        return p[f"{link}.scale"] * (y - y.mean()) / math.sqrt(y.var() + 1e-5) + p[f"{link}.shift"]

    h = x @ p["input.weight"] + p["input.bias"]
    y = normalised(np.tanh(h), "block.0.0") @ p["block.0.0.weight"] + p["block.0.0.bias"]
    h = h + normalised(np.tanh(y), "block.0.1") @ p["block.0.1.weight"] + p["block.0.1.bias"]
    expected = np.tanh(h) @ p["output.weight"] + p["output.bias"]
    assert reference.network(shape, parameters, "network.H", x[None])[0][0] == pytest.approx(expected, rel=1e-14)


# Repulsion, offsets, isolated atoms


ZBL_C, ZBL_D = (0.18175, 0.50986, 0.28022, 0.02817), (3.19980, 0.94229, 0.40290, 0.20162)


def distances(numbers, positions, cell, pbc, cutoff):
    """(Z_i, Z_j, r) of every ordered pair within the cutoff, from ASE."""
    from ase.neighborlist import primitive_neighbor_list

    i, j, r = primitive_neighbor_list("ijd", pbc, cell, positions, cutoff, self_interaction=False)
    return zip(numbers[i].tolist(), numbers[j].tolist(), r.tolist())


@pytest.mark.parametrize(
    "elements, numbers, distance, cutoff, energy",
    [
        (("H",), (1, 1), 0.74, 2.5, 1.482837720521045),
        (("C", "H"), (6, 1), 0.5, 2.0, 19.20440936532336),
        (("Ni", "O"), (28, 8), 1.2, 3.0, 11.33468741584192),
        (("H",), (1, 1), 2.5, 2.5, 0.0),
    ],
)
def test_zbl_repulsion_has_the_value_worked_out_by_hand(elements, numbers, distance, cutoff, energy):
    """Energies (eV) computed once from the formula in 40 decimal digits; the cutoff of 0.4 A leaves nothing else."""
    spec = specification(elements=elements, cutoff=0.4, recursions=0, repulsion="zbl", repulsion_cutoff=cutoff)
    parameters = {name: np.zeros(shape) for name, shape in parameter_shapes(spec).items()}
    positions = np.array([[0.0, 0.0, 0.0], [0.0, distance, 0.0]])
    result = reference.evaluate(spec, parameters, None, numbers, positions, OPEN, [False] * 3)
    assert result.energy == pytest.approx(energy, rel=1e-14)
    assert result.energies == pytest.approx([energy / 2] * 2, rel=1e-14)
    assert not result.density.any()


@pytest.mark.parametrize("cutoff", [1.0, 6.0])
def test_repulsion_leaves_the_densities_alone_and_ends_at_its_own_cutoff(cutoff):
    with_repulsion = specification(repulsion="zbl", repulsion_cutoff=cutoff)
    parameters, constants = random_model(with_repulsion)
    plain = reference.evaluate(specification(), parameters, constants, *crystal())
    result = reference.evaluate(with_repulsion, parameters, constants, *crystal())
    assert_close(result.density, plain.density, 1e-14)
    pairs = [
        14.399645478425668 * zi * zj / r * sum(c * math.exp(-d * r / a) for c, d in zip(ZBL_C, ZBL_D)) * switch**2 / 2
        for zi, zj, r in distances(*crystal(), cutoff)
        for a in [0.8854 * 0.529177210903 / (zi**0.23 + zj**0.23)]
        for switch in [(1 + math.cos(math.pi * r / cutoff)) / 2]
    ]
    assert (len(pairs) == 0) == (cutoff == 1.0)
    assert result.energy - plain.energy == pytest.approx(sum(pairs), rel=1e-12, abs=1e-14)


@each_model
def test_an_isolated_atom_has_the_energy_of_bare_density_and_no_forces(spec):
    parameters, constants = random_model(spec)
    result = reference.evaluate(spec, parameters, constants, [6, 1], [[0, 0, 0], [9, 0, 0]], OPEN, [False] * 3)
    assert not result.density.any() and not result.forces.any() and not result.strain_derivative.any()
    bare = (0 - constants["density_shift"][-1][0]) * constants["density_scale"][-1][0]
    output = reference.network(spec.network, parameters, "network.C", bare[None])[0][0, 0]
    expected = constants["reference_energies"][0] + constants["energy_scale"] * output
    assert result.energies[0] == pytest.approx(expected, rel=1e-14)
    gradient = reference.loss_gradient(
        spec, parameters, constants, [6], [[0, 0, 0]], OPEN, [False] * 3, 1.0, np.ones((1, 3)), np.eye(3)
    )
    assert not gradient["radial_centers"].any()
    assert gradient["network.C.output.bias"] == pytest.approx(constants["energy_scale"])
    assert not gradient["network.H.output.bias"].any()


def test_energy_and_forces_vanish_smoothly_at_the_cutoff():
    spec = specification(recursions=1)
    parameters, constants = random_model(spec)

    def at(distance):
        positions = [[0.0, 0.0, 0.0], [0.0, 0.0, distance]]
        return reference.evaluate(spec, parameters, constants, [6, 1], positions, OPEN, [False] * 3)

    # f_c falls as (r_c - r)^4 and the density as its square.
    assert abs(at(spec.cutoff - 1e-3).energy - at(spec.cutoff + 1e-3).energy) < 1e-14
    assert np.abs(at(spec.cutoff - 1e-3).forces).max() < 1e-12
    assert np.abs(at(spec.cutoff - 1.0).forces).max() > 1e-6


# Input


def test_input_that_cannot_be_used_is_refused():
    spec = MODELS["EANN"]
    model = (spec, *random_model(spec))
    with pytest.raises(InputError, match=r"atom 1 has atomic number 8: the model knows \('C', 'H'\)"):
        reference.evaluate(*model, [6, 8], [[0, 0, 0], [0, 0, 1.0]], OPEN, [False] * 3)
    with pytest.raises(InputError, match="not finite"):
        reference.evaluate(*model, [6], [[0, 0, math.nan]], OPEN, [False] * 3)
    with pytest.raises(InputError, match="flat or zero along a periodic direction"):
        reference.evaluate(*model, [6], [[0, 0, 0]], OPEN, [True, False, False])


def test_inputs_are_left_as_they_were():
    spec = MODELS["REANN relu_like"]
    parameters, constants = random_model(spec)
    structure = crystal()
    inputs = [*parameters.values(), *constants.values(), *structure]
    before = [np.copy(array) for array in inputs]
    reference.loss_gradient(spec, parameters, constants, *structure, 1.0, np.ones((3, 3)), np.eye(3))
    assert all(np.array_equal(a, b) for a, b in zip(inputs, before))


def test_reference_shares_no_code_with_what_it_judges():
    tree = ast.parse(Path(reference.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    forbidden = ("eann_lite.formulas", "eann_lite.kernels", "eann_lite.neighbors", "eann_lite.compiled", "numba")
    assert not [name for name in imported if name.startswith(forbidden)]


# Published numbers


def test_reference_gives_the_numbers_of_the_published_code(shared):
    script = Path(__file__).resolve().parents[1] / "validation" / "golden" / "run.py"
    module_spec = importlib.util.spec_from_file_location("golden_run", script)
    golden = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(golden)
    report = golden.run(shared / "golden", ["reference"])
    assert [row for row in report["rows"] if not row["passed"]] == []
    assert len({row["file"] for row in report["rows"]}) >= 9
