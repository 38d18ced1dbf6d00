"""PyTorch archives read without PyTorch, and without running anything that they hold.

``torch.save`` and TorchScript write a zip file: ``NAME/data.pkl`` is a pickle that names tensors, whose numbers lie as
raw bytes in ``NAME/data/0``, ``NAME/data/1``, ...; TorchScript adds the text of the forward pass under ``NAME/code/``.
A pickle is a program, and unpickling runs it.  Here it may ask for the constructors of tensors and ordered
dictionaries, which are replaced by ours, and for classes of TorchScript (``__torch__...``), which become objects that
hold attributes and do nothing.  Whatever else it asks for is refused by name before it is looked up.
"""

import io
import math
import os
import pickle
import pickletools
import zipfile
import zlib
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError

#: Numbers that a storage of PyTorch may hold.
DTYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2",
    "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
#: Storages that may be named but not read: a model holds none of them.
FOREIGN_STORAGES = ("HalfStorage", "BFloat16Storage", "ComplexFloatStorage", "ComplexDoubleStorage")
#: Constructors of lists and types in TorchScript's pickles; all give their first argument.
SCRIPT_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
#: What writers use of the pickle language: words that make values, and those that ask for names, which are checked.
OPCODES = frozenset(
    "PROTO FRAME GLOBAL STACK_GLOBAL MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET MARK STOP EMPTY_TUPLE TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 "
    "LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINPERSID REDUCE "
    "NEWOBJ BUILD PUT GET LIST DICT INT LONG FLOAT UNICODE STRING".split()
)
#: Largest pickle or text that is read (bytes): those of real models are a thousandth of it.
TEXT_LIMIT = 64 * 2**20
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"


class Storage(NamedTuple):
    """Raw numbers of an archive: kind (name of PyTorch's class), member ``data/key``, how many numbers."""

    kind: str
    key: str
    count: int


class Tensor:
    """A tensor that the pickle describes; ``array`` reads and checks its numbers."""

    def __init__(self, archive, storage, offset, shape, strides):
        self.archive, self.storage, self.offset, self.shape, self.strides = archive, storage, offset, shape, strides

    def array(self, name):
        """Array (a copy) of this tensor; ``name`` stands in errors.  InputError where it does not fit its bytes."""
        where, (kind, key, count) = f"{self.archive.where}: tensor {name}", self.storage
        if kind not in DTYPES:
            raise InputError(f"{where} is of {kind}, which models do not hold. Expected float32 or float64.")
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(n) is int and n >= 0 for n in (count, *numbers)) or len(self.shape) != len(self.strides):
            raise InputError(f"{where}: shape {self.shape}, strides {self.strides}, offset {self.offset} are no sizes.")
        content = self.archive.tensor_bytes(key, where)
        dtype = np.dtype(DTYPES[kind])
        if len(content) != count * dtype.itemsize:
            raise InputError(
                f"{where} claims {count} numbers of {dtype.itemsize} bytes, but data/{key} holds {len(content)} bytes: "
                "the file is damaged."
            )
        size = math.prod(self.shape)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        if size > count or (size and last >= count):
            raise InputError(
                f"{where} has shape {self.shape}, strides {self.strides} and offset {self.offset}, which reach beyond "
                f"the {count} numbers of data/{key}: the file is damaged."
            )
        flat = np.frombuffer(content, dtype)
        strides = [s * dtype.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides).copy()


class ScriptObject:
    """An object of TorchScript: attributes only.  ``kind`` is the name of its class, ``__torch__. ...``."""

    kind = ""

    def __init__(self):
        self.attributes = {}

    def __setstate__(self, state):
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise InputError(f"the attributes of {self.kind} are no dictionary of names: the file is damaged.")
        self.attributes = dict(state)


