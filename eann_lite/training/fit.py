"""From labelled structures to a fitted, tested and saved model."""

import json
import os
import platform
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from eann_lite.errors import InputError
from eann_lite.training.settings import FitSettings

#: Structures on which densities are scaled before the first step.
SCALING_STRUCTURES = 500
#: Settings that may differ between a fit and its continuation, and that a model file does not tell.
FREE_ON_RESUME = ("train", "valid", "test", "epochs", "minutes", "threads", "out", "resume", "checkpoint_seconds")
#: What fits did before a setting existed, for checkpoints without it.
BEFORE_IT_WAS_A_SETTING = {"precision": "float64", "forces_huber": np.inf, "committee": 0}
#: Seconds that a structure takes in a step at least, and how many times that of its gradient the whole step takes.
FASTEST_STRUCTURE, SOLVER_SHARE = 3e-5, 1.5
#: Iterations of the second-order finish.
FINISH_ITERATIONS = 50
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class FitResult:
    """What a fit gives: model, metrics by part (train, valid, test), history rows, resolved settings, directory."""

    model: object
    metrics: dict
    history: list
    settings: FitSettings
    out: Path = None


def fit(train=None, *, valid=None, test=None, progress=None, **settings):
    """Fit an EANN or REANN potential.

    train, valid, test : files or lists of structures (``ase.Atoms`` or ``Structure``); valid and test may be fractions
        of the training data, set aside by seed.  Without ``train``: the CH4 set shipped with the package.
    progress : object with ``start``, ``update`` and ``finish`` (see ``eann_lite.progress``); None is silent.  With a
        ``committee`` ``start`` is called for each of the fits; fractions are of the whole.
    settings : any field of ``FitSettings``; with ``out=None`` nothing is written.

    Returns a ``FitResult``.  The model kept is the one with the smallest score on the validation part (mean root of the
    structures' losses); the test part is touched once, at the end.  With ``out`` the directory holds ``model.npz``, ``metrics.json``, ``history.jsonl``,
    ``config.toml``, ``predictions.npz`` and, while the fit runs, ``checkpoint.npz``; of a ``committee`` every model has
    such a directory of its own inside.

    Raises InputError for a misspelt setting, data without energies, a number that is not one in the data, an output
    directory that cannot be written: all before the fit starts.  And for a committee whose time is not enough.

    >>> from ase.build import molecule
    >>> from ase.calculators.lj import LennardJones
    >>> frames = []
    >>> for n in range(12):
    ...     atoms = molecule("H2O"); atoms.rattle(0.1, seed=n); atoms.calc = LennardJones()
    ...     energy = atoms.get_potential_energy(); frames.append(atoms)
    >>> result = fit(frames, epochs=2, radial=4, densities=8, recursions=0, out=None, batch=4)
    >>> sorted(result.metrics)
    ['test', 'train', 'valid']
    """
    started = time.monotonic()
    chosen = _settings(train, valid, test, settings)
    parts, chosen = _read_parts(train, valid, test, chosen)
    chosen, specification = _resolve(chosen, parts)
    threads = _set_threads(chosen)
    out = _prepare_directory(chosen)
    run = _Run(chosen, specification, parts, out, threads)
    if chosen.committee is None:
        run.choose_committee(started)
    run.write_config()
    if run.settings.committee:
        progress, started = run.learn_from_committee(progress, started)
    return run.complete(progress, started)


def _settings(train, valid, test, given):
    known = {item.name for item in fields(FitSettings)}
    for name in given:
        if name not in known:
            from eann_lite.config import cure_for_unknown

            raise InputError(f"unknown setting {name!r}. {cure_for_unknown(name)}")
    for name, value in (("train", train), ("valid", valid), ("test", test)):
        if value is not None and _is_source(value):
            given[name] = [str(p) for p in _as_list(value)] if name == "train" else value
    if isinstance(given.get("out"), os.PathLike):
        given["out"] = os.fspath(given["out"])
    return FitSettings(**given)


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_source(value):
    """Whether a value names files or a fraction rather than being structures."""
    return all(isinstance(item, (str, os.PathLike, int, float)) for item in _as_list(value))


