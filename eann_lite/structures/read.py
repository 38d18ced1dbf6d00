"""Reading structures from files: whatever ASE reads, and the published packages' ``configuration``."""

import bz2
import gzip
import io
import lzma
import os
import zlib

from eann_lite.errors import InputError
from eann_lite.structures.configuration import (
    block_masses,
    looks_like_configuration,
    parse_block,
    split_configuration,
)
from eann_lite.structures.distances import check_separate
from eann_lite.structures.labels import LabelKeys, in_our_units, structure_with_labels
from eann_lite.structures.structure import Structure
from eann_lite.structures.units import Units

#: Compressed files are known by their first bytes.
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
#: What reading a damaged file raises.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
#: ASE's names of the format that is parsed from memory: seeking in a compressed file made it fifty times slower.
EXTENDED_XYZ = ("extxyz", "xyz")


def read_structures(
    paths,
    *,
    energy_key=None,
    forces_key=None,
    stress_key=None,
    virial_key=None,
    weight_key=None,
    length_unit="Angstrom",
    energy_unit="eV",
    forces_unit=None,
    stress_unit=None,
    fractional=False,
    index=":",
):
    """Structures with their labels from one or many files, as a list, in the order of the files.

    Formats: all that ASE reads, told by name and content (extended xyz first, also compressed), and the text
    ``configuration`` of the published EANN and REANN packages.  A folder stands for the ``configuration`` in it.

    Labels may be absent in any structure (None).  Without keys they are looked for among the calculator's results,
    ``info`` and ``arrays`` under the usual names, in any spelling of capitals and underscores: energy, REF_energy,
    dft_energy, TotEnergy, ...; forces, REF_forces, ...; stress; virial, with stress = -virial / volume (the sign of
    ASE and GAP).  ``free_energy`` counts only where there is no other energy.  Two names with different values are an
    error: choose one.  A stress is positive where the structure is stretched; VASP and others print the opposite, a
    pressure.  Forces of constrained atoms are those of the file.

    paths : path, or list of paths
    energy_key, forces_key, stress_key, virial_key, weight_key : exact names to use instead of the usual ones; the
        weight of a structure in a loss is else taken from ``config_weight``, or 1
    length_unit, energy_unit : units of the file (`eann_lite.structures.units`), where ASE hands numbers on as they are
    forces_unit : such as "Hartree/Bohr"; default energy_unit/length_unit
    stress_unit : of stresses: "GPa", "kbar", "eV/Angstrom^3", ...; default energy_unit/length_unit^3.  A virial is an
        energy, in energy_unit.
    fractional : positions of ``configuration`` files are multiples of the lattice vectors (``table_coor = 1``)
    index : which structures of each file, as in ASE: ":", "::10", "-1", a number or a slice

    The source of each structure is its file and its number there from 0, as ASE counts: "train.xyz, structure 17".

    InputError, naming file, structure and atom: file missing, empty, damaged or not readable; a NaN or infinity; wrong
    shapes; a cell that is zero or flat where periodic; two atoms at the same place; a key or unit that does not exist.

    >>> structures = read_structures("train.xyz", energy_key="REF_energy")  # doctest: +SKIP
    """
    units = Units.named(energy_unit, length_unit, forces_unit, stress_unit)
    keys = LabelKeys(energy_key, forces_key, stress_key, virial_key, weight_key)
    index = _as_index(index)
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    names = []
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"{path!r} is of type {type(path).__name__}: expected the path of a file. Give its path.")
        names.append(os.fspath(path))
    if not names:
        raise InputError("no files to read: the list of paths is empty. Give at least one file.")
    structures = []
    configurations = 0
    for name in names:
        path = _checked_path(name)
        if _is_configuration(path):
            configurations += 1
            structures += _read_configuration(path, units, fractional, index)
        else:
            for atoms, where in _read_atoms(path, index):
                # What a file holds belongs to its atoms, so the calculator's results are taken without a check.
                results = getattr(atoms.calc, "results", None) or {}
                structures.append(structure_with_labels(atoms, results, keys, units, where))
    keys.check_used(", ".join(names))
    if fractional and configurations == 0:
        raise InputError(
            f"fractional = True is for 'configuration' texts, but {', '.join(names)} is none. Leave it out."
        )
    check_separate(structures)
    return structures


