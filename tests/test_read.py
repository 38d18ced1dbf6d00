"""Reading files: formats, labels by many names, units, and an error with a place and a cure for everything wrong."""

import bz2
import gzip
import io
import os

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from eann_lite.errors import InputError
from eann_lite.structures import Structure, fingerprint, read_structures, write_configuration
from eann_lite.structures.units import (
    BOHR,
    ENERGY_UNITS,
    HARTREE,
    force_in_ev_per_angstrom,
    stress_in_ev_per_cubic_angstrom,
)

FRAME = """3
Properties=species:S:1:pos:R:3:forces:R:3 energy={energy}
O 0.0 0.0 0.0 0.1 0.2 0.3
H 0.96 0.0 0.0 0.4 0.5 0.6
H -0.24 0.93 0.0 -0.5 -0.7 -0.9
"""


def write(path, text):
    path.write_text(text)
    return path


def frames(count):
    return "".join(FRAME.format(energy=-10.0 - i) for i in range(count))


def atoms_with_labels(seed=0, periodic=True):
    rng = np.random.default_rng(seed)
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) if periodic else molecule("C2H6")
    atoms.rattle(0.1, seed=seed)
    stress = rng.normal(size=6)
    labels = {"stress": stress} if periodic else {}
    forces = rng.normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=forces, **labels)
    return atoms


def same(one, other, digits=None):
    for name in ("numbers", "positions", "cell", "pbc", "energy", "forces", "stress"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            if digits is None:
                assert np.array_equal(a, b), name
            else:
                assert np.allclose(a, b, rtol=0, atol=10.0**-digits), name
    return True


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, digits", [("a.traj", None), ("a.xyz", 7), ("a.extxyz", 7), ("a.db", None)])
def test_what_ase_writes_is_read_with_all_labels(tmp_path, name, digits):
    written = [atoms_with_labels(0), atoms_with_labels(1)]
    ase.io.write(tmp_path / name, written)
    read = read_structures(tmp_path / name)
    assert len(read) == 2
    for i, (one, other) in enumerate(zip(read, written)):
        assert same(one, Structure.from_atoms(other), digits)
        assert one.source == f"{tmp_path / name}, structure {i}"


@pytest.mark.parametrize("opener, ending", [(gzip.open, ".gz"), (bz2.open, ".bz2")])
def test_compressed_files_give_the_same_bits(tmp_path, opener, ending):
    plain = write(tmp_path / "a.xyz", frames(3))
    with opener(tmp_path / f"b.xyz{ending}", "wt") as file:
        file.write(frames(3))
    assert fingerprint(read_structures(plain)) == fingerprint(read_structures(tmp_path / f"b.xyz{ending}"))


def test_many_files_are_read_in_their_order(tmp_path):
    one, two = write(tmp_path / "one.xyz", frames(2)), write(tmp_path / "two.xyz", frames(1))
    read = read_structures([two, str(one)])
    assert [s.energy for s in read] == [-10.0, -10.0, -11.0]
    assert [s.source for s in read] == [f"{two}, structure 0", f"{one}, structure 0", f"{one}, structure 1"]


@pytest.mark.parametrize("index, numbers", [(":", [0, 1, 2, 3]), ("1:3", [1, 2]), ("::-2", [3, 1]), ("-1", [3]),
                                            (2, [2]), (slice(None, None, 3), [0, 3])])  # fmt: skip
def test_index_chooses_structures_and_keeps_their_numbers(tmp_path, index, numbers):
    path = write(tmp_path / "a.xyz", frames(4))
    assert [s.source for s in read_structures(path, index=index)] == [f"{path}, structure {i}" for i in numbers]
    ase.io.write(tmp_path / "a.traj", ase.io.read(path, ":"))
    assert [s.energy for s in read_structures(tmp_path / "a.traj", index=index)] == [-10.0 - i for i in numbers]


def test_windows_line_ends_and_blank_lines_at_the_end_are_harmless(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_bytes((frames(2) + "\n\n").replace("\n", "\r\n").encode())
    assert len(read_structures(path)) == 2


# ---- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["energy", "Energy", "REF_energy", "ref_energy", "dft_energy", "DFT_energy",
                                  "free_energy", "TotEnergy", "total_energy"])  # fmt: skip
