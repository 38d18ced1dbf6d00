"""What the README shows, run as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eann_lite.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_the_python_blocks_run_with_the_model_of_the_first_command(tmp_path, block):
    (tmp_path / "fit").mkdir()
    shutil.copy(ROOT / "validation/first_fit/model.npz", tmp_path / "fit")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("BFGS" in done.stdout) == ("BFGS" in block)
    assert ("Zero-point energy" in done.stdout) == ("vibrations" in block)


def test_what_the_readme_exports_is_fitted_without_the_repulsion_that_the_published_code_lacks():
    commands = re.findall(r"bin/eann-lite (.*)", "".join(blocks("bash")))
    exported = [line.split()[line.split().index("--reann") + 1] for line in commands if line.startswith("export")]
    fits = [line for line in commands if line.startswith("fit") and "--repulsion none" in line]
    assert exported and all(any(f"--out {Path(name).parent}" in line for line in fits) for name in exported)


@pytest.mark.parametrize("line", re.findall(r"bin/eann-lite (.*)", "".join(blocks("bash"))))
def test_the_commands_are_ones_that_the_command_line_takes(line):
    assert build_parser().parse_args(line.split()).command


def test_ci_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci/run").read_text()
    assert ".venv/bin/python -m pytest\n" in "".join(blocks("bash"))
    assert re.search(r"/python\" -m pytest", script) and 'pip install --quiet -e ".[test]"' in script


def test_files_that_the_readme_shows_or_names_exist():
    named = re.findall(r"\]\(([^)h][^)]*)\)|`(eann_lite/\S+?\.py|validation/\S+?\.py)", README)
    paths = [one or other for one, other in named]
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]
