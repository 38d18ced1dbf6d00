"""Claim: a fit limited by epochs and killed with SIGKILL at any moment resumes and ends with the same bits.

    python validation/resume/run.py [--kills 10] [--quick] [--seed 0]

Runs one undisturbed fit on part of the shipped CH4 set, then one that is killed at random moments (also while it
starts, compiles or writes) and resumed each time, and compares the two model files byte for byte and the parameters
bit for bit.  Ends with 1 if they differ.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from outcome import add_result_option, hand_over, row_of  # noqa: E402


def command(data, out, resume):
    """A small fit of about a minute with frequent checkpoints."""
    fit = [sys.executable, "-m", "eann_lite", "fit", "--train", str(data), "--out", str(out), "--epochs", "800", "--quiet"]
    fit += ["--densities", "16", "--widths", "16", "16", "--recursion-widths", "16", "16", "--recursions", "1"]
    return fit + ["--checkpoint-seconds", "0.2"] + (["--resume"] if resume else [])


def timed(arguments):
    """Run a command to its end; seconds it took."""
    started = time.monotonic()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="3 kills")
    parser.add_argument("--seed", type=int, default=0)
    add_result_option(parser)
    options = parser.parse_args()
    kills = 3 if options.quick else options.kills
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp())
    try:
        from ase.io import write

        from eann_lite import read_structures
        from eann_lite.training.parts import shipped_files

        data = folder / "some.extxyz"
        write(data, [structure.to_atoms() for structure in read_structures(shipped_files()[:1], index=":400")])
        one_epoch = command(data, folder / "first", False) + ["--epochs", "1"]
        timed(one_epoch)  # compiles
        start_up = timed(one_epoch)
        work = timed(command(data, folder / "whole", False)) - start_up
        done = 0
        while done < kills:
            process = subprocess.Popen(command(data, folder / "killed", done > 0), stdout=subprocess.DEVNULL)
            # Before, at and after the first step of this piece, so that much of the work is left at the end.
            wait = rng.uniform(0.3, 1.1) * start_up + rng.uniform(0.0, 0.6) * work / kills
            try:
                process.wait(wait)
                print(f"the fit ended before kill {done + 1} (the machine's speed changed)")
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                print(f"kill {done} after {wait:.1f} s", flush=True)
        subprocess.run(command(data, folder / "killed", True), check=True, stdout=subprocess.DEVNULL)
        same_bytes = (folder / "whole/model.npz").read_bytes() == (folder / "killed/model.npz").read_bytes()
        with np.load(folder / "whole/model.npz") as one, np.load(folder / "killed/model.npz") as other:
            arrays = [name for name in one.files if name != "header"]
            same_bits = all(one[name].tobytes() == other[name].tobytes() for name in arrays)
        print(f"{done} kills: {len(arrays)} arrays same bits: {same_bits}; model files same bytes: {same_bytes}")
        held = same_bits and same_bytes and done > 0
        claim = "a fit that is killed and resumed ends with the same bits"
        hand_over([row_of(claim, None, f"{done} kills, same bytes: {same_bytes}", held)], options.result)
        return 0 if held else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
