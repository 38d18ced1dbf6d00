"""Laws of physics and of bookkeeping that hold for every model and every structure."""

import numba
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    ELEMENTS,
    PERIODIC,
    changed,
    deviation,
    large_cell,
    models,
    random_model,
    random_structure,
    reference_result,
    repeated,
    rotations,
    scale_of,
    seeds,
    specifications,
    structures,
)

from eann_lite import Specification, Structure, reference
from eann_lite.batches import draw_batch, pack_structures
from eann_lite.kernels.vectors import IN_SECOND_CACHE
from eann_lite.second_derivatives import hessian_products
from eann_lite.training.objective import loss_gradient

RESULTS = ("energies", "forces", "strain_derivative")
STEP = 1e-30  # of complex steps


def assert_same(found, expected, limit):
    """Results equal up to ``limit`` relative to the largest entry (or to ``scale_of`` the expected result)."""
    scale = scale_of(expected)
    assert deviation(found.energies, expected.energies) < limit
    assert deviation(found.forces, expected.forces, floor=scale) < limit
    assert deviation(found.strain_derivative, expected.strain_derivative, floor=scale) < limit
    assert found.energy == pytest.approx(found.energies.sum(), rel=1e-13, abs=1e-13)


def assert_same_stress(found, expected, volume, limit):
    """The same of stresses, whose terms may cancel as those of the strain derivative do, of which they are a part."""
    assert deviation(found.stress, expected.stress, floor=scale_of(expected) / volume) < limit


def moved(result, order=slice(None), rotation=np.eye(3)):
    """A result with its atoms in another order, seen after a rotation (rows are vectors)."""
    parts = result.energies[order], (result.forces @ rotation)[order], rotation.T @ result.strain_derivative @ rotation
    return reference.Result(float(np.sum(parts[0])), *parts, None, None)


# Symmetries


@given(models(), structures(), rotations())
def test_rotations_and_inversions_turn_forces_and_stress_and_leave_energies(model, structure, rotation):
    turned = changed(structure, positions=structure.positions @ rotation, cell=structure.cell @ rotation)
    assert_same(model.evaluate(turned), moved(model.evaluate(structure), rotation=rotation), 1e-10)


@given(models(), structures(), seeds)
def test_translations_change_nothing(model, structure, seed):
    shift = np.random.default_rng(seed).uniform(-5, 5, 3)
    result = model.evaluate(structure)
    assert_same(model.evaluate(changed(structure, positions=structure.positions + shift)), result, 1e-10)
    assert np.abs(result.forces.sum(axis=0)).max() <= 1e-12 * max(np.abs(result.forces).max(), scale_of(result))


@given(models(), structures(), st.randoms(use_true_random=False))
def test_permutations_permute_the_results(model, structure, random):
    order = list(range(structure.n_atoms))
    random.shuffle(order)
    other = changed(structure, numbers=structure.numbers[order], positions=structure.positions[order])
    assert_same(model.evaluate(other), moved(model.evaluate(structure), order), 1e-11)


@given(models(), structures(kinds=PERIODIC, most=4), st.permutations((2, 1, 1)))
def test_supercells_have_the_same_atomic_energies_and_forces(model, structure, times):
    times = np.where(structure.pbc, times, 1)
    copies = int(times.prod())
    small, large = model.evaluate(structure), model.evaluate(repeated(structure, times))
    expected = np.tile(small.energies, copies), np.tile(small.forces, (copies, 1)), copies * small.strain_derivative
    assert_same(large, reference.Result(copies * small.energy, *expected, None, None), 1e-10)
    if small.stress is not None:
        assert_same_stress(large, small, structure.volume, 1e-10)


def test_supercells_whose_orbital_coefficients_leave_the_second_cache_have_the_same_energies_and_forces():
    """Kernels ask for what they will need of so many atoms."""
    model = random_model(Specification(elements=("H", "C"), cutoff=3.0, radial=8, densities=5, recursions=3), seed=1)
    structure, times = large_cell(np.random.default_rng(1), 8), (9, 9, 9)
    small, large = model.evaluate(structure), model.evaluate(repeated(structure, times))
    assert large.energies.nbytes * 8 * (3 + 1) > IN_SECOND_CACHE  # (T + 1, N, K)
    assert deviation(large.energies, np.tile(small.energies, 729)) < 1e-10
    assert deviation(large.forces, np.tile(small.forces, (729, 1))) < 1e-10


