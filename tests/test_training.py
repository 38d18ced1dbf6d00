"""Loss and gradient, solvers, splits, checkpoints, and the fit as a function."""

import json
import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from small_fits import SMALL, frames

import eann_lite
from eann_lite.batches import draw_batch
from eann_lite.config import read_config, settings_from
from eann_lite.errors import InputError
from eann_lite.model.initial import (
    fit_reference_energies, initial_parameters, scale_to_data, shift_of_reference_energies,
)  # fmt: skip
from eann_lite.model.pool import pieces_of
from eann_lite.model.specification import NetworkSpecification, Specification
from eann_lite.structures import Structure, as_structures
from eann_lite.structures.distances import shortest_distances
from eann_lite.structures.units import BOHR, HARTREE
from eann_lite.training import committee
from eann_lite.training.checkpoint import load_checkpoint, save_checkpoint
from eann_lite.training.copies import displaced_copies
from eann_lite.training.loss import Loss
from eann_lite.training.metrics import error_metrics
from eann_lite.training.objective import GRADIENT_ATOMS, Evaluator, Predictions, labelled_set, sum_by_structure
from eann_lite.training.resolve import resolve
from eann_lite.training.run import Run
from eann_lite.training.settings import FitSettings
from eann_lite.training.solvers import trainer_class
from eann_lite.training.splits import split


def problem(structures, **changes):
    """(evaluator, vector, labelled set) of a small random model."""
    network = NetworkSpecification((6, 5), 1, "tanh_like", layer_norm=True)
    specification = Specification(
        elements=("H", "C"), cutoff=4.0, max_degree=2, radial=4, densities=6, recursions=1, network=network,
        recursion_network=network, **changes,
    )  # fmt: skip
    labelled = labelled_set(structures, specification)
    parameters, constants, _ = scale_to_data(
        specification, initial_parameters(specification, 3), labelled.packed, np.arange(len(structures))
    )
    evaluator = Evaluator(specification, constants | {"energy_scale": np.array(0.7)})
    return evaluator, evaluator.layout.pack(parameters), labelled


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("repulsion", [None, "zbl"])
def test_gradient_of_the_loss_is_its_central_difference(periodic, repulsion):
    structures = as_structures(frames(4, periodic))
    # Labels may be missing one by one, and structures may carry weights.
    structures[1] = Structure(**{**vars(structures[1]), "energy": None, "weight": 2.5})
    structures[2] = Structure(**{**vars(structures[2]), "forces": None, "stress": None})
    evaluator, vector, labelled = problem(structures, repulsion=repulsion)
    loss = Loss(energy_weight=3.0, forces_weight=0.7, stress_weight=0.4, huber=0.5, forces_huber=0.3)
    everything = np.arange(4)

    def value(at):
        evaluator.set_parameters(at)
        return evaluator.loss_and_gradient(labelled, everything, loss)

    _, gradient = value(vector)
    rng = np.random.default_rng(0)
    for name, (start, stop, _) in evaluator.layout.places.items():
        direction = np.zeros_like(vector)
        direction[start:stop] = rng.normal(size=stop - start)

        def along(h):
            return (value(vector + h * direction)[0] - value(vector - h * direction)[0]) / (2 * h)

        # The error of the plain difference, of order h^2, is taken out by a second step width.
        numeric = (4.0 * along(3e-6) - along(6e-6)) / 3.0
        assert gradient @ direction == pytest.approx(numeric, rel=1e-7, abs=1e-8 * np.abs(gradient).max()), name


def test_loss_by_structure_adds_up_to_what_the_gradient_belongs_to():
    structures = as_structures(frames(5, periodic=True))
    evaluator, vector, labelled = problem(structures)
    loss = Loss(huber=0.1, forces_huber=0.3)
    evaluator.set_parameters(vector)
    total, _ = evaluator.loss_and_gradient(labelled, np.arange(5), loss)
    assert loss.by_structure(labelled, evaluator.predict(labelled)).sum() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_threads_and_pieces_do_not_change_a_bit(precision):
    structures = as_structures(frames(120))  # More than two pieces: of two, any order has the same sum.
    problem_, vector, labelled = problem(structures)
    assert len(pieces_of(labelled.packed.offsets, np.arange(120), GRADIENT_ATOMS)[0]) > 2
    one, two = (Evaluator(problem_.specification, problem_.sweeps[0].constants, n, precision) for n in (1, 2))
    results = []
    for evaluator in (one, two):
        evaluator.set_parameters(vector)
        value, gradient = evaluator.loss_and_gradient(labelled, np.arange(120), Loss())
        results.append((value, gradient.tobytes(), evaluator.predict(labelled).forces.tobytes()))
    assert results[0] == results[1]


