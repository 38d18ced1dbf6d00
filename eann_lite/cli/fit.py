"""``eann-lite fit``: fit a potential to structures with energies, forces, stresses."""

import argparse
import json
import os
import shlex
from pathlib import Path

from eann_lite.cli.flags import add_setting, flag, reading_of
from eann_lite.cli.messages import teller, warn
from eann_lite.config import SECTIONS, SETTINGS, settings_from
from eann_lite.errors import InputError
from eann_lite.termination import heeding_sigterm


def add_to(commands):
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "fit",
        usage="eann-lite fit [CONFIG.toml] [--train FILE ...] [--SETTING VALUE ...] [--quiet] [--json]",
        help="fit a potential to structures with energies, forces, stresses",
        description="Fit a potential. Without arguments: the CH4 set that comes with the package. Flags beat the file.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG.toml", default=None, help="settings as a TOML file")
    for section, names in SECTIONS.items():
        group = parser.add_argument_group(section, f"section [{section}] of the configuration file")
        for name in names:
            add_setting(group, name)
    parser.add_argument("--quiet", action="store_true", default=False, help="only warnings and errors")
    parser.add_argument("--json", action="store_true", default=False, help="print the final errors as JSON")
    parser.set_defaults(command=run, name="fit", flags=[*map(flag, SETTINGS), "--quiet", "--json"])


def run(options, arguments):
    """Fit; progress and what was found on the way are told to people, the errors at the end to programs, too."""
    given = {name: value for name, value in vars(options).items() if name in SETTINGS}
    settings = settings_from(options.config, _single_values(given))
    for name in settings.train:
        if name.endswith(".toml"):
            raise InputError(f"--train {name} is a configuration: put it first, `eann-lite fit {name} --train ...`.")

    from eann_lite.compiled import cache_directory
    from eann_lite.progress import progress_for
    from eann_lite.report import metrics_table, remark_texts, write_report
    from eann_lite.training.fit import fit

    tell = teller(options)
    notice = _see_to_directory(settings)
    compiles = not os.path.exists(cache_directory())  # Asked here, as looking at the data compiles a first kernel.
    parts = _read_parts(settings)
    _tell_data(parts, tell)
    if notice:
        tell(notice)
    if compiles:
        tell("The kernels are compiled now, once for this version of the package: about half a minute for each precision.")
    tell("Errors that are shown while it fits are root mean squares on the validation data.")
    progress = progress_for(quiet=options.quiet)
    rest = {name: value for name, value in settings.to_dict().items() if name not in parts}
    files = {part: getattr(settings, part) for part, value in parts.items() if isinstance(value, list)}
    page = None

    def write_all(result):
        nonlocal page
        page = write_report(result.out)

    try:
        with heeding_sigterm():
            result = fit(**parts, progress=progress, afterwards=write_all, files=files, **rest)
    except KeyboardInterrupt as stop:
        raise type(stop)(_how_to_resume(arguments, Path(settings.out))) from None
    finally:
        if progress is not None:
            progress.finish("")
    tell("\n" + metrics_table(result.metrics) + "\n")
    warn(remark_texts(result.metrics))
    model = Path(result.out) / "model.npz"
    tell(f"model   {model}\nreport  {page}\nuse it  eann_lite.EANNCalculator(eann_lite.load({str(model)!r}))")
    if options.json:
        print(json.dumps(result.metrics, indent=2))


def _single_values(given):
    """One file or one fraction after a flag that takes several files is that value itself."""
    return {
        name: value[0] if SETTINGS[name].type is object and len(value) == 1 else value for name, value in given.items()
    }


def _see_to_directory(settings):
    """What to tell about an earlier fit in the output directory, or None; InputError where another is running there."""
    from eann_lite.training.alone import alone_in
    from eann_lite.training.run import has_checkpoint, place_of_earlier

    aside, goes_on, exists = None, has_checkpoint(settings.out), os.path.isdir(settings.out)
    if exists:
        with alone_in(settings.out):
            aside = place_of_earlier(settings)
    if settings.resume and not goes_on:
        there = "has no checkpoint" if exists else "does not exist"
        warn([f"nothing to resume: {settings.out} {there}: the fit starts anew. If it was begun before, check --out."])
    if aside is None:
        return None
    cure = "; --resume would go on with it" if goes_on else ""
    return f"What an earlier fit left in {settings.out}, or has a name of its files, goes to {aside}{cure}."


def _read_parts(settings):
    """{"train", "valid", "test": structures, a fraction, or None} of the files that the settings name."""
    from eann_lite.structures import read_structures

    reading = reading_of(settings.to_dict())
    parts = {"train": settings.train or None, "valid": settings.valid, "test": settings.test}
    return {
        part: read_structures(value, **reading) if isinstance(value, (str, list)) else value
        for part, value in parts.items()
    }


def _tell_data(parts, tell):
    """Print what was found in the files, and warn about what looks wrong in them."""
    from eann_lite.structures import find_duplicates, read_structures, summarise, warnings_for
    from eann_lite.training.parts import shipped_files

    read = {part: value for part, value in parts.items() if isinstance(value, list)}
    if parts["train"] is None:
        tell("No training data given: the CH4 set that comes with the package.")
        read["train"] = read_structures(shipped_files())
    for part, structures in read.items():
        tell(f"{part} data\n{summarise(structures)}\n")
        warn(f"{part} data: {text}" for text in warnings_for(structures))
    owner = [part for part, structures in read.items() for _ in structures]
    shared = [group for group in find_duplicates(sum(read.values(), [])) if len({owner[i] for i in group}) > 1]
    if shared:
        names = " and ".join(dict.fromkeys(owner[i] for group in shared for i in group))
        warn([f"{len(shared)} structures are in more than one of {names} data: errors there will look too small."])


def _how_to_resume(arguments, out):
    from eann_lite.training.run import has_checkpoint

    if not has_checkpoint(out):
        return "There is no checkpoint yet: start again."
    again = arguments if "--resume" in arguments else [*arguments, "--resume"]
    return f"The last checkpoint is in {out}; go on with: eann-lite {shlex.join(again)}"
