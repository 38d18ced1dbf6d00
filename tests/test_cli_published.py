"""``eann-lite import`` and ``eann-lite export``."""

import json
from dataclasses import replace

import numpy as np
import pytest
from published_archives import ELEMENTS, WITH_OFFSET, random_state, write_script, write_state
from strategies import random_model
from test_published_export import BASE

from eann_lite import load
from eann_lite.cli import main


def run(capsys, *words):
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_import_writes_the_model_and_says_what_it_found_where(tmp_path, capsys):
    state = random_state(np.random.default_rng(1))
    attributes = {"nnmod.initpot": -2.5}
    path = write_script(tmp_path / "PES.pt", state, attributes=attributes, last=WITH_OFFSET)
    status, out, err = run(capsys, "import", path, "--out", tmp_path / "model.npz")
    assert (status, err) == (0, "")
    for text in ("O, H", "eV, Angstrom", "cutoff              4.0", "-2.5", "added by the forward pass", "model.npz"):
        assert text in out
    assert load(tmp_path / "model.npz").specification.elements == ELEMENTS
    status, out, err = run(capsys, "import", path, "--out", tmp_path / "model.npz", "--json")
    found = json.loads(out)
    assert found["kind"] == "TorchScript archive" and len(found["sha256"]) == 64
    assert {row["name"] for row in found["findings"]} >= {"elements", "cutoff", "units", "L", "K", "M", "T"}
    status, out, err = run(capsys, "info", tmp_path / "model.npz")
    assert status == 0 and "O -2.5000, H -2.5000 eV" in out


def test_import_of_a_state_dictionary_takes_other_input_files_and_warns(tmp_path, capsys):
    path = write_state(tmp_path, random_state(np.random.default_rng(2), "eann"), inputs="elsewhere")
    status, out, err = run(capsys, "import", path, "--out", tmp_path / "m.npz")
    assert status == 2 and "needs input_nn" in err and not (tmp_path / "m.npz").exists()
    files = tmp_path / "elsewhere"
    words = ("--nn", files / "input_nn", "--density", files / "input_density", "--out", tmp_path / "m.npz")
    status, out, err = run(capsys, "import", path, *words)
    assert status == 0 and "warning: the state dictionary has no nnmod.initpot" in err
    assert (tmp_path / "m.npz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import",), "the following arguments are required: PATH, --out"),
        (("import", "none.pt", "--out", "m.npz"), "none.pt cannot be read: No such file"),
        (("import", "x", "--densty", "f", "--out", "m"), "unknown flag --densty. Did you mean --density?"),
        (("export", "m.npz", "--out", "R.pth"), "the following arguments are required: --reann"),
        (("export", "--reann", "m.npz", "--out", "R.pth"), "m.npz does not exist"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words)
    assert status == 2 and message in err and err.count("\n") == 1 and out == ""


def test_export_says_in_its_help_and_in_its_error_how_to_be_without_repulsion(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "fit --repulsion none" in " ".join(capsys.readouterr().out.split())
    random_model(replace(BASE, repulsion="zbl"), 3).save(tmp_path / "model.npz")
    status, out, err = run(capsys, "export", "--reann", tmp_path / "model.npz", "--out", tmp_path / "REANN.pth")
    assert status == 2 and "zbl repulsion" in err and "`eann-lite fit --repulsion none`" in err
    assert not (tmp_path / "REANN.pth").exists() and out == ""


def test_export_and_import_again(tmp_path, capsys):
    random_model(BASE, 3).save(tmp_path / "model.npz")
    status, out, err = run(capsys, "export", "--reann", tmp_path / "model.npz", "--out", tmp_path / "REANN.pth")
    assert (status, err) == (0, "") and out.count("written") == 3
    status, out, err = run(capsys, "import", tmp_path / "REANN.pth", "--out", tmp_path / "back.npz")
    assert (status, err) == (0, "")
    assert load(tmp_path / "back.npz").specification.recursions == BASE.recursions
