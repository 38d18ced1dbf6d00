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
PASCAL = 1e-30 / ELEMENTARY_CHARGE  # eV/Angstrom^3
#: Pressure units in eV/Angstrom^3.
PRESSURE_UNITS = {"GPa": 1e9 * PASCAL, "MPa": 1e6 * PASCAL, "Pa": PASCAL, "kbar": 1e8 * PASCAL, "bar": 1e5 * PASCAL}

_OTHER_NAMES = {
    "ha": "Hartree", "eh": "Hartree", "rydberg": "Ry", "kcal": "kcal/mol", "kj": "kJ/mol",
    "a": "Angstrom", "ang": "Angstrom", "å": "Angstrom", "angstroms": "Angstrom", "a0": "Bohr", "nanometer": "nm",
    "kb": "kbar", "kilobar": "kbar", "gigapascal": "GPa",
}  # fmt: skip


@dataclass(frozen=True)
class Units:
    """Factors that turn numbers of a file into ours: energy (eV), length (Angstrom), force (eV/Angstrom), stress.

    stress (eV/Angstrom^3) is for stresses alone, since a virial is an energy; None: they are in energy/length^3.
    """

    energy: float = 1.0
    length: float = 1.0
    force: float = 1.0
    stress: float | None = None

    @classmethod
    def named(cls, energy_unit="eV", length_unit="Angstrom", forces_unit=None, stress_unit=None):
        """Units by their names; forces and stresses are in energy_unit/length_unit and energy_unit/length_unit^3
        unless they have a unit of their own.

        >>> round(Units.named("Hartree", "Angstrom", "Hartree/Bohr").force, 9)
        51.422067476
        >>> round(Units.named(stress_unit="GPa").stress, 9)
        0.006241509
        """
        energy, length = energy_in_ev(energy_unit), length_in_angstrom(length_unit)
        force = energy / length if forces_unit is None else force_in_ev_per_angstrom(forces_unit)
        stress = None if stress_unit is None else stress_in_ev_per_cubic_angstrom(stress_unit)
        return cls(energy, length, force, stress)


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


def stress_in_ev_per_cubic_angstrom(unit):
    """One ``unit`` of stress, a pressure or energy/length^3, in eV/Angstrom^3.

    >>> round(stress_in_ev_per_cubic_angstrom("kbar"), 9)
    0.000624151
    >>> round(stress_in_ev_per_cubic_angstrom("Hartree/Bohr^3"), 3)
    183.632
    """
    energy, slash, volume = str(unit).strip().rpartition("/")
    if not slash:
        return PRESSURE_UNITS[_known(unit, PRESSURE_UNITS, "stress_unit", ", and energy/length^3")]
    length = volume.removesuffix("3").rstrip("*^")
    if length == volume:
        raise InputError(
            f"stress_unit = {unit!r}: expected a pressure or energy/length^3, for example 'GPa' or 'Hartree/Bohr^3'."
        )
    return (
        ENERGY_UNITS[_known(energy, ENERGY_UNITS, "stress_unit")]
        / LENGTH_UNITS[_known(length, LENGTH_UNITS, "stress_unit")] ** 3
    )


def _known(unit, table, setting, others=""):
    """Name of a unit as the table writes it: capitals do not matter, a few other names are understood."""
    wanted = str(unit).strip().lower()
    wanted = _OTHER_NAMES.get(wanted, wanted).lower()
    by_lower = {name.lower(): name for name in table}
    if wanted in by_lower:
        return by_lower[wanted]
    near = difflib.get_close_matches(wanted, by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[near[0]]!r}? " if near else ""
    raise InputError(f"{setting}: unknown unit {unit!r}; {hint}Known units are {', '.join(table)}{others}.")
