"""The ASE calculator: the numbers of the model, neighbours kept from step to step, and ASE's own tools on top."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numba
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import PERIODIC, deviation, models, random_model, scale_of, seeds, structures

import eann_lite
from eann_lite import EANNCalculator, InputError, Model, ModelFileError, NetworkSpecification, Specification

NETWORK = NetworkSpecification(widths=(6, 4), activation="tanh")
SPECIFICATION = Specification(
    elements=("H", "C"), cutoff=3.5, radial=3, densities=6, recursions=1, network=NETWORK, recursion_network=NETWORK,
    repulsion="zbl",
)  # fmt: skip
NO_STRESS = "stress not present"


@pytest.fixture(scope="module")
def model():
    return random_model(SPECIFICATION, seed=11)


@pytest.fixture
def methane(model):
    atoms = molecule("CH4")
    atoms.calc = EANNCalculator(model)
    return atoms


def crystal(model):
    """Six atoms in a skewed cell smaller than the cutoff."""
    rng = np.random.default_rng(1)
    cell = [[3.4, 0.1, 0.0], [0.9, 3.3, -0.2], [-0.3, 0.8, 3.6]]
    grid = [[x, y, z] for x in (0.0, 0.5) for y in (0.0, 0.5) for z in (0.0, 0.5)][:6]
    atoms = Atoms("HCHCCH", scaled_positions=grid + rng.uniform(-0.06, 0.06, (6, 3)), cell=cell, pbc=True)
    atoms.calc = EANNCalculator(model)
    return atoms


def assert_is_evaluation(atoms, model, limit=1e-10):
    """All properties of the calculator on ``atoms`` are those of ``model.evaluate``."""
    expected = model.evaluate(atoms)
    scale = scale_of(expected)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, rel=limit, abs=limit)
    assert deviation(atoms.get_potential_energies(), expected.energies) < limit
    assert deviation(atoms.get_forces(apply_constraint=False), expected.forces, floor=scale) < limit
    if expected.stress is None:
        with pytest.raises(PropertyNotImplementedError, match=NO_STRESS):
            atoms.get_stress(apply_constraint=False)
    else:
        stress = atoms.get_stress(voigt=False, apply_constraint=False)
        assert deviation(stress, expected.stress, floor=scale / atoms.get_volume()) < limit


# The same numbers


@pytest.mark.parametrize("rows", [(1, 2, 2), (2, 1, 2), (2, 2, 1), (1, 1, 2)])
def test_a_flat_cell_has_no_stress(model, rows):
    """Whatever rounding makes of its volume: two of its vectors are parallel."""
    vectors = np.array([[5.1, 0.7, 3.3], [-2.3, 6.1, 0.9]])
    cell = np.array([vectors[n - 1] for n in rows]) * np.array([1.0, 1.3, 1.7])[:, None]
    first, other = rows.index(1), rows.index(2)
    pbc = [n in (first, other) for n in range(3)]
    atoms = Atoms("CH", [[0.0, 0.0, 0.0], [0.3, 0.4, 1.0]], cell=cell, pbc=pbc)
    atoms.calc = EANNCalculator(model)
    assert model.evaluate(atoms).stress is None
    assert_is_evaluation(atoms, model)


@given(models(), structures(), st.sampled_from((0.0, 0.5, 2.0)))
def test_every_property_is_that_of_the_model(model, structure, skin):
    atoms = structure.to_atoms()
    atoms.calc = EANNCalculator(model, skin=skin)
    assert_is_evaluation(atoms, model)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


@given(models(), structures(kinds=PERIODIC + ("cluster",)), st.sampled_from((0.0, 0.5, 2.0)), seeds)
def test_neighbours_kept_while_atoms_and_cell_move_miss_nothing(model, structure, skin, seed):
    """Steps of all lengths, the cell straining with them; atoms also jump into other images."""
    rng = np.random.default_rng(seed)
    atoms = structure.to_atoms()
    atoms.calc = EANNCalculator(model, skin=skin)
    for step in (0.01, 0.1, 0.01, 0.3, 0.02):
        assert_is_evaluation(atoms, model)
        if rng.random() < 0.5:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.3 * step * rng.normal(size=(3, 3))), scale_atoms=True)
        # A tenth of a step for each atom more: many atoms close together must not meet.
        atoms.positions += 0.3 * step * rng.uniform(-1, 1, (len(atoms), 3))
        if rng.random() < 0.2:
            atoms.wrap()


def test_the_list_is_made_once_in_a_while_and_not_at_every_step(model):
    atoms = crystal(model)
    made, update = [], atoms.calc.pairs.update

    def counting(*arguments):
        pairs, rebuilt = update(*arguments)
        made.append(rebuilt)
        return pairs, rebuilt

    atoms.calc.pairs.update = counting
    for _ in range(40):
        atoms.positions[0] += (0.015, 0.0, 0.015)
        assert_is_evaluation(atoms, model)
    # Anew whenever the atom has gone more than half of the skin of 0.5: at every twelfth step.
    assert [step for step, rebuilt in enumerate(made) if rebuilt] == [0, 12, 24, 36]


def test_forces_and_stress_have_ases_sign_and_are_its_numerical_ones(model):
    atoms = crystal(model)
    assert deviation(calculate_numerical_forces(atoms, eps=1e-5), atoms.get_forces()) < 1e-6
    assert deviation(calculate_numerical_stress(atoms, eps=1e-6), atoms.get_stress()) < 1e-5


def test_other_atoms_elements_and_periodicity_make_a_new_list(methane, model):
    calculator = methane.calc
    water_like = Atoms("CHH", positions=[[0, 0, 0], [0, 0.7, 0.7], [0, -0.7, 0.7]])
    swapped = methane.copy()
    swapped.symbols = "HCHHH"
    periodic = methane.copy()
    periodic.cell, periodic.pbc = np.diag([3.0, 3.2, 3.1]), True
    slab = periodic.copy()
    slab.pbc = (True, True, False)
    for atoms in (methane, swapped, methane, water_like, periodic, slab, methane, periodic, swapped):
        atoms.calc = calculator
        assert_is_evaluation(atoms, model)


def test_two_calculators_of_one_model_do_not_disturb_each_other(model):
    one, other = molecule("CH4"), crystal(model)
    one.calc = EANNCalculator(model)
    energies = one.get_potential_energy(), other.get_potential_energy()
    # Forces come from what each calculator kept of its energies.
    assert deviation(one.get_forces(), model.evaluate(one).forces) < 1e-12
    assert deviation(other.get_forces(), model.evaluate(other).forces) < 1e-12
    assert energies == (one.get_potential_energy(), other.get_potential_energy())


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda calculator: pickle.loads(pickle.dumps(calculator))])
def test_a_copy_of_a_calculator_and_the_original_do_not_disturb_each_other(methane, made):
    expected = methane.get_forces()
    other = methane.copy()
    other.rattle(0.1, seed=1)
    methane.calc.reset()
    methane.get_potential_energy()
    other.calc = made(methane.calc)
    other.get_potential_energy()
    assert np.array_equal(methane.get_forces(), expected)
    assert np.array_equal(other.get_forces(), made(methane.calc).get_forces(other))


def test_threads_that_share_a_model_do_not_disturb_each_other(model):
    items = []
    for seed in range(40):
        items.append(molecule("C2H6" if seed % 2 else "CH4"))
        items[-1].rattle(0.1, seed=seed)
    for compute in (lambda atoms: model.evaluate(atoms).forces, lambda atoms: eann_lite.hessian(model, atoms)):
        expected = [compute(atoms) for atoms in items]
        with ThreadPoolExecutor(4) as threads:
            for found, one in zip(threads.map(compute, items), expected):
                assert np.array_equal(found, one)


def test_a_copy_of_a_used_model_is_that_model(model, methane):
    expected = model.evaluate([methane, methane])[1].forces
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.evaluate(methane).forces, expected)
        assert not other.vector.flags.writeable


def test_the_energy_alone_computes_no_forces_and_nothing_is_computed_twice(methane):
    calls, sweeps = [], methane.calc.sweeps
    forward, reverse = sweeps.forward, sweeps.reverse
    sweeps.forward = lambda batch: (calls.append("forward"), forward(batch))[1]
    sweeps.reverse = lambda: (calls.append("reverse"), reverse())[1]
    methane.get_potential_energy()
    methane.get_potential_energies()
    assert calls == ["forward"]
    methane.get_forces()
    methane.get_forces()
    methane.get_potential_energy()
    assert calls == ["forward", "reverse"]
    methane.rattle(0.01)
    methane.get_forces()
    methane.get_potential_energy()
    assert calls == ["forward", "reverse"] * 2
    methane.set_initial_charges(np.ones(5))
    methane.get_forces()
    assert calls == ["forward", "reverse"] * 2


def test_results_can_be_changed_by_the_caller_without_harm(methane):
    methane.get_forces()[:] = 7.0
    assert not (methane.get_forces() == 7.0).any()


def test_atoms_are_left_as_they_were(model):
    atoms = crystal(model)
    atoms.set_constraint(FixAtoms([0]))
    atoms.info["note"] = "mine"
    atoms.positions += atoms.cell[1]
    before = atoms.copy()
    assert_is_evaluation(atoms, model)
    assert atoms == before and atoms.info == {"note": "mine"} and atoms.arrays.keys() == before.arrays.keys()
    assert not atoms.get_forces()[0].any() and atoms.get_forces(apply_constraint=False)[0].all()


def test_a_model_file_is_as_good_as_a_model(model, tmp_path):
    model.save(tmp_path / "model.npz")
    for path in (tmp_path / "model.npz", str(tmp_path / "model.npz")):
        atoms = molecule("CH4")
        atoms.calc = EANNCalculator(path)
        assert_is_evaluation(atoms, model)
    with pytest.raises(ModelFileError, match="does not exist"):
        EANNCalculator(tmp_path / "other.npz")


def test_threads_hold_for_the_calculation_only(model):
    atoms = molecule("CH4")
    before = numba.get_num_threads()
    atoms.calc = EANNCalculator(model, threads=1)
    seen, forward = [], atoms.calc.sweeps.forward
    atoms.calc.sweeps.forward = lambda batch: (seen.append(numba.get_num_threads()), forward(batch))[1]
    atoms.get_forces()
    assert seen == [1] and numba.get_num_threads() == before


# What it refuses


@pytest.mark.parametrize("given", [None, 5, SPECIFICATION])
def test_what_is_no_model_is_refused_at_once(given):
    name = type(given).__name__
    with pytest.raises(InputError, match=f"is of type {name}: expected a Model, or the path of a model file"):
        EANNCalculator(given)


def test_a_calculator_in_place_of_its_model_is_refused_at_once(model):
    with pytest.raises(InputError, match="type EANNCalculator: .* Give the model that the calculator was made with"):
        EANNCalculator(EANNCalculator(model))


@pytest.mark.parametrize("threads", [0, 10_000, 1.5, True])
def test_an_impossible_number_of_threads_is_refused_at_once(model, threads):
    with pytest.raises(InputError, match=r"threads = .*: expected a whole number from 1 to \d+"):
        EANNCalculator(model, threads=threads)


@given(models(), structures())
@settings(max_examples=40)
def test_single_precision_gives_the_energy_and_forces_of_double_precision_to_its_round_off(model, structure):
    atoms = structure.to_atoms()
    double, single = EANNCalculator(model), EANNCalculator(model, precision="float32")
    for calculator in (double, single):
        calculator.calculate(atoms, ("energy", "forces"))
    assert single.sweeps.values.radial.dtype == np.float32
    assert single.results["forces"].dtype == np.float64
    # What is added up for a force may be larger than the force.
    scale = np.abs(double.results["energies"]).max(initial=1.0)
    double.sweeps.forward(double._batch, keep=True)
    double.sweeps.reverse()
    values, potential, s = double.sweeps.values, double.sweeps.potential, double._batch.species[double._batch.neighbor]
    apart = values.distance[:, None] - potential.centers[s]
    slope = values.radial * (values.log_slope[:, None] - 2.0 * potential.exponents[s] * apart)
    i, j, angular = np.repeat(np.arange(len(atoms)), np.diff(double._batch.first)), double._batch.neighbor, [1.0]
    for parent, axis in zip(potential.parent[1:], potential.axis[1:]):
        angular.append(angular[parent] * values.vector[axis])
    angular = np.array([np.broadcast_to(a, i.shape) for a in angular])
    radial_bar = np.einsum("tpk,ap,tpak->pk", values.coefficients[:, j], angular, values.sums_bar[:, i])
    along_pairs = np.abs(radial_bar * slope).sum(axis=1)
    largest = max(np.abs(values.recoil).max(initial=0.01 * scale), along_pairs.max(initial=0.0))
    assert np.abs(single.results["forces"] - double.results["forces"]).max() < 1e-4 * largest
    assert single.results["energies"] == pytest.approx(double.results["energies"], abs=1e-4 * scale)


def test_an_unknown_precision_is_refused_at_once(model):
    with pytest.raises(InputError, match="precision = 'float16': expected one of float64, float32"):
        EANNCalculator(model, precision="float16")


@pytest.mark.parametrize("skin", [-0.1, float("nan"), "wide"])
def test_an_impossible_skin_is_refused_at_once(model, skin):
    with pytest.raises(InputError, match="skin = .*: expected 0 or more, finite: .* beyond the cutoff .* such as 0.5"):
        EANNCalculator(model, skin=skin)


@pytest.mark.parametrize("ask", ["get_potential_energy", "get_forces", "get_stress", "calculate"])
@pytest.mark.parametrize("threads", [None, 1])
def test_a_calculator_without_atoms_says_how_to_give_some(model, ask, threads):
    with pytest.raises(InputError, match="no atoms yet: .*Set atoms.calc = calculator"):
        getattr(EANNCalculator(model, threads=threads), ask)()


def test_a_calculator_remembers_its_atoms(methane):
    energy = methane.get_potential_energy()
    assert methane.calc.get_potential_energy() == energy
    methane.calc.reset()
    with pytest.raises(InputError, match="no atoms yet"):
        methane.calc.get_potential_energy()


def test_settings_cannot_be_changed_later(methane):
    energy = methane.get_potential_energy()
    message = r"set\(skin=1.0, threads=2\): .* Make another one: EANNCalculator\(model, skin=1.0, threads=2\)"
    with pytest.raises(InputError, match=message):
        methane.calc.set(skin=1.0, threads=2)
    assert methane.calc.pairs.skin == 0.5 and methane.calc.set() == {} and not methane.calc.parameters
    assert methane.get_potential_energy() == energy


@pytest.mark.parametrize("warm", [False, True], ids=["first call", "after a good call"])
def test_bad_atoms_are_named_each_time_and_the_calculator_recovers(methane, model, warm):
    if warm:
        methane.get_forces()
    bad = {
        r"atom 3: position y = nan: expected a finite": lambda atoms: atoms.positions.__setitem__((3, 1), np.nan),
        r"atom 2 is O, but the model knows only H, C": lambda atoms: atoms.numbers.__setitem__(2, 8),
        r"with pbc \[True, True, True\]: expected linearly independent": lambda atoms: atoms.set_pbc(True),
        r"atoms 1 and 2 are at the same place": lambda atoms: atoms.positions.__setitem__(2, atoms.positions[1]),
    }
    for message, spoil in bad.items():
        atoms = methane.copy()
        atoms.calc = methane.calc
        spoil(atoms)
        for ask in (atoms.get_forces, atoms.get_potential_energy, atoms.get_forces):
            with pytest.raises(InputError, match=message):
                ask()
        assert_is_evaluation(methane, model)


@pytest.mark.parametrize("name", ["vector", "recoil"])
def test_after_a_call_that_found_no_memory_the_next_one_is_as_if_it_had_not_been(model, name):
    expected, atoms = EANNCalculator(model).get_property("forces", molecule("CH4")), molecule("CH4")
    atoms.calc = EANNCalculator(model)

    class Buffers(eann_lite.model.sweeps.Buffers):
        def __call__(self, which, *shape):
            if which == name:
                raise MemoryError
            return super().__call__(which, *shape)

    with mock.patch.object(atoms.calc.sweeps, "buffers", Buffers()), pytest.raises(MemoryError):
        atoms.get_forces()
    assert np.array_equal(atoms.get_forces(), expected)


def test_atoms_that_meet_while_the_list_is_kept_are_named_too(model):
    atoms = Atoms("CHH", positions=[[0, 0, 0], [0, 0, 1.1], [0, 0, 1.2]])
    atoms.calc = EANNCalculator(model, skin=1.0)
    atoms.get_forces()
    atoms.positions[2] = atoms.positions[1]
    for ask in (atoms.get_potential_energy, atoms.get_forces):
        with pytest.raises(InputError, match="atoms 1 and 2 are at the same place"):
            ask()


def test_forces_that_overflow_are_refused_and_not_returned(model):
    atoms = Atoms("CH", positions=[[0, 0, 0], [0, 0, 1e-7]])
    atoms.calc = EANNCalculator(Model(SPECIFICATION, model.parameters, model.constants | {"energy_scale": 1e303}))
    with pytest.raises(InputError, match=r"of these 2 atoms are not finite \(shortest distance 1e-07 Angstrom\)"):
        atoms.get_forces()


def test_no_atoms_at_all_are_refused(model):
    atoms = Atoms()
    atoms.calc = EANNCalculator(model)
    with pytest.raises(InputError, match="at least one atom"):
        atoms.get_potential_energy()


# What ASE does with it


def test_geometry_optimisation_finds_a_minimum(methane, model):
    start = methane.get_potential_energy()
    assert BFGS(methane, logfile=None).run(fmax=1e-4, steps=300)
    assert np.linalg.norm(methane.get_forces(), axis=1).max() < 1e-4
    assert methane.get_potential_energy() < start
    assert_is_evaluation(methane, model)


def test_cell_optimisation_finds_the_cube_without_stress(model):
    distorted = 2.3 * np.array([[1.0, 0.05, 0.0], [0.0, 1.04, 0.0], [0.0, 0.0, 0.97]])
    atoms = Atoms("CH", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=distorted, pbc=True)
    atoms.calc = EANNCalculator(model)
    start = atoms.get_potential_energy()
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=3e-3, steps=60)
    # ASE's filter takes the strain derivative per atom for the force on the cell.
    assert np.abs(atoms.get_stress()).max() * atoms.get_volume() / len(atoms) < 1e-2
    assert atoms.cell.cellpar() == pytest.approx([2.185] * 3 + [90.0] * 3, rel=1e-2)
    assert atoms.get_potential_energy() < start
    assert_is_evaluation(atoms, model)


def relaxed_and_warm(model, temperature):
    """The crystal at a minimum of its energy, with random momenta of a temperature in K."""
    atoms = crystal(model)
    assert BFGS(atoms, logfile=None).run(fmax=1e-2, steps=200)
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(spread[:, None] * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    return atoms


def test_energy_in_nve_dynamics_is_conserved_to_second_order_in_the_step(model):
    """Velocity Verlet with exact forces: half the step, a quarter of the error; a wrong force or a lost pair is not."""
    start, errors = relaxed_and_warm(model, 300), []
    for step in (0.4, 0.2):
        atoms = start.copy()
        atoms.calc = EANNCalculator(model, skin=0.3)
        dynamics, energies = VelocityVerlet(atoms, timestep=step * units.fs), []
        for _ in range(round(60 / step)):
            dynamics.run(1)
            energies.append(atoms.get_total_energy())
        errors.append(np.std(energies))
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_npt_dynamics_runs_and_ends_with_the_right_numbers(model, tmp_path):
    atoms = relaxed_and_warm(model, 100)
    volume = atoms.get_volume()
    dynamics = IsotropicMTKNPT(
        atoms, 0.2 * units.fs, temperature_K=100, pressure_au=0.0, tdamp=20 * units.fs, pdamp=50 * units.fs,
        trajectory=str(tmp_path / "npt.traj"), loginterval=10,
    )  # fmt: skip
    dynamics.run(100)
    assert abs(atoms.get_volume() / volume - 1.0) > 1e-3
    assert_is_evaluation(atoms, model)
    frames = read(tmp_path / "npt.traj", ":")
    assert len(frames) == 11
    for frame in frames:
        assert deviation(frame.get_forces(), model.evaluate(frame).forces) < 1e-10
        assert deviation(frame.get_stress(voigt=False), model.evaluate(frame).stress) < 1e-10
