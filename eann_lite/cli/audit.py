"""``eann-lite audit``: check all that can be checked of a model."""

import json
import sys

from eann_lite.cli.directories import writable_directory
from eann_lite.cli.flags import add_model, add_reading, add_threads, reading_of
from eann_lite.errors import InputError


def add_to(commands):
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "audit",
        help="check all that can be checked of a model",
        description="Laws, derivatives, smoothness, dynamics, modes, short range, extrapolation, descriptors, and errors on "
        "data; a verdict for each. Exit status 1: a law is broken.",
        allow_abbrev=False,
    )
    add_model(parser)
    parser.add_argument("files", metavar="DATA", nargs="*", help="structures to audit on, with or without labels")
    parser.add_argument("--out", metavar="DIR", help="write audit.html and audit.json into this directory")
    parser.add_argument("--json", action="store_true", help="print the audit as JSON, nothing else")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all that is drawn (default: 0)")
    parser.add_argument("--seconds", type=float, metavar="X", help="about how long it may take (default: 90)")
    add_threads(parser)
    flags = ["--out", "--json", "--seed", "--seconds", "--threads", *add_reading(parser)]
    parser.set_defaults(command=run, name="audit", flags=flags)


def run(options, arguments):
    """Print the audit; 1 if a law is broken."""
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
    out = None if options.out is None else writable_directory(options.out)
    model = load(options.model)
    data = read_structures(options.files, **reading_of(vars(options))) if options.files else None
    progress = StepProgress(sys.stderr) if sys.stderr.isatty() else None
    found = audit(model, data, seed=options.seed, seconds=seconds, progress=progress)
    paths = [] if out is None else write_audit(found, out)
    if options.json:
        print(json.dumps(audit_json(found), indent=1))
    else:
        print("\n".join([audit_table(found), *(f"written {path}" for path in paths)]))
    return 1 if found.broken else 0
