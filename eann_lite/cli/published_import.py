"""``eann-lite import``: a model of the published packages, without PyTorch."""

import json

from eann_lite.cli.messages import warn


def add_to(commands):
    """Add the command and its arguments."""
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
    parser.set_defaults(command=run, name="import", flags=["--density", "--nn", "--inta-sign", "--out", "--json"])


def run(options, arguments):
    """Write the model, print what was found."""
    from eann_lite.io.published import load

    model = load(options.path, options.density, options.nn, options.inta_sign)
    model.save(options.out)
    found = model.provenance["import"]
    warn(found["warnings"])
    if options.json:
        print(json.dumps({"model": options.out, **found}, indent=2))
        return
    print(f"{found['kind']} {found['file']}\n")
    for row in found["findings"]:
        value = ", ".join(row["value"]) if isinstance(row["value"], list) else row["value"]
        print(f"{row['name']:<20}{value}  ({row['where']})")
    print(f"\nmodel   {options.out}")