def test_energies_are_found_under_the_usual_names(tmp_path, name):
    path = write(tmp_path / "a.xyz", frames(2).replace("energy=", f"{name}="))
    assert [s.energy for s in read_structures(path)] == [-10.0, -11.0]


@pytest.mark.parametrize("name", ["forces", "force", "REF_forces", "dft_forces", "DFT_force"])
def test_forces_are_found_under_the_usual_names(tmp_path, name):
    path = write(tmp_path / "a.xyz", frames(1).replace("forces:R", f"{name}:R"))
    assert read_structures(path)[0].forces[2, 1] == -0.7


@pytest.mark.parametrize("name", ["stress", "REF_stress", "virial", "virials", "REF_virial", "dft_virial"])
def test_stress_comes_from_a_stress_or_from_minus_the_virial_per_volume(tmp_path, name):
    tensor = np.array([[1.0, 0.4, 0.5], [0.4, 2.0, 0.6], [0.5, 0.6, 3.0]])
    numbers = " ".join(map(str, tensor.ravel()))
    text = f'1\nLattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3 {name}="{numbers}"\nCu 0 0 0\n'
    stress = read_structures(write(tmp_path / "a.xyz", text))[0].stress
    assert np.allclose(stress, -tensor / 8.0 if "virial" in name else tensor, rtol=1e-15)


def test_the_virial_convention_is_that_of_the_strain_derivative():
    from ase.calculators.emt import EMT

    atoms = bulk("Cu", cubic=True).copy()
    atoms.set_cell(atoms.cell * 0.97, scale_atoms=True)
    atoms.calc = EMT()
    strained = []
    for strain in (1e-4, -1e-4):
        other = atoms.copy()
        other.set_cell(atoms.cell @ np.diag([1.0 + strain, 1.0, 1.0]), scale_atoms=True)
        other.calc = EMT()
        strained.append(other.get_potential_energy())
    derivative = (strained[0] - strained[1]) / 2e-4
    atoms.get_stress()
    assert Structure.from_atoms(atoms).stress[0, 0] * atoms.get_volume() == pytest.approx(derivative, rel=1e-5)


def test_keys_given_by_the_user_win_over_the_usual_names(tmp_path):
    text = frames(2).replace("energy=", "mine=7.0 energy=").replace("forces:R", "pull:R")
    read = read_structures(write(tmp_path / "a.xyz", text), energy_key="mine", forces_key="pull")
    assert [s.energy for s in read] == [7.0, 7.0] and read[0].forces[0, 2] == 0.3


def test_labels_may_be_missing_in_some_structures(tmp_path):
    bare = FRAME.replace(" energy={energy}", "").replace(":forces:R:3", ":velo:R:3")
    read = read_structures(write(tmp_path / "a.xyz", frames(1) + bare + FRAME.replace(" energy={energy}", "")))
    assert [s.energy for s in read] == [-10.0, None, None]
    assert [s.forces is None for s in read] == [False, True, False]


def test_a_free_energy_counts_only_where_there_is_no_other(tmp_path):
    text = frames(1).replace("energy=", "free_energy=-99.0 energy=") + frames(1).replace("energy=", "free_energy=")
    path = write(tmp_path / "a.xyz", text)
    assert [s.energy for s in read_structures(path)] == [-10.0, -10.0]
    assert [s.energy for s in read_structures(path, energy_key="free_energy")] == [-99.0, -10.0]


