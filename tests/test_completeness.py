"""What an EANN cannot tell apart and a REANN can: the quick parts of validation/completeness."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "validation" / "completeness" / "run.py"


@pytest.fixture(scope="module")
def case():
    """The module of the validation case."""
    description = importlib.util.spec_from_file_location("completeness_case", SCRIPT)
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


def broken(case, checks):
    return [name for name, check in checks.items() if not case.holds(*check)]


def test_carbon_of_two_methanes_looks_alike_to_an_eann_and_not_to_a_reann(case):
    checks = case.methane_checks()
    assert len(checks) == 9 and broken(case, checks) == []


def test_eight_atoms_look_alike_at_every_atom_and_are_not_the_same(case):
    checks = case.four_body_checks()
    assert len(checks) == 9 and broken(case, checks) == []


def test_the_isometry_gap_is_zero_for_a_turned_mirrored_and_renumbered_structure_only(case):
    one, other = case.four_body_pair()
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    same = one[[3, 0, 7, 1, 6, 2, 5, 4]]
    same.positions = -same.positions @ q + 1.0
    assert case.isometry_gap(one, same) < 1e-12
    assert case.isometry_gap(one, other) > 0.5


def test_four_body_pair_is_told_apart_by_an_eann_whose_outer_atoms_see_farther(case):
    """The cutoff of 8 A is part of the claim: from 8.6 A on the three-body sums of the outer atoms differ."""
    pair = case.four_body_pair()
    found = {}
    for cutoff in (8.0, 9.5):
        model = case.random_model(("C",), cutoff, 0, pair)
        found[cutoff] = case.difference(*(model.evaluate(atoms).energy for atoms in pair))
    assert found[8.0] < 1e-13 and found[9.5] > 1e-9


def test_derivatives_have_the_rank_that_symmetry_leaves(case):
    rows = case.rank_rows(steps=(0, 1))
    assert len(rows) == 2 * len(case.environments())
    assert broken(case, case.rank_checks(rows)) == []
    # What counts and what does not are far apart.
    assert all(above > 1e-6 and below < 1e-11 for *_, above, below in rows)


def test_sheets_of_methane_are_told_apart_from_the_carbon_atom_by_a_recursion_only(case, shared):
    fits = case.manifold_fits(shared / "data")
    assert broken(case, case.manifold_checks(fits)) == []