class Archive:
    """An opened archive.  InputError if it is missing, truncated, damaged, no archive of PyTorch, or of old PyTorch.

    ``content`` gives what the pickle describes: dictionaries, lists, numbers, texts, ``Tensor`` and ``ScriptObject``.
    """

    def __init__(self, path):
        self.where = os.fspath(path)
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            raise InputError(f"{self.where} cannot be read: {error.strerror or error}. Check the path.") from error
        self._check_start(raw)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(raw))
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise InputError(
                f"{self.where} is truncated or damaged ({error}). Copy it again from its source."
            ) from error
        self._limit = len(raw)
        names = self._zip.namelist()
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if "header.npy" in names:
            raise InputError(f"{self.where} is a model file of eann_lite already: there is nothing to import.")
        if len(pickles) != 1:
            shown = ", ".join(names[:3]) or "nothing"
            raise InputError(
                f"{self.where} is a zip archive of something else: it holds {shown}, and {len(pickles)} data.pkl "
                "instead of one. Expected what torch.save or torch.jit.save writes."
            )
        self._prefix = pickles[0].removesuffix("data.pkl")
        if self._member("byteorder") not in (None, b"little"):
            raise InputError(f"{self.where} was written on a big-endian machine. Save it again on a little-endian one.")

    def _check_start(self, raw):
        if raw.startswith(b"PK\x03\x04") or raw.startswith(b"PK\x05\x06"):
            return
        if raw.startswith(LEGACY_START):
            what = "was written by PyTorch before 1.6, as a bare pickle. Load and save it again with a newer PyTorch"
        elif not raw:
            what = "is empty. Copy it again from its source"
        elif raw.startswith(b"\x80"):
            what = "is a bare pickle, which is not read. Expected a zip archive as torch.save writes it"
        else:
            what = (
                "is no archive of PyTorch (those are zip files). Expected PES.pt or REANN.pth of the published packages"
            )
        raise InputError(f"{self.where} {what}.")

    def _member(self, name, limit=TEXT_LIMIT, stored=False):
        """Bytes of a member, None where there is none; checked against its checksum."""
        try:
            info = self._zip.getinfo(self._prefix + name)
        except KeyError:
            return None
        # A deflated member can be a thousand times as large as the file: tensors never are deflated, texts are small.
        if info.file_size > limit or (stored and info.compress_type != zipfile.ZIP_STORED):
            raise InputError(f"{self.where}: member {name} is compressed or claims {info.file_size} bytes: not read.")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise InputError(
                f"{self.where} is truncated or damaged (member {name}: {error}). Copy it again from its source."
            ) from error

    def tensor_bytes(self, key, where):
        """Bytes of the member ``data/key``."""
        content = self._member(f"data/{key}", self._limit, stored=True)
        if content is None:
            raise InputError(f"{where} lies in member data/{key}, which is missing: the file is damaged.")
        return content

    def code(self, module):
        """Text of a module of TorchScript (``__torch__.src.MODEL``), None where there is none."""
        content = self._member(f"code/{module.replace('.', '/')}.py")
        return None if content is None else content.decode("utf-8", errors="replace")

    def content(self):
        """What ``data.pkl`` describes.  InputError for anything that it may not ask for, and if it is damaged."""
        raw = self._member("data.pkl")
        try:
            self._check_language(raw)
            return _Unpickler(raw, self).load()
        except InputError:
            raise
        except Exception as error:  # a damaged pickle raises a dozen kinds
            raise InputError(f"{self.where}: data.pkl is damaged ({type(error).__name__}: {error}).") from error

    def _check_language(self, raw):
        """Refuse what PyTorch does not write, above all numbers that make the unpickler take all memory."""
        for opcode, argument, _ in pickletools.genops(raw):
            is_put = opcode.name.endswith("PUT") and argument > len(raw)
            if opcode.name not in OPCODES or is_put:
                asked = "" if argument is None else f" {argument!r}"
                raise InputError(
                    f"{self.where}: data.pkl asks for {opcode.name}{asked}, which no model needs: refused."
                )


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows the constructors of tensors, in versions of our own, and nothing else."""

    def __init__(self, raw, archive):
        super().__init__(io.BytesIO(raw))
        self._archive = archive

    def find_class(self, module, name):
        """Stand-in for a name that the pickle asks for."""
        archive = self._archive
        # Functions are made anew for every file: what a pickle does to them, it does to nobody else.
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *rest: _tensor(archive, storage, offset, shape, strides)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *rest: data
        if module == "torch.jit._pickle" and name in SCRIPT_LISTS:
            return lambda data, *rest: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and (name in DTYPES or name in FOREIGN_STORAGES):
            return name
        if module.split(".")[0] == "__torch__":
            return type("ScriptObject", (ScriptObject,), {"kind": f"{module}.{name}"})
        raise InputError(
            f"{archive.where} asks for {module}.{name}, which no tensor needs: refused, nothing of it was run. "
            "Expected PES.pt or a state dictionary (REANN.pth, EANN.pth)."
        )

    def persistent_load(self, pid):
        """Storage that a tensor names."""
        if isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage":
            _, kind, key, _, count = pid
            if isinstance(kind, str) and isinstance(key, str) and key.isalnum() and type(count) is int:
                return Storage(kind, key, count)
        raise InputError(f"{self._archive.where}: data.pkl asks for {pid!r}, which is no storage: refused.")


def _tensor(archive, storage, offset, shape, strides):
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise InputError(f"{archive.where}: a tensor of data.pkl has no storage or no shape: the file is damaged.")
    return Tensor(archive, storage, offset, shape, strides)
