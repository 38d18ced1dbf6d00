"""Normal modes: the Hessian is symmetric, obeys its sum rules, and a minimum has as many zero modes as it should.

What is audited is the model, so all atoms move and have the masses of their elements, whatever the data hold or say.
"""

import numpy as np

from eann_lite.audit.check import BROKEN, OK, WARNING, Check, judged
from eann_lite.second_derivatives import hessian, wavenumbers

#: Allowed per largest entry of the Hessian.
LIMIT = 1e-6
#: A mode below this wavenumber (1/cm) is a zero mode.
ZERO = 5.0
#: Three positions span less than this part of their size: they lie on a line.
ON_A_LINE = 1e-4
NAMES = ("Hessian is symmetric", "translation sum rule", "rotation sum rule", "zero modes")


def check_modes(case, seconds):
    """(checks, record) of the Hessian of one structure, a minimum where there is one, if it fits into ``seconds``."""
    quick = [s for s in case.subjects if 12 * len(s.atoms) * s.seconds < seconds and len(s.atoms) > 1]
    subject = min(quick, key=lambda subject: not subject.relaxed, default=None)
    if subject is None:
        return [
            Check(name, detail="No structure is small enough for its Hessian; use --seconds.") for name in NAMES
        ], {}
    atoms, where = subject.atoms, subject.name
    matrix = hessian(case.model, atoms)
    largest = max(1.0, np.abs(matrix).max())
    n, limit, unit = len(atoms), LIMIT * largest, "eV/A^2"
    flat = matrix.reshape(3 * n, 3 * n)
    checks = [
        judged(NAMES[0], np.abs(flat - flat.T).max(), unit, limit, where, "Largest difference of H and its transpose."),
        judged(NAMES[1], np.abs(matrix.sum(axis=2)).max(), unit, limit, where, "Largest sum of a row over the atoms."),
    ]
    if atoms.pbc.any():
        checks.append(Check(NAMES[2], where=where, detail="A crystal does not turn freely."))
    else:
        text = "H (w x r) + w x F = 0 for turns about x, y, z, with r from the centre."
        checks.append(
            judged(NAMES[2], _rotation_violation(case.model, atoms, matrix), "eV/A", limit * _size(atoms), where, text)
        )
    found = wavenumbers(matrix, atoms.get_masses())
    checks.append(_zero_modes(subject, found))
    return checks, {"structure": where, "minimum": subject.relaxed, "wavenumbers_per_cm": found.tolist()}


def _rotation_violation(model, atoms, matrix):
    forces = model.evaluate(atoms).forces
    positions = atoms.positions - atoms.positions.mean(axis=0)
    largest = 0.0
    for axis in np.eye(3):
        turned = np.einsum("ixjy,jy->ix", matrix, np.cross(axis, positions))
        largest = max(largest, np.abs(turned + np.cross(axis, forces)).max())
    return largest


def _size(atoms):
    return max(1.0, np.abs(atoms.positions - atoms.positions.mean(axis=0)).max())


def _zero_modes(subject, wavenumbers):
    """The line on the number of zero modes."""
    name, where = NAMES[3], subject.name
    if not subject.relaxed:
        lowest = f"lowest mode {wavenumbers[0]:.1f}/cm" if len(wavenumbers) else ""
        return Check(name, where=where, detail=f"The structure is no minimum of the model ({lowest}).")
    expected = _expected_zero_modes(subject.atoms)
    near_zero = int(np.sum(np.abs(wavenumbers) < ZERO))
    smallest = float(np.sort(np.abs(wavenumbers))[expected - 1])
    negative = int(np.sum(wavenumbers < -ZERO))
    text = f"{near_zero} modes below {ZERO:g}/cm, {expected} expected; the highest is {wavenumbers[-1]:.0f}/cm."
    if negative:
        return Check(
            name, smallest, "1/cm", ZERO, WARNING, where, f"{negative} imaginary modes: a saddle point. {text}"
        )
    if near_zero > expected:
        return Check(name, smallest, "1/cm", ZERO, WARNING, where, f"Atoms that do not feel one another? {text}")
    return Check(name, smallest, "1/cm", ZERO, OK if near_zero == expected else BROKEN, where, text)


def _expected_zero_modes(atoms):
    """3 translations, and for a molecule 3 turns, 2 where its atoms lie on a line; along a wire only one turn."""
    periodic = int(atoms.pbc.sum())
    if periodic:
        return 4 if periodic == 1 else 3
    spread = np.linalg.svd(atoms.positions - atoms.positions.mean(axis=0), compute_uv=False)
    return 5 if len(atoms) == 2 or spread[1] < ON_A_LINE * spread[0] else 6
