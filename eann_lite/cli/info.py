"""``eann-lite info``: what a model file holds."""

import json

from eann_lite.cli.flags import add_model
from eann_lite.cli.messages import warn


def add_to(commands):
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "info",
        help="what a model file holds",
        description="What a model is, what it was fitted to, its errors, units, versions and fingerprints.",
        allow_abbrev=False,
    )
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(command=run, name="info", flags=["--json"])


def run(options, arguments):
    """Print what a model is."""
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
        warn(remark_texts(data["metrics"]))