def labelled_atoms():
    """A LabelledSet of structures of one and two atoms, whose labels are all zero."""
    structures = [
        Structure(
            np.ones(n, int), 9.0 * np.arange(3.0 * n).reshape(n, 3), 90.0 * np.eye(3), np.ones(3, bool), 0.0,
            np.zeros((n, 3)), np.zeros((3, 3)),
        )
        for n in (1, 2)
    ]  # fmt: skip
    return labelled_set(structures, Specification(elements=("H",), cutoff=3.0))


def test_loss_of_forces_is_the_square_of_small_errors_and_linear_in_large_ones():
    labelled, no_strains = labelled_atoms(), np.zeros((2, 3, 3))
    forces = np.array([[0.3, 0.0, 0.4], [3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    which = np.arange(2), np.arange(3), np.array([0, 1, 1])
    loss = Loss(forces_weight=6.0, forces_huber=2.0)
    losses, _, slope, _ = loss.terms(labelled, *which, np.zeros(2), forces, no_strains)
    np.testing.assert_allclose(losses, [2.0 * 0.25, 2.0 * (2.0 * 5.0 - 2.0)])
    np.testing.assert_allclose(slope, [[1.2, 0.0, 1.6], [2.4, 0.0, 3.2], [0.0, 0.0, 0.0]])
    squares, *_ = Loss(forces_weight=3.0, forces_huber=np.inf).terms(labelled, *which, np.zeros(2), forces, no_strains)
    np.testing.assert_allclose(squares, [0.25, 25.0 / 2.0])
    with pytest.raises(InputError, match="forces_huber = 0 eV/Angstrom: expected a positive number"):
        Loss(forces_huber=0)


def test_the_loss_of_a_batch_is_that_of_its_structures():
    rng, loss = np.random.default_rng(0), Loss(1.5, 2.0, 3.0, huber=0.5, forces_huber=0.5)
    positions, cell = rng.normal(size=(4, 5, 3)), 9.0 * np.eye(3)
    structures = [
        Structure(np.array([6, 1, 1, 1, 1]), x, cell, np.ones(3, bool), 0.1 * n, 0.2 * x, 0.01 * cell)
        for n, x in enumerate(positions)
    ]
    specification = Specification(elements=("C", "H"), cutoff=3.0)
    labelled, chosen = labelled_set(structures, specification), np.array([2, 0, 3])
    labelled.forces[7] = np.nan
    batch = draw_batch(labelled.packed, chosen, 2)
    atom_energies, forces = rng.normal(size=15), rng.normal(size=(15, 3))
    virials = rng.normal(size=(15, 3, 3))
    total, *found = loss.of_batch(labelled, chosen, batch, atom_energies, forces, virials)
    energies, strains = (sum_by_structure(batch, atomic) for atomic in (atom_energies, virials))
    losses, *expected = loss.terms(labelled, chosen, batch.order, batch.structure, energies, forces, strains)
    assert total == pytest.approx(losses.sum(), rel=1e-14) and total > 0.0
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("what", ["energies", "forces", "strains"])
def test_a_prediction_that_is_not_finite_is_no_missing_label(what):
    """Else a model that has diverged would be the best one there is."""
    predictions = {"energies": np.zeros(2), "forces": np.zeros((3, 3)), "strains": np.zeros((2, 3, 3))}
    predictions[what][-1] = np.nan
    labelled, predictions = labelled_atoms(), Predictions(**predictions)
    losses = Loss().by_structure(labelled, predictions)
    assert losses[0] == 0.0 and np.isnan(losses[1])
    name = {"energies": "energy_rmse_mev", "forces": "forces_mae_mev_per_ang", "strains": "stress_rmse_mev_per_ang3"}
    assert np.isnan(error_metrics(labelled, predictions)[name[what]])
    getattr(labelled, what)[-1] = np.nan
    assert Loss().by_structure(labelled, predictions).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("periodic", [False, True])
def test_displaced_copies_have_the_mean_of_the_committee_and_no_closer_atoms(periodic):
    structures = as_structures(frames(6, periodic))
    models = [eann_lite.fit(structures, epochs=1, seed=seed, out=None, **SMALL).model for seed in (0, 1)]
    before = [structure.positions.copy() for structure in structures]
    copies = displaced_copies(models, structures, copies=3, displacement=0.3)
    assert len(copies) == 18
    closest = shortest_distances(structures).by_elements
    for name, (distance, _) in shortest_distances(copies).by_elements.items():
        assert distance >= closest[name][0]
    for n, copy in enumerate(copies):
        moved = copy.positions - structures[n % 6].positions
        assert 0.0 < np.abs(moved).max() < 1.5 and copy.stress is None
        found = [model.evaluate(copy) for model in models]
        assert copy.energy == pytest.approx(np.mean([f.energy for f in found]), abs=1e-9)
        np.testing.assert_allclose(copy.forces, np.mean([f.forces for f in found], axis=0), atol=1e-9)
    assert all((structure.positions == old).all() for structure, old in zip(structures, before))
    again = displaced_copies(models, structures, copies=3, displacement=0.3)
    assert all((a.positions == b.positions).all() and a.energy == b.energy for a, b in zip(copies, again))
    with pytest.raises(InputError, match="no models: expected a list with at least one"):
        displaced_copies([], structures)


@pytest.mark.parametrize("solver", ["soap", "adam", "lbfgs", "least_squares"])
def test_every_solver_makes_the_training_error_small(solver):
    epochs = {"soap": 200, "adam": 200, "lbfgs": 100, "least_squares": 10}[solver]
    # With larger steps these few structures train chaotically: another rounding ends at another error.
    settings = SMALL | {"seed": 2}
    result = eann_lite.fit(
        frames(24), solver=solver, epochs=epochs, batch=6, step_size=2e-3, weight_decay=0.0, out=None, **settings
    )
    structures = as_structures(frames(24))
    spread = np.std([s.forces for s in structures])
    assert result.metrics["train"]["forces_rmse_mev_per_ang"] < 300.0 * spread
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]


def test_a_second_order_finish_never_worsens_the_validation_score():
    settings = {"epochs": 5, "batch": 6, "out": None, **SMALL}
    plain = eann_lite.fit(frames(24), **settings)
    finished = eann_lite.fit(frames(24), finish=True, **settings)
    assert min(r["validation_score"] for r in finished.history) <= min(r["validation_score"] for r in plain.history)


def test_a_fit_repeated_with_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    settings = {"epochs": 3, "batch": 6, "out": None, **SMALL}
    one, two = (eann_lite.fit(frames(20), seed=4, **settings).model.vector for _ in range(2))
    other = eann_lite.fit(frames(20), seed=5, **settings).model.vector
    assert one.tobytes() == two.tobytes() and one.tobytes() != other.tobytes()


class StopAfter:
    """Progress that interrupts a fit after some updates."""

    def __init__(self, updates):
        self.left = updates

    def start(self, unit, settings):
        pass

    def update(self, fraction, epoch, row):
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("stopped on purpose")

    def finish(self, message):
        pass


@pytest.mark.parametrize(("solver", "updates"), [("soap", 4), ("soap", 7), ("adam", 5), ("lbfgs", 1)])
def test_a_stopped_fit_resumes_with_the_same_bits(tmp_path, solver, updates):
    settings = {
        "epochs": 4 if solver != "lbfgs" else 60,
        "batch": 6,
        "solver": solver,
        "checkpoint_seconds": 1e-9,
        **SMALL,
    }
    whole = eann_lite.fit(frames(20), out=tmp_path / "whole", **settings)
    with pytest.raises(RuntimeError, match="on purpose"):
        eann_lite.fit(frames(20), out=tmp_path / "parts", progress=StopAfter(updates), **settings)
    resumed = eann_lite.fit(frames(20), out=tmp_path / "parts", resume=True, **settings)
    assert resumed.model.vector.tobytes() == whole.model.vector.tobytes()
    assert (tmp_path / "parts/model.npz").read_bytes() == (tmp_path / "whole/model.npz").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "parts/history.jsonl").read_text().splitlines()]
    assert [row["validation_loss"] for row in rows] == [row["validation_loss"] for row in whole.history]


