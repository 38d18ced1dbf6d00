"""The output directory of a fit: one fit at a time, nothing is lost, and what is refused writes nothing."""

import os

import pytest
from small_fits import SMALL, frames

import eann_lite
from eann_lite import file_locks
from eann_lite.errors import InputError
from eann_lite.report import write_report
from eann_lite.training import alone
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
    own = ("train.xyz", "my.toml", "config.toml.bak", "model.npz.old", "notes", "report.tex")
    for name in own:
        (tmp_path / name).write_text("mine")
    result = eann_lite.fit(frames(20), **settings)
    write_report(result.out)
    written = {path.name for path in tmp_path.iterdir()} - {*own, alone.LOCK}
    assert {"committee-0", "committee-1", "report.html", "parity_forces.png"} < written
    eann_lite.fit(frames(20), **settings | {"committee": 0})
    assert {path.name for path in (tmp_path / "earlier-1").iterdir()} == written
    assert all((tmp_path / name).read_text() == "mine" for name in own)


def test_a_resumed_fit_without_a_checkpoint_puts_a_model_aside(tmp_path):
    (tmp_path / "model.npz").write_bytes(b"of another day")
    eann_lite.fit(frames(20), epochs=1, batch=6, resume=True, out=tmp_path, **SMALL)
    assert (tmp_path / "earlier-1/model.npz").read_bytes() == b"of another day"


@pytest.mark.parametrize("models", [0, 2])
def test_a_resumed_fit_that_is_refused_writes_nothing(tmp_path, models):
    settings = {"batch": 6, "out": tmp_path, "committee": models, "epochs": 1, **SMALL}
    eann_lite.fit(frames(20), **settings)
    if models:
        (tmp_path / "checkpoint.npz").unlink()  # As while the committee is fitted.
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.toml")}
    assert len(before) == 1 + models
    with pytest.raises(InputError, match="was made with seed = 0, now seed = 3.*eann-lite fit .*config.toml --resume"):
        eann_lite.fit(frames(20), resume=True, **settings, seed=3, split_seed=0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.toml")} == before
    assert eann_lite.fit(frames(20), resume=True, **settings).metrics


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
