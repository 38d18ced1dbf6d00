"""The model file: what is in it, that nothing is lost, and that failures are named and leave the old file."""

import json
import os
import pickle
import re
import resource
import shlex
import subprocess
import sys
import zipfile
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from published_archives import ELEMENTS, random_state, write_script, write_state
from strategies import models, random_model, structures

from eann_lite import InputError, Model, ModelFileError, NetworkSpecification, Specification, load
from eann_lite.cli import main
from eann_lite.io.atomic import write_atomically
from eann_lite.io.model_file import plain_values

SPECIFICATION = Specification(
    elements=("H", "C"),
    cutoff=3.1,
    radial=3,
    densities=4,
    recursions=1,
    network=NetworkSpecification(widths=(4, 3), activation="relu_like", layer_norm=True),
    repulsion="zbl",
)
PROVENANCE = {"data": {"train": {"fingerprint": "ab12", "n_structures": 20}}, "seed": 7, "metrics": {"rmse": 0.1}}


@pytest.fixture
def model():
    random = random_model(SPECIFICATION, seed=0)
    return Model(SPECIFICATION, random.parameters, random.constants, PROVENANCE)


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "model.npz"
    model.save(path)
    return path


def rewritten(path, change):
    """The archive at ``path`` after ``change`` of its dictionary of arrays."""
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)
    return path


def with_header(path, **values):
    """The archive at ``path`` with other values in its header."""

    def change(arrays):
        arrays["header"] = np.array(json.dumps(json.loads(str(arrays["header"])) | values))

    return rewritten(path, change)


# What is saved


@given(models(), structures())
@settings(max_examples=15)
def test_a_loaded_model_is_the_saved_one_bit_for_bit(tmp_path_factory, model, structure):
    path = tmp_path_factory.mktemp("models") / "model.npz"
    model.save(path)
    found = load(path)
    assert found.specification == model.specification
    assert np.array_equal(found.vector, model.vector)
    assert found.constants.keys() == model.constants.keys()
    assert all(np.array_equal(found.constants[name], model.constants[name]) for name in model.constants)
    one, other = model.evaluate(structure), found.evaluate(structure)
    assert one.energy == other.energy and np.array_equal(one.forces, other.forces)


def test_the_file_is_a_numpy_archive_that_explains_itself(path, model):
    with np.load(path, allow_pickle=False) as archive:
        assert np.array_equal(archive["parameter/radial_centers"], model.parameters["radial_centers"])
        assert np.array_equal(archive["constant/density_scale"], model.constants["density_scale"])
        header = json.loads(str(archive["header"]))
        assert set(archive.files) == {
            "header",
            *(f"parameter/{name}" for name in model.parameters),
            *(f"constant/{name}" for name in model.constants),
        }
    assert header["format"] == "eann_lite model" and header["format_version"] == 1
    assert header["elements"] == ["H", "C"] and header["units"] == {"energy": "eV", "length": "Angstrom"}
    assert header["specification"]["cutoff"] == 3.1
    assert header["reference_energies"] == dict(zip("HC", model.constants["reference_energies"].tolist()))
    assert header["provenance"] == PROVENANCE == load(path).provenance


def test_the_same_model_gives_the_same_bytes_and_any_file_name_is_kept(path, model, tmp_path):
    for name in ("again.npz", "without_suffix", "other.model"):
        model.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == path.read_bytes()
    load(tmp_path / "other.model").save(str(tmp_path / "loaded.npz"))
    assert (tmp_path / "loaded.npz").read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob("*.npz.npz")) and not list(tmp_path.glob("*tmp"))


def test_provenance_with_numpy_values_tuples_and_missing_numbers_becomes_plain(tmp_path):
    given_values = {"rmse": np.float64(0.5), "epochs": np.int64(3), "shape": (1, 2), "stress": np.nan, "path": tmp_path}
    model = Model(SPECIFICATION, random_model(SPECIFICATION, seed=0).parameters, provenance=given_values)
    model.save(tmp_path / "model.npz")
    expected = {"rmse": 0.5, "epochs": 3, "shape": [1, 2], "stress": None, "path": str(tmp_path)}
    assert load(tmp_path / "model.npz").provenance == expected == plain_values(given_values)


# What cannot be loaded


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"model file .*nothing\.npz does not exist"):
        load(tmp_path / "nothing.npz")
    with pytest.raises(ModelFileError, match="cannot be read: it is a folder.* Fortran EANN.*`eann-lite import"):
        load(tmp_path)


@pytest.mark.parametrize("content, what", [(b"", "is empty"), (b"5\n\nC 0 0 0", "is no NumPy archive")])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content, what):
    (tmp_path / "structures.xyz").write_bytes(content)
    with pytest.raises(ModelFileError, match=rf"structures\.xyz {what}\. Expected a file written by model\.save"):
        load(tmp_path / "structures.xyz")


@pytest.mark.parametrize("arrays", [{"x": np.zeros(2)}, {"header": np.zeros(2)}, {"header": np.array('{"a": 1}')}])
def test_another_numpy_archive_is_not_taken_for_a_model(tmp_path, arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ModelFileError, match="is a NumPy archive, but no model file of eann_lite"):
        load(tmp_path / "data.npz")