@pytest.mark.parametrize("updates", [4, 9, 20])
def test_a_fit_with_a_committee_learns_from_copies_and_resumes_with_the_same_bits(tmp_path, updates):
    # 18 structures to train on: 6 steps for each model of the committee, and 27 for one pass over 9 times as many.
    settings = {"epochs": 2, "batch": 6, "committee": 2, "checkpoint_seconds": 1e-9, **SMALL}
    whole = eann_lite.fit(frames(20), out=tmp_path / "whole", **settings)
    with pytest.raises(RuntimeError, match="on purpose"):
        eann_lite.fit(frames(20), out=tmp_path / "parts", progress=StopAfter(updates), **settings)
    resumed = eann_lite.fit(frames(20), out=tmp_path / "parts", resume=True, **settings)
    assert resumed.model.vector.tobytes() == whole.model.vector.tobytes()
    for model in ("model.npz", "committee-0/model.npz", "committee-1/model.npz"):
        assert (tmp_path / "parts" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()
    alone = eann_lite.fit(frames(20), out=None, **settings | {"committee": 0})
    member = eann_lite.load(tmp_path / "whole/committee-0/model.npz")
    assert member.vector.tobytes() == alone.model.vector.tobytes() != whole.model.vector.tobytes()
    # Errors are those of the structures that were given, not of their copies.
    assert whole.metrics["train"]["n_structures"] == alone.metrics["train"]["n_structures"] == 18
    assert whole.history[-1]["step"] == 18 * 9 // 6
    # What a model of the committee was fitted to is what its configuration says, but for the test structures.
    again = replace(settings_from(tmp_path / "whole/committee-1/config.toml"), out=None).to_dict()
    again = eann_lite.fit(frames(20), **{name: value for name, value in again.items() if name not in ("train", "test")})
    member = eann_lite.load(tmp_path / "whole/committee-1/model.npz")
    assert member.vector.tobytes() == again.model.vector.tobytes()


@pytest.mark.parametrize(("epochs", "models"), [(7999.0, 0), (8000.0, 5)])
def test_a_committee_is_the_default_where_there_is_time_for_many_epochs(tmp_path, monkeypatch, epochs, models):
    settings = {"out": tmp_path, "minutes": 10.0, "batch": 6, **SMALL}
    began = []
    monkeypatch.setattr(committee, "epochs_within_the_time", lambda run, started: epochs)
    monkeypatch.setattr(Run, "complete", lambda run, progress, started: began.append(run.settings) or stop())
    for resume in (False, True):
        with pytest.raises(RuntimeError, match="on purpose"):
            eann_lite.fit(frames(20), resume=resume, **settings)
        # A resumed fit does what it did, whatever the machine can do now.
        epochs = 7999.0 if models else 8000.0
        monkeypatch.setattr(committee, "has_checkpoint", lambda out: True)
        assert read_config(tmp_path / "config.toml")["committee"] == models
        assert [one.out for one in began] == [str(tmp_path / "committee-0" if models else tmp_path)] * (1 + resume)


def test_epochs_that_the_time_allows_are_measured_where_there_may_be_many(monkeypatch):
    measured = []
    monkeypatch.setattr(Run, "complete", lambda run, progress, started: measured.append(run) or stop())
    for limits in ({"minutes": 10.0}, {"minutes": 1e-3}, {"epochs": 9000}, {"minutes": 10.0, "solver": "lbfgs"}):
        with pytest.raises(RuntimeError, match="on purpose"):
            eann_lite.fit(frames(20), out=None, batch=6, committee=0, **limits, **SMALL)
    found = [committee.epochs_within_the_time(run, time.monotonic()) for run in measured]
    # 18 structures: a step takes 100 us to 100 ms.
    assert 2000 < found[0] < 2e6 and 0 < found[1] < 5000 and found[2:] == [0.0, 0.0]


def test_a_checkpoint_of_other_settings_is_refused_before_a_committee_is_fitted(tmp_path):
    settings = {"epochs": 1, "batch": 6, "out": tmp_path, **SMALL}
    eann_lite.fit(frames(20), committee=0, **settings)
    with pytest.raises(InputError, match="was made with committee = 0, now committee = 2"):
        eann_lite.fit(frames(20), committee=2, resume=True, **settings)
    assert not (tmp_path / "committee-0").exists()


def stop():
    raise RuntimeError("stopped on purpose")


def test_a_committee_without_the_time_for_an_epoch_is_refused(monkeypatch):
    with pytest.raises(InputError, match="compiling and reading took .* s, all of the committee's half. Give more"):
        eann_lite.fit(frames(20), out=None, minutes=1e-6, committee=2, batch=6, **SMALL)
    monkeypatch.setattr("eann_lite.training.fit.minutes_of_a_member", lambda run, started: 1e-6)
    with pytest.raises(InputError, match="did not see all of its 18 structures once in its 0 s. Give more minutes, or"):
        eann_lite.fit(frames(20), out=None, minutes=1.0, committee=2, batch=6, **SMALL)
    with pytest.raises(InputError, match="committee = -1: expected a whole number, 0 for none"):
        eann_lite.fit(frames(20), out=None, committee=-1, **SMALL)


def test_resuming_with_other_settings_or_data_is_refused(tmp_path):
    settings = {"epochs": 1, "batch": 6, "out": tmp_path, **SMALL}
    eann_lite.fit(frames(20), **settings)
    with pytest.raises(InputError, match="was made with step_size = 0.002, now step_size = 0.1"):
        eann_lite.fit(frames(20), resume=True, **settings, step_size=0.1)
    with pytest.raises(InputError, match="are not those the fit was started with"):
        eann_lite.fit(frames(21), resume=True, **settings)


def test_a_checkpoint_from_before_there_was_a_choice_of_precision_is_one_of_float64(tmp_path):
    settings = {"batch": 6, "out": tmp_path, **SMALL}
    eann_lite.fit(frames(20), epochs=1, precision="float64", **settings)
    header, arrays = load_checkpoint(tmp_path / "checkpoint.npz")
    del header["settings"]["precision"]
    save_checkpoint(tmp_path / "checkpoint.npz", header, arrays)
    with pytest.raises(InputError, match="was made with precision = 'float64', now precision = 'float32'"):
        eann_lite.fit(frames(20), epochs=2, resume=True, **settings)
    assert eann_lite.fit(frames(20), epochs=2, resume=True, precision="float64", **settings).history[-1]["epoch"] == 2


def test_split_is_disjoint_complete_and_by_seed():
    parts = split(50, (0.1, 0.3), seed=2)
    assert [len(part) for part in parts] == [5, 15, 30]
    assert sorted(np.concatenate(parts)) == list(range(50))
    assert not np.array_equal(parts[0], split(50, (0.1, 0.3), seed=3)[0])
    with pytest.raises(InputError, match="leave none to train on"):
        split(2, (0.5, 0.5), seed=0)


def test_a_split_keeps_every_element_in_training_and_else_changes_nothing():
    common = [{1, 6}] * 40
    lost = 0
    for seed in range(30):
        rare = [*common[:17], {1, 29}, *common[17:30], {8, 29}, *common[30:]]
        plain, kept = split(42, (0.2, 0.3), seed), split(42, (0.2, 0.3), seed, rare)
        assert [len(part) for part in kept] == [8, 13, 21]
        assert sorted(np.concatenate(kept)) == list(range(42))
        assert set().union(*(rare[i] for i in kept[2])) == {1, 6, 8, 29}
        missing = {1, 6, 8, 29} - set().union(*(rare[i] for i in plain[2]))
        lost += bool(missing)
        same = all(np.array_equal(one, other) for one, other in zip(plain, kept))
        assert same == (not missing)
        again = split(42, (0.2, 0.3), seed, rare)
        assert all(np.array_equal(one, other) for one, other in zip(kept, again))
    assert 5 < lost < 25
    with pytest.raises(InputError, match="3 structures, split by this seed, leave none with .* each of the 2 left has"):
        split(3, (0.3,), 0, [{1}, {6}, {8}])
    # Structures that hold an element alone do not leave the training part for another one.
    for seed in range(20):
        _, train = split(4, (0.25,), seed, [{1, 8}, {1, 6}, {1}, {29}])
        assert sorted(train) == [0, 1, 3]


def test_a_split_tries_each_structure_that_has_what_is_missing():
    elements = [{1}, {4}, {2}, {1, 2, 3}]
    *_, train = split(4, (0.2, 0.2), 121, elements)
    assert set().union(*(elements[i] for i in train)) == {1, 2, 3, 4}


def test_a_rare_element_is_fitted_whatever_the_split():
    rare = frames(20)
    rare[3].numbers[1] = 8
    rare[3].calc.atoms.numbers[1] = 8
    for seed in range(6):
        settings = SMALL | {"epochs": 1, "batch": 6, "valid": 0.4, "test": 0.4, "split_seed": seed, "out": None}
        assert eann_lite.fit(rare, **settings).model.specification.elements == ("H", "C", "O")


def test_seeds_below_zero_are_refused():
    for name in ("seed", "split_seed"):
        with pytest.raises(InputError, match=f"{name} = -1: expected a whole number of at least 0"):
            FitSettings(**{name: -1})


def test_metrics_of_known_errors_and_of_missing_labels():
    structures = as_structures(frames(3))
    labelled = labelled_set(structures, Specification(elements=("H", "C"), cutoff=4.0))
    shifted = Predictions(labelled.energies + [0.004, -0.004, 0.0], labelled.forces + 0.002, labelled.strains)
    metrics = error_metrics(labelled, shifted)
    assert metrics["energy_rmse_mev"] == pytest.approx(4 * np.sqrt(2 / 3))
    assert metrics["energy_mae_mev_per_atom"] == pytest.approx(8 / 12)
    assert metrics["forces_rmse_mev_per_ang"] == pytest.approx(2.0)
    assert metrics["stress_rmse_mev_per_ang3"] is None
    assert (metrics["n_structures"], metrics["n_atoms"]) == (3, 12)


def test_reference_energies_share_out_what_compositions_cannot_tell():
    np.testing.assert_allclose(fit_reference_energies([[1, 0], [0, 1], [2, 1]], [-1, -5, -7]), [-1, -5])
    # Only CH4: the smallest solution, -17 * (1, 4) / 17.
    np.testing.assert_allclose(fit_reference_energies([[1, 4], [1, 4]], [-17, -17]), [-1, -4])


def test_what_a_model_leaves_of_the_energies_shifts_the_reference_energies_as_far_as_structures_tell():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (2000, 2))
    shift = shift_of_reference_energies(counts, counts @ [0.02, -0.03], np.ones(2000))
    np.testing.assert_allclose(shift, [0.02, -0.03], rtol=0.01)
    # One structure in a thousand with another hydrogen, half an eV off, says little; and nothing with the weight 0.
    odd = np.array([[60, 120]] * 1000 + [[60, 121]])
    rest = np.append(np.zeros(1000), 0.5)
    assert np.abs(shift_of_reference_energies(odd, rest, np.ones(1001))).max() < 1e-3
    assert not shift_of_reference_energies(odd, rest, np.append(np.ones(1000), 0.0)).any()
    # Nor does a broken energy; and weights may have any unit.
    rest = counts @ [0.02, -0.03] + 0.01 * rng.standard_normal(2000)
    found = shift_of_reference_energies(counts, rest, np.ones(2000))
    np.testing.assert_allclose(shift_of_reference_energies(counts, rest, np.full(2000, 1e-9)), found, rtol=1e-9)
    broken = shift_of_reference_energies(counts, np.where(np.arange(2000) < 20, 300.0, rest), np.ones(2000))
    np.testing.assert_allclose(broken, found, atol=1e-3)


