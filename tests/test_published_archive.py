"""PyTorch archives: tensors come out right, and nothing else comes out."""

import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from published_archives import zipped

from eann_lite.errors import InputError
from eann_lite.io.published import load
from eann_lite.io.published.archive import Archive
from eann_lite.io.published.export import _global, _Pickler, archive_bytes
from eann_lite.io.published.inputs import read_inputs

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([1, 2**40]), "c": np.array([0.5], dtype=np.float32)}


def archive_of(tmp_path, raw, **members):
    """Archive file with this pickle and members; "data_0" stands for data/0."""
    named = {"data.pkl": raw, "version": b"3\n", **{name.replace("_", "/"): c for name, c in members.items()}}
    path = tmp_path / "file.pth"
    path.write_bytes(zipped(named))
    return path


def tensor(shape, strides, offset=0, count=6, kind="DoubleStorage", key="0"):
    """Pickle of one tensor of data/0."""
    value = _Pickler()._value
    storage = b"(" + value("storage") + _global("torch", kind) + value(key) + value("cpu") + value(count) + b"tQ"
    rest = value(offset) + value(shape) + value(strides) + b"\x89" + _global("collections", "OrderedDict") + b")R"
    return b"\x80\x02" + _global("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + rest + b"tR."


def test_tensors_come_out_as_they_went_in(tmp_path):
    path = tmp_path / "state.pth"
    path.write_bytes(archive_bytes(ARRAYS))
    content = Archive(path).content()
    assert list(content) == ["reannparam", "optimizer"]
    assert content["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    for name, array in ARRAYS.items():
        found = content["reannparam"][name].array(name)
        assert found.dtype == array.dtype and np.array_equal(found, array)


def test_strides_and_offsets_are_those_of_the_storage(tmp_path):
    numbers = np.arange(6.0)
    path = archive_of(tmp_path, tensor((2, 2), (1, 3), offset=1), data_0=numbers.tobytes())
    assert np.array_equal(Archive(path).content().array("x"), [[1, 4], [2, 5]])
    path = archive_of(tmp_path, tensor((), (), offset=4), data_0=numbers.tobytes())
    assert Archive(path).content().array("x") == 4.0
    path = archive_of(tmp_path, tensor((0, 3), (3, 1)), data_0=numbers.tobytes())
    assert Archive(path).content().array("x").shape == (0, 3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (tensor((7,), (1,)), "reach beyond the 6 numbers"),
        (tensor((2, 3), (3, 2)), "reach beyond the 6 numbers"),
        (tensor((2**30, 2**30), (0, 0)), "reach beyond the 6 numbers"),
        (tensor((2,), (1,), offset=5), "reach beyond the 6 numbers"),
        (tensor((2,), (-1,), offset=5), "are no sizes"),
        (tensor((2,), (1, 1)), "are no sizes"),
        (tensor((6,), (1,), count=2**30), "claims 1073741824 numbers of 8 bytes, but data/0 holds 48 bytes"),
        (tensor((6,), (1,), kind="FloatStorage"), "claims 6 numbers of 4 bytes, but data/0 holds 48 bytes"),
        (tensor((6,), (1,), kind="HalfStorage"), "HalfStorage, which models do not hold"),
        (tensor((6,), (1,), key="1"), "data/1, which is missing"),
    ],
)
def test_tensors_that_do_not_fit_their_bytes_are_refused(tmp_path, raw, message):
    path = archive_of(tmp_path, raw, data_0=np.arange(6.0).tobytes())
    with pytest.raises(InputError, match=message):
        Archive(path).content().array("x")


class Payload:
    """Leaves a file behind when it is unpickled by a careless reader."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["system", "exec", "open", "nested"])
def test_a_malicious_pickle_is_refused_by_the_name_of_what_it_asks_for(tmp_path, protocol, kind):
    mark = tmp_path / "mark"
    payload = {
        "system": Payload(os.system, f"touch {mark}"),
        "exec": Payload(exec, f"open({str(mark)!r}, 'w').close()"),
        "open": Payload(open, str(mark), "w"),
        "nested": {"reannparam": [1.5, ("x", Payload(os.system, f"touch {mark}"))]},
    }[kind]
    path = archive_of(tmp_path, pickle.dumps(payload, protocol=protocol))
    for read in (lambda: Archive(path).content(), lambda: load(path)):
        with pytest.raises(InputError) as error:
            read()
        assert "refused" in str(error.value) and str(path) in str(error.value)
        module = "builtins" if protocol >= 3 else "__builtin__"
        asked = {"exec": f"{module}.exec", "open": "open"}.get(kind, f"{os.system.__module__}.system")
        assert asked in str(error.value)
    assert not mark.exists()
    # The payload does what it says when someone careless reads it.
    made = pickle.loads(pickle.dumps(payload, protocol=protocol))
    if kind == "open":
        made.close()
    assert mark.exists()


def test_attributes_of_what_a_pickle_may_ask_for_cannot_be_changed_for_others(tmp_path):
    """BUILD sets attributes of the object below it: here of the constructors themselves."""
    value = _Pickler()._value
    for module, name in (
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch", "FloatStorage"),
    ):
        raw = b"\x80\x02" + _global(module, name) + b"N" + value({"__defaults__": (1,), "mark": 1}) + b"\x86b."
        path = archive_of(tmp_path, raw)
        try:
            Archive(path).content()
        except InputError as error:
            assert "damaged" in str(error)
    path = archive_of(tmp_path, tensor((6,), (1,)), data_0=np.arange(6.0).tobytes())
    assert Archive(path).content().array("x").size == 6
    from collections import OrderedDict

    assert not hasattr(OrderedDict, "mark")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80\x02N0.", "asks for POP"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "asks for LONG_BINPUT 2147483647"),
        (b"\x80\x02\x82\x01.", "asks for EXT1 1"),
        (b"\x80\x02X\xff\xff\xff\x7fabc", "damaged"),
        (b"\x80\x02(", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02" + _Pickler()._value("0") + b"Q.", "asks for '0', which is no storage"),
    ],
)
def test_pickles_that_nobody_writes_are_refused(tmp_path, raw, message):
    with pytest.raises(InputError, match=message):
        Archive(archive_of(tmp_path, raw)).content()


def damaged(raw):
    """A byte of the first tensor turned over."""
    place = raw.index(struct.pack("<d", 5.0))
    return raw[:place] + b"\xff" + raw[place + 1 :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "written by PyTorch before 1.6"),
        (pickle.dumps({"a": 1}), "is a bare pickle"),
        (b"just text", "is no archive of PyTorch"),
        (archive_bytes(ARRAYS)[:-30], "truncated or damaged"),
        (archive_bytes(ARRAYS)[:300], "truncated or damaged"),
        (damaged(archive_bytes(ARRAYS)), "truncated or damaged"),
        (zipped({"something": b"else"}), "zip archive of something else: it holds archive/something"),
        (zipped({"data.pkl": b"\x80\x02N.", "byteorder": b"big"}), "big-endian"),
        (zipped({"data.pkl": tensor((6,), (1,)), "data/0": bytes(48)}, zipfile.ZIP_DEFLATED), "is compressed"),
    ],
)
def test_foreign_and_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        held = Archive(path).content()
        for item in held["reannparam"].values() if isinstance(held, dict) else [held]:
            item.array("x")


def test_missing_files_and_models_of_ours_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(tmp_path / "none.pt")
    np.savez(tmp_path / "model.npz", header=np.array("x"))
    with pytest.raises(InputError, match="model file of eann_lite already"):
        load(tmp_path / "model.npz")


def test_input_files_are_read_as_literals(tmp_path):
    path = tmp_path / "input_nn"
    path.write_text(
        "# comment\n  nl = [64, 32]  # widths\n\nlr=-1e-3; name = 'a'\nflag = True\nrs = [[0.0, 1], (2, None)]\n"
    )
    expected = {"nl": [64, 32], "lr": -1e-3, "name": "a", "flag": True, "rs": [[0.0, 1], (2, None)]}
    assert read_inputs(path) == expected


@pytest.mark.parametrize(
    "line",
    [
        "__import__('os').system('touch MARK')", "x = open('MARK', 'w')", "x = [i for i in range(3)]", "x = 1/3",
        "import os", "x = y", "a.b = 1", "x[0] = 1", "a, b = 1, 2", "x = {1: 2}", "x = {1}", "x = b'1'", "x = 1j",
        "x =",
        "x = " + "[" * 5000 + "]" * 5000, "x += 1",
    ],
)  # fmt: skip
def test_input_files_that_are_programs_are_refused_by_line(tmp_path, line):
    path = tmp_path / "input_density"
    path.write_text("cutoff = 4.0\n" + line.replace("MARK", str(tmp_path / "mark")) + "\n")
    with pytest.raises(InputError, match="input_density, line 2.*nothing is executed"):
        read_inputs(path)
    assert not (tmp_path / "mark").exists()
