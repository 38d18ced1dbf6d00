"""How unlike the training data an atom is: what the number means, where it is told, and that it is always the same."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.mixing import SumCalculator
from ase.io import read, write
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import changed, models, random_model, rotations, seeds, structures

import eann_lite
from eann_lite import EANNCalculator, Model, ModelFileError, NetworkSpecification, Specification, Structure
from eann_lite import fit, load, read_structures
from eann_lite.batches import pack_structures
from eann_lite.cli import main
from eann_lite.extrapolation import (
    SMALLEST_VARIANCE, ExtrapolationWarning, outside_summary, structure_distances, with_bounds,
)  # fmt: skip

NETWORK = NetworkSpecification(widths=(5,), activation="tanh")
SPECIFICATION = Specification(
    elements=("H", "C"), cutoff=3.5, radial=3, densities=4, recursions=1, network=NETWORK, recursion_network=NETWORK
)  # fmt: skip


def methanes(n, size=0.1, seed=0):
    """CH4 molecules with atoms displaced at random by about ``size`` Angstrom."""
    rng = np.random.default_rng(seed)
    start = molecule("CH4")
    positions = start.positions + size * rng.normal(size=(n, 5, 3))
    return [Structure(numbers=start.numbers, positions=x) for x in positions]


@pytest.fixture(scope="module")
def model():
    return with_bounds(random_model(SPECIFICATION, seed=3), methanes(60))


def far_methane(length=1.6):
    """CH4 with its last bond stretched: atoms 0 and 4 are the ones to notice."""
    atoms = molecule("CH4")
    atoms.positions[4] *= length
    return atoms


def distances(model, train):
    return np.concatenate([result.extrapolation for result in model.evaluate(train)])


# What the number is


def test_it_is_the_mahalanobis_distance_over_the_largest_of_the_training_atoms(model):
    """In plain NumPy, from the definition: inverse of the floored covariance of the normalised densities."""
    train, others = methanes(60), methanes(20, size=0.25, seed=1)

    def rows(structures, element):
        s = SPECIFICATION.elements.index({1: "H", 6: "C"}[element])
        scale = model.constants["density_scale"][-1, s]
        results = model.evaluate(structures, descriptors=True)
        chosen = [structure.numbers == element for structure in structures]
        density = np.concatenate([result.density[-1][mine] for result, mine in zip(results, chosen)])
        measures = np.concatenate([result.extrapolation[mine] for result, mine in zip(results, chosen)])
        return density * scale, density.sum(axis=1), measures

    for element in (1, 6):
        known, known_sums, of_known = rows(train, element)
        new, sums, found = rows(others, element)
        mean, covariance = known.mean(axis=0), np.cov(known.T, bias=True)
        variances, directions = np.linalg.eigh(covariance)
        inverse = directions @ np.diag(1.0 / np.maximum(variances, SMALLEST_VARIANCE * variances[-1])) @ directions.T

        squares, radius = (np.einsum("im,mn,in->i", x - mean, inverse, x - mean) for x in (new, known))
        thinner = 4.0 * (known_sums.min() / sums - 1.0)
        assert found == pytest.approx(np.maximum(np.sqrt(squares / radius.max()), thinner), rel=1e-6)
        assert of_known.max() == pytest.approx(1.0, rel=1e-12)
    assert (found > 1.0).any()


@given(models(), st.lists(structures(), min_size=1, max_size=5))
@settings(max_examples=20)
def test_no_training_atom_is_outside_whatever_the_model_and_the_data(model, train):
    """Also with one atom of an element, copies of it, atoms without neighbours, more densities than atoms."""
    found = with_bounds(model, [*train, train[0]])
    elements = found.specification.elements
    result = distances(found, train)
    assert result.max() <= 1.0 + 1e-6 and result.min() >= 0.0
    counts = [sum((s.numbers == {"H": 1, "C": 6}[e]).sum() for s in [*train, train[0]]) for e in elements]
    assert found.bounds.atoms.tolist() == counts
    assert all(np.isfinite(array).all() for array in found.bounds)


@given(structures(elements=("H", "C")), rotations(), seeds)
def test_it_does_not_change_with_rotation_translation_and_order_of_atoms(model, structure, rotation, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(structure.n_atoms)
    turned = changed(
        structure,
        numbers=structure.numbers[order],
        positions=(structure.positions @ rotation + rng.normal(size=3))[order],
        cell=structure.cell @ rotation,
    )
    known, found = model.evaluate(structure).extrapolation, model.evaluate(turned).extrapolation
    assert found == pytest.approx(known[order], rel=1e-6, abs=1e-6)


def test_it_grows_as_a_bond_is_stretched_and_the_atoms_concerned_stand_out(model):
    along = [model.evaluate(far_methane(length)).extrapolation for length in (1.0, 1.3, 1.6, 1.9)]
    assert (np.diff([found.max() for found in along]) > 0).all()
    assert (along[0] < 1.0).all() and {0, 4} <= set(np.flatnonzero(along[2] > 1.0))
    assert set(np.argsort(along[2])[-2:]) == {0, 4}


def test_what_is_lonelier_than_all_training_atoms_is_outside(model):
    """Their densities fall to zero, which may be no farther from the mean than those of atoms pressed together."""
    pressed = [changed(s, positions=s.positions * factor) for s in methanes(60) for factor in (0.5, 1.0)]
    found = with_bounds(random_model(SPECIFICATION, seed=3), pressed)
    assert distances(found, pressed).max() <= 1.0 + 1e-6
    spread = []
    for factor in (1.0, 1.3, 1.6, 2.0, 2.5):
        atoms = molecule("CH4")
        atoms.positions *= factor
        spread.append(found.evaluate(atoms).extrapolation)
    assert (spread[0] < 1.0).all() and (np.diff(spread, axis=0)[1:] > 0.0).all() and (spread[3] > 1.0).all()
    for numbers in ([1], [6], [1, 1]):
        apart = Atoms(numbers, [[8.0 * n, 0, 0] for n in range(len(numbers))])
        assert np.isinf(found.evaluate(apart).extrapolation).all()
    bounds = found.bounds
    of_old = Model(SPECIFICATION, found.parameters, found.constants, bounds=bounds._replace(thinnest=np.zeros(2)))
    assert np.isfinite(of_old.evaluate(Atoms("C")).extrapolation).all()
    # With an atom alone among those of training nothing is too lonely.
    known = with_bounds(of_old, [*pressed, Structure([1], [[0, 0, 0]])])
    assert known.bounds.thinnest[0] == 0.0 < known.bounds.thinnest[1]
    assert known.evaluate(Atoms("H")).extrapolation[0] < 1.0 + 1e-6 < known.evaluate(Atoms("C")).extrapolation[0]


def test_one_training_atom_of_an_element_leaves_everything_else_outside(model):
    base = random_model(SPECIFICATION, seed=3)
    found = with_bounds(base, [Structure.from_atoms(molecule("CH4"))])
    assert found.evaluate(molecule("CH4")).extrapolation == pytest.approx(np.zeros(5), abs=1e-3)
    assert (found.evaluate(far_methane(1.1)).extrapolation > 10.0).all()


def test_an_element_without_training_atoms_is_infinitely_far():
    found = with_bounds(random_model(SPECIFICATION, seed=3), [Structure.from_atoms(molecule("H2"))])
    result = found.evaluate(molecule("CH4")).extrapolation
    assert np.isinf(result[0]) and np.isfinite(result[1:]).all()
    assert found.bounds.atoms.tolist() == [2.0, 0.0]


def test_densities_that_overflow_are_infinitely_far_and_no_warning_of_numpy(model):
    # With tanh networks the energy stays finite however large the densities are.
    parameters = model.parameters | {"contraction": 1e155 * model.parameters["contraction"]}
    huge = Model(SPECIFICATION, parameters, model.constants, bounds=model.bounds)
    assert np.isinf(huge.evaluate(molecule("CH4")).extrapolation).all()


def test_bounds_of_training_densities_that_overflow_are_left_out(model):
    parameters = model.parameters | {"contraction": 1e155 * model.parameters["contraction"]}
    with np.errstate(all="ignore"):
        assert with_bounds(Model(SPECIFICATION, parameters, model.constants), methanes(3)).bounds is None


# Always the same


def test_threads_and_the_order_of_structures_make_no_difference(model):
    """Hundreds of structures are several pieces of work; sums over them go in order."""
    train = methanes(300)
    one, two = (with_bounds(model, train, threads) for threads in (1, 2))
    for a, b in zip(one.bounds, two.bounds):
        assert np.array_equal(a, b)
    before = numba.get_num_threads()
    packed = pack_structures(train, SPECIFICATION.elements, SPECIFICATION.reach)
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            assert np.array_equal(structure_distances(one, packed), distances(one, train))
    finally:
        numba.set_num_threads(before)
    alone = np.concatenate([one.evaluate(structure).extrapolation for structure in train[:7]])
    assert distances(one, train)[:35] == pytest.approx(alone, rel=1e-9)


def test_pieces_of_a_large_set_add_up_to_the_moments_of_the_whole(model, monkeypatch):
    train = methanes(50)
    whole = with_bounds(model, train)
    monkeypatch.setattr("eann_lite.extrapolation.ATOMS_PER_PIECE", 15)
    monkeypatch.setattr("eann_lite.extrapolation.ATOMS_AT_A_TIME", 60)
    pieces = with_bounds(model, train)
    assert pieces.bounds.center == pytest.approx(whole.bounds.center, rel=1e-12)
    assert distances(pieces, train) == pytest.approx(distances(whole, train), rel=1e-6)


def test_results_of_mixed_structures_are_in_the_order_given(model):
    mixed = [molecule("CH4"), Atoms("HCHHH", molecule("CH4").positions[[1, 0, 2, 3, 4]]), molecule("C2H2")]
    given_order, other, last = (result.extrapolation for result in model.evaluate(mixed))
    assert other == pytest.approx(given_order[[1, 0, 2, 3, 4]], rel=1e-9)
    assert last == pytest.approx(model.evaluate(mixed[2]).extrapolation, rel=1e-9) and last.shape == (4,)


# Fits and files


def labelled(n=14):
    """Labelled molecules, energies and forces of a harmonic well."""
    frames = []
    for structure in methanes(n):
        away = structure.positions - molecule("CH4").positions
        frames.append(changed_labels(structure, 0.5 * np.sum(away**2), -away))
    return frames


def changed_labels(structure, energy, forces):
    return Structure(numbers=structure.numbers, positions=structure.positions, energy=energy, forces=forces)


SETTINGS = {"epochs": 2, "batch": 4, "cutoff": 3.5, "radial": 3, "densities": 6, "recursions": 1, "widths": [4]}


def test_a_fit_leaves_the_bounds_of_its_training_part_in_the_model_and_its_file(tmp_path):
    train, valid = labelled()[:10], labelled()[10:]
    result = fit(train, valid=valid, out=tmp_path, **SETTINGS)
    bounds = result.model.bounds
    assert bounds.atoms.tolist() == [40.0, 10.0]
    found = load(tmp_path / "model.npz")
    for name, array in bounds._asdict().items():
        assert np.array_equal(getattr(found.bounds, name), array) and array.dtype == np.float64
    assert distances(found, train).max() == pytest.approx(1.0, rel=1e-9)
    again = fit(train, valid=valid, out=None, **SETTINGS).model
    again.provenance = result.model.provenance
    again.save(tmp_path / "again.npz")
    result.model.save(tmp_path / "model.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "model.npz").read_bytes()


def header(path):
    with np.load(path) as archive:
        return json.loads(str(archive["header"]))


def test_files_without_bounds_stay_what_they_were_and_results_lack_the_key(model, tmp_path):
    bare = Model(SPECIFICATION, model.parameters, model.constants)
    bare.save(tmp_path / "bare.npz")
    model.save(tmp_path / "full.npz")
    assert header(tmp_path / "bare.npz")["format_version"] == 1
    assert header(tmp_path / "full.npz")["format_version"] == 3
    found = load(tmp_path / "bare.npz")
    assert found.bounds is None and found.evaluate(molecule("CH4")).extrapolation is None
    atoms = far_methane()
    atoms.calc = EANNCalculator(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_forces()
    assert "extrapolation" not in atoms.calc.results


def test_a_file_of_before_lonely_atoms_were_heeded_is_read(model, tmp_path):
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as archive:
        arrays = dict(archive)
    del arrays["bounds/thinnest"]
    arrays["header"] = np.array(json.dumps(json.loads(str(arrays["header"])) | {"format_version": 2}))
    np.savez(tmp_path / "older.npz", **arrays)
    found = load(tmp_path / "older.npz")
    assert not found.bounds.thinnest.any() and np.array_equal(found.bounds.whitening, model.bounds.whitening)
    inside = found.evaluate(molecule("CH4")).extrapolation
    assert np.array_equal(inside, model.evaluate(molecule("CH4")).extrapolation)
    found.save(tmp_path / "again.npz")
    assert np.array_equal(load(tmp_path / "again.npz").evaluate(molecule("CH4")).extrapolation, inside)


def test_a_file_with_incomplete_or_misshapen_bounds_is_refused(model, tmp_path):
    path = tmp_path / "model.npz"
    model.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    for change, message in (
        ({"bounds/atoms": None}, "1 arrays are missing, the first is bounds/atoms"),
        ({"bounds/center": np.zeros(3)}, r"array bounds/center is float64 of shape \(3,\), expected float64 of shape"),
        ({"bounds/atoms": np.full(2, np.nan)}, "bounds/atoms holds a value that is not finite"),
        ({"bounds/other": np.zeros(2)}, "array bounds/other does not belong"),
    ):
        np.savez(path, **{name: array for name, array in (arrays | change).items() if array is not None})
        with pytest.raises(ModelFileError, match=message):
            load(path)


# The calculator


def test_the_calculator_gives_the_number_of_evaluate_with_every_call(model):
    atoms = molecule("CH4")
    atoms.calc = EANNCalculator(model)
    for seed in range(3):
        atoms.rattle(0.01, seed=seed)
        atoms.get_potential_energy()
        assert atoms.calc.results["extrapolation"] == pytest.approx(model.evaluate(atoms).extrapolation, rel=1e-9)
        atoms.get_forces()
        assert atoms.calc.get_property("extrapolation", atoms).shape == (5,)


def test_a_run_warns_at_the_first_crossing_by_atom_index_and_when_it_is_ten_times_as_far(model):
    atoms = molecule("CH4")
    atoms.calc = EANNCalculator(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atoms.get_forces()
        assert not caught
        for length in (1.6, 1.0, 1.7, 1.9):
            atoms.positions = far_methane(length).positions
            atoms.get_forces()
            assert len(caught) == 1
    farthest = int(np.argmax(model.evaluate(far_methane(1.6)).extrapolation))
    text = str(caught[0].message)
    assert caught[0].category is ExtrapolationWarning
    assert text.startswith(f"atom {farthest} ({atoms.symbols[farthest]}) is unlike the training data")
    first = float(model.evaluate(far_methane(1.6)).extrapolation.max())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = []
        for factor in (0.6, 0.4, 0.2, 0.1):
            atoms.positions = factor * molecule("CH4").positions
            atoms.get_potential_energy()
            found.append(float(atoms.calc.results["extrapolation"].max()))
    assert first < found[1] < 10.0 * first < found[2] < found[3]
    assert [f"densities are {found[2]:.3g} times as far" in str(one.message) for one in caught] == [True]


def test_every_calculator_warns_of_the_same_structure(model, tmp_path):
    """Python itself shows a text from one place once."""
    model.save(tmp_path / "model.npz")
    far_methane().write(tmp_path / "far.xyz")
    code = (
        "import eann_lite; from ase.io import read\n"
        "for _ in range(3):\n"
        "    atoms = read('far.xyz'); atoms.calc = eann_lite.EANNCalculator('model.npz'); atoms.get_potential_energy()\n"
    )
    for flags, times in ((), 3), (("-W", "ignore::UserWarning"), 0):
        found = subprocess.run(
            [sys.executable, *flags, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300,
            env=os.environ | {"PYTHONPATH": str(Path(eann_lite.__file__).parents[1])},
        )  # fmt: skip
        assert found.stderr.count("ExtrapolationWarning: atom") == times


def test_ase_takes_the_calculator_with_the_additional_result(model, tmp_path):
    """Writing, exporting and mixing know only ASE's own properties, and must not stumble over another."""
    atoms = molecule("CH4")
    atoms.calc = EANNCalculator(model)
    assert atoms.get_properties(["energy", "forces"])["energy"] == atoms.get_potential_energy()
    for name in ("a.extxyz", "a.traj", "a.db"):
        write(tmp_path / name, atoms)
        assert read(tmp_path / name).get_forces() == pytest.approx(atoms.get_forces(), abs=1e-7)
    both = molecule("CH4")
    both.calc = SumCalculator([EANNCalculator(model), EANNCalculator(model)])
    assert both.get_potential_energy() == pytest.approx(2 * atoms.get_potential_energy())


