"""What is told after a fit: the table of errors, the plots, and one self-contained HTML page.

Everything is made from the files in the directory of a fit, so a report can be made again at any time.
"""

import base64
import html
import json
from pathlib import Path

from eann_lite.errors import InputError
from eann_lite.model.specification import NetworkSpecification
from eann_lite.progress import number_text

#: Groups of columns: title with unit, key of the root mean square error, key of the mean absolute error.
COLUMN_GROUPS = (
    ("energy (meV)", "energy_rmse_mev", "energy_mae_mev"),
    ("energy (meV/atom)", "energy_rmse_mev_per_atom", "energy_mae_mev_per_atom"),
    ("forces (meV/A)", "forces_rmse_mev_per_ang", "forces_mae_mev_per_ang"),
    ("stress (meV/A^3)", "stress_rmse_mev_per_ang3", "stress_mae_mev_per_ang3"),
)
#: Width of a number in the text table.
WIDTH = 9
#: So many files of a part are named.
SOURCES_SHOWN = 5


def metrics_table(metrics):
    """Text table of errors: a row for each part, RMSE and MAE of each kind of label that any part has.

    metrics : {part: {"n_structures": ..., "energy_rmse_mev": ..., ...}} with the keys of ``error_metrics``, as
        `error_rows` takes it.

    >>> print(metrics_table({"test": {"n_structures": 3, "energy_rmse_mev": 43.5, "energy_mae_mev": 29.0}}))
                  energy (meV)
              n      RMSE      MAE
    test      3      43.5       29
    """
    rows = error_rows(metrics)
    groups = _groups_with_values(rows)
    name_width = max(len(label) for label, _ in rows)
    margin = " " * (name_width + 7)
    lines = [margin + "  ".join(f"{title:>{2 * WIDTH}}" for title, *_ in groups)]
    lines += [" " * name_width + f"{'n':>7}" + "  ".join(f"{'RMSE':>{WIDTH}}{'MAE':>{WIDTH}}" for _ in groups)]
    for label, values in rows:
        numbers = (f"{number_text(values.get(r)):>{WIDTH}}{number_text(values.get(m)):>{WIDTH}}" for _, r, m in groups)
        lines.append(f"{label:<{name_width}}{values['n_structures']:>7}" + "  ".join(numbers))
    return "\n".join(line.rstrip() for line in lines)


def error_rows(metrics):
    """(label, errors) for each part that has any structure, and below it for each of its files, where they are apart.

    metrics : {part: errors or None}, and perhaps "by_file": {part: {file: errors}} and "remarks".

    >>> [label for label, _ in error_rows({"train": {}, "test": {}, "by_file": {"test": {"a.xyz": {}, "b.xyz": {}}}})]
    ['train', 'test', '  a.xyz', '  b.xyz']
    """
    rows = []
    for part, values in metrics.items():
        if part not in ("by_file", "remarks") and values is not None:
            rows.append((part, values))
            rows += [(f"  {file}", errors) for file, errors in metrics.get("by_file", {}).get(part, {}).items()]
    return rows


def remark_texts(metrics):
    """Texts about what looks wrong in the errors of a fit, often none.

    >>> remark_texts({"train": {}, "remarks": [{"text": "odd"}]})
    ['odd']
    """
    return [remark["text"] for remark in metrics.get("remarks", [])]


def write_report(directory):
    """Write the plots (PNG) and ``report.html`` of a fit into its directory; returns the path of the page.

    Read are metrics.json, history.jsonl, config.toml, predictions.npz and model.npz, as ``eann_lite.fit`` leaves them.
    InputError if one of them is not there.
    """
    import numpy as np

    from eann_lite.io.atomic import write_atomically
    from eann_lite.io.model_file import load
    from eann_lite.plots import write_learning_curve, write_parity_plots

    directory = Path(directory)
    metrics = json.loads(_text(directory / "metrics.json"))
    history = [json.loads(line) for line in _text(directory / "history.jsonl").splitlines()]
    configuration = _text(directory / "config.toml")
    model = load(directory / "model.npz")
    with np.load(_existing(directory / "predictions.npz"), allow_pickle=False) as archive:
        predictions = dict(archive)
    plots = write_parity_plots(directory, predictions)
    if history:
        plots.append(write_learning_curve(directory, history))
    page = report_page(model, metrics, configuration, plots, directory)
    path = directory / "report.html"
    write_atomically(path, lambda file: file.write(page.encode("utf-8")))
    return path


