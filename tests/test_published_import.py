"""State dictionaries and TorchScript archives of several versions: energies are those of their forward pass."""

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from published_archives import (
    ELEMENTS,
    WATER,
    WITH_FORCES,
    WITH_OFFSET,
    published_energy,
    random_state,
    write_script,
    write_state,
)
from strategies import seeds

from eann_lite.errors import InputError
from eann_lite.io.published import load, save_state
from eann_lite.model.model import Model

ATOMS = Atoms(numbers=WATER[0], positions=WATER[1])
VERSIONS = st.sampled_from(["reann", "reann22", "eann", "plain"])


def energy(path, **options):
    return load(path, **options).evaluate(ATOMS).energy


def finding(model, name):
    return next(row for row in model.provenance["import"]["findings"] if row["name"] == name)


@settings(max_examples=12)
@given(
    seed=seeds, version=VERSIONS, activation=st.sampled_from(["Relu_like", "Tanh_like"]),
    recursions=st.integers(0, 2), norm=st.sampled_from([False, True, "before"]), dropout=st.booleans(), negative=st.booleans(),
)  # fmt: skip
def test_archives_of_all_versions_have_the_energies_of_their_forward_pass(
    tmp_path_factory, seed, version, activation, recursions, norm, dropout, negative
):
    state = random_state(np.random.default_rng(seed), version, recursions, norm, dropout)
    sign = -1 if negative else 1
    expected = published_energy(state, sign, activation, *WATER)
    folder = tmp_path_factory.mktemp("version")
    path = write_script(folder / "PES.pt", state, activation, negative=negative)
    assert energy(path) == pytest.approx(expected, rel=1e-11)
    # The state dictionary takes from the archive beside it what it does not say itself.
    state_path = write_state(folder, state, activation=activation, prefix="module.")
    if version == "reann":
        expected = published_energy(state, 1, activation, *WATER)
    assert energy(state_path) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("version", ["reann", "eann", "plain"])
def test_the_package_of_a_state_dictionary_says_the_sign_of_its_exponents(tmp_path, version):
    state = random_state(np.random.default_rng(1), version)
    sign = 1 if version == "reann" else -1
    path = write_state(tmp_path, state)
    assert energy(path) == pytest.approx(published_energy(state, sign, "Relu_like", *WATER), rel=1e-11)
    model = load(path)
    assert finding(model, "exponents")["value"] == f"exp({'' if sign > 0 else '-'}inta (r - rs)^2)"
    assert bool(model.provenance["import"]["warnings"]) == (sign < 0)


def test_the_sign_is_asked_for_where_nothing_says_it(tmp_path):
    state = random_state(np.random.default_rng(2), "reann22")
    path = write_state(tmp_path, state)
    with pytest.raises(InputError, match="give --inta-sign"):
        load(path)
    for sign in "+-":
        expected = published_energy(state, int(f"{sign}1"), "Relu_like", *WATER)
        assert energy(path, inta_sign=sign) == pytest.approx(expected, rel=1e-11)
    with pytest.raises(InputError, match="expected '\\+' or '-'"):
        load(path, inta_sign="x")


@pytest.mark.parametrize("kind", ["tensor", "plain attribute", "constant"])
def test_the_offset_that_the_forward_pass_adds_counts_wherever_it_lies(tmp_path, kind):
    state = random_state(np.random.default_rng(3))
    bare = published_energy(state, 1, "Relu_like", *WATER)
    attributes = {"plain attribute": {"nnmod.initpot": -2.5, "cutoff": 3.0}}.get(kind, {})
    held = {**state, "nnmod.initpot": np.array([-2.5])} if kind == "tensor" else state
    code = {"constant": "-2.5"} if kind == "constant" else {}
    path = write_script(tmp_path / "PES.pt", held, attributes=attributes, last=WITH_OFFSET, **code)
    model = load(path)
    assert model.evaluate(ATOMS).energy == pytest.approx(bare - 2.5 * len(ATOMS), rel=1e-12)
    assert finding(model, "offset per atom")["value"] == -2.5
    assert np.array_equal(model.constants["reference_energies"], [-2.5, -2.5])
    path = write_script(tmp_path / "PES.pt", held, attributes=attributes, last=WITH_FORCES, **code)
    assert energy(path) == pytest.approx(bare - 2.5 * len(ATOMS), rel=1e-12)
    # An attribute that the forward pass does not add does not count.
    path = write_script(tmp_path / "PES.pt", held, attributes=attributes, **code)
    assert energy(path) == pytest.approx(bare, rel=1e-12)
    # A state dictionary of the same training.
    if kind != "constant":
        old = {**held, "density.hyper": np.stack([held["density.hyper"]] * 2)}
        write_script(tmp_path / "PES.pt", old, attributes=attributes, last=WITH_OFFSET)
        assert energy(write_state(tmp_path, old)) == pytest.approx(bare - 2.5 * len(ATOMS), rel=1e-12)


