"""Units that data may come in, and their values in eV and Angstrom (CODATA 2018)."""

import difflib
from dataclasses import dataclass

from eann_lite.errors import InputError

HARTREE = 27.211386245988  # eV
BOHR = 0.529177210903  # Angstrom
# Exact since the 2019 definition of the SI.
AVOGADRO = 6.02214076e23  # 1/mol
ELEMENTARY_CHARGE = 1.602176634e-19  # C, so eV in J
JOULE_PER_MOLE = 1.0 / (AVOGADRO * ELEMENTARY_CHARGE)  # eV

#: Energy units in eV.
ENERGY_UNITS = {
    "eV": 1.0,
    "Hartree": HARTREE,
    "Ry": 0.5 * HARTREE,
    "kcal/mol": 4184.0 * JOULE_PER_MOLE,
    "kJ/mol": 1000.0 * JOULE_PER_MOLE,
}
#: Length units in Angstrom.
LENGTH_UNITS = {"Angstrom": 1.0, "Bohr": BOHR, "nm": 10.0}

_OTHER_NAMES = {
    "ha": "Hartree", "eh": "Hartree", "rydberg": "Ry", "kcal": "kcal/mol", "kj": "kJ/mol",
    "a": "Angstrom", "ang": "Angstrom", "å": "Angstrom", "angstroms": "Angstrom", "a0": "Bohr", "nanometer": "nm",
}  # fmt: skip


@dataclass(frozen=True)
class Units:
    """Factors that turn numbers of a file into ours: energy (eV), length (Angstrom), force (eV/Angstrom)."""

    energy: float = 1.0
    length: float = 1.0
    force: float = 1.0

    @classmethod
    def named(cls, energy_unit="eV", length_unit="Angstrom", forces_unit=None):
        """Units by their names; forces are in energy_unit/length_unit unless they have a unit of their own.

        >>> round(Units.named("Hartree", "Angstrom", "Hartree/Bohr").force, 9)
        51.422067476
        """
        energy, length = energy_in_ev(energy_unit), length_in_angstrom(length_unit)
        return cls(energy, length, energy / length if forces_unit is None else force_in_ev_per_angstrom(forces_unit))


def energy_in_ev(unit):
    """One ``unit`` of energy in eV; InputError names the nearest known unit.

    >>> energy_in_ev("Hartree")
    27.211386245988
    """
    return ENERGY_UNITS[_known(unit, ENERGY_UNITS, "energy_unit")]


def length_in_angstrom(unit):
    """One ``unit`` of length in Angstrom; InputError names the nearest known unit.

    >>> length_in_angstrom("nm")
    10.0
    """
    return LENGTH_UNITS[_known(unit, LENGTH_UNITS, "length_unit")]


def force_in_ev_per_angstrom(unit):
    """One ``unit`` of force, written energy/length, in eV/Angstrom.

    >>> round(force_in_ev_per_angstrom("kcal/mol/Angstrom"), 6)
    0.043364
    """
    energy, slash, length = str(unit).rpartition("/")
    if not slash or str(unit).lower() in map(str.lower, ENERGY_UNITS):
        raise InputError(
            f"forces_unit = {unit!r}: expected energy/length, for example 'eV/Angstrom' or 'Hartree/Bohr'."
        )
    return (
        ENERGY_UNITS[_known(energy, ENERGY_UNITS, "forces_unit")]
        / LENGTH_UNITS[_known(length, LENGTH_UNITS, "forces_unit")]
    )


def _known(unit, table, setting):
    """Name of a unit as the table writes it: capitals do not matter, a few other names are understood."""
    wanted = str(unit).strip().lower()
    wanted = _OTHER_NAMES.get(wanted, wanted).lower()
    by_lower = {name.lower(): name for name in table}
    if wanted in by_lower:
        return by_lower[wanted]
    near = difflib.get_close_matches(wanted, by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[near[0]]!r}? " if near else ""
    raise InputError(f"{setting}: unknown unit {unit!r}; {hint}Known units are {', '.join(table)}.")
