"""What the command line says to people."""

import re
import shlex
import sys

from eann_lite.cli.flags import flag
from eann_lite.config import SECTIONS, SETTINGS


def complain(message, status):
    """Say what is wrong; the exit status."""
    print(f"eann-lite: {message}", file=sys.stderr)
    return status


def warn(texts):
    """Say what the user should know, a line each."""
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
        if flags is not None and flag(name) not in flags:
            return found.group()
        return flag(name) + ("" if value is None else f" {shlex.quote(value.strip(chr(39)))}")

    on_file = ".toml: " in text or any(f"[{section}]" in text for section in SECTIONS)
    return text if on_file else _NAMED.sub(written, text)


def teller(options):
    """Function that prints for people: to standard error where standard output is for JSON, nowhere when quiet."""
    if options.quiet:
        return lambda text: None
    return lambda text: print(text, file=sys.stderr if options.json else sys.stdout, flush=True)
