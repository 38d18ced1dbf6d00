"""The parts of a data set, training, validation and test, from files or from structures in memory."""

import os
from dataclasses import replace
from pathlib import Path

from eann_lite.errors import InputError
from eann_lite.training.settings import READING

PARTS = ("train", "valid", "test")


def shipped_files():
    """Paths of the CH4 data set that comes with the package: random and vibrating molecules, PBE/cc-pVDZ."""
    folder = Path(__file__).resolve().parent.parent / "data"
    return [str(folder / name) for name in ("ch4_random.extxyz.gz", "ch4_vibrating.extxyz.gz")]


def read_parts(train, valid, test, settings):
    """{train, valid, test: list of Structure} and the settings with what was used.

    train, valid, test : files, fractions, structures or None, as ``eann_lite.fit`` takes them; they beat the settings.
    Raises InputError for files that cannot be read, no validation structures, parts without energies, and labels none
    of which has a weight in the loss.
    """
    from eann_lite.training.splits import split

    if train is None:
        train = settings.train or shipped_files()
        if not settings.train and settings.test is None:
            settings = replace(settings, test=0.1)
    parts = {"train": _read(train, settings) if is_source(train) else _in_memory(train, settings)}
    fractions = {}
    for name, given in (("valid", valid), ("test", test)):
        given = getattr(settings, name) if given is None else given
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            fractions[name] = float(given)
        elif given is not None:
            parts[name] = _read(given, settings) if is_source(given) else _in_memory(given, settings)
    seed = settings.seed if settings.split_seed is None else settings.split_seed
    everything = parts["train"]
    elements = [frozenset(structure.numbers.tolist()) for structure in everything]
    indices = split(len(everything), tuple(fractions.values()), seed, elements)
    for name, index in zip([*fractions, "train"], indices):
        parts[name] = [everything[i] for i in index]
    parts.setdefault("test", [])
    if not parts.get("valid"):
        raise InputError("no validation structures: expected a file or a fraction above 0, for example valid = 0.1.")
    _check_labels(parts)
    _check_weights(parts["train"], settings)
    return {name: parts[name] for name in PARTS}, settings


def file_of(structure):
    """The file a structure was read from, "" for one that came from memory."""
    file, comma, _ = structure.source.rpartition(", structure ")
    return file if comma else ""


def as_list(value):
    """A list of the value, or of its items."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def is_source(value):
    """Whether a value names files or a fraction rather than being structures, as which an empty list counts."""
    items = as_list(value)
    return bool(items) and all(isinstance(item, (str, os.PathLike, int, float)) for item in items)


def _read(sources, settings):
    from eann_lite.structures import read_structures

    paths = [os.fspath(p) for p in as_list(sources)]
    return read_structures(paths, **{name: getattr(settings, name) for name in READING})


def _in_memory(objects, settings):
    """List of Structure from Atoms (labels by the rules, keys and units of files) or Structures, as they are."""
    from ase import Atoms

    from eann_lite.structures import as_structures, label_atoms

    items = [objects] if isinstance(objects, Atoms) else list(objects)
    if any(isinstance(item, Atoms) for item in items):
        items = label_atoms(items, **{name: getattr(settings, name) for name in READING})
    return as_structures(items)


def _check_labels(parts):
    for name in ("train", "valid"):
        if not any(s.energy is not None for s in parts[name]):
            source = parts[name][0].source or "the list given"
            raise InputError(
                f"no energies in the {name} part ({len(parts[name])} structures, first: {source}): expected an energy "
                "for some structures at least. Give the name of the energy in the file with energy_key."
            )


def _check_weights(train, settings):
    """InputError where no label that the training structures have counts in the loss: such a fit would fit nothing."""
    have = [
        label
        for label in ("energy", "forces", "stress")
        if any(getattr(s, label) is not None and s.weight > 0.0 for s in train)
    ]
    if have and not any(getattr(settings, f"{label}_weight") for label in have):
        weights = ", ".join(f"{label}_weight = 0" for label in have)
        raise InputError(
            f"{weights}, and the training structures have no other labels: nothing would be fitted. Give one of them a "
            "weight above 0."
        )
    if not have:
        raise InputError(
            f"all {len(train)} training structures have the weight 0 (config_weight): nothing would be fitted. Give "
            "some of them a weight above 0."
        )
