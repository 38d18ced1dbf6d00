"""What is told of an audit: a text table, one self-contained HTML page, and the same as JSON.

| key of audit.json | content |
|---|---|
| format, version | "eann_lite audit", 1 |
| verdict | "BROKEN", "warning" or "ok": the worst of all lines |
| checks | list of lines: part, name, value, unit, limit (number, [lowest, highest] or null), verdict, where, detail |
| model | as ``eann-lite info --json`` tells it |
| structures, origin, seed | audited structures: name, formula, n_atoms, pbc, relaxed, seconds_per_evaluation |
| records | {part: the numbers behind its plots and tables}, see below |
| seconds, seconds_by_part | time spent |

Parts: ``laws``, ``derivatives`` (no record), ``smoothness`` (path), ``dynamics`` (steps_fs, fluctuation_ev_per_atom,
drift_ev_per_atom_per_ps, slope), ``modes`` (wavenumbers_per_cm), ``approach`` (curves), ``outside`` (by element),
``sensitivity`` (centres), ``data`` (metrics, by_element, by_energy, by_force_size, worst_energy, worst_forces).
"""

import html
import json
import re
from pathlib import Path

from eann_lite.audit.check import NOT_CHECKED, OK, WARNING
from eann_lite.audit.run import TITLES
from eann_lite.io.atomic import write_atomically
from eann_lite.progress import number_text

#: Columns of the text table: the number, its limit, the verdict.
NAME_WIDTH, NUMBER_WIDTH = 46, 11
#: Wavenumbers that are written out.
MODES_SHOWN = 60


def audit_table(found):
    """Text table of an `Audit`: a line for each check, and one that sums up."""
    lines = [f"{'':<{NAME_WIDTH}}{'number':>{NUMBER_WIDTH}}{'limit':>{NUMBER_WIDTH}}  {'unit':<13}verdict"]
    part = None
    for check in found.checks:
        if check.part != part:
            part = check.part
            lines += ["", TITLES[part]]
        numbers = f"{value_text(check.value):>{NUMBER_WIDTH}}{limit_text(check.limit):>{NUMBER_WIDTH}}"
        lines.append(f"  {check.name:<{NAME_WIDTH - 2}}{numbers}  {check.unit:<13}{check.verdict}")
        if check.verdict != OK:
            lines += [f"      {text}" for text in (check.where, check.detail) if text]
    return "\n".join(lines) + "\n\n" + summary_text(found)


def summary_text(found):
    """One line: how many checks came out how, and the time."""
    counts = {
        verdict: sum(check.verdict == verdict for check in found.checks) for verdict in (OK, WARNING, NOT_CHECKED)
    }
    broken = f"{len(found.broken)} BROKEN, " if found.broken else "nothing BROKEN, "
    rest = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{broken}{rest}; {found.seconds:.0f} s."


def value_text(value):
    """A number with three digits that count; a dash where there is none.

    >>> value_text(1.234e-9), value_text(2.0), value_text(3110.2), value_text(None)
    ('1.23e-09', '2', '3110', '-')
    """
    if value is None:
        return "-"
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.3g}"


def limit_text(limit):
    """A limit as text: a number, "low to high", or a dash.

    >>> limit_text((1.8, 2.2)), limit_text(1e-6)
    ('1.8 to 2.2', '1e-06')
    """
    return " to ".join(map(value_text, limit)) if isinstance(limit, tuple) else value_text(limit)


def audit_json(found):
    """The audit as plain data; keys: see the module."""
    from eann_lite.io.model_file import plain_values

    records = {part: dict(record) for part, record in found.records.items() if record}
    if "data" in records:
        del records["data"]["parity"]  # As many numbers as the data themselves.
    return plain_values(
        {
            "format": "eann_lite audit", "version": 1, "verdict": found.verdict,
            "checks": [check._asdict() for check in found.checks], "model": found.model, "structures": found.subjects,
            "origin": found.origin, "seed": found.seed, "records": records, "seconds": found.seconds,
            "seconds_by_part": found.seconds_by_part,
        }
    )  # fmt: skip


def write_audit(found, directory):
    """Write ``audit.html`` and ``audit.json`` into a directory that exists; returns their paths."""
    directory = Path(directory)
    texts = {"audit.html": audit_page(found), "audit.json": json.dumps(audit_json(found), indent=1) + "\n"}
    for name, text in texts.items():
        write_atomically(directory / name, lambda file, text=text: file.write(text.encode("utf-8")))
    return [directory / name for name in texts]


