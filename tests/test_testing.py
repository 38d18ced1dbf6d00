"""Laws for any calculator: correct potentials pass, and each fault planted in one is found and shown small."""

import ast

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from hypothesis import given, settings
from hypothesis import strategies as st

from eann_lite import EANNCalculator, InputError, Specification, reference
from eann_lite.neighbors import neighbor_pairs
from eann_lite.testing import LAWS, Violation, as_python, atoms, check_laws, laws, random_model
from eann_lite.testing.jumps import largest_jump

#: Fault -> law that names it.
FAULTS = {
    "forces off by 1%": "force_is_gradient",
    "sign of shear stress": "stress_is_gradient",
    "cutoff with a kink": "smooth_at_cutoff",
    "missing image": "supercell",
    "order of atoms": "permutation",
    "not extensive": "additivity",
}


class PairPotential(Calculator):
    """Sum over pairs of V(r) = (exp(-3 (r - 1)) - 2 exp(-1.5 (r - 1))) (1 - r^2 / c^2)^3, with one fault or none.

    fault : None, or one of ``FAULTS``.
    """

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, fault=None, cutoff=2.63):
        super().__init__()
        self.fault, self.cutoff = fault, cutoff

    def pair(self, r):
        """V(r) and dV/dr; the faulty cutoff leaves V continuous and makes its slope jump."""
        x = 1 - (r / self.cutoff) ** 2
        if self.fault == "cutoff with a kink":
            switch, slope = x, -2 * r / self.cutoff**2
        else:
            switch, slope = x**3, -6 * r / self.cutoff**2 * x**2
        a, b = np.exp(-3 * (r - 1)), np.exp(-1.5 * (r - 1))
        return (a - 2 * b) * switch, (-3 * a + 3 * b) * switch + (a - 2 * b) * slope

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        positions, cell, pbc = self.atoms.positions, self.atoms.cell.array, self.atoms.pbc
        pairs = neighbor_pairs(positions, cell, pbc, self.cutoff)
        i_p, j_p, shift_px = np.repeat(np.arange(len(positions)), np.diff(pairs.first)), pairs.neighbor, pairs.shift
        if self.fault == "missing image":
            near = np.abs(shift_px).max(axis=1, initial=0) < 2
            i_p, j_p, shift_px = i_p[near], j_p[near], shift_px[near]
        r_px = positions[j_p] + shift_px @ cell - positions[i_p]
        r_p = np.linalg.norm(r_px, axis=1)
        value, slope = self.pair(r_p)
        if self.fault == "order of atoms":
            factor = np.where((i_p == 0) | (j_p == 0), 1.001, 1.0)
            value, slope = value * factor, slope * factor
        g_px = 0.5 * (slope / r_p)[:, None] * r_px
        n = len(positions)
        forces = reference.sum_by(i_p, g_px, n) - reference.sum_by(j_p, g_px, n)
        energy = 0.5 * value.sum()
        if self.fault == "not extensive":
            energy += 1e-4 * n**2
        if self.fault == "forces off by 1%":
            forces *= 1.01
        self.results = {"energy": energy, "forces": forces}
        if self.atoms.cell.rank == 3:
            virial = r_px.T @ g_px
            if self.fault == "sign of shear stress":
                virial = 2 * np.diag(np.diag(virial)) - virial
            self.results["stress"] = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / self.atoms.get_volume()


class Careless(PairPotential):
    """Writes the forces into the atoms it was given."""

    def get_property(self, name, atoms=None, allow_calculation=True):
        if atoms is not None:
            atoms.positions[-1, 0] += 1e-3
        return super().get_property(name, atoms, allow_calculation)


def structure_in(message):
    """The ``ase.Atoms`` that the text of an AssertionError shows."""
    line = next(line for line in message.splitlines() if "atoms = Atoms(" in line)
    return atoms_of(line.split("atoms = ")[1])


def atoms_of(text):
    call = ast.parse(text, mode="eval").body
    assert call.func.id == "Atoms"
    keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    return Atoms(ast.literal_eval(call.args[0]), **keywords)


# Correct potentials


def test_a_correct_potential_obeys_every_law():
    found = check_laws(PairPotential(), elements=("Cu", "Al"), max_examples=12, closest=1.2, density=0.2)
    assert list(found) == list(LAWS)
    assert not any(violation.broken for violation in found.values())


def test_well_known_potentials_pass():
    good = LennardJones(sigma=2.3, epsilon=0.4, rc=4.0, smooth=True)
    some = ("rotation", "permutation", "supercell", "force_is_gradient", "stress_is_gradient", "smooth_at_cutoff")
    assert all(not violation.broken for violation in check_laws(good, ("Cu",), some, max_examples=6).values())
    others = tuple(name for name in LAWS if name != "smooth_at_cutoff")
    assert all(not violation.broken for violation in check_laws(EMT(), ("Cu",), others, max_examples=4).values())


def test_the_effective_medium_theory_of_ase_jumps_where_its_neighbours_end():
    violation = laws.smooth_at_cutoff(EMT(), Atoms("Al2", positions=[[0, 0, 0], [2.7, 0, 0]]))
    assert violation.broken and 1e-4 < violation.value < 0.1


def test_the_laws_hold_for_a_reann():
    specification = Specification(elements=("H", "C"), cutoff=2.5, radial=3, densities=4, recursions=1, repulsion="zbl")
    calculator = EANNCalculator(random_model(specification, 3))
    # Other sums than a pair potential's: its densities are squares of sums that nearly cancel.
    found = check_laws(calculator, ("H", "C"), max_examples=10, relative=1e-7, closest=0.9)
    assert not any(violation.broken for violation in found.values())


