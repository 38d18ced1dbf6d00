"""The text format ``configuration`` of the published EANN and REANN packages, in and out.

For each structure, one after another (reann/src/read_data.py of github.com/zhangylch/REANN, commit 6ca3928)::

    point=      1                           anything, not read
    10.0  0.0  0.0                          three lattice vectors, Angstrom
     0.0 10.0  0.0
     0.0  0.0 10.0
    pbc  1 1 1
    C 12.011  0.0 0.0 0.0  0.1 0.0 0.0      symbol, mass, position, force (eV/Angstrom; may be absent)
    H  1.008  0.6 0.6 0.6 -0.1 0.0 0.0
    abprop: -40.5                           energy, eV (may be absent)

Positions are Cartesian (``table_coor = 0``) or fractional (``table_coor = 1``), which the text does not say.  Columns
after the force are ignored, as the published reader does; masses too, but for normal modes.
"""

import numpy as np

from eann_lite.errors import InputError

#: Lines from "point=" to "pbc", and the columns of an atom without and with a force.
HEADER_LINES, COLUMNS, COLUMNS_WITH_FORCE = 5, 5, 8
#: A molecule without a cell is written into a cubic box at least this wide (Angstrom): the published code needs one.
BOX = 100.0


def looks_like_configuration(lines):
    """Whether the first lines of a text (at least five) are those of a ``configuration``: the fifth begins with pbc.

    >>> looks_like_configuration(["point= 1", "9 0 0", "0 9 0", "0 0 9", "pbc 1 1 1"])
    True
    """
    return len(lines) >= HEADER_LINES and lines[HEADER_LINES - 1].split()[:1] == ["pbc"]


def split_configuration(lines, name):
    """(begin, end) line numbers, counted from 0, of each structure in the text; ``name`` of the file for messages."""
    blocks = []
    begin = 0
    for at, line in enumerate(lines):
        if line.lstrip().startswith("abprop:"):
            while begin < at and not lines[begin].strip():
                begin += 1
            blocks.append((begin, at + 1))
            begin = at + 1
    if any(line.strip() for line in lines[begin:]):
        raise InputError(
            f"{name}, structure {len(blocks)}: its lines, from line {begin + 1} on, have no line 'abprop:' at their "
            "end. The file may be cut off: remove the incomplete structure or copy the file again."
        )
    return blocks


def parse_block(lines, first_line, where, fractional=False):
    """Arguments (dict) of a Structure from the lines of one block, in the units of the file.

    first_line : number of the first of these lines in the file, counted from 1, for messages
    fractional : positions are multiples of the lattice vectors
    """
    if len(lines) < HEADER_LINES + 2 or lines[4].split()[:1] != ["pbc"]:
        raise InputError(
            f"{where}, lines {first_line} to {first_line + len(lines) - 1}: expected a line 'point=', three lattice "
            "vectors, a line 'pbc 1 1 1', one line for each atom, and 'abprop: energy'. Write it in this form."
        )
    rows = [_Row(line, f"{where}, line {first_line + k}") for k, line in enumerate(lines)]
    cell = np.array([row.numbers(0, 3, "a lattice vector") for row in rows[1:4]])
    pbc = np.array(rows[4].numbers(1, 4, "'pbc' and three of 0 or 1")) != 0.0
    atoms = rows[HEADER_LINES:-1]
    with_forces = len(atoms[0].words) > COLUMNS
    for row in atoms:
        complete = len(row.words) >= COLUMNS_WITH_FORCE if with_forces else len(row.words) == COLUMNS
        if not complete:
            raise row.error(f"{COLUMNS_WITH_FORCE} columns, 'symbol mass x y z fx fy fz' (or all atoms without forces)")
    positions = np.array([row.numbers(2, 5, "a position") for row in atoms])
    return {
        "numbers": [row.atomic_number() for row in atoms],
        "positions": positions @ cell if fractional else positions,
        "cell": cell,
        "pbc": pbc,
        "energy": _energy(rows[-1]),
        "forces": np.array([row.numbers(5, 8, "a force") for row in atoms]) if with_forces else None,
    }


def block_masses(lines, first_line, where):
    """Masses (list, amu) in the lines of one block that `parse_block` has read."""
    rows = [_Row(line, f"{where}, line {first_line + k}") for k, line in enumerate(lines)]
    return [row.numbers(1, 2, "a mass")[0] for row in rows[HEADER_LINES:-1]]


class _Row:
    """The words of one line, and how to complain about them."""

    def __init__(self, line, where):
        self.words, self.where = line.split(), where

    def error(self, expected):
        return InputError(f"{self.where}: {' '.join(self.words)!r}: expected {expected}. Correct the line.")

    def numbers(self, begin, end, what):
        words = self.words[begin:end]
        try:
            if len(words) == end - begin:
                return [float(word) for word in words]
        except ValueError:
            pass
        raise self.error(f"{what} (numbers in columns {begin + 1} to {end})")

    def atomic_number(self):
        from ase.data import atomic_numbers

        number = atomic_numbers.get(self.words[0].capitalize(), 0)
        if number == 0:
            raise self.error(f"a chemical symbol in the first column, not {self.words[0]!r}")
        return number


def _energy(row):
    if len(row.words) == 1:
        return None
    if len(row.words) > 2:
        raise row.error(f"one number, the energy, after 'abprop:', not {len(row.words) - 1} (dipoles are not read)")
    return row.numbers(1, 2, "an energy")[0]


def write_configuration(path, structures):
    """Write structures as the published packages read them (eV, Angstrom, Cartesian: ``table_coor = 0``).

    The published code inverts the cell, so a structure without one is written into a cubic box that is wide enough
    not to change it.  Numbers are written with all digits: positions, cell, energy and forces read back are the same
    bits.  Structures without forces get no force columns, those without energy an empty ``abprop:``.
    """
    from ase.data import atomic_masses

    with open(path, "w", encoding="ascii") as file:
        for point, structure in enumerate(structures):
            cell = structure.cell
            if structure.volume == 0.0:
                if structure.pbc.any():
                    raise InputError(
                        f"{structure.source or f'structure {point}'}: periodic in a cell without volume, which the "
                        "configuration format cannot hold. Complete the cell."
                    )
                # Images are chosen within half a box of the first atom, so four times the size is safe.
                cell = np.eye(3) * max(BOX, 4.0 * np.ptp(structure.positions, axis=0).max())
            lines = [f"point= {point + 1}", *(_text(vector) for vector in cell)]
            lines.append("pbc " + " ".join("1" if periodic else "0" for periodic in structure.pbc))
            for i, symbol in enumerate(structure.symbols):
                row = [atomic_masses[structure.numbers[i]], *structure.positions[i]]
                row += [] if structure.forces is None else list(structure.forces[i])
                lines.append(f"{symbol} {_text(row)}")
            lines.append("abprop:" if structure.energy is None else f"abprop: {_text([structure.energy])}")
            file.write("\n".join(lines) + "\n")


def _text(numbers):
    return " ".join(repr(float(number)) for number in numbers)