def read_atoms(path):
    """``ase.Atoms`` of a file with what a `Structure` has no place for, masses and constraints: [(atoms, source)].

    Files, their checks, sources and errors are those of `read_structures`; labels are not read, and there is no
    calculator.  Masses that are not in the file are those of the elements.

    >>> read_atoms("slab.traj")[-1][0].constraints  # doctest: +SKIP
    [FixAtoms(indices=[0, 1, 2, 3])]
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"{path!r} is of type {type(path).__name__}: expected the path of a file. Give its path.")
    name = _checked_path(os.fspath(path))
    if _is_configuration(name):
        found = _configuration_atoms(name)
    else:
        found = list(_read_atoms(name, slice(None)))
    structures = []
    for atoms, where in found:
        atoms.calc = None
        structures.append(Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, source=where))
    check_separate(structures)
    return found


# ---- files ----------------------------------------------------------------------------------------------------------


def _checked_path(name):
    """Path of a file that exists, can be read and is not empty; of a folder, its ``configuration``."""
    path = name
    if os.path.isdir(path):
        path = os.path.join(path, "configuration")
        if not os.path.isfile(path):
            raise InputError(f"{name}: is a folder without a file 'configuration' in it. Give the file itself.")
    if not os.path.exists(path):
        folder = os.path.dirname(os.path.abspath(path))
        why = "" if os.path.isdir(folder) else f" (the folder {folder} does not exist)"
        part = " @ chooses no structures here: read_structures has index for that." if "@" in name else ""
        raise InputError(f"{name}: no such file{why}. Check the path.{part}")
    try:
        with _open_bytes(path) as file:
            start = file.read(1)
    except PermissionError as error:
        raise InputError(f"{name}: cannot be opened: {error.strerror}. Check who may read it.") from error
    except DAMAGED as error:
        raise _damaged(name, error) from error
    if not start:
        raise InputError(f"{name}: empty file, expected at least one structure. Copy or write it again.")
    return path


def _open_bytes(path):
    with open(path, "rb") as file:
        start = file.read(6)
    return next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), open)(path, "rb")


def _read_text(path):
    """Lines (with their ends) of a text file, compressed or not."""
    try:
        with _open_bytes(path) as file:
            text = file.read().decode("utf-8", errors="replace")
    except DAMAGED as error:
        raise _damaged(path, error) from error
    if not text.strip():
        raise InputError(f"{path}: empty file, expected at least one structure. Copy or write it again.")
    return io.StringIO(text).readlines()


def _damaged(name, error):
    return InputError(f"{name}: cannot be read ({error}). It is cut off or damaged: copy it again.")


def _is_configuration(path):
    if os.path.basename(path).split(".")[0] == "configuration":
        return True
    try:
        with _open_bytes(path) as file:
            # Enough for five lines of a configuration; a binary file without line ends is not read whole.
            start = file.read(2000)
    except DAMAGED as error:
        raise _damaged(path, error) from error
    return looks_like_configuration(start.decode("utf-8", errors="replace").splitlines())


def _as_index(index):
    """A number or a slice; texts are read as ASE reads them."""
    if isinstance(index, str):
        from ase.io.formats import string2index

        try:
            index = string2index(index)
        except ValueError:
            pass
    if isinstance(index, bool) or not isinstance(index, (int, slice)):
        raise InputError(f"index = {index!r}: expected a number, a slice, or a text such as ':', '::10' or '-1'.")
    return index


def _chosen(index, count, name):
    """Numbers of the structures of a file of ``count`` that ``index`` chooses."""
    if isinstance(index, slice):
        chosen = list(range(count))[index]
    else:
        chosen = [index % count] if -count <= index < count else []
    if not chosen:
        raise InputError(f"{name}: index {index} chooses none of its {count} structures. Choose from 0 to {count - 1}.")
    return chosen


def _read_configuration(path, units, fractional, index):
    lines = _read_text(path)
    blocks = split_configuration(lines, path)
    structures = []
    for number in _chosen(index, len(blocks), path):
        begin, end = blocks[number]
        where = f"{path}, structure {number}"
        values = parse_block(lines[begin:end], begin + 1, where, fractional)
        structures.append(Structure(**in_our_units(values, units), source=where))
    return structures


def _configuration_atoms(path):
    """[(ase.Atoms, source)] of a ``configuration``, with the masses of its second column."""
    lines = _read_text(path)
    found = []
    for number, (begin, end) in enumerate(split_configuration(lines, path)):
        where = f"{path}, structure {number}"
        atoms = Structure(**parse_block(lines[begin:end], begin + 1, where), source=where).to_atoms()
        atoms.set_masses(block_masses(lines[begin:end], begin + 1, where))
        found.append((atoms, where))
    return found


def _read_atoms(path, index):
    """Yields (ase.Atoms, source) for each chosen structure of a file that ASE reads."""
    from ase.io import iread
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        format_name = filetype(path)
    except UnknownFileTypeError:
        format_name = None
    except DAMAGED as error:
        raise _damaged(path, error) from error
    if format_name not in ioformats:
        raise InputError(
            f"{path}: ASE does not know this format. Name extended xyz files .xyz or .extxyz; "
            "the published packages' text is known by its name 'configuration'."
        )
    if format_name in EXTENDED_XYZ:
        yield from _read_extended_xyz(path, index)
        return
    try:
        every = list(iread(path, index=":", format=format_name))
    except Exception as error:  # ASE's readers raise whatever their parsing meets.
        raise InputError(
            f"{path}: ASE cannot read it as {format_name} ({type(error).__name__}: {error}). "
            "Convert it to extended xyz, or give the file an ending that tells its format."
        ) from error
    if not every:
        raise InputError(f"{path}: no structures in it (read as {format_name}).")
    for number in _chosen(index, len(every), path):
        yield every[number], f"{path}, structure {number}"


# ---- extended xyz ---------------------------------------------------------------------------------------------------


def _read_extended_xyz(path, index):
    """Yields (ase.Atoms, source); frames are found here, so that errors know the structure, and parsed by ASE."""
    from ase.io import iread

    lines = _read_text(path)
    frames = _find_frames(lines, path)
    chosen = _chosen(index, len(frames), path)
    text = "".join("".join(lines[slice(*frames[number])]) for number in chosen)
    parsed = iread(io.StringIO(text), index=":", format="extxyz")
    for number in chosen:
        where = f"{path}, structure {number}"
        try:
            atoms = next(parsed)
        except Exception as error:  # ASE raises ValueError, KeyError, IndexError, OSError, ... depending on the line.
            raise InputError(f"{where}: {_reason(lines, *frames[number], error)}") from error
        yield atoms, where


def _find_frames(lines, path):
    """(begin, end) line numbers from 0 of each structure; InputError where the file is not a row of whole frames."""
    frames = []
    at = 0
    while at < len(lines):
        here = f"{path}, line {at + 1}, where structure {len(frames)} begins"
        if not lines[at].strip():
            rest = next((k for k in range(at, len(lines)) if lines[k].strip()), None)
            if rest is None:
                break
            raise InputError(
                f"{here}: an empty line, but the file goes on in line {rest + 1}. ASE would leave out all that "
                "follows: remove the empty line, or correct the number of atoms before it."
            )
        try:
            n_atoms = int(lines[at])
        except ValueError:
            n_atoms = 0
        if n_atoms < 1:
            raise InputError(
                f"{here}: {lines[at].strip()[:60]!r}: expected the number of atoms, at least 1. "
                "If an atom's line stands there, the number of atoms of the structure before is too small."
            )
        end = at + 2 + n_atoms
        if end > len(lines):
            raise InputError(
                f"{path}, structure {len(frames)}: {n_atoms} atoms announced in line {at + 1}, but the file ends after "
                f"{max(0, len(lines) - at - 2)} of them. It is cut off: copy it again or remove this structure."
            )
        while end < len(lines) and lines[end].lstrip().startswith("VEC"):
            end += 1
        frames.append((at, end))
        at = end
    return frames


def _reason(lines, begin, end, error):
    """Why ASE failed on the frame of these lines, with the line where that can be told."""
    widths = [len(line.split()) for line in lines[begin + 2 : end]]
    for k, width in enumerate(widths):
        if width < max(widths):
            return (
                f"atom {k} (line {begin + k + 3}) has {width} columns, others have {max(widths)}: "
                f"{lines[begin + k + 2].strip()!r}. Correct the line, or the number of atoms in line {begin + 1}."
            )
    if isinstance(error, KeyError):
        words = [line.split()[:1] for line in lines[begin + 2 : end]]
        atom = next((k for k, word in enumerate(words) if word and word[0].capitalize() == error.args[0]), None)
        where = "" if atom is None else f" for atom {atom} (line {begin + atom + 3})"
        return f"{error} is not a chemical symbol{where}. Correct it, or the order of columns in 'Properties='."
    return (
        f"ASE cannot read lines {begin + 1} to {end} as extended xyz ({type(error).__name__}: {error}). "
        "Correct them or remove the structure."
    )