def _read(sources, settings):
    from eann_lite.structures import read_structures

    paths = [os.fspath(p) for p in _as_list(sources)]
    keys = ("energy_key", "forces_key", "stress_key", "virial_key", "energy_unit", "forces_unit", "length_unit")
    return read_structures(paths, **{name: getattr(settings, name) for name in keys})


def _in_memory(objects, settings):
    """List of Structure from Atoms (labels by the same rules as in files) or Structures."""
    from ase import Atoms

    from eann_lite.structures import as_structures, label_atoms

    items = [objects] if isinstance(objects, Atoms) else list(objects)
    if not items or not all(isinstance(item, Atoms) for item in items):
        return as_structures(items)
    keys = ("energy_key", "forces_key", "stress_key", "virial_key")
    return label_atoms(items, **{name: getattr(settings, name) for name in keys})


def shipped_files():
    """Paths of the CH4 data set that comes with the package: random and vibrating molecules, PBE/cc-pVDZ."""
    folder = Path(__file__).resolve().parent.parent / "data"
    return [str(folder / name) for name in ("ch4_random.extxyz.gz", "ch4_vibrating.extxyz.gz")]


def _read_parts(train, valid, test, settings):
    """{train, valid, test: list of Structure} and the settings with what was used."""
    from eann_lite.training.splits import split

    if train is None:
        train = settings.train or shipped_files()
        if not settings.train and settings.test is None:
            settings = replace(settings, test=0.1)
    parts = {"train": _read(train, settings) if _is_source(train) else _in_memory(train, settings)}
    fractions = {}
    for name, given in (("valid", valid), ("test", test)):
        given = getattr(settings, name) if given is None else given
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            fractions[name] = float(given)
        elif given is not None:
            parts[name] = _read(given, settings) if _is_source(given) else _in_memory(given, settings)
    indices = split(len(parts["train"]), tuple(fractions.values()), settings.seed)
    everything = parts["train"]
    for name, index in zip([*fractions, "train"], indices):
        parts[name] = [everything[i] for i in index]
    parts.setdefault("test", [])
    if not parts.get("valid"):
        raise InputError("no validation structures: expected a file or a fraction above 0, for example valid = 0.1.")
    _check_labels(parts)
    return {name: parts[name] for name in PARTS}, settings


def _check_labels(parts):
    for name in ("train", "valid"):
        if not any(s.energy is not None for s in parts[name]):
            source = parts[name][0].source or "the list given"
            raise InputError(
                f"no energies in the {name} part ({len(parts[name])} structures, first: {source}): expected an energy "
                "for some structures at least. Give the name of the energy in the file with energy_key."
            )


def _resolve(settings, parts):
    """Settings without None where the data decide, and the Specification."""
    from eann_lite.elements import chemical_symbol
    from eann_lite.model.parameters import Layout
    from eann_lite.model.specification import NetworkSpecification, Specification

    train = parts["train"]
    changes = {}
    if settings.cutoff is None:
        changes["cutoff"] = 6.0 if any(s.pbc.any() for s in train) else 7.0
    if settings.batch is None:
        # Steps of single frames, however large, are too noisy (validation/RECIPES.md).
        changes["batch"] = int(np.clip(round(160 / np.mean([s.n_atoms for s in train])), 4, 32))
    if settings.epochs is None and settings.minutes is None:
        changes["minutes"] = 2.9
    if settings.solver == "auto":
        changes["solver"] = "soap"
    if settings.precision is None:
        # Line searches of full-batch solvers look at differences of the loss that single precision does not show.
        stochastic = settings.solver in ("auto", "soap", "adam")
        changes["precision"] = "float32" if stochastic else "float64"
    if settings.repulsion == "auto":
        changes["repulsion"] = "zbl" if _close_contacts(train) else "none"
    settings = replace(settings, **changes)
    numbers = sorted({int(z) for s in train for z in s.numbers})
    shape = {"activation": settings.activation, "layer_norm": settings.layer_norm}
    specification = Specification(
        elements=tuple(chemical_symbol(z) for z in numbers),
        cutoff=settings.cutoff,
        max_degree=settings.max_degree,
        radial=settings.radial,
        densities=settings.densities,
        contraction=settings.contraction,
        recursions=settings.recursions,
        network=NetworkSpecification(tuple(settings.widths), settings.blocks, **shape),
        recursion_network=NetworkSpecification(tuple(settings.recursion_widths), settings.recursion_blocks, **shape),
        repulsion="zbl" if settings.repulsion == "zbl" else None,
        repulsion_cutoff=settings.repulsion_cutoff,
    )
    if settings.weight_decay is None:
        few = _labels(train) < Layout.of(specification).size
        settings = replace(settings, weight_decay=0.2 if few else 0.1)
    return settings, specification