@given(models(), structures(kinds=PERIODIC), seeds)
def test_an_atom_is_the_same_in_every_periodic_image(model, structure, seed):
    images = np.random.default_rng(seed).integers(-3, 4, (structure.n_atoms, 3)) * structure.pbc
    shifted = changed(structure, positions=structure.positions + images @ structure.cell)
    assert_same(model.evaluate(shifted), model.evaluate(structure), 1e-10)


@given(models(), structures(kinds=("cell", "skewed", "tiny")), seeds)
def test_other_vectors_of_the_same_lattice_change_nothing(model, structure, seed):
    rng = np.random.default_rng(seed)
    combination = np.eye(3, dtype=int)
    combination[1] += rng.integers(-2, 3) * combination[0]
    combination[0] += rng.integers(-2, 3) * combination[2]
    result = model.evaluate(structure)
    other = model.evaluate(changed(structure, cell=combination @ structure.cell))
    assert_same(other, result, 1e-10)
    assert_same_stress(other, result, structure.volume, 1e-10)


# Derivatives


@given(models(), structures(), seeds)
def test_forces_and_strain_derivative_are_derivatives_of_the_energy(model, structure, seed):
    rng = np.random.default_rng(seed)
    along, strain = rng.normal(size=structure.positions.shape), rng.normal(size=(3, 3))
    strain = strain + strain.T
    x, cell = structure.positions, structure.cell
    result = model.evaluate(structure)
    scale = scale_of(result)

    def energy(displacement, deformation):
        where = x + displacement * along + deformation * x @ strain
        return where, cell + deformation * cell @ strain

    def complex_step(*steps):
        where, deformed = energy(*steps)
        arguments = model.specification, model.parameters, model.constants, structure.numbers
        return reference.evaluate(*arguments, where, deformed, structure.pbc).energy.imag / STEP

    def central(*steps):
        energies = []
        for sign in (1, -1):
            where, deformed = energy(*(sign * step for step in steps))
            energies.append(model.evaluate(changed(structure, positions=where, cell=deformed)).energy)
        return (energies[0] - energies[1]) / (2 * sum(steps))

    force, slope = -np.sum(result.forces * along), np.sum(result.strain_derivative * strain)
    assert complex_step(1j * STEP, 0) == pytest.approx(force, rel=1e-10, abs=1e-11 * scale)
    assert complex_step(0, 1j * STEP) == pytest.approx(slope, rel=1e-10, abs=1e-11 * scale)
    # The error of central differences is h^2 E''' / 6; models with sharp Gaussians need room for it.
    room = 1e-5 * (np.abs(result.forces).max() + scale) + 1e-8
    assert central(1e-5, 0) == pytest.approx(force, abs=room)
    assert central(0, 1e-5) == pytest.approx(slope, abs=room)


@given(models(), structures(kinds=PERIODIC))
def test_stress_is_the_strain_derivative_per_volume_and_needs_a_volume(model, structure):
    result = model.evaluate(structure)
    volume = abs(np.linalg.det(structure.cell))
    if volume == 0.0:
        assert result.stress is None
    else:
        assert np.array_equal(result.stress, result.strain_derivative / volume)
    assert model.evaluate(changed(structure, pbc=False)).stress is None