def test_single_precision_numbers_are_taken_as_they_are(tmp_path):
    state = random_state(np.random.default_rng(4))
    state = {name: array.astype("<f4") if array.dtype == float else array for name, array in state.items()}
    model = load(write_script(tmp_path / "PES.pt", state))
    exact = {name: array.astype(float) for name, array in state.items()}
    assert model.evaluate(ATOMS).energy == pytest.approx(published_energy(exact, 1, "Relu_like", *WATER), rel=1e-11)
    assert finding(model, "precision")["value"] == "float32"


def test_what_was_found_is_stated_with_its_place(tmp_path):
    model = load(write_script(tmp_path / "PES.pt", random_state(np.random.default_rng(5))))
    found = {row["name"]: row["value"] for row in model.provenance["import"]["findings"]}
    assert found["elements"] == list(ELEMENTS) and found["cutoff"] == 4.0 and found["units"] == "eV, Angstrom"
    assert (found["L"], found["K"], found["M"], found["T"]) == (1, 3, 4, 1)
    assert found["networks"] == "4 x 5, one block, relu_like, layer normalisation"
    assert all(row["where"] for row in model.provenance["import"]["findings"])
    model.save(tmp_path / "model.npz")
    from eann_lite import load as load_model

    again = load_model(tmp_path / "model.npz")
    assert isinstance(again, Model) and again.provenance["import"] == model.provenance["import"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ({"arguments": "ef: Tensor, "}, "field package FIREANN"),
        ({"extra": "\n    dist_vec0 = torch.div(dist_vec, torch.view(distances, [-1, 1]))"}, "divided by their length"),
        ({"cosine": "sin"}, "unknown function sin"),
        ({"inta": "torch.abs(inta)"}, "unknown function abs"),
        ({"inta": "torch.square(inta)"}, "does not hold inta once"),
        ({"eps": "1e-3"}, "normalises with eps = 0.001"),
        ({"last": "    return torch.mul(torch.sum(_0), 27.2)"}, "not the plain sum over atoms"),
        ({"last": "    _1 = torch.add(_0, 1.5)\n    return torch.sum(_1)"}, "not the plain sum over atoms"),
        ({"last": "    return torch.sum(density0)"}, "the output is not made by nnmod"),
        ({"last": WITH_OFFSET.replace("alpha=1", "alpha=2")}, "not the plain sum over atoms"),
        ({"last": "    return ((("}, "is not readable"),
        ({"attributes": {"atomtype": ["H", "O"]}}, "atomtype is \\['H', 'O'\\], but the networks are those of"),
        ({"attributes": {"density.ef_para": 0.0}}, "field package FIREANN"),
        ({"activation": "Softplus"}, "the code of __torch__.model.Softplus is missing"),
    ],
)  # fmt: skip
def test_other_forward_passes_are_refused_by_what_they_do(tmp_path, code, message):
    with pytest.raises(InputError, match=message):
        load(write_script(tmp_path / "PES.pt", random_state(np.random.default_rng(6)), **code))


def without(state, *names):
    return {name: array for name, array in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "density.cutoff"), "density.cutoff is missing"),
        (lambda s: without(s, "density.rs"), "state dictionary of another model: density.rs is missing"),
        (lambda s: without(s, "nnmod.elemental_nets.H.3.bias", "nnmod.elemental_nets.H.3.weight"), "the layers LBA"),
        (lambda s: {**s, "density.params": np.ones((2, 6))}, "August 2021"),
        (lambda s: {**s, "nnmod1.elemental_nets.O.0.bias": np.ones(1)}, "belongs to no energy model"),
        (lambda s: {**s, "nnmod.elemental_nets.O.1.resblock.9.gamma": np.ones(1)}, "holds gamma, as no known network"),
        (lambda s: {**s, "density.ef_para": np.ones(3)}, "field package FIREANN"),
        (lambda s: {**s, "density.inta": np.full((2, 3), np.nan)}, "density.inta holds nan"),
        (lambda s: {**s, "density.hyper": np.ones((2, 3, 5))}, "expected \\(4, 5\\)"),
        (lambda s: without(s, "density.hyper"), "density.hyper is missing"),
    ],
)  # fmt: skip
def test_states_of_other_models_are_refused(tmp_path, change, message):
    state = change(random_state(np.random.default_rng(7)))
    with pytest.raises(InputError, match=message):
        load(write_state(tmp_path, state))