# The command line


@pytest.fixture
def files(model, tmp_path):
    """A model file, and a file with four molecules near and one far."""
    model.save(tmp_path / "model.npz")
    write(tmp_path / "data.extxyz", [structure.to_atoms() for structure in methanes(4, size=0.02)] + [far_methane()])
    return str(tmp_path / "model.npz"), str(tmp_path / "data.extxyz")


def test_evaluate_names_the_share_outside_and_the_worst_structure(model, files, capsys):
    assert main(["evaluate", *files, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    result = model.evaluate(far_methane()).extrapolation
    told = data["extrapolation"]
    assert told["worst_structure"] == 4 and told["worst_atom"] == int(np.argmax(result))
    assert told["worst_distance"] == pytest.approx(result.max(), rel=1e-6)
    assert told["fraction_structures_outside"] == 0.2
    assert told["fraction_atoms_outside"] == pytest.approx((result > 1.0).sum() / 25)
    assert main(["evaluate", *files]) == 0
    shown = capsys.readouterr().out
    assert f"worst is structure 4, atom {told['worst_atom']}: {result.max():.3g}" in shown
    assert "20.0% of the structures" in shown
    packed = pack_structures(read_structures([files[1]]), SPECIFICATION.elements, SPECIFICATION.reach)
    assert outside_summary(model, packed) == told


def test_info_and_evaluate_say_whether_there_are_bounds(model, files, capsys):
    assert main(["info", files[0]]) == 0
    assert "of the densities of 240 H, 60 C" in capsys.readouterr().out
    assert main(["info", files[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["extrapolation_bounds_atoms"] == {"H": 240.0, "C": 60.0}
    Model(SPECIFICATION, model.parameters, model.constants).save(files[0])
    assert main(["info", files[0]]) == 0
    assert "training bounds     none" in capsys.readouterr().out
    assert main(["evaluate", *files]) == 0
    assert "not known, the model file has no bounds" in capsys.readouterr().out
    assert main(["evaluate", *files, "--json"]) == 0
    assert "extrapolation" not in json.loads(capsys.readouterr().out)
