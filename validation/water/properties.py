"""Properties of liquid water that no fit sees: structure from NVT, conserved energy and vibrations from NVE."""

import numpy as np

STEP = 0.5  # fs
TEMPERATURE = 300.0  # K
FRICTION = 0.01  # 1/fs
DENSITY = 0.997  # g/cm^3 at 298 K
MOLECULES = 64
BIN = 0.02  # Angstrom
#: Pair -> peak -> where its maximum is looked for (Angstrom).
PEAKS = {
    "O-O": {"first": (2.4, 3.3)},
    "O-H": {"molecule's": (0.7, 1.3), "first outer": (1.5, 2.3)},
    "H-H": {"molecule's": (1.2, 1.9), "first outer": (2.0, 3.0)},
}
#: Bands of the density of states: where their maximum is looked for (1/cm).
BANDS = {"libration": (300.0, 1200.0), "bend": (1300.0, 2000.0), "stretch": (2800.0, 4300.0)}


def starting_atoms(structures, seed=0):
    """Of frames within 1 % of the density the one with the smallest forces; without any, molecules on a lattice."""
    from ase import units

    mass = MOLECULES * 18.0153 / (units.mol * 1e-24)  # g/cm^3 times Angstrom^3
    near = [s for s in structures or [] if s.n_atoms == 3 * MOLECULES and abs(mass / s.volume / DENSITY - 1.0) < 0.01]
    if near:
        return min(near, key=lambda structure: np.abs(structure.forces).max()).to_atoms()
    return built_atoms((mass / DENSITY) ** (1 / 3), seed)


def built_atoms(edge, seed):
    """64 molecules on a lattice in a cube (Angstrom), each turned at random."""
    from ase import Atoms
    from ase.build import molecule

    rng = np.random.default_rng(seed)
    atoms = Atoms(cell=np.eye(3) * edge, pbc=True)
    for site in np.ndindex(4, 4, 4):
        water = molecule("H2O")
        water.euler_rotate(*rng.uniform(0.0, 360.0, size=3), center="COM")
        water.translate((np.array(site) + 0.5) * edge / 4 - water.get_center_of_mass())
        atoms += water
    return atoms


def run_dynamics(dynamics, picoseconds, every, observe):
    """Run for so long, calling ``observe`` every so many steps."""
    dynamics.attach(observe, interval=every)
    dynamics.run(round(1000.0 * picoseconds / STEP))
    dynamics.observers.clear()


def measure(model, atoms, picoseconds=20.0, equilibration=3.0, nve=10.0, threads=None, seed=0):
    """{"nvt", "rdf", "nve", "spectrum"}: numbers and curves of one start; ``atoms`` is left as it was."""
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
    from ase.md.verlet import VelocityVerlet

    from eann_lite import EANNCalculator

    atoms = atoms.copy()
    atoms.calc = EANNCalculator(model, threads=threads)
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=rng)
    settings = {"temperature_K": TEMPERATURE, "friction": FRICTION / units.fs, "rng": rng, "fixcm": False}
    langevin = Langevin(atoms, STEP * units.fs, **settings)
    frames, temperatures, unlike = [], [], []

    def look():
        frames.append(atoms.positions.copy())
        temperatures.append(atoms.get_temperature())
        # Only models with bounds tell it.
        unlike.append(atoms.calc.results["extrapolation"].max() if "extrapolation" in atoms.calc.results else None)

    run_dynamics(langevin, equilibration, 10**9, lambda: None)
    run_dynamics(langevin, picoseconds, 20, look)
    Stationary(atoms)
    times, totals, velocities = [], [], []

    def watch():
        times.append(STEP * 1e-3 * 4 * len(times))
        totals.append(atoms.get_total_energy() / len(atoms))
        velocities.append(atoms.get_velocities())

    run_dynamics(VelocityVerlet(atoms, STEP * units.fs), nve, 4, watch)
    return {
        "nvt": {"picoseconds": picoseconds, "frames": len(frames), "temperature_K": float(np.mean(temperatures)),
                "density_g_per_cm3": float(atoms.get_masses().sum() / atoms.get_volume() / (units.mol * 1e-24)),
                "largest_extrapolation": None if None in unlike else float(max(unlike))},
        "rdf": radial_distributions(frames, atoms.cell.array, atoms.numbers),
        "nve": {"picoseconds": nve, "drift_ev_per_atom_per_ps": float(np.polyfit(times, totals, 1)[0]),
                "fluctuation_ev_per_atom": float(np.std(totals)), "times_ps": times[::5],
                "energies_mev_per_atom": (1e3 * (np.array(totals) - np.mean(totals)))[::5].tolist()},
        "spectrum": density_of_states(np.array(velocities), atoms.get_masses(), atoms.numbers, 4 * STEP),
    }  # fmt: skip