def _labels(structures):
    """How many energies, force components and stress components the structures have."""
    return sum(
        (s.energy is not None) + 3 * s.n_atoms * (s.forces is not None) + 6 * (s.stress is not None) for s in structures
    )


def _close_contacts(structures):
    """Whether some pair is closer than 0.7 times the sum of its covalent radii: a wall is then part of the data."""
    from ase.data import covalent_radii

    from eann_lite.neighbors import neighbor_pairs

    for s in structures:
        radii = covalent_radii[s.numbers]
        pairs = neighbor_pairs(s.positions, s.cell, s.pbc, 1.4 * radii.max())
        i = np.repeat(np.arange(s.n_atoms), np.diff(pairs.first))
        vectors = s.positions[pairs.neighbor] - s.positions[i] + pairs.shift @ s.cell
        if np.any(np.linalg.norm(vectors, axis=1) < 0.7 * (radii[i] + radii[pairs.neighbor])):
            return True
    return False


def _set_threads(settings):
    import numba

    from eann_lite.compiled import set_threads

    return set_threads(settings.threads or numba.config.NUMBA_NUM_THREADS)


def _prepare_directory(settings):
    """Make the output directory, see that it can be written, and put aside what an earlier fit left there."""
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
    earlier = [path for path in out.iterdir() if not path.name.startswith("earlier-")]
    results = ("model.npz", "checkpoint.npz", "committee-0")
    if earlier and not settings.resume and any(path.name in results for path in earlier):
        number = 1 + sum(1 for path in out.iterdir() if path.name.startswith("earlier-"))
        aside = out / f"earlier-{number}"
        aside.mkdir()
        for path in earlier:
            path.rename(aside / path.name)
    return out


def _file_of(structure):
    """The file a structure was read from, "" for one that came from memory."""
    file, comma, _ = structure.source.rpartition(", structure ")
    return file if comma else ""


