"""From labelled structures to a fitted, tested and saved model: the one entry, ``fit``."""

import os
import time
from dataclasses import fields, replace

import numpy as np

from eann_lite.errors import InputError
from eann_lite.training.alone import alone_in
from eann_lite.training.committee import choose_committee, learn_from_committee, minutes_of_a_member
from eann_lite.training.parts import PARTS, as_list, is_source, read_parts
from eann_lite.training.resolve import resolve
from eann_lite.training.run import Run, as_begun, prepare_directory, put_aside_earlier
from eann_lite.training.settings import FitSettings


def fit(train=None, *, valid=None, test=None, progress=None, afterwards=None, files=None, **settings):
    """Fit an EANN or REANN potential.

    train, valid, test : files or lists of structures (``ase.Atoms`` or ``Structure``); valid and test may be fractions
        of the training data, set aside by split_seed or seed, at least one structure of each element left to train on.
        Without ``train``: the CH4 set shipped with the package.
    progress : object with ``start``, ``update`` and ``finish`` (see ``eann_lite.progress``); None is silent.  With a
        ``committee`` ``start`` is called for each of the fits; fractions are of the whole.
    afterwards : function of the ``FitResult`` that is called at the end, before another fit can have the directory
    files : {"train", "valid", "test": file or files} that parts given as structures were read from: what
        ``config.toml`` names then
    settings : any field of ``FitSettings``; with ``out=None`` nothing is written.

    Returns a ``FitResult``, whose ``metrics`` have "remarks" where errors are larger than the spread of the labels, so
    that these may not belong together.  The model kept is the one with the smallest score on the validation part (mean
    root of the structures' losses), with reference energies fitted again to what it leaves of the training energies;
    the test part is touched once, at the end.  With ``out`` the directory holds
    ``model.npz``, ``metrics.json``, ``history.jsonl``, ``config.toml``, ``predictions.npz`` and ``checkpoint.npz``,
    from which ``resume=True`` goes on; of a ``committee`` every model has such a directory of its own inside.

    Raises InputError for a misspelt setting, data without energies, a number that is not one in the data, an output
    directory that cannot be written or in which another fit is running: all before the fit starts.  And for a committee
    whose time is not enough.

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
    parts, chosen = read_parts(train, valid, test, chosen)
    chosen, specification = resolve(as_begun(replace(chosen, **_names_of(files or {}))), parts)
    threads = _set_threads(chosen)
    with alone_in(chosen.out):
        out = prepare_directory(chosen)
        run = Run(chosen, specification, parts, out, threads)
        if chosen.committee is None:
            choose_committee(run, started)
        run.checkpoint()  # Or it is refused before anything is written.
        minutes = minutes_of_a_member(run, started) if run.settings.committee else None
        put_aside_earlier(chosen)
        # What a fit is resumed with is written once all of its checkpoints are known to be of these settings.
        begun = run.settings.resume and out is not None and (out / "config.toml").exists()
        if not begun:
            run.write_config()
        if run.settings.committee:
            progress, started = learn_from_committee(run, minutes, progress, started)
        if begun:
            run.write_config()
        result = run.complete(progress, started)
        if afterwards is not None:
            afterwards(result)
        return result


def _settings(train, valid, test, given):
    known = {item.name for item in fields(FitSettings)}
    for name in given:
        if name not in known:
            from eann_lite.config import cure_for_unknown

            raise InputError(f"unknown setting {name!r}. {cure_for_unknown(name)}")
    for name, value in (("train", train), ("valid", valid), ("test", test)):
        if value is not None and is_source(value):
            given[name] = [str(p) for p in as_list(value)] if name == "train" else value
    for name in ("widths", "recursion_widths"):
        if isinstance(given.get(name), np.ndarray):
            given[name] = given[name].tolist()
        if isinstance(given.get(name), int) and not isinstance(given[name], bool):
            given[name] = [given[name]]  # As in a configuration file.
    if isinstance(given.get("out"), os.PathLike):
        given["out"] = os.fspath(given["out"])
    return FitSettings(**given)


def _names_of(files):
    """``files`` of ``fit`` as settings have them; InputError for anything but parts."""
    for part in files:
        if part not in PARTS:
            raise InputError(f"files[{part!r}]: expected the files of parts, so one of {', '.join(PARTS)}.")
    named = {part: [os.fsdecode(path) for path in as_list(given)] for part, given in files.items() if given}
    return {part: paths if part == "train" or len(paths) > 1 else paths[0] for part, paths in named.items()}


def _set_threads(settings):
    import numba

    from eann_lite.compiled import set_threads

    return set_threads(settings.threads or numba.config.NUMBA_NUM_THREADS)