@pytest.mark.parametrize("name", ["PES.pt", "my models/REANN.pth"])
def test_a_model_of_the_published_code_is_told_how_to_import(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    state = random_state(np.random.default_rng(1))
    if name.endswith(".pt"):
        write_script(path, state)
    else:
        write_state(path.parent, state)
    unread = {"side_effect": AssertionError("unpickled")}
    unpickler = "eann_lite.io.published.archive._Unpickler"
    with mock.patch("pickle.load", **unread), mock.patch(unpickler, **unread), pytest.raises(ModelFileError) as told:
        load(path)
    assert "is a PyTorch archive, as the published REANN and EANN packages write" in str(told.value)
    assert "damaged" not in str(told.value)
    command = shlex.split(re.search("`eann-lite (.*)`", str(told.value)).group(1))
    # The command that is told is one that works.
    assert command == ["import", str(path), "--out", "model.npz"]
    assert main([*command[:-1], str(tmp_path / "model.npz")]) == 0
    assert load(tmp_path / "model.npz").specification.elements == ELEMENTS


def test_a_bare_pickle_is_named_and_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path / "run").mkdir, ()

    (tmp_path / "PES.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(ModelFileError, match="PES.pt is a bare pickle, .* newer PyTorch, then: `eann-lite import "):
        load(tmp_path / "PES.pt")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [None, 5, ["model.npz"], SPECIFICATION])
def test_what_is_no_path_is_refused(given):
    with pytest.raises(InputError, match="is no path: expected the path of a model file"):
        load(given)


def test_pickled_arrays_are_never_read(tmp_path):
    np.savez(tmp_path / "data.npz", header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelFileError, match="damaged .*allow_pickle=False"):
        load(tmp_path / "data.npz")


def test_a_truncated_file_is_called_truncated_wherever_it_ends(path):
    content = path.read_bytes()
    for length in (5, 100, len(content) // 2, len(content) - 30, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match=r"model\.npz is truncated or damaged .*fit it again"):
            load(path)


def test_one_flipped_bit_in_any_array_is_noticed(path):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        places = [info.header_offset + 30 + len(info.filename) + info.file_size // 2 for info in archive.infolist()]
    for place in places:
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="truncated or damaged"):
            load(path)
        content[place] ^= 1
    path.write_bytes(content)
    load(path)


def test_a_newer_format_asks_for_an_upgrade(path):
    message = r"has format version 4; this eann_lite reads up to 3\. It was written by a newer eann_lite: upgrade"
    with pytest.raises(ModelFileError, match=message):
        load(with_header(path, format_version=4, specification={"something": "new"}))
    with pytest.raises(ModelFileError, match="format version 'one'; expected 1 to 3"):
        load(with_header(path, format_version="one"))


def test_a_specification_that_does_not_fit_is_refused(path):
    with pytest.raises(ModelFileError, match="specification cannot be used.*unknown key 'colour'"):
        load(with_header(path, specification=SPECIFICATION.to_dict() | {"colour": "blue"}))
    with pytest.raises(ModelFileError, match="specification cannot be used"):
        load(with_header(path, specification=None))
    with pytest.raises(ModelFileError, match=r"arrays are missing, the first is parameter/recursion\.1\.H"):
        load(with_header(path, specification=SPECIFICATION.to_dict() | {"recursions": 2}))


def test_missing_foreign_misshapen_and_unusable_arrays_are_named(path):
    original = path.read_bytes()

    def message_after(change):
        path.write_bytes(original)
        with pytest.raises(ModelFileError) as error:
            load(rewritten(path, change))
        return str(error.value)

    name = "parameter/radial_centers"
    assert f"1 arrays are missing, the first is {name}" in message_after(lambda arrays: arrays.pop(name))
    assert f"array {name} is float64 of shape (3,), expected float64 of shape (2, 3)" in message_after(
        lambda arrays: arrays.update({name: np.zeros(3)})
    )
    assert "is float32 of shape" in message_after(lambda arrays: arrays.update({name: np.zeros((2, 3), np.float32)}))
    assert f"{name} holds a value that is not finite" in message_after(
        lambda arrays: arrays.update({name: np.full((2, 3), np.nan)})
    )
    assert "array parameter/extra does not belong" in message_after(
        lambda arrays: arrays.update({"parameter/extra": np.zeros(1)})
    )


# What cannot be saved


def test_a_model_with_numbers_that_are_not_finite_is_not_saved(model, path):
    old = path.read_bytes()
    parameters = model.parameters | {"radial_exponents": np.full((2, 3), np.nan)}
    with pytest.raises(InputError, match="parameter/radial_exponents of the model is not finite"):
        Model(SPECIFICATION, parameters).save(path)
    assert path.read_bytes() == old


def test_a_full_disk_keeps_the_old_model_and_leaves_nothing_behind(path):
    """The system refuses to write beyond 4 kB, as it does when the disk is full, in the middle of the file."""
    old, larger = path.read_bytes(), Specification(elements=("H",), cutoff=3.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = random_model(larger, seed=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*model\.npz: .*\. The old file is kept\. Free disk space"):
            model.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == ["model.npz"]


def test_a_folder_that_does_not_exist_is_named(model, tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*nowhere/model\.npz: No such file or directory\. Free"):
        model.save(tmp_path / "nowhere" / "model.npz")


def test_an_interrupted_write_leaves_the_old_content_and_passes_the_interruption_on(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["state"]


def test_a_process_killed_while_writing_leaves_the_old_content(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    script = (
        "import os, signal, sys; from eann_lite.io.atomic import write_atomically\n"
        "def write(file): file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(sys.argv[1], write)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script, path], env=environment).returncode == -9
    assert path.read_bytes() == b"old"


def test_a_symbolic_link_stays_one_and_its_target_is_written(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"
