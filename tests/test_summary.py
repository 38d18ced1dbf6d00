"""Summaries, fingerprints, duplicates and warnings, on small made-up sets and on the real ones beside the project."""

import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS

from eann_lite.errors import InputError
from eann_lite.structures import (
    Structure,
    as_structures,
    find_duplicates,
    fingerprint,
    read_structures,
    summarise,
    warnings_for,
)
from eann_lite.structures.agreement import bulk_modulus, energies_against_derivatives
from eann_lite.structures.distances import shortest_distances
from eann_lite.structures.units import BOHR, ENERGY_UNITS, HARTREE


def vibrating(name="CH4", count=30, seed=0, stiffness=20.0, energy=-1099.0):
    """Molecules displaced on springs, with the energies (eV) and forces (eV/Angstrom) of these springs."""
    rng = np.random.default_rng(seed)
    atoms = molecule(name)
    structures = []
    for _ in range(count):
        step = rng.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(
            Structure(atoms.numbers, atoms.positions + step, energy=energy + 0.5 * stiffness * np.sum(step**2),
                      forces=-stiffness * step)
        )  # fmt: skip
    return structures


def in_units(structures, energy, length, force=None):
    """Copies with their numbers in other units, as a file in these units would be read without naming them."""
    force = energy / length if force is None else force
    return [
        replace(
            s, positions=s.positions / length, cell=s.cell / length, energy=s.energy / energy, forces=s.forces / force
        )
        for s in structures
    ]


# ---- summary --------------------------------------------------------------------------------------------------------


def test_a_summary_counts_and_measures_what_is_there():
    water, copper = molecule("H2O"), bulk("Cu", a=3.6, cubic=True)
    slab = fcc111("Cu", (1, 1, 3), a=3.6, vacuum=5.0)
    structures = as_structures([water, copper, slab])
    forces = np.zeros((3, 3))
    forces[1, 2] = -4.0
    structures[0] = replace(structures[0], energy=-30.0, forces=forces)
    structures[1] = replace(structures[1], energy=-16.0, stress=np.eye(3))
    summary = summarise(structures)
    assert (summary.n_structures, summary.n_atoms, summary.compositions) == (3, 10, 3)
    assert summary.atoms_per_structure == {"min": 3, "mean": 10 / 3, "max": 4}
    assert summary.elements == {"H": 2, "O": 1, "Cu": 7}
    assert summary.periodicity == {"ab": 1, "abc": 1, "none": 1}
    assert summary.labels == {"energies": 2, "forces": 1, "stresses": 1, "none": 1}
    assert summary.energy_per_atom == {"min": -10.0, "mean": -7.0, "max": -4.0, "std": 3.0}
    assert summary.energy_spread == pytest.approx(0.0, abs=1e-12)
    assert summary.forces == {"rms": pytest.approx(4.0 / 3.0), "max": 4.0, "structure": 0, "atom": 1}
    assert summary.shortest_distance["structure"] == 0 and summary.shortest_distance["elements"] == "H-O"
    assert summary.shortest_distance["distance"] == pytest.approx(water.get_distance(0, 1), rel=1e-12)
    assert summary.shortest_by_elements["Cu-Cu"] == pytest.approx(3.6 / np.sqrt(2), rel=1e-12)
    assert summary.volume_per_atom["mean"] == pytest.approx(3.6**3 / 4)
    assert summary.density["max"] == pytest.approx(4 * 63.546 / 6.02214076e23 / 3.6e-8**3, rel=1e-6)
    assert summary.duplicates == [] and summary.fingerprint == fingerprint(structures)


def test_a_summary_prints_and_turns_into_json():
    summary = summarise(vibrating(count=3) + [Structure([1], [[0, 0, 0]])])
    text = str(summary)
    for part in ("4 with 16 atoms, 1 to 5 atoms each", "H 13, C 3", "not at all 4", "energies in 3 (missing in 1)",
                 "no label at all in 1", "C-H", "no exact duplicates", summary.fingerprint[:16]):  # fmt: skip
        assert part in text, part
    assert json.loads(json.dumps(summary.to_dict(), allow_nan=False))["elements"] == {"H": 13, "C": 3}


