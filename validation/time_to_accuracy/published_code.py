"""The published REANN training code, run in a folder of its own, and its test error over wall time."""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

#: Its own settings for CH4, as Python text that it executes, one assignment a line.
INPUT_NN = """start_table=1
table_coor=0
nl=[64,64]
nblock=1
dropout_p=[0.0,0.0]
table_init=0
Epoch=100000
patience_epoch=30
decay_factor=0.5
start_lr=0.001
end_lr=1e-5
re_ceff=0
ratio=0.9
batchsize_train=32
batchsize_val=256
e_ceff=0.1
init_f=10
final_f=0.5
print_epoch=1
activate='Relu_like'
table_norm=True
DDP_backend='gloo'
dtype='float32'
oc_nl=[64,64]
oc_nblock=1
oc_dropout_p=[0.0,0.0]
oc_activate='Relu_like'
oc_table_norm=True
oc_loop=2
norbit=64
folder='./'
"""
INPUT_DENSITY = """cutoff=7.0
nipsin=2
nwave=8
atomtype=['C','H']
neigh_atoms=10
"""
EPOCH = re.compile(r"Epoch=\s+(\d+).*val error:\s+(\S+)\s+(\S+) *\n")


def run_published(clone, python, train, test, minutes):
    """Rows {"epochs", "seconds", "energy_rmse_mev", "forces_rmse_mev_per_ang"} of every epoch it printed in time.

    clone : folder with reann/ in it; python : interpreter with torch, numpy, opt_einsum
    train, test : lists of Structure; its validation error is that of ``test``
    """
    from eann_lite.structures import write_configuration

    program = Path(clone).resolve() / "reann"
    if not (program / "run" / "train.py").is_file():
        raise SystemExit(f"--against {clone}: expected a clone of the REANN code, with reann/run/train.py in it.")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for part, structures in (("train", train), ("val", test)):
            (folder / part).mkdir()
            write_configuration(folder / part / "configuration", structures)
        (folder / "para").mkdir()
        (folder / "para" / "input_nn").write_text(INPUT_NN)
        (folder / "para" / "input_density").write_text(INPUT_DENSITY)
        command = [str(python), "-m", "torch.distributed.run", "--nproc_per_node=1", "--max_restarts=0", "--nnodes=1"]
        command += ["--standalone", str(program)]
        started = time.monotonic()
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        rows = []
        try:
            while process.poll() is None and time.monotonic() - started < 60.0 * minutes:
                time.sleep(0.5)
                rows = with_new_epochs(rows, folder / "nn.err", time.monotonic() - started)
        finally:
            if process.poll() is None:
                # It starts workers: all of its own session end with it.
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        if not rows:
            said = (folder / "output").read_text(errors="replace")[-2000:]
            raise SystemExit(f"the published code printed no epoch within {minutes:g} minutes. It said:\n{said}")
    return rows


def with_new_epochs(rows, path, seconds):
    """The rows and those of epochs that nn.err tells since, at this time; it writes eV and eV/Angstrom."""
    if not path.exists():
        return rows
    told = EPOCH.findall(path.read_text())[len(rows) :]
    return rows + [
        {"epochs": int(epoch) + 1, "seconds": seconds, "energy_rmse_mev": 1e3 * float(energy),
         "forces_rmse_mev_per_ang": 1e3 * float(forces)}
        for epoch, energy, forces in told
    ]  # fmt: skip
