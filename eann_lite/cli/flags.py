"""Flags that stand for settings, and their values."""

import argparse

from eann_lite.config import LIST_OF, SETTINGS, kebab
from eann_lite.training.settings import READING, FitSettings

#: What stands for the value of a flag in the help, where its type alone would not say it.
METAVARS = {"train": "FILE", "valid": "FILE|FRACTION", "test": "FILE|FRACTION", "out": "DIR"}


def add_setting(group, name):
    """One flag for a field of ``FitSettings``; it leaves no trace in the namespace unless it is given."""
    item = SETTINGS[name]
    kind = LIST_OF.get(name, item.type)
    options = {"help": _help(item), "default": argparse.SUPPRESS}
    if kind is bool:
        group.add_argument(flag(name), action=argparse.BooleanOptionalAction, **options)
        return
    options["metavar"] = METAVARS.get(name) or {str: "TEXT", int: "N", float: "X"}[kind]
    if name in LIST_OF or kind is object:
        options["nargs"] = "+"
    group.add_argument(flag(name), type=_file_or_fraction if kind is object else kind, **options)


def flag(name):
    """The flag of a setting.

    >>> flag("energy_unit")
    '--energy-unit'
    """
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


def add_model(parser):
    """The model file that a command works on."""
    parser.add_argument("model", metavar="MODEL", help="model file (model.npz)")


def add_threads(parser):
    """How many threads a command computes with."""
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores)")


def add_reading(parser):
    """The flags that say how files of structures are read; their names."""
    group = parser.add_argument_group("data")
    for name in READING:
        add_setting(group, name)
    return [flag(name) for name in READING]


def reading_of(values):
    """Arguments of ``read_structures`` among named values."""
    return {name: values[name] for name in READING if name in values}
