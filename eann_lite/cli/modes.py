"""``eann-lite modes``: normal modes of a structure, from the exact Hessian."""

import json
from pathlib import Path

from eann_lite.cli.directories import writable_directory
from eann_lite.cli.flags import add_model, add_threads
from eann_lite.cli.messages import warn
from eann_lite.errors import InputError

#: Largest force in eV/Angstrom at which a structure counts as relaxed.
RELAXED = 0.01


def add_to(commands):
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "modes",
        help="normal modes of a structure, from the exact Hessian",
        description="Wavenumbers of the normal modes of a structure, from exact second derivatives of the energy, with the "
        "masses in the file. Imaginary ones have an i: the structure is no minimum. Atoms that the file holds still "
        "(FixAtoms, move_mask, selective dynamics) neither relax nor vibrate; other constraints are refused.",
        allow_abbrev=False,
    )
    add_model(parser)
    parser.add_argument("structure", metavar="STRUCTURE", help="file of the structure")
    parser.add_argument("--index", type=int, default=-1, metavar="N", help="which one of the file (default: the last)")
    parser.add_argument(
        "--relax", type=float, metavar="F", help="first relax until no force is larger (eV/A), e.g. 1e-4"
    )
    parser.add_argument("--out", metavar="FILE", help="write the modes as displacements into this XYZ file (for Jmol)")
    parser.add_argument("--json", action="store_true", help="print the wavenumbers as JSON, nothing else")
    add_threads(parser)
    flags = ["--index", "--relax", "--out", "--json", "--threads"]
    parser.set_defaults(command=run, name="modes", flags=flags)


def run(options, arguments):
    """Print the wavenumbers of the normal modes."""
    import numpy as np
    from ase.units import invcm

    from eann_lite.calculator import EANNCalculator
    from eann_lite.compiled import set_threads
    from eann_lite.io.model_file import load
    from eann_lite.second_derivatives import free_indices, vibrations, wavenumbers
    from eann_lite.structures import read_atoms

    if options.relax is not None and not 0.0 < options.relax < float("inf"):
        raise InputError(
            f"--relax {options.relax}: expected the largest force that may remain, such as 1e-4 eV/Angstrom."
        )
    set_threads(options.threads)
    model = load(options.model)
    structures = read_atoms(options.structure)
    if not -len(structures) <= options.index < len(structures):
        raise InputError(
            f"--index {options.index}: {options.structure} has {len(structures)} structures, so it can be "
            f"0 to {len(structures) - 1}, or -1 for the last."
        )
    if options.out is not None:
        writable_directory(str(Path(options.out).resolve().parent))
    atoms, where = structures[options.index]
    free = free_indices(atoms, where)
    atoms.calc = EANNCalculator(model)
    if options.relax is not None:
        from ase.optimize import BFGS

        if not BFGS(atoms, logfile=None).run(fmax=options.relax, steps=1000):
            raise InputError(
                f"{options.structure}: not relaxed to {options.relax:g} eV/Angstrom within 1000 steps. "
                "Give a larger --relax, or a structure nearer to a minimum."
            )
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    modes = vibrations(model, atoms, free)
    found = wavenumbers(modes.get_hessian(), atoms.get_masses()[free])
    zero_point = 0.5 * invcm * float(found[found > 0].sum())
    if options.out is not None:
        modes.write_jmol(options.out)
    held = np.setdiff1d(np.arange(len(atoms)), free)
    if options.json:
        record = {"wavenumbers_per_cm": found.tolist(), "zero_point_energy_ev": zero_point, "largest_force": largest}
        record |= {"positions": atoms.positions.tolist(), "masses_amu": atoms.get_masses().tolist()}
        print(json.dumps(record | {"held_still": held.tolist()}, indent=1))
        return
    told = "none held still"
    if held.size:
        told = f"{held.size} held still by the constraints of the file: modes of the other {free.size}"
    print(f"{len(atoms)} atoms, {told}; masses {_masses_text(atoms)}")
    print("mode   1/cm         meV")
    for n, wavenumber in enumerate(found):
        print(f"{n:4d}  {abs(wavenumber):10.3f}{'i' if wavenumber < 0 else ' '} {1000 * invcm * abs(wavenumber):10.3f}")
    print(f"zero-point energy {zero_point:.4f} eV; energy {atoms.get_potential_energy():.6f} eV")
    if largest > RELAXED:
        warn([f"the largest force is {largest:.3g} eV/Angstrom: no minimum, so these are no vibrations. See --relax."])
    if options.out is not None:
        print(f"written {options.out}")


def _masses_text(atoms):
    """The masses of each element, in amu: "C 12.011, H 1.008 and 2.014"."""
    masses = {}
    for symbol, mass in sorted(zip(atoms.get_chemical_symbols(), atoms.get_masses().tolist())):
        masses.setdefault(symbol, {})[f"{mass:.6g}"] = None
    return ", ".join(f"{symbol} {' and '.join(values)}" for symbol, values in masses.items()) + " amu"
