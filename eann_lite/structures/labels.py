"""Finding energy, forces and stress of ASE Atoms under the names that people give them."""

import difflib
from functools import lru_cache

import numpy as np

from eann_lite.errors import InputError
from eann_lite.structures.structure import Structure, stored_results
from eann_lite.structures.units import Units

#: Usual names, written small and without ``_``, ``-`` and spaces: REF_energy, ref-energy and RefEnergy are one.
USUAL_NAMES = {
    "energy": {"energy", "refenergy", "dftenergy", "qmenergy", "totenergy", "totalenergy", "potentialenergy"},
    # Forces belong to the free energy where electrons are smeared, yet "energy" is what most people fit, so the
    # free energy counts only where no other is given.
    "free energy": {"freeenergy", "reffreeenergy", "dftfreeenergy"},
    "forces": {"forces", "force", "refforces", "refforce", "dftforces", "dftforce", "qmforces", "qmforce"},
    "stress": {"stress", "refstress", "dftstress", "qmstress"},
    "virial": {"virial", "virials", "refvirial", "refvirials", "dftvirial", "dftvirials"},
    "weight": {"configweight"},
}
#: Two labels of one kind that differ by no more than this (relative, and absolute in the file's units) are the same.
SAME_LABEL = 1e-8, 1e-6


class LabelKeys:
    """Under which keys the labels stand: given by the user, or None for the usual names; and which keys were met."""

    def __init__(self, energy=None, forces=None, stress=None, virial=None, weight=None):
        if stress is not None and virial is not None:
            raise InputError(
                f"stress_key = {stress!r} and virial_key = {virial!r}: expected one of them, since "
                "stress = -virial / volume. Leave one out."
            )
        self.given = {"energy": energy, "forces": forces, "stress": stress, "virial": virial, "weight": weight}
        self._used = set()
        self._met_per_structure, self._met_per_atom = {}, {}

    def find(self, atoms, results, where, units):
        """Labels (dict) of ``atoms``, in the units of the file; ``results`` are those of its calculator.

        The stress is in energy/length^3, which ``units`` (`Units`) turn a stress of its own unit into.
        """
        per_structure = [*atoms.info.items(), *results.items()]
        per_atom = [*atoms.arrays.items(), *results.items()]
        self._met_per_structure.update(dict.fromkeys(key for key, _ in per_structure))
        self._met_per_atom.update(dict.fromkeys(key for key, _ in per_atom))
        labels = {}
        energy = self._pick("energy", per_structure, where)
        if energy is None and self.given["energy"] is None:
            energy = self._pick("free energy", per_structure, where)
        weight = self._pick("weight", per_structure, where)
        labels["energy"], labels["forces"] = energy, self._pick("forces", per_atom, where)
        labels["stress"] = self._stress(atoms, per_structure, where, units)
        if weight is not None:
            labels["weight"] = weight
        return labels

    def _stress(self, atoms, values, where, units):
        """Stress (energy/length^3) from a stress, or from a virial by stress = -virial / volume; both must agree."""
        stress = virial = None
        if self.given["virial"] is None:
            stress = self._pick("stress", values, where)
            if stress is not None and units.stress is not None:
                stress = stress * (units.stress * units.length**3 / units.energy)
        if self.given["stress"] is None:
            virial = self._pick("virial", values, where)
        if virial is None:
            return None if stress is None else _full_tensor(stress, "stress", where)
        virial = _full_tensor(virial, "virial", where)
        volume = Structure(numbers=[1], positions=np.zeros((1, 3)), cell=atoms.cell.array, source=where).volume
        if volume == 0.0:
            # Handed on as it is: an all-zero one is dropped there, any other refused with the reason.
            return virial
        from_virial = -virial / volume
        if stress is not None and not _same(_full_tensor(stress, "stress", where), from_virial):
            raise InputError(
                f"{where}: a stress and a virial that do not belong together (stress = -virial / volume is expected; "
                f"xx is {_full_tensor(stress, 'stress', where)[0, 0]:g} and {from_virial[0, 0]:g}). "
                "Choose one with stress_key or virial_key."
            )
        return from_virial

    def _pick(self, kind, values, where):
        """The label of one kind, or None, from (key, value) pairs; InputError where two fit and hold different ones."""
        wanted = self.given.get(kind)
        if wanted is not None:
            found = [(key, value) for key, value in values if key == wanted]
        else:
            found = [(key, value) for key, value in values if _plain(key) in USUAL_NAMES[kind]]
        if not found:
            return None
        if wanted is not None:
            self._used.add(kind)
        first_key, first = found[0][0], _numeric(found[0][1], kind, found[0][0], where)
        for key, value in found[1:]:
            other = _numeric(value, kind, key, where)
            if not _same(first, other):
                cure = f"Choose one, for example {kind.split()[-1]}_key={key!r}."
                if key == first_key:
                    cure = "One is a result of the attached calculator: remove it (atoms.calc = None) or the other."
                raise InputError(
                    f"{where}: two labels for the {kind} that differ: {first_key!r} = {_short(first)} and "
                    f"{key!r} = {_short(other)}. {cure}"
                )
        return first

    def check_used(self, where):
        """InputError if a key given by the user was met in no structure; it names the keys that were."""
        for kind, key in self.given.items():
            if key is None or kind in self._used:
                continue
            met = self._met_per_atom if kind == "forces" else self._met_per_structure
            met = [str(name) for name in met if name not in ("numbers", "positions")]
            near = difflib.get_close_matches(str(key), met, n=len(met) or 1, cutoff=0.3)
            names = ", ".join(map(repr, near + [name for name in met if name not in near])) or "none"
            raise InputError(
                f"{where}: {kind}_key = {key!r}, but no structure has it. Keys that exist: {names}. "
                "Give one of these, or leave the key out to look under the usual names."
            )


