"""Exact Hessians against the complex step of the reference, their laws, and normal modes beside those of ASE."""

import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixCom, FixedLine, FixedMode, FixScaled, Hookean
from ase.units import invcm
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import deviation, reference_arguments

import eann_lite
from eann_lite import InputError, formulas, reference
from eann_lite.batches import draw_batch, pack_structures
from eann_lite.model.initial import initial_parameters
from eann_lite.second_derivatives import free_indices, hessian, hessian_products, vibrations, wavenumbers
from eann_lite.structures import as_structures
from eann_lite.testing.strategies import models, seeds, structures

STEP = 1e-30


def methane_model(**changes):
    specification = eann_lite.Specification(elements=("C", "H"), cutoff=4.0, radial=8, densities=6, **changes)
    return eann_lite.Model(specification, initial_parameters(specification, seed=3))


@settings(max_examples=40)
@given(models(), structures(), seeds)
def test_products_with_the_hessian_are_the_complex_step_of_the_reference_forces(model, structure, seed):
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(2, *structure.positions.shape))
    found = hessian_products(model, structure, directions)
    *before, numbers, positions, cell, pbc = reference_arguments(model, structure)
    for direction, product in zip(directions, found):
        moved = reference.evaluate(*before, numbers, positions + 1j * STEP * direction, cell, pbc)
        expected = -moved.forces.imag / STEP
        scale = max(np.abs(expected).max(), 0.01 * np.abs(moved.energies.real).max(), 1e-8)
        assert deviation(product, expected, floor=scale) < 1e-9


@settings(max_examples=30)
@given(models(), structures(kinds=("molecule",)))
def test_the_hessian_is_symmetric_and_a_shift_of_all_atoms_costs_nothing(model, structure):
    matrix = hessian(model, structure)
    scale = max(np.abs(matrix).max(), 1e-8)
    assert np.abs(matrix - matrix.transpose(2, 3, 0, 1)).max() < 1e-10 * scale
    assert np.abs(matrix.sum(axis=2)).max() < 1e-10 * scale


@given(st.floats(0.3, 2.6), st.sampled_from([(1.0, 1.0), (1.0, 6.0), (8.0, 26.0)]))
def test_the_curvature_of_the_repulsion_is_the_slope_of_its_slope(r, numbers):
    h = 1e-4
    near, far = ([formulas.zbl_pair(r + sign * step, *numbers, 2.5)[1] for sign in (1, -1)] for step in (h, 2 * h))
    expected = (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * h)
    largest = abs(formulas.zbl_curvature(0.3, *numbers, 2.5))
    assert formulas.zbl_curvature(r, *numbers, 2.5) == pytest.approx(expected, rel=1e-8, abs=1e-9 * largest)


@given(st.floats(0.1, 5.0), st.floats(0.1, 3.0), st.floats(0.0, 4.0))
def test_the_curvature_of_a_gaussian_is_that_of_its_formula(r, alpha, center):
    cutoff, h = 4.5, 1e-4

    def radial(r):
        return np.exp(-alpha * (r - center) ** 2) * ((1 + np.cos(np.pi * r / cutoff)) / 2) ** 2 * (r < cutoff)

    expected = sum(w * radial(r + n * h) for n, w in zip(range(-2, 3), (-1, 16, -30, 16, -1))) / (12 * h**2)
    f_c, f_c_slope = formulas.cutoff_function(r, cutoff)
    found = formulas.radial_curvature(r, alpha, center, f_c, f_c_slope, formulas.cutoff_curvature(r, cutoff))
    assert found == pytest.approx(expected, abs=2e-6)


