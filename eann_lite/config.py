"""Configuration of a fit: a strict TOML file and command-line flags become ``FitSettings``.

Sections and keys are those of ``eann_lite.training.settings.FitSettings``.  Nothing is ignored: an unknown section or
key, a key in the wrong section and a value of the wrong type are errors that name the file and the cure.
"""

import difflib
import math
import os
import sys
from dataclasses import fields

from eann_lite.errors import InputError
from eann_lite.training.settings import FitSettings

#: Setting names, in their order -> dataclass field.
SETTINGS = {item.name: item for item in fields(FitSettings)}
#: Section -> names of its settings.
SECTIONS = {}
for _name, _item in SETTINGS.items():
    SECTIONS.setdefault(_item.metadata["section"], []).append(_name)

#: Settings that may be infinite: a loss that grows linearly nowhere.
MAY_BE_INFINITE = ("huber", "forces_huber")
#: Settings that are lists, and the type of their entries.
LIST_OF = {"train": str, "widths": int, "recursion_widths": int}


def settings_from(path=None, flags=None):
    """``FitSettings`` of a configuration file and of flags, which beat it; what neither names keeps its default.

    path : TOML file, or None.
    flags : {name: value} as in ``FitSettings``, or None.

    InputError: no such file, no TOML, an unknown section or key (it names the nearest valid one), a value of the
    wrong type or outside its range.  File names in it are relative to the working directory, as they are in flags.

    >>> settings_from(flags={"epochs": 5}).epochs
    5
    """
    values = {}
    if path is not None:
        values = read_config(path)
        try:
            FitSettings(**values)
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {error}") from None
    given = {name: checked_value(name, value, f"--{kebab(name)}") for name, value in (flags or {}).items()}
    return FitSettings(**values | given)


def read_config(path):
    """{name: value} of the settings in a TOML file with the sections [data], [model], [training] and [output]."""
    where = os.fspath(path)
    tables = _read_toml(where)
    values = {}
    for section, table in tables.items():
        if section in SETTINGS:
            raise InputError(f"{where}: {section} stands outside its section. Write it below [{_section_of(section)}].")
        if section not in SECTIONS and not isinstance(table, dict):
            raise InputError(f"{where}: unknown key {section!r}. {cure_for_unknown(section)}")
        if section not in SECTIONS:
            raise InputError(f"{where}: unknown section [{section}]. {_cure_for_section(section)}")
        if not isinstance(table, dict):
            raise InputError(f"{where}: {section} is a value, expected a section: a line [{section}], keys below it.")
        for name, value in table.items():
            key = f"{where}, [{section}]: {name}"
            if name not in SETTINGS:
                raise InputError(f"{where}: unknown key {name!r} in [{section}]. {cure_for_unknown(name, section)}")
            if _section_of(name) != section:
                raise InputError(f"{key} belongs into section [{_section_of(name)}]. Move it there.")
            values[name] = checked_value(name, value, key)
    return values


def write_config(settings, path):
    """Write ``FitSettings`` as TOML that `read_config` reads; settings that are None stay out.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/config.toml"
    >>> write_config(FitSettings(cutoff=6.0), path)
    >>> settings_from(path) == FitSettings(cutoff=6.0)
    True
    """
    from eann_lite.io.atomic import write_atomically

    text = config_text(settings)
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def config_text(settings):
    """TOML text of ``FitSettings``, by section."""
    import tomli_w

    return tomli_w.dumps(settings.by_section())


def checked_value(name, value, where):
    """The value of setting ``name`` in its type (a whole number may stand for a real one, a text for a list of one).

    ``where`` names the place in messages.  InputError for a wrong type; NaN is wrong everywhere, infinity almost.

    >>> checked_value("cutoff", 6, "--cutoff")
    6.0
    """
    kind = SETTINGS[name].type
    if name in MAY_BE_INFINITE and value == math.inf:
        return value
    if name in LIST_OF:
        entries = [value] if isinstance(value, LIST_OF[name]) else value
        if not isinstance(entries, (list, tuple)):
            raise _wrong_type(where, value, f"a list of {_TYPE_NAMES[LIST_OF[name]]}s")
        return [_checked_entry(entry, LIST_OF[name], where) for entry in entries]
    if kind is object:
        return _file_or_fraction(value, where)
    return _checked_entry(value, kind, where)


def closest(word, known):
    """The one of the ``known`` words that ``word`` was probably meant to be, or None.

    >>> closest("epoch", ["batch", "epochs"])
    'epochs'
    """
    close = difflib.get_close_matches(str(word).lower(), list(known), n=1, cutoff=0.55)
    return close[0] if close else None


def cure_for_unknown(name, section=None):
    """What to do about an unknown setting: the nearest one, first among those of ``section``, then among all.

    >>> cure_for_unknown("epoch")
    "Did you mean 'epochs' (section [training])?"
    """
    own = SECTIONS.get(section, [])
    meant = closest(name, own) or closest(name, SETTINGS)
    if meant is not None:
        return f"Did you mean {meant!r} (section [{_section_of(meant)}])?"
    return f"Keys of [{section}]: {', '.join(own)}." if own else f"Settings: {', '.join(SETTINGS)}."


def kebab(name):
    """Name of a setting as the command line writes it.

    >>> kebab("max_degree")
    'max-degree'
    """
    return name.replace("_", "-")


# ---- parts ----------------------------------------------------------------------------------------------------------

_TYPE_NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def _section_of(name):
    return SETTINGS[name].metadata["section"]


def _cure_for_section(name):
    meant = closest(name, SECTIONS)
    return f"{f'Did you mean [{meant}]? ' if meant else ''}Sections: {', '.join(f'[{known}]' for known in SECTIONS)}."


def _read_toml(where):
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(where, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InputError(f"configuration {where}: no such file. Check the path.") from None
    except OSError as error:
        raise InputError(f"configuration {where}: cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"configuration {where}: not valid TOML: {error}. Texts stand in quotes, lists in [ ], switches are true "
            "or false."
        ) from None


def _checked_entry(value, kind, where):
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    # bool is a subclass of int, so the comparison is of the types themselves.
    if type(value) is not kind:
        raise _wrong_type(where, value, f"{'' if kind is bool else 'a '}{_TYPE_NAMES[kind]}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where} = {value!r}: expected a finite number.")
    return value


def _file_or_fraction(value, where):
    """A text or a list of texts (files), or a number (a fraction)."""
    if isinstance(value, (list, tuple)):
        return [_checked_entry(entry, str, where) for entry in value]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _wrong_type(where, value, "a file (text), a list of files, or a fraction from 0 to below 1")
    return value if isinstance(value, str) else _checked_entry(value, float, where)


def _wrong_type(where, value, expected):
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return InputError(f"{where} = {shown}: expected {expected}.")
