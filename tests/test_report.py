"""The table, the plots and the page after a fit, and the progress during it."""

import io
import json
import re

import numpy as np
import pytest

from eann_lite import Model, Specification
from eann_lite.config import write_config
from eann_lite.errors import InputError
from eann_lite.model.initial import initial_parameters
from eann_lite.model.specification import NetworkSpecification
from eann_lite.plots import labelled_pairs, learning_curve_figure, parity_figure, write_parity_plots
from eann_lite.progress import BarProgress, Clock, LineProgress, progress_for
from eann_lite.report import describe, metrics_table, write_report
from eann_lite.training.settings import FitSettings

ERRORS = {
    "n_structures": 20, "n_atoms": 100, "energy_rmse_mev_per_atom": 8.7, "energy_mae_mev_per_atom": 5.2,
    "energy_rmse_mev": 43.5, "energy_mae_mev": 26.0, "forces_rmse_mev_per_ang": 160.4, "forces_mae_mev_per_ang": 81.25,
    "stress_rmse_mev_per_ang3": None, "stress_mae_mev_per_ang3": None,
}  # fmt: skip


def history(epochs, **changes):
    """Rows of a fit whose errors fall."""
    return [
        {
            "epoch": k, "seconds": 0.5 * k, "loss": 2.0 / k, "validation_loss": 3.0 / k, "energy_rmse_mev": 900.0 / k,
            "energy_mae_mev": 500.0 / k, "forces_rmse_mev_per_ang": 3000.0 / k, "forces_mae_mev_per_ang": 2000.0 / k,
            "best": k < 4,
        }
        | changes
        for k in range(1, epochs + 1)
    ]  # fmt: skip


def predictions(structures, atoms=5, parts=("train", "valid", "test")):
    """Arrays as in predictions.npz, with random errors."""
    rng = np.random.default_rng(1)
    arrays = {}
    for part in parts:
        energy, forces = rng.normal(-1000.0, 2.0, structures), rng.normal(size=(structures * atoms, 3))
        arrays |= {
            f"{part}_energy_true": energy,
            f"{part}_energy_predicted": energy + rng.normal(0.0, 0.04, structures),
            f"{part}_n_atoms": np.full(structures, atoms),
            f"{part}_forces_true": forces,
            f"{part}_forces_predicted": forces + rng.normal(0.0, 0.1, forces.shape),
        }
    return arrays


def small_model(**provenance):
    small = NetworkSpecification(widths=(4,))
    specification = Specification(
        elements=("C", "H"), cutoff=4.0, radial=2, densities=4, recursions=1, network=small, recursion_network=small
    )
    return Model(specification, initial_parameters(specification, seed=0), provenance=provenance)


@pytest.fixture
def finished_fit(tmp_path):
    """Directory with the files that a fit leaves."""
    write_config(FitSettings(train=["<b>&.xyz"], epochs=3), tmp_path / "config.toml")
    (tmp_path / "metrics.json").write_text(json.dumps({"train": ERRORS, "valid": ERRORS, "test": None}))
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history(3)))
    np.savez(tmp_path / "predictions.npz", **predictions(20, parts=("train", "valid")))
    data = {"train": {"fingerprint": "a1b2c3", "n_structures": 20, "sources": ["<b>&.xyz"]}}
    small_model(data=data, versions={"numpy": "9.9.9"}, seed=7, epochs=3).save(tmp_path / "model.npz")
    return tmp_path


# ---- table ----------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_part_and_its_files_and_no_column_without_numbers():
    table = metrics_table(
        {"train": ERRORS, "valid": ERRORS | {"forces_rmse_mev_per_ang": None, "forces_mae_mev_per_ang": None},
         "test": None, "by_file": {"train": {"a.xyz": ERRORS, "b.xyz": ERRORS}}}
    )  # fmt: skip
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["train", "a.xyz", "b.xyz", "valid"]
    assert "stress" not in table and "test" not in table
    assert lines[2].split() == ["train", "20", "43.5", "26", "8.7", "5.2", "160", "81.2"]
    assert lines[-1].split()[-2:] == ["-", "-"]
    assert len({len(line) for line in lines}) == 1


# ---- plots ----------------------------------------------------------------------------------------------------------


def test_parity_plots_drop_missing_labels_and_give_energies_per_atom():
    arrays = predictions(4, parts=("test",))
    arrays["test_energy_true"][1] = np.nan
    arrays["test_forces_true"][:5] = np.nan
    energies, forces = labelled_pairs(arrays, "energy"), labelled_pairs(arrays, "forces")
    assert energies["test"][0] == pytest.approx(arrays["test_energy_true"][[0, 2, 3]] / 5)
    assert forces["test"][1].shape == (45,)
    arrays["test_forces_true"][:] = np.nan
    assert labelled_pairs(arrays, "forces") == {}


def test_parity_plots_tell_the_error_of_each_part_and_carry_units():
    figure = parity_figure({"test": (np.zeros(2), np.array([0.003, -0.004]))}, ("E", "energy (eV/atom)", "meV/atom"))
    parity, distribution = figure.axes
    assert parity.get_title() == "test: RMSE 3.54, MAE 3.5 meV/atom"
    assert parity.get_xlabel() == "reference energy (eV/atom)"
    assert distribution.get_xscale() == "log" and "meV/atom" in distribution.get_xlabel()


