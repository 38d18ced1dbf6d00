"""``eann-lite evaluate``: errors of a model on labelled structures."""

import json
from pathlib import Path

from eann_lite.cli.directories import writable_directory
from eann_lite.cli.flags import add_model, add_reading, add_threads, reading_of
from eann_lite.cli.messages import warn


def add_to(commands):
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "evaluate",
        help="errors of a model on labelled structures",
        description="Errors of a model on structures with energies, forces, stresses.",
        allow_abbrev=False,
    )
    add_model(parser)
    parser.add_argument("files", metavar="FILE", nargs="+", help="structures with labels")
    parser.add_argument("--json", action="store_true", help="print the errors as JSON, nothing else")
    parser.add_argument("--plots", metavar="DIR", help="write parity plots (PNG) into this directory")
    add_threads(parser)
    parser.set_defaults(command=run, name="evaluate", flags=["--json", "--plots", "--threads", *add_reading(parser)])


def run(options, arguments):
    """Print errors, and how many atoms are outside of the training data."""
    from eann_lite.compiled import set_threads
    from eann_lite.extrapolation import outside_summary, outside_text
    from eann_lite.io.model_file import load
    from eann_lite.structures import read_structures, summarise, warnings_for
    from eann_lite.training.metrics import error_metrics
    from eann_lite.training.objective import labelled_set, predict

    set_threads(options.threads)
    plots = None if options.plots is None else writable_directory(options.plots)
    model = load(options.model)
    structures = read_structures(options.files, **reading_of(vars(options)))
    if not options.json:
        print(f"{summarise(structures)}\n")
    warn(warnings_for(structures))
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
