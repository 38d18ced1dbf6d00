"""The audit of a model: what it says of a sound one, and that it finds what was spoiled on purpose."""

import json
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from eann_lite import EANNCalculator, Model, NetworkSpecification, Specification, Structure
from eann_lite.audit import audit, audit_table, write_audit
from eann_lite.audit.approach import fall
from eann_lite.audit.case import Case, built
from eann_lite.audit.check import BROKEN, NOT_CHECKED, OK, WARNING
from eann_lite.audit.page import audit_json
from eann_lite.cli import main
from eann_lite.errors import InputError
from eann_lite.model.initial import initial_parameters

SECONDS = 3.0


def water_model(seed=2, **changes):
    """A small model of H and O with random parameters, held together and apart by nothing but chance and repulsion."""
    small = NetworkSpecification(widths=(6,))
    values = {
        "elements": ("H", "O"), "cutoff": 4.0, "radial": 3, "densities": 6, "recursions": 1, "network": small,
        "recursion_network": small, "repulsion": "zbl",
    }  # fmt: skip
    specification = Specification(**values | changes)
    return Model(specification, initial_parameters(specification, seed=seed))


def line(found, name):
    """The line of this name."""
    return next(check for check in found.checks if check.name == name)


def verdicts(found):
    return {check.name: check.verdict for check in found.checks}


class Spoiled(EANNCalculator):
    """A calculator with a fault: ``spoil(results, atoms)`` changes its results."""

    def __init__(self, model, spoil):
        super().__init__(model)
        self.spoil = spoil

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        super().calculate(atoms, ["energy", "forces"], system_changes)
        self.results = {name: np.copy(value) if np.ndim(value) else value for name, value in self.results.items()}
        self.spoil(self.results, self.atoms)
        self.results["free_energy"] = self.results["energy"]
        # The results are computed anew for every call, so that they are spoiled once.
        self.atoms = None


@pytest.fixture(scope="module")
def sound():
    return audit(water_model(), seconds=SECONDS)


# ---- a sound model --------------------------------------------------------------------------------------------------


def test_nothing_of_a_sound_model_is_broken_and_every_part_is_there(sound):
    assert [check for check in sound.checks if check.verdict == BROKEN] == []
    assert {check.part for check in sound.checks} == set(sound.seconds_by_part)
    for name in (
        "rotation", "supercell", "additivity", "forces against central differences", "forces against the complex step",
        "stress against central differences", "stress against the complex step",
        "jump of the second derivative at the cutoff", "Hessian is symmetric", "translation sum rule",
        "rotation sum rule",
    ):  # fmt: skip
        assert line(sound, name).verdict == OK, name
    assert line(sound, "energy error on DATA").verdict == NOT_CHECKED


def test_the_energy_of_a_sound_model_fluctuates_with_the_square_of_the_step():
    # On a busy machine the time of the other tests is too short for it; what it does not need it does not take.
    found = audit(water_model(), seconds=60.0, parts=["dynamics"])
    assert line(found, "slope of the energy fluctuation").verdict == OK


def test_every_line_has_a_number_within_its_limit_or_a_reason(sound):
    for check in sound.checks:
        if check.verdict == OK and not isinstance(check.limit, tuple):
            assert check.value <= check.limit and check.where
        if check.verdict == NOT_CHECKED:
            assert check.detail


def test_the_table_has_a_line_for_each_check(sound):
    table = audit_table(sound)
    for check in sound.checks:
        assert re.search(rf"^  {re.escape(check.name)} .*{check.verdict}$", table, re.MULTILINE), check.name
    assert "nothing BROKEN" in table.splitlines()[-1]