def test_a_lone_atom_has_no_shortest_distance_but_a_lattice_of_them_has():
    assert summarise(Atoms("Ar")).shortest_distance is None
    lattice = summarise(Atoms("Ar", cell=[4.0, 5.0, 6.0], pbc=True)).shortest_distance
    assert lattice == {"distance": 4.0, "structure": 0, "atoms": [0, 0], "elements": "Ar-Ar"}
    far = summarise([molecule("H2"), Atoms("Ar2", [[0, 0, 0], [0, 0, 7.0]])])
    assert far.shortest_distance["elements"] == "H-H"
    assert shortest_distances(as_structures([Atoms("Ar2", [[0, 0, 0], [0, 0, 7.0]])])).per_structure[0] == 7.0


def test_shortest_distances_are_those_of_ase_whatever_the_cell():
    rng = np.random.default_rng(3)
    structures = []
    for k in range(12):
        cell = np.diag(rng.uniform(3, 6, 3)) + rng.uniform(-3, 3, (3, 3))
        n = int(rng.integers(2, 7))
        pbc = np.array([k & 1, k & 2, k & 4]) > 0
        structures.append(Structure(rng.integers(1, 9, n), rng.random((n, 3)) @ cell, cell, pbc))
    found = shortest_distances(structures)
    for i, structure in enumerate(structures):
        distance = neighbor_list("d", structure.to_atoms(), 8.0).min()
        assert found.per_structure[i] == pytest.approx(distance, rel=1e-12), i


def test_two_atoms_at_one_place_are_an_error_that_names_the_structure():
    with pytest.raises(InputError, match=r"structure 1: atom 0 \(H\) and atom 1 \(H\) are at the same place"):
        summarise([molecule("H2"), Atoms("H2", np.zeros((2, 3)))])


# ---- fingerprints and duplicates ------------------------------------------------------------------------------------


def test_a_fingerprint_depends_on_every_number_and_on_the_order_but_not_on_the_source():
    first = vibrating(count=2)
    base = fingerprint(first)
    assert base == fingerprint([replace(s, source="elsewhere") for s in first])
    one = first[0]
    forces, positions = one.forces.copy(), one.positions.copy()
    forces[0, 0] = np.nextafter(forces[0, 0], 9.0)
    positions[0, 0] = np.nextafter(positions[0, 0], 9.0)
    others = [
        first[::-1], first[:1], [replace(one, energy=None), first[1]], [replace(one, forces=forces), first[1]],
        [replace(one, positions=positions), first[1]], [replace(one, forces=None), first[1]],
        [replace(one, weight=2.0), first[1]], [replace(one, cell=np.eye(3)), first[1]],
        [replace(one, cell=9 * np.eye(3), pbc=True), first[1]], [replace(one, numbers=[14, 1, 1, 1, 1]), first[1]],
    ]  # fmt: skip
    prints = [fingerprint(other) for other in others]
    assert base not in prints and len(set(prints)) == len(prints)


def test_a_fingerprint_does_not_depend_on_the_file_format_nor_on_the_sign_of_zero(tmp_path):
    atoms = [s.to_atoms() for s in vibrating(count=3)]
    for name in ("a.traj", "a.db"):
        ase.io.write(tmp_path / name, atoms)
    assert fingerprint(read_structures(tmp_path / "a.traj")) == fingerprint(read_structures(tmp_path / "a.db"))
    assert fingerprint(Structure([1], [[0.0, 0.0, 0.0]])) == fingerprint(Structure([1], [[-0.0, 0.0, 0.0]]))


def test_a_fingerprint_is_the_same_in_every_version():
    structure = Structure([1, 8], [[0, 0, 0], [0, 0, 1]], np.eye(3) * 4, True, -1.5, np.ones((2, 3)), np.eye(3))
    assert fingerprint(structure) == "fc595c0318e41356fec7ab40033031764d5e30410464260f1db896f9b769af86"