def radial_distributions(frames, cell, numbers):
    """{"r": (B,) Angstrom, "O-O", "O-H", "H-H": (B,), "peaks": {pair: {peak: {"position", "height"}}}}.

    frames : list of positions (N, 3); the cell is nearly cubic, so that images within half of its edge are the nearest.
    """
    largest = 0.5 * np.linalg.norm(cell, axis=1).min()
    edges = np.arange(0.0, largest, BIN)
    middle, shells = edges[:-1] + 0.5 * BIN, 4.0 / 3.0 * np.pi * np.diff(edges**3)
    of = {"O": np.flatnonzero(numbers == 8), "H": np.flatnonzero(numbers == 1)}
    found = {"r": middle.tolist(), "peaks": {}}
    inverse, volume = np.linalg.inv(cell), abs(np.linalg.det(cell))
    counts = {pair: np.zeros(middle.size) for pair in PEAKS}
    for positions in frames:
        fractional = positions @ inverse
        for pair in PEAKS:
            one, other = (of[symbol] for symbol in pair.split("-"))
            apart = fractional[one][:, None] - fractional[other][None]
            distances = np.linalg.norm((apart - np.round(apart)) @ cell, axis=-1)
            # An atom and itself are no pair.
            counts[pair] += np.histogram(distances[distances > 1e-6], edges)[0]
    for pair, peaks in PEAKS.items():
        one, other = (of[symbol].size for symbol in pair.split("-"))
        pairs = one * (other - 1) if pair in ("O-O", "H-H") else one * other
        g = counts[pair] / (len(frames) * pairs * shells / volume)
        found[pair] = g.tolist()
        found["peaks"][pair] = {name: peak_of(middle, g, *window) for name, window in peaks.items()}
    return found


def peak_of(x, y, low, high):
    """{"position", "height"} of the largest value in a window, from a parabola through the seven points around it."""
    inside = np.flatnonzero((x >= low) & (x <= high))
    top = inside[np.argmax(y[inside])]
    near = slice(max(top - 3, 0), top + 4)
    a, b, c = np.polyfit(x[near] - x[top], y[near], 2)
    shift = np.clip(-0.5 * b / a, x[near][0] - x[top], x[near][-1] - x[top]) if a < 0.0 else 0.0
    return {"position": float(x[top] + shift), "height": float(a * shift**2 + b * shift + c)}


def density_of_states(velocities, masses, numbers, femtoseconds):
    """{"wavenumber": (B,) 1/cm, "O", "H", "all": (B,), "maxima": {band: 1/cm}}, "all" with area 1.

    Cosine transform of the mass-weighted velocity autocorrelation up to 2 ps (or half of the run) under a Hann window.

    velocities : (S, N, 3) every so many femtoseconds
    """
    from scipy import fft
    from scipy.constants import speed_of_light

    steps = len(velocities)
    lags = min(round(2000.0 / femtoseconds), steps // 2)
    padded = fft.next_fast_len(2 * steps)
    power = np.abs(fft.rfft(velocities, padded, axis=0)) ** 2
    window = np.cos(0.5 * np.pi * np.arange(lags) / lags) ** 2
    spectra = {}
    for name, chosen in (("O", numbers == 8), ("H", numbers == 1)):
        summed = np.einsum("wac,a->w", power[:, chosen], masses[chosen])
        correlation = fft.irfft(summed, padded)[:lags] / (steps - np.arange(lags))
        # An even function: its transform is the cosine transform.  Padded to twice its length for a smooth curve.
        spectra[name] = fft.dct(correlation * window, type=1, n=2 * lags + 1)
    wavenumber = np.arange(2 * lags + 1) / (4 * lags * femtoseconds * 1e-15) / (100.0 * speed_of_light)
    spectra["all"] = spectra["O"] + spectra["H"]
    area = spectra["all"].sum() * wavenumber[1]
    kept = wavenumber < 5000.0
    maxima = {
        name: float(wavenumber[inside][np.argmax(spectra["all"][inside])])
        for name, (low, high) in BANDS.items()
        if (inside := (wavenumber > low) & (wavenumber < high)).any()
    }
    curves = {name: (values[kept] / area).tolist() for name, values in spectra.items()}
    return {"wavenumber": wavenumber[kept].tolist(), "maxima": maxima} | curves


def draw_properties(found, path):
    """Figure of the radial distributions, the total energy in NVE, and the density of states."""
    from eann_lite.plots import COLOURS, GREY, new_figure, save_figure

    figure = new_figure(14.0, 4.2)
    left, middle, right = figure.subplots(1, 3)
    for pair, colour in zip(PEAKS, COLOURS):
        left.plot(found["rdf"]["r"], found["rdf"][pair], color=colour, lw=1.5, label=pair)
    left.axhline(1.0, color=GREY, lw=0.8, ls=":")
    left.set(xlabel="distance (Å)", ylabel="g(r)", xlim=(0.5, found["rdf"]["r"][-1]), ylim=(0.0, 4.0))
    left.set_title(f"NVT, {found['nvt']['temperature_K']:.0f} K, {found['nvt']['picoseconds']:g} ps", fontsize="medium")
    left.legend(framealpha=0.9, edgecolor="none", fontsize="small")
    middle.plot(found["nve"]["times_ps"], found["nve"]["energies_mev_per_atom"], color=COLOURS[0], lw=0.8)
    middle.set(xlabel="time (ps)", ylabel="total energy - mean (meV/atom)")
    middle.set_title(f"NVE: drift {found['nve']['drift_ev_per_atom_per_ps']:.1e} eV/atom/ps", fontsize="medium")
    spectrum = found["spectrum"]
    for name, colour in zip(("all", "H", "O"), ("black", *COLOURS)):
        right.plot(spectrum["wavenumber"], 1e3 * np.array(spectrum[name]), color=colour, lw=1.2, label=name)
    right.set(xlabel="wavenumber (1/cm)", ylabel="density of states (1000 cm)", xlim=(0, 4500))
    right.set_title("velocities of NVE", fontsize="medium")
    right.legend(framealpha=0.9, edgecolor="none", fontsize="small")
    return save_figure(figure, path)