def test_energies_without_weight_do_not_count_among_those_that_tell_reference_energies(tmp_path):
    counts, error = [[60, 121]], [0.5]
    alone = shift_of_reference_energies(counts, error, [1.0])
    beside = shift_of_reference_energies(counts * 1001, error * 1001, [1.0] + [0.0] * 1000)
    assert beside == pytest.approx(alone, rel=1e-12)
    structures = as_structures(frames(20))
    broken = replace(structures[0], energy=1e5, numbers=[1] * len(structures[0].numbers), weight=0.0)
    settings = {"epochs": 1, "valid": structures[:6], "out": None, "batch": 6, **SMALL}
    with_it, without = (eann_lite.fit(s, **settings).model for s in ([*structures, broken], structures))
    found = [m.constants["reference_energies"] for m in (with_it, without)]
    assert found[0] == pytest.approx(found[1], abs=1.0)


def test_a_fitted_model_leaves_the_middle_of_the_training_energies_where_it_is():
    structures = as_structures(frames(60))
    # Of half of them the energies are wrong, and have no weight.
    bad = [replace(s, energy=s.energy + 50.0, weight=0.0) for s in as_structures(frames(120))[60:]]
    settings = {"epochs": 3, "batch": 6, "step_size": 0.02, "out": None, **SMALL}
    result = eann_lite.fit([*structures, *bad], valid=structures[:6], **settings)
    rest = [s.energy - result.model.evaluate(s).energy for s in structures]
    # The middle, as a few close contacts count less; and but for one part in so many of each element's own zero.
    assert abs(np.median(rest)) < 0.3 * np.std(rest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recursion": 2}, "unknown setting 'recursion'. Did you mean 'recursions'"),
        ({"cutoff": 0}, "cutoff = 0: expected a positive number"),
        ({"solver": "magic"}, "solver = 'magic': expected one of auto, soap"),
        ({"threads": 4096}, "threads = 4096: expected a whole number from 1 to"),
        ({"valid": 1.5}, "valid = 1.5: expected a file or a fraction"),
        ({"precision": "half"}, "precision = 'half': expected one of float32, float64."),
        ({"precision": "float32", "solver": "lbfgs"}, "precision = 'float32' with solver = 'lbfgs': expected float64"),
        ({"batch": 0}, "batch = 0: expected a whole number of at least 1"),
        ({"widths": "8"}, "widths = '8': expected a list of whole numbers above 0, such as [64, 64]"),
        ({"widths": [8, "a"]}, "widths = [8, 'a']: expected a list of whole numbers above 0"),
        ({"widths": [8, 0]}, "widths = [8, 0]: expected a list of whole numbers above 0"),
        ({"recursion_widths": []}, "recursion_widths = []: expected a list of whole numbers"),
        ({"valid": []}, "no structures: the list is empty. Give at least one ase.Atoms or Structure."),
        ({"forces_weight": -1.0}, "forces_weight = -1.0: expected a number of at least 0"),
        (
            {"energy_weight": 0, "forces_weight": 0.0, "stress_weight": 0},
            "energy_weight = 0, forces_weight = 0, stress_weight = 0: expected at least one weight above 0",
        ),
        (
            {"energy_weight": 0, "forces_weight": 0},
            "energy_weight = 0, forces_weight = 0, and the training structures have no other labels: nothing would be",
        ),
    ],
)
def test_wrong_settings_are_refused_before_any_work(changes, message):
    with pytest.raises(InputError) as error:
        eann_lite.fit(frames(8), **{"epochs": 1, "out": None, **changes})
    assert message in str(error.value)