def test_the_page_needs_no_other_file_and_the_json_says_the_same(sound, tmp_path):
    page, data = write_audit(sound, tmp_path)
    text, told = page.read_text(encoding="utf-8"), json.loads(data.read_text())
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) >= 3 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in text and "<script" not in text
    assert [check["name"] for check in told["checks"]] == [check.name for check in sound.checks]
    for check in told["checks"]:
        assert f"<th>{check['name']}</th>" in text
    assert told["verdict"] == sound.verdict and told["format"] == "eann_lite audit"
    assert told == json.loads(json.dumps(audit_json(sound)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.html", "audit.json"]


def test_the_same_seed_audits_the_same_structures():
    first, again = (Case(water_model(), seed=4) for _ in range(2))
    by_name = {subject.name: subject for subject in first.subjects}
    assert len(by_name) == len(again.subjects) == 3
    for subject in again.subjects:
        assert np.array_equal(subject.atoms.positions, by_name[subject.name].atoms.positions)


# ---- spoiled on purpose ---------------------------------------------------------------------------------------------


def scaled_forces(results, atoms):
    results["forces"] = 1.01 * results["forces"]


def wrong_shear(results, atoms):
    if "stress" in results:
        results["stress"][3:] *= -1.0


def order_matters(results, atoms):
    results["energy"] += 1e-3 * atoms.positions[0] @ atoms.positions[-1]


def not_extensive(results, atoms):
    results["energy"] += 1e-4 * len(atoms) ** 2


@pytest.mark.parametrize(
    "spoil, parts, names",
    [
        (scaled_forces, ["derivatives", "dynamics"], ["forces against central differences",
                         "forces against the complex step", "slope of the energy fluctuation"]),
        (wrong_shear, ["derivatives"], ["stress against central differences",
                         "stress against the complex step"]),
        (order_matters, ["laws", "derivatives"], ["permutation", "translation", "energy against the reference"]),
        (not_extensive, ["laws", "derivatives"], ["additivity", "supercell", "energy against the reference"]),
    ],
)  # fmt: skip
def test_faults_of_a_calculator_are_found(spoil, parts, names):
    model = water_model()
    found = verdicts(audit(model, calculator=Spoiled(model, spoil), seconds=SECONDS, parts=parts))
    assert {name: found[name] for name in names} == dict.fromkeys(names, BROKEN)


def test_a_cutoff_with_a_kink_is_found():
    def kink(results, atoms):
        """The energy of a pair that ends at the cutoff with a slope, and its forces."""
        vectors = atoms.get_all_distances(vector=True)
        distances = np.linalg.norm(vectors, axis=-1) + 10.0 * np.eye(len(atoms))
        inside = distances < 4.0
        results["energy"] += 0.5 * np.sum(0.01 * (4.0 - distances) * inside)
        results["forces"] -= np.sum((0.01 * inside / distances)[..., None] * vectors, axis=1)

    model = water_model()
    found = audit(model, calculator=Spoiled(model, kink), seconds=SECONDS, parts=["smoothness"])
    assert line(found, "jump of the force at the cutoff").verdict == BROKEN
    # Both hydrogen atoms may pass the cutoff of the oxygen atom at once.
    assert 0.0099 < line(found, "jump of the force at the cutoff").value < 0.0201
    assert line(found, "jump of the energy at the cutoff").verdict == OK


def test_sweeps_that_forget_a_term_are_found(monkeypatch):
    """A fault of the code: a force that loses 0.1 % of what the reverse sweep gives."""
    from eann_lite.model.sweeps import Sweeps

    reverse = Sweeps.reverse
    monkeypatch.setattr(Sweeps, "reverse", lambda self: (0.999 * reverse(self)[0], reverse(self)[1]))
    found = verdicts(audit(water_model(), seconds=SECONDS, parts=["derivatives"]))
    assert found["forces against central differences"] == found["forces against the complex step"] == BROKEN


def holed_model():
    """A model file spoiled: without repulsion, and with an energy network whose output is scaled up and turned over, so
    that atoms gain energy as they are pushed together."""
    model = water_model(repulsion=None)
    parameters = {name: np.array(value) for name, value in model.parameters.items()}
    deep = [
        parameters | {name: sign * 40.0 * value for name, value in parameters.items() if ".output.weight" in name}
        for sign in (1.0, -1.0)
    ]

    def dimer(named):
        return [
            Model(model.specification, named).evaluate(Atoms("OH", [[0, 0, 0], [r, 0, 0]])).energy for r in (0.5, 0.35)
        ]

    return next(Model(model.specification, named) for named in deep if np.diff(dimer(named))[0] < 0.0)


def test_a_hole_is_a_warning_with_its_place_and_breaks_nothing():
    found = audit(holed_model(), seconds=SECONDS, parts=["approach", "outside"])
    check = line(found, "H-O approach alone")
    assert check.verdict == WARNING and check.value > 0.01 and "A hole: falls from" in check.detail
    assert found.verdict == WARNING and found.broken == []
    curves = found.records["approach"]["curves"]
    assert {curve["pair"] for curve in curves} == {"H-H", "H-O", "O-O"}


@pytest.mark.parametrize("stretch, verdict, part", [(0.0, OK, 0.0), (1e9, WARNING, 1.0)])
def test_atoms_outside_the_training_densities_are_counted_by_element(stretch, verdict, part):
    from eann_lite.extrapolation import DensityBounds

    model = water_model()
    bounds = DensityBounds(np.zeros((2, 6)), np.tile(stretch * np.eye(6), (2, 1, 1)), np.ones(2), np.zeros(2))
    model = Model(model.specification, model.parameters, model.constants, bounds=bounds)
    found = audit(model, [molecule("H2O"), molecule("OH")], seconds=SECONDS, parts=["outside"])
    for element in "HO":
        check = line(found, f"{element} outside the training densities")
        assert (check.verdict, check.value) == (verdict, part)
    assert found.records["outside"]["H"]["atoms"] > found.records["outside"]["O"]["atoms"] >= 5


def test_densities_that_do_not_see_a_movement_are_a_warning():
    model = water_model(recursions=0)
    sees = audit(model, seconds=SECONDS, parts=["sensitivity"])
    assert line(sees, "movements unseen around O").verdict == OK
    parameters = {name: np.array(value) for name, value in model.parameters.items()}
    parameters["contraction"][:, :, 1:] = 0.0
    found = audit(Model(model.specification, parameters), seconds=SECONDS, parts=["sensitivity"])
    blind = line(found, "movements unseen around O")
    assert blind.verdict == WARNING
    # One density is left, and so one movement is seen of all that there are.
    assert blind.value == int(blind.unit.removeprefix("of ")) - 1


def test_the_deepest_fall_is_found_behind_its_wall():
    distances = np.linspace(1.0, 0.3, 71)
    wall_and_hole = np.exp(-(((distances - 0.7) / 0.05) ** 2)) - 3.0 * np.exp(-(((distances - 0.45) / 0.05) ** 2))
    depth, top, bottom, height = fall(distances, wall_and_hole)
    assert depth == pytest.approx(4.0, abs=0.01) and top == pytest.approx(0.7) and bottom == pytest.approx(0.45)
    assert height == pytest.approx(1.0)
    assert fall(distances, 1.0 / distances)[0] == 0.0


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_structures_are_built_for_molecules_crystals_and_anything_else():
    assert built(("H", "C")).get_chemical_formula() == "CH4"
    assert built(("Ge",)).pbc.all() and len(built(("Ge",))) == 8
    odd = built(("Xe", "Na", "W"), seed=1)
    assert set(odd.get_chemical_symbols()) == {"Xe", "Na", "W"}
    assert odd.get_all_distances()[np.triu_indices(len(odd), 1)].min() > 2.0


def labelled(count):
    """Waters moved a little, with the model's own energies and forces, off by a known amount."""
    model, frames = water_model(), []
    for k in range(count):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=k)
        result = model.evaluate(atoms)
        forces = result.forces.copy()
        forces[0] += [0.003, 0.0, 0.0]  # the oxygen atom
        energy = result.energy + (0.3 if k == 3 else 0.003)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return model, frames


def test_errors_on_data_are_told_by_element_and_the_worst_structure_by_index():
    model, frames = labelled(6)
    found = audit(model, frames, seconds=SECONDS, parts=["data"])
    record = found.records["data"]
    by_element = {row["part"]: row for row in record["by_element"]}
    assert by_element["O"]["rmse"] == pytest.approx(3.0 / np.sqrt(3)) and by_element["O"]["count"] == 18
    assert by_element["H"]["rmse"] == pytest.approx(0.0, abs=1e-9)
    assert record["worst_energy"][0]["index"] == 3
    assert record["worst_energy"][0]["error"] == pytest.approx(100.0)
    assert sum(row["count"] for row in record["by_energy"]) == 6
    assert sum(row["count"] for row in record["by_force_size"]) == 3 * 18
    # Without errors in the model file there is nothing to compare with; with them, ten times as large is a warning.
    assert line(found, "force error on DATA").verdict == NOT_CHECKED
    model.provenance["metrics"] = {"test": {"forces_rmse_mev_per_ang": 0.1, "energy_rmse_mev_per_atom": 100.0}}
    again = audit(model, frames, seconds=SECONDS, parts=["data"])
    assert line(again, "force error on DATA").verdict == WARNING
    assert line(again, "energy error on DATA").verdict == OK


def test_an_unknown_part_is_named():
    with pytest.raises(InputError, match="no part 'lawz'.*expected some of laws"):
        audit(water_model(), parts=["lawz"])


def test_data_with_a_foreign_element_are_refused_by_name():
    with pytest.raises(InputError, match="structure 1: atom 0 is C"):
        audit(water_model(), [Structure.from_atoms(molecule("H2O")), Structure.from_atoms(molecule("CH4"))])


# ---- command line ---------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_and_ends_with_0_or_1(tmp_path, capsys, monkeypatch):
    path = tmp_path / "model.npz"
    water_model().save(path)
    arguments = ["audit", str(path), "--seconds", "2"]
    assert main([*arguments, "--out", str(tmp_path / "deep" / "out")]) == 0
    shown = capsys.readouterr()
    assert "nothing BROKEN" in shown.out and "written" in shown.out and shown.err == ""
    assert sorted(p.name for p in (tmp_path / "deep" / "out").iterdir()) == ["audit.html", "audit.json"]

    from eann_lite.model.sweeps import Sweeps

    reverse = Sweeps.reverse
    monkeypatch.setattr(Sweeps, "reverse", lambda self: (1.01 * reverse(self)[0], reverse(self)[1]))
    assert main([*arguments, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == BROKEN


@pytest.mark.parametrize(
    "words, part",
    [
        (["nowhere.npz"], "does not exist"),
        (["MODEL", "nowhere.xyz"], "no such file"),
        (["MODEL", "--seconds", "0"], "--seconds 0"),
        (["MODEL", "--sed", "1"], "Did you mean --seed?"),
    ],
)
def test_bad_input_ends_with_2(tmp_path, capsys, words, part):
    path = tmp_path / "model.npz"
    water_model().save(path)
    assert main(["audit", *(str(path) if word == "MODEL" else word for word in words)]) == 2
    assert part in capsys.readouterr().err
