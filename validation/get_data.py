"""Download the public records that validation uses, with their checksums; without a network, say what to put where.

    python validation/get_data.py [NAME ...] [--out FOLDER]

Files go into FOLDER (default: ``data`` of the folder that EANN_LITE_SHARED names, or of ``shared`` beside the
repository) under the names of the list below.  A file that is there already is only checked, so one that was copied
by hand is, too.  A download is kept only when it is whole and its checksum is right.  Ends with 1 when a record is
missing or wrong.
"""

import argparse
import hashlib
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from data_location import shared_folder

CHUNK = 1 << 20
SECONDS = 30.0  # without an answer


@dataclass(frozen=True)
class Record:
    """A public file.

    checksum : "md5:...", or "git:..." for the id of a git blob (SHA-1 of "blob", its size and its content), or "" where
        none was found
    reading : flags with which ``eann-lite`` reads it
    """

    name: str
    url: str
    file: str
    checksum: str
    what: str
    reading: str = ""


GITHUB = "https://raw.githubusercontent.com"
RECORDS = (
    Record(
        "water",
        f"{GITHUB}/BingqingCheng/ab-initio-thermodynamics-of-water/master/training-set/dataset_1593.xyz",
        "dataset_1593.xyz",
        "git:6792c4658498c07f47c881a011ac82b2f26109fc",
        "64 H2O, revPBE0-D3, 1,593 frames, Hartree and Bohr (36 MB)",
        "--energy-unit Hartree --length-unit Bohr",
    ),
    Record(
        "water-ev",
        f"{GITHUB}/BingqingCheng/Mapping-the-space-of-materials-and-molecules/master/mlp-water/dataset_1593_eVAng.xyz",
        "dataset_1593_eVAng.xyz",
        "git:3bdc9f6faddd3bf968eb4c7c4853aece4de50419",
        "the same in eV and Angstrom",
    ),
    Record(
        "water-archive",
        "https://archive.materialscloud.org/record/file?record_id=71&filename=training-set.zip",
        "water_training-set.zip",
        "",
        "the same as Materials Cloud 2018.0020 has it",
    ),
    Record(
        "ch4",
        "https://archive.materialscloud.org/records/kz78r-6nx43/files/methane.extxyz.gz?download=1",
        "methane.extxyz.gz",
        "md5:11cf7303d8c0fa6ef753103f5439d6e1",
        "random CH4 with forces, 7,732,488 structures, Materials Cloud 2020.110 (1.1 GiB)",
    ),
    Record(
        "co2-ni100",
        f"{GITHUB}/zhangylch/REANN/HEAD/data/co2+Ni100/train/configuration",
        "co2_ni100_train/configuration",
        "git:72398011d0ff85acc048ddd5cbb393fb38f62297",
        "CO2 on Ni(100), training part of the REANN example, positions are fractional",
    ),
    Record(
        "nma",
        f"{GITHUB}/bjiangch/FIREANN/HEAD/data/NMA/train/configuration",
        "nma_train/configuration",
        "git:35947a36a7762dbfa58198cb46c3dfc0d670cdd7",
        "N-methylacetamide in an electric field, training part of the FIREANN example",
    ),
)


class Mismatch(Exception):
    """A file whose checksum is not that of its record."""


def main():
    names = {record.name: record for record in RECORDS}
    listing = "\n".join(f"  {record.name:14s} {record.what}" for record in RECORDS)
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog=f"records:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="records (default: water and ch4)")
    parser.add_argument("--out", type=Path, help="where the files go")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"unknown record {unknown[0]!r}: expected one of {', '.join(names)}")
    shared = shared_folder()
    folder = options.out or (shared and shared / "data")
    if folder is None:
        parser.error("nowhere to put the files: give --out FOLDER, or set EANN_LITE_SHARED")
    return 0 if all([get(names[name], folder) for name in options.names or ("water", "ch4")]) else 1


def get(record, folder):
    """Have the file of a record in a folder; prints one line and returns whether it is there and right."""
    path = folder / record.file
    try:
        if path.exists():
            print(f"{record.name}: {path} is there{verified(path, record)}{how_to_read(record)}")
            return True
        download(record, path)
        print(f"{record.name}: {path}{verified(path, record)}{how_to_read(record)}")
        return True
    except Mismatch as error:
        print(f"{record.name}: {error}")
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        checksum = f" ({record.checksum})" if record.checksum else ""
        print(f"{record.name}: not reached ({reason}). Download {record.url} and put it at {path}{checksum}")
    return False


def download(record, path):
    """Write the content of a record's address to ``path``, whole and checked, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(record.url, timeout=SECONDS) as source, part.open("wb") as target:
            while block := source.read(CHUNK):
                target.write(block)
            announced = source.headers.get("Content-Length")
        if announced is not None and part.stat().st_size != int(announced):
            raise OSError(f"cut off after {part.stat().st_size} of {announced} bytes")
        verified(part, record)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def verified(path, record):
    """What is told of the checksum of a file; Mismatch where it is another."""
    kind, _, expected = record.checksum.partition(":")
    if not expected:
        return ", not checked: no checksum of it is known"
    found = digest(path, kind)
    if found != expected:
        raise Mismatch(
            f"checksum of {record.file} is {kind}:{found}, expected {record.checksum}. It is damaged, or "
            f"another version: remove it and download {record.url} again."
        )
    return f", {kind} checksum right"


def digest(path, kind):
    """Hexadecimal checksum of a file: md5, or git for the id that ``git hash-object`` gives it."""
    state = hashlib.md5() if kind == "md5" else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            state.update(block)
    return state.hexdigest()


def how_to_read(record):
    return f"; read it with {record.reading}" if record.reading else ""


if __name__ == "__main__":
    sys.exit(main())
