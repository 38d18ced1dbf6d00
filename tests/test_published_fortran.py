"""Parameter files of the Fortran EANN: energies against the formula written out, and errors by line."""

import itertools

import numpy as np
import pytest
from ase import Atoms

from eann_lite.errors import InputError
from eann_lite.io.published import load

CUTOFF = 4.5
GEOMETRY = np.array([8, 1, 1, 1, 8]), np.random.default_rng(5).uniform(0, 3.2, (5, 3))
INPUT = """  1    # start_force
  1
  0
  0
  {table_grid}    # table_grid
  1d-2
  2    # numtype
  192   192
  1593
  1    # ipsin
  2    # maxnwave
  {nwave}    # nwave
  200  35
  30
  1000
  1
  1593  1
  1280
  1d0    3d1
  {rc}   # rc
  33
  2
  {nkpoint}
  1    # outputneuron
{elements}
"""


def fortran(number):
    """A number as Fortran writes it."""
    text = f"{number: .18E}"
    return text.replace("E", "D") if int(abs(number) * 100) % 2 else text


def write_folder(folder, hidden=((4, 3), (4, 3)), gaussians=(2, 2), table_grid=1, rc="4.5d0  4.5d0", nkpoint=1):
    """Random model of H and O in ``folder``; its numbers for ``formula``."""
    rng = np.random.default_rng(11)
    model, lines = {"gaussians": gaussians}, []
    for s, element in enumerate("HO"):
        lines.append(f"  '{element}'  {len(hidden[s])}   {'  '.join(map(str, hidden[s]))}  0.{s + 2}   # element")
        if not table_grid:
            for k in range(gaussians[s] + 1):
                lines.append(f"  {k}  {0.3 + 0.1 * s}d0  {0.5 * k + 0.1 * s}")
        model[f"c{s}"], model[f"f{s}"] = rng.normal(size=(2, 3, 2)), rng.uniform(0.5, 2.0, (2, 3))
        sizes = [6, *hidden[s], 1]
        model[f"w{s}"] = [(rng.normal(size=(out, n)) / n, rng.normal(size=out)) for n, out in zip(sizes, sizes[1:])]
        text = f"  {' - '.join(map(str, sizes))}\nrmse= 1.0meV\n"
        for weight, bias in model[f"w{s}"]:
            text += "".join(f"{fortran(x)}\n" for x in weight.ravel()) + " \n"
            text += "".join(f"{fortran(x)}\n" for x in bias) + "\n"
        (folder / f"W_{element}1").write_text(text + "  tansig  tansig \n")
        (folder / f"weight_wave_{element}").write_text("".join(f"{fortran(x)}\n" for x in model[f"c{s}"].ravel()))
        (folder / f"scalfactor_{element}").write_text("".join(f"{fortran(x)}\n" for x in model[f"f{s}"].ravel()) + "\n")
    filled = {"table_grid": table_grid, "rc": rc, "nkpoint": nkpoint, "nwave": "  ".join(map(str, (*gaussians, 9)))}
    (folder / "input").write_text(INPUT.format(**filled, elements="\n".join(lines)))
    return model


def formula(model, numbers, positions, table_grid=1):
    """Energy of a molecule as the Fortran source has it."""
    species = [{1: 0, 8: 1}[number] for number in numbers]
    energy = 0.0
    for i, s in enumerate(species):
        density = []
        for l, k in itertools.product(range(2), range(3)):
            rho = 0.0
            for axes in itertools.product(range(3), repeat=l):
                total = 0.0
                for j, t in enumerate(species):
                    r = positions[j] - positions[i]
                    d = np.linalg.norm(r)
                    if j == i or d >= CUTOFF or k > model["gaussians"][t]:
                        continue
                    spacing = CUTOFF / (model["gaussians"][t] + 1 / 3)
                    a, center = (
                        ((0.2 + 0.1 * t) / spacing**2, k * spacing)
                        if table_grid
                        else (0.3 + 0.1 * t, 0.5 * k + 0.1 * t)
                    )
                    g = np.exp(-a * (d - center) ** 2) * ((np.cos(np.pi * d / CUTOFF) + 1) / 2) ** 2
                    total += model[f"c{s}"][l, k, t] / model[f"f{s}"][l, k] * g * np.prod(r[list(axes)])
                rho += total**2
            density.append(rho)
        x = np.array(density)
        for n, (weight, bias) in enumerate(model[f"w{s}"]):
            x = weight @ x + bias
            x = np.tanh(x) if n < len(model[f"w{s}"]) - 1 else x
        energy += float(x[0])
    return energy


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden": ((4, 4), (4, 4))},
        {"hidden": ((5,), (5,))},
        {"hidden": ((2, 5, 3), (6, 1, 4))},
        {"table_grid": 0},
        {"gaussians": (2, 1)},
    ],
)
def test_energies_are_those_of_the_formula(tmp_path, options):
    model = write_folder(tmp_path, **options)
    found = load(tmp_path)
    expected = formula(model, *GEOMETRY, options.get("table_grid", 1))
    result = found.evaluate(Atoms(*GEOMETRY))
    assert result.energy == pytest.approx(expected, rel=1e-12)
    moved = GEOMETRY[1].copy()
    moved[2, 1] += 1e-5
    slope = (formula(model, GEOMETRY[0], moved, options.get("table_grid", 1)) - expected) / 1e-5
    assert result.forces[2, 1] == pytest.approx(-slope, rel=1e-3, abs=1e-5)


