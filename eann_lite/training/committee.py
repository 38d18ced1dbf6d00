"""Fits that fit a committee first, from whose mean the last model learns: which do, and how the time is shared."""

import time
from dataclasses import replace

from eann_lite.errors import InputError
from eann_lite.training.copies import COPIES, with_copies
from eann_lite.training.run import Run, has_checkpoint, prepare_directory, put_aside_earlier

#: Where a fit has time for so many epochs, a committee of so many models gains more than the steps that it takes.
ENOUGH_EPOCHS, MODELS = 8000, 5
#: Part of a fit's minutes in which its committee is fitted.
SHARE = 0.5
#: Seconds that a structure takes in a step at least, and how many times that of its gradient the whole step takes.
FASTEST_STRUCTURE, SOLVER_SHARE = 3e-5, 1.5


def choose_committee(run, started):
    """Settle how many models the committee of a fit (``Run``, begun at ``started``) has, where nobody said it.

    MODELS where the time is enough for ENOUGH_EPOCHS, else none.  A resumed fit does what it did before.
    """
    from eann_lite.config import read_config

    config = None if run.out is None else run.out / "config.toml"
    if run.settings.resume and config is not None and config.exists() and has_checkpoint(run.out):
        models = read_config(config).get("committee", 0)
    else:
        models = MODELS if epochs_within_the_time(run, started) >= ENOUGH_EPOCHS else 0
    run.settings = run.limits = replace(run.settings, committee=models)


def epochs_within_the_time(run, started):
    """About how many epochs a limit in minutes allows; 0 without one, and for solvers that have no batches."""
    settings, n = run.settings, run.fitted.packed.n_structures
    if settings.minutes is None or settings.epochs is not None or settings.solver not in ("soap", "adam"):
        return 0.0
    fastest = 60.0 * settings.minutes / (n * FASTEST_STRUCTURE)
    if fastest < ENOUGH_EPOCHS:
        return fastest  # Not worth a measurement, which compiles.
    seconds = SOLVER_SHARE * run.seconds_per_structure()
    return (60.0 * settings.minutes - (time.monotonic() - started)) / (seconds * n)


def learn_from_committee(run, minutes, progress, started):
    """Fit the committee of a fit and add what it labels to what that takes; returns progress and start of the last fit.

    Members have the same parts of the data and differ by their seeds; ``minutes`` is what `minutes_of_a_member` gives
    each of them.  A resumed fit goes through them again, without steps where they are complete.  Raises InputError
    where the time is not enough for one of them.
    """
    from eann_lite.progress import PartOfProgress
    from eann_lite.training.objective import labelled_set

    settings = run.settings
    # By epochs all fits take the same number of steps.
    share = SHARE if minutes else settings.committee / (settings.committee + 1)
    each = share / settings.committee
    models = []
    for n in range(settings.committee):
        name = f"model {n + 1} of {settings.committee} of the committee"
        part = None if progress is None else PartOfProgress(progress, n * each, each, name)
        models.append(_member(run, n, minutes, part))
    both = with_copies(models, run.parts["train"], settings.seed, run.threads)
    run.fitted = labelled_set(both, run.specification)
    # An epoch of the last fit has so many times the steps of one of the committee.
    epochs, patience = (limit and -(-limit // (COPIES + 1)) for limit in (settings.epochs, settings.patience))
    rest = minutes and (1.0 - SHARE) * settings.minutes
    run.limits = replace(settings, epochs=epochs, patience=patience, minutes=rest)
    # Labelling, and what the committee took beyond its share, count for the last fit, up to half of its own time.
    late = 0.0
    if rest is not None:
        late = min(max(0.0, time.monotonic() - started - 60.0 * SHARE * settings.minutes), 30.0 * rest)
    part = None if progress is None else PartOfProgress(progress, share, 1.0 - share, "the last fit")
    return part, time.monotonic() - late


def minutes_of_a_member(run, started):
    """Each model's part of the committee's share, less what compiling takes: the first would have no time else.

    None where fits are limited by epochs.  Raises InputError where nothing is left.
    """
    from eann_lite.config import read_config

    settings = run.settings
    if settings.minutes is None:
        return None
    if _learned(run) and all((place / "model.npz").exists() for place in _places(run)):
        return SHARE * settings.minutes / settings.committee  # Of no more use.
    if settings.resume and run.out is not None and has_checkpoint(run.out):
        before = _places(run)[0] / "config.toml"
        minutes = read_config(before).get("minutes") if before.exists() else None
        # What was too little for one of them is not what they shall have.
        if minutes is not None and not any(map(_saw_too_little, _places(run))):
            return minutes
    run.seconds_per_structure()
    seconds = 60.0 * SHARE * settings.minutes - (time.monotonic() - started)
    if seconds <= 0.0:
        raise InputError(
            f"committee = {settings.committee} with minutes = {settings.minutes:g}: compiling and reading took "
            f"{time.monotonic() - started:.0f} s, all of the committee's half. Give more minutes, or committee = 0."
        )
    return seconds / 60.0 / settings.committee


def _member(run, n, minutes, progress):
    """Model n of the committee of a fit, fitted, or read on where it was stopped.

    One from whose labels the last fit has begun to learn stays as it is, whatever the settings say now.
    """
    from eann_lite.io.model_file import load

    settings, begun, place = run.settings, time.monotonic(), None if run.out is None else _places(run)[n]
    if _learned(run) and not (place / "model.npz").exists():
        raise InputError(
            f"{place / 'model.npz'} is gone, from whose labels the fit in {run.out} has begun to learn. Put it back, "
            "or begin anew without resume."
        )
    changes = {
        "committee": 0,
        "finish": False,
        "seed": settings.seed + n,
        "split_seed": settings.seed if settings.split_seed is None else settings.split_seed,
        "minutes": minutes,
        "out": None if place is None else str(place),
    }
    member = replace(settings, **changes)
    fitting = Run(member, run.specification, run.parts | {"test": []}, prepare_directory(member), run.threads)
    fitting.checkpoint()  # Or it is refused before anything is written.
    if _learned(run):
        return load(place / "model.npz")
    put_aside_earlier(member)
    fitting.write_config()
    model = fitting.complete(progress, begun).model
    if model.provenance["epochs"] < 1:
        raise InputError(
            f"committee = {settings.committee} with minutes = {settings.minutes:g}: model {n + 1} did not see "
            f"all of its {len(run.parts['train'])} structures once in its {60 * minutes:.0f} s. Give more "
            "minutes, or fewer models."
        )
    return model


def _places(run):
    """Directory of each model of the committee."""
    return [run.out / f"committee-{n}" for n in range(run.settings.committee)]


def _learned(run):
    """Whether the last fit, which is resumed, has begun to learn from the committee."""
    return run.settings.resume and run.out is not None and (run.out / "checkpoint.npz").exists()


def _saw_too_little(place):
    """Whether the model in a directory ended before it had seen all structures once."""
    from eann_lite.io.model_file import load

    path = place / "model.npz"
    return path.exists() and load(path).provenance["epochs"] < 1