@pytest.mark.parametrize("version", ["eann", "plain"])
def test_normalisation_before_the_activation_is_read_and_cannot_be_exported(tmp_path, version):
    state = random_state(np.random.default_rng(8), version, norm="before")
    path = write_state(tmp_path, state)
    assert energy(path) == pytest.approx(published_energy(state, -1, "Relu_like", *WATER), rel=1e-11)
    model = load(path)
    assert model.specification.network.layer_norm == "before"
    assert model.specification.network.normalises_output == (version == "plain")
    with pytest.raises(InputError, match="normalises before its activations|do not add their input"):
        save_state(model, tmp_path / "back.pth")


def test_a_normalised_perceptron_of_unequal_widths_is_refused(tmp_path):
    state = random_state(np.random.default_rng(8), "plain", norm="before")
    for element in ELEMENTS:
        name = f"nnmod.elemental_nets.{element}"
        state[f"{name}.6.weight"], state[f"{name}.6.bias"] = np.ones((3, 4)), np.ones(3)
        state[f"{name}.7.weight"], state[f"{name}.7.bias"] = np.ones(3), np.ones(3)
        state[f"{name}.8.alpha"], state[f"{name}.8.beta"] = np.ones((2, 1, 3))
        state[f"{name}.9.weight"] = np.ones((1, 3))
    with pytest.raises(InputError, match="5 and 3 units. Only equal widths"):
        load(write_state(tmp_path, state))


def test_input_files_that_do_not_belong_to_the_state_are_refused(tmp_path):
    path = write_state(tmp_path, random_state(np.random.default_rng(9)))
    density, nn = tmp_path / "para" / "input_density", tmp_path / "para" / "input_nn"
    text = density.read_text()
    for changed, message in (
        (text.replace("'O', 'H'", "'H', 'O'"), "atomtype is \\['H', 'O'\\], but"),
        (text.replace("4.0", "4.1"), "cutoff = 4.1, but .* was trained with 4.0"),
        (text.replace("atomtype", "types"), "atomtype is None"),
    ):
        density.write_text(changed)
        with pytest.raises(InputError, match=message):
            load(path)
    density.write_text(text)
    nn.write_text("start_table = 4\n")
    with pytest.raises(InputError, match="start_table = 4 is a dipole or polarizability"):
        load(path)
    nn.write_text("activate = 'Softplus'\n")
    with pytest.raises(InputError, match="published activation 'Softplus'"):
        load(path)
    nn.unlink()
    with pytest.raises(InputError, match="needs input_nn, which is neither beside it nor in para/. Give --nn FILE"):
        load(path)
    other = tmp_path / "elsewhere"
    other.write_text("# nothing: the default of the package\n")
    assert finding(load(path, nn=other), "activation")["value"] == "Relu_like"


def test_files_that_hold_something_else_are_refused(tmp_path):
    from published_archives import Script, ScriptPickler, zipped

    from eann_lite.io.published.export import _Pickler

    path = tmp_path / "file.pth"
    for value, message in (({"epoch": 3}, "holds no state dictionary of REANN or EANN, but epoch"), ([1], "but list")):
        path.write_bytes(zipped({"data.pkl": _Pickler().pickled(value)}))
        with pytest.raises(InputError, match=message):
            load(path)
    path.write_bytes(zipped({"data.pkl": ScriptPickler().pickled(Script("__torch__.Net", {"training": True}))}))
    with pytest.raises(InputError, match="archive of __torch__.Net, which has no density"):
        load(path)
    script = write_script(tmp_path / "PES.pt", random_state(np.random.default_rng(0)))
    with pytest.raises(InputError, match="leave the other files out"):
        load(script, nn=path)


def test_the_published_water_model_is_reproduced(shared):
    path, golden = shared / "data" / "models" / "REANN_h2o_PES.pt", shared / "golden" / "published_water_eann.npz"
    if not path.is_file() or not golden.is_file():
        pytest.skip(f"no published water model at {path}")
    model = load(path)
    with np.load(golden, allow_pickle=False) as archive:
        for n in sorted({name.split("/")[0] for name in archive.files if name.endswith("/energy")}):
            entry = {name: archive[f"{n}/{name}"] for name in ("numbers", "positions", "cell", "energy", "forces")}
            atoms = Atoms(entry["numbers"], entry["positions"], cell=entry["cell"], pbc=True)
            result = model.evaluate(atoms)
            assert result.energy == pytest.approx(float(entry["energy"]), rel=1e-9)
            strain = archive[f"{n}/strain_derivative"]
            for found, expected in ((result.forces, entry["forces"]), (result.strain_derivative, strain)):
                assert np.abs(found - expected).max() < 1e-9 * np.abs(expected).max()


def test_the_field_model_is_refused_by_name(shared):
    path = shared / "data" / "models" / "FIREANN_h2o_PES.pt"
    if not path.is_file():
        pytest.skip(f"no field model at {path}")
    with pytest.raises(InputError, match="field package FIREANN .* not supported"):
        load(path)
