"""The command line ``eann-lite``: fit a potential, evaluate, inspect and audit it, import and export published models.

Results go to standard output; progress, warnings and errors to standard error.  Exit status: 0, 2 for anything wrong
with the input (one message, no traceback), 1 for an audit that found a law broken, 130 after Ctrl-C, 143 after SIGTERM.

A command is a file: ``add_to`` says its arguments, ``run`` does it.
"""

import argparse
import os
import sys

from eann_lite import __version__
from eann_lite.cli import audit, evaluate, fit, info, modes, published_export, published_import
from eann_lite.cli.messages import by_flags, complain
from eann_lite.config import closest
from eann_lite.errors import InputError
from eann_lite.termination import Terminated


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
        return complain(by_flags(str(error), flags), 2)
    except KeyboardInterrupt as stop:
        return complain(f"interrupted. {stop}".strip(), 143 if isinstance(stop, Terminated) else 130)
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{error.strerror or error}.", 2)
    return status


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
    for command in (fit, evaluate, info, audit, modes, published_import, published_export):
        command.add_to(commands)
    return parser


def _parse(arguments):
    """Namespace of the arguments; unknown flags are InputErrors that name the nearest valid one."""
    options, unknown = build_parser().parse_known_args(arguments)
    if not unknown:
        return options
    flags = [word for word in unknown if word.startswith("-")]
    if not flags:
        raise InputError(f"{unknown[0]!r} is one argument too many. Flags stand before their values, as in --cutoff 6.")
    flag = flags[0].split("=")[0]
    meant = closest(flag, options.flags)
    cure = f"Did you mean {meant}? " if meant else ""
    raise InputError(f"unknown flag {flag}. {cure}`eann-lite {options.name} --help` lists all.")