def test_exact_duplicates_are_found_and_near_ones_are_not():
    structures = vibrating(count=4)
    nearly = structures[0].positions.copy()
    nearly[0, 0] = np.nextafter(nearly[0, 0], 9.0)
    more = [replace(structures[2], energy=0.0), replace(structures[0], positions=nearly), structures[1], structures[2]]
    assert find_duplicates(structures + more) == [[1, 6], [2, 4, 7]]
    assert summarise(structures + more).duplicates == [[1, 6], [2, 4, 7]]


# ---- warnings -------------------------------------------------------------------------------------------------------


def one_warning(structures, *parts):
    """The only warning about these structures; it must have all the parts."""
    warnings = warnings_for(structures)
    assert len(warnings) == 1, warnings
    for part in parts:
        assert part in warnings[0], (part, warnings[0])
    return True


def test_sound_structures_get_no_warning():
    assert warnings_for(vibrating()) == []
    assert warnings_for([replace(s, energy=s.energy + 1099.0) for s in vibrating()]) == []


def test_a_huge_force_is_warned_about_by_structure_and_atom():
    structures = vibrating()
    forces = structures[17].forces.copy()
    forces[3, 1] = -2e4
    structures[17] = replace(structures[17], forces=forces, source="b.xyz, structure 4")
    warnings = warnings_for(structures)
    assert "structure 17 (b.xyz, structure 4, -2e+04 eV/A, atom 3 H)" in warnings[0] and "1 structure:" in warnings[0]


def test_atoms_too_close_are_warned_about_closest_first():
    structures = [Structure([1, 1], [[0, 0, 0], [0, 0, r]], energy=-30.0) for r in (0.74, 0.3, 0.76, 0.1, 0.8)]
    warning = warnings_for(structures)[0]
    assert warning.startswith("atoms closer than 0.35 A in 2 structures: structure 3 (0.100 A, H-H, atoms 0 and 1), st")
    assert "structure 1 (0.300 A" in warning


def test_an_energy_far_from_the_others_is_warned_about_by_index():
    structures = vibrating(count=40)
    structures[8] = replace(structures[8], energy=structures[8].energy + 30.0)
    assert one_warning(
        structures, "energies far from those of like structures", "1 structure: structure 8 (", "+5.98 eV/atom"
    )


def test_the_beginning_of_a_relaxation_is_sound_and_a_wrong_energy_on_its_way_is_not():
    """Most structures are next to its end, so the first ones are far from them; forces say how they get there."""
    atoms, structures = molecule("CH3OH"), []
    atoms.rattle(0.05, seed=0)
    atoms.calc = EMT()
    steps = BFGS(atoms, logfile=None)
    steps.attach(lambda: structures.append(as_structures(atoms)[0]))
    steps.run(fmax=0.005, steps=60)
    change = structures[0].energy - structures[-1].energy
    assert change > 1.0 and not any("far from" in text for text in warnings_for(structures))
    off = [replace(s, energy=s.energy + (change if n in (20, 21) else 0.0)) for n, s in enumerate(structures)]
    assert one_warning(off, "energies far from those of like", "2 structures: structure 20 (", "structure 21 (")


def test_an_energy_that_no_energies_of_elements_explain_is_warned_about_by_index():
    names = ["H2", "H2O", "CH4", "C2H6", "CO2", "CH3OH", "C2H4", "CO", "H2CO", "CH3CH2OH", "C2H2", "HCOOH"]
    per_element = {1: -13.6, 6: -1030.0, 8: -2043.0}
    structures = [Structure(m.numbers, m.positions, energy=sum(per_element[z] for z in m.numbers.tolist()))
                  for m in map(molecule, names)]  # fmt: skip
    assert warnings_for(structures) == []
    structures[3] = replace(structures[3], energy=structures[3].energy - 25.0)
    assert one_warning(structures, "1 structure: structure 3 (", "-3.1")


def test_copies_are_warned_about_and_different_energies_told():
    structures = vibrating(count=12)
    structures += [structures[4], replace(structures[7], energy=structures[7].energy + 0.25)]
    assert one_warning(
        structures, "2 more than different ones: structures 4, 12; 7, 13 with energies up to 0.25 eV apart"
    )


