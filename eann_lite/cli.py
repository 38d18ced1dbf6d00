"""The command line ``eann-lite``: fit a potential, evaluate, inspect and audit it, import and export published models.

Results go to standard output; progress, warnings and errors to standard error.  Exit status: 0, 2 for anything wrong
with the input (one message, no traceback), 1 for an audit that found a law broken, 130 after Ctrl-C, 143 after SIGTERM.
"""

import argparse
import json
import os
import re
import shlex
import sys
from pathlib import Path

from eann_lite import __version__
from eann_lite.config import LIST_OF, SECTIONS, SETTINGS, closest, kebab, settings_from
from eann_lite.errors import InputError
from eann_lite.termination import Terminated, heeding_sigterm
from eann_lite.training.settings import READING, FitSettings

#: What stands for the value of a flag in the help, where its type alone would not say it.
METAVARS = {"train": "FILE", "valid": "FILE|FRACTION", "test": "FILE|FRACTION", "out": "DIR"}


def main(arguments=None):
    """Run the command line with ``arguments`` (default: those of the process); returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    flags = []
    try:
        options = _parse(arguments)
        flags = options.flags
        status = options.command(options, arguments) or 0
        sys.stdout.flush()
    except InputError as error:
        return _complain(by_flags(str(error), flags), 2)
    except KeyboardInterrupt as stop:
        return _complain(f"interrupted. {stop}".strip(), 143 if isinstance(stop, Terminated) else 130)
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}.", 2)
    return status


# ---- arguments ------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """ArgumentParser whose errors are InputErrors, as all others."""

    def error(self, message):
        """Raise what argparse would print before it leaves the process."""
        raise InputError(f"{message}. See `{self.prog} --help`.")


def build_parser():
    """The parser of all commands; the flags of ``fit`` come from the fields of ``FitSettings``."""
    parser = _Parser(
        prog="eann-lite",
        description="Embedded atom neural network potentials (EANN, REANN): fit, evaluate, inspect, audit, modes, import, export.",
        epilog="First use: `eann-lite fit` fits the CH4 set that comes with the package.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"eann_lite {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_fit(commands)
    _add_evaluate(commands)
    _add_info(commands)
    _add_audit(commands)
    _add_modes(commands)
    _add_import(commands)
    _add_export(commands)
    return parser


def _add_fit(commands):
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
            _add_setting(group, name)
    parser.add_argument("--quiet", action="store_true", default=False, help="only warnings and errors")
    parser.add_argument("--json", action="store_true", default=False, help="print the final errors as JSON")
    parser.set_defaults(command=_fit, flags=[*map(_flag, SETTINGS), "--quiet", "--json"])


def _add_setting(group, name):
    """One flag for a field of ``FitSettings``; it leaves no trace in the namespace unless it is given."""
    item = SETTINGS[name]
    kind = LIST_OF.get(name, item.type)
    options = {"help": _help(item), "default": argparse.SUPPRESS}
    if kind is bool:
        group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, **options)
        return
    options["metavar"] = METAVARS.get(name) or {str: "TEXT", int: "N", float: "X"}[kind]
    if name in LIST_OF or kind is object:
        options["nargs"] = "+"
    group.add_argument(_flag(name), type=_file_or_fraction if kind is object else kind, **options)


def _flag(name):
    return f"--{kebab(name)}"


def _file_or_fraction(word):
    try:
        return float(word)
    except ValueError:
        return word


def _help(item):
    default = getattr(FitSettings(), item.name)
    text = item.metadata["help"]
    if default not in (None, []) and "default" not in text and not isinstance(default, bool):
        shown = " ".join(map(str, default)) if isinstance(default, list) else f"{default}"
        text += f" (default: {shown})"
    return text.replace("%", "%%")


def _add_evaluate(commands):
    parser = commands.add_parser(
        "evaluate",
        help="errors of a model on labelled structures",
        description="Errors of a model on structures with energies, forces, stresses.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="model file (model.npz)")
    parser.add_argument("files", metavar="FILE", nargs="+", help="structures with labels")
    parser.add_argument("--json", action="store_true", help="print the errors as JSON, nothing else")
    parser.add_argument("--plots", metavar="DIR", help="write parity plots (PNG) into this directory")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores)")
    group = parser.add_argument_group("data")
    for name in READING:
        _add_setting(group, name)
    parser.set_defaults(command=_evaluate, flags=["--json", "--plots", "--threads", *map(_flag, READING)])


def _add_info(commands):
    parser = commands.add_parser(
        "info",
        help="what a model file holds",
        description="What a model is, what it was fitted to, its errors, units, versions and fingerprints.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="model file (model.npz)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(command=_info, flags=["--json"])


def _add_audit(commands):
    parser = commands.add_parser(
        "audit",
        help="check all that can be checked of a model",
        description="Laws, derivatives, smoothness, dynamics, modes, short range, extrapolation, descriptors, and errors on "
        "data; a verdict for each. Exit status 1: a law is broken.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="model file (model.npz)")
    parser.add_argument("files", metavar="DATA", nargs="*", help="structures to audit on, with or without labels")
    parser.add_argument("--out", metavar="DIR", help="write audit.html and audit.json into this directory")
    parser.add_argument("--json", action="store_true", help="print the audit as JSON, nothing else")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all that is drawn (default: 0)")
    parser.add_argument("--seconds", type=float, metavar="X", help="about how long it may take (default: 90)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores)")
    group = parser.add_argument_group("data")
    for name in READING:
        _add_setting(group, name)
    flags = ["--out", "--json", "--seed", "--seconds", "--threads", *map(_flag, READING)]
    parser.set_defaults(command=_audit, flags=flags)


def _add_modes(commands):
    parser = commands.add_parser(
        "modes",
        help="normal modes of a structure, from the exact Hessian",
        description="Wavenumbers of the normal modes of a structure, from exact second derivatives of the energy, with the "
        "masses in the file. Imaginary ones have an i: the structure is no minimum. Atoms that the file holds still "
        "(FixAtoms, move_mask, selective dynamics) neither relax nor vibrate; other constraints are refused.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="model file (model.npz)")
    parser.add_argument("structure", metavar="STRUCTURE", help="file of the structure")
    parser.add_argument("--index", type=int, default=-1, metavar="N", help="which one of the file (default: the last)")
    parser.add_argument(
        "--relax", type=float, metavar="F", help="first relax until no force is larger (eV/A), e.g. 1e-4"
    )
    parser.add_argument("--out", metavar="FILE", help="write the modes as displacements into this XYZ file (for Jmol)")
    parser.add_argument("--json", action="store_true", help="print the wavenumbers as JSON, nothing else")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores)")
    flags = ["--index", "--relax", "--out", "--json", "--threads"]
    parser.set_defaults(command=_modes, flags=flags)


def _add_import(commands):
    parser = commands.add_parser(
        "import",
        help="a model of the published packages, without PyTorch",
        description="Read PES.pt, REANN.pth or EANN.pth, or a folder of the Fortran EANN. Nothing in them is executed.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "path", metavar="PATH", help="PES.pt, a state dictionary (.pth), or a folder of the Fortran EANN"
    )
    parser.add_argument("--density", metavar="FILE", help="input_density of a state dictionary (default: beside it)")
    parser.add_argument("--nn", metavar="FILE", help="input_nn of a state dictionary (default: beside it)")
    parser.add_argument(
        "--inta-sign", choices=("+", "-"), help="sign of inta in the exponent, where a file does not say"
    )
    parser.add_argument("--out", metavar="MODEL", required=True, help="model file to write (model.npz)")
    parser.add_argument("--json", action="store_true", help="print what was found, and where, as JSON")
    parser.set_defaults(command=_import, flags=["--density", "--nn", "--inta-sign", "--out", "--json"])


def _add_export(commands):
    parser = commands.add_parser(
        "export",
        help="a model as the published packages read it",
        description="Write a state dictionary that the published REANN code loads, and para/input_nn, para/input_density. "
        "That code has no pair repulsion: export a model of `eann-lite fit --repulsion none`. The default there, auto, takes "
        "zbl where training structures have close contacts, and such a model is refused; so is the activation tanh.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="model file (model.npz)")
    parser.add_argument("--reann", action="store_true", required=True, help="as REANN.pth of the REANN package")
    parser.add_argument("--out", metavar="REANN.pth", required=True, help="state dictionary to write")
    parser.set_defaults(command=_export, flags=["--reann", "--out"])


def _parse(arguments):
    """Namespace of the arguments; unknown flags are InputErrors that name the nearest valid one."""
    options, unknown = build_parser().parse_known_args(arguments)
    if not unknown:
        return options
    flags = [word for word in unknown if word.startswith("-")]
    if not flags:
        raise InputError(f"{unknown[0]!r} is one argument too many. Flags stand before their values, as in --cutoff 6.")
    flag = flags[0].split("=")[0]
    name = options.command.__name__.lstrip("_")
    meant = closest(flag, options.flags)
    cure = f"Did you mean {meant}? " if meant else ""
    raise InputError(f"unknown flag {flag}. {cure}`eann-lite {name} --help` lists all.")


# ---- commands -------------------------------------------------------------------------------------------------------


def _fit(options, arguments):
    given = {name: value for name, value in vars(options).items() if name in SETTINGS}
    settings = settings_from(options.config, _single_values(given))
    for name in settings.train:
        if name.endswith(".toml"):
            raise InputError(f"--train {name} is a configuration: put it first, `eann-lite fit {name} --train ...`.")

    from eann_lite.compiled import cache_directory
    from eann_lite.progress import progress_for
    from eann_lite.report import metrics_table, remark_texts, write_report
    from eann_lite.training.fit import fit

    tell = _teller(options)
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
    _warn(remark_texts(result.metrics))
    model = Path(result.out) / "model.npz"
    tell(f"model   {model}\nreport  {page}\nuse it  eann_lite.EANNCalculator(eann_lite.load({str(model)!r}))")
    if options.json:
        print(json.dumps(result.metrics, indent=2))


def _evaluate(options, arguments):
    from eann_lite.compiled import set_threads
    from eann_lite.extrapolation import outside_summary, outside_text
    from eann_lite.io.model_file import load
    from eann_lite.structures import read_structures, summarise, warnings_for
    from eann_lite.training.metrics import error_metrics
    from eann_lite.training.objective import labelled_set, predict

    set_threads(options.threads)
    plots = None if options.plots is None else _writable_directory(options.plots)
    model = load(options.model)
    structures = read_structures(options.files, **_reading(vars(options)))
    if not options.json:
        print(f"{summarise(structures)}\n")
    _warn(warnings_for(structures))
    labelled = labelled_set(structures, model.specification)
    predictions = predict(model, labelled)
    metrics = error_metrics(labelled, predictions)
    part = Path(options.files[0]).name.split(".")[0]
    outside = {} if model.bounds is None else {"extrapolation": outside_summary(model, labelled.packed)}
    if options.json:
        print(json.dumps(metrics | outside, indent=2))
    else:
        print(f"{_table_or_note({part: metrics})}\n\n{outside_text(outside.get('extrapolation'))}")
    if plots is not None:
        from eann_lite.plots import write_parity_plots

        for path in write_parity_plots(plots, _prediction_arrays(part, labelled, predictions)):
            if not options.json:
                print(f"written {path}")


def _info(options, arguments):
    from eann_lite.io.model_file import load
    from eann_lite.report import data_rows, describe, metrics_table, model_rows, origin_rows, remark_texts

    model = load(options.model)
    data = describe(model)
    bounds = None if model.bounds is None else dict(zip(model.specification.elements, model.bounds.atoms.tolist()))
    if options.json:
        print(json.dumps({"file": options.model, **data, "extrapolation_bounds_atoms": bounds}, indent=2))
        return
    told = "none: extrapolation is not told"
    if bounds is not None:
        told = "of the densities of " + ", ".join(f"{count:.0f} {symbol}" for symbol, count in bounds.items())
    for name, text in [("file", options.model), *model_rows(data), ("training bounds", told), *origin_rows(data)]:
        print(f"{name:<20}{text}")
    for part, count, sources, fingerprint in data_rows(data["data"]):
        print(f"{part + ' data':<20}{count} structures, {sources}, fingerprint {fingerprint[:16]}")
    if data["metrics"]:
        print("\n" + metrics_table(data["metrics"]))
        _warn(remark_texts(data["metrics"]))


def _audit(options, arguments):
    from eann_lite.audit import audit, audit_table, write_audit
    from eann_lite.audit.page import audit_json
    from eann_lite.audit.run import SECONDS
    from eann_lite.compiled import set_threads
    from eann_lite.io.model_file import load
    from eann_lite.progress import StepProgress
    from eann_lite.structures import read_structures

    seconds = SECONDS if options.seconds is None else options.seconds
    if not 0.0 < seconds < float("inf"):
        raise InputError(f"--seconds {options.seconds}: expected a positive number, such as {SECONDS:g}.")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: expected 0 or a positive whole number.")
    set_threads(options.threads)
    out = None if options.out is None else _writable_directory(options.out)
    model = load(options.model)
    data = read_structures(options.files, **_reading(vars(options))) if options.files else None
    progress = StepProgress(sys.stderr) if sys.stderr.isatty() else None
    found = audit(model, data, seed=options.seed, seconds=seconds, progress=progress)
    paths = [] if out is None else write_audit(found, out)
    if options.json:
        print(json.dumps(audit_json(found), indent=1))
    else:
        print("\n".join([audit_table(found), *(f"written {path}" for path in paths)]))
    return 1 if found.broken else 0


#: Largest force in eV/Angstrom at which a structure counts as relaxed.
RELAXED = 0.01


def _modes(options, arguments):
    import numpy as np
    from ase.units import invcm

    from eann_lite.calculator import EANNCalculator
    from eann_lite.compiled import set_threads
    from eann_lite.io.model_file import load
    from eann_lite.second_derivatives import free_indices, vibrations, wavenumbers
    from eann_lite.structures import read_atoms

    if options.relax is not None and not 0.0 < options.relax < float("inf"):
        raise InputError(
            f"--relax {options.relax}: expected the largest force that may remain, such as 1e-4 eV/Angstrom."
        )
    set_threads(options.threads)
    model = load(options.model)
    structures = read_atoms(options.structure)
    if not -len(structures) <= options.index < len(structures):
        raise InputError(
            f"--index {options.index}: {options.structure} has {len(structures)} structures, so it can be "
            f"0 to {len(structures) - 1}, or -1 for the last."
        )
    if options.out is not None:
        _writable_directory(str(Path(options.out).resolve().parent))
    atoms, where = structures[options.index]
    free = free_indices(atoms, where)
    atoms.calc = EANNCalculator(model)
    if options.relax is not None:
        from ase.optimize import BFGS

        if not BFGS(atoms, logfile=None).run(fmax=options.relax, steps=1000):
            raise InputError(
                f"{options.structure}: not relaxed to {options.relax:g} eV/Angstrom within 1000 steps. "
                "Give a larger --relax, or a structure nearer to a minimum."
            )
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    modes = vibrations(model, atoms, free)
    found = wavenumbers(modes.get_hessian(), atoms.get_masses()[free])
    zero_point = 0.5 * invcm * float(found[found > 0].sum())
    if options.out is not None:
        modes.write_jmol(options.out)
    held = np.setdiff1d(np.arange(len(atoms)), free)
    if options.json:
        record = {"wavenumbers_per_cm": found.tolist(), "zero_point_energy_ev": zero_point, "largest_force": largest}
        record |= {"positions": atoms.positions.tolist(), "masses_amu": atoms.get_masses().tolist()}
        print(json.dumps(record | {"held_still": held.tolist()}, indent=1))
        return
    told = "none held still"
    if held.size:
        told = f"{held.size} held still by the constraints of the file: modes of the other {free.size}"
    print(f"{len(atoms)} atoms, {told}; masses {_masses_text(atoms)}")
    print("mode   1/cm         meV")
    for n, wavenumber in enumerate(found):
        print(f"{n:4d}  {abs(wavenumber):10.3f}{'i' if wavenumber < 0 else ' '} {1000 * invcm * abs(wavenumber):10.3f}")
    print(f"zero-point energy {zero_point:.4f} eV; energy {atoms.get_potential_energy():.6f} eV")
    if largest > RELAXED:
        _warn([f"the largest force is {largest:.3g} eV/Angstrom: no minimum, so these are no vibrations. See --relax."])
    if options.out is not None:
        print(f"written {options.out}")


def _masses_text(atoms):
    """The masses of each element, in amu: "C 12.011, H 1.008 and 2.014"."""
    masses = {}
    for symbol, mass in sorted(zip(atoms.get_chemical_symbols(), atoms.get_masses().tolist())):
        masses.setdefault(symbol, {})[f"{mass:.6g}"] = None
    return ", ".join(f"{symbol} {' and '.join(values)}" for symbol, values in masses.items()) + " amu"


def _import(options, arguments):
    from eann_lite.io.published import load

    model = load(options.path, options.density, options.nn, options.inta_sign)
    model.save(options.out)
    found = model.provenance["import"]
    _warn(found["warnings"])
    if options.json:
        print(json.dumps({"model": options.out, **found}, indent=2))
        return
    print(f"{found['kind']} {found['file']}\n")
    for row in found["findings"]:
        value = ", ".join(row["value"]) if isinstance(row["value"], list) else row["value"]
        print(f"{row['name']:<20}{value}  ({row['where']})")
    print(f"\nmodel   {options.out}")


def _export(options, arguments):
    from eann_lite.io.model_file import load
    from eann_lite.io.published import save_state

    for path in save_state(load(options.model), options.out):
        print(f"written {path}")


# ---- parts ----------------------------------------------------------------------------------------------------------


def _complain(message, status):
    print(f"eann-lite: {message}", file=sys.stderr)
    return status


def _warn(texts):
    for text in texts:
        print(f"warning: {by_flags(text)}", file=sys.stderr)


#: Settings whose names are no words of a sentence, as Python's messages have them, with a value or without.
_NAMED = re.compile(
    rf"(?<![\w'\"/\\.-])({'|'.join(name for name in SETTINGS if '_' in name)})"
    # What goes on with these is the path of a file, where settings may stand, too.
    r"(?:=('[^']*'|\d[\d.]*\d|\d))?(?![\w/\\=-]|\.\w)"
)


def by_flags(text, flags=None):
    """A message with settings written as flags, where they are among ``flags`` (default: those of all settings).

    One about a configuration file stays as it is.

    >>> by_flags("energies look like Hartree: read with energy_unit='Hartree'.")
    'energies look like Hartree: read with --energy-unit Hartree.'
    """

    def written(found):
        name, value = found.groups()
        if flags is not None and _flag(name) not in flags:
            return found.group()
        return _flag(name) + ("" if value is None else f" {shlex.quote(value.strip(chr(39)))}")

    on_file = ".toml: " in text or any(f"[{section}]" in text for section in SECTIONS)
    return text if on_file else _NAMED.sub(written, text)


def _teller(options):
    """Function that prints for people: to standard error where standard output is for JSON, nowhere when quiet."""
    if options.quiet:
        return lambda text: None
    return lambda text: print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def _single_values(given):
    """One file or one fraction after a flag that takes several files is that value itself."""
    return {
        name: value[0] if SETTINGS[name].type is object and len(value) == 1 else value for name, value in given.items()
    }


def _reading(values):
    """Arguments of ``read_structures`` among named values."""
    return {name: values[name] for name in READING if name in values}


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
        _warn([f"nothing to resume: {settings.out} {there}: the fit starts anew. If it was begun before, check --out."])
    if aside is None:
        return None
    cure = "; --resume would go on with it" if goes_on else ""
    return f"What an earlier fit left in {settings.out}, or has a name of its files, goes to {aside}{cure}."


def _read_parts(settings):
    """{"train", "valid", "test": structures, a fraction, or None} of the files that the settings name."""
    from eann_lite.structures import read_structures

    reading = _reading(settings.to_dict())
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
        _warn(f"{part} data: {text}" for text in warnings_for(structures))
    owner = [part for part, structures in read.items() for _ in structures]
    shared = [group for group in find_duplicates(sum(read.values(), [])) if len({owner[i] for i in group}) > 1]
    if shared:
        names = " and ".join(dict.fromkeys(owner[i] for group in shared for i in group))
        _warn([f"{len(shared)} structures are in more than one of {names} data: errors there will look too small."])


def _how_to_resume(arguments, out):
    from eann_lite.training.run import has_checkpoint

    if not has_checkpoint(out):
        return "There is no checkpoint yet: start again."
    again = arguments if "--resume" in arguments else [*arguments, "--resume"]
    return f"The last checkpoint is in {out}; go on with: eann-lite {shlex.join(again)}"


def _writable_directory(name):
    """Path of a directory, made if need be, in which a file can be written; else an InputError."""
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{name}: cannot make this directory: {error.strerror}. Give another one.") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{name}: this directory cannot be written to. Give another one.")
    return path


def _table_or_note(metrics):
    from eann_lite.report import metrics_table

    for part, values in metrics.items():
        if all(value is None for name, value in values.items() if "rmse" in name):
            return f"{part}: {values['n_structures']} structures without any label, so there are no errors to tell."
    return metrics_table(metrics)


def _prediction_arrays(part, labelled, predictions):
    """Named arrays as in predictions.npz."""
    return {
        f"{part}_energy_true": labelled.energies,
        f"{part}_energy_predicted": predictions.energies,
        f"{part}_n_atoms": labelled.n_atoms,
        f"{part}_forces_true": labelled.forces,
        f"{part}_forces_predicted": predictions.forces,
    }
