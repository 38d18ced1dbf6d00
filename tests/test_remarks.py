"""Remarks on a fit whose errors are larger than the spread of the labels, which then may not belong together."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

import eann_lite
from eann_lite import Specification
from eann_lite.cli import main
from eann_lite.report import remark_texts, write_report
from eann_lite.structures import as_structures
from eann_lite.training.objective import Predictions, labelled_set
from eann_lite.training.remarks import remarks_on
from eann_lite.training.settings import FitSettings

SMALL = {"radial": 4, "densities": 8, "widths": [8, 8], "recursions": 0, "cutoff": 4.0, "batch": 6}


def crystals(count, seed=0):
    """Strained and rattled cells of four Cu atoms with energies, forces and stresses of ASE's EMT."""
    rng, result = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True)
        strain = rng.normal(scale=0.02, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=(4, 3))
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        result.append(atoms)
    return as_structures(result)


def remarks(structures, valid=None, settings=None, **predicted):
    """What is remarked where predictions are the labels but for those that are given."""
    specification = Specification(elements=("Cu",), cutoff=4.0)
    sets = {"train": labelled_set(structures, specification), "valid": labelled_set(valid or structures, specification)}
    names = Predictions._fields
    predictions = {
        part: Predictions(*(predicted.get(name, getattr(labelled, name)) for name in names))
        for part, labelled in sets.items()
    }
    return remarks_on(sets, predictions, settings or FitSettings())


def test_what_a_constant_says_is_not_remarked_upon_and_more_than_that_is():
    structures = crystals(12)
    energies = np.array([s.energy for s in structures])
    off = energies - energies.mean()
    assert remarks(structures) == [] and remarks(structures, energies=energies + 1.02 * off) == []
    found = remarks(structures, energies=energies - 2.0 * off)
    spread = 1e3 * np.std(energies)
    assert [row["part"] for row in found[0]["above_spread"]] == ["train", "valid"]
    for row in found[0]["above_spread"]:
        assert row["rmse"] == pytest.approx(2 * spread) and row["spread"] == pytest.approx(spread)
        assert (row["label"], row["unit"]) == ("energy", "meV")
    for part in ("a constant would do better", "energies have errors (RMSE) of", "on training data", "and",
                 "on validation data", "energies per atom", "wrong sign (gradients)", "GPa",
                 "forces_weight=0 or stress_weight=0"):  # fmt: skip
        assert part in found[0]["text"], part


def test_forces_and_stresses_are_judged_by_their_deviation_from_their_means():
    structures = crystals(12)
    forces = np.concatenate([s.forces for s in structures])
    found = remarks(structures, forces=-forces)[0]["above_spread"]
    assert {row["label"] for row in found} == {"forces"}
    assert found[0]["spread"] == pytest.approx(1e3 * np.std(forces, axis=0).mean(), rel=0.1)
    stresses = np.array([s.stress for s in structures])
    volumes = np.array([s.volume for s in structures])[:, None, None]
    found = remarks(structures, strains=-volumes * stresses)[0]["above_spread"]
    assert {row["label"] for row in found} == {"stress"}
    deviations = stresses - stresses.mean(axis=0)
    assert found[0]["spread"] == pytest.approx(1e3 * np.sqrt(np.mean(deviations**2)))
    assert found[0]["rmse"] == pytest.approx(2e3 * np.sqrt(np.mean(stresses**2)))


def test_labels_without_weight_few_structures_and_tiny_errors_are_not_judged():
    structures = crystals(12)
    energies = np.array([s.energy for s in structures])
    wrong = 2.0 * energies.mean() - energies
    assert remarks(structures, energies=wrong)
    assert remarks(structures, settings=FitSettings(energy_weight=0.0), energies=wrong) == []
    assert remarks(structures[:9], energies=wrong[:9]) == []
    alike = [replace(s, energy=-1.0 + 1e-5 * n) for n, s in enumerate(structures)]
    assert remarks(alike, energies=np.full(12, -1.0 + 3e-4)) == []
    bare = [replace(s, forces=None, stress=None) for s in structures]
    text = remarks(bare, energies=wrong)[0]["text"]
    assert "gradients" not in text and "GPa" not in text and "_weight" not in text


def test_structures_without_weight_are_not_judged():
    structures = crystals(16)
    energies = np.array([s.energy for s in structures])
    wrong = np.where(np.arange(16) % 4 == 0, energies + 8.0, energies)
    forces = np.concatenate([(-3.0 if n % 4 == 0 else 1.0) * s.forces for n, s in enumerate(structures)])
    unweighted = [replace(s, weight=0.0 if n % 4 == 0 else 1.0) for n, s in enumerate(structures)]
    assert remarks(structures, energies=wrong, forces=forces)
    assert remarks(unweighted, energies=wrong, forces=forces) == []
    assert remarks(structures, valid=[replace(s, weight=0.0) for s in structures]) == []
    spread = 1e3 * np.std(energies[np.arange(16) % 4 != 0])
    found = remarks(unweighted, energies=2.0 * energies.mean() - energies)[0]["above_spread"]
    assert found[0]["label"] == "energy" and found[0]["spread"] == pytest.approx(spread)


FAULTS = {
    "none": lambda s: s,
    "gradients": lambda s: replace(s, forces=-s.forces, stress=None),
    "GPa": lambda s: replace(s, stress=160.2 * s.stress),
    "energies per atom": lambda s: replace(s, energy=0.25 * s.energy),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fit_to_labels_that_do_not_belong_together_says_so(fault):
    structures = [FAULTS[fault](s) for s in crystals(24)]
    result = eann_lite.fit(structures, epochs=400, out=None, step_size=0.01, **SMALL)
    assert ("remarks" in result.metrics) == (fault != "none")
    if fault != "none":
        assert any(row["part"] == "train" for row in result.metrics["remarks"][0]["above_spread"])


def test_the_remark_is_told_on_the_command_line_in_the_report_and_in_the_json(tmp_path, capsys):
    atoms = [replace(s, energy=0.25 * s.energy).to_atoms() for s in crystals(16)]
    write(tmp_path / "cu.xyz", atoms)
    flags = ["--train", str(tmp_path / "cu.xyz"), "--out", str(tmp_path / "fit"), "--epochs", "400", "--batch", "6"]
    flags += ["--step-size", "0.01"]
    flags += ["--radial", "4", "--densities", "8", "--widths", "8", "8", "--recursions", "0", "--cutoff", "4"]
    assert main(["fit", *flags, "--quiet", "--json"]) == 0
    shown = capsys.readouterr()
    told = [
        line for line in shown.err.splitlines() if "a constant would do better than this model: its energies" in line
    ]
    assert len(told) == 1 and told[0].startswith("warning: ")
    metrics = json.loads(shown.out)
    assert metrics == json.loads((tmp_path / "fit" / "metrics.json").read_text())
    assert metrics["remarks"][0]["above_spread"][0]["label"] == "energy"
    assert "Warning: a constant would do better" in (tmp_path / "fit" / "report.html").read_text()
    assert "Warning: a constant" in write_report(tmp_path / "fit").read_text()
    assert main(["info", str(tmp_path / "fit" / "model.npz")]) == 0
    assert "a constant would do better" in capsys.readouterr().err
    assert remark_texts(eann_lite.load(tmp_path / "fit" / "model.npz").provenance["metrics"])
