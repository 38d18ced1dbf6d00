"""Neighbour pairs: against ASE on random cells, their laws, reuse within a skin, and every error by its message."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eann_lite.errors import InputError
from eann_lite.neighbors import Pairs, SkinList, batch_pairs, check_geometry, neighbor_pairs

NO_CELL = np.zeros((3, 3))
SHAPES = ("molecule", "cell", "tiny", "skewed", "needle", "left-handed", "flat", "sparse", "many bins")
PERIODICITIES = list(itertools.product((False, True), repeat=3))


@st.composite
def geometries(draw):
    """(positions, cell, pbc, cutoff): random atoms in and far outside random cells, in any mixture of periodicity."""
    shape = draw(st.sampled_from(SHAPES))
    pbc = np.array(draw(st.sampled_from(PERIODICITIES)))
    n = draw(st.integers(1, 3 if shape in ("tiny", "needle") else 12))
    cutoff = draw(st.sampled_from((1.5, 3.0, 5.2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell = rng.uniform(2.5, 7.0, 3)[:, None] * (np.eye(3) + 0.3 * rng.uniform(-1, 1, (3, 3)))
    if shape == "molecule":
        cell, pbc = NO_CELL, np.zeros(3, bool)
    elif shape == "tiny":
        cell *= 0.4
    elif shape == "skewed":
        cell[1] += rng.integers(-4, 5) * cell[0]
        cell[2] += rng.integers(-4, 5) * cell[0] + rng.integers(-4, 5) * cell[1]
    elif shape == "needle":
        cell *= np.array([0.3, 1.0, 4.0])[rng.permutation(3), None]
    elif shape == "left-handed":
        cell = cell[[1, 0, 2]]
    elif shape == "flat":
        cell[2] = 0.25 * cell[2] + 0.7 * cell[0] + 0.7 * cell[1]
    elif shape == "sparse":
        cell *= 12.0
    elif shape == "many bins":
        cell, cutoff, n = 2.0 * cell, 1.5, 40
    positions = rng.uniform(-1, 2, (n, 3)) @ cell if shape != "molecule" else rng.uniform(-3, 3, (n, 3))
    positions += rng.integers(-3, 4, (n, 3)) @ cell * pbc.all()
    if draw(st.booleans()):
        cell = np.where(pbc[:, None], cell, 0.0)
    return positions, cell, pbc, cutoff


def centers(pairs):
    return np.repeat(np.arange(len(pairs.first) - 1), np.diff(pairs.first))


def as_set(pairs):
    """Pairs as a set of (i, j, S_x, S_y, S_z), each of them once."""
    rows = np.column_stack([centers(pairs), pairs.neighbor, pairs.shift])
    as_tuples = set(map(tuple, rows.tolist()))
    assert len(as_tuples) == len(rows), "a pair was listed twice"
    return as_tuples


def vectors(pairs, positions, cell):
    return positions[pairs.neighbor] + pairs.shift @ cell - positions[centers(pairs)]


def ase_set(positions, cell, pbc, cutoff):
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    i, j, shift = neighbor_list("ijS", Atoms(positions=positions, cell=cell, pbc=pbc), cutoff)
    return set(map(tuple, np.column_stack([i, j, shift]).tolist()))


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@given(geometries())
def test_pairs_are_those_of_ase(geometry):
    *structure, cutoff = geometry
    found = as_set(neighbor_pairs(*structure, cutoff))
    # A distance within rounding of the cutoff may be counted either way.
    assert ase_set(*structure, cutoff - 1e-9) <= found <= ase_set(*structure, cutoff + 1e-9)


@given(geometries())
def test_pair_vectors_of_the_given_positions_are_shorter_than_the_cutoff(geometry):
    positions, cell, pbc, cutoff = geometry
    pairs = neighbor_pairs(positions, cell, pbc, cutoff)
    r = np.linalg.norm(vectors(pairs, positions, cell), axis=1)
    assert (r < cutoff * (1 + 1e-12)).all() and (r > 0).all()
    assert not pairs.shift[:, ~pbc].any(), "a shift along a direction without periodicity"
    assert [a.dtype for a in pairs] == [np.int64] * 4


@given(geometries())
def test_reversed_pair_swaps_the_atoms_and_negates_the_image(geometry):
    pairs = neighbor_pairs(*geometry)
    i, p = centers(pairs), np.arange(len(pairs.neighbor))
    np.testing.assert_array_equal(pairs.reverse[pairs.reverse], p)
    np.testing.assert_array_equal(i[pairs.reverse], pairs.neighbor)
    np.testing.assert_array_equal(pairs.neighbor[pairs.reverse], i)
    np.testing.assert_array_equal(pairs.shift[pairs.reverse], -pairs.shift)
    assert not (pairs.reverse == p).any()


@given(geometries(), st.randoms(use_true_random=False))
def test_renumbered_atoms_have_the_renumbered_pairs(geometry, random):
    positions, cell, pbc, cutoff = geometry
    order = np.arange(len(positions))
    random.shuffle(order)
    renumbered = as_set(neighbor_pairs(positions[order], cell, pbc, cutoff))
    expected = as_set(neighbor_pairs(positions, cell, pbc, cutoff))
    assert {(order[i], order[j], *shift) for i, j, *shift in renumbered} == expected


@given(geometries(), st.integers(0, 2**32 - 1))
def test_atoms_moved_by_lattice_vectors_have_the_same_pairs_with_other_images(geometry, seed):
    positions, cell, pbc, cutoff = geometry
    images = np.random.default_rng(seed).integers(-50, 51, (len(positions), 3)) * pbc
    before = neighbor_pairs(positions, cell, pbc, cutoff * (1 + 1e-9))
    after = neighbor_pairs(positions + images @ cell + [0.3, -0.2, 0.1], cell, pbc, cutoff)
    moved = {(i, j, *(images[j] - images[i] + shift)) for i, j, *shift in as_set(after)}
    inner = np.linalg.norm(vectors(before, positions, cell), axis=1) < cutoff * (1 - 1e-9)
    keys = np.column_stack([centers(before), before.neighbor, before.shift])
    assert set(map(tuple, keys[inner].tolist())) <= moved <= set(map(tuple, keys.tolist()))


@given(st.integers(0, 2**32 - 1))
def test_the_same_lattice_in_strongly_skewed_vectors_has_the_same_pairs(seed):
    rng = np.random.default_rng(seed)
    cell = 4.0 * (np.eye(3) + 0.3 * rng.uniform(-1, 1, (3, 3)))
    positions = rng.uniform(0, 4, (5, 3))
    skew = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = rng.permutation(3)[:2]
        skew[i] += rng.integers(-8, 9) * skew[j]
    straight = as_set(neighbor_pairs(positions, cell, True, 4.5))
    skewed = as_set(neighbor_pairs(positions, skew @ cell, True, 4.5))
    assert {(i, j, *(np.array(shift) @ skew)) for i, j, *shift in skewed} == straight


@given(st.lists(geometries(), max_size=5))
def test_a_batch_is_one_structure_after_the_other(structures):
    cutoff = 4.0
    counts = [len(positions) for positions, *_ in structures]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    batch = batch_pairs(
        np.concatenate([s[0] for s in structures] or [np.zeros((0, 3))]), offsets,
        np.reshape([s[1] for s in structures], (-1, 3, 3)), np.reshape([s[2] for s in structures], (-1, 3)), cutoff,
    )  # fmt: skip
    first, rest, n_pairs = [[0]], ([], [], []), 0
    for (positions, cell, pbc, _), offset in zip(structures, offsets):
        one = neighbor_pairs(positions, cell, pbc, cutoff)
        first.append(one.first[1:] + n_pairs)
        for part, values in zip(rest, (one.neighbor + offset, one.shift, one.reverse + n_pairs)):
            part.append(values)
        n_pairs += len(one.neighbor)
    empty = neighbor_pairs(np.zeros((0, 3)), NO_CELL, False, cutoff)
    rest = [np.concatenate([nothing, *part]) for part, nothing in zip(rest, empty[1:])]
    assert_same(batch, Pairs(np.concatenate(first), *rest))


@given(geometries())
def test_the_same_input_gives_the_same_bits_and_is_left_alone(geometry):
    positions, cell, pbc, cutoff = geometry
    copies = positions.copy(), cell.copy(), pbc.copy()
    for array in (positions, cell, pbc):
        array.setflags(write=False)
    one = neighbor_pairs(positions, cell, pbc, cutoff)
    assert_same(one, neighbor_pairs(np.asfortranarray(positions), cell, pbc, cutoff))
    assert_same((positions, cell, pbc), copies)


@pytest.mark.parametrize("pbc, cutoff", [(False, 3.0), (True, 5.0), ((True, False, True), 1.5)])
def test_large_systems_agree_with_ase(pbc, cutoff):
    """More atoms than one bin takes, and more pairs than there is room for at first."""
    rng = np.random.default_rng(1)
    cell = np.array([[16.0, 0.0, 0.0], [-7.0, 14.0, 1.0], [2.0, 1.0, 7.0]])
    positions = rng.uniform(-0.2, 1.2, (400, 3)) @ cell
    pbc = np.broadcast_to(pbc, 3)
    assert as_set(neighbor_pairs(positions, cell, pbc, cutoff)) == ase_set(positions, cell, pbc, cutoff)


def test_atoms_far_apart_in_a_huge_box_need_few_bins():
    sites = np.array([[0.0, 0.0, 0.0], [9.9e7, 0.0, 0.0], [9.9e7, 2.0, 0.0]])
    columns = np.tile(sites, (120, 1)) + np.repeat(np.arange(120), 3)[:, None] * [0.0, 0.0, 50.0]
    pairs = neighbor_pairs(columns, NO_CELL, False, 5.0)
    assert as_set(pairs) == {(a + 3 * c, b + 3 * c, 0, 0, 0) for a, b in ((1, 2), (2, 1)) for c in range(120)}
    assert as_set(neighbor_pairs(sites, 1e8 * np.eye(3), True, 5.0)) == {(1, 2, 0, 0, 0), (2, 1, 0, 0, 0)}
    across = {(0, 1, -1, 0, 0), (0, 2, -1, 0, 0), (1, 0, 1, 0, 0), (2, 0, 1, 0, 0)}
    assert as_set(neighbor_pairs(sites, 1e8 * np.eye(3), True, 1.1e6)) == {(1, 2, 0, 0, 0), (2, 1, 0, 0, 0)} | across


def test_structures_without_pairs():
    for positions in (np.zeros((0, 3)), np.zeros((1, 3)), [[0.0, 0.0, 0.0], [0.0, 0.0, 7.0]]):
        for cell, pbc in ((NO_CELL, False), (30.0 * np.eye(3), True), (30.0 * np.eye(3), (True, False, False))):
            pairs = neighbor_pairs(positions, cell, pbc, 6.0)
            np.testing.assert_array_equal(pairs.first, np.zeros(len(positions) + 1))
            assert pairs.neighbor.shape == pairs.reverse.shape == (0,) and pairs.shift.shape == (0, 3)


def test_shells_of_one_atom_in_a_cubic_lattice():
    # Distances 1, sqrt 2, sqrt 3, 2 ... of the simple cubic lattice; strictly closer than the cutoff.
    for cutoff, count in ((1.0, 0), (1.01, 6), (1.5, 18), (2.0, 26), (2.1, 32), (6.0, 895 - 1)):
        positions = np.array([[0.25, 0.5, -7.75]])
        assert len(neighbor_pairs(positions, np.eye(3), True, cutoff).neighbor) == count
    fcc = 0.5 * (np.ones((3, 3)) - np.eye(3))
    assert [len(neighbor_pairs([[0, 0, 0]], fcc, True, c).neighbor) for c in (0.8, 1.1, 1.3)] == [12, 18, 42]


def test_chain_and_sheet_of_one_atom():
    assert len(neighbor_pairs([[5.0, 5.0, 5.0]], np.diag([0, 0, 0.01]), (False, False, True), 1.0).neighbor) == 198
    assert len(neighbor_pairs([[5.0, 5.0, 5.0]], np.diag([1.0, 0, 1.0]), (True, False, True), 1.1).neighbor) == 4


@given(geometries(), st.integers(0, 2**32 - 1), st.sampled_from((0.0, 0.3, 1.0)), st.booleans())
def test_a_skin_list_never_misses_a_pair_along_a_random_walk(geometry, seed, skin, barostat):
    positions, cell, pbc, cutoff = geometry
    rng = np.random.default_rng(seed)
    skin_list = SkinList(cutoff, skin)
    assert skin_list.update(positions, cell, pbc)[1]
    for step in range(12):
        positions = positions + rng.normal(0, 0.04, positions.shape)
        if barostat:
            strain = np.eye(3) + rng.normal(0, 0.004, (3, 3))
            positions, cell = positions @ strain, cell @ strain
        pairs, rebuilt = skin_list.update(positions, cell, pbc)
        fresh = neighbor_pairs(positions, cell, pbc, cutoff)
        near = np.linalg.norm(vectors(pairs, positions, cell), axis=1) < cutoff
        kept = set(map(tuple, np.column_stack([centers(pairs), pairs.neighbor, pairs.shift])[near].tolist()))
        assert kept == as_set(fresh)
        assert rebuilt or skin > 0


def test_a_skin_list_is_kept_until_an_atom_moved_half_the_skin():
    positions = np.random.default_rng(0).uniform(0, 6, (20, 3))
    cell = 6.0 * np.eye(3)
    skin_list = SkinList(cutoff=3.0, skin=0.4)
    made, rebuilt = skin_list.update(positions, cell, True)
    assert rebuilt
    moved = positions.copy()
    moved[7] += [0.0, 0.199, 0.0]
    kept, rebuilt = skin_list.update(moved, cell, True)
    assert not rebuilt and kept is made
    moved[7] += [0.0, 0.002, 0.0]
    again, rebuilt = skin_list.update(moved, cell, True)
    assert rebuilt and again is not made
    assert not skin_list.update(moved, cell, True)[1]


def test_a_skin_list_survives_a_small_strain_and_not_a_large_one():
    positions = np.random.default_rng(0).uniform(0, 6, (20, 3))
    cell = 6.0 * np.eye(3)
    skin_list = SkinList(cutoff=3.0, skin=0.4)
    skin_list.update(positions, cell, True)
    # 3.4 / 3 allows to compress by 11.7 % along one direction when nothing else moves.
    for factor, rebuilt in ((0.95, False), (0.89, False), (0.87, True)):
        strain = np.diag([1.0, 1.0, factor])
        assert skin_list.update(positions @ strain, cell @ strain, True)[1] == rebuilt


def test_a_skin_list_is_made_anew_for_other_atoms_periodicity_or_key():
    positions = np.random.default_rng(0).uniform(0, 6, (20, 3))
    cell = 6.0 * np.eye(3)
    skin_list = SkinList(cutoff=3.0, skin=0.4)
    arguments = [
        (positions, cell, True),
        (positions[:-1], cell, True),
        (positions[:-1], cell, (True, True, False)),
        (positions[:-1], cell, (True, True, False), b"other"),
        (positions[:-1] + [0.0, 0.0, 6.0], cell, (True, True, False), b"other"),
    ]
    for changed in arguments:
        assert skin_list.update(*changed)[1]
        assert not skin_list.update(*changed)[1]
    with pytest.raises(InputError, match="atom 3: position y = nan"):
        skin_list.update(np.where(np.arange(60).reshape(20, 3) == 10, np.nan, positions), cell, True)


TWO = [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"positions": [[0, 0, 0], [0, np.nan, 0]]}, "atom 1: position y = nan: expected a finite number"),
        ({"positions": [[0, 0, -np.inf], [0, 0, 0]]}, "atom 0: position z = -inf: expected a finite number"),
        ({"positions": [[0, 0, 0], [2e8, 0, 0]]}, "atom 1: position x = 200000000.0: expected .* below 1e+08"),
        ({"positions": [[0, 0], [0, 1]]}, "positions have shape (2, 2): expected (number of atoms, 3)"),
        ({"positions": [0, 0, 0]}, "positions have shape (3,): expected (number of atoms, 3)"),
        ({"positions": [["a", 0, 0]]}, "positions, cell or pbc are not arrays of numbers"),
        ({"cell": [6.0, 6.0, 6.0]}, "cell has shape (3,): expected (3, 3), one lattice vector in each row"),
        ({"pbc": (True, True)}, "pbc has shape (2,): expected three flags"),
        ({"cell": np.diag([6.0, np.nan, 6.0])}, "[0.0, nan, 0.0], .* with pbc .*: expected finite numbers of Angstrom"),
        (
            {"cell": NO_CELL},
            "cell vectors [[0.0, 0.0, 0.0], .* with pbc [True, True, True]: expected linearly independent",
        ),
        (
            {"cell": np.diag([6.0, 6.0, 0.0])},
            "none of them zero, in the directions with pbc; set pbc=False or give a cell",
        ),
        ({"cell": [[1, 2, 3], [2, 4, 6], [0, 0, 5]]}, "with pbc [True, True, True]: expected linearly independent"),
        ({"cell": [[1, 2, 3], [0, 1, 1], [1, 3, 4]]}, "with pbc [True, True, True]: expected linearly independent"),
        (
            {"cell": [[1, 0, 0], [3, 0, 0], [0, 0, 0]], "pbc": (True, True, False)},
            "with pbc [True, True, False]: expected",
        ),
    ],
)
def test_geometry_without_meaning_is_refused_by_name(change, message):
    geometry = {"positions": TWO, "cell": 6.0 * np.eye(3), "pbc": True, **change}
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(InputError, match="^train.xyz, structure 17: .*" + pattern):
        check_geometry(**geometry, where="train.xyz, structure 17")
    with pytest.raises(InputError, match=pattern):
        neighbor_pairs(**geometry, cutoff=5.0)


def test_geometry_with_a_meaning_passes():
    check_geometry(np.zeros((0, 3)), NO_CELL, False)
    check_geometry(TWO, NO_CELL, (False, False, False))
    check_geometry(TWO, np.diag([0.0, 4.0, 0.0]), (False, True, False), where="wire")
    check_geometry(TWO, np.diag([5.0, 4.0, -3.0]), True)


@pytest.mark.parametrize("cutoff", [0, -1.0, np.nan, np.inf, None, "six"])
def test_a_cutoff_that_is_no_distance_is_refused(cutoff):
    message = re.escape(f"cutoff = {cutoff!r}: expected a positive, finite distance in Angstrom")
    for call in (
        lambda: neighbor_pairs(TWO, NO_CELL, False, cutoff),
        lambda: batch_pairs(TWO, [0, 2], NO_CELL[None], [[False] * 3], cutoff),
        lambda: SkinList(cutoff, 0.5),
    ):
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize("skin", [-1.0, np.nan, np.inf, None, "wide"])
def test_a_skin_that_is_no_distance_is_refused(skin):
    with pytest.raises(InputError, match=re.escape(f"skin = {skin!r}: expected 0 or more, finite: how far beyond")):
        SkinList(5.0, skin)
    assert SkinList(5.0, 0).skin == 0.0


@pytest.mark.parametrize("n", [3, 400])
def test_two_atoms_at_the_same_place_are_named(n):
    positions = np.random.default_rng(2).uniform(0, 12, (n, 3))
    positions[2] = positions[1]
    with pytest.raises(InputError, match="^atoms 1 and 2 are at the same place"):
        neighbor_pairs(positions, NO_CELL, False, 5.0)
    positions[2] += [12.0, -24.0, 0.0]
    neighbor_pairs(positions, NO_CELL, False, 5.0)
    with pytest.raises(InputError, match="^atoms 1 and 2 are at the same place"):
        neighbor_pairs(positions, 12.0 * np.eye(3), True, 5.0)


def test_errors_of_a_batch_name_the_structure_and_its_own_atoms():
    positions, offsets = np.arange(18.0).reshape(6, 3), [0, 2, 2, 6]
    cells, pbc = np.stack([50.0 * np.eye(3)] * 3), np.ones((3, 3), bool)
    for wrong, message in (
        ({"positions": positions[[0, 1, 2, 3, 4, 3]]}, "structure 2: atoms 1 and 3 are at the same place"),
        ({"positions": np.where(positions == 13.0, np.nan, positions)}, "structure 2: atom 2: position y = nan"),
        ({"cells": cells * np.array([0.0, 1.0, 1.0])[:, None, None]}, "structure 0: cell vectors"),
        ({"offsets": [0, 2, 1, 6]}, "offsets of a batch: expected to grow from 0 to the number of atoms, 6"),
        ({"offsets": [0, 2, 2, 5]}, "offsets of a batch: expected to grow"),
        ({"offsets": [0, 6]}, r"expected the shapes \(N, 3\), \(S \+ 1,\), \(S, 3, 3\), \(S, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            batch_pairs(**{"positions": positions, "offsets": offsets, "cells": cells, "pbc": pbc, **wrong}, cutoff=6.0)


@pytest.mark.parametrize("cell", [1e-3 * np.eye(3), [[1, 0, 0], [1, 1e-7, 0], [0, 0, 1]], 1e-9 * np.eye(3)])
def test_a_cell_far_too_small_for_the_cutoff_is_refused(cell):
    with pytest.raises(InputError, match="far too small or flat for the cutoff 6 Angstrom.*Check the units"):
        neighbor_pairs([[0.0, 0.0, 0.0]], cell, True, 6.0)