def label_atoms(
    atoms, *, energy_key=None, forces_key=None, stress_key=None, virial_key=None, weight_key=None,
    length_unit="Angstrom", energy_unit="eV", forces_unit=None, stress_unit=None, source="structure {}",
):  # fmt: skip
    """Structures (list) of a list of ``ase.Atoms`` whose labels may stand in ``info`` and ``arrays``.

    The same rules, keys and units as in `eann_lite.structures.read_structures`, for Atoms that are already in memory.
    Structures among them stay as they are.  ``source`` names the others in messages; ``{}`` stands for the number in the
    list.

    >>> from ase import Atoms
    >>> label_atoms([Atoms("He", info={"REF_energy": -2.9})], energy_unit="Hartree")[0].energy
    -78.91302011336519
    """
    keys = LabelKeys(energy_key, forces_key, stress_key, virial_key, weight_key)
    units = Units.named(energy_unit, length_unit, forces_unit, stress_unit)
    structures = [
        one
        if isinstance(one, Structure)
        else structure_with_labels(one, stored_results(one), keys, units, source.format(i))
        for i, one in enumerate(atoms)
    ]
    keys.check_used("these structures")
    return structures


def structure_with_labels(atoms, results, keys, units, where):
    """Structure of ``atoms`` with the labels that ``keys`` finds, turned from ``units`` into eV and Angstrom."""
    values = {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        **keys.find(atoms, results, where, units),
    }
    return Structure(**in_our_units(values, units), source=where)


def in_our_units(values, units):
    """Arguments (dict) of a Structure turned from ``units`` into eV and Angstrom; shapes are checked there.

    The stress among them is in energy/length^3, as `LabelKeys.find` gives it.
    """
    factors = {
        "positions": units.length,
        "cell": units.length,
        "energy": units.energy,
        "forces": units.force,
        "stress": units.energy / units.length**3,
    }
    return {
        name: value if value is None or factors.get(name, 1.0) == 1.0 else np.asarray(value) * factors[name]
        for name, value in values.items()
    }


@lru_cache(maxsize=1000)
def _plain(key):
    return str(key).lower().replace("_", "").replace("-", "").replace(" ", "")


def _numeric(value, kind, key, where):
    """The value as an array or a number; InputError where it is a text, a flag or a ragged list."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf":
        raise InputError(
            f"{where}: {kind} {key!r} is {_short(value)}: expected numbers. "
            f"Correct it, or name another with {kind.split()[-1]}_key."
        )
    if kind in ("energy", "free energy", "weight"):
        if array.size != 1:
            raise InputError(
                f"{where}: {kind} {key!r} has shape {array.shape}: expected one number. "
                f"Name another with {kind.split()[-1]}_key."
            )
        return float(array.reshape(()))
    return array


def _full_tensor(value, kind, where):
    """(3, 3) of 9 numbers, or of 6 in the order xx, yy, zz, yz, xz, xy (Voigt's, as in ASE)."""
    if value.shape == (6,):
        return value[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
    if value.shape in ((9,), (3, 3)):
        return value.reshape(3, 3)
    raise InputError(f"{where}: {kind} of shape {value.shape}: expected 3 by 3, 9 or 6 (xx yy zz yz xz xy) numbers.")


def _same(one, other):
    relative, absolute = SAME_LABEL
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=relative, atol=absolute, equal_nan=True)


def _short(value):
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
