"""What a case hands over: rows of claim, published number, our number and verdict, for one table of all cases.

A case takes ``--result FILE`` and writes its rows there as JSON; ``validation/run.py`` collects and prints them.
"""

import json
import subprocess
from pathlib import Path

HOLDS, FAILS, MEASURED = "holds", "FAILS", "measured"
COLUMNS = ("claim", "published", "ours", "verdict")
#: Widest columns of the printed table; longer texts go on in the next line.
WIDEST = {"case": 17, "claim": 60, "published": 34, "ours": 38, "verdict": 40}


def add_result_option(parser):
    parser.add_argument("--result", type=Path, metavar="FILE", help="write claims, numbers and verdicts here")


def row_of(claim, published, ours, holds=None):
    """A row; ``holds`` is True, False, or None for a number that is shown without a limit."""
    verdict = MEASURED if holds is None else HOLDS if holds else FAILS
    return {"claim": claim, "published": published or "-", "ours": ours, "verdict": verdict}


def conclude(rows, path=None):
    """Print the rows, write them to ``path`` if given; the exit status of the case: 1 where one fails."""
    print(table_of(rows))
    hand_over(rows, path)
    return 1 if any(row["verdict"] == FAILS for row in rows) else 0


def hand_over(rows, path):
    """Write the rows to ``path``, if there is one."""
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n")


def table_of(rows, columns=COLUMNS):
    """Text of rows under a head, each column as wide as it must be, long texts over several lines."""
    from textwrap import wrap

    cells = [{name: name for name in columns}, *rows]
    wrapped = [{name: wrap(str(row[name]), WIDEST[name]) or [""] for name in columns} for row in cells]
    widths = {name: max(len(line) for row in wrapped for line in row[name]) for name in columns}
    lines = []
    for row in wrapped:
        for k in range(max(map(len, row.values()))):
            texts = [(row[name][k] if k < len(row[name]) else "").ljust(widths[name]) for name in columns]
            lines.append("  ".join(texts).rstrip())
    lines.insert(1, "  ".join("-" * widths[name] for name in columns))
    return "\n".join(lines)


def revision():
    """Commit of the sources, with "-dirty" where one of them is not as it is there."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ":/*.py", ":/*.toml")
    return (git("rev-parse", "--short", "HEAD") or "not from a git repository") + ("-dirty" if changed else "")