def test_missing_labels_are_warned_about_by_index():
    structures = vibrating(count=12)
    structures[2] = replace(structures[2], energy=None)
    assert one_warning(structures, "no energy, though other structures have one, in 1 structure: structure 2.")
    structures[5] = replace(structures[5], energy=None, forces=None)
    assert any("no energy, forces or stress in 1 structure: structure 5." in w for w in warnings_for(structures))
    assert one_warning([replace(s, energy=None, forces=None) for s in structures], "nothing to fit")
    assert warnings_for([replace(s, energy=None) for s in vibrating()]) == []


def test_long_lists_of_indices_are_cut():
    structures = vibrating(count=40)
    structures[20:] = [replace(s, energy=None) for s in structures[20:]]
    assert one_warning(structures, "in 20 structures: structure 20, structure 21,", "and 15 more.")


def test_forces_set_to_zero_by_constraints_are_warned_about():
    structures = []
    for s in vibrating(count=12):
        forces = s.forces - s.forces.mean(axis=0)
        structures.append(replace(s, forces=forces))
    assert warnings_for(structures) == []
    fixed = [replace(s, forces=s.forces * [[0], [1], [1], [1], [0]]) for s in structures]
    assert any("Constraints were probably applied" in w and "2 atoms" in w for w in warnings_for(fixed))
    symmetric = replace(structures[0], forces=[[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 2, 0], [0, -2, 0]])
    assert not any("Constraints" in w for w in warnings_for([symmetric]))


@pytest.mark.parametrize(
    "units, parts",
    [
        ((HARTREE, BOHR), ["lengths look like Bohr", "energies look like Hartree"]),
        ((HARTREE, 1.0), ["energies look like Hartree"]),
        ((HARTREE, 1.0, HARTREE / BOHR), ["energies look like Hartree"]),
        ((ENERGY_UNITS["Ry"], BOHR), ["lengths look like Bohr", "energies look like Ry"]),
        ((ENERGY_UNITS["kcal/mol"], 1.0), ["energies look like kcal/mol"]),
        ((ENERGY_UNITS["kJ/mol"], 1.0), ["energies look like kJ/mol"]),
        ((1.0, 10.0), ["atoms closer", "lengths look like nm", "energies and forces do not look like eV and eV/A"]),
    ],
)
def test_units_other_than_ours_are_smelt(units, parts):
    warnings = warnings_for(in_units(vibrating(), *units))
    assert len(warnings) == len(parts), warnings
    assert all(part in warning for part, warning in zip(parts, warnings)), warnings


def test_units_of_pseudopotential_energies_are_smelt_with_the_forces():
    water = vibrating("H2O", energy=-17.2 * HARTREE, stiffness=30.0)
    assert warnings_for(water) == []
    assert one_warning(in_units(water, HARTREE, 1.0), "energies look like Hartree", "valence electrons")
    assert one_warning(in_units(water, ENERGY_UNITS["kcal/mol"], 1.0), "energies look like kcal/mol")


def test_energies_that_hardly_vary_while_forces_are_strong_are_warned_about():
    structures = [replace(s, energy=(s.energy + 1099.0) / HARTREE - 24.0) for s in vibrating(stiffness=40.0)]
    assert one_warning(
        structures, "energies and forces do not look like eV and eV/A", "Check energy_unit and forces_unit"
    )


def crystals(strain=0.02, step=0.04, count=30, seed=0):
    """Strained and rattled Cu with energies, forces and stresses of ASE's EMT."""
    rng, structures = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True)
        deformation = rng.normal(scale=strain, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + deformation + deformation.T), scale_atoms=True)
        atoms.positions += rng.normal(scale=step, size=(4, 3))
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        structures.append(Structure.from_atoms(atoms))
    return structures