def test_two_energies_or_forces_that_differ_are_an_error_and_equal_ones_are_not(tmp_path):
    path = write(tmp_path / "a.xyz", frames(2).replace("energy=-11.0", "energy=-11.0 REF_energy=-12.5"))
    message = r"structure 1: two labels for the energy that differ.*-1[12].*-1[12].*energy_key="
    with pytest.raises(InputError, match=message):
        read_structures(path)
    assert [s.energy for s in read_structures(path, energy_key="REF_energy")] == [None, -12.5]
    write(path, frames(2).replace("energy=-11.0", "energy=-11.0 REF_energy=-11.000000000001"))
    assert [s.energy for s in read_structures(path)] == [-10.0, -11.000000000001]
    atoms = ase.io.read(write(path, frames(1)))
    atoms.arrays["REF_forces"] = 2.0 * atoms.calc.results["forces"]
    ase.io.write(path, atoms)
    with pytest.raises(InputError, match="two labels for the forces that differ"):
        read_structures(path)


def test_a_stress_and_a_virial_that_do_not_fit_each_other_are_an_error(tmp_path):
    head = '1\nLattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3 stress="1 0 0 0 1 0 0 0 1" '
    path = write(tmp_path / "a.xyz", head + 'virial="-8 0 0 0 -8 0 0 0 -8"\nCu 0 0 0\n')
    assert read_structures(path)[0].stress[2, 2] == 1.0
    write(path, head + 'virial="-1 0 0 0 -1 0 0 0 -1"\nCu 0 0 0\n')
    with pytest.raises(InputError, match="a stress and a virial that do not belong together.*stress_key or virial_key"):
        read_structures(path)
    assert read_structures(path, virial_key="virial")[0].stress[2, 2] == 0.125
    with pytest.raises(InputError, match="stress_key = 'stress' and virial_key = 'virial'"):
        read_structures(path, virial_key="virial", stress_key="stress")


def test_a_key_that_no_structure_has_is_an_error_that_names_those_that_exist_closest_first(tmp_path):
    path = write(tmp_path / "a.xyz", frames(2).replace("energy=", "source=x dft_energy=").replace("forces:R", "frc:R"))
    with pytest.raises(InputError, match=r"energy_key = 'dft_enrgy', but no structure has it. Keys.*'dft_energy', 'so"):
        read_structures(path, energy_key="dft_enrgy")
    with pytest.raises(InputError, match=r"forces_key = 'forces', but no structure has it. Keys that exist: 'frc'"):
        read_structures(path, forces_key="forces")


def test_a_label_that_is_no_number_is_an_error(tmp_path):
    path = write(tmp_path / "a.xyz", frames(2).replace("energy=-11.0", "energy=failed"))
    with pytest.raises(InputError, match=r"a.xyz, structure 1: energy 'energy' is failed: expected numbers"):
        read_structures(path)


def test_weights_are_read_from_config_weight_or_a_given_key(tmp_path):
    path = write(tmp_path / "a.xyz", frames(1).replace("energy=", "config_weight=0.5 share=3.0 energy=") + frames(1))
    assert [s.weight for s in read_structures(path)] == [0.5, 1.0]
    assert [s.weight for s in read_structures(path, weight_key="share")] == [3.0, 1.0]


@pytest.mark.parametrize("name", ["a.xyz", "a.traj", "a.db"])
def test_forces_of_constrained_atoms_are_those_of_the_file(tmp_path, name):
    atoms = atoms_with_labels()
    forces = atoms.calc.results["forces"]
    atoms.set_constraint(FixAtoms(range(5)))
    ase.io.write(tmp_path / name, atoms)
    read = read_structures(tmp_path / name)[0]
    assert np.allclose(read.forces, forces, rtol=0, atol=1e-8)
    if name == "a.traj":
        assert np.all(ase.io.read(tmp_path / name).get_forces()[:5] == 0.0), "a test only where ASE sets them to zero"


def test_a_move_mask_of_extended_xyz_leaves_forces_alone(tmp_path):
    text = frames(1).replace(":forces:R:3", ":forces:R:3:move_mask:L:1")
    lines = text.splitlines()
    path = write(tmp_path / "a.xyz", "\n".join(lines[:2] + [line + " F" for line in lines[2:]]) + "\n")
    assert not ase.io.read(path).get_forces().any(), "the case is only a test where ASE sets them to zero"
    assert read_structures(path)[0].forces[1].tolist() == [0.4, 0.5, 0.6]


# ---- units ----------------------------------------------------------------------------------------------------------