@pytest.mark.parametrize("structures", [1, 2, 400])
def test_plots_are_png_files_for_few_and_for_many_points(tmp_path, structures):
    paths = write_parity_plots(tmp_path, predictions(structures))
    assert [path.name for path in paths] == ["parity_energy.png", "parity_forces.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_a_part_without_any_error_can_be_plotted(tmp_path):
    arrays = predictions(3, parts=("test",))
    arrays["test_energy_predicted"] = arrays["test_energy_true"]
    assert len(write_parity_plots(tmp_path, arrays)) == 2


def test_nothing_is_written_without_labels(tmp_path):
    arrays = {name: value * np.nan if "true" in name else value for name, value in predictions(3).items()}
    assert write_parity_plots(tmp_path, arrays) == [] and list(tmp_path.iterdir()) == []


def test_the_learning_curve_marks_the_best_epoch_and_leaves_out_what_has_no_label():
    full = learning_curve_figure(history(40))
    assert [axes.get_ylabel() for axes in full.axes] == [
        "loss", "validation energy error (meV)", "validation forces error (meV/Å)",
    ]  # fmt: skip
    assert all(axes.get_yscale() == "log" for axes in full.axes)
    assert "best epoch 3" in full.axes[0].get_title()
    without = learning_curve_figure(history(1, forces_rmse_mev_per_ang=None, forces_mae_mev_per_ang=None))
    assert len(without.axes) == 2


def test_a_loss_of_zero_does_not_break_the_learning_curve(tmp_path):
    from eann_lite.plots import write_learning_curve

    assert write_learning_curve(tmp_path, history(3, loss=0.0)).stat().st_size > 1000


# ---- page -----------------------------------------------------------------------------------------------------------


def test_the_report_is_one_page_that_needs_no_other_file(finished_fit):
    page = write_report(finished_fit).read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 3 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in page and "<script" not in page
    for name in ("parity_energy.png", "parity_forces.png", "learning_curve.png"):
        assert (finished_fit / name).is_file()


def test_the_report_tells_errors_settings_data_versions_and_use(finished_fit):
    page = write_report(finished_fit).read_text(encoding="utf-8")
    for text in ("43.5", "160", "a1b2c3", "numpy 9.9.9", "epochs = 3", "eann_lite.EANNCalculator(model)", "REANN"):
        assert text in page


def test_names_of_files_are_escaped_in_the_page(finished_fit):
    page = write_report(finished_fit).read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;.xyz" in page and "<b>" not in page


def test_a_report_can_be_made_again_and_is_the_same(finished_fit):
    first = write_report(finished_fit).read_bytes()
    assert write_report(finished_fit).read_bytes() == first


@pytest.mark.parametrize("name", ["metrics.json", "history.jsonl", "config.toml", "predictions.npz", "model.npz"])
def test_a_missing_file_is_named(finished_fit, name):
    (finished_fit / name).unlink()
    with pytest.raises(InputError, match=name):
        write_report(finished_fit)


def test_the_description_of_a_model_is_plain_data_also_without_provenance():
    data = json.loads(json.dumps(describe(small_model())))
    assert data["kind"] == "REANN with T = 1" and data["metrics"] is None
    assert data["reference_energies_ev"] == {"C": 0.0, "H": 0.0} and data["n_parameters"] > 10


# ---- progress -------------------------------------------------------------------------------------------------------


class FakeTime:
    """A clock that stands still until it is told to go on."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_time_left_comes_from_the_speed_since_the_first_report():
    time = FakeTime()
    clock = Clock(time)
    time.now += 100.0  # compiling
    assert clock.seconds_left(0.2) is None
    time.now += 10.0
    assert clock.seconds_left(0.4) == pytest.approx(30.0)
    assert clock.seconds_left(1.0) == 0.0


def test_without_a_terminal_a_line_comes_at_each_tenth_and_each_minute():
    time, stream = FakeTime(), io.StringIO()
    progress = LineProgress(stream, time)
    progress.start("epochs", FitSettings())
    for k in range(1, 101):
        time.now += 0.1
        progress.update(k / 100, k, {"energy_rmse_mev": 43.5, "forces_rmse_mev_per_ang": 160.2} if k % 2 else None)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert re.fullmatch(r" 50%, epoch 50, 43.5 meV, 160 meV/A, 0:05 left, ends \d\d:\d\d:\d\d", lines[5])

    time, stream = FakeTime(), io.StringIO()
    progress = LineProgress(stream, time)
    progress.start("time", FitSettings())
    for _ in range(180):
        time.now += 1.0
        progress.update(0.01, 0, {})
    progress.finish("done")
    assert len(stream.getvalue().splitlines()) == 1 + 3 + 1


def test_the_bar_fits_into_80_columns_and_shows_errors_and_time(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = progress_for(stream)
    assert isinstance(progress, BarProgress)
    monkeypatch.setattr("eann_lite.progress.REDRAW_SECONDS", 0.0)
    progress.start("epochs", FitSettings())
    progress.update(0.25, 1234, {"energy_rmse_mev": 1443.5, "forces_rmse_mev_per_ang": 16000.2})
    progress.update(0.5, 1235, None)
    progress.finish("done")
    shown = re.split(r"[\r\n]", stream.getvalue())
    last = [line for line in shown if "1235" in line][-1]
    assert "1444 meV, 16000 meV/A" in last and "left, ends" in last and " 50%" in last
    assert max(map(len, shown)) <= 80
    assert stream.getvalue().endswith("done\n")


def test_progress_is_lines_without_a_terminal_and_nothing_when_quiet():
    assert isinstance(progress_for(io.StringIO()), LineProgress)
    assert progress_for(io.StringIO(), quiet=True) is None


def test_finishing_before_the_start_does_nothing():
    stream = io.StringIO()
    BarProgress(stream).finish("")
    LineProgress(stream).finish("")
    assert stream.getvalue() == ""
