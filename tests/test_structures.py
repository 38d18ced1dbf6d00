"""`Structure`: what it takes, what it refuses and how it says so, and the way from and to ASE."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from hypothesis import given
from hypothesis import strategies as st

from eann_lite.errors import InputError
from eann_lite.structures import Structure, as_structures, label_atoms

WATER = {"numbers": [8, 1, 1], "positions": [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]}
CUBE = 5.0 * np.eye(3)


def labelled_water(constraint=None):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-14.0, forces=np.arange(9.0).reshape(3, 3))
    atoms.set_constraint(constraint)
    return atoms


@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6), pbc=st.tuples(*[st.booleans()] * 3),
    labels=st.tuples(*[st.booleans()] * 3), weight=st.sampled_from([1.0, 0.0, 2.5]),
)  # fmt: skip
def test_a_structure_survives_the_way_to_atoms_and_back_bit_for_bit(seed, n, pbc, labels, weight):
    rng = np.random.default_rng(seed)
    stress = rng.normal(size=(3, 3))
    before = Structure(
        numbers=rng.integers(1, 119, n), positions=rng.normal(size=(n, 3)), cell=CUBE + rng.normal(size=(3, 3)),
        pbc=np.array(pbc), energy=rng.normal() if labels[0] else None,
        forces=rng.normal(size=(n, 3)) if labels[1] else None, stress=stress + stress.T if labels[2] else None,
        weight=weight, source="here",
    )  # fmt: skip
    after = Structure.from_atoms(before.to_atoms(), source="here")
    for name in ("numbers", "positions", "cell", "pbc", "energy", "forces", "stress", "weight", "source"):
        one, other = getattr(before, name), getattr(after, name)
        assert (one is None) == (other is None), name
        assert one is None or np.array_equal(one, other), name


def test_arrays_are_copied_and_cannot_be_written():
    positions = np.array(WATER["positions"])
    forces = np.zeros((3, 3))
    structure = Structure(WATER["numbers"], positions, forces=forces)
    positions[0, 0] = forces[0, 0] = 99.0
    assert structure.positions[0, 0] == structure.forces[0, 0] == 0.0
    for array in (structure.numbers, structure.positions, structure.cell, structure.pbc, structure.forces):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        structure.energy = 1.0


def test_types_and_shapes_are_those_of_the_contract():
    structure = Structure(WATER["numbers"], WATER["positions"], cell=CUBE, pbc=True, energy=np.float32(-2.0))
    assert structure.numbers.dtype == np.int64 and structure.positions.dtype == np.float64
    assert structure.pbc.dtype == bool and structure.pbc.shape == (3,) and structure.pbc.all()
    assert type(structure.energy) is float and structure.n_atoms == 3 and structure.symbols == ("O", "H", "H")
    assert structure.volume == pytest.approx(125.0, rel=1e-14)


def test_forces_of_constrained_atoms_are_taken_as_they_are_and_atoms_stay_unchanged():
    atoms = labelled_water(FixAtoms([0, 1]))
    before = atoms.positions.copy()
    structure = Structure.from_atoms(atoms)
    assert np.array_equal(structure.forces, np.arange(9.0).reshape(3, 3))
    assert np.all(atoms.get_forces()[:2] == 0.0), "the case is only a test where ASE itself sets them to zero"
    structure.positions.sum()
    assert np.array_equal(atoms.positions, before) and atoms.positions.flags.writeable and len(atoms.constraints) == 1


def test_a_calculator_without_results_is_not_run():
    atoms = molecule("H2O")
    atoms.calc = LennardJones()
    structure = Structure.from_atoms(atoms)
    assert structure.energy is None and structure.forces is None and not atoms.calc.results


@pytest.mark.parametrize("change", ["positions", "cell", "pbc", "numbers"])
def test_results_for_other_atoms_than_the_present_ones_are_left_out(change):
    atoms = labelled_water()
    assert Structure.from_atoms(atoms).energy == -14.0
    if change == "positions":
        atoms.positions[0, 0] += 1e-6
    elif change == "cell":
        atoms.set_cell(CUBE)
    elif change == "pbc":
        atoms.cell[:] = atoms.calc.atoms.cell[:] = CUBE
        assert Structure.from_atoms(atoms).energy == -14.0
        atoms.pbc = True
    else:
        atoms.numbers[0] = 16
    structure = Structure.from_atoms(atoms)
    assert structure.energy is None and structure.forces is None


def test_voigt_stress_becomes_the_symmetric_tensor_of_ase():
    atoms = bulk("Cu", cubic=True)
    voigt = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    atoms.calc = SinglePointCalculator(atoms, stress=voigt)
    assert np.array_equal(Structure.from_atoms(atoms).stress, atoms.get_stress(voigt=False))
    assert np.array_equal(Structure.from_atoms(atoms).to_atoms().get_stress(), voigt)


def test_an_almost_symmetric_stress_is_made_symmetric():
    stress = np.eye(3)
    stress[0, 1] = 2e-3
    assert Structure([1], [[0, 0, 0]], cell=CUBE, stress=stress).stress[1, 0] == 1e-3


def test_a_zero_stress_without_a_volume_is_none_and_any_other_is_refused():
    assert Structure(**WATER, stress=np.zeros(6)).stress is None
    with pytest.raises(InputError, match="a stress, but the cell spans no volume"):
        Structure(**WATER, stress=np.eye(3))


def with_value(array, index, value):
    changed = np.array(array, dtype=float)
    changed[index] = value
    return changed


REFUSED = {
    "nan position": (
        {"positions": with_value(WATER["positions"], (1, 2), np.nan)},
        r"a.xyz, structure 3: positions of atom 1 \(H\), component z, is nan: expected a finite number",
    ),
    "infinite force": (
        {"forces": with_value(np.zeros((3, 3)), (0, 0), np.inf)},
        r"forces of atom 0 \(O\), component x, is inf.*Remove the structure",
    ),
    "nan cell": (
        {"cell": with_value(CUBE, (2, 1), np.nan)},
        r"cell of lattice vector 2, component y, is nan",
    ),
    "nan stress": ({"cell": CUBE, "stress": np.full((3, 3), np.nan)}, r"stress of lattice vector 0"),
    "nan energy": ({"energy": np.nan}, r"structure 3: energy is nan: expected a finite number. Remove"),
    "energy as text": ({"energy": "-14"}, r"energy = '-14': expected one number"),
    "two energies": ({"energy": np.zeros(2)}, r"energy = .*expected one number"),
    "forces of two atoms": ({"forces": np.zeros((2, 3))}, r"forces of shape \(2, 3\): expected \(3, 3\) for 3 atoms"),
    "flat forces": ({"forces": np.zeros(9)}, r"forces of shape \(9,\): expected \(3, 3\)"),
    "ragged positions": ({"positions": [[0, 0, 0], [1, 0], [2, 0, 0]]}, r"positions cannot be read as numbers"),
    "no atoms": ({"numbers": np.zeros(0, int), "positions": np.zeros((0, 3))}, r"at least one atom"),
    "symbols for numbers": ({"numbers": ["O", "H", "H"]}, r"atomic numbers of shape \(3,\) and type <U1"),
    "dummy atom": ({"numbers": [8, 0, 1]}, r"atom 1 has atomic number 0: expected 1 to 118. Ghost atoms"),
    "element 119": ({"numbers": [8, 1, 119]}, r"atom 2 has atomic number 119"),
    "no cell": ({"pbc": True}, r"periodic along lattice vector 0, but this vector is \(0, 0, 0\).*Give the cell"),
    "one zero vector": (
        {"cell": np.diag([5.0, 5.0, 0.0]), "pbc": [True, False, True]},
        r"periodic along lattice vector 2",
    ),
    "flat cell": (
        {"cell": [[1, 0, 0], [0, 1, 0], [1, 1, 0]], "pbc": True},
        r"linearly dependent \(\(1, 0, 0\); \(0, 1, 0\); \(1, 1, 0\) A\)",
    ),
    "two parallel vectors": (
        {"cell": [[1, 0, 0], [2, 0, 0], [0, 0, 1]], "pbc": [True, True, False]},
        r"linearly dependent",
    ),
    "pbc of two": ({"pbc": [True, True]}, r"pbc = \[True, True\]: expected three values"),
    "pbc of numbers": ({"pbc": [1, 2, 0]}, r"pbc = \[1, 2, 0\]: expected three values"),
    "negative weight": ({"weight": -1.0}, r"weight -1.0: expected 0 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_with_place_value_and_cure(case):
    arguments, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        Structure(**{**WATER, **arguments, "source": "a.xyz, structure 3"})
    assert str(caught.value).startswith("a.xyz, structure 3: ")


def test_strongly_skewed_and_partly_periodic_cells_are_accepted():
    for cell, pbc in (
        ([[4, 0, 0], [400, 4, 0], [0, 0, 4]], [True, True, True]),
        ([[4, 0, 0], [0, 0, 0], [0, 0, 4]], [True, False, True]),
    ):
        structure = Structure(**WATER, cell=cell, pbc=pbc)
        assert structure.cell.tolist() == cell and structure.pbc.tolist() == pbc


def test_as_structures_takes_one_or_many_of_both_kinds():
    structure, atoms = Structure(**WATER), labelled_water()
    assert as_structures(structure)[0] is structure
    assert [s.energy for s in as_structures(atoms)] == [-14.0]
    both = as_structures((structure, atoms))
    assert both[0] is structure and both[1].source == "structure 1"
    assert len(as_structures(molecule(name) for name in ("H2", "H2O", "CH4"))) == 3


@pytest.mark.parametrize(
    "given, message",
    [
        ("train.xyz", r"'train.xyz' is of type str.*read_structures"),
        (7, r"7 is of type int: expected ase.Atoms"),
        ([], r"no structures: the list is empty"),
        ([Atoms("H"), 3], r"entry 1 of the list of structures is of type int"),
    ],
)
def test_anything_else_than_structures_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        as_structures(given)


def test_a_bad_structure_in_a_list_is_named_by_its_number():
    bad = molecule("CH4")
    bad.positions[4, 1] = np.inf
    with pytest.raises(InputError, match=r"structure 2: positions of atom 4 \(H\), component y, is inf"):
        as_structures([molecule("CH4"), molecule("CH4"), bad])


def test_labels_of_atoms_in_memory_are_found_under_the_names_of_the_reader():
    atoms = molecule("H2O")
    atoms.info["REF_energy"] = -14.5
    atoms.arrays["dft_forces"] = np.ones((3, 3))
    structure = label_atoms([atoms])[0]
    assert structure.energy == -14.5 and np.array_equal(structure.forces, np.ones((3, 3)))
    assert set(atoms.info) == {"REF_energy"} and "dft_forces" in atoms.arrays
    # In a mixed list they are named by their place in it; what is a Structure already stays as it is.
    assert label_atoms([structure, atoms])[0] is structure and label_atoms([structure, atoms])[1].source == "structure 1"
    with pytest.raises(InputError, match=r"energy_key = 'ref_energy'.*Keys that exist: 'REF_energy'"):
        label_atoms([atoms], energy_key="ref_energy")
    atoms.calc = SinglePointCalculator(atoms, energy=-3.0)
    with pytest.raises(InputError, match=r"structure 0: two labels for the energy.*Choose one, for example energy_key"):
        label_atoms([atoms])
    atoms.info = {"energy": -14.5}
    with pytest.raises(InputError, match=r"'energy' = -14.5 and 'energy' = -3.0. One is a result of the attached calc"):
        label_atoms([atoms])