class _Run:
    """One fit, from resolved settings to files."""

    def __init__(self, settings, specification, parts, out, threads):
        from eann_lite.structures import fingerprint
        from eann_lite.training.objective import labelled_set

        self.settings, self.specification, self.parts, self.out = settings, specification, parts, out
        self.threads = threads
        self.sets = {name: labelled_set(parts[name], specification) for name in PARTS if parts[name]}
        #: What the trainer takes, which a committee enlarges, and the settings with the trainer's own limits.
        self.fitted, self.limits = self.sets["train"], settings
        self.data = {
            name: {
                "fingerprint": fingerprint(parts[name]),
                "n_structures": len(parts[name]),
                "sources": sorted({os.path.basename(_file_of(s)) for s in parts[name]} - {""}),
            }
            for name in PARTS
            if parts[name]
        }

    def choose_committee(self, started):
        """Settle how many models the committee has: MODELS where the time is enough for ENOUGH_EPOCHS, else none.

        A resumed fit does what it did before.
        """
        from eann_lite.config import read_config
        from eann_lite.training.committee import ENOUGH_EPOCHS, MODELS

        if self.settings.resume and self.out is not None and (self.out / "config.toml").exists():
            models = read_config(self.out / "config.toml").get("committee", 0)
        else:
            models = MODELS if self._epochs_within_the_time(started) >= ENOUGH_EPOCHS else 0
        self.settings = self.limits = replace(self.settings, committee=models)

    def write_config(self):
        """Write the resolved configuration, where there is a directory."""
        from eann_lite.config import write_config

        if self.out is not None:
            write_config(self.settings, self.out / "config.toml")

    def _epochs_within_the_time(self, started):
        """About how many epochs a limit in minutes allows; 0 without one, and for solvers that have no batches."""
        from eann_lite.training.committee import ENOUGH_EPOCHS

        settings, n = self.settings, self.fitted.packed.n_structures
        if settings.minutes is None or settings.epochs is not None or settings.solver not in ("soap", "adam"):
            return 0.0
        fastest = 60.0 * settings.minutes / (n * FASTEST_STRUCTURE)
        if fastest < ENOUGH_EPOCHS:
            return fastest  # Not worth a measurement, which compiles.
        seconds = SOLVER_SHARE * self._seconds_per_structure()
        return (60.0 * settings.minutes - (time.monotonic() - started)) / (seconds * n)

    def _seconds_per_structure(self):
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

    def _minutes_of_a_member(self, started):
        """Each model's part of the committee's share, less what compiling takes: the first would have no time else."""
        from eann_lite.config import read_config
        from eann_lite.training.committee import SHARE

        settings = self.settings
        if settings.minutes is None:
            return None
        before = None if self.out is None else self.out / "committee-0" / "config.toml"
        if settings.resume and before is not None and before.exists():
            return read_config(before)["minutes"]
        self._seconds_per_structure()
        seconds = 60.0 * SHARE * settings.minutes - (time.monotonic() - started)
        if seconds <= 0.0:
            raise InputError(
                f"committee = {settings.committee} with minutes = {settings.minutes:g}: compiling and reading took "
                f"{time.monotonic() - started:.0f} s, all of the committee's half. Give more minutes, or committee = 0."
            )
        return seconds / 60.0 / settings.committee

    def learn_from_committee(self, progress, started):
        """Fit the committee and add what it labels to what this fit takes; returns progress and start of this fit.

        Members differ by their seeds.  A resumed fit goes through them again, without steps where they are complete.
        """
        from eann_lite.progress import PartOfProgress
        from eann_lite.training.committee import COPIES, SHARE, with_copies
        from eann_lite.training.objective import labelled_set

        self._checkpoint()  # Before any work: the one of the last fit, if there is one, is of other settings or data.
        settings, models = self.settings, []
        minutes = self._minutes_of_a_member(started)
        # By epochs all fits take the same number of steps.
        share = SHARE if minutes else settings.committee / (settings.committee + 1)
        each = share / settings.committee
        for n in range(settings.committee):
            out = None if self.out is None else str(self.out / f"committee-{n}")
            member = replace(
                settings, committee=0, finish=False, seed=settings.seed + n, minutes=minutes, out=out
            )  # fmt: skip
            begun = time.monotonic()
            run = _Run(member, self.specification, self.parts | {"test": []}, _prepare_directory(member), self.threads)
            run.write_config()
            name = f"model {n + 1} of {settings.committee} of the committee"
            part = None if progress is None else PartOfProgress(progress, n * each, each, name)
            models.append(run.complete(part, begun).model)
            if models[-1].provenance["epochs"] < 1:
                raise InputError(
                    f"committee = {settings.committee} with minutes = {settings.minutes:g}: model {n + 1} did not see "
                    f"all of its {len(self.parts['train'])} structures once in its {60 * minutes:.0f} s. Give more "
                    "minutes, or fewer models."
                )
        both = with_copies(models, self.parts["train"], settings.seed, self.threads)
        self.fitted = labelled_set(both, self.specification)
        # An epoch of the last fit has so many times the steps of one of the committee.
        epochs, patience = (limit and -(-limit // (COPIES + 1)) for limit in (settings.epochs, settings.patience))
        rest = minutes and (1.0 - SHARE) * settings.minutes
        self.limits = replace(settings, epochs=epochs, patience=patience, minutes=rest)
        # Labelling, and what the committee took beyond its share, count for the last fit, up to half of its own time.
        late = 0.0 if rest is None else time.monotonic() - started - 60.0 * SHARE * settings.minutes
        late = 0.0 if rest is None else min(max(0.0, late), 30.0 * rest)
        part = None if progress is None else PartOfProgress(progress, share, 1.0 - share, "the last fit")
        return part, time.monotonic() - late

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
        last = LbfgsTrainer(
            evaluator, trainer.best, scales, loss, self.fitted, self.sets["valid"], settings
        )
        last.best_score, last.best_epoch = trainer.best_score, trainer.best_epoch
        last.history, last.seconds = trainer.history, trainer.seconds
        last.run(lambda: None, lambda row: None)
        return last

    def _start(self):
        """Starting parameters, constants from the data, and the unit of every parameter."""
        from eann_lite.model.initial import fit_reference_energies, initial_parameters, scale_to_data
        from eann_lite.training.objective import Evaluator

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
        structure = np.repeat(np.arange(n), train.n_atoms)
        counts = np.zeros((n, len(self.specification.elements)))
        np.add.at(counts, (structure, train.packed.species), 1.0)
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

    def _checkpoint(self):
        """(header, arrays) of the checkpoint to go on from, or None; InputError where settings or data are others."""
        from eann_lite.training.checkpoint import load_checkpoint

        if not self.settings.resume or self.out is None or not (self.out / "checkpoint.npz").exists():
            return None
        path = self.out / "checkpoint.npz"
        header, arrays = load_checkpoint(path)
        mine = json.loads(json.dumps(self._fixed_settings()))
        for name, value in mine.items():
            made_with = header["settings"].get(name, BEFORE_IT_WAS_A_SETTING.get(name))
            if made_with != value:
                raise InputError(
                    f"{path}: was made with {name} = {made_with!r}, now {name} = {value!r}. Resume "
                    "with the same settings, or start anew in another directory (out)."
                )
        for name, data in self.data.items():
            if header["data"].get(name, {}).get("fingerprint") != data["fingerprint"]:
                raise InputError(
                    f"{path}: the {name} data are not those the fit was started with. Resume with the same files and "
                    "fractions, or start anew in another directory (out)."
                )
        return header, arrays

    def _resume(self, trainer):
        found = self._checkpoint()
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

        # Judged in double precision whatever the fit used: so it is what the model file gives.
        evaluator = Evaluator(self.specification, self.constants, self.threads)
        evaluator.set_parameters(model.vector)
        model.bounds = density_bounds(evaluator, self.constants, self.sets["train"].packed)
        metrics, arrays = {}, {}
        for name in PARTS:
            if name not in self.sets:
                metrics[name] = None
                continue
            labelled = self.sets[name]
            predictions = evaluator.predict(labelled)
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
        model.provenance = {
            "data": self.data,
            "settings": self._fixed_settings(),
            "seed": self.settings.seed,
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
        from eann_lite.training.objective import Predictions, take

        files = [_file_of(s) for s in self.parts[part]]
        result = {}
        for file in sorted(set(files) - {""}):
            index = np.array([q for q, other in enumerate(files) if other == file])
            chosen, atoms = take(labelled, index)
            part_predictions = Predictions(
                predictions.energies[index], predictions.forces[atoms], predictions.strains[index]
            )
            result[os.path.basename(file)] = error_metrics(chosen, part_predictions)
        return result if len(result) > 1 else None

    def _write(self, model, metrics, arrays):
        from eann_lite.io.atomic import write_atomically

        text = json.dumps(metrics, indent=1)
        write_atomically(self.out / "metrics.json", lambda file: file.write(text.encode()))
        write_atomically(self.out / "predictions.npz", lambda file: np.savez_compressed(file, **arrays))
        model.save(self.out / "model.npz")


def hardware():
    """Name of the processor and the number of its cores, as far as the system tells."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # Not Linux, or a processor without a name: the architecture is said.
    return f"{name}, {os.cpu_count()} cores"


def versions():
    """Versions of this package and of what it computes with."""
    import numba
    import scipy

    import eann_lite

    return {
        "eann_lite": eann_lite.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }
