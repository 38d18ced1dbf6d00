"""Run the validation cases and print one table: claim, published number, ours, verdict.

    python validation/run.py [--quick] [--out FILE] [NAME ...]

Every case is a folder with a ``run.py`` of its own whose ``--quick`` form ends within minutes.  Ends with 1 when a
case fails.  Cases that need data the repository does not carry look for it through EANN_LITE_SHARED or ``../shared``;
without it they are skipped and say so.
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
from outcome import COLUMNS, table_of

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Case:
    """A script with the arguments of its two forms; ``{shared}`` in them is the folder of the shared data.

    needs : files or folders of the shared data without which the case is skipped
    """

    folder: str
    quick: list = field(default_factory=lambda: ["--quick"])
    full: list = field(default_factory=list)
    needs: tuple = ()


FORCES, ENERGIES = "data/ch4_random_forces.extxyz.gz", "data/ch4_random_energies.extxyz.gz"
CASES = {
    "golden": Case("golden", ["{shared}/golden"], ["{shared}/golden"], ("golden",)),
    "resume": Case("resume"),
    "completeness": Case("completeness"),
    # Half a minute; over 20 ps the drift is told from the fluctuation on any machine.
    "dynamics": Case("dynamics", ["--picoseconds", "20"]),
    "ch4": Case("ch4", needs=(FORCES,)),
    "ch4_1000": Case("ch4", ["--case", "forces1000", "--quick"], ["--case", "forces1000"], (FORCES,)),
    "ch4_energies": Case("ch4", ["--case", "energies8000", "--quick"], ["--case", "energies8000"], (ENERGIES, FORCES)),
    "water": Case("water", needs=("data/water_revpbe0d3.extxyz.gz",)),
    "surface": Case("surface", needs=("data/co2_ni100_val.extxyz.gz",)),
    # One molecule is enough to see that it works.
    "small_molecules": Case(
        "small_molecules", ["--quick", "--case", "ethanol"], [],
        ("data/rmd17_ethanol.extxyz.gz", "data/3bpa_train300K.extxyz.gz"),
    ),
    "time_to_accuracy": Case("time_to_accuracy", needs=(FORCES,)),
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
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]!r}: expected one of {', '.join(CASES)}")
    shared = shared_folder()
    rows, failed = [], False
    for name in options.names or CASES:
        absent = [needed for needed in CASES[name].needs if shared is None or not (shared / needed).exists()]
        if absent:
            verdict = f"skipped: no {absent[0]} (set EANN_LITE_SHARED to the folder that holds it)"
            rows.append({"case": name, "claim": "-", "published": "-", "ours": "-", "verdict": verdict})
            continue
        status, told = run(CASES[name], shared, options.quick)
        failed |= status != 0
        rows += [{"case": name} | row for row in told]
    table = table_of(rows, ("case", *COLUMNS))
    print(f"\n{table}")
    if options.out is not None:
        options.out.write_text(table + "\n")
    return 1 if failed else 0


def run(case, shared, quick):
    """(exit status, rows that the case handed over, or one that says how it ended) of one case."""
    arguments = [argument.format(shared=shared) for argument in (case.quick if quick else case.full)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(HERE / case.folder / "run.py"), *arguments, "--result", str(result)]
        status = subprocess.call(command)
        rows = json.loads(result.read_text()) if result.exists() else []
    if not rows:
        verdict = "holds" if status == 0 else f"FAILS: ended with status {status} before its numbers were there"
        rows = [{"claim": "-", "published": "-", "ours": "-", "verdict": verdict}]
    rows[-1]["verdict"] += f" ({time.monotonic() - started:.0f} s)"
    return status, rows


if __name__ == "__main__":
    sys.exit(main())