def test_gradients_instead_of_forces_are_warned_about_where_energies_tell_and_where_they_do_not():
    structures = vibrating("H2O", energy=-17.2 * HARTREE, stiffness=30.0)
    wrong = [replace(s, forces=-s.forces) for s in structures]
    assert one_warning(
        wrong, "forces look like gradients, of the wrong sign", "-1 times what the forces say", "29 pairs"
    )
    # Lengths that do not change, but for noise, tell nothing.
    noise = 1e-4 * np.random.default_rng(1).normal(size=(30, 3, 3))
    rigid = [replace(s, positions=molecule("H2O").positions, forces=f, energy=None) for s, f in zip(structures, noise)]
    assert not any("gradients" in w for w in warnings_for(rigid))
    without = [replace(s, energy=None) for s in wrong]
    assert one_warning(without, "forces look like gradients", "the closest atoms of 30 structures", "change their sign")
    assert warnings_for([replace(s, energy=None) for s in structures]) == []


def test_displacements_to_both_sides_of_an_anharmonic_minimum_are_sound():
    """From one side to the other all but the cubic part cancels, of which forces say three times too much."""
    atoms = molecule("N2")
    structures = []
    for h in np.repeat(np.linspace(0.005, 0.08, 15), 2) * np.tile([1.0, -1.0], 15):
        moved = atoms.copy()
        moved.set_distance(0, 1, 1.1 + h, fix=0)
        decay = np.exp(-2.0 * h)
        force = 2.0 * 10.0 * 2.0 * (1.0 - decay) * decay  # of a Morse bond, 10 eV deep
        along = (moved.positions[1] - moved.positions[0]) / (1.1 + h)
        forces = np.array([along, -along]) * force
        energy = -30.0 + 10.0 * (1.0 - decay) ** 2
        structures.append(Structure(moved.numbers, moved.positions, energy=energy, forces=forces))
    assert warnings_for(structures) == []


@pytest.mark.parametrize("reach", [0.05, 0.01])
def test_forces_that_are_next_to_nothing_beside_stresses_are_not_judged(reach):
    """Volumes at each of which the atoms are relaxed: forces would take up what the trapezoids of stresses leave."""
    crystal = bulk("Cu", cubic=True) * (2, 1, 1)
    crystal.symbols[[0, 3]], crystal.symbols[5] = "Au", "Ag"
    crystal.rattle(0.05, seed=1)
    structures = []
    for strain in np.linspace(-reach, reach, 11):
        atoms = crystal.copy()
        atoms.set_cell(crystal.cell.array * (1.0 + strain), scale_atoms=True)
        atoms.calc = EMT()
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
        atoms.get_stress()
        structures += as_structures([atoms])
    found = energies_against_derivatives(structures)
    assert found.forces is None and found.stress == pytest.approx(1.0, abs=0.1) and warnings_for(structures) == []


def test_energies_that_no_number_is_large_enough_for_are_no_error():
    structures = vibrating(energy=-20.0)
    for n, energy in enumerate((1.7e308, -1.7e308, 1e308)):
        structures[5 + n] = replace(structures[5 + n], energy=energy)
    assert energies_against_derivatives(structures).forces is None
    warnings_for(structures)


def test_molecules_that_are_turned_at_random_are_sound():
    """Forces along the step from one to another say nothing of how the energy changes."""
    for seed in range(6):
        rng, structures = np.random.default_rng(seed), []
        for length in rng.normal(1.08, 0.005, 60):
            along = rng.normal(size=3)
            along /= np.linalg.norm(along)
            decay = np.exp(-2.0 * (length - 1.1))
            force = 40.0 * (1.0 - decay) * decay
            energy = -30.0 + 10.0 * (1.0 - decay) ** 2
            structures.append(
                Structure([7, 7], [[0, 0, 0], length * along], energy=energy, forces=[force * along, -force * along])
            )
        assert warnings_for(structures) == []


def test_round_off_of_forces_that_symmetry_forbids_is_sound():
    structures = []
    for n, edge in enumerate(np.linspace(3.5, 3.75, 30)):
        cell = 0.5 * edge * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
        crystal = Atoms("Cu", cell=cell, pbc=True) * (2, 2, 1)
        forces = np.zeros((4, 3))
        forces[:2, 0] = 1e-8 * n, -1e-8 * n
        structures.append(Structure(crystal.numbers, crystal.positions, crystal.cell.array, True, -14.0, forces))
    assert not any("gradients" in text for text in warnings_for(structures))