def test_vibrations_agree_with_those_of_ase_by_displacements(tmp_path):
    from ase.vibrations import Vibrations

    model, atoms = methane_model(repulsion="zbl"), molecule("CH4")
    atoms.calc = eann_lite.EANNCalculator(model)
    by_displacements = Vibrations(atoms, name=tmp_path / "vib", delta=1e-3, nfree=4)
    by_displacements.run()
    expected, found = by_displacements.get_vibrations(), vibrations(model, atoms)
    largest = np.abs(found.get_hessian()).max()
    assert found.get_hessian_2d() == pytest.approx(expected.get_hessian_2d(), abs=1e-6 * largest)
    ours = wavenumbers(hessian(model, atoms), atoms.get_masses())
    squares = np.sort((found.get_energies() ** 2).real) / invcm**2
    assert np.sign(ours) * ours**2 == pytest.approx(squares, rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("constrained", [True, False], ids=["by FixAtoms", "by indices"])
def test_vibrations_of_some_atoms_agree_with_those_of_ase(tmp_path, constrained):
    from ase.vibrations import Vibrations

    model, atoms = methane_model(repulsion="zbl"), molecule("CH4")
    atoms.set_masses([12.0, 2.014, 2.014, 1.0, 3.016])
    chosen = None if constrained else [4, 1, -2]
    if constrained:
        atoms.set_constraint(FixAtoms([0, 2]))
    atoms.calc = eann_lite.EANNCalculator(model)
    by_displacements = Vibrations(atoms, indices=[1, 3, 4], name=tmp_path / "vib", delta=1e-3, nfree=4)
    by_displacements.run()
    expected, found = by_displacements.get_vibrations(), vibrations(model, atoms, indices=chosen)
    assert found.get_indices().tolist() == [1, 3, 4]
    largest = np.abs(found.get_hessian()).max()
    assert found.get_hessian_2d() == pytest.approx(expected.get_hessian_2d(), abs=1e-6 * largest)
    assert found.get_energies() == pytest.approx(expected.get_energies(), rel=1e-5, abs=1e-7)
    # Nothing moves or turns as a whole: nine modes, none of them zero.
    assert len(found.get_energies()) == 9 and np.abs(found.get_energies() / invcm).min() > 5.0
    assert np.abs(found.get_modes(all_atoms=True)[:, [0, 2]]).max() == 0.0


def test_the_hessian_of_some_atoms_is_a_part_of_that_of_all_in_the_order_asked_for():
    model, atoms = methane_model(recursions=2), molecule("CH4")
    everything = hessian(model, atoms)
    order = [3, 0, 4]
    assert hessian(model, atoms, indices=order) == pytest.approx(everything[order][:, :, order], abs=1e-12)
    atoms.set_constraint(FixAtoms([0]))
    assert np.array_equal(hessian(model, atoms), everything)


def test_fixed_atoms_do_not_vibrate_unless_they_are_named():
    model, atoms = methane_model(), molecule("CH4")
    everything = vibrations(model, atoms).get_energies()
    atoms.set_constraint(FixAtoms([0, 1]))
    assert vibrations(model, atoms).get_indices().tolist() == [2, 3, 4]
    assert np.array_equal(vibrations(model, atoms, indices=range(5)).get_energies(), everything)
    # As the move_mask of extended xyz is read: one for every atom, most of them without any hold.
    masks = [(True,) * 3, (True,) * 3, (False,) * 3, (False,) * 3, (False,) * 3]
    by_masks = molecule("CH4")
    by_masks.set_constraint([FixCartesian(atom, mask) for atom, mask in enumerate(masks)])
    assert np.array_equal(vibrations(model, by_masks).get_energies(), vibrations(model, atoms).get_energies())
    by_masks.set_cell(np.diag([6.0, 7.0, 8.0]))
    by_masks.set_constraint([FixScaled(0, (True,) * 3), FixScaled([1, 2], (True,) * 3)])
    assert free_indices(by_masks).tolist() == [3, 4]


@pytest.mark.parametrize(
    "constraint",
    [
        FixCartesian(1, (True, False, False)),
        FixedLine(1, (0, 0, 1)),
        FixBondLengths([[0, 1]]),
        FixCom(),
        FixedMode(np.ones((5, 3))),
        Hookean(0, 1, 5.0, 1.0),
    ],
    ids=lambda constraint: type(constraint).__name__,
)
def test_constraints_that_hold_atoms_in_part_are_refused_unless_the_moving_atoms_are_named(constraint):
    model, atoms = methane_model(), molecule("CH4")
    everything = vibrations(model, atoms).get_energies()
    atoms.set_constraint(constraint)
    message = rf"the constraint {type(constraint).__name__} on atom [01] is none .* \(FixAtoms\) or free.*indices="
    with pytest.raises(InputError, match=message):
        vibrations(model, atoms)
    assert np.array_equal(vibrations(model, atoms, indices=range(5)).get_energies(), everything)


def test_a_constraint_on_atoms_that_are_held_anyway_is_none():
    atoms = molecule("CH4")
    atoms.set_constraint([FixedLine(1, (0, 0, 1)), FixAtoms([1])])
    assert free_indices(atoms).tolist() == [0, 2, 3, 4]
    atoms.set_constraint(FixAtoms(mask=[False] * 5))
    assert free_indices(atoms).tolist() == [0, 1, 2, 3, 4]


def test_with_all_atoms_held_nothing_vibrates():
    atoms = molecule("CH4")
    atoms.set_constraint(FixAtoms(range(5)))
    with pytest.raises(InputError, match="all 5 atoms are held still by constraints. Free at least one"):
        vibrations(methane_model(), atoms)


@pytest.mark.parametrize(
    "indices, message",
    [
        ([], r"indices = \[\]: expected whole numbers, one for each atom that moves"),
        (2, "indices = 2: expected whole numbers"),
        ([[1], [1, 2]], r"indices = \[\[1\], \[1, 2\]\]: expected whole numbers"),
        ([0.0, 1.0], r"indices = \[0.0, 1.0\]: expected whole numbers"),
        (np.ones(5, bool), "expected whole numbers, .* np.flatnonzero\\(mask\\) makes them of a mask"),
        ([0, 5], "indices hold 5, but there are 5 atoms: expected 0 to 4"),
        ([-6], "indices hold -6, but there are 5 atoms"),
        ([1, 2, -4], "indices hold atom 1 more than once"),
    ],
)
@pytest.mark.parametrize("compute", [hessian, vibrations])
def test_indices_that_name_no_atoms_are_refused(compute, indices, message):
    with pytest.raises(InputError, match=message):
        compute(methane_model(), molecule("CH4"), indices=indices)


def test_a_mass_that_is_not_positive_is_refused():
    atoms = molecule("CH4")
    atoms.set_masses([12.0, 1.0, 0.0, 1.0, 1.0])
    with pytest.raises(InputError, match="the mass of atom 2 is 0.0: expected a positive number of amu"):
        vibrations(methane_model(), atoms)
    with pytest.raises(InputError, match="the mass of atom 0 is -1.0"):
        wavenumbers(np.eye(3).reshape(1, 3, 1, 3), np.array([-1.0]))
    assert vibrations(methane_model(), atoms, indices=[0, 1]).get_energies().shape == (6,)


def test_hessian_products_of_many_directions_are_those_one_by_one(monkeypatch):
    model, atoms = methane_model(recursions=1), molecule("CH4")
    directions = np.random.default_rng(0).normal(size=(7, 5, 3))
    together = hessian_products(model, atoms, directions)
    monkeypatch.setattr("eann_lite.second_derivatives.ATOMS_AT_A_TIME", 11)
    assert deviation(hessian_products(model, atoms, directions), together) < 1e-12


def test_directions_of_another_shape_are_refused():
    for shape in ((5,), (4, 3), (2, 5, 2)):
        with pytest.raises(InputError, match=r"directions have shape .*: expected \(m, 5, 3\), as there are 5 atoms"):
            hessian_products(methane_model(), molecule("CH4"), np.ones(shape))
    assert hessian_products(methane_model(), molecule("CH4"), np.ones((5, 3))).shape == (1, 5, 3)


def test_a_model_file_is_as_good_as_a_model(tmp_path):
    model, atoms = methane_model(), molecule("CH4")
    model.save(tmp_path / "model.npz")
    for path in (tmp_path / "model.npz", str(tmp_path / "model.npz")):
        assert np.array_equal(hessian(path, atoms), hessian(model, atoms))
        assert np.array_equal(vibrations(path, atoms).get_hessian(), hessian(model, atoms))


def test_a_structure_has_the_vibrations_of_its_atoms():
    model, atoms = methane_model(), molecule("CH4")
    found = vibrations(model, as_structures(atoms)[0])
    assert np.array_equal(found.get_energies(), vibrations(model, atoms).get_energies())


@pytest.mark.parametrize("compute", [hessian, vibrations, lambda *given: hessian_products(*given, np.zeros((1, 5, 3)))])
@pytest.mark.parametrize(
    "atoms, message",
    [
        ([molecule("CH4"), molecule("CH3")], "a list of 2 structures: expected one .* once for each of them"),
        ((molecule("CH4"),), "a tuple of 1 structures: expected one ase.Atoms or Structure"),
        ("methane.xyz", r"'methane.xyz' is of type str: expected one .* read with ase.io.read\(path\)"),
        (None, "None is of type NoneType: expected one ase.Atoms or Structure"),
    ],
)
def test_what_is_not_one_structure_is_refused(compute, atoms, message):
    with pytest.raises(InputError, match=message):
        compute(methane_model(), atoms)


@pytest.mark.parametrize("compute", [hessian, vibrations])
def test_what_is_no_model_is_refused(compute):
    with pytest.raises(InputError, match="type NoneType: expected a Model, or the path of a model file"):
        compute(None, molecule("CH4"))
    with pytest.raises(InputError, match="type Atoms: expected a Model, or the path of a model file"):
        compute(molecule("CH4"), methane_model())


def test_a_derivative_along_a_direction_says_what_must_come_before():
    model = methane_model()
    packed = pack_structures(as_structures(molecule("CH4")), model.specification.elements, model.specification.reach)
    model.sweeps.forward(draw_batch(packed, np.arange(1), 2))
    model.sweeps.reverse()
    with pytest.raises(ValueError, match=r"call forward\(batch, keep=True\)"):
        model.sweeps.forces_along(np.zeros((5, 3)))
