"""One fit, from resolved settings to files: start, training, checkpoints, errors of the chosen model."""

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eann_lite.errors import InputError
from eann_lite.model.ahead import compile_ahead, evaluation
from eann_lite.training.parts import PARTS, file_of
from eann_lite.training.provenance import hardware, versions
from eann_lite.training.settings import FitSettings

#: Structures on which densities are scaled before the first step.
SCALING_STRUCTURES = 500
#: Settings that may differ between a fit and its continuation, and that a model file does not tell.
FREE_ON_RESUME = (
    "train", "valid", "test", "split_seed", "epochs", "minutes", "threads", "out", "resume", "checkpoint_seconds",
)  # fmt: skip
#: What fits did before a setting existed, for checkpoints without it.
BEFORE_IT_WAS_A_SETTING = {"precision": "float64", "forces_huber": np.inf, "committee": 0}
#: Names of what a fit and its report write into a directory, beside folders committee-0, ...: all else there is
#: somebody's own.
WRITTEN = (
    "config.toml", "model.npz", "checkpoint.npz", "history.jsonl", "metrics.json", "predictions.npz", "report.html",
    "learning_curve.png", "parity_energy.png", "parity_forces.png",
)  # fmt: skip
#: Iterations of the second-order finish.
FINISH_ITERATIONS = 50


@dataclass(frozen=True)
class FitResult:
    """What a fit gives: model, metrics by part (train, valid, test), history rows, resolved settings, directory.

    Where parts come from several files, ``metrics["by_file"]`` has the errors of each; where labels may not belong
    together, ``metrics["remarks"]`` says so (`eann_lite.training.remarks.remarks_on`).
    """

    model: object
    metrics: dict
    history: list
    settings: FitSettings
    out: Path = None


def prepare_directory(settings):
    """Make the output directory and see that it can be written; its path, or None where there is none."""
    if settings.out is None:
        return None
    out = Path(settings.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".write-test-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"output directory {out}: cannot be written ({error.strerror or error}). Choose another with out (--out)."
        ) from error
    return out


def put_aside_earlier(settings):
    """Put aside what an earlier fit left in the output directory, where this one does not go on with it."""
    aside = place_of_earlier(settings)
    if aside is None:
        return
    earlier = _of_one_fit(Path(settings.out))
    aside.mkdir()
    for path in earlier:
        if path.is_symlink():  # One that is relative would point elsewhere from there.
            (aside / path.name).symlink_to(os.path.realpath(path))
            path.unlink()
        else:
            path.rename(aside / path.name)


def place_of_earlier(settings):
    """Where what an earlier fit left in the output directory goes; None where there is none or this one goes on."""
    out = None if settings.out is None else Path(settings.out)
    if out is None or not out.is_dir() or not _of_one_fit(out) or (settings.resume and has_checkpoint(out)):
        return None
    numbers = [path.name.removeprefix("earlier-") for path in out.glob("earlier-*")]
    return out / f"earlier-{1 + max((int(number) for number in numbers if number.isdecimal()), default=0)}"


def _of_one_fit(out):
    """What a fit left in a directory, or has a name of that."""

    def is_member(path):
        start, number = path.name[:10], path.name[10:]
        return start == "committee-" and number.isdecimal() and (path / "config.toml").exists()

    return [path for path in out.iterdir() if path.name in WRITTEN or is_member(path)]


def has_checkpoint(out):
    """Whether a directory has a checkpoint from which a fit, or the first model of its committee, can go on."""
    return any((Path(out) / place / "checkpoint.npz").exists() for place in (".", "committee-0"))


def as_begun(settings):
    """Settings of a resumed fit, with the weight decay of the fit that it goes on with where it has none of its own.

    The default was larger until 29 November 2026.
    """
    from eann_lite.training.checkpoint import load_checkpoint

    if settings.out is None or not settings.resume or settings.weight_decay is not None:
        return settings
    for place in (".", "committee-0"):
        path = Path(settings.out) / place / "checkpoint.npz"
        if path.exists():
            header, _ = load_checkpoint(path)
            return replace(settings, weight_decay=header["settings"]["weight_decay"])
    return settings


def kernels_of_steps(precision, train):
    """What a fit to structures ``train`` will call until its last step, for ``compile_ahead``."""
    moving = any(s.forces is not None or s.stress is not None for s in train)
    # Whole parts are predicted before the first step.
    names = ("energies", "forces", "tangent", "gradient") if moving else ("energies", "forces", "gradient")
    return [(name, precision) for name in names]