def audit_page(found):
    """HTML text of the audit, which needs no other file."""
    from eann_lite.audit.figures import figures_of
    from eann_lite.plots import figure_png
    from eann_lite.report import data_rows, image_html, model_rows, origin_rows, page_html, rows_html

    figures = figures_of(found.records)
    sections = [("Verdicts", _checks_html(found))]
    for part, title in TITLES.items():
        content = "".join(image_html(name, figure_png(figure)) for name, figure in figures.get(part, []))
        sections.append((title, content + _tables_html(part, found.records.get(part) or {})))
    data = [
        (f"{part} data", f"{count} structures, {files}") for part, count, files, _ in data_rows(found.model["data"])
    ]
    sections += [
        ("Audited structures", _subjects_html(found)),
        ("Model", rows_html([*model_rows(found.model), *data, *origin_rows(found.model)])),
        ("Time", rows_html([(TITLES[part], f"{seconds:.1f} s") for part, seconds in found.seconds_by_part.items()])),
    ]
    title = f"Audit: {found.model['kind']} for {', '.join(found.model['specification']['elements'])}"
    introduction = (
        f"By eann_lite, seed {found.seed}: {summary_text(found)} BROKEN: a law does not hold, the model or its code is "
        "wrong. Warning: the law holds, but do not trust the model there. Energies in eV, lengths in Å."
    )
    return page_html(title, introduction, sections)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _checks_html(found):
    rows = ['<tr class="head"><th>check</th><th class="number">number</th><th class="number">limit</th><th>unit</th>'
            "<th>verdict</th><th>where, and what it says</th></tr>"]  # fmt: skip
    part = None
    for check in found.checks:
        if check.part != part:
            part = check.part
            rows.append(f'<tr class="part"><th colspan="6">{html.escape(TITLES[part])}</th></tr>')
        where = f"{html.escape(_unit(check.where))}. " if check.where else ""
        rows.append(
            f'<tr><th>{html.escape(check.name)}</th><td class="number">{value_text(check.value)}</td>'
            f'<td class="number">{limit_text(check.limit)}</td><td>{html.escape(_unit(check.unit))}</td>'
            f'<td class="verdict {check.verdict.replace(" ", "-")}">{check.verdict}</td>'
            f'<td class="detail">{where}{html.escape(_unit(check.detail))}</td></tr>'
        )
    return f'<table class="checks">{"".join(rows)}</table>'


def _unit(text):
    """Angstrom as people write it.

    >>> _unit("eV/A, 0.7 A from A")
    'eV/Å, 0.7 Å from A'
    """
    return re.sub(r"(?<=[/0-9])A\b|(?<=[0-9] )A\b", "Å", text)


def _tables_html(part, record):
    if part == "modes" and record:
        return _modes_html(record)
    if part == "data" and record:
        return _data_html(record)
    return ""


def _modes_html(record):
    """The wavenumbers as text; imaginary ones with an i."""
    values = record["wavenumbers_per_cm"]
    text = ", ".join(f"{value:.1f}" if value >= 0 else f"{-value:.1f}i" for value in values[:MODES_SHOWN])
    more = f" and {len(values) - MODES_SHOWN} more" if len(values) > MODES_SHOWN else ""
    return f"<p>Wavenumbers of {html.escape(record['structure'])} (1/cm): {text}{more}.</p>"


def _data_html(record):
    parts = (
        ("by_element", "Forces by element"),
        ("by_energy", "Energies by energy"),
        ("by_force_size", "Forces by size"),
    )
    tables = []
    for key, title in parts:
        unit = "meV/atom" if key == "by_energy" else "meV/Å"
        rows = [(_unit(r["part"]), r["count"], number_text(r["rmse"]), number_text(r["mae"])) for r in record[key]]
        tables.append(_numbers_html((title, "labels", f"RMSE ({unit})", f"MAE ({unit})"), rows))
    for key, title, unit in (("worst_energy", "Worst energies", "meV/atom"), ("worst_forces", "Worst forces", "meV/Å")):
        rows = [(r["index"], r["source"], r["atoms"], number_text(r["error"])) for r in record[key]]
        tables.append(_numbers_html((f"{title}: index", "structure", "atoms", f"error ({unit})"), rows))
    return f"<p>{record['structures']} of {record['of']} structures.</p>" + "".join(tables)


def _numbers_html(head, rows):
    """A table of numbers with its head; nothing without rows."""
    if not rows:
        return ""
    heads = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    lines = "".join(
        f"<tr><th>{html.escape(str(first))}</th>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in rest) + "</tr>"
        for first, *rest in rows
    )
    return f'<table class="numbers"><tr>{heads}</tr>{lines}</table><p></p>'


def _subjects_html(found):
    from eann_lite.report import rows_html

    rows = [
        (
            s["name"],
            f"{s['formula']}, {s['n_atoms']} atoms, {1e3 * s['seconds_per_evaluation']:.3g} ms for energy and forces",
        )
        for s in found.subjects
    ]
    return f"<p>{html.escape(found.origin[0].upper() + found.origin[1:])}.</p>" + rows_html(rows)