def test_energies_per_atom_are_warned_about():
    structures = [replace(s, energy=s.energy / 5) for s in vibrating(energy=-20.0, stiffness=10.0)]
    assert one_warning(
        structures, "energies look like energies per atom", "0.2 times what the forces say", "the number of atoms."
    )


def test_a_unit_that_looks_like_energies_per_atom_is_told_as_well():
    crystal = bulk("Cu", a=3.6) * (3, 3, 3)
    rng, structures = np.random.default_rng(0), []
    for _ in range(20):
        step = rng.normal(scale=0.05, size=(27, 3))
        structures.append(
            Structure(crystal.numbers, crystal.positions + step, crystal.cell.array, True,
                      energy=-100.0 + 10.0 * np.sum(step**2), forces=-20.0 * step)
        )  # fmt: skip
    assert warnings_for(structures) == []
    in_hartree = [replace(s, energy=s.energy / HARTREE - 1e3) for s in structures]
    assert one_warning(in_hartree, "look like energies per atom", "unless they are in Hartree", "energy_unit='Hartree'")
    in_kcal = [replace(s, forces=s.forces / ENERGY_UNITS["kcal/mol"]) for s in structures]
    assert one_warning(
        in_kcal, "look like energies per atom", "unless forces are in kcal/mol/A", "forces_unit='kcal/mol/Angstrom'"
    )
    both = [replace(s, energy=s.energy / ENERGY_UNITS["Ry"], forces=-s.forces) for s in structures]
    assert one_warning(both, "energies and forces do not fit each other", "the sign of the forces")


@pytest.mark.parametrize(("strain", "step"), [(0.02, 0.0), (0.02, 0.02), (0.005, 0.04)])
def test_stresses_of_another_unit_or_sign_are_warned_about(strain, step):
    structures = crystals(strain=strain, step=step)
    assert warnings_for(structures) == []
    for factor, *parts in (
        (160.2176634, "stresses seem to be in another unit (GPa, if they", "such as stress_unit='GPa'"),
        (1602.176634, "stresses seem to be in another unit (kbar, if", "stress_unit='kbar'"),
        (-1.0, "stresses seem to be of the wrong sign: between", "If so, change their sign in the file"),
        (-1602.176634, "of the wrong sign and in another unit (kbar,", "change their sign in", "stress_unit='kbar'"),
    ):
        assert one_warning([replace(s, stress=factor * s.stress) for s in structures], *parts)
    assert one_warning([replace(s, energy=s.energy / 4) for s in structures], "energies look like energies per atom")


def test_stresses_of_cells_that_are_not_alike_are_judged_by_the_bulk_modulus_they_would_have():
    rng, structures = np.random.default_rng(0), []
    for n in range(60):
        atoms = bulk("Cu", a=3.7, cubic=True) * (1, 2, 1 + n % 3)
        atoms.symbols[rng.random(len(atoms)) < 0.4] = "Au"
        atoms.set_cell(atoms.cell.array * (1.0 + rng.uniform(-0.05, 0.08)), scale_atoms=True)
        atoms.rattle(0.05, seed=n)
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        structures += as_structures([atoms])
    assert energies_against_derivatives(structures).stress is None and warnings_for(structures) == []
    modulus, number = bulk_modulus(structures)
    assert 100.0 < modulus * 160.2 < 200.0 and number == 35
    for factor, *parts in (
        (-1.0, "stresses seem to be of the wrong sign: as 35 cells of several volumes", "the bulk modulus would be -1"),
        (160.2, "stresses seem to be in another unit: as 35 cells", "read with the right stress_unit"),
        (-1602.0, "of the wrong sign and in another unit: as 35", "change their sign in the file", "right stress_unit"),
    ):
        assert one_warning([replace(s, stress=factor * s.stress) for s in structures], *parts)
    assert bulk_modulus(structures[:25]) is None