def test_no_structures_are_no_paths_and_one_width_is_a_list_of_one():
    with pytest.raises(InputError, match="no structures: the list is empty. Give at least one ase.Atoms or Structure."):
        eann_lite.fit([], out=None)
    model = eann_lite.fit(frames(8), epochs=1, batch=4, out=None, **SMALL | {"widths": 5}).model
    assert model.specification.network.widths == (5,)


def test_structures_that_all_have_no_weight_are_refused():
    structures = [replace(s, weight=0.0) for s in as_structures(frames(8))]
    with pytest.raises(InputError, match=r"all 7 training structures have the weight 0 \(config_weight\)"):
        eann_lite.fit(structures, epochs=1, out=None)


def test_labels_of_atoms_in_memory_may_stand_under_other_names():
    atoms = frames(12)
    for a in atoms:
        a.info["qm_energy"], a.arrays["qm_forces"] = a.calc.results["energy"], a.calc.results["forces"]
        a.calc = None
    keys = {"energy_key": "qm_energy", "forces_key": "qm_forces"}
    result = eann_lite.fit(atoms, epochs=1, batch=6, out=None, **keys, **SMALL)
    assert result.metrics["train"]["forces_rmse_mev_per_ang"] is not None


def test_data_without_energies_are_refused():
    atoms = frames(8)
    for a in atoms:
        a.calc.results.pop("energy")
        a.calc.results.pop("free_energy", None)
    with pytest.raises(InputError, match=r"no energies in the train part \(7 structures.*energy_key"):
        eann_lite.fit(atoms, epochs=1, out=None)