def report_page(model, metrics, configuration, plots, directory):
    """HTML text of the report, which needs no other file.

    model : Model with its provenance; metrics : errors by part; configuration : TOML text; plots : paths of PNG files;
    directory : where the model file lies, for the lines that show its use.
    """
    data = describe(model)
    use = (
        "import eann_lite\n"
        f"model = eann_lite.load({str(Path(directory) / 'model.npz')!r})\n"
        "atoms.calc = eann_lite.EANNCalculator(model)  # atoms: any ase.Atoms\n"
    )
    sections = [
        ("Errors", _metrics_html(metrics)),
        ("Plots", "".join(_image_html(path) for path in plots)),
        ("Use", f"<pre>{html.escape(use)}</pre>"),
        ("Model", rows_html(model_rows(data))),
        ("Data", _data_html(data["data"])),
        ("Where it was made", rows_html(origin_rows(data))),
        ("Configuration", f"<pre>{html.escape(configuration)}</pre>"),
    ]
    title = f"{data['kind']} for {', '.join(data['specification']['elements'])}"
    introduction = (
        "Report of a fit by eann_lite. Energies in eV, lengths in Å; errors are of the model that is kept, the best on "
        "the validation part."
    )
    return page_html(title, introduction, sections)


def page_html(title, introduction, sections):
    """HTML text of one self-contained page: sections are (heading, HTML content); empty ones are left out."""
    body = "".join(f"<section><h2>{heading}</h2>{content}</section>\n" for heading, content in sections if content)
    return _PAGE.format(title=html.escape(title), introduction=html.escape(introduction), style=_STYLE, body=body)


def image_html(name, png):
    """An image (PNG bytes) as a part of the page itself."""
    image = base64.b64encode(png).decode("ascii")
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{image}">'


def rows_html(rows):
    """Table of (name, text) rows; nothing where there is none."""
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{cells}</table>" if cells else ""


def describe(model):
    """All that is known about a model, as plain data: the content of ``eann_lite info --json``.

    Keys: kind, specification, n_parameters, reference_energies_ev, units, and from the provenance data, metrics,
    settings, seed, epochs, seconds, versions, hardware (None where it is not known).
    """
    from eann_lite.io.model_file import plain_values

    specification, provenance = model.specification, model.provenance
    recursions = specification.recursions
    known = {
        "kind": f"REANN with T = {recursions}" if recursions else "EANN",
        "specification": specification.to_dict(),
        "n_parameters": int(model.vector.size),
        "reference_energies_ev": dict(zip(specification.elements, model.constants["reference_energies"].tolist())),
        "units": provenance.get("units", "eV, Angstrom"),
    }
    names = ("data", "metrics", "settings", "seed", "epochs", "seconds", "versions", "hardware")
    return plain_values(known | {name: provenance.get(name) for name in names})


def model_rows(data):
    """(name, text) rows about the form of a model; ``data`` is what `describe` gives."""
    s = data["specification"]
    energies = ", ".join(f"{symbol} {energy:.4f}" for symbol, energy in data["reference_energies_ev"].items())
    rows = [
        ("kind", data["kind"]),
        ("elements", ", ".join(s["elements"])),
        ("cutoff", f"{s['cutoff']:g} A"),
        ("orbitals", f"degree up to {s['max_degree']}, {s['radial']} Gaussians per element"),
        ("densities", f"{s['densities']}, contraction {s['contraction']}"),
        ("networks", NetworkSpecification(**s["network"]).text),
    ]
    if s["recursions"]:
        rows.append(("recursion networks", NetworkSpecification(**s["recursion_network"]).text))
    rows.append(("repulsion", f"{s['repulsion']}, up to {s['repulsion_cutoff']:g} A" if s["repulsion"] else "none"))
    return rows + [
        ("parameters", f"{data['n_parameters']}"),
        ("reference energies", f"{energies} eV"),
        ("units", data["units"]),
    ]