class Run:
    """One fit, from resolved settings to files."""

    def __init__(self, settings, specification, parts, out, threads):
        from eann_lite.structures import fingerprint
        from eann_lite.training.objective import labelled_set

        self.settings, self.specification, self.parts, self.out = settings, specification, parts, out
        self.threads = threads
        compile_ahead(kernels_of_steps(settings.precision, parts["train"]), threads)
        self.sets = {name: labelled_set(parts[name], specification) for name in PARTS if parts[name]}
        #: What the trainer takes, which a committee enlarges, and the settings with the trainer's own limits.
        self.fitted, self.limits = self.sets["train"], settings
        self.data = {
            name: {
                "fingerprint": fingerprint(parts[name]),
                "n_structures": len(parts[name]),
                "sources": sorted({os.path.basename(file_of(s)) for s in parts[name]} - {""}),
            }
            for name in PARTS
            if parts[name]
        }

    def write_config(self):
        """Write the resolved configuration, where there is a directory: that of a fit from its beginning.

        One that says the same stays as it is, with the comments that somebody may have written.
        """
        from eann_lite.config import settings_from, write_config

        if self.out is None:
            return
        path, settings = self.out / "config.toml", replace(self.settings, resume=False)
        try:
            known = settings_from(path) if path.exists() else None
        except InputError:
            known = None
        if known != settings:
            write_config(settings, path)

    def seconds_per_structure(self):
        """How long the gradient of a batch takes, once it is compiled, which this does."""
        from eann_lite.training.loss import Loss
        from eann_lite.training.objective import Evaluator

        parameters, constants, _ = self._start()
        settings = self.settings
        evaluator = Evaluator(self.specification, constants, self.threads, settings.precision)
        evaluator.set_parameters(evaluator.layout.pack(parameters))
        batch, seconds = np.arange(min(settings.batch, self.fitted.packed.n_structures)), []
        for _ in range(4):
            begun = time.monotonic()
            evaluator.loss_and_gradient(self.fitted, batch, Loss())
            seconds.append(time.monotonic() - begun)
        return min(seconds) / batch.size

    def complete(self, progress, started):
        """Train, judge, and write everything; ``started`` is when the fit began (``time.monotonic``)."""
        from eann_lite.memory import keep_freed_memory
        from eann_lite.training.loss import Loss
        from eann_lite.training.objective import Evaluator
        from eann_lite.training.solvers import trainer_class

        keep_freed_memory()
        settings = self.settings
        loss = Loss(
            settings.energy_weight, settings.forces_weight, settings.stress_weight, settings.huber,
            settings.forces_huber,
        )  # fmt: skip
        parameters, self.constants, scales = self._start()
        self.evaluator = Evaluator(self.specification, self.constants, self.threads, settings.precision)
        layout = self.evaluator.layout
        vector, scales = layout.pack(parameters), layout.pack(scales)
        if settings.solver in ("lbfgs", "least_squares"):
            from eann_lite.training.solvers.last_layer import solve_last_layer

            vector = solve_last_layer(self.evaluator.sweeps[0], vector, self.fitted)
        make = trainer_class(settings.solver)
        trainer = make(self.evaluator, vector, scales, loss, self.fitted, self.sets["valid"], self.limits)
        self._resume(trainer)
        # A limit in minutes counts what came before the first step too: reading, scaling, compiling for the steps.
        trainer.seconds += time.monotonic() - started
        if progress is not None:
            unit = "epochs" if settings.epochs and not settings.minutes else "time"
            progress.start(unit, settings)

        def report(row):
            if progress is not None:
                progress.update(
                    trainer.fraction(), trainer.epoch, row or trainer.history[-1] if trainer.history else {}
                )

        def save():
            self._save_checkpoint(trainer)

        trainer.run(save, report)
        save()
        if settings.finish and settings.solver in ("soap", "adam"):
            trainer = self._second_order_finish(trainer, loss, scales)
        # In double precision, as all that judges the model.  Not before: it would have taken a core from the steps.
        compile_ahead(evaluation("float64"), self.threads)
        self._settle_reference_energies(trainer.best)
        model = self._model(trainer)
        metrics = self._finish(model, trainer)
        if progress is not None:
            progress.finish(trainer.stop_reason or "done")
        return FitResult(model, metrics, trainer.history, settings, self.out)

    def _second_order_finish(self, trainer, loss, scales):
        """L-BFGS on the whole training set from the best parameters; they stay if it finds none better.

        It has no checkpoint of its own: a fit killed here does it again from the end of the stochastic part.
        """
        from eann_lite.training.objective import Evaluator
        from eann_lite.training.solvers.full_batch import LbfgsTrainer

        settings = replace(self.settings, epochs=FINISH_ITERATIONS, minutes=None, patience=None)
        evaluator = Evaluator(self.specification, self.constants, self.threads)
        last = LbfgsTrainer(evaluator, trainer.best, scales, loss, self.fitted, self.sets["valid"], settings)
        last.best_score, last.best_epoch = trainer.best_score, trainer.best_epoch
        last.history, last.seconds = trainer.history, trainer.seconds
        last.run(lambda: None, lambda row: None)
        return last

    def _start(self):
        """Starting parameters, constants from the data, and the unit of every parameter."""
        from eann_lite.model.initial import fit_reference_energies, initial_parameters, scale_to_data
        from eann_lite.training.objective import Evaluator, atom_counts

        train = self.sets["train"]
        n = train.packed.n_structures
        sample = np.random.default_rng([self.settings.seed, 3]).permutation(n)[:SCALING_STRUCTURES]
        parameters, constants, scales = scale_to_data(
            self.specification,
            initial_parameters(self.specification, self.settings.seed),
            train.packed,
            np.sort(sample),
            self.settings.precision,
        )
        # What the fixed repulsion alone says is taken off before energies are shared out among the elements.
        without_networks = constants | {"energy_scale": np.zeros(())}
        bare = Evaluator(self.specification, without_networks, self.threads, self.settings.precision)
        bare.set_parameters(bare.layout.pack(parameters))
        fixed = bare.predict(train)
        known = ~np.isnan(train.energies)
        if (known & (train.weights > 0.0)).any():
            known &= train.weights > 0.0
        counts = atom_counts(train, len(self.specification.elements))
        rest = (train.energies - fixed.energies)[known]
        constants["reference_energies"] = fit_reference_energies(counts[known], rest)
        rest = rest - counts[known] @ constants["reference_energies"]
        spread = np.sqrt(np.mean(rest**2 / train.n_atoms[known]))
        forces = (train.forces - fixed.forces)[~np.isnan(train.forces)]
        # Equal energies say nothing about the size of what the networks are to give: forces do, or it is 1 eV.
        if spread < 1e-6 and forces.size:
            spread = np.sqrt(np.mean(forces**2))
        constants["energy_scale"] = np.array(spread if spread > 1e-6 else 1.0)
        return parameters, constants, scales

    def _settle_reference_energies(self, vector):
        """Fit the reference energies once more, to what the chosen model leaves of the training energies.

        Steps move the mean of all energies to and fro; the model that is kept has it where it happened to be.
        """
        from eann_lite.model.initial import shift_of_reference_energies
        from eann_lite.training.objective import Evaluator, atom_counts

        train = self.sets["train"]
        evaluator = Evaluator(self.specification, self.constants, self.threads)
        evaluator.set_parameters(vector)
        known = ~np.isnan(train.energies)
        rest = (train.energies - evaluator.predict(train).energies)[known]
        counts = atom_counts(train, len(self.specification.elements))[known]
        shift = shift_of_reference_energies(counts, rest, train.weights[known])
        self.constants = self.constants | {"reference_energies": self.constants["reference_energies"] + shift}

    def _fixed_settings(self):
        return {name: value for name, value in self.settings.to_dict().items() if name not in FREE_ON_RESUME}

    def _save_checkpoint(self, trainer):
        from eann_lite.io.atomic import write_atomically
        from eann_lite.training.checkpoint import save_checkpoint

        if self.out is None:
            return
        header, arrays = trainer.state()
        save_checkpoint(
            self.out / "checkpoint.npz", header | {"settings": self._fixed_settings(), "data": self.data}, arrays
        )
        text = "".join(json.dumps(row) + "\n" for row in trainer.history)
        write_atomically(self.out / "history.jsonl", lambda file: file.write(text.encode()))

    def checkpoint(self):
        """(header, arrays) of the checkpoint to go on from, or None; InputError where settings or data are others."""
        from eann_lite.training.checkpoint import load_checkpoint

        if not self.settings.resume or self.out is None:
            return None
        if not (self.out / "checkpoint.npz").exists():
            self._check_committee()
            return None
        path = self.out / "checkpoint.npz"
        header, arrays = load_checkpoint(path)
        mine = json.loads(json.dumps(self._fixed_settings()))
        for name, value in mine.items():
            made_with = header["settings"].get(name, BEFORE_IT_WAS_A_SETTING.get(name))
            if made_with != value:
                was, now = (f"no {name}" if given is None else f"{name} = {given!r}" for given in (made_with, value))
                raise InputError(
                    f"{path}: was made with {was}, now {now}. Resume with the same settings, as they stand in "
                    "config.toml of the output directory, or start anew in another one (out)."
                )
        for name, data in self.data.items():
            if header["data"].get(name, {}).get("fingerprint") != data["fingerprint"]:
                raise InputError(
                    f"{path}: the {name} data are not those the fit was started with. Resume with the same files and "
                    "fractions, or start anew in another directory (out)."
                )
        return header, arrays

    def _check_committee(self):
        """InputError where models of a committee stand in the directory, and this fit is to have another one."""
        from eann_lite.config import read_config

        config = self.out / "config.toml"
        if not has_checkpoint(self.out):
            return
        known = read_config(config).get("committee") if config.exists() else None
        if self.settings.committee == 0 or known not in (None, self.settings.committee):
            begun = "a committee" if known is None else f"committee = {known}"
            raise InputError(
                f"{self.out / 'committee-0'}: the fit was begun with {begun}, now committee = "
                f"{self.settings.committee}. Resume with the same settings, or start anew in another directory (out)."
            )

    def _resume(self, trainer):
        found = self.checkpoint()
        if found is not None:
            trainer.restore(*found)

    def _model(self, trainer):
        from eann_lite.model.model import Model

        named = self.evaluator.layout.unpack(trainer.best)
        return Model(self.specification, named, self.constants, provenance={})

    def _finish(self, model, trainer):
        """Bounds of the training densities, errors of the chosen model on every part, and all files."""
        from eann_lite.extrapolation import density_bounds
        from eann_lite.training.metrics import error_metrics
        from eann_lite.training.objective import Evaluator
        from eann_lite.training.remarks import remarks_on

        # Judged in double precision whatever the fit used: so it is what the model file gives.
        evaluator = Evaluator(self.specification, self.constants, self.threads)
        evaluator.set_parameters(model.vector)
        model.bounds = density_bounds(evaluator, self.constants, self.sets["train"].packed)
        metrics, arrays, predicted = {}, {}, {}
        for name in PARTS:
            if name not in self.sets:
                metrics[name] = None
                continue
            labelled = self.sets[name]
            predicted[name] = predictions = evaluator.predict(labelled)
            metrics[name] = error_metrics(labelled, predictions)
            arrays |= {
                f"{name}_energy_true": labelled.energies,
                f"{name}_energy_predicted": predictions.energies,
                f"{name}_n_atoms": labelled.n_atoms,
                f"{name}_forces_true": labelled.forces,
                f"{name}_forces_predicted": predictions.forces,
            }
            by_file = self._by_file(name, labelled, predictions)
            if by_file:
                metrics.setdefault("by_file", {})[name] = by_file
        remarks = remarks_on(self.sets, predicted, self.settings)
        if remarks:
            metrics["remarks"] = remarks
        model.provenance = {
            "data": self.data,
            "settings": self._fixed_settings(),
            "seed": self.settings.seed,
            "split_seed": self.settings.seed if self.settings.split_seed is None else self.settings.split_seed,
            "epochs": trainer.epoch,
            "best_epoch": trainer.best_epoch,
            "metrics": metrics,
            "versions": versions(),
            "hardware": hardware(),
            "units": "eV, Angstrom",
        }
        if self.out is not None:
            self._write(model, metrics, arrays)
        return metrics

    def _by_file(self, part, labelled, predictions):
        """Errors of one part by the file its structures came from, where there are several."""
        from eann_lite.training.metrics import error_metrics
        from eann_lite.training.objective import take

        files = [file_of(s) for s in self.parts[part]]
        result = {}
        for file in sorted(set(files) - {""}):
            index = np.array([q for q, other in enumerate(files) if other == file])
            result[os.path.basename(file)] = error_metrics(*take(labelled, predictions, index))
        return result if len(result) > 1 else None

    def _write(self, model, metrics, arrays):
        from eann_lite.io.atomic import write_atomically

        text = json.dumps(metrics, indent=1)
        write_atomically(self.out / "metrics.json", lambda file: file.write(text.encode()))
        write_atomically(self.out / "predictions.npz", lambda file: np.savez_compressed(file, **arrays))
        model.save(self.out / "model.npz")