@given(models(layer_norms=False), st.sampled_from(("molecule", "chain")), seeds)
def test_energy_force_and_second_derivative_are_continuous_where_an_atom_enters_the_cutoff(model, kind, seed):
    """An atom crosses the cutoff sphere of another one, in company; both sides must agree at the crossing.

    Across a gap of 4e-6 A a smooth function changes by that much times its slope; where a value or a derivative jumps
    it changes by order one.  (The cutoff function falls to zero as the fourth power of the distance left.)
    """
    rng = np.random.default_rng(seed)
    cutoff = model.specification.cutoff
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    pbc, cell = np.zeros(3, bool), np.zeros((3, 3))
    if kind == "chain":
        pbc, cell = np.array([True, False, False]), np.diag([20.0, 0.0, 0.0])
    company = np.array([[0.0, 0.0, 0.0], [0.9, 0.3, 0.1], 0.6 * cutoff * direction + rng.uniform(-0.3, 0.3, 3)])
    numbers = np.append(rng.choice([1, 6], 3), rng.choice([1, 6]))
    distances = np.linalg.norm(cutoff * direction - company[1:], axis=1)
    assume(np.abs(np.linalg.norm(company[1:], axis=1)).min() > 0.5)
    # Nobody else crosses a cutoff at the same moment.
    assume(np.abs(distances - cutoff).min() > 0.05 and distances.min() > 0.5)

    def at(radius):
        """Energy, and force of the moving atom along its way."""
        positions = np.vstack([company, radius * direction])
        result = model.evaluate(Structure(numbers=numbers, positions=positions, cell=cell, pbc=pbc))
        return result.energy, result.forces[3] @ direction

    gap, step = 2e-6, 1e-6
    sides = []
    for middle in (cutoff - gap, cutoff + gap):
        energy, force = at(middle)
        curvature = (at(middle - step)[1] - at(middle + step)[1]) / (2 * step)
        sides.append((energy, force, curvature))
    # Sizes of forces and their slopes for this model: at the crossing, and inside, where the pair interacts.
    inner, further = at(cutoff - 0.3)[1], at(cutoff - 0.301)[1]
    scale = 1.0 + abs(inner) + abs(inner - further) / 1e-3 + abs(sides[0][1]) + abs(sides[0][2])
    for inside, outside, room in zip(*sides, (1e-5, 1e-4, 2e-3), strict=True):
        assert abs(inside - outside) < room * scale


# Bookkeeping


@given(models(), st.lists(structures(), min_size=1, max_size=5))
def test_a_list_of_structures_gives_what_each_gives_alone(model, items):
    for together, structure in zip(model.evaluate(items, descriptors=True), items, strict=True):
        alone = model.evaluate(structure, descriptors=True)
        assert_same(together, alone, 1e-12)
        assert deviation(together.density, alone.density) < 1e-12
        assert deviation(together.orbital_coefficients, alone.orbital_coefficients) < 1e-12
        assert (together.stress is None) == (alone.stress is None)


def test_a_long_list_is_cut_into_batches_and_keeps_its_order():
    """400 structures of 1 to 8 atoms: several batches, each large enough for threads; alone, none of them is."""
    specification = Specification(elements=("H", "C"), cutoff=3.5, radial=8, densities=5, recursions=1)
    model, rng = random_model(specification, seed=3), np.random.default_rng(3)
    kinds = ("cluster", "cell", "atom", "far apart")
    items = []
    for kind in rng.choice(kinds, 400):
        numbers = rng.choice([1, 6], 1 if kind == "atom" else rng.integers(2, 9)).tolist()
        items.append(random_structure(rng, kind, numbers, np.full(3, kind == "cell")))
    assert sum(item.n_atoms for item in items) > 3 * 512
    for together, structure in zip(model.evaluate(items), items, strict=True):
        assert_same(together, model.evaluate(structure), 1e-12)
        if structure.pbc.any():
            np.testing.assert_allclose(together.stress * structure.volume, together.strain_derivative, rtol=1e-13)
        else:
            assert together.stress is None


@given(models(), structures())
def test_structures_atoms_and_models_are_left_as_they_were(model, structure):
    from ase.constraints import FixAtoms

    atoms = structure.to_atoms()
    atoms.set_constraint(FixAtoms([0]))
    atoms.info["note"] = "mine"
    held = [atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc, model.vector, *model.constants.values()]
    before = [array.copy() for array in held]
    free = model.evaluate(structure)
    fixed = model.evaluate([atoms, structure])[0]
    loss_gradient(model, atoms, 1.0, np.ones((len(atoms), 3)), np.eye(3))
    assert all(np.array_equal(array, copy) for array, copy in zip(held, before, strict=True))
    assert atoms.info == {"note": "mine"} and atoms.calc is None and len(atoms.constraints) == 1
    # Constraints are not the model's business.
    assert_same(fixed, free, 1e-12)


def test_results_are_their_own_and_do_not_change_with_the_next_structure():
    specification = Specification(elements=("H",), cutoff=3.5, radial=8, densities=3, recursions=1)
    model, rng = random_model(specification, seed=4), np.random.default_rng(4)
    one, other = (random_structure(rng, "cell", [1, 1, 1], np.ones(3, bool)) for _ in range(2))
    result = model.evaluate(one, descriptors=True)
    arrays = [result.energies, result.forces, result.strain_derivative, result.density, result.orbital_coefficients]
    before = [array.copy() for array in arrays]
    model.evaluate(other, descriptors=True)
    assert all(np.array_equal(array, copy) for array, copy in zip(arrays, before))