def copper(size, rattle, rng, more_or_less=0.004):
    """Rattled copper, its lattice so many times as large, more or less, with all labels."""
    crystal = bulk("Cu", a=3.61 * size * (1.0 + more_or_less * rng.normal()), cubic=True) * (2, 2, 2)
    crystal.rattle(rattle, rng=rng)
    crystal.calc = EMT()
    crystal.get_forces(), crystal.get_stress()
    return Structure.from_atoms(crystal)


@pytest.mark.parametrize(("cold", "hot", "rattle"), [(30, 30, 0.3), (30, 30, 0.4), (40, 110, 0.4), (20, 25, 0.4)])
def test_a_crystal_beside_a_melt_has_sound_stresses(cold, hot, rattle):
    """The melt presses more at a larger volume, so that all together seem to press the more the larger they are."""
    rng = np.random.default_rng(2)
    crystal, melt = [copper(1.0, 0.07, rng) for _ in range(cold)], [copper(1.03, rattle, rng) for _ in range(hot)]
    # Where forces are missing they do not tell which is the melt.
    still, unknown = [copper(1.0, 0.0, rng) for _ in range(cold)], [replace(s, forces=None) for s in melt]
    for structures in (crystal + unknown, still + unknown):
        modulus, _ = bulk_modulus(structures) or (None, 0)
        assert modulus is None or 0.5 < modulus < 1.0


@pytest.mark.parametrize(("number", "more_or_less"), [(20, 0.0), (20, 0.0005), (60, 0.001)])
def test_crystals_at_two_temperatures_and_two_volumes_have_sound_stresses(number, more_or_less):
    rng = np.random.default_rng(3)
    groups = (1.002, 0.07), (1.005, 0.12)
    structures = [copper(size, rattle, rng, more_or_less) for size, rattle in groups for _ in range(number)]
    assert warnings_for(structures) == []


@pytest.mark.parametrize("still", [21, 24])
def test_stresses_are_judged_beside_cells_without_forces_or_with_none_by_symmetry(still):
    rng = np.random.default_rng(4)
    scan = [copper(size, 0.0, rng, 0.0) for size in np.linspace(0.97, 1.03, still)]
    rattled = [copper(1.0, 0.07, rng, 0.01) for _ in range(60)]
    some = [replace(s, forces=None) if n % 3 == 0 else s for n, s in enumerate(rattled)]
    for structures in ([*scan, *rattled], some):
        assert warnings_for(structures) == []
        wrong = [replace(s, stress=-s.stress) for s in structures]
        assert any("stresses seem to be of the wrong sign" in text for text in warnings_for(wrong))


def test_stresses_of_crystals_are_judged_where_forces_grow_with_the_pressure_and_in_the_order_of_volumes():
    rng = np.random.default_rng(2)
    rattled = [copper(1.0 + 0.01 * rng.normal(), 0.07, rng) for _ in range(60)]
    scan = [copper(size, 0.0, rng) for size in np.linspace(0.96, 1.03, 60)]
    for structures in (rattled, [replace(s, forces=None) for s in scan]):
        assert warnings_for(structures) == []
        wrong = [replace(s, stress=-s.stress) for s in structures]
        assert one_warning(wrong, "stresses seem to be of the wrong sign", "change their sign in the file")


def cells(stress_of, number=150, low=10.0, high=14.0):
    """Cells of one or two copper atoms, or of one gold atom too, and with the stress that is given for n_Cu, n_Au, V."""
    rng, structures = np.random.default_rng(0), []
    for n in range(number):
        symbols = ["Cu"] * (1 + n % 2) + ["Au"] * (n % 3 == 0)
        volume = len(symbols) * rng.uniform(low, high)
        stress = stress_of(symbols.count("Cu"), symbols.count("Au"), volume) * np.eye(3)
        numbers = [{"Cu": 29, "Au": 79}[symbol] for symbol in symbols]
        structures.append(
            Structure(numbers, rng.uniform(size=(len(symbols), 3)), volume ** (1 / 3) * np.eye(3), True, stress=stress)
        )
    return structures


