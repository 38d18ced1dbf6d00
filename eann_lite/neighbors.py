"""Neighbour pairs: every ordered pair within the cutoff, in CSR form by centre, with image shifts and reversed pairs.

The loops, and how they work, are in ``eann_lite.kernels.pair_search``.
"""

import math
from typing import NamedTuple

import numpy as np

from eann_lite.errors import InputError
from eann_lite.kernels.lattice import FLATTEST, complete_cell, holds_every_pair
from eann_lite.kernels.pair_search import FARTHEST, GOOD, TWO_AT_ONE_PLACE, find_pairs


class Pairs(NamedTuple):
    """Ordered pairs p = (i -> j) of N atoms, CSR by centre: those of atom i are ``first[i]`` to ``first[i + 1] - 1``.

    first : (N + 1,) int64, offsets by centre
    neighbor : (P,) int64, the neighbour j
    shift : (P, 3) int64, image S: ``r_p = x_j + S @ cell - x_i`` with positions as they were given, not wrapped
    reverse : (P,) int64, index of the reversed pair (j -> i, image -S); ``reverse[reverse] == arange(P)``
    """

    first: np.ndarray
    neighbor: np.ndarray
    shift: np.ndarray
    reverse: np.ndarray


def _checked_cutoff(cutoff):
    try:
        value = float(cutoff)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 < value < math.inf:
        raise InputError(f"cutoff = {cutoff!r}: expected a positive, finite distance in Angstrom, such as 6.0.")
    return value


def _checked_skin(skin):
    try:
        value = float(skin)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise InputError(
            f"skin = {skin!r}: expected 0 or more, finite: how far beyond the cutoff neighbours are listed, in Angstrom, "
            "such as 0.5."
        )
    return value


def _checked_shapes(positions, cell, pbc, where=""):
    """New arrays (n, 3) float64, (3, 3) float64, (3,) bool; InputError for other shapes."""
    prefix = f"{where}: " if where else ""
    try:
        positions = np.array(positions, dtype=np.float64, order="C")
        cell = np.array(cell, dtype=np.float64, order="C")
        pbc = np.array(pbc, dtype=np.bool_)
    except (TypeError, ValueError) as error:
        raise InputError(f"{prefix}positions, cell or pbc are not arrays of numbers ({error}).") from None
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise InputError(f"{prefix}positions have shape {positions.shape}: expected (number of atoms, 3), in Angstrom.")
    if cell.shape != (3, 3):
        raise InputError(
            f"{prefix}cell has shape {cell.shape}: expected (3, 3), one lattice vector in each row, in Angstrom "
            "(zeros where there is none)."
        )
    if pbc.shape == ():
        pbc = np.full(3, pbc)
    if pbc.shape != (3,):
        raise InputError(f"{prefix}pbc has shape {pbc.shape}: expected three flags, one for each lattice vector.")
    return positions, cell, pbc


def check_geometry(positions, cell, pbc, where=""):
    """Raise InputError for positions or a cell without meaning; return nothing.

    positions : (n, 3) Angstrom; cell : (3, 3) Angstrom, rows are lattice vectors; pbc : (3,) bool, or one for all
    where : what the message begins with, such as ``"train.xyz, structure 17"``

    Errors name the atom and the component that is NaN, infinite or farther away than 1e8 Angstrom, a wrong shape,
    and cell vectors that are not finite, or zero or linearly dependent in the directions that pbc sets.

    >>> check_geometry([[0.0, 0.0, float("nan")]], np.zeros((3, 3)), False, where="water.xyz, structure 2")
    Traceback (most recent call last):
        ...
    eann_lite.errors.InputError: water.xyz, structure 2: atom 0: position z = nan: expected a finite number of \
Angstrom below 1e+08. Correct or remove the structure.
    """
    positions, cell, pbc = _checked_shapes(positions, cell, pbc, where)
    prefix = f"{where}: " if where else ""
    usable = np.abs(positions) <= FARTHEST  # NaN is not
    if not usable.all():
        atom, component = np.argwhere(~usable)[0]
        raise InputError(
            f"{prefix}atom {atom}: position {'xyz'[component]} = {positions[atom, component]}: expected a finite "
            f"number of Angstrom below {FARTHEST:g}. Correct or remove the structure."
        )
    vectors = f"{prefix}cell vectors {cell.tolist()} with pbc {pbc.tolist()}"
    if not np.isfinite(cell).all():
        raise InputError(f"{vectors}: expected finite numbers of Angstrom (zeros where there is no cell). Give a cell.")
    if not complete_cell(cell, pbc)[1] > FLATTEST:
        raise InputError(
            f"{vectors}: expected linearly independent vectors, none of them zero, in the directions with pbc; "
            "set pbc=False or give a cell."
        )


