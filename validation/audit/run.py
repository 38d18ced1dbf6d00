"""Claim: the audit finds nothing broken in sound models, finds what was spoiled on purpose, and ends in two minutes.

    python validation/audit/run.py [FOLDER] [--quick] [--out DIR]

Audited are the shipped CH4 model, the published water EANN (``FOLDER/data/models/REANN_h2o_PES.pt``, on itself and on
the water data; skipped where there is no FOLDER), and the CH4 model spoiled in five ways, three in its code and two in
its file.  For each: the verdicts that must come out, and the time.  --out keeps audit.html, audit.json and the table of
each (default: none are kept).  --quick leaves out the water data.  Ends with 1 when the claim does not hold.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_location import shared_folder  # noqa: E402
from outcome import add_result_option, hand_over, row_of  # noqa: E402

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "first_fit" / "model.npz"
#: Seconds that the audit of a small molecule may take.
LONGEST = 120.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "folder", nargs="?", help="folder with data/models and data (default: as validation/README.md says)"
    )
    parser.add_argument("--quick", action="store_true", help="without the water data")
    parser.add_argument("--out", type=Path, help="keep pages and tables here")
    add_result_option(parser)
    options = parser.parse_args()
    from eann_lite.audit import audit, audit_table, write_audit

    # The first audit compiles kernels, which is not what is timed.
    first = next(iter(cases(None, True)))
    audit(first[1], seconds=1.0, parts=["laws", "modes"])
    holds, rows = True, []
    for name, model, data, calculator, broken, warned in cases(shared_folder(options.folder), options.quick):
        found = audit(model, data, calculator=calculator)
        missed = missing(found, broken, warned)
        slow = data is None and found.seconds > LONGEST
        holds &= not missed and not slow
        said = f"MISSED {', '.join(missed)}" if missed else "as it should be"
        ours = f"{len(found.broken)} broken, {said}; {found.seconds:.0f} s"
        rows.append(row_of(f"audit of {name}", None, ours, not missed and not slow))
        print(f"{name:22s} {found.verdict:8s} {len(found.broken):2d} broken, {said}; {found.seconds:.0f} s")
        for check in found.broken:
            print(f"    {check.name}: {check.value:.3g} {check.unit} (limit {check.limit})")
        if options.out is not None:
            folder = options.out / name.replace(" ", "_").replace(",", "")
            folder.mkdir(parents=True, exist_ok=True)
            write_audit(found, folder)
            (folder / "audit.txt").write_text(audit_table(found) + "\n")
    print("holds" if holds else "FAILS")
    hand_over(rows, options.result)
    return 0 if holds else 1


def missing(found, broken, warned):
    """What should have come out and did not: names of lines, and lines that are broken and should not be."""
    verdicts = {check.name: check.verdict for check in found.checks}
    missed = [f"{name} BROKEN" for name in broken if verdicts[name] != "BROKEN"]
    missed += [f"{name} warning" for name in warned if verdicts[name] != "warning"]
    return missed + ([f"{check.name} not BROKEN" for check in found.broken] if not broken else [])


def cases(shared, quick):
    """(name, model, data, calculator, lines that must be BROKEN, lines that must be a warning)."""
    from eann_lite import load, read_structures
    from eann_lite.io import published

    model = load(SHIPPED)
    yield "CH4", model, None, None, (), ()
    archive = None if shared is None else shared / "data" / "models" / "REANN_h2o_PES.pt"
    if archive is not None and archive.is_file():
        water = published.load(archive)
        holes = ("O-O approach alone", "H-O approach alone")
        yield "water EANN", water, None, None, (), holes
        if not quick:
            data = read_structures(str(shared / "data" / "water_revpbe0d3.extxyz.gz"))
            yield "water EANN, its data", water, data, None, (), ("O-O approach inside a structure", *holes)
    else:
        print(
            "water EANN             skipped: no published model (set EANN_LITE_SHARED to the folder with data/models)"
        )
    gradients = (
        "forces against central differences",
        "forces against the complex step",
        "slope of the energy fluctuation",
    )
    yield "forces too large by 1 %", model, None, spoiled(model, forces_too_large), gradients, ()
    shears = ("stress against central differences", "stress against the complex step")
    yield "shear stress reversed", model, None, spoiled(model, shear_reversed), shears, ()
    kinks = ("jump of the force at the cutoff",)
    yield "a kink at the cutoff", model, None, spoiled(model, kink_at_cutoff), kinks, ()
    yield "file, a hole", with_hole(model), None, None, (), ("H-H approach alone", "H-H approach inside a structure")
    yield "file, a needle", with_needle(model), None, None, (), ("slope of the energy fluctuation",)


# ---- spoiled on purpose ---------------------------------------------------------------------------------------------


def spoiled(model, spoil):
    """The calculator of a model whose results ``spoil(results, atoms)`` changes."""
    from eann_lite import EANNCalculator

    class Spoiled(EANNCalculator):
        def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
            super().calculate(atoms, ["energy", "forces"], system_changes)
            self.results = {name: np.copy(value) if np.ndim(value) else value for name, value in self.results.items()}
            spoil(self.results, self.atoms)
            self.results["free_energy"] = self.results["energy"]
            # Computed anew by every call, so that results are spoiled once.
            self.atoms = None

    return Spoiled(model)


def forces_too_large(results, atoms):
    results["forces"] = 1.01 * results["forces"]


def shear_reversed(results, atoms):
    if "stress" in results:
        results["stress"][3:] *= -1.0


def kink_at_cutoff(results, atoms):
    """A pair energy of 1 meV/Angstrom times the distance to 7 Angstrom, with its forces (nearest images; no stress)."""
    vectors = atoms.get_all_distances(mic=bool(atoms.pbc.any()), vector=True)
    distances = np.linalg.norm(vectors, axis=-1) + 100.0 * np.eye(len(atoms))
    inside = distances < 7.0
    results["energy"] += 0.5 * np.sum(1e-3 * (7.0 - distances) * inside)
    results["forces"] -= np.sum((1e-3 * inside / distances)[..., None] * vectors, axis=1)


def with_hole(model):
    """The model without its fixed repulsion and with the last weights of hydrogen reversed: a wall becomes a hole."""
    from dataclasses import replace

    from eann_lite import Model

    parameters = {name: np.array(value) for name, value in model.parameters.items()}
    parameters["network.H.output.weight"] *= -1.0
    return Model(replace(model.specification, repulsion=None), parameters, model.constants, model.provenance)


def with_needle(model):
    """The model with one Gaussian ten thousand times as sharp: smooth, but no time step can follow it."""
    from eann_lite import Model

    parameters = {name: np.array(value) for name, value in model.parameters.items()}
    hydrogen = model.specification.elements.index("H")
    parameters["radial_exponents"][hydrogen, 0] = 1e4
    parameters["radial_centers"][hydrogen, 0] = 1.1
    return Model(model.specification, parameters, model.constants, model.provenance)


if __name__ == "__main__":
    sys.exit(main())