def test_an_element_only_in_the_test_part_is_named():
    other = Atoms("N", [[0, 0, 0]])
    with pytest.raises(InputError, match="atom 0 is N, but the model knows only H, C"):
        eann_lite.fit(frames(8), test=[other], epochs=1, out=None, **SMALL)


def test_an_output_directory_that_cannot_be_made_is_found_before_the_fit(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="output directory .*file.*cannot be written"):
        eann_lite.fit(frames(8), out=tmp_path / "file" / "fit", epochs=1)


def test_every_solver_name_of_the_settings_has_a_trainer():
    for name in ("soap", "adam", "lbfgs", "least_squares"):
        assert FitSettings(solver=name).solver == name and trainer_class(name) is not None


def test_precision_is_single_for_steps_on_batches_alone():
    train = {"train": as_structures(frames(12))}
    for solver, precision in (
        ("auto", "float32"),
        ("adam", "float32"),
        ("lbfgs", "float64"),
        ("least_squares", "float64"),
    ):
        assert resolve(FitSettings(solver=solver), train)[0].precision == precision
    assert resolve(FitSettings(precision="float64"), train)[0].precision == "float64"


def test_weight_decay_has_a_default_that_can_be_changed():
    train = {"train": as_structures(frames(12))}
    assert resolve(FitSettings(), train)[0].weight_decay == 0.05
    assert resolve(FitSettings(weight_decay=0.0), train)[0].weight_decay == 0.0