def test_energies_lengths_forces_and_stress_are_turned_into_ev_and_angstrom(tmp_path):
    atoms = atoms_with_labels()
    ours = Structure.from_atoms(atoms)
    theirs = atoms.copy()
    theirs.set_cell(atoms.cell / BOHR, scale_atoms=True)
    stress = atoms.calc.results["stress"] * BOHR**3 / HARTREE
    theirs.calc = SinglePointCalculator(
        theirs, energy=ours.energy / HARTREE, forces=ours.forces * BOHR / HARTREE, stress=stress
    )
    ase.io.write(tmp_path / "a.traj", theirs)
    read = read_structures(tmp_path / "a.traj", energy_unit="Hartree", length_unit="bohr")[0]
    assert same(read, ours, digits=12)


@pytest.mark.parametrize("unit, value", [("Hartree", 27.211386245988), ("Ry", 13.605693122994),
                                         ("kcal/mol", 0.0433641042), ("kJ/mol", 0.01036426966)])  # fmt: skip
def test_units_have_their_codata_values(unit, value):
    from ase.units import create_units

    assert ENERGY_UNITS[unit] == pytest.approx(value, rel=1e-9)
    ase_units = create_units("2018")
    ours = {"Hartree": ase_units["Hartree"], "Ry": ase_units["Ry"], "kcal/mol": ase_units["kcal"] / ase_units["mol"],
            "kJ/mol": ase_units["kJ"] / ase_units["mol"]}  # fmt: skip
    assert ENERGY_UNITS[unit] == pytest.approx(ours[unit], rel=1e-10)


def test_forces_may_have_a_unit_of_their_own(tmp_path):
    path = write(tmp_path / "a.xyz", frames(1))
    read = read_structures(path, energy_unit="Hartree", forces_unit="Hartree/Bohr")[0]
    assert read.positions[1, 0] == 0.96 and read.energy == -10.0 * HARTREE
    assert read.forces[0, 0] == pytest.approx(0.1 * HARTREE / BOHR, rel=1e-15)
    assert force_in_ev_per_angstrom("kcal/mol/A") == ENERGY_UNITS["kcal/mol"]


@pytest.mark.parametrize(
    "unit", ["GPa", "kbar", "kB", "bar", "MPa", "Pa", "eV/Angstrom^3", "Hartree/Bohr^3", "Ry/Bohr**3"]
)
def test_stresses_may_have_a_unit_of_their_own(tmp_path, unit):
    from ase.units import create_units

    ase_units = create_units("2018")
    kbar = 0.1 * ase_units["GPa"]
    value = {
        "GPa": 10 * kbar, "kbar": kbar, "kB": kbar, "bar": kbar / 1e3, "MPa": kbar / 100, "Pa": kbar / 1e8,
        "eV/Angstrom^3": 1.0, "Hartree/Bohr^3": HARTREE / BOHR**3, "Ry/Bohr**3": HARTREE / 2 / BOHR**3,
    }[unit]  # fmt: skip
    assert stress_in_ev_per_cubic_angstrom(unit) == pytest.approx(value, rel=1e-9)
    text = '1\nLattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3 {} energy=1\nCu 0 0 0\n'
    path = write(tmp_path / "a.xyz", text.format('REF_stress="1 2 3 4 5 6"'))
    read = read_structures(path, stress_unit=unit, energy_unit="Hartree", length_unit="Bohr")[0]
    assert np.allclose(read.stress, value * np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]]), rtol=1e-9)
    assert read.energy == HARTREE and read.cell[0, 0] == 2.0 * BOHR


