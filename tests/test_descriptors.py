"""Densities on their own: the numbers of the model, and exact derivatives that name which atoms they belong to."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st

import eann_lite
from eann_lite import InputError, Specification, reference
from eann_lite.model import descriptors as rooms
from eann_lite.model.initial import initial_parameters
from eann_lite.testing import models, random_model, structures
from strategies import deviation, reference_arguments

SPECIFICATION = Specification(elements=("C", "H"), cutoff=3.5, radial=3, densities=5, recursions=1)
STEP = 1e-30  # of complex steps


def dense(found):
    """Derivatives as one array (N, N, 3, M), zeros included."""
    n = len(found.values)
    full = np.zeros((n, n, 3, found.values.shape[1]))
    full[found.center, found.moved] = found.derivatives
    return full


@settings(max_examples=8)
@given(models(), st.lists(structures(most=5), min_size=1, max_size=3), st.data())
def test_values_are_those_of_the_reference_and_derivatives_their_slopes(model, items, data):
    step = data.draw(st.integers(-1, model.specification.recursions))
    found = eann_lite.descriptors(items, model, derivatives=True, step=step)
    assert found.structure.tolist() == [q for q, item in enumerate(items) for _ in range(item.n_atoms)]
    assert found.atom.tolist() == [i for item in items for i in range(item.n_atoms)]
    assert (found.structure[found.center] == found.structure[found.moved]).all()
    full = dense(found)
    for q, item in enumerate(items):
        rows = np.flatnonzero(found.structure == q)
        expected = reference.evaluate(*reference_arguments(model, item)).density[step]
        assert deviation(found.values[rows], expected) < 1e-12
        slopes = full[np.ix_(rows, rows)]
        specification, parameters, constants, numbers, positions, cell, pbc = reference_arguments(model, item)
        for atom in range(item.n_atoms):
            for x in range(3):
                moved = positions + 0j
                moved[atom, x] += STEP * 1j
                shifted = reference.evaluate(specification, parameters, constants, numbers, moved, cell, pbc)
                along = shifted.density[step].imag / STEP
                assert deviation(slopes[:, atom, x], along, floor=np.abs(slopes).max()) < 1e-10


def test_derivatives_are_the_limit_of_central_differences():
    atoms = molecule("CH3CH2OH")
    specification = Specification(elements=("C", "H", "O"), cutoff=3.5, radial=3, densities=5, recursions=2)
    model, h = random_model(specification, 4), 1e-4
    slopes = dense(eann_lite.descriptors(atoms, model, derivatives=True))
    for atom in range(len(atoms)):
        for x in range(3):
            sides = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, x] += sign * h
                sides.append(eann_lite.descriptors(moved, model).values)
            difference = (sides[0] - sides[1]) / (2 * h)
            assert deviation(slopes[:, atom, x], difference, floor=np.abs(slopes).max()) < 1e-6


@pytest.mark.parametrize("recursions", [0, 2])
def test_derivatives_of_the_last_step_make_up_the_forces(recursions):
    """F_j = - sum_i dE_i/drho_i . drho_i/dx_j, with dE/drho by central differences of a quadratic energy network."""
    specification = Specification(elements=("C", "H"), cutoff=3.5, radial=3, densities=5, recursions=recursions)
    model, atoms = random_model(specification, 5), molecule("CH3OH")
    atoms = atoms[[atom.symbol != "O" for atom in atoms]]
    forces = model.evaluate(atoms).forces
    found = eann_lite.descriptors(atoms, model, derivatives=True)
    constants, slopes = model.constants, np.zeros_like(found.values)
    names = [f"network.{atom.symbol}" for atom in atoms]
    for i, (name, s) in enumerate(zip(names, [specification.elements.index(a.symbol) for a in atoms])):
        shift, scale = constants["density_shift"][-1, s], constants["density_scale"][-1, s]
        x = ((found.values[i] - shift) * scale)[None]
        _, reverse = reference.network(specification.network, model.parameters, name, x)
        slopes[i] = reverse(np.full((1, 1), float(constants["energy_scale"])))[0][0] * scale
    expected = -np.einsum("im,ijxm->jx", slopes, dense(found))
    assert deviation(expected, forces) < 1e-12


def test_entries_beyond_the_reach_of_the_recursion_are_left_out():
    chain = Atoms("CH3", positions=[[0, 0, 0], [3, 0, 0], [6, 0, 0], [9, 0, 0]])
    pairs = {}
    for recursions in (0, 1):
        specification = Specification(elements=("C", "H"), cutoff=3.5, radial=3, densities=5, recursions=recursions)
        found = eann_lite.descriptors(chain, random_model(specification, 1), derivatives=True)
        pairs[recursions] = set(zip(found.center.tolist(), found.moved.tolist()))
        assert len(pairs[recursions]) == len(found.center)
    assert pairs[0] == {(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    assert pairs[1] == {(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 2}
    alone = eann_lite.descriptors(Atoms("H"), SPECIFICATION, derivatives=True)
    assert alone.derivatives.shape == (0, 3, 5) and not alone.values.any()


def test_small_and_large_pieces_of_work_give_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    items = [molecule("CH4"), molecule("C2H6"), Atoms("H"), molecule("C2H4")]
    for item in items:
        item.positions += rng.normal(size=item.positions.shape) * 0.1
    model = random_model(SPECIFICATION, 2)
    whole = eann_lite.descriptors(items, model, derivatives=True)
    for budget in (1, 20, 100):
        monkeypatch.setattr(rooms, "ATOMS_AT_A_TIME", budget)
        pieces = eann_lite.descriptors(items, model, derivatives=True)
        assert np.array_equal(pieces.center, whole.center) and np.array_equal(pieces.moved, whole.moved)
        assert deviation(pieces.values, whole.values) < 1e-13
        assert deviation(pieces.derivatives, whole.derivatives) < 1e-12


def test_a_specification_stands_for_its_starting_parameters(tmp_path):
    from eann_lite import Model

    atoms = molecule("CH4")
    model = Model(SPECIFICATION, initial_parameters(SPECIFICATION, seed=7))
    found = eann_lite.descriptors(atoms, SPECIFICATION, seed=7)
    assert np.array_equal(found.values, eann_lite.descriptors(atoms, model).values)
    model.save(tmp_path / "model.npz")
    assert np.array_equal(found.values, eann_lite.descriptors(atoms, tmp_path / "model.npz").values)
    assert found.derivatives is None and found.center is None
    assert np.array_equal(found.values, model.evaluate(atoms, descriptors=True).density[-1])


def test_steps_and_models_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="step = 2"):
        eann_lite.descriptors(molecule("CH4"), SPECIFICATION, step=2)
    with pytest.raises(InputError, match="type NoneType: expected a Model, a Specification, or the path of a model"):
        eann_lite.descriptors(molecule("CH4"), None)
    with pytest.raises(InputError, match="model file model.npz does not exist"):
        eann_lite.descriptors(molecule("CH4"), "model.npz")
    with pytest.raises(InputError, match="knows only"):
        eann_lite.descriptors(molecule("H2O"), SPECIFICATION)
