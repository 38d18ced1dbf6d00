"""Run the validation cases and print one table: claim, published number, ours, verdict.

    python validation/run.py [--quick] [--out FILE] [--keep] [NAME ...]
    python validation/run.py --table

Every case is a folder with a ``run.py`` of its own whose ``--quick`` form ends within minutes.  Ends with 1 when a
case fails.  Cases that need data the repository does not carry look for it through EANN_LITE_SHARED or ``../shared``;
without it they are skipped and say so.

``--keep`` writes the rows of every case that ran, with command, commit, date and machine, into ``results.json`` beside
this file, as soon as the case ends: all of them together take hours, so they may be run one by one.
``--table`` prints what is kept and runs nothing.  A commit is that of the start; leave the sources alone until the end.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from data_location import shared_folder
from outcome import COLUMNS, FAILS, revision, table_of

HERE = Path(__file__).resolve().parent
KEPT = HERE / "results.json"


@dataclass(frozen=True)
class Case:
    """A script with the arguments of its two forms.

    In them ``{shared}`` is the folder of the shared data, ``{new}`` one that is empty and goes away.

    The full form of a fit is as long as its claim needs, which is mostly less than the claim allows.

    needs : files or folders of the shared data without which the case is skipped
    """

    folder: str
    quick: list = field(default_factory=lambda: ["--quick"])
    full: list = field(default_factory=list)
    needs: tuple = ()


def on_one_core(minutes):
    """Arguments of a fit of so many minutes on one core."""
    return ["--minutes", str(minutes), "--threads", "1"]


FORCES, ENERGIES = "data/ch4_random_forces.extxyz.gz", "data/ch4_random_energies.extxyz.gz"
CASES = {
    "golden": Case("golden", ["{shared}/golden"], ["{shared}/golden"], ("golden",)),
    "resume": Case("resume"),
    "completeness": Case("completeness"),
    # Half a minute; over 20 ps the drift is told from the fluctuation on any machine.
    "dynamics": Case("dynamics", ["--picoseconds", "20"]),
    "ch4": Case("ch4", needs=(FORCES,)),
    "ch4_1000": Case(
        "ch4", ["--case", "forces1000", "--quick"], ["--case", "forces1000", *on_one_core(10)], (FORCES,)
    ),
    "ch4_energies": Case(
        "ch4", ["--case", "energies8000", "--quick"], ["--case", "energies8000", *on_one_core(10)], (ENERGIES, FORCES)
    ),
    "water": Case("water", full=on_one_core(40), needs=("data/water_revpbe0d3.extxyz.gz",)),
    "surface": Case("surface", full=on_one_core(40), needs=("data/co2_ni100_val.extxyz.gz",)),
    "alloy": Case("alloy", full=["--threads", "1"]),
    # One molecule is enough to see that it works.
    "small_molecules": Case(
        "small_molecules", ["--quick", "--case", "ethanol"], on_one_core(12),
        ("data/rmd17_ethanol.extxyz.gz", "data/3bpa_train300K.extxyz.gz"),
    ),
    # Beside its script are the fits of another day, which it would not run again.
    "time_to_accuracy": Case(
        "time_to_accuracy", full=["--budgets", "0.4", "0.5", "1", "1.75", "4", "--out", "{new}"], needs=(FORCES,)
    ),
    "published_models": Case(
        "published_models", ["--data", "{shared}", "--quick"], ["--data", "{shared}"], ("data/models", "golden")
    ),
    "extrapolation": Case("extrapolation"),
    "audit": Case("audit"),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"cases (default: all of {', '.join(CASES)})")
    parser.add_argument("--quick", action="store_true", help="the short form of every case")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table here, too")
    parser.add_argument("--keep", action="store_true", help=f"write what the full forms found into {KEPT.name}")
    parser.add_argument("--table", action="store_true", help="print the table of what is kept; run nothing")
    options = parser.parse_args()
    if options.keep and options.quick:
        parser.error("--keep and --quick: what is kept are the full forms; give one of the two.")
    if options.table and (options.keep or options.quick):
        parser.error("--table runs nothing: give it without --keep and --quick.")
    unknown = [name for name in options.names if name not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]!r}: expected one of {', '.join(CASES)}")
    if options.table:
        return tell([row for name in options.names or CASES for row in kept_rows(name)], options.out)
    shared = shared_folder()
    rows, failed, commit = [], False, options.keep and revision()
    for name in options.names or CASES:
        absent = [needed for needed in CASES[name].needs if shared is None or not (shared / needed).exists()]
        if absent:
            verdict = f"skipped: no {absent[0]} (set EANN_LITE_SHARED to the folder that holds it)"
            rows.append({"case": name, "claim": "-", "published": "-", "ours": "-", "verdict": verdict})
            continue
        status, told, command = run(CASES[name], shared, options.quick)
        failed |= status != 0
        rows += [{"case": name} | row for row in told]
        if options.keep:
            keep(name, told, command, commit, shared)
    return max(tell(rows, options.out), int(failed))


def tell(rows, path):
    """Print the table, write it to ``path`` if given; 1 if a row fails."""
    table = table_of(rows, ("case", *COLUMNS))
    print(f"\n{table}")
    if path is not None:
        path.write_text(table + "\n")
    return 1 if any(row["verdict"].startswith(FAILS) for row in rows) else 0


def keep(name, rows, command, commit, shared):
    """Put the rows of one case among the others that are kept."""
    from eann_lite.training.provenance import hardware

    # As a person types it, whatever the folders are called here.
    words = ["python" if word == sys.executable else word for word in command]
    words = [word.replace(str(shared), "SHARED").replace(str(HERE.parent) + "/", "") for word in words]
    entry = {
        "command": " ".join(words),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware(),
        "rows": rows,
    }
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    part = KEPT.with_suffix(".part")
    kept[name] = entry
    part.write_text(json.dumps({case: kept[case] for case in CASES if case in kept}, indent=1) + "\n")
    part.replace(KEPT)


def kept_rows(name):
    """Rows of one case as they are kept, the last one with its commit and date, or one that says that there are none."""
    entry = (json.loads(KEPT.read_text()) if KEPT.exists() else {}).get(name)
    if entry is None:
        return [{"case": name} | dict.fromkeys(COLUMNS, "-") | {"verdict": "not kept yet"}]
    rows = [{"case": name} | row for row in entry["rows"]]
    rows[-1]["verdict"] += f", {entry['commit']}, {entry['date']}"
    return rows


def run(case, shared, quick):
    """Exit status, rows that the case handed over (or one that says how it ended) and command of one case."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [a.format(shared=shared, new=folder) for a in (case.quick if quick else case.full)]
        result = Path(folder) / "result.json"
        command = [sys.executable, str(HERE / case.folder / "run.py"), *arguments]
        status = subprocess.call([*command, "--result", str(result)])
        rows = json.loads(result.read_text()) if result.exists() else []
    if not rows:
        verdict = "holds" if status == 0 else f"FAILS: ended with status {status} before its numbers were there"
        rows = [{"claim": "-", "published": "-", "ours": "-", "verdict": verdict}]
    rows[-1]["verdict"] += f" ({time.monotonic() - started:.0f} s)"
    return status, rows, [word.replace(folder, "NEW") for word in command]


if __name__ == "__main__":
    sys.exit(main())
