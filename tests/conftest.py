"""Shared fixtures: the Hypothesis profile, and the folder of real data that lies beside the project."""

import os
from pathlib import Path

# SciPy's products of tiny matrices (ASE's cell filter) take a hundred times longer when BLAS threads wait for a busy core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# The first call of a kernel compiles it, so no example may be judged by its time.
hypothesis.settings.register_profile("eann_lite", deadline=None, max_examples=25, print_blob=True)
hypothesis.settings.load_profile("eann_lite")


@pytest.fixture(scope="session")
def shared():
    """Folder with golden numbers and reference data; tests that need it skip where there is none."""
    folder = Path(os.environ.get("EANN_LITE_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not (folder / "golden").is_dir():
        pytest.skip(f"no reference data at {folder} (set EANN_LITE_SHARED to the folder that holds golden/ and data/)")
    return folder


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """Folder of compiled kernels for one test."""
    from eann_lite import compiled

    monkeypatch.setenv("EANN_LITE_CACHE", str(tmp_path))
    compiled.cache_directory.cache_clear()
    yield tmp_path
    compiled.cache_directory.cache_clear()