def origin_rows(data):
    """(name, text) rows about how a model came to be, as far as it is known."""
    rows = []
    if data["versions"]:
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in data["versions"].items())))
    if data["hardware"]:
        rows.append(("machine", data["hardware"]))
    if data["seconds"] is not None:
        rows.append(("time of the fit", f"{data['seconds'] / 60:.1f} minutes"))
    if data["epochs"] is not None:
        rows.append(("epochs", f"{data['epochs']}"))
    if data["seed"] is not None:
        rows.append(("seed", f"{data['seed']}"))
    return rows


def data_rows(data):
    """(part, structures, sources, fingerprint) of each part of the data that a model was fitted to."""
    return [
        (part, f"{entry.get('n_structures', '-')}", _sources_text(entry.get("sources")), entry.get("fingerprint", "-"))
        for part, entry in (data or {}).items()
    ]


# ---- parts ----------------------------------------------------------------------------------------------------------


def _existing(path):
    if not path.is_file():
        raise InputError(f"{path} does not exist, so there is no report to make. Give the directory of a finished fit.")
    return path


def _text(path):
    return _existing(path).read_text(encoding="utf-8")


def _groups_with_values(rows):
    return [group for group in COLUMN_GROUPS if any(row.get(key) is not None for _, row in rows for key in group[1:])]


def _sources_text(sources):
    """The first files by name; all of them are in the JSON."""
    names = list(sources or ["-"])
    more = f" and {len(names) - SOURCES_SHOWN} more" if len(names) > SOURCES_SHOWN else ""
    return ", ".join(names[:SOURCES_SHOWN]) + more


def _metrics_html(metrics):
    errors = error_rows(metrics)
    groups = _groups_with_values(errors)
    titles = "".join(f'<th colspan="2">{html.escape(title.replace("/A", "/Å"))}</th>' for title, *_ in groups)
    rows = [f'<tr><th></th><th rowspan="2">structures</th><th rowspan="2">atoms</th>{titles}</tr>']
    rows.append(f"<tr><th></th>{'<th>RMSE</th><th>MAE</th>' * len(groups)}</tr>")
    for label, values in errors:
        numbers = "".join(f"<td>{number_text(values.get(key))}</td>" for group in groups for key in group[1:])
        counts = f"<td>{values['n_structures']}</td><td>{values.get('n_atoms', '-')}</td>"
        kind = ' class="file"' if label.startswith(" ") else ""
        rows.append(f"<tr{kind}><th>{html.escape(label.strip())}</th>{counts}{numbers}</tr>")
    remarks = "".join(f'<p class="warning">Warning: {html.escape(text)}</p>' for text in remark_texts(metrics))
    return f'<table class="numbers">{"".join(rows)}</table>{remarks}'


def _image_html(path):
    return image_html(Path(path).stem.replace("_", " "), Path(path).read_bytes())


def _data_html(data):
    rows = data_rows(data)
    if not rows:
        return ""
    head = "<tr><th></th><th>structures</th><th>files</th><th>fingerprint (SHA-256)</th></tr>"
    cells = "".join(
        f"<tr><th>{html.escape(part)}</th><td>{html.escape(count)}</td><td>{html.escape(sources)}</td>"
        f"<td><code>{html.escape(mark)}</code></td></tr>"
        for part, count, sources, mark in rows
    )
    return f"<table>{head}{cells}</table>"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; }
.numbers th, .numbers td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid #eee; }
.numbers th:first-child { text-align: left; padding-left: 0; }
.numbers .file th { font-weight: 400; padding-left: 1rem; }
.numbers .file td { color: #666; }
.numbers td { font-variant-numeric: tabular-nums; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; }
code { font-size: .8rem; word-break: break-all; }
img { max-width: 100%; display: block; margin: 1rem auto; }
.checks { width: 100%; font-size: .85rem; line-height: 1.35; }
.checks th, .checks td { border-bottom: 1px solid #eee; padding: .25rem .7rem .25rem 0; }
.checks .part th { padding-top: .9rem; border-bottom-color: #999; }
.checks th { font-weight: 400; white-space: nowrap; }
.checks .part th, .checks .head th { font-weight: 600; }
.checks .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.checks .detail { color: #555; }
.verdict { white-space: nowrap; font-weight: 600; }
.ok { color: #0a6b48; } .BROKEN { color: #b00020; } .warning { color: #9a5b00; } .not-checked { color: #666; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{introduction}</p>
{body}</body>
</html>
"""