def _raise_for(status, positions, cell, pbc, cutoff, i, j, where=""):
    """Raise the InputError that says why the loops found no pairs in this structure; atoms counted within it."""
    check_geometry(positions, cell, pbc, where)
    prefix = f"{where}: " if where else ""
    if status == TWO_AT_ONE_PLACE:
        i, j = sorted((i, j))
        raise InputError(
            f"{prefix}atoms {i} and {j} are at the same place, {positions[i].tolist()} and {positions[j].tolist()} "
            f"Angstrom (with pbc {pbc.tolist()}): expected a distance above 0. Remove one of them or correct its "
            "position."
        )
    raise InputError(
        f"{prefix}cell vectors {cell.tolist()} with pbc {pbc.tolist()}: far too small or flat for the cutoff "
        f"{cutoff:g} Angstrom, each atom would see millions of images. Check the units of the cell (expected "
        "Angstrom), or give a smaller cutoff."
    )


def neighbor_pairs(positions, cell, pbc, cutoff):
    """All ordered pairs (i -> j) with 0 < r < cutoff of one structure, periodic images included.

    positions : (N, 3) Angstrom, anywhere, not necessarily in the cell
    cell : (3, 3) Angstrom, rows are lattice vectors, any shape and handedness; may be zero where pbc is not set
    pbc : (3,) bool, or one for all
    cutoff : Angstrom; may be larger than the cell

    Returns `Pairs`: ``r_p = x_j + S @ cell - x_i`` for the positions as given.  An atom and its own image are a pair.
    The order of the pairs depends on the input alone.  Cost grows linearly with the number of atoms of a homogeneous
    system.

    Raises InputError for a cutoff that is not positive and finite, for what `check_geometry` refuses, for two atoms at
    the same place (naming both), and for a cell so small that each atom would see millions of images.

    >>> pairs = neighbor_pairs([[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]], np.diag([0.0, 0.0, 4.0]), (False, False, True), 3.0)
    >>> pairs.first, pairs.neighbor, pairs.shift[:, 2], pairs.reverse
    (array([0, 2, 4]), array([1, 1, 0, 0]), array([ 0, -1,  1,  0]), array([3, 2, 1, 0]))
    """
    cutoff = _checked_cutoff(cutoff)
    positions, cell, pbc = _checked_shapes(positions, cell, pbc)
    offsets = np.array((0, len(positions)))
    first, neighbor, shift, reverse, status, _, i, j = find_pairs(
        positions, offsets, cell.reshape(1, 3, 3), pbc.reshape(1, 3), cutoff
    )
    if status != GOOD:
        _raise_for(status, positions, cell, pbc, cutoff, i, j)
    return Pairs(first, neighbor, shift, reverse)