def test_a_bulk_modulus_is_found_only_where_volumes_tell_it():
    noise = np.random.default_rng(1)
    assert bulk_modulus(cells(lambda cu, au, v: 1.0 - (12.0 * cu + 12.0 * au) / v))[0] == pytest.approx(1.0)
    # All stretched, beyond whose steepest point stresses fall; all pressed; half of the variance from elsewhere; a
    # volume below zero.
    assert bulk_modulus(cells(lambda cu, au, v: 1.0 - (9.0 * cu + 9.0 * au) / v)) is None
    assert bulk_modulus(cells(lambda cu, au, v: 1.0 - (15.0 * cu + 15.0 * au) / v)) is None
    assert bulk_modulus(cells(lambda cu, au, v: 1.0 - (12.0 * cu + 12.0 * au) / v + 0.12 * noise.normal())) is None
    assert bulk_modulus(cells(lambda cu, au, v: 1.0 - (18.0 * cu - 4.0 * au) / v)) is None
    one_volume = [replace(s, cell=s.cell * (10.0 / s.volume) ** (1 / 3)) for s in cells(lambda *_: noise.normal())]
    assert bulk_modulus(one_volume) is None


def test_energies_forces_and_stresses_are_compared_across_periodic_images_and_for_few_structures_not_at_all():
    structures = vibrating(energy=-20.0, stiffness=10.0)
    cell = np.diag([4.0, 5.0, 6.0])
    rng = np.random.default_rng(1)
    moved = [
        replace(s, positions=s.positions + rng.integers(-2, 3, (5, 3)) @ cell, cell=cell, pbc=True) for s in structures
    ]
    found = energies_against_derivatives(moved)
    assert found.forces == pytest.approx(1.0, rel=1e-6) and (found.stress, found.pairs) == (None, 29)
    assert energies_against_derivatives(moved[:10]).forces is None
    rattled = energies_against_derivatives(crystals(strain=0.01, step=0.02))
    assert 0.8 < rattled.stress < 1.1 and (rattled.forces is None or 0.5 < rattled.forces < 1.1)


def test_summaries_leave_their_input_alone():
    atoms = [s.to_atoms() for s in vibrating(count=5)]
    before = [(a.positions.copy(), dict(a.calc.results), dict(a.info)) for a in atoms]
    summarise(atoms)
    warnings_for(atoms)
    for one, (positions, results, info) in zip(atoms, before):
        assert np.array_equal(one.positions, positions) and one.info == info
        assert all(np.array_equal(one.calc.results[name], value) for name, value in results.items())


# ---- real sets ------------------------------------------------------------------------------------------------------

SOUND = ["ch4_random_forces", "md17_ethanol_n1000", "water_revpbe0d3", "mlearn_Ge_test", "co2_ni100_val",
         "ch4_manifold_minus", "tensoap_water_dimer"]  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_real_sets_get_no_warning(shared, name):
    assert warnings_for(read_structures(shared / "data" / f"{name}.extxyz.gz", index=":150")) == []


@pytest.mark.parametrize("name", [name for name in SOUND if not name.startswith("tensoap")])
def test_real_sets_with_gradients_instead_of_forces_are_warned_about(shared, name):
    structures = read_structures(shared / "data" / f"{name}.extxyz.gz", index=":300")
    wrong = [replace(s, forces=-s.forces) for s in structures]
    assert any("forces look like gradients" in w for w in warnings_for(wrong))


@pytest.mark.parametrize("name", ["ch4_random_forces", "md17_ethanol_n1000", "water_revpbe0d3"])
def test_real_sets_in_other_units_are_warned_about(shared, name):
    structures = read_structures(shared / "data" / f"{name}.extxyz.gz", index=":50")
    atomic = warnings_for(in_units(structures, HARTREE, BOHR))
    assert any("lengths look like Bohr" in w for w in atomic)
    assert any("energies look like Hartree" in w for w in atomic)
    kcal = warnings_for(in_units(structures, ENERGY_UNITS["kcal/mol"], 1.0))
    assert any("energies look like kcal/mol" in w for w in kcal)


def test_copies_in_a_real_set_are_found(shared):
    structures = read_structures(shared / "data" / "tensoap_water_monomer.extxyz.gz")
    assert find_duplicates(structures) == [[8, 11], [97, 98]]