def test_what_was_found_is_stated_and_the_model_can_be_saved(tmp_path):
    write_folder(tmp_path, table_grid=0)
    model = load(tmp_path)
    rows = {row["name"]: row for row in model.provenance["import"]["findings"]}
    assert rows["elements"]["value"] == ["H", "O"] and rows["cutoff"]["value"] == CUTOFF
    assert "listed" in rows["exponents"]["value"] and rows["networks"]["value"] == "4, plain perceptron, tanh"
    from eann_lite import load as load_model

    model.save(tmp_path / "model.npz")
    again = load_model(tmp_path / "model.npz")
    assert again.specification == model.specification and not again.specification.network.residual
    energies = [each.evaluate(Atoms(*GEOMETRY)).energy for each in (model, again)]
    assert energies[0] == energies[1]


def test_files_may_lie_in_para(tmp_path):
    (tmp_path / "para").mkdir()
    model = write_folder(tmp_path / "para")
    assert load(tmp_path).evaluate(Atoms(*GEOMETRY)).energy == pytest.approx(formula(model, *GEOMETRY), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rc": "4.5d0  5.0d0"}, "line 20: rc = .* differ between elements"),
        ({"rc": "4.5d0"}, "line 20: expected 2 numbers \\(rc\\), found 1"),
        ({"rc": "x  y"}, "line 20: 'x' is no number"),
        ({"nkpoint": 2}, "line 23: nkpoint = 2"),
        ({"gaussians": (2, 3)}, "out of range"),
        ({"hidden": ((4, 3), (4,))}, "as many for every element"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_line(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_folder(tmp_path, **options)
        load(tmp_path)


def test_missing_and_damaged_files_are_refused_by_name(tmp_path):
    write_folder(tmp_path)
    for name, change, message in (
        ("W_O1", lambda text: text[:-200], "W_O1 holds .* numbers, expected 47"),
        ("W_O1", lambda text: text.replace("tansig", "purelin"), "'purelin' is no number"),
        ("scalfactor_H", lambda text: text + "1.0\n", "scalfactor_H holds 7 numbers, expected 6"),
        ("scalfactor_H", lambda text: "0.0\n" * 6, "holds a zero"),
        ("weight_wave_H", lambda text: "************\n" + text, "weight_wave_H, line 1: '\\*+' is no number"),
        ("weight_wave_H", None, "weight_wave_H cannot be read: No such file"),
        ("input", None, "holds no file input"),
    ):
        path = tmp_path / name
        kept = path.read_text()
        path.write_text(change(kept)) if change else path.unlink()
        with pytest.raises(InputError, match=message):
            load(tmp_path)
        path.write_text(kept)
    load(tmp_path)


def test_folders_of_other_things_are_refused(tmp_path):
    (tmp_path / "W_H1").write_text("")
    (tmp_path / "input_density").write_text("2  # numtype\n")
    with pytest.raises(InputError, match="PEANN or FEANN .* piecewise switching functions"):
        load(tmp_path)
    (tmp_path / "REANN.pth").write_text("")
    with pytest.raises(InputError, match="is a folder: give the file, .*REANN.pth"):
        load(tmp_path)
    with pytest.raises(InputError, match="belong to state dictionaries"):
        load(tmp_path, nn="input_nn")


def test_published_folders_give_the_known_errors(shared):
    from ase.io import read

    models, data = shared / "data" / "models" / "peann", shared / "data"
    if not models.is_dir():
        pytest.skip(f"no published models at {models}")
    for system, name, known in (("Cu", "mlearn_Cu_test", 0.71), ("Ge", "mlearn_Ge_test", 3.68)):
        frames = read(data / f"{name}.extxyz.gz", ":")
        results = load(models / system / "EANN").evaluate(frames)
        per_atom = [(r.energy - a.get_potential_energy()) / len(a) for r, a in zip(results, frames)]
        assert 1000 * np.sqrt(np.mean(np.square(per_atom))) == pytest.approx(known, abs=0.01)
    for folder in ("Cu/FEANN", "Ge/PEANN", "H2O/PEANN"):
        with pytest.raises(InputError, match="PEANN or FEANN"):
            load(models / folder)