@pytest.fixture
def numba_threads():
    """Function that sets the number of threads, which comes back to what it was after the test."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core: there is nothing to compare")
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.mark.parametrize("contraction", ["learned", "per_degree"])
def test_one_thread_and_two_give_the_same_bits_for_a_large_structure(numba_threads, contraction):
    specification = Specification(
        elements=("H", "C"), cutoff=3.5, radial=8, densities=5, recursions=2, repulsion="zbl", contraction=contraction
    )
    model, rng, found = random_model(specification, seed=5), np.random.default_rng(5), []
    structure = large_cell(rng, 150)
    packed = pack_structures([structure], specification.elements, specification.reach)
    assert draw_batch(packed, np.arange(1), 2).threaded
    weights = rng.normal(size=(150, 3)), rng.normal(size=(3, 3))
    for threads in (1, 2, 2):
        numba_threads(threads)
        result = model.evaluate(structure, descriptors=True)
        gradient = loss_gradient(model, structure, 1.0, *weights)
        along = hessian_products(model, structure, weights[0])
        found.append([*(getattr(result, name) for name in RESULTS), result.density, *gradient.values(), along])
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_one_thread_and_two_give_the_same_bits_for_many_structures(numba_threads):
    specification = Specification(elements=("H", "C"), cutoff=3.5, radial=8, densities=5, recursions=1)
    model, rng, found = random_model(specification, seed=6), np.random.default_rng(6), []
    items = [random_structure(rng, "cluster", rng.choice([1, 6], 8).tolist(), np.zeros(3, bool)) for _ in range(300)]
    for threads in (1, 2, 2):
        numba_threads(threads)
        found.append(model.evaluate(items, descriptors=True))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert one.energy == two.energy
            assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in (*RESULTS, "density"))


# Structures at the edge


@given(specifications(), seeds)
def test_isolated_atoms_have_their_own_energy_and_nothing_acts_on_them(specification, seed):
    model, rng = random_model(specification, seed), np.random.default_rng(seed)
    alone = [Structure(numbers=[z], positions=[rng.normal(size=3)]) for z in (1, 6)]
    atom = model.evaluate(alone)
    far = model.evaluate(random_structure(rng, "far apart", [1, 6, 1], np.zeros(3, bool)), descriptors=True)
    for result in (*atom, far):
        assert not result.forces.any() and not result.strain_derivative.any() and result.stress is None
    assert not far.density.any()
    expected = [atom[0].energy, atom[1].energy, atom[0].energy]
    assert far.energies == pytest.approx(expected, rel=1e-14)
    assert far.energy == pytest.approx(sum(expected), rel=1e-13, abs=1e-13)


@given(specifications(), seeds)
def test_one_atom_in_a_periodic_cell_feels_no_force_but_may_feel_a_stress(specification, seed):
    model, rng = random_model(specification, seed), np.random.default_rng(seed)
    structure = random_structure(rng, "tiny", [6], np.ones(3, bool))
    result = model.evaluate(structure)
    assert np.abs(result.forces).max() <= 1e-12 * scale_of(result)
    assert result.stress is not None
    assert_same(result, reference_result(model, structure), 1e-11)


@given(models(repulsions=("zbl",)), structures(kinds=("slab",)))
def test_a_slab_is_a_cell_with_much_vacuum(model, structure):
    """Periodic across the slab as well, but farther than the cutoff: the same numbers."""
    normal = np.cross(*structure.cell[structure.pbc])
    normal /= np.linalg.norm(normal)
    cell = structure.cell.copy()
    cell[~structure.pbc] = (np.ptp(structure.positions @ normal) + model.specification.reach + 1.0) * normal
    assert_same(model.evaluate(changed(structure, cell=cell, pbc=True)), model.evaluate(structure), 1e-11)


@given(models(elements=ELEMENTS), structures(elements=("C",)))
def test_elements_that_are_absent_from_a_structure_do_not_matter(model, structure):
    assert_same(model.evaluate(structure), reference_result(model, structure), 1e-12)
