"""State dictionaries that the published code loads: what is folded, and what has no place there."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from strategies import deviation, models, random_model, reference_arguments, reference_result, seeds, structures

from eann_lite import reference
from eann_lite.errors import InputError
from eann_lite.io.published import load, save_state
from eann_lite.io.published.archive import Archive
from eann_lite.io.published.inputs import read_inputs
from eann_lite.model.specification import NetworkSpecification, Specification
from eann_lite.testing.strategies import networks
from eann_lite.training.objective import loss_gradient

SMALL = NetworkSpecification((4, 3), 1, "silu")
BASE = Specification(
    ("O", "H"), cutoff=3.5, max_degree=1, radial=3, densities=4, recursions=1, network=SMALL, recursion_network=SMALL
)


def exportable(model):
    """Whether the published form has a place for a model."""
    s = model.specification
    used = [s.network] + [s.recursion_network] * bool(s.recursions)
    return all(
        network.activation != "tanh" and network.layer_norm != "before" and (network.residual or not network.blocks)
        for network in used
    )


@settings(max_examples=15)
@given(model=models(repulsions=(None,)).filter(exportable), structure=structures())
def test_export_and_import_give_the_same_energies(tmp_path_factory, model, structure):
    path = tmp_path_factory.mktemp("export") / "REANN.pth"
    save_state(model, path)
    back = load(path)
    expected, found = reference_result(model, structure), reference_result(back, structure)
    assert deviation(found.energies, expected.energies) < 1e-11
    scale = max(1.0, np.abs(expected.energies).max())
    assert deviation(found.forces, expected.forces, floor=scale) < 1e-10


@given(model_seed=seeds)
@settings(max_examples=5)
def test_energies_of_ordinary_molecules_agree_to_a_part_in_1e12(tmp_path_factory, model_seed):
    model = random_model(BASE, model_seed)
    path = tmp_path_factory.mktemp("export") / "REANN.pth"
    save_state(model, path)
    atoms = Atoms("OH3", [[0, 0, 0], [0.9, 0.1, 0], [-0.3, 0.9, 0], [0.2, 0.3, 1.4]])
    energies = [each.evaluate(atoms).energies for each in (model, load(path))]
    assert deviation(energies[1], energies[0]) < 1e-12


def test_the_files_are_those_that_the_published_code_reads(tmp_path):
    specification = replace(BASE, network=NetworkSpecification((4, 3), 2, "tanh_like", True))
    written = save_state(random_model(specification, 1), tmp_path / "REANN.pth")
    names = [path.relative_to(tmp_path).as_posix() for path in written]
    assert names == ["REANN.pth", "para/input_nn", "para/input_density"]
    nn, density = read_inputs(written[1]), read_inputs(written[2])
    assert (nn["nl"], nn["nblock"], nn["activate"], nn["table_norm"]) == ([4, 3], 2, "Tanh_like", True)
    assert (nn["oc_loop"], nn["oc_nl"], nn["oc_activate"], nn["norbit"]) == (1, [4, 3], "Relu_like", 4)
    assert (density["atomtype"], density["cutoff"], density["nipsin"], density["nwave"]) == (["O", "H"], 3.5, 1, 3)
    content = Archive(written[0]).content()
    assert content["reannparam"]["density.index_para"].array("x").tolist() == [0, 1, 1, 1]
    assert content["reannparam"]["density.cutoff"].array("x").tolist() == [3.5]
    (group,) = content["optimizer"]["param_groups"]
    assert group["params"] == list(range(len(content["reannparam"]) - 2))


def test_the_same_model_gives_the_same_bytes_and_other_inputs_are_not_overwritten(tmp_path):
    model = random_model(BASE, 2)
    save_state(model, tmp_path / "a.pth")
    save_state(model, tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    (tmp_path / "para" / "input_nn").write_text("Epoch = 10\n")
    with pytest.raises(InputError, match="input_nn is there already, for another model"):
        save_state(model, tmp_path / "c.pth")
    assert not (tmp_path / "c.pth").exists() and (tmp_path / "para" / "input_nn").read_text() == "Epoch = 10\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repulsion": "zbl"}, "zbl repulsion, .* code lacks. .*`eann-lite fit --repulsion none`"),
        (
            {"network": replace(SMALL, activation="tanh")},
            "the network has the activation tanh.*`.*--activation tanh_like`",
        ),
        ({"recursion_network": replace(SMALL, activation="tanh")}, "the recursion_network has the activation tanh"),
        ({"network": replace(SMALL, residual=False)}, "blocks of the network do not add their input"),
        ({"network": replace(SMALL, layer_norm="before")}, "the network normalises before its activations"),
    ],
)
def test_what_has_no_place_in_the_published_form_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        save_state(random_model(replace(BASE, **changes), 0), tmp_path / "REANN.pth")
    assert not list(tmp_path.iterdir())


@settings(max_examples=10)
@given(network=networks(), seed=seeds, structure=structures(elements=("O", "H")))
def test_blocks_without_their_input_are_the_same_in_kernels_and_reference(network, seed, structure):
    specification = replace(
        BASE, network=replace(network, residual=False), recursion_network=replace(SMALL, residual=False)
    )
    model = random_model(specification, seed)
    expected, found = reference_result(model, structure), model.evaluate(structure)
    assert deviation(found.energies, expected.energies) < 1e-11
    scale = max(1.0, np.abs(expected.energies).max())
    assert deviation(found.forces, expected.forces, floor=scale) < 1e-10
    weights = 0.7, np.ones_like(structure.positions), np.eye(3)
    expected = reference.loss_gradient(*reference_arguments(model, structure), *weights)
    found = loss_gradient(model, structure, energy_weight=0.7, force_weights=weights[1], strain_weights=weights[2])
    largest = max(1.0, *(float(np.abs(array).max()) for array in expected.values()))
    assert all(deviation(found[name], array, floor=largest) < 1e-9 for name, array in expected.items())


def test_a_plain_perceptron_is_what_its_layers_say():
    shape = NetworkSpecification((3, 2), 1, "tanh", residual=False)
    rng = np.random.default_rng(0)
    sizes = {"input": (4, 3), "block.0.0": (3, 2), "block.0.1": (2, 3), "output": (3, 1)}
    named = {f"n.{name}.weight": rng.normal(size=size) for name, size in sizes.items()}
    named |= {f"n.{name}.bias": rng.normal(size=size[1]) for name, size in sizes.items()}
    x = y = rng.normal(size=(5, 4))
    for n, name in enumerate(sizes):
        y = y @ named[f"n.{name}.weight"] + named[f"n.{name}.bias"]
        y = np.tanh(y) if n < 3 else y
    np.testing.assert_allclose(reference.network(shape, named, "n", x)[0], y, rtol=1e-14)


def test_only_networks_that_are_not_residual_say_so_in_files():
    plain = replace(BASE, network=replace(SMALL, residual=False))
    assert "residual" not in BASE.to_dict()["network"] and plain.to_dict()["network"]["residual"] is False
    for specification in (BASE, plain):
        assert Specification.from_dict(specification.to_dict()) == specification
