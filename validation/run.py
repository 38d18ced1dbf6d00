"""Run the validation cases and print one line for each: holds, fails, or skipped with the reason.

    python validation/run.py [--quick] [NAME ...]

Every case is a folder with a ``run.py`` of its own whose ``--quick`` form ends within minutes.  Ends with 1 when a
case fails.  Cases that need data the repository does not carry look for it through EANN_LITE_SHARED or ``../shared``.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from data_location import shared_folder

HERE = Path(__file__).resolve().parent
#: Case -> (arguments of the quick form, arguments of the full form, whether it needs the shared data).
CASES = {
    "golden": (["{shared}/golden"], ["{shared}/golden"], True),
    "resume": (["--quick"], [], False),
    "completeness": (["--quick"], [], False),
    # Half a minute; over 20 ps the drift is told from the fluctuation on any machine.
    "dynamics": (["--picoseconds", "20"], [], False),
    "ch4": (["--quick"], [], True),
    "published_models": (["--data", "{shared}", "--quick"], ["--data", "{shared}"], True),
    "extrapolation": (["--quick"], [], False),
    "audit": (["--quick"], [], False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"cases (default: all of {', '.join(CASES)})")
    parser.add_argument("--quick", action="store_true", help="the short form of every case")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]!r}: expected one of {', '.join(CASES)}")
    shared = shared_folder()
    lines, failed = [], False
    for name in options.names or CASES:
        quick, full, needs_shared = CASES[name]
        if needs_shared and shared is None:
            lines.append(f"{name:13s} skipped: no shared data (set EANN_LITE_SHARED to the folder with data/ and golden/)")
            continue
        arguments = [argument.format(shared=shared) for argument in (quick if options.quick else full)]
        started = time.monotonic()
        status = subprocess.call([sys.executable, str(HERE / name / "run.py"), *arguments])
        failed |= status != 0
        verdict = "holds" if status == 0 else "FAILS"
        lines.append(f"{name:13s} {verdict} ({time.monotonic() - started:.0f} s)")
    print("\n".join(["", *lines]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
