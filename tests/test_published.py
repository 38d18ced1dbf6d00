"""Published arrays in and out, and the comparison with golden numbers on files made here."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from eann_lite import reference
from eann_lite.errors import InputError
from eann_lite.io.published import convert_arrays, from_arrays, published_names, to_published
from eann_lite.model.parameters import parameter_shapes
from eann_lite.model.specification import NetworkSpecification, Specification

SCRIPT = Path(__file__).resolve().parents[1] / "validation" / "golden" / "run.py"
HYPERPARAMETERS = {
    "atomtype": np.array(["O", "H"]),
    "cutoff": np.array(4.0),
    "nipsin": np.array(1),
    "nwave": np.array(3),
    "norbit": np.array(5),
    "nl": np.array([4, 2]),
    "nblock": np.array(2),
    "oc_loop": np.array(2),
    "oc_nl": np.array([3]),
    "oc_nblock": np.array(1),
    "activate": np.array("Relu_like"),
    "oc_activate": np.array("Tanh_like"),
    "table_norm": np.array(True),
    "oc_table_norm": np.array(False),
}


def random_layer(rng, name, arrays, inputs, outputs):
    """Linear layer in the published orientation."""
    arrays[f"{name}.weight"] = rng.normal(size=(outputs, inputs))
    arrays[f"{name}.bias"] = rng.normal(size=outputs)


def random_network(rng, name, arrays, widths, blocks, norm, outputs):
    """Published names written out: layer 0, residual blocks, activation, last layer; M = 5 densities come in."""
    random_layer(rng, f"{name}.0", arrays, 5, widths[0])
    ring = [*widths, widths[0]]
    for block in range(1, blocks + 1):
        place = 0
        for width, following in zip(ring[:-1], ring[1:]):
            arrays[f"{name}.{block}.resblock.{place}.alpha"] = rng.uniform(0.5, 1.5, (1, width))
            arrays[f"{name}.{block}.resblock.{place}.beta"] = rng.uniform(0.5, 1.5, (1, width))
            if norm:
                arrays[f"{name}.{block}.resblock.{place + 1}.weight"] = rng.uniform(0.5, 1.5, width)
                arrays[f"{name}.{block}.resblock.{place + 1}.bias"] = rng.normal(size=width)
            place += 3 if norm else 2
            random_layer(rng, f"{name}.{block}.resblock.{place - 1}", arrays, width, following)
    arrays[f"{name}.{blocks + 1}.alpha"] = rng.uniform(0.5, 1.5, (1, widths[0]))
    arrays[f"{name}.{blocks + 1}.beta"] = rng.uniform(0.5, 1.5, (1, widths[0]))
    random_layer(rng, f"{name}.{blocks + 2}", arrays, widths[0], outputs)


def published_arrays():
    """Random arrays of the model of ``HYPERPARAMETERS``."""
    rng = np.random.default_rng(7)
    arrays = {
        "density.rs": rng.uniform(0, 2, (2, 3)),
        "density.inta": -rng.uniform(0.2, 1.2, (2, 3)),
        "density.params": rng.normal(size=(2, 3)),
        "density.hyper": rng.normal(size=(2, 3, 5)),
    }
    for element in ("O", "H"):
        for t in range(2):
            random_network(rng, f"density.ocmod.memssage_{t}.elemental_nets.{element}", arrays, [3], 1, False, 3)
        random_network(rng, f"nnmod.elemental_nets.{element}", arrays, [4, 2], 2, True, 1)
    return arrays


def changed(**changes):
    """Hyperparameters with changes; None leaves one out."""
    return {name: value for name, value in {**HYPERPARAMETERS, **changes}.items() if value is not None}


def test_specification_says_what_the_published_hyperparameters_say():
    specification, _ = convert_arrays(published_arrays(), HYPERPARAMETERS)
    assert specification == Specification(
        elements=("O", "H"),
        cutoff=4.0,
        max_degree=1,
        radial=3,
        densities=5,
        recursions=2,
        network=NetworkSpecification((4, 2), 2, "relu_like", layer_norm=True),
        recursion_network=NetworkSpecification((3,), 1, "tanh_like", layer_norm=False),
    )


def test_arrays_survive_the_way_in_and_out_bit_for_bit():
    arrays = published_arrays()
    specification, parameters = convert_arrays(arrays, HYPERPARAMETERS)
    assert {name: array.shape for name, array in parameters.items()} == parameter_shapes(specification)
    assert all(array.flags.c_contiguous for array in parameters.values())
    back = to_published(specification, parameters)
    assert set(back) == set(arrays) == set(published_names(specification).values())
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    assert np.array_equal(parameters["radial_exponents"], -arrays["density.inta"])
    weight = arrays["nnmod.elemental_nets.H.2.resblock.5.weight"]
    assert np.array_equal(parameters["network.H.block.1.1.weight"], weight.T)
    assert np.array_equal(parameters["network.O.block.0.1.scale"], arrays["nnmod.elemental_nets.O.1.resblock.4.weight"])


def test_gradients_are_turned_like_the_parameters():
    """The loss moves with each published array as the published-named gradient says."""
    arrays = published_arrays()
    structure = [8, 1, 1], [[0, 0, 0], [0.9, 0.2, 0], [-0.3, 0.9, 0.1]], np.zeros((3, 3)), [False] * 3
    specification, parameters = convert_arrays(arrays, HYPERPARAMETERS)
    gradient = to_published(specification, reference.energy_gradient(specification, parameters, None, *structure))
    rng = np.random.default_rng(3)
    for name in ("density.inta", "density.rs", "nnmod.elemental_nets.H.0.weight", "nnmod.elemental_nets.O.3.beta"):
        along = rng.normal(size=arrays[name].shape)
        energies = []
        for step in (1e-5, -1e-5):
            moved = convert_arrays({**arrays, name: arrays[name] + step * along}, HYPERPARAMETERS)
            energies.append(reference.evaluate(*moved, None, *structure).energy)
        slope = (energies[0] - energies[1]) / 2e-5
        assert np.sum(gradient[name] * along) == pytest.approx(slope, rel=1e-6)


def test_shapes_and_layer_normalisation_are_read_from_the_arrays_where_not_given():
    arrays = published_arrays()
    full, _ = convert_arrays(arrays, HYPERPARAMETERS)
    few = changed(nipsin=None, nwave=None, norbit=None, table_norm=None, oc_table_norm=None)
    assert convert_arrays(arrays, few)[0] == full
    assert convert_arrays(arrays, changed(oc_activate=None))[0].recursion_network.activation == "relu_like"


def test_keys_of_other_things_and_buffers_are_left_alone():
    arrays = {**published_arrays(), "density.index_para": np.zeros(4), "density.cutoff": np.array([4.0])}
    specification, parameters = convert_arrays(arrays, changed(energy=np.array(1.0), positions=np.zeros((1, 3))))
    assert set(parameters) == set(parameter_shapes(specification))


def test_from_arrays_makes_a_model_of_the_converted_arrays():
    model = from_arrays(published_arrays(), HYPERPARAMETERS)
    specification, parameters = convert_arrays(published_arrays(), HYPERPARAMETERS)
    assert model.specification == specification
    assert all(np.array_equal(model.parameters[name], array) for name, array in parameters.items())


def with_array(name, array):
    arrays = published_arrays()
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array
    return arrays


@pytest.mark.parametrize(
    "arrays, hyperparameters, message",
    [
        ({}, changed(cutoff=None, nl=None), "cutoff, nl missing; needed are atomtype, cutoff"),
        ({}, changed(oc_nl=None), "oc_nl missing"),
        ({}, changed(oc_activat="Relu_like"), "'oc_activat' is not known .did you mean 'oc_activate'"),
        ({}, changed(activate="GELU"), "activation 'GELU': expected 'Relu_like' or 'Tanh_like'"),
        ({}, changed(nipsin=2), r"nipsin = 2, but density.hyper has shape \(2, 3, 5\) = \(nipsin \+ 1, nwave"),
        ({}, changed(norbit=6), "norbit = 6, but density.hyper has shape"),
        ({}, changed(table_norm=False), "table_norm = False, but the arrays .* hold layer normalisation"),
        ({}, changed(oc_table_norm=True), "oc_table_norm = True, but the arrays .* hold no layer normalisation"),
        ({}, changed(oc_loop=3), "20 missing, the first is density.ocmod.memssage_2.elemental_nets.O.0.weight"),
        ({}, changed(oc_loop=1), "'density.ocmod.memssage_1.elemental_nets.O.0.weight' does not belong to a model"),
        ({"density.hyper": None}, changed(), "density.hyper of shape .* is needed"),
        ({"density.rs": None}, changed(), r"1 missing, the first is density.rs of shape \(2, 3\)"),
        ({"density.rs": np.zeros((2, 4))}, changed(), r"density.rs has shape \(2, 4\), expected \(2, 3\)"),
        ({"density.rss": np.zeros(2), "density.rs": None}, changed(), "'density.rss' .*did you mean 'density.rs'"),
        (
            {"nnmod.elemental_nets.H.0.weight": np.zeros((5, 4))},
            changed(),
            r"nnmod.elemental_nets.H.0.weight has shape \(5, 4\), expected \(4, 5\)",
        ),
        ({"density.inta": np.array([[0, 1, 2], [3, np.nan, 4]])}, changed(), r"density.inta holds nan at \(1, 1\)"),
    ],
)
def test_arrays_and_hyperparameters_that_do_not_fit_are_refused(arrays, hyperparameters, message):
    given = {**published_arrays(), **arrays}
    given = {name: array for name, array in given.items() if array is not None}
    with pytest.raises(InputError, match=message):
        convert_arrays(given, hyperparameters)


def test_an_eann_of_2019_has_no_published_names_here():
    with pytest.raises(InputError, match="learned contraction"):
        published_names(Specification(("H",), cutoff=4.0, contraction="per_degree"))


# The comparison with golden numbers, on files whose expected values come from the reference.


@pytest.fixture(scope="module")
def golden():
    module_spec = importlib.util.spec_from_file_location("golden_run", SCRIPT)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


@pytest.fixture
def case(golden):
    """A complete file: two H in a cell, no O, so that some gradients are zero throughout."""
    content = {f"param/{name}": array for name, array in published_arrays().items()} | HYPERPARAMETERS
    content |= {"numbers": np.array([1, 1]), "positions": np.array([[0, 0, 0], [0.8, 0.1, 0.2]])}
    content |= {"cell": 3 * np.eye(3), "pbc": np.array([True, True, False])}
    content |= {"energy_ref": 1.0, "forces_ref": np.ones((2, 3)), "weight_energy": 0.5, "weight_forces": 2.0}
    return content | golden.compute_reference(content, with_gradient=True)


def write(folder, case, name="0.npz", **changes):
    np.savez(folder / name, **{key: value for key, value in {**case, **changes}.items() if value is not None})


def test_golden_comparison_passes_a_file_that_agrees(golden, case, tmp_path, capsys):
    write(tmp_path, case)
    np.savez(tmp_path / "tensor_0.npz", dipole=np.zeros(3))
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 0
    printed = capsys.readouterr().out
    assert "tensor_0.npz: skipped" in printed and "density[2]" in printed
    assert golden.main([str(tmp_path), "--backend", "reference", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and len(report["rows"]) == 4 + 2 * 3 + len(published_arrays())


def test_golden_comparison_notices_every_small_deviation(golden, case, tmp_path):
    rng = np.random.default_rng(0)
    gradients = [name for name in case if name.startswith("loss_grad/density") and case[name].any()]
    assert len(gradients) > 20
    for name in (*golden.QUANTITIES, *gradients):
        array = np.array(case[name], dtype=float)
        size = np.abs(array[-1]).max() if name in golden.BY_STEP else np.abs(array).max()
        entry = tuple(rng.integers(0, array.shape)) if name not in golden.BY_STEP else (-1, 0, 0)
        array[entry] += size * (3e-9 if name.startswith("loss_grad") else 3e-10)
        write(tmp_path, case, **{name: array})
        report = golden.run(tmp_path, ["reference"])
        failed = [row["quantity"].split("[")[0] for row in report["rows"] if not row["passed"]]
        assert failed == [name] and not report["passed"]
    write(tmp_path, case, **{"loss_grad/nnmod.elemental_nets.O.0.bias": np.full(4, 1e-9)})
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 1


@pytest.mark.parametrize(
    "absent", ["forces", "density", "positions", "energy_ref", "param/density.rs", "loss_grad/density.inta", "atomtype"]
)
def test_golden_comparison_fails_when_something_is_absent(golden, case, tmp_path, absent):
    write(tmp_path, case, **{absent: None})
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 1


def test_golden_comparison_fails_for_other_shapes_nan_broken_files_and_empty_folders(golden, case, tmp_path, capsys):
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 1
    assert "no file to check" in capsys.readouterr().out
    write(tmp_path, case, "tensor_1.npz", forces=None)
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 1
    write(tmp_path, case, forces=np.zeros((3, 3)))
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 1
    write(tmp_path, case, forces=np.full((2, 3), np.nan))
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 1
    write(tmp_path, case)
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 0
    (tmp_path / "broken.npz").write_bytes((tmp_path / "0.npz").read_bytes()[:200])
    capsys.readouterr()
    assert golden.main([str(tmp_path), "--backend", "reference"]) == 1
    assert "broken.npz" in capsys.readouterr().out