def batch_pairs(positions, offsets, cells, pbc, cutoff):
    """`neighbor_pairs` of many structures in one call; indices of atoms and pairs count through the whole batch.

    positions : (N, 3) Angstrom, all structures one after the other
    offsets : (S + 1,) integers, atoms of structure s are ``offsets[s]`` to ``offsets[s + 1] - 1``
    cells : (S, 3, 3) Angstrom; pbc : (S, 3) bool

    Returns `Pairs` with the same pairs in the same order as one structure at a time.  Raises InputError as
    `neighbor_pairs` does, naming the structure by its number in the batch.

    >>> pairs = batch_pairs([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [6.0, 0.0, 0.0]], [0, 1, 3],
    ...                     np.zeros((2, 3, 3)), np.zeros((2, 3), bool), cutoff=6.0)
    >>> pairs.first, pairs.neighbor
    (array([0, 0, 1, 2]), array([2, 1]))
    """
    cutoff = _checked_cutoff(cutoff)
    positions = np.array(positions, dtype=np.float64, order="C")
    offsets = np.array(offsets, dtype=np.int64)
    cells = np.array(cells, dtype=np.float64, order="C")
    pbc = np.array(pbc, dtype=np.bool_, order="C")
    n = offsets.size - 1
    good = offsets.ndim == 1 and positions.ndim == 2 and positions.shape[1] == 3
    if not good or cells.shape != (n, 3, 3) or pbc.shape != (n, 3):
        raise InputError(
            f"a batch with positions {positions.shape}, offsets {offsets.shape}, cells {cells.shape}, pbc {pbc.shape}: "
            "expected the shapes (N, 3), (S + 1,), (S, 3, 3), (S, 3)."
        )
    if offsets[0] != 0 or offsets[-1] != len(positions) or (np.diff(offsets) < 0).any():
        raise InputError(f"offsets of a batch: expected to grow from 0 to the number of atoms, {len(positions)}.")
    first, neighbor, shift, reverse, status, s, i, j = find_pairs(positions, offsets, cells, pbc, cutoff)
    if status != GOOD:
        begin, end = offsets[s], offsets[s + 1]
        _raise_for(status, positions[begin:end], cells[s], pbc[s], cutoff, i - begin, j - begin, f"structure {s}")
    return Pairs(first, neighbor, shift, reverse)


class SkinList:
    """Pairs within ``cutoff + skin``, kept from step to step of a dynamics as long as none within the cutoff can miss.

    cutoff, skin : Angstrom; a skin of 0 keeps the list only while nothing moves

    The list is made anew when an atom has moved more than skin / 2 since it was made.  When the cell has changed, the
    movement is counted relative to the deformed cell and the allowance shrinks by the deformation, so that barostats
    keep their list too (`holds_every_pair` derives the bound).  Another number of atoms, another pbc, another
    ``numbers_key`` make a new list.  Wrapping atoms back into the cell counts as movement.

    The list holds pairs with ``r >= cutoff``: whoever uses it skips them.  A list that is kept is not searched for two
    atoms at the same place.

    >>> skin_list = SkinList(cutoff=3.0, skin=0.5)
    >>> pairs, rebuilt = skin_list.update([[0.0, 0.0, 0.0], [0.0, 0.0, 3.2]], np.zeros((3, 3)), False)
    >>> len(pairs.neighbor), rebuilt
    (2, True)
    >>> skin_list.update([[0.0, 0.0, 0.2], [0.0, 0.0, 3.0]], np.zeros((3, 3)), False)[1]
    False
    """

    def __init__(self, cutoff, skin):
        self.cutoff = _checked_cutoff(cutoff)
        self.skin = _checked_skin(skin)
        self._made = None

    def update(self, positions, cell, pbc, numbers_key=None):
        """The pairs for these positions and whether they were made anew: ``(Pairs, rebuilt)``.

        Arguments and errors as for `neighbor_pairs`.  While ``rebuilt`` is False the same `Pairs` object comes back.
        numbers_key : anything that compares with ``==``, such as ``numbers.tobytes()``, if what hangs on the list
            depends on the elements
        """
        positions, cell, pbc = _checked_shapes(positions, cell, pbc)
        if self._made is not None:
            pairs, old_positions, old_cell, old_pbc, old_key = self._made
            if (
                numbers_key == old_key
                and positions.shape == old_positions.shape
                and pbc.tobytes() == old_pbc.tobytes()
                and holds_every_pair(positions, cell, pbc, old_positions, old_cell, self.cutoff, self.skin)
            ):
                return pairs, False
        pairs = neighbor_pairs(positions, cell, pbc, self.cutoff + self.skin)
        self._made = pairs, positions, cell, pbc, numbers_key
        return pairs, True
