"""Configuration of a fit: strict TOML and flags become settings, and nothing is ignored."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eann_lite.config import SETTINGS, checked_value, config_text, read_config, settings_from, write_config
from eann_lite.errors import InputError
from eann_lite.training.settings import FitSettings

EXAMPLE = """
[data]
train = ["a.xyz", "b.xyz"]
valid = 0.2
[model]
cutoff = 6
widths = [32]
[training]
epochs = 12
finish = true
"""


@pytest.fixture
def config(tmp_path):
    """Function that writes a configuration file and returns its path."""

    def write(text):
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_sets_what_it_names_and_leaves_the_rest_at_its_default(config):
    settings = settings_from(config(EXAMPLE))
    assert settings == FitSettings(
        train=["a.xyz", "b.xyz"], valid=0.2, cutoff=6.0, widths=[32], epochs=12, finish=True
    )
    assert isinstance(settings.cutoff, float)


def test_flags_beat_the_file(config):
    settings = settings_from(config(EXAMPLE), {"epochs": 3, "finish": False, "valid": "v.xyz"})
    assert (settings.epochs, settings.finish, settings.valid, settings.cutoff) == (3, False, "v.xyz", 6.0)


def test_without_file_and_flags_all_settings_are_the_defaults():
    assert settings_from() == FitSettings()


@pytest.mark.parametrize(
    "text, parts",
    [
        ("[training]\nepoch = 3", ["unknown key 'epoch' in [training]", "Did you mean 'epochs' (section [training])?"]),
        ("[model]\nrecursion = 3", ["unknown key 'recursion'", "'recursions'"]),
        ("[data]\nenergy-key = 'E'", ["unknown key 'energy-key'", "'energy_key'"]),
        ("[model]\nepoch = 3", ["unknown key 'epoch' in [model]", "'epochs' (section [training])"]),
        ("[model]\nzzzzzz = 3", ["unknown key 'zzzzzz' in [model]", "Keys of [model]: recursions, cutoff"]),
        ("[modle]\ncutoff = 3", ["unknown section [modle]", "Did you mean [model]?"]),
        ("[nonsense]\ncutoff = 3", ["unknown section [nonsense]", "Sections: [data], [model], [training], [output]"]),
        ("cutoff = 6", ["cutoff stands outside its section", "below [model]"]),
        ("cutof = 6", ["unknown key 'cutof'", "'cutoff' (section [model])"]),
        ("model = 6", ["model is a value, expected a section"]),
        ("[training]\ncutoff = 6", ["cutoff belongs into section [model]"]),
        ("[training]\nepochs = 'many'", ["[training]: epochs = 'many'", "a whole number"]),
        ("[training]\nepochs = 2.5", ["epochs = 2.5", "a whole number"]),
        ("[training]\nepochs = true", ["epochs = true", "a whole number"]),
        ("[training]\nfinish = 1", ["finish = 1", "true or false"]),
        ("[training]\nminutes = '3'", ["minutes = '3'", "a number"]),
        ("[training]\nenergy_weight = nan", ["energy_weight = nan", "finite"]),
        ("[model]\nwidths = [64, 'a']", ["widths = 'a'", "a whole number"]),
        ("[model]\nwidths = 1.5", ["widths = 1.5", "a list of whole numbers"]),
        ("[data]\ntrain = 3", ["train = 3", "a list of texts"]),
        ("[data]\nvalid = true", ["valid = true", "a fraction"]),
        ("[training]\nepochs = 0", ["epochs = 0", "at least 1"]),
        ("[model]\ncutoff = 0", ["cutoff = 0.0", "positive"]),
        ("[training]\nsolver = 'sopa'", ["solver = 'sopa'", "soap"]),
        ("[training\nepochs = 3", ["not valid TOML", "line 1"]),
        ("[training]\nsolver = soap", ["not valid TOML", "quotes"]),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_file_place_and_cure(config, text, parts):
    path = config(text)
    with pytest.raises(InputError) as raised:
        settings_from(path)
    for part in [str(path), *parts]:
        assert part in str(raised.value)


def test_a_file_that_does_not_exist_or_is_a_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="none.toml: no such file"):
        settings_from(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        settings_from(tmp_path)


def test_bytes_that_are_no_text_are_no_configuration(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        read_config(path)


def test_a_flag_of_the_wrong_kind_is_named_as_a_flag():
    with pytest.raises(InputError, match=r"--energy-weight = inf: expected a finite number"):
        settings_from(flags={"energy_weight": float("inf")})


@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_setting_is_found_again_when_its_last_letter_is_missing(config, name):
    section = SETTINGS[name].metadata["section"]
    with pytest.raises(InputError, match=f"Did you mean '{name}'"):
        settings_from(config(f"[{section}]\n{name[:-1]} = 1"))


@pytest.mark.parametrize("item", fields(FitSettings), ids=lambda item: item.name)
def test_every_setting_has_help_and_a_default_that_passes_its_own_check(item):
    default = getattr(FitSettings(), item.name)
    assert item.metadata["help"]
    assert default is None or checked_value(item.name, default, "here") == default


def test_one_text_stands_for_a_list_of_one():
    assert settings_from(flags={"train": "a.xyz"}).train == ["a.xyz"]


@given(
    st.builds(
        FitSettings,
        train=st.lists(st.text(max_size=8), max_size=3),
        valid=st.one_of(st.floats(0, 0.99), st.text(max_size=8), st.lists(st.text(max_size=8), max_size=2)),
        cutoff=st.none() | st.floats(1e-3, 1e3),
        step_size=st.floats(1e-300, 1e300),
        widths=st.lists(st.integers(1, 512), min_size=1, max_size=4),
        epochs=st.none() | st.integers(1, 10**9),
        finish=st.booleans(),
        energy_key=st.none() | st.text(max_size=8),
        out=st.text(min_size=1, max_size=8).filter(str.strip),
    )
)
def test_written_settings_are_read_back_exactly(tmp_path_factory, settings):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    write_config(settings, path)
    assert settings_from(path) == settings
    assert path.read_text(encoding="utf-8") == config_text(settings)