def test_a_virial_is_an_energy_whatever_the_unit_of_stresses(tmp_path):
    head = '1\nLattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3 virial="8 0 0 0 8 0 0 0 8"'
    path = write(tmp_path / "a.xyz", f"{head}\nCu 0 0 0\n")
    alone = read_structures(path, stress_unit="GPa", energy_unit="Hartree")[0].stress
    assert alone[0, 0] == pytest.approx(-HARTREE)
    gpa = f"{-HARTREE / stress_in_ev_per_cubic_angstrom('GPa'):.12f}"
    write(path, f'{head} stress="{gpa} 0 0 0 {gpa} 0 0 0 {gpa}"\nCu 0 0 0\n')
    assert np.allclose(read_structures(path, stress_unit="GPa", energy_unit="Hartree")[0].stress, alone, rtol=1e-9)
    with pytest.raises(InputError, match="a stress and a virial that do not belong together"):
        read_structures(path, energy_unit="Hartree")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"stress_unit": "GP"},
            r"stress_unit: unknown unit 'GP'; did you mean 'GPa'\? Known units are GPa, .* and energy",
        ),
        ({"stress_unit": "eV/Angstrom"}, r"stress_unit = 'eV/Angstrom': expected a pressure or energy/length\^3"),
        ({"stress_unit": "eV/Angstroem^3"}, r"stress_unit: unknown unit 'Angstroem'; did you mean 'Angstrom'"),
        ({"stress_unit": "eV"}, r"stress_unit: unknown unit 'eV'; Known units are GPa"),
        ({"energy_unit": "Hartrees"}, r"energy_unit: unknown unit 'Hartrees'; did you mean 'Hartree'\? Known units"),
        ({"energy_unit": "kcal/mole"}, r"did you mean 'kcal/mol'"),
        ({"length_unit": "Angstroem"}, r"length_unit: unknown unit 'Angstroem'; did you mean 'Angstrom'"),
        ({"length_unit": "furlong"}, r"unknown unit 'furlong'; Known units are Angstrom, Bohr, nm"),
        ({"forces_unit": "kcal/mol"}, r"forces_unit = 'kcal/mol': expected energy/length"),
        ({"forces_unit": "Hartree/Bor"}, r"forces_unit: unknown unit 'Bor'; did you mean 'Bohr'"),
    ],
)
def test_a_misspelt_unit_is_an_error_that_names_the_nearest(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        read_structures(write(tmp_path / "a.xyz", frames(1)), **arguments)


# ---- what is wrong with a file --------------------------------------------------------------------------------------


def test_a_missing_file_a_folder_and_no_file_at_all(tmp_path):
    with pytest.raises(InputError, match=r"nothing.xyz: no such file. Check the path"):
        read_structures(tmp_path / "nothing.xyz")
    with pytest.raises(InputError, match=r"the folder .*elsewhere does not exist"):
        read_structures(tmp_path / "elsewhere" / "a.xyz")
    with pytest.raises(InputError, match="is a folder without a file 'configuration'"):
        read_structures(tmp_path)
    with pytest.raises(InputError, match="no files to read"):
        read_structures([])
    with pytest.raises(InputError, match="is of type Atoms: expected the path of a file"):
        read_structures([Atoms("H")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = write(tmp_path / "a.xyz", frames(1))
    path.chmod(0)
    with pytest.raises(InputError, match="a.xyz: cannot be opened: Permission denied"):
        read_structures(path)


@pytest.mark.parametrize("name", ["a.xyz", "configuration", "a.traj"])
def test_an_empty_file(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}: empty file, expected at least one structure"):
        read_structures(write(tmp_path / name, ""))


def test_a_file_of_blank_lines_and_an_empty_compressed_one(tmp_path):
    with pytest.raises(InputError, match="a.xyz: empty file"):
        read_structures(write(tmp_path / "a.xyz", "\n\n"))
    (tmp_path / "b.xyz.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(InputError, match="b.xyz.gz: empty file"):
        read_structures(tmp_path / "b.xyz.gz")


def test_a_compressed_file_that_is_cut_off(tmp_path):
    whole = gzip.compress(frames(200).encode())
    for part in (whole[:-40], whole[:5], whole[:60] + b"damaged" + whole[67:]):
        (tmp_path / "a.xyz.gz").write_bytes(part)
        with pytest.raises(InputError, match="a.xyz.gz: cannot be read .*cut off or damaged"):
            read_structures(tmp_path / "a.xyz.gz")


def test_files_that_ase_does_not_know_or_cannot_read(tmp_path):
    with pytest.raises(InputError, match="ASE does not know this format. Name extended xyz files .xyz"):
        read_structures(write(tmp_path / "a.notes", "some words\n"))
    with pytest.raises(InputError, match="a.traj: ASE cannot read it as traj"):
        read_structures(write(tmp_path / "a.traj", "some words\n"))


BAD_FRAMES = {
    "no number of atoms": (frames(1) + "O 0 0 0\n", r"line 6, where structure 1 begins: 'O 0 0 0': expected the nu"),
    "number too small": (
        frames(2).replace("3\n", "2\n", 1),
        r"line 5, where structure 1 begins: 'H -0.24 .*number of atoms of the structure before is too small",
    ),
    "zero atoms": ("0\n\n", r"structure 0 begins: '0': expected the number of atoms, at least 1"),
    "cut off": (
        frames(2)[:-35],
        r"structure 1: 3 atoms announced in line 6, but the file ends after 2 of them. It is cut off",
    ),
    "blank line": (frames(1) + "\n" + frames(2), r"line 6, .*an empty line, but the file goes on in line 7"),
    "short row": (
        frames(2).replace("H 0.96 0.0 0.0 0.4", "H 0.96 0.0"),
        r"structure 0: atom 1 \(line 4\) has 5 columns, others have 7: 'H 0.96 0.0 0.5 0.6'",
    ),
    "stars": (frames(1).replace("0.96", "****"), r"structure 0: ASE cannot read lines 1 to 5 .*\*\*\*\*"),
    "unknown symbol": (frames(2).replace("O 0.0", "Oq 0.0"), r"structure 0: 'Oq' is not a chemical symbol for atom 0"),
    "bad lattice": (
        frames(1).replace("energy", 'Lattice="1 2 3" energy'),
        r"structure 0: ASE cannot read .*Lattice",
    ),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_a_damaged_extended_xyz_names_structure_and_line(tmp_path, case):
    text, message = BAD_FRAMES[case]
    with pytest.raises(InputError, match=message) as caught:
        read_structures(write(tmp_path / "a.xyz", text))
    assert str(tmp_path / "a.xyz") in str(caught.value)


BAD_VALUES = {
    "nan position": (frames(2).replace("H 0.96", "H nan"), r"positions of atom 1 \(H\), component x, is nan"),
    "infinite force": (
        frames(1) + frames(1).replace("-0.9", "inf"),
        r"structure 1: forces of atom 2 \(H\), component z, is inf: expected a finite number.*Remove the structure",
    ),
    "nan energy": (frames(1) + frames(1).replace("-10.0", "NaN"), r"structure 1: energy is nan"),
    "nan cell": (frames(1).replace("energy", 'Lattice="9 0 0 0 nan 0 0 0 9" energy'), r"cell of lattice vector 1, c"),
    "forces of two columns": (
        frames(1).replace("forces:R:3", "forces:R:2:spare:R:1"),
        r"structure 0: forces of shape \(3, 2\): expected \(3, 3\) for 3 atoms",
    ),
    "periodic without a cell": (frames(1).replace("energy", 'pbc="T T T" energy'), r"periodic along lattice vector 0"),
    "flat cell": (
        frames(1).replace("energy", 'Lattice="9 0 0 0 9 0 9 9 0" energy'),
        r"structure 0: the periodic lattice vectors are linearly dependent",
    ),
    "two atoms at one place": (
        frames(1) + frames(1).replace("H 0.96", "H 0.0005"),
        r"structure 1: atom 0 \(O\) and atom 1 \(H\) are at the same place, \(0.0000, 0.0000, 0.0000\) A: expected at",
    ),
    "an image of an atom": (
        frames(1).replace("energy", 'Lattice="0.96 0 0 0 9 0 0 0 9" energy'),
        r"structure 0: atom 0 \(O\) and atom 1 \(H\) are at the same place.*or an image of it",
    ),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_a_bad_value_names_file_structure_atom_and_component(tmp_path, case):
    text, message = BAD_VALUES[case]
    path = write(tmp_path / "a.xyz", text)
    with pytest.raises(InputError, match=message) as caught:
        read_structures(path)
    assert str(caught.value).startswith(f"{path}, structure ")


def test_atoms_at_the_same_place_are_found_in_slabs_and_skewed_cells(tmp_path):
    cell = np.array([[4.0, 0.0, 0.0], [7.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    shift = np.array([2, -3, 0]) @ cell
    for offset, refused in ((5e-4, True), (2e-3, False)):
        atoms = Atoms("H2", [[0.1, 0.2, 0.3], shift + [0.1, 0.2, 0.3 + offset]], cell=cell, pbc=[True, True, False])
        ase.io.write(tmp_path / "a.traj", atoms)
        if refused:
            with pytest.raises(InputError, match=r"atom 0 \(H\) and atom 1 \(H\) are at the same place"):
                read_structures(tmp_path / "a.traj")
        else:
            assert len(read_structures(tmp_path / "a.traj")) == 1


@pytest.mark.parametrize("index, message", [("7:", "index slice.*chooses none of its 2 structures"),
                                            (5, "index 5 chooses none of its 2 structures. Choose from 0 to 1"),
                                            ("first", "index = 'first': expected a number, a slice")])  # fmt: skip
def test_an_index_that_chooses_nothing(tmp_path, index, message):
    with pytest.raises(InputError, match=message):
        read_structures(write(tmp_path / "a.xyz", frames(2)), index=index)


# ---- the configuration text of the published packages ---------------------------------------------------------------

CONFIGURATION = """point=      1
10.0 0.0 0.0
1.0 9.0 0.0
0.0 0.0 8.0
pbc  1 1 0
O  15.999  0.0 0.0 0.0  0.1 0.2 0.3
H  1.008  0.1 0.0 0.0  0.4 0.5 0.6
H  1.008  0.0 0.1 0.1  -0.5 -0.7 -0.9
abprop:  -14.5
point=      2
10.0 0.0 0.0
0.0 10.0 0.0
0.0 0.0 10.0
pbc  0 0 0
H  1.008  0.0 0.0 0.7
H  1.008  0.0 0.0 0.0
abprop:
"""


def test_a_configuration_is_read_from_its_folder_its_name_or_its_look(tmp_path):
    path = write(tmp_path / "configuration", CONFIGURATION)
    first, second = read_structures(tmp_path)
    assert first.source == f"{path}, structure 0" and second.source == f"{path}, structure 1"
    assert first.symbols == ("O", "H", "H") and first.energy == -14.5 and first.forces[2].tolist() == [-0.5, -0.7, -0.9]
    assert first.pbc.tolist() == [True, True, False] and first.cell[1].tolist() == [1.0, 9.0, 0.0]
    assert first.positions[1].tolist() == [0.1, 0.0, 0.0]
    assert second.energy is None and second.forces is None and not second.pbc.any()
    assert fingerprint(read_structures(path)) == fingerprint([first, second])
    other = tmp_path / "water.txt.gz"
    other.write_bytes(gzip.compress(CONFIGURATION.encode()))
    assert fingerprint(read_structures(other)) == fingerprint([first, second])
    assert [s.n_atoms for s in read_structures(path, index="-1")] == [2]


def test_fractional_positions_of_a_configuration_are_multiples_of_the_lattice_vectors(tmp_path):
    path = write(tmp_path / "configuration", CONFIGURATION)
    first = read_structures(path, fractional=True)[0]
    assert np.allclose(first.positions[2], 0.1 * np.array([1.0, 9.0, 0.0]) + 0.1 * np.array([0.0, 0.0, 8.0]))
    assert first.forces[0].tolist() == [0.1, 0.2, 0.3], "forces are Cartesian all the same"
    with pytest.raises(InputError, match="fractional = True is for 'configuration' texts"):
        read_structures(write(tmp_path / "a.xyz", frames(1)), fractional=True)


def test_a_key_is_refused_where_there_are_only_configurations(tmp_path):
    write(tmp_path / "configuration", CONFIGURATION)
    with pytest.raises(InputError, match="energy_key = 'energy', but no structure has it. Keys that exist: none"):
        read_structures(tmp_path, energy_key="energy")


def test_units_count_for_configurations_too(tmp_path):
    path = write(tmp_path / "configuration", CONFIGURATION)
    read = read_structures(path, energy_unit="Hartree", length_unit="Bohr")[0]
    assert read.energy == -14.5 * HARTREE and read.cell[0, 0] == 10.0 * BOHR
    assert read.forces[0, 0] == pytest.approx(0.1 * HARTREE / BOHR, rel=1e-15)


def test_what_is_written_as_configuration_is_read_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(5)
    written = [
        Structure([6, 1, 28], rng.normal(size=(3, 3)), rng.normal(size=(3, 3)) + 9 * np.eye(3), [1, 0, 1], rng.normal(),
                  rng.normal(size=(3, 3))),
        Structure([1, 8], rng.normal(size=(2, 3))),
    ]  # fmt: skip
    write_configuration(tmp_path / "configuration", written)
    read = read_structures(tmp_path)
    assert same(read[0], written[0])
    assert np.array_equal(read[1].positions, written[1].positions) and np.array_equal(read[1].cell, 100.0 * np.eye(3))
    assert read[1].energy is None and read[1].forces is None and not read[1].pbc.any()


def test_a_configuration_needs_a_cell_where_it_is_periodic(tmp_path):
    wire = Structure([1], [[0, 0, 0]], np.diag([3.0, 0.0, 0.0]), [True, False, False])
    with pytest.raises(InputError, match="structure 0: periodic in a cell without volume"):
        write_configuration(tmp_path / "configuration", [wire])


BAD_CONFIGURATIONS = {
    "cut off": (CONFIGURATION[:300], r"structure 1: its lines, from line 10 on, have no line 'abprop:'"),
    "no pbc": (CONFIGURATION.replace("pbc  0 0 0\n", ""), r"structure 1, lines 10 to 16: expected a line 'point='"),
    "pbc of two": (CONFIGURATION.replace("pbc  0 0 0", "pbc 0 0"), r"structure 1, line 14: 'pbc 0 0': expected 'pbc'"),
    "lattice": (CONFIGURATION.replace("1.0 9.0 0.0", "1.0 9.0"), r"line 3: '1.0 9.0': expected a lattice vector"),
    "some forces": (
        CONFIGURATION.replace("  0.4 0.5 0.6", ""),
        r"structure 0, line 7: 'H 1.008 0.1 0.0 0.0': expected 8 columns, 'symbol mass x y z fx fy fz'",
    ),
    "no mass": (CONFIGURATION.replace("H  1.008  0.0 0.1 0.1", "H  0.0 0.1 0.1"), r"line 8: .*expected 8 columns"),
    "symbol": (CONFIGURATION.replace("O  15", "Ox 15"), r"line 6: .*expected a chemical symbol .*not 'Ox'"),
    "number": (CONFIGURATION.replace("0.1 0.2 0.3", "0.1 0.2 x"), r"line 6: .*expected a force \(numbers in columns 6"),
    "dipole": (CONFIGURATION.replace("-14.5", "1 2 3"), r"line 9: 'abprop: 1 2 3': expected one number, the energy"),
    "nan": (CONFIGURATION.replace("-14.5", "nan"), r"structure 0: energy is nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CONFIGURATIONS)
def test_a_damaged_configuration_names_structure_and_line(tmp_path, case):
    text, message = BAD_CONFIGURATIONS[case]
    with pytest.raises(InputError, match=message):
        read_structures(write(tmp_path / "configuration", text))


# ---- real files -----------------------------------------------------------------------------------------------------


def test_a_real_file_gives_the_numbers_that_ase_gives(shared):
    path = shared / "data" / "mlearn_Ge_test.extxyz.gz"
    with gzip.open(path, "rt") as file:
        every = ase.io.read(io.StringIO(file.read()), ":", format="extxyz")
    read = read_structures(path)
    assert len(read) == len(every) == 25
    assert all(same(one, Structure.from_atoms(other)) for one, other in zip(read, every))
