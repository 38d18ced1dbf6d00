"""Energy in Velocity Verlet dynamics: its fluctuation falls with the square of the step, and it does not drift.

Of a smooth energy and its exact gradient the method conserves an energy that differs from the true one by terms in
the square of the step.  Forces that are not the gradient, or that jump, leave a part that does not fall with the step.
"""

import numpy as np

from eann_lite.audit.check import Check, judged
from eann_lite.errors import InputError
from eann_lite.second_derivatives import WAVENUMBER

#: Temperature (K), steps for the shortest period of vibration, and what the slope may be.
TEMPERATURE, STEPS_PER_PERIOD, SLOPE_LIMIT = 300.0, (20, 28, 40, 56, 80), (1.8, 2.2)
#: Periods of the fastest vibration in a run: the most, and the fewest that say something.
MOST_PERIODS, FEWEST_PERIODS = 15, 3
#: Wavenumber (1/cm) of the fastest vibration of a model whose modes are not known: that of a bond to the lightest atom.
STIFFEST = 3800.0
#: A run that gets hotter than this many times the temperature has fallen into something.
RUNAWAY = 8.0
#: Drift (eV/atom/ps) that is always allowed, and per fluctuation (eV/atom) and length (ps) of a run: a short run
#: cannot tell less.
DRIFT_LIMIT, DRIFT_NOISE = 1e-5, 4.0
#: The speed of light in cm/fs, which turns wavenumbers into periods.
LIGHT = 2.99792458e-5


def check_dynamics(case, seconds):
    """(checks, record) of short NVE runs with several steps, in about ``seconds``."""
    names = ("slope of the energy fluctuation", "drift of the energy")
    # Structures of which even the fewest periods would take too long are left out.
    subject = case.calmest(seconds / (FEWEST_PERIODS * sum(STEPS_PER_PERIOD)))
    if subject is None:
        return [Check(name, detail="No structure is small enough for the time; use --seconds.") for name in names], {}
    periods = min(MOST_PERIODS, seconds / (sum(STEPS_PER_PERIOD) * max(subject.seconds, 2e-4)))
    shortest = 1.0 / (LIGHT * max(_fastest(case, subject), 300.0))  # fs
    runs = []
    for steps in STEPS_PER_PERIOD:
        try:
            runs.append(_run(case, subject.atoms, shortest / steps, int(periods * steps)))
        except InputError as error:
            text = f"The run with {shortest / steps:.3g} fs was stopped: {error}"
            return [Check(name, where=subject.name, verdict="warning", detail=text) for name in names], {}
    steps_fs = np.array([shortest / steps for steps in STEPS_PER_PERIOD])
    fluctuations = np.array([run["fluctuation"] for run in runs])
    record = {
        "structure": subject.name, "temperature_k": TEMPERATURE, "femtoseconds": float(periods * shortest),
        "steps_fs": steps_fs.tolist(), "fluctuation_ev_per_atom": fluctuations.tolist(),
        "drift_ev_per_atom_per_ps": [run["drift"] for run in runs],
    }  # fmt: skip
    hottest = max(run["hottest"] for run in runs)
    if hottest > RUNAWAY * TEMPERATURE:
        text = f"The dynamics ran away from the structure (up to {hottest:.0f} K): it is not stable in this model."
        return [Check(name, where=subject.name, verdict="warning", detail=text) for name in names], record
    slope = np.polyfit(np.log(steps_fs), np.log(np.maximum(fluctuations, 1e-300)), 1)[0]
    length = periods * shortest / 1000
    room = DRIFT_LIMIT + DRIFT_NOISE * fluctuations[-1] / length
    steps_text = f"{steps_fs[-1]:.2g} to {steps_fs[0]:.2g} fs"
    text = f"Velocity Verlet, steps of {steps_text}, {1000 * length:.0f} fs each, {TEMPERATURE:.0f} K."
    record["slope"] = float(slope)
    return [
        judged(names[0], slope, "", SLOPE_LIMIT, subject.name, text),
        judged(names[1], abs(runs[-1]["drift"]), "eV/atom/ps", room, subject.name, "With the smallest step."),
    ], record


def _fastest(case, subject):
    """Wavenumber (1/cm) of the fastest vibration, from the curvature along random displacements."""
    rng, masses = case.rng(), np.sqrt(subject.atoms.get_masses())[:, None]
    start = case.forces(subject.atoms)
    mode, largest = rng.normal(size=(len(subject.atoms), 3)), 0.0
    # Power iteration on the mass-weighted Hessian, whose products are differences of forces.
    for _ in range(12):
        mode /= np.linalg.norm(mode)
        moved = subject.atoms.copy()
        moved.positions += 1e-4 * mode / masses
        mode = (start - case.forces(moved)) / (1e-4 * masses)
        largest = np.linalg.norm(mode)
    return np.sqrt(largest) * WAVENUMBER if np.isfinite(largest) and largest > 0 else STIFFEST


def _run(case, atoms, step, steps):
    """Fluctuation and drift of the energy per atom, and the highest temperature, of one run (``step`` in fs)."""
    from ase import units
    from ase.md.velocitydistribution import Stationary
    from ase.md.verlet import VelocityVerlet

    moved, rng = case.attached(atoms), case.rng()
    # Twice the temperature at a minimum: half of it goes to the potential energy.
    momenta = rng.normal(size=(len(atoms), 3)) * np.sqrt(2 * TEMPERATURE * units.kB * moved.get_masses())[:, None]
    moved.set_momenta(momenta)
    Stationary(moved)
    dynamics = VelocityVerlet(moved, step * units.fs)
    totals, hottest = [], 0.0
    for _ in dynamics.irun(steps):
        totals.append(moved.get_total_energy())
        hottest = max(hottest, moved.get_temperature())
        if hottest > 3 * RUNAWAY * TEMPERATURE:
            break
    totals = np.array(totals) / len(atoms)
    times = np.arange(totals.size) * step / 1000
    drift = np.polyfit(times, totals - totals[0], 1)[0] if totals.size > 2 else np.nan
    return {"fluctuation": float(np.std(totals)), "drift": float(drift), "hottest": float(hottest)}