# Faults


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_within_200_examples_and_shown_small(fault):
    law = FAULTS[fault]
    with pytest.raises(AssertionError) as failure:
        check_laws(PairPotential(fault), ("Cu",), laws=(law,), max_examples=200, closest=1.2, density=0.2)
    message = str(failure.value)
    assert f"PairPotential breaks the law {law}" in message and "limit" in message
    shown = structure_in(message)
    assert len(shown) <= 3
    assert np.abs(shown.positions).max() <= 5.0 and np.array_equal(shown.positions, np.round(shown.positions, 1))
    # What is shown is what breaks the law, and only with the fault.
    assert LAWS[law](PairPotential(fault), shown).broken
    assert not LAWS[law](PairPotential(), shown).broken


def test_the_place_of_a_kink_is_told_without_being_known():
    dimer = Atoms("Cu2", positions=[[0, 0, 0], [0.6, 0, 0.8]])
    for cutoff in (2.631, 5.17, 9.3):
        potential = PairPotential("cutoff with a kink", cutoff)
        violation = laws.smooth_at_cutoff(potential, dimer)
        jump = abs(potential.pair(cutoff)[1])
        if jump > 2 * violation.limit:
            assert violation.broken and violation.value == pytest.approx(0.8 * jump, rel=1e-3)
            assert float(violation.detail.split("distance ")[1].split()[0]) == pytest.approx(cutoff, abs=1e-6)
        assert not laws.smooth_at_cutoff(PairPotential(None, cutoff), dimer).broken


def test_other_atoms_than_those_given_are_never_changed_by_a_law():
    structure = bulk("Cu", cubic=True)
    structure.info["note"] = "mine"
    before = structure.copy()
    for law in LAWS.values():
        law(PairPotential(), structure)
    assert structure == before and structure.info == before.info and structure.calc is None


def test_a_calculator_that_moves_the_atoms_it_is_given_is_found():
    violation = laws.inputs_unchanged(Careless(), molecule("CH4"))
    assert violation.broken and violation.value >= 1e-3 and "positions" in violation.detail
    assert not laws.inputs_unchanged(PairPotential(), molecule("CH4")).broken


def test_a_calculator_that_gives_no_number_or_fails_is_found():
    class Nothing(PairPotential):
        def calculate(self, *arguments, **keywords):
            super().calculate(*arguments, **keywords)
            self.results["energy"] = np.nan

    class Failing(PairPotential):
        def calculate(self, *arguments, **keywords):
            raise RuntimeError("no parameters for this element")

    assert laws.rotation(Nothing(), molecule("CH4")).broken
    assert laws.smooth_at_cutoff(Nothing(), molecule("CH4")).broken
    with pytest.raises(AssertionError, match="Failing fails under the law rotation") as failure:
        check_laws(Failing(), ("Cu",), max_examples=5)
    assert "no parameters" in str(failure.value) and len(structure_in(str(failure.value))) == 1


# Laws that say nothing


def test_laws_that_do_not_apply_say_nothing():
    class Stressless(PairPotential):
        implemented_properties = ["energy", "forces"]

    methane, crystal = molecule("CH4"), bulk("Cu", cubic=True)
    for name in ("supercell", "periodic_images", "stress_is_gradient"):
        assert LAWS[name](PairPotential(), methane) is None
    assert laws.additivity(PairPotential(), crystal) is None
    assert laws.permutation(PairPotential(), Atoms("Cu")) is None
    assert laws.stress_is_gradient(Stressless(), crystal) is None
    assert not laws.rotation(Stressless(), crystal).broken
    assert check_laws(PairPotential(), ("Cu",), ("supercell",), 5, kinds=("cluster",)) == {"supercell": None}
    with pytest.raises(InputError, match="no law 'rotations'"):
        check_laws(PairPotential(), ("Cu",), laws=("rotations",))


def test_a_violation_that_is_not_a_number_is_one():
    assert Violation("rotation", float("nan"), "eV", 1.0, "").broken
    assert not Violation("rotation", 1.0, "eV", 1.0, "").broken


# Parts


@given(st.floats(0.05, 0.95), st.sampled_from((1e-3, 1.0)))
def test_jumps_are_found_and_slopes_and_kinks_are_none(place, size):
    def smooth(x):
        return np.array([np.exp(3 * x), np.sin(5 * x), abs(x - place)])

    def jumping(x):
        return smooth(x) + np.array([0.0, size * (x > place), 0.0])

    assert largest_jump(smooth, 0.0, 1.0, 1e-5, 1e-6).size <= 1e-5
    jump = largest_jump(jumping, 0.0, 1.0, 1e-5, 1e-6)
    # To this a slope of 5 adds what it makes of the last width.
    assert jump.size == pytest.approx(size, rel=1e-2)
    assert jump.place == pytest.approx(place, abs=1e-6) and jump.entry == 1


@given(atoms(("Cu", "H"), closest=1.7))
def test_drawn_atoms_keep_their_distance_and_survive_as_python(structure):
    assert len(reference.pairs(structure.positions, structure.cell.array, structure.pbc, 1.7 - 1e-6)[0]) == 0
    again = atoms_of(as_python(structure))
    assert again == structure


@settings(max_examples=30)
@given(atoms(("Cu",), kinds=("cell",), most=8, density=0.05))
def test_density_is_about_what_was_asked_for(structure):
    # The edges of a cell are up to 1.5 times as long as those of the cube, and rounded up.
    assert 0.05 / 5 < len(structure) / structure.cell.volume < 0.05 * 1.001