def test_atoms_in_memory_have_the_units_that_are_named():
    atoms = frames(20)
    settings = {"epochs": 1, "batch": 6, "out": None, **SMALL}
    expected = eann_lite.fit(atoms, **settings)
    in_hartree_and_bohr = []
    for one in atoms:
        other = one.copy()
        other.positions /= BOHR
        energy, forces = one.get_potential_energy() / HARTREE, one.get_forces() * BOHR / HARTREE
        other.calc = SinglePointCalculator(other, energy=energy, forces=forces)
        in_hartree_and_bohr.append(other)
    found = eann_lite.fit(in_hartree_and_bohr, energy_unit="Hartree", length_unit="Bohr", **settings)
    for part in ("train", "valid"):
        known = {name: value for name, value in expected.metrics[part].items() if value is not None}
        assert {name: found.metrics[part][name] for name in known} == pytest.approx(known, rel=1e-5)
    # So they have beside structures; what is a Structure already is in our units.
    mixed = [s if n % 2 else a for n, (s, a) in enumerate(zip(as_structures(atoms), in_hartree_and_bohr))]
    found = eann_lite.fit(mixed, energy_unit="Hartree", length_unit="Bohr", **settings)
    same = pytest.approx(expected.metrics["train"]["energy_rmse_mev"], rel=1e-5)
    assert found.metrics["train"]["energy_rmse_mev"] == same
    again = eann_lite.fit(as_structures(atoms), energy_unit="Hartree", **settings)
    assert again.metrics == expected.metrics


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others")
def test_handlers_of_signals_that_the_program_has_are_its_own(monkeypatch):
    """A fit takes over Ctrl-C where that is heeded, and SIGTERM where the command line does."""
    called = []

    class Asked:
        def start(self, unit, settings):
            pass

        def update(self, fraction, epoch, row):
            if not called:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)

        def finish(self, message):
            pass

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        result = eann_lite.fit(frames(20), epochs=2, batch=6, out=None, progress=Asked(), **SMALL)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert called == [signal.SIGTERM] and result.history[-1]["epoch"] == 2
