"""``eann-lite export``: a model as the published packages read it."""

from eann_lite.cli.flags import add_model


def add_to(commands):
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "export",
        help="a model as the published packages read it",
        description="Write a state dictionary that the published REANN code loads, and para/input_nn, para/input_density. "
        "That code has no pair repulsion: export a model of `eann-lite fit --repulsion none`. The default there, auto, takes "
        "zbl where training structures have close contacts, and such a model is refused; so is the activation tanh.",
        allow_abbrev=False,
    )
    add_model(parser)
    parser.add_argument("--reann", action="store_true", required=True, help="as REANN.pth of the REANN package")
    parser.add_argument("--out", metavar="REANN.pth", required=True, help="state dictionary to write")
    parser.set_defaults(command=run, name="export", flags=["--reann", "--out"])


def run(options, arguments):
    """Write the files of the published code."""
    from eann_lite.io.model_file import load
    from eann_lite.io.published import save_state

    for path in save_state(load(options.model), options.out):
        print(f"written {path}")
