"""The command line as a person meets it: real processes on a small data set."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.io import read, write
from ase.units import invcm

import eann_lite
from eann_lite.cli import build_parser, by_flags, main
from eann_lite.config import SETTINGS, kebab, settings_from
from eann_lite.training.settings import FitSettings

EVALUATE_KEYS = [
    "n_structures", "n_atoms", "energy_rmse_mev_per_atom", "energy_mae_mev_per_atom", "energy_rmse_mev",
    "energy_mae_mev", "forces_rmse_mev_per_ang", "forces_mae_mev_per_ang", "stress_rmse_mev_per_ang3",
    "stress_mae_mev_per_ang3",
]  # fmt: skip
#: A model of CH4 that has seen enough to relax a molecule.
FIRST_MODEL = Path(__file__).resolve().parents[1] / "validation" / "first_fit" / "model.npz"
TINY = ["--densities", "6", "--radial", "3", "--recursions", "1", "--widths", "6", "--recursion-widths", "6"]
NO_WEIGHTS = ["--energy-weight", "0", "--forces-weight", "0", "--stress-weight", "0"]


def run(*arguments, cwd):
    """A finished process of ``python -m eann_lite``."""
    return subprocess.run(
        [sys.executable, "-m", "eann_lite", *map(str, arguments)], cwd=cwd, env=environment(), capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


def environment():
    package = str(Path(eann_lite.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}


def labelled_methane(count, seed):
    """Methane molecules, each atom moved a little, with energies and forces of ASE's EMT."""
    frames = []
    for k in range(count):
        atoms = molecule("CH4")
        atoms.rattle(0.08, seed=seed + k)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """(folder with train.xyz, test.xyz and the fit in ``fit``, finished process of the fit)."""
    folder = tmp_path_factory.mktemp("cli")
    write(folder / "train.xyz", labelled_methane(14, 0))
    write(folder / "test.xyz", labelled_methane(3, 100))
    (folder / "config.toml").write_text('[data]\ntrain = "train.xyz"\n[training]\nepochs = 50\nbatch = 4\n')
    process = run("fit", "config.toml", "--test", "test.xyz", "--epochs", 2, *TINY, cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder, process


def errors_of(capsys, *arguments):
    """Standard error of a command that must end with status 2, as one message."""
    assert main([str(argument) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("eann-lite: ") == 1 and "Traceback" not in shown.err
    return shown.err


# ---- fit ------------------------------------------------------------------------------------------------------------


def test_a_fit_leaves_all_files(fitted):
    folder, _ = fitted
    names = {path.name for path in (folder / "fit").iterdir()}
    assert names >= {
        "model.npz", "metrics.json", "history.jsonl", "config.toml", "predictions.npz", "report.html",
        "parity_energy.png", "parity_forces.png", "learning_curve.png",
    }  # fmt: skip


def test_a_fit_tells_data_and_errors_on_standard_output_and_progress_as_lines(fitted):
    _, process = fitted
    assert "14 with 70 atoms" in process.stdout and "3 with 15 atoms" in process.stdout
    rows = {line.split()[0]: line.split() for line in process.stdout.splitlines() if line}
    assert [rows[part][1] for part in ("train", "valid", "test")] == ["13", "1", "3"]
    assert "\r" not in process.stderr and "100%, epoch 2" in process.stderr


def test_flags_beat_the_file_and_the_resolved_configuration_names_the_files(fitted):
    folder, _ = fitted
    settings = settings_from(folder / "fit" / "config.toml")
    assert (settings.epochs, settings.batch, settings.densities) == (2, 4, 6)
    assert settings.train == ["train.xyz"] and settings.test == "test.xyz" and settings.valid == 0.1
    assert settings.cutoff is not None


def test_the_metrics_of_a_fit_have_the_keys_of_evaluate(fitted):
    folder, _ = fitted
    metrics = json.loads((folder / "fit" / "metrics.json").read_text())
    for part in ("train", "valid", "test"):
        assert list(metrics[part]) == EVALUATE_KEYS


def test_a_second_fit_from_the_resolved_configuration_gives_the_same_model(fitted, tmp_path, monkeypatch, capsys):
    folder, _ = fitted
    monkeypatch.chdir(folder)
    assert main(["fit", "fit/config.toml", "--out", str(tmp_path / "again"), "--quiet", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["test"] == json.loads((folder / "fit" / "metrics.json").read_text())["test"]
    # A fit of two epochs may be told that it has too few steps.
    assert all("a constant would do better" in line for line in shown.err.splitlines())
    first, again = eann_lite.load(folder / "fit" / "model.npz"), eann_lite.load(tmp_path / "again" / "model.npz")
    assert np.array_equal(first.vector, again.vector)


def test_a_model_of_the_committee_is_fitted_again_from_its_configuration(fitted, tmp_path, monkeypatch):
    folder, _ = fitted
    monkeypatch.chdir(folder)
    out = tmp_path / "fit"
    assert main(["fit", "fit/config.toml", "--committee", "2", "--epochs", "1", "--out", str(out), "--quiet"]) == 0
    member = out / "committee-1"
    assert settings_from(member / "config.toml").train == ["train.xyz"]
    assert main(["fit", str(member / "config.toml"), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    first, again = eann_lite.load(member / "model.npz"), eann_lite.load(tmp_path / "again" / "model.npz")
    assert np.array_equal(first.vector, again.vector)
    assert (first.provenance["seed"], first.provenance["split_seed"]) == (1, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others")
@pytest.mark.parametrize(
    ("committee", "place", "sent", "status"),
    [(0, ".", signal.SIGINT, 130), (2, "committee-0", signal.SIGINT, 130), (0, ".", signal.SIGTERM, 143)],
)
def test_an_interrupted_fit_says_how_to_go_on(
    fitted, tmp_path, capsys, monkeypatch, committee, place, sent, status
):
    folder, _ = fitted
    command = ["fit", "--train", folder / "train.xyz", "--minutes", 3, "--out", "here", "--checkpoint-seconds", 0.01]
    command += ["--committee", committee]
    process = subprocess.Popen(
        [sys.executable, "-m", "eann_lite", *map(str, command), *TINY], cwd=tmp_path, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(sent, signal.SIG_DFL),  # Ignored where the tests run in a shell's background.
    )  # fmt: skip
    try:
        until = time.monotonic() + 600.0
        while not (tmp_path / "here" / place / "checkpoint.npz").exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    again = errors.splitlines()[-1]
    assert again.startswith("eann-lite: interrupted.") and again.endswith("--resume")
    assert f"eann-lite fit --train {folder / 'train.xyz'}" in again
    # Its configuration serves as well.
    assert settings_from(tmp_path / "here" / "config.toml").train == [str(folder / "train.xyz")]
    if not committee:  # Whose models would take their minutes.
        monkeypatch.chdir(tmp_path)
        assert main(["fit", "here/config.toml", "--resume", "--quiet", "--minutes", "0.001"]) == 0
        assert "nothing to resume" not in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="no signal that kills")
def test_a_fit_that_was_killed_keeps_nobody_out_of_its_directory_and_a_running_one_does(fitted, tmp_path, capsys):
    folder, _ = fitted
    flags = ["fit", "--train", str(folder / "train.xyz"), "--out", str(tmp_path / "here"), *TINY, "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "eann_lite", *flags, "--epochs", "100000", "--checkpoint-seconds", "0.01"], cwd=tmp_path,
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 600.0
        while not (tmp_path / "here" / "checkpoint.npz").exists() and time.monotonic() < until:
            time.sleep(0.05)
        message = errors_of(capsys, *flags, "--epochs", 1)
        assert f"output directory {tmp_path / 'here'}: a fit is running in it (process {process.pid} on" in message
        message = errors_of(capsys, *flags, "--epochs", 1, "--resume")
        assert "a fit is running in it" in message
        assert not (tmp_path / "here" / "earlier-1").exists()
    finally:
        process.kill()
        process.wait()
    assert main([*flags, "--epochs", "2", "--resume"]) == 0
    assert "running" not in capsys.readouterr().err


def test_a_resume_without_a_checkpoint_says_that_it_starts_anew(fitted, tmp_path, capsys):
    folder, _ = fitted
    flags = ["fit", "--train", str(folder / "train.xyz"), "--epochs", "1", *TINY, "--quiet", "--resume", "--out"]
    out = str(tmp_path / "ft")
    assert main([*flags, out]) == 0
    assert f"warning: nothing to resume: {out} does not exist: the fit starts anew" in capsys.readouterr().err
    assert main([*flags, out]) == 0
    assert "nothing to resume" not in capsys.readouterr().err
    (tmp_path / "ft" / "checkpoint.npz").unlink()
    assert main([*flags, out]) == 0
    assert f"nothing to resume: {out} has no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    [
        "r3/energy_unit/a.xyz", "runs/forces_weight.xyz", "x/split_seed=3/a.xyz", "energy_key/b.xyz", "a\\energy_key",
        "split_seed=3/a.xyz", "energy_unit-Ha/a.xyz", "my forces_weight=10/x.xyz",
    ],  # fmt: skip
)
def test_paths_that_hold_names_of_settings_stay_as_they_are(path):
    message = f"{path}: no such file. Read with energy_unit='Ry' or forces_key."
    assert by_flags(message) == f"{path}: no such file. Read with --energy-unit Ry or --forces-key."


def test_a_second_fit_in_a_directory_says_where_the_first_one_goes(fitted, tmp_path, capsys):
    folder, _ = fitted
    flags = ["fit", "--train", str(folder / "train.xyz"), "--epochs", "1", *TINY, "--out", str(tmp_path / "f")]
    assert main(flags) == 0
    first = capsys.readouterr().out
    assert "earlier" not in first and "shown while it fits are root mean squares on the validation data" in first
    old = (tmp_path / "f" / "history.jsonl").read_bytes()
    for number in (1, 2):
        assert main(flags) == 0
        aside = tmp_path / "f" / f"earlier-{number}"
        text = f"What an earlier fit left in {tmp_path / 'f'}, or has a name of its files, goes to {aside}; --resume"
        assert text in capsys.readouterr().out
        assert (aside / "model.npz").exists()
    assert (tmp_path / "f" / "earlier-1" / "history.jsonl").read_bytes() == old
    assert main([*flags, "--resume"]) == 0
    assert "goes to" not in capsys.readouterr().out
    (tmp_path / "f" / "checkpoint.npz").unlink()
    assert main([*flags, "--resume"]) == 0
    shown = capsys.readouterr()
    assert f"goes to {tmp_path / 'f' / 'earlier-3'}.\n" in shown.out and "has no checkpoint" in shown.err
    assert (tmp_path / "f" / "earlier-3" / "model.npz").exists()


def test_a_configuration_where_the_fit_writes_its_own_is_put_aside_and_one_that_says_the_same_stays(
    fitted, tmp_path, capsys, monkeypatch
):
    folder, _ = fitted
    monkeypatch.chdir(tmp_path)
    mine = f'[data]\ntrain = "{folder / "train.xyz"}"\n[training]\nepochs = 1  # a moment\n'
    Path("config.toml").write_text(mine)
    assert main(["fit", "config.toml", "--out", ".", *TINY]) == 0
    assert "or has a name of its files, goes to earlier-1." in capsys.readouterr().out
    assert Path("earlier-1/config.toml").read_text() == mine
    # As it stands in the directory it serves to go on, and keeps what somebody wrote beside the settings.
    written = Path("config.toml").read_text() + "# this one is good\n"
    Path("config.toml").write_text(written)
    assert main(["fit", "config.toml", "--quiet", "--resume"]) == 0
    assert Path("config.toml").read_text() == written
    assert main(["fit", "config.toml", "--quiet", "--resume", "--epochs", "2"]) == 0
    assert "epochs = 2" in Path("config.toml").read_text() and Path("model.npz").exists()


def test_copies_in_training_and_test_data_are_warned_about(fitted, tmp_path, capsys):
    folder, _ = fitted
    train = str(folder / "train.xyz")
    files = ["--train", train, "--test", train, "--out", str(tmp_path)]
    assert main(["fit", *files, "--epochs", "1", *TINY, "--quiet"]) == 0
    shown = capsys.readouterr()
    assert "warning: 14 structures are in more than one of train and test data" in shown.err
    assert shown.out == ""


def test_every_setting_is_a_flag_and_arrives_as_it_was_given():
    values = {str: "adam", int: 3, float: 0.25, bool: True, object: 0.25, list: [3, 4]}
    for name, item in SETTINGS.items():
        value = ["a", "b"] if name == "train" else values[item.type]
        words = [f"--{kebab(name)}"]
        words += [] if value is True else list(map(str, value if isinstance(value, list) else [value]))
        given = vars(build_parser().parse_args(["fit", *words]))
        assert [key for key in given if key in SETTINGS] == [name]
        assert given[name] == ([value] if item.type is object else value)
    assert vars(build_parser().parse_args(["fit", "--no-finish"]))["finish"] is False


def test_the_help_names_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    for name, item in SETTINGS.items():
        assert f"--{kebab(name)}" in shown
        assert item.metadata["help"].split("(")[0].strip() in shown
    assert f"(default: {FitSettings().step_size})" in shown and "(default: 64 64)" in shown


# ---- evaluate and info ----------------------------------------------------------------------------------------------


def test_evaluate_gives_exactly_the_promised_keys_and_the_errors_of_the_fit(fitted):
    folder, _ = fitted
    process = run("evaluate", "fit/model.npz", "test.xyz", "--json", cwd=folder)
    assert process.returncode == 0, process.stderr
    errors = json.loads(process.stdout)
    assert list(errors) == [*EVALUATE_KEYS, "extrapolation"]
    kept = json.loads((folder / "fit" / "metrics.json").read_text())["test"]
    assert errors["n_structures"] == 3 and errors["n_atoms"] == 15 and errors["stress_rmse_mev_per_ang3"] is None
    for key, value in kept.items():
        assert errors[key] == (None if value is None else pytest.approx(value, rel=1e-9))


def test_evaluate_prints_a_table_and_writes_plots(fitted, tmp_path, capsys):
    folder, _ = fitted
    out = tmp_path / "deep" / "plots"
    model, data = folder / "fit" / "model.npz", folder / "test.xyz"
    assert main(["evaluate", str(model), str(data), "--plots", str(out), "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "3 with 15 atoms" in shown and "forces (meV/A)" in shown
    assert sorted(path.name for path in out.iterdir()) == ["parity_energy.png", "parity_forces.png"]


def test_evaluate_reads_labels_under_given_names_and_in_given_units(fitted, tmp_path, capsys):
    folder, _ = fitted
    frames = labelled_methane(3, 100)
    for atoms in frames:
        atoms.info["mine"] = atoms.get_potential_energy() / 27.211386245988
        atoms.calc = None
    write(tmp_path / "hartree.xyz", frames)
    model = str(folder / "fit" / "model.npz")
    arguments = ["evaluate", model, str(tmp_path / "hartree.xyz"), "--json", "--energy-key", "mine"]
    assert main([*arguments, "--energy-unit", "Hartree"]) == 0
    errors = json.loads(capsys.readouterr().out)
    kept = json.loads((folder / "fit" / "metrics.json").read_text())["test"]
    assert errors["energy_rmse_mev"] == pytest.approx(kept["energy_rmse_mev"], rel=1e-6)
    assert errors["forces_rmse_mev_per_ang"] is None


def test_evaluate_reads_stresses_in_their_unit(fitted, tmp_path, capsys):
    folder, _ = fitted
    atoms = molecule("CH4", cell=[8.0, 8.0, 8.0], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=np.arange(6.0) / 100)
    errors = []
    for unit, factor in (("eV/Angstrom^3", 1.0), ("GPa", 160.2176634)):
        atoms.calc.results["stress"] = factor * np.arange(6.0) / 100
        write(tmp_path / "cell.xyz", atoms)
        files = [str(folder / "fit" / "model.npz"), str(tmp_path / "cell.xyz")]
        assert main(["evaluate", *files, "--json", "--stress-unit", unit]) == 0
        errors.append(json.loads(capsys.readouterr().out)["stress_rmse_mev_per_ang3"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-6) and errors[0] > 1.0


def test_structures_without_labels_have_no_errors(fitted, tmp_path, capsys):
    folder, _ = fitted
    write(tmp_path / "bare.xyz", molecule("CH4"))
    arguments = ["evaluate", str(folder / "fit" / "model.npz"), str(tmp_path / "bare.xyz")]
    assert main([*arguments, "--json"]) == 0
    errors = json.loads(capsys.readouterr().out)
    assert errors["n_structures"] == 1 and {errors[key] for key in EVALUATE_KEYS[2:]} == {None}
    assert main(arguments) == 0
    assert "1 structures without any label" in capsys.readouterr().out


def test_info_tells_what_a_model_is_and_was_fitted_to(fitted, capsys):
    folder, _ = fitted
    model = str(folder / "fit" / "model.npz")
    assert main(["info", model, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["specification"]["elements"] == ["H", "C"] and data["units"] == "eV, Angstrom"
    assert data["data"]["train"]["n_structures"] == 13 and len(data["data"]["test"]["fingerprint"]) == 64
    assert data["metrics"]["test"]["n_structures"] == 3 and data["versions"]["numpy"] == np.__version__
    assert main(["info", model]) == 0
    shown = capsys.readouterr().out
    for text in ("REANN with T = 1", "train.xyz", "eV, Angstrom", data["data"]["train"]["fingerprint"][:16], "numpy"):
        assert text in shown


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["fit", "--epocs", "3"], ["unknown flag --epocs", "Did you mean --epochs?"]),
        (["fit", "--epocs=3"], ["unknown flag --epocs.", "Did you mean --epochs?"]),
        (["fit", "--max_degree", "3"], ["--max_degree", "Did you mean --max-degree?"]),
        (["fit", "--epoch", "3"], ["unknown flag --epoch.", "--epochs"]),
        (["evaluate", "m.npz", "a.xyz", "--jsn"], ["unknown flag --jsn", "Did you mean --json?"]),
        (["evaluate", "m.npz", "a.xyz", "--energi-key", "E"], ["Did you mean --energy-key?"]),
        (["info", "m.npz", "--zzz"], ["unknown flag --zzz", "eann-lite info --help"]),
        (["info", "m.npz", "n.npz"], ["'n.npz' is one argument too many"]),
        (["fitt"], ["invalid choice: 'fitt'"]),
        ([], ["COMMAND"]),
        (["fit", "--epochs", "many"], ["--epochs", "many", "--help"]),
        (["fit", "--epochs", "0"], ["epochs = 0", "at least 1"]),
        (["fit", "--cutoff", "0"], ["cutoff = 0.0", "positive"]),
        (["fit", *NO_WEIGHTS], ["--stress-weight = 0", "at least one weight above 0"]),
        (["fit", "--cutoff", "nan"], ["--cutoff = nan", "finite"]),
        (["fit", "--energy-unit", "Hartre"], ["--energy-unit: unknown unit 'Hartre'; did you mean 'Hartree'?"]),
        (["fit", "--stress-unit", "eV"], ["--stress-unit: unknown unit 'eV'", "GPa"]),
        (
            ["fit", "--stress-key", "a", "--virial-key", "b"],
            ["--stress-key = 'a' and --virial-key = 'b': expected one"],
        ),
        (["fit", "--train", "a.xyz", "c.toml"], ["c.toml is a configuration: put it first"]),
        (["fit", "--train", "nowhere.xyz"], ["nowhere.xyz: no such file"]),
        (["fit", "nowhere.toml"], ["nowhere.toml: no such file"]),
        (["evaluate", "nowhere.npz", "a.xyz"], ["nowhere.npz", "does not exist"]),
        (["info", "nowhere.npz"], ["nowhere.npz", "does not exist"]),
    ],
)
def test_wrong_arguments_end_with_one_message_and_status_2(capsys, arguments, parts):
    message = errors_of(capsys, *arguments)
    assert message.count("\n") == 1
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "text, told",
    [
        ("If so, read with length_unit='Bohr'.", "If so, read with --length-unit Bohr."),
        ("a.xyz: energy_key = 'E', but no structure has it", "a.xyz: --energy-key = 'E', but no structure has it"),
        ("Check energy_unit and forces_unit.", "Check --energy-unit and --forces-unit."),
        ("fit with stress_weight=0 to find", "fit with --stress-weight 0 to find"),
        ("for example energy_key='my energy'.", "for example --energy-key 'my energy'."),
        ("a.toml, [data]: energy_key = 3: expected a text.", "a.toml, [data]: energy_key = 3: expected a text."),
        ("a.toml: energy_weight = -1.0: expected", "a.toml: energy_weight = -1.0: expected"),
        ("'energy_key' = 1 and my_energy_key = 2", "'energy_key' = 1 and my_energy_key = 2"),
        ("choose one with virial_key", "choose one with virial_key"),
    ],
)
def test_messages_name_settings_as_the_flags_of_the_command(text, told):
    flags = [f"--{kebab(name)}" for name in SETTINGS if name != "virial_key"]
    assert by_flags(text, flags) == told


def test_a_misspelt_key_ends_a_real_process_with_status_2_and_without_a_traceback(tmp_path):
    (tmp_path / "config.toml").write_text("[training]\nepoch = 3\n")
    process = run("fit", "config.toml", cwd=tmp_path)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith("eann-lite: config.toml: unknown key 'epoch'") and "'epochs'" in process.stderr


def test_compiling_is_told_where_nothing_is_compiled_yet(tmp_path, monkeypatch):
    write(tmp_path / "bare.xyz", [Atoms(atoms.numbers, atoms.positions) for atoms in labelled_methane(4, 0)])
    monkeypatch.setenv("EANN_LITE_CACHE", str(tmp_path / "cache"))
    for told in (True, False):
        # It is refused as soon as the data have been looked at, which compiles a first kernel.
        process = run("fit", "--train", "bare.xyz", cwd=tmp_path)
        assert process.returncode == 2 and "no energies in the train part" in process.stderr
        assert ("The kernels are compiled now, once" in process.stdout) == told


def test_a_nan_in_the_data_is_found_before_the_fit(tmp_path, capsys):
    frames = labelled_methane(4, 0)
    write(tmp_path / "train.xyz", frames)
    text = (tmp_path / "train.xyz").read_text().splitlines()
    text[9] = " ".join([*text[9].split()[:-1], "nan"])  # the line of the first atom of structure 1
    (tmp_path / "train.xyz").write_text("\n".join(text) + "\n")
    message = errors_of(capsys, "fit", "--train", tmp_path / "train.xyz", "--out", tmp_path / "out")
    assert "train.xyz, structure 1" in message and "atom 0 (C)" in message and "nan" in message
    assert not (tmp_path / "out").exists()


def test_an_element_that_the_model_does_not_know_is_named(fitted, tmp_path, capsys):
    folder, _ = fitted
    write(tmp_path / "water.xyz", [molecule("CH4"), molecule("H2O")])
    message = errors_of(capsys, "evaluate", folder / "fit" / "model.npz", tmp_path / "water.xyz", "--json")
    for part in ("water.xyz, structure 1", "atom 0", "O", "H, C"):
        assert part in message


def test_test_data_with_an_element_that_is_not_in_the_training_data_are_refused(fitted, tmp_path, capsys):
    folder, _ = fitted
    write(tmp_path / "copper.xyz", Atoms("Cu", calculator=None, info={"REF_energy": -1.0}))
    message = errors_of(
        capsys, "fit", "--train", folder / "train.xyz", "--test", tmp_path / "copper.xyz", "--out", tmp_path / "out"
    )
    assert "Cu" in message and "copper.xyz, structure 0" in message


def test_an_output_directory_that_cannot_be_made_is_found_before_the_fit(fitted, tmp_path, capsys):
    folder, _ = fitted
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "out"
    message = errors_of(capsys, "fit", "--train", folder / "train.xyz", "--out", out)
    assert "output directory" in message and str(out) in message
    message = errors_of(capsys, "evaluate", folder / "fit" / "model.npz", folder / "test.xyz", "--plots", out)
    assert str(out) in message and "directory" in message


def test_more_threads_than_cores_are_refused(fitted, capsys):
    folder, _ = fitted
    message = errors_of(capsys, "evaluate", folder / "fit" / "model.npz", folder / "test.xyz", "--threads", 4096)
    assert "threads = 4096" in message


def test_a_truncated_model_file_is_refused(fitted, tmp_path, capsys):
    folder, _ = fitted
    (tmp_path / "cut.npz").write_bytes((folder / "fit" / "model.npz").read_bytes()[:2000])
    message = errors_of(capsys, "info", tmp_path / "cut.npz")
    assert "cut.npz" in message and "truncated" in message


def test_output_that_nobody_reads_any_more_is_no_error(fitted):
    folder, _ = fitted
    process = subprocess.Popen(
        [sys.executable, "-m", "eann_lite", "info", "fit/model.npz", "--json"], cwd=folder, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_the_command_line_starts_without_heavy_imports():
    code = "import sys, eann_lite.cli; print(*{'numpy', 'numba', 'ase', 'scipy', 'matplotlib'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert process.stdout.strip() == ""


def test_modes_of_a_fitted_model_are_told_and_written(fitted):
    folder, _ = fitted
    done = run("modes", "fit/model.npz", "test.xyz", "--relax", "1e-3", "--out", "modes.xyz", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["wavenumbers_per_cm"]) == 15 and found["largest_force"] <= 1e-3
    assert np.all(np.diff(found["wavenumbers_per_cm"]) >= 0) and found["zero_point_energy_ev"] > 0
    assert (folder / "modes.xyz").read_text().count("mode#=") == 15
    told = run("modes", "fit/model.npz", "test.xyz", "--index", "0", cwd=folder)
    assert told.returncode == 0 and "zero-point energy" in told.stdout
    assert "the largest force is" in told.stderr and "--relax" in told.stderr


def modes_of(capsys, model, *arguments):
    """What ``modes --json`` prints."""
    assert main(["modes", str(model), *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["heavy.traj", "heavy.extxyz", "configuration"])
def test_modes_have_the_masses_of_the_file(tmp_path, capsys, name):
    model, atoms = FIRST_MODEL, molecule("CH4")
    masses = [12.011, 2.014, 2.014, 2.014, 1.008]
    atoms.set_masses(masses)
    if name == "configuration":
        rows = [
            f"{symbol} {mass} {x!r} {y!r} {z!r}"
            for symbol, mass, (x, y, z) in zip(atoms.get_chemical_symbols(), masses, atoms.positions.tolist())
        ]
        cell = ["50 0 0", "0 50 0", "0 0 50", "pbc 0 0 0"]
        (tmp_path / name).write_text("\n".join(["point= 1", *cell, *rows, "abprop: 0.0"]) + "\n")
    else:
        write(tmp_path / name, atoms, **({} if "traj" in name else {"columns": ["symbols", "positions", "masses"]}))
    found = modes_of(capsys, model, tmp_path / name)
    assert found["masses_amu"] == masses and found["held_still"] == []
    expected = eann_lite.vibrations(model, atoms).get_energies() / invcm
    expected = np.sort(expected.real - expected.imag)
    assert found["wavenumbers_per_cm"][6:] == pytest.approx(expected[6:], rel=1e-6, abs=1e-3)
    # Light atoms only: what the masses in the file change.
    light = eann_lite.vibrations(model, molecule("CH4")).get_energies() / invcm
    assert abs(np.abs(light).max() - np.abs(expected).max()) > 1.0
    assert main(["modes", str(model), str(tmp_path / name)]) == 0
    assert "5 atoms, none held still; masses C 12.011, H 1.008 and 2.014 amu" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["held.traj", "held.extxyz", "POSCAR"])
def test_modes_hold_the_atoms_that_the_file_holds(tmp_path, capsys, name):
    model, atoms = FIRST_MODEL, molecule("CH4")
    atoms.rattle(0.03, seed=1)
    atoms.center(vacuum=8.0)
    atoms.set_constraint(FixAtoms([0, 2]))
    write(tmp_path / name, atoms)
    read_back = read(tmp_path / name)
    held = np.array([0, 2])
    found = modes_of(capsys, model, tmp_path / name, "--relax", "1e-3", "--out", tmp_path / "modes.xyz")
    positions = np.array(found["positions"])
    assert found["held_still"] == [0, 2] and np.array_equal(positions[held], read_back.positions[held])
    assert np.abs(positions - read_back.positions).max() > 0.01 and found["largest_force"] <= 1e-3
    assert (tmp_path / "modes.xyz").read_text().count("mode#=") == 9
    read_back.positions = positions
    expected = eann_lite.vibrations(model, read_back, indices=[1, 3, 4]).get_energies() / invcm
    assert len(found["wavenumbers_per_cm"]) == 9
    assert found["wavenumbers_per_cm"] == pytest.approx(np.sort(expected.real - expected.imag), rel=1e-6, abs=1e-3)
    assert main(["modes", str(model), str(tmp_path / name)]) == 0
    assert "5 atoms, 2 held still by the constraints of the file: modes of the other 3;" in capsys.readouterr().out


def test_modes_refuse_atoms_that_are_held_in_part_and_name_the_structure(tmp_path, capsys):
    atoms = molecule("CH4")
    atoms.set_constraint(FixCartesian(1, (True, True, False)))
    write(tmp_path / "line.extxyz", [molecule("CH4"), atoms])
    message = errors_of(capsys, "modes", FIRST_MODEL, tmp_path / "line.extxyz", "--relax", "1e-3")
    assert "line.extxyz, structure 1: the constraint FixCartesian on atom 1 is none that modes" in message
    assert "FixAtoms" in message


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--index", "99"], "--index 99: test.xyz has"),
        (["--relax", "0"], "--relax 0.0: expected the largest force that may remain"),
    ],
)
def test_modes_refuse_what_they_cannot_do(fitted, arguments, message):
    folder, _ = fitted
    done = run("modes", "fit/model.npz", "test.xyz", *arguments, cwd=folder)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
