"""The laws of ``eann_lite.testing`` on the audited structures, and energy and derivatives against the NumPy reference.

Central differences (two of the laws) take energies of the calculator alone, so they judge the calculator by itself.
The complex step runs ``eann_lite.reference`` at x + 1e-30 i v, whose imaginary part is the derivative along v without
the error of a difference: it judges that the calculator and the plain NumPy model are the same function.
"""

import time

import numpy as np

from eann_lite import reference
from eann_lite.audit.check import WARNING, Check, counted, judged, worst
from eann_lite.errors import InputError
from eann_lite.reference import COMPLEX_STEP
from eann_lite.testing.laws import LAWS, STRESS_COMPONENTS

#: Laws that are derivatives, and so belong to the second part.
DERIVATIVE_LAWS = {"force_is_gradient": "forces", "stress_is_gradient": "stress"}
#: Evaluations that a law needs on one structure, about, and on one more when that is a supercell; the scan of
#: distances needs more, of a few atoms.
EVALUATIONS, SCAN_EVALUATIONS = 10, 600
#: What the complex step may differ by, per eV/Angstrom of the largest force (eV of the largest strain derivative), at
#: least of 1; and the energy, relative to the sum of the sizes of all atomic energies, offsets included.
COMPLEX_LIMIT, ENERGY_LIMIT = 1e-9, 1e-12
#: Directions along which a large structure is compared.
DIRECTIONS = 12


def check_laws(case, seconds):
    """(checks, record): every law on as many structures as ``seconds`` allow, the largest violation of each."""
    names = [name for name in LAWS if name not in DERIVATIVE_LAWS]
    # The scan of distances takes as long as all others together.
    shares = {name: 0.5 / (len(names) - 1) for name in names} | {"smooth_at_cutoff": 0.5}
    return [_law(case, name, name.replace("_", " "), seconds * shares[name]) for name in names], {}


def check_derivatives(case, seconds):
    """(checks, record) of forces and strain derivative: central differences and complex step."""
    checks = [
        _law(case, name, f"{what} against central differences", seconds / 4, directions=6 if what == "forces" else None)
        for name, what in DERIVATIVE_LAWS.items()
    ]
    return checks + _against_reference(case, seconds / 2), {}


def _law(case, law, name, seconds, **keywords):
    """The line of one law: its most severe violation over the structures."""
    keywords = {key: value for key, value in keywords.items() if value is not None}
    worst_found, where, count, failed = None, "", 0, None
    until = time.monotonic() + seconds
    for subject in case.subjects:
        evaluations = SCAN_EVALUATIONS if law == "smooth_at_cutoff" and len(subject.atoms) <= 4 else EVALUATIONS
        if count and time.monotonic() + evaluations * subject.seconds > until:
            break
        try:
            violation = LAWS[law](case.calculator, subject.atoms.copy(), seed=case.seed, **keywords)
        except InputError as error:
            failed = failed or Check(
                name, where=subject.name, verdict=WARNING, detail=f"It could not be computed: {error}"
            )
            continue
        if violation is None:
            continue
        count += 1
        if worst_found is None or violation.severity > worst_found.severity:
            worst_found, where = violation, subject.name
    if worst_found is None:
        return failed or Check(name, detail="The law says nothing about these structures.")
    if failed and not worst_found.broken:
        return failed
    unit = worst_found.unit.replace("Angstrom", "A") if worst_found.limit else ""
    text = f"{worst_found.detail[0].upper()}{worst_found.detail[1:]} ({counted(count, 'structure')})."
    return judged(name, worst_found.value, unit, worst_found.limit, where, text)


# ---- against the reference ------------------------------------------------------------------------------------------


def _against_reference(case, seconds):
    rng, until = case.rng(), time.monotonic() + seconds
    energies, forces_found, strains_found = [], [], []
    for subject in case.subjects:
        atoms, where = subject.atoms, subject.name
        has_volume = atoms.pbc.any() and atoms.cell.volume > 0.0
        # One structure at least, and one with a stress, however slow the machine is.
        if time.monotonic() > until and energies and (strains_found or not has_volume):
            continue
        attached = case.attached(atoms)
        energy, forces = attached.get_potential_energy(), attached.get_forces(apply_constraint=False)
        start = time.monotonic()
        exact = _reference(case.model, atoms)
        cost = 4 * (time.monotonic() - start)
        energies.append((abs(energy - exact.energy), ENERGY_LIMIT * max(1.0, np.abs(exact.energies).sum()), where))
        limit = COMPLEX_LIMIT * max(1.0, np.abs(forces).max())
        share = max(0.0, until - time.monotonic()) / 3
        for along in _directions(len(atoms), rng, int(share / cost)):
            slope = _slope(case.model, atoms, along, np.zeros((3, 3)))
            forces_found.append((abs(slope + np.sum(forces * along)), limit * np.linalg.norm(along), where))
        if has_volume:
            strain_derivative = attached.get_stress(apply_constraint=False, voigt=False) * atoms.cell.volume
            limit = COMPLEX_LIMIT * max(1.0, np.abs(strain_derivative).max())
            for row, column in STRESS_COMPONENTS.values():
                strain = np.zeros((3, 3))
                strain[row, column] += 0.5
                strain[column, row] += 0.5
                slope = _slope(case.model, atoms, np.zeros((len(atoms), 3)), strain)
                strains_found.append((abs(slope - strain_derivative[row, column]), limit, where))
    derivatives = "{} derivatives of the NumPy model, each exact."
    strains = "Stress times volume. " + derivatives
    return [
        worst(
            "energy against the reference",
            energies,
            "eV",
            detail=f"{counted(len(energies), 'structure')} in plain NumPy.",
        ),
        worst("forces against the complex step", forces_found, "eV/A", detail=derivatives.format(len(forces_found))),
        worst(
            "stress against the complex step",
            strains_found,
            "eV",
            detail=strains.format(len(strains_found)),
        ),
    ]


def _directions(n_atoms, rng, most):
    """Displacements (k, n, 3): along every single coordinate if ``most`` allows that, else random ones of all atoms."""
    if 3 * n_atoms <= most:
        return np.eye(3 * n_atoms).reshape(-1, n_atoms, 3)
    directions = rng.normal(size=(max(1, min(most, DIRECTIONS)), n_atoms, 3))
    return directions / np.abs(directions).max(axis=(1, 2), keepdims=True)


def _slope(model, atoms, displacement, strain):
    """Derivative of the reference's energy along a displacement and a strain."""
    step = 1j * COMPLEX_STEP
    moved = atoms.positions + step * (displacement + atoms.positions @ strain)
    return (
        _reference(model, atoms, moved, atoms.cell.array + step * atoms.cell.array @ strain).energy.imag / COMPLEX_STEP
    )


def _reference(model, atoms, positions=None, cell=None):
    return reference.evaluate(
        model.specification, model.parameters, model.constants, atoms.numbers,
        atoms.positions if positions is None else positions, atoms.cell.array if cell is None else cell, atoms.pbc,
    )  # fmt: skip
