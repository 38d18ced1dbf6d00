"""Fits as a person runs them: through the command line, with a fixed split, their errors read back."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from outcome import add_result_option


def add_fit_options(parser, minutes, data_file, out="keep the fit's directory here"):
    """Flags that all cases with a fit share; ``minutes`` is the time of the claim (None: the case has its own flag).

    data_file : what ``--data`` names (None: the case needs none).
    """
    add_result_option(parser)
    parser.add_argument("--quick", action="store_true", help="the short form")
    parser.add_argument("--out", type=Path, help=out)
    if minutes is not None:
        parser.add_argument(
            "--minutes", type=positive, default=minutes, help="wall time of the fit (default: %(default)g)"
        )
    parser.add_argument("--threads", type=int, help="threads of the fit (default: all cores)")
    if data_file is not None:
        parser.add_argument("--data", type=Path, help=f"{data_file} (default: found through EANN_LITE_SHARED)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="more flags of `eann-lite fit`")


def positive(text):
    """A positive number of the command line."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a positive number, such as 15")
    return value


def flags_of(items):
    """{name: value} of NAME=VALUE words; lists are separated by commas."""
    for item in items:
        if "=" not in item:
            raise SystemExit(f"--set {item}: expected NAME=VALUE, such as --set recursions=3 widths=64,64.")
    return dict(item.split("=", 1) for item in items)


def fit_and_test(train, test, *, valid=0.1, out=None, seed=0, threads=None, **flags):
    """Fit structures by ``eann-lite fit``; {"metrics", "seconds", "epochs"} of it.

    train, test : lists of Structure; no test if None
    valid : list of Structure, or the fraction of ``train`` to set aside by ``seed``
    out : directory of the fit that stays (default: none stays)
    flags : minutes, recursions, ...: any flag of the command by its name; values are written as text, lists by commas

    ``seconds`` is the wall time of the whole command, reading and compiling included; ``metrics`` is its metrics.json.
    """
    from ase.io import write

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        out = Path(out or folder / "fit")
        parts = {"train": train} | ({} if test is None else {"test": test})
        parts |= {} if isinstance(valid, float) else {"valid": valid}
        files = {}
        for part, structures in parts.items():
            files[part] = folder / f"{part}.extxyz"
            write(files[part], [structure.to_atoms() for structure in structures])
        flags = {"valid": valid, "seed": seed, "out": out, "threads": threads} | files | flags
        command = [sys.executable, "-m", "eann_lite", "fit"]
        for name, value in flags.items():
            if value is not None:
                command += [f"--{name.replace('_', '-')}", *str(value).split(",")]
        started = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - started
        metrics = json.loads((out / "metrics.json").read_text())
        epochs = json.loads((out / "history.jsonl").read_text().splitlines()[-1])["epoch"]
    return {"metrics": metrics, "seconds": seconds, "epochs": epochs}


def rows_of(path, grid, fitted):
    """Rows of a JSON file that holds one row for every entry of ``grid``; only rows that are not there yet are made.

    grid : list of dicts that say which fit a row is
    fitted : fitted(entry) gives the rest of the row as a dict; the file is written after each
    """
    rows = json.loads(path.read_text()) if path is not None and path.exists() else []
    for number, entry in enumerate(grid):
        named = " ".join(f"{name} {value}" for name, value in entry.items())
        if any(entry.items() <= row.items() for row in rows):
            print(f"[{number + 1}/{len(grid)}] {named}: already there")
            continue
        print(f"[{number + 1}/{len(grid)}] {named}", flush=True)
        rows.append(entry | fitted(entry))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(rows, indent=1) + "\n")
            part.replace(path)
    return rows
