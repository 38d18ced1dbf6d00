"""The output directory of a fit: one fit at a time, nothing is lost, and what is refused writes nothing."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_fits import SMALL, frames

import eann_lite
from eann_lite import file_locks
from eann_lite.config import settings_from
from eann_lite.errors import InputError
from eann_lite.report import write_report
from eann_lite.structures import Structure
from eann_lite.training import alone
from eann_lite.training import committee as committees
from eann_lite.training import fit as fitting
from eann_lite.training.settings import FitSettings


def test_an_earlier_fit_in_the_same_directory_is_put_aside(tmp_path):
    settings = {"epochs": 1, "batch": 6, "out": tmp_path, **SMALL}
    eann_lite.fit(frames(20), **settings)
    old = (tmp_path / "model.npz").read_bytes()
    eann_lite.fit(frames(20), **settings, seed=1)
    assert (tmp_path / "earlier-1/model.npz").read_bytes() == old
    assert (tmp_path / "model.npz").read_bytes() != old


def test_what_no_fit_wrote_stays_where_it_is_and_all_that_one_wrote_is_put_aside(tmp_path):
    settings = {"epochs": 1, "batch": 6, "committee": 2, "out": tmp_path, **SMALL}
    own = ("train.xyz", "my.toml", "config.toml.bak", "model.npz.old", "committee-notes", "report.tex")
    for name in own:
        (tmp_path / name).write_text("mine")
    (tmp_path / "2024").mkdir()
    result = eann_lite.fit(frames(20), **settings)
    write_report(result.out)
    written = {path.name for path in tmp_path.iterdir()} - {*own, "2024", alone.LOCK}
    assert {"committee-0", "committee-1", "report.html", "parity_forces.png"} < written
    eann_lite.fit(frames(20), **settings | {"committee": 0})
    assert {path.name for path in (tmp_path / "earlier-1").iterdir()} == written
    assert all((tmp_path / name).read_text() == "mine" for name in own) and (tmp_path / "2024").is_dir()


@pytest.mark.parametrize("name", ["model.npz", "config.toml", "metrics.json"])
def test_a_resumed_fit_without_a_checkpoint_puts_what_it_finds_aside(tmp_path, name):
    (tmp_path / name).write_bytes(b"of another day")
    eann_lite.fit(frames(20), epochs=1, batch=6, resume=True, out=tmp_path, **SMALL)
    assert (tmp_path / "earlier-1" / name).read_bytes() == b"of another day"


def test_a_fit_that_is_refused_or_stopped_before_it_begins_leaves_an_earlier_one_in_its_place(tmp_path, monkeypatch):
    settings = {"epochs": 1, "batch": 6, "out": tmp_path, **SMALL}
    eann_lite.fit(frames(20), **settings)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match="the model knows only"):
        eann_lite.fit(frames(20), valid=[*frames(2), labelled_helium()], **settings)

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(InputError, match="committee = 2 with minutes = 1e-06"):
        eann_lite.fit(frames(20), **settings | {"committee": 2, "minutes": 1e-6, "epochs": None})
    monkeypatch.setattr("eann_lite.training.run.compile_ahead", interrupted)
    with pytest.raises(KeyboardInterrupt):
        eann_lite.fit(frames(20), **settings)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*")} == before


def labelled_helium():
    return Structure([2], [[0.0, 0.0, 0.0]], energy=-1.0, forces=[[0.0, 0.0, 0.0]])


def test_links_that_are_put_aside_lead_to_where_they_led(tmp_path):
    store, out = tmp_path / "store", tmp_path / "fit"
    for folder in (store, out, out / "committee-2024"):
        folder.mkdir()
    (store / "model.npz").write_bytes(b"of another day")
    (out / "committee-2024/minutes.txt").write_text("mine")
    (out / "model.npz").symlink_to("../store/model.npz")
    eann_lite.fit(frames(20), epochs=1, batch=6, out=out, **SMALL)
    assert (out / "earlier-1/model.npz").read_bytes() == (store / "model.npz").read_bytes() == b"of another day"
    assert not (out / "model.npz").is_symlink() and (out / "committee-2024/minutes.txt").exists()


@pytest.mark.parametrize("models", [0, 2])
def test_a_resumed_fit_that_is_refused_writes_nothing(tmp_path, models):
    settings = {"batch": 6, "out": tmp_path, "committee": models, "epochs": 1, **SMALL}
    eann_lite.fit(frames(20), **settings)
    if models:
        (tmp_path / "checkpoint.npz").unlink()  # As while the committee is fitted.
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.toml")}
    assert len(before) == 1 + models
    with pytest.raises(InputError, match="was made with seed = 0, now seed = 3.*as they stand in config.toml"):
        eann_lite.fit(frames(20), resume=True, **settings, seed=3, split_seed=0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.toml")} == before
    assert eann_lite.fit(frames(20), resume=True, **settings).metrics


def test_files_with_names_that_a_fit_writes_are_put_aside(tmp_path):
    for name in ("config.toml", "metrics.json"):
        (tmp_path / name).write_text("mine")
    eann_lite.fit(frames(20), epochs=1, batch=6, out=tmp_path, **SMALL)
    assert all((tmp_path / "earlier-1" / name).read_text() == "mine" for name in ("config.toml", "metrics.json"))


def test_a_resumed_fit_has_the_weight_decay_that_it_was_begun_with(tmp_path):
    settings = {"batch": 6, "epochs": 2, **SMALL}
    for committee in (0, 2):
        out = tmp_path / str(committee)
        eann_lite.fit(frames(20), weight_decay=0.2, out=out, committee=committee, **settings)
        if committee:
            (out / "checkpoint.npz").unlink()
        else:
            (out / "config.toml").unlink()
        shutil.copytree(out, told := tmp_path / f"{committee}-told")
        longer = settings | {"epochs": 4, "committee": committee, "resume": True}
        result = eann_lite.fit(frames(20), out=out, **longer)
        assert result.settings.weight_decay == 0.2
        by_name = eann_lite.fit(frames(20), weight_decay=0.2, out=told, **longer)
        assert np.array_equal(result.model.vector, by_name.model.vector)
    with pytest.raises(InputError, match="was made with weight_decay = 0.2, now weight_decay = 0.1"):
        eann_lite.fit(frames(20), resume=True, out=out, committee=2, weight_decay=0.1, **settings | {"epochs": 4})


def test_a_committee_is_not_forgotten_by_a_resumed_fit(tmp_path):
    settings = {"batch": 6, "epochs": 1, "out": tmp_path, **SMALL}
    eann_lite.fit(frames(20), committee=2, **settings)
    (tmp_path / "checkpoint.npz").unlink()
    for models in (0, 3):
        message = f"committee-0: the fit was begun with committee = 2, now committee = {models}"
        with pytest.raises(InputError, match=message):
            eann_lite.fit(frames(20), committee=models, resume=True, **settings)
    # By epochs it was begun; with minutes their share of them is measured.
    minutes = settings | {"epochs": None, "minutes": 0.02}
    eann_lite.fit(frames(20), committee=2, resume=True, **minutes)


def test_a_configuration_without_a_checkpoint_does_not_decide_on_a_committee(tmp_path, monkeypatch):
    monkeypatch.setattr(committees, "epochs_within_the_time", lambda *_: 1e9)
    monkeypatch.setattr(committees, "MODELS", 2)
    (tmp_path / "config.toml").write_text("[training]\nminutes = 0.1\n")
    result = eann_lite.fit(frames(20), minutes=0.1, batch=6, resume=True, out=tmp_path, **SMALL)
    assert result.settings.committee == 2


@pytest.mark.parametrize("limit", [{"epochs": 2}, {"minutes": 0.02}])
def test_models_whose_labels_the_last_fit_learns_from_stay_as_they_are_when_it_goes_on(tmp_path, limit, monkeypatch):
    settings = {"batch": 6, "committee": 2, **SMALL}
    eann_lite.fit(frames(20), epochs=1, out=None, **settings)  # Compiles, which is not to count.
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "minutes_of_a_member", lambda *_: limit.get("minutes"))
        first = eann_lite.fit(frames(20), **limit, out=tmp_path, **settings)
    members = [(tmp_path / f"committee-{n}/model.npz") for n in range(2)]
    before = [path.read_bytes() for path in members]
    more = first.model.provenance["epochs"] + 2
    result = eann_lite.fit(frames(20), epochs=9 * more, resume=True, out=tmp_path, **settings)
    assert [path.read_bytes() for path in members] == before
    assert result.model.provenance["epochs"] == more  # Of nine times as many structures.


def test_a_committee_that_is_complete_needs_no_time_and_one_with_a_model_gone_is_refused(tmp_path):
    settings = {"batch": 6, "committee": 2, "out": tmp_path, **SMALL}
    first = eann_lite.fit(frames(20), epochs=9, **settings)
    result = eann_lite.fit(frames(20), minutes=1e-6, resume=True, **settings)
    assert result.model.provenance["epochs"] == first.model.provenance["epochs"]
    shutil.rmtree(tmp_path / "committee-1")
    with pytest.raises(InputError, match="committee-1/model.npz is gone, from whose labels .* Put it back, or begin"):
        eann_lite.fit(frames(20), epochs=18, resume=True, **settings)
    assert not (tmp_path / "committee-1").exists()


def test_a_committee_that_had_too_little_time_goes_on_with_more(tmp_path, monkeypatch):
    settings = {"batch": 6, "committee": 2, "out": tmp_path, **SMALL}
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "minutes_of_a_member", lambda *_: 1e-6)
        with pytest.raises(InputError, match="did not see all of its 18 structures once"):
            eann_lite.fit(frames(20), minutes=1.0, **settings)
    result = eann_lite.fit(frames(20), epochs=9, resume=True, **settings)
    assert result.model.provenance["epochs"] >= 1
    # With minutes, too: what the first one had is asked for only here, as a fit of minutes takes minutes.
    shutil.rmtree(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "minutes_of_a_member", lambda *_: 1e-6)
        with pytest.raises(InputError, match="did not see all of its 18 structures once"):
            eann_lite.fit(frames(20), minutes=1.0, **settings)
    asked = []

    def minutes_of_a_member(*arguments):
        asked.append(committees.minutes_of_a_member(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "minutes_of_a_member", minutes_of_a_member)
    with pytest.raises(KeyboardInterrupt):
        eann_lite.fit(frames(20), minutes=4.0, resume=True, **settings)
    assert 0.5 < asked[0] < 1.0


def test_what_a_model_of_the_committee_left_without_a_checkpoint_is_put_aside(tmp_path):
    settings = {"batch": 6, "committee": 2, "epochs": 1, "out": tmp_path, **SMALL}
    eann_lite.fit(frames(20), **settings)
    old = (tmp_path / "committee-1/model.npz").read_bytes()
    for place in (".", "committee-1"):
        (tmp_path / place / "checkpoint.npz").unlink()
    eann_lite.fit(frames(20), resume=True, **settings)
    assert (tmp_path / "committee-1/earlier-1/model.npz").read_bytes() == old


def test_a_loss_that_grows_linearly_nowhere_is_written_and_resumed(tmp_path):
    settings = {"batch": 6, "huber": np.inf, "forces_huber": np.inf, "out": tmp_path, **SMALL}
    eann_lite.fit(frames(20), epochs=1, **settings)
    assert settings_from(tmp_path / "config.toml").huber == np.inf
    assert eann_lite.fit(frames(20), epochs=2, resume=True, **settings).model.provenance["epochs"] == 2


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"train": Path("a.xyz"), "valid": []}, ["a.xyz"]),
        ({"train": "a.xyz", "test": Path("b.xyz")}, ["a.xyz"]),
        ({"train": ["a.xyz", "b.xyz"], "test": None}, ["a.xyz", "b.xyz"]),
    ],
)
def test_files_that_parts_were_read_from_may_be_paths(tmp_path, files, found):
    eann_lite.fit(frames(20), files=files, epochs=1, batch=6, out=tmp_path, **SMALL)
    assert settings_from(tmp_path / "config.toml").train == found


def test_files_of_anything_but_parts_are_refused():
    with pytest.raises(InputError, match=r"files\['cutoff'\]: expected the files of parts, so one of train, valid, test"):
        eann_lite.fit(frames(20), files={"cutoff": 9.0}, out=None, **SMALL)


def test_the_configuration_names_the_files_that_structures_came_from(tmp_path):
    files = {"train": ["a.xyz", "b.xyz"], "test": "c.xyz"}
    eann_lite.fit(frames(20), test=frames(4), files=files, epochs=1, batch=6, committee=2, out=tmp_path, **SMALL)
    for place in (".", "committee-0", "committee-1"):
        found = settings_from(tmp_path / place / "config.toml")
        assert (found.train, found.test, found.resume) == (["a.xyz", "b.xyz"], "c.xyz", False)


@pytest.mark.parametrize("out", ["", "  ", 3])
def test_an_output_directory_without_a_name_is_refused(out):
    with pytest.raises(InputError, match="expected the name of a directory, '.' for the current one"):
        FitSettings(out=out)


class FitWithin:
    """Progress that begins another fit as soon as there is a step."""

    def __init__(self, **settings):
        self.settings = settings

    def start(self, unit, settings):
        pass

    def update(self, fraction, epoch, row):
        eann_lite.fit(frames(20), **self.settings)

    def finish(self, message):
        pass


@pytest.mark.skipif(not file_locks.POSSIBLE, reason="files cannot be locked here")
@pytest.mark.parametrize("committee", [0, 2])
def test_a_second_fit_in_a_directory_is_refused_while_the_first_runs(tmp_path, committee):
    settings = {"epochs": 1, "batch": 6, "committee": committee, **SMALL}
    for resume in (False, True):
        settings["out"] = tmp_path / f"fit-{resume}"
        message = rf"{settings['out']}: a fit is running in it \(process {os.getpid()} on .*--out"
        with pytest.raises(InputError, match=message):
            eann_lite.fit(frames(20), progress=FitWithin(**settings, resume=resume), **settings)
        assert not (settings["out"] / "earlier-1").exists()
    # It ended with an error, and the directory is free again; a fit elsewhere is nobody's concern.
    elsewhere = FitWithin(**settings | {"out": tmp_path / "other"})
    whole = eann_lite.fit(frames(20), progress=elsewhere, resume=True, **settings)
    assert whole.metrics["train"]["n_structures"] == 18


@pytest.mark.skipif(not file_locks.POSSIBLE, reason="files cannot be locked here")
def test_the_directory_is_the_fits_own_until_what_comes_afterwards_is_done(tmp_path):
    settings = {"epochs": 1, "batch": 6, "out": tmp_path, **SMALL}
    given = []

    def afterwards(result):
        with pytest.raises(InputError, match="a fit is running in it"):
            eann_lite.fit(frames(20), **settings)
        given.append(result)

    result = eann_lite.fit(frames(20), afterwards=afterwards, **settings)
    assert given == [result] and not (tmp_path / "earlier-1").exists()
    # Of those put aside some may be gone.
    (tmp_path / "earlier-2").mkdir()
    eann_lite.fit(frames(20), **settings)
    assert (tmp_path / "earlier-3" / "model.npz").exists()


def test_where_files_cannot_be_locked_fits_run_as_ever(tmp_path, monkeypatch):
    settings = {"epochs": 1, "batch": 6, "out": tmp_path, **SMALL}
    monkeypatch.setattr(file_locks, "POSSIBLE", False)
    eann_lite.fit(frames(20), **settings)
    assert not (tmp_path / alone.LOCK).exists()
