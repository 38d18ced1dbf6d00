"""How fast everything is on this machine, beside the floor of the arithmetic and, if asked, the published code.

    python validation/speed/run.py [--quick] [--only NAME ...] [--json FILE] [--plots DIR]
                                   [--against FOLDER --against-python PYTHON]

FOLDER holds the published ``reann/``, PYTHON is the interpreter of a virtual environment with torch, numpy and
opt_einsum.  What is compared takes turns, medians are printed, all on one thread where nothing else is said.  The bars
of the table are targets for a quiet machine and no verdict: this ends with 1 only when something is broken or the
published code gives other numbers.  See README.md beside this script.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

# Before NumPy is imported: the dense rate is that of one thread, and BLAS threads would fight those of Numba.
for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(name, "1")

import calls  # noqa: E402
import children  # noqa: E402
import systems  # noqa: E402
from counting import work  # noqa: E402
from figures import write_figures  # noqa: E402
from table import HEADER, Report  # noqa: E402
from timing import exponent  # noqa: E402

#: Atoms of the fit of the exponent, and of what is left out above: a gradient needs far more memory.
FITTED, GRADIENT_ATOMS = (192, 50_000), 12_288
#: Memory that an evaluation is expected to take at most, bytes per atom: systems that do not fit beside the smaller ones
#: are left out.
BYTES_PER_ATOM = 80_000
SIZES = (24, 81, 192, 384, 1536, 6144, 12_288, 49_152, 98_304)
SCANS = {
    "recursions": (0, 1, 2, 3), "radial": (4, 7, 8, 12, 16), "max_degree": (0, 1, 2, 3), "densities": (16, 32, 64, 128),
    "cutoff": (4.0, 5.0, 6.0, 7.0),
}  # fmt: skip
QUICK_SIZES, QUICK_SCANS = (192, 384, 1536), {"recursions": (0, 3), "cutoff": (4.0, 6.0)}


def reference(report):
    """The reference model and T = 0 on 192 atoms of water: energy + forces, gradient, energy alone, neighbour list."""
    for recursions in (3, 0):
        with ExitStack() as stack:
            _reference(report, recursions, stack)


def _reference(report, recursions, stack):
    atoms, model = systems.water(192), systems.model(recursions=recursions)
    cutoff, structure = model.specification.cutoff, systems.labelled(atoms)
    neighbours = systems.neighbours(atoms, cutoff)
    functions = {
        "forces": calls.energy_and_forces(model, atoms), "gradient": calls.loss_gradient(model, atoms),
        "energy": calls.energy_and_forces(model, atoms, ("energy",)), "again": lambda: model.evaluate(structure),
        "list": calls.neighbour_list(atoms, cutoff),
        "single": calls.energy_and_forces(model, atoms, precision="float32"),
    }  # fmt: skip
    result, (_, slope) = functions["forces"](), functions["gradient"]()
    ours = {"energy": result["energy"], "forces": result["forces"]}
    ours["contraction_gradient"] = model.layout.unpack(slope)["contraction"]
    others = {}
    for what, tuned in product(("forces", "gradient"), ("tuned", "plain")) if report.against else ():
        child = stack.enter_context(children.Published(*report.against, what, tuned == "tuned"))
        child.prepare(model, structure, ours)
        others[what, tuned] = child.seconds
    times = report.take_turns(functions, others)
    for what, label in (("forces", "E + F"), ("gradient", "gradient"), ("energy", "energy alone (descriptors)")):
        theirs = {tuned: 1e6 * times.median((w, tuned)) / len(atoms) for w, tuned in others if w == what}
        least = work(model.specification, neighbours, what)
        report.add_per_atom(f"{label}, T {recursions}", times, what, len(atoms), least, published=theirs)
    least = work(model.specification, neighbours, "forces")
    report.add_per_atom(f"E + F, T {recursions}, float32", times, "single", len(atoms), least, lanes=2)
    if recursions:
        report.add_per_atom("E + F with its list and packing anew, T 3", times, "again", len(atoms))
        report.add_per_atom("neighbour list", times, "list", len(atoms))
        report.add("gradient / (E + F)", times.median("gradient") / times.median("forces"), "")
        report.add("neighbour list / (E + F)", times.median("list") / times.median("forces"), "")
        report.add("dense rate", times.rate / 1e9, "10^9 mult/s", note=f"{neighbours:.1f} neighbours")


def sizes(report):
    """Everything over the number of atoms, with the exponent; all sizes take turns, as the machine's speed varies."""
    model, methane_model = systems.model(), systems.model(elements=("C", "H"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    timers, neighbours, n_all = {}, {}, 0
    for n_atoms in (5, *(QUICK_SIZES if report.quick else SIZES)):
        n_all += n_atoms
        if n_all * BYTES_PER_ATOM > 0.7 * memory:
            print(f"{n_atoms} atoms are left out: {n_all * BYTES_PER_ATOM / 1e9:.0f} GB may not fit in memory")
            break
        atoms, potential = (systems.methane(), methane_model) if n_atoms == 5 else (systems.water(n_atoms), model)
        cutoff = potential.specification.cutoff
        neighbours[n_atoms] = systems.neighbours(atoms, cutoff)
        timers["forces", n_atoms] = calls.energy_and_forces(potential, atoms)
        timers["list", n_atoms] = calls.neighbour_list(atoms, cutoff)
        if n_atoms <= GRADIENT_ATOMS:
            timers["gradient", n_atoms] = calls.loss_gradient(potential, atoms)
            timers["energy", n_atoms] = calls.energy_and_forces(potential, atoms, ("energy",))
    times = report.take_turns(timers, longest=300.0)
    for what, n_atoms in timers:
        spec = (methane_model if n_atoms == 5 else model).specification
        floor = None if what == "list" else work(spec, neighbours[n_atoms], what)
        if what in ("forces", "gradient"):
            label = {"forces": "E + F", "gradient": "gradient"}[what]
            report.add_per_atom(f"{label}, {n_atoms} atoms", times, (what, n_atoms), n_atoms, floor)
        least = floor and 1e6 * floor.seconds(times.rate) * n_atoms
        report.point("atoms", what, n_atoms, 1e6 * times.median((what, n_atoms)), least)
    for what, label in (("forces", "E + F"), ("list", "neighbour list"), ("gradient", "gradient")):
        fitted = [row for row in report.points["atoms"][what] if FITTED[0] <= row[0] <= FITTED[1]]
        value = exponent([row[0] for row in fitted], [row[1] for row in fitted])
        report.add(f"exponent of {label}", value, "", note=f"{fitted[0][0]} to {fitted[-1][0]} atoms")


def hyperparameters(report):
    """Energy + forces and gradient over T, K, L, M and the cutoff, 192 atoms of water."""
    atoms = systems.water(192)
    for name, values in (QUICK_SCANS if report.quick else SCANS).items():
        timers, floors, places = {}, {}, {}
        for value in values:
            model = systems.model(**{name: value})
            spec = model.specification
            neighbours = systems.neighbours(atoms, spec.cutoff)
            axis = {"recursions": value + 1, "max_degree": spec.monomials, "cutoff": neighbours}
            places[str(value)] = axis.get(name, value)
            timers[f"forces {value}"] = calls.energy_and_forces(model, atoms)
            timers[f"gradient {value}"] = calls.loss_gradient(model, atoms)
            floors |= {f"{what} {value}": work(spec, neighbours, what) for what in ("forces", "gradient")}
        times = report.take_turns(timers)
        for key, floor in floors.items():
            what, value = key.split()
            label = {"forces": "E + F", "gradient": "gradient"}[what]
            report.add_per_atom(f"{label}, {name} = {value}", times, key, len(atoms), floor)
            report.point(name, what, places[value], report.rows[-1]["value"], report.rows[-1]["floor"])


def molecules(report):
    """One CH4 through ASE, beside ASE's own Lennard-Jones, and 1,000 CH4 in one call."""
    from ase.calculators.lj import LennardJones

    from eann_lite import EANNCalculator
    from eann_lite.training.objective import Evaluator, labelled_set

    model, atoms, many = systems.model(elements=("C", "H")), systems.methane(), systems.first_methanes(1000)
    evaluator = Evaluator(model.specification, model.constants, 1)
    evaluator.set_parameters(model.vector)
    packed = labelled_set(many, model.specification)
    times = report.take_turns({
        "ours": calls.through_ase(atoms, EANNCalculator(model)), "lj": calls.through_ase(atoms, LennardJones()),
        "batch": lambda: model.evaluate(many), "packed": lambda: evaluator.predict(packed),
    })  # fmt: skip
    one = 1e6 * 5 * work(model.specification, 4.0, "forces").seconds(times.rate)
    report.add("CH4 through ASE", 1e6 * times.median("ours"), "us", one, times.spread("ours"))
    report.add("CH4, Lennard-Jones of ASE", 1e6 * times.median("lj"), "us", None, times.spread("lj"))
    for name, label in (("batch", "CH4 in a batch of 1000"), ("packed", "CH4 in a batch of 1000, pairs already there")):
        report.add(label, 1e6 * times.median(name) / len(many), "us", one, times.spread(name))


def training(report):
    """Steps of SOAP on batches of 32 CH4 with forces, in twenties: changes of its eigenbases are among them."""
    batch, steps = 32, 20
    times = report.take_turns({name: calls.training_steps(1000, batch, steps, name) for name in ("float32", "float64")})
    floor = 5 * work(systems.specification(elements=("C", "H")), 4.0, "gradient").seconds(times.rate)
    # A fit takes its steps in float32 unless asked.
    for name, label, lanes in (("float32", "training on CH4", 2), ("float64", "training on CH4, float64", 1)):
        rate, note = batch * steps / times.median(name), "floor without SOAP"
        report.add(label, rate, "structures/s", lanes / floor, times.spread(name), note=note)


def precision(report):
    """Largest deviation of float32 forces from float64 for the models that this repository has, on generated structures."""
    import numpy as np

    from eann_lite import EANNCalculator, load

    folder = Path(__file__).resolve().parents[1]
    for path, structures in (
        (folder / "first_fit" / "model.npz", [s.to_atoms() for s in systems.first_methanes(100)]),
        (folder / "water" / "model.npz", [systems.water(192)]),
    ):
        forces = {}
        for name in ("float64", "float32"):
            calculator = EANNCalculator(load(path), precision=name)
            forces[name] = np.concatenate([calculator.get_property("forces", atoms) for atoms in structures])
        deviation, largest = np.abs(forces["float32"] - forces["float64"]).max(), np.abs(forces["float64"]).max()
        note = f"of forces up to {largest:.3g}; {len(structures)} structures"
        report.add(f"float32 forces off by, {path.parent.name}", deviation, "eV/Angstrom", note=note)


def threads(report):
    """Several threads against one, on a quiet and on a busy machine."""
    import numba

    from eann_lite.training.loss import Loss

    cores = numba.config.NUMBA_NUM_THREADS
    if cores < 2:
        print("threads are left out: there is one core")
        return
    counts = [n for n in (1, 2, 4, 8, 16, 32) if n <= cores]
    model, atoms = systems.model(), systems.water(1536)
    methanes, methane_model = systems.first_methanes(64), systems.model(elements=("C", "H"))
    timers = {f"forces {n}": calls.energy_and_forces(model, atoms, threads=n) for n in counts}
    timers |= {f"gradient {n}": calls.batch_gradient(methane_model, methanes, Loss(), n) for n in counts}
    times = report.take_turns(timers)
    for what, label, atoms_of in (("forces", "E + F of 1536 atoms", 1536), ("gradient", "gradient of 64 CH4", 320)):
        alone = times.median(f"{what} 1")
        for n in counts:
            report.point("threads", what, n, 1e6 * times.median(f"{what} {n}") / atoms_of)
            if n > 1:
                report.add(f"{n} threads, {label}", alone / times.median(f"{what} {n}"), "x one thread")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores - 1)]
    try:
        times = report.take_turns({name: timers[name] for name in ("forces 1", "forces 2")})
    finally:
        for process in busy:
            process.kill()
            process.wait()
    report.add("E + F, other cores busy: 2 threads / 1", times.median("forces 2") / times.median("forces 1"), "")


def dynamics(report):
    """Velocity Verlet through ASE at 300 K, neighbour list and its renewals included."""
    from eann_lite import EANNCalculator

    steps = 20
    # Forces are scaled to almost nothing: random ones would tear the water apart, and cost the same.
    model = systems.model(energy_scale=1e-9)
    boxes = {n: systems.water(n) for n in ((192,) if report.quick else (192, 1536))}
    least = work(model.specification, systems.neighbours(boxes[192], model.specification.cutoff), "forces")
    times = report.take_turns({n: calls.dynamics(atoms, EANNCalculator(model), steps) for n, atoms in boxes.items()})
    for n in boxes:
        floor = 1 / (n * least.seconds(times.rate))
        report.add(f"dynamics of {n} atoms", steps / times.median(n), "steps/s", floor, times.spread(n))


def memory(report):
    """Peak memory of an evaluation beyond the structure itself, neighbour list included."""
    n_atoms = 6144 if report.quick else 24_576
    systems.model().evaluate(systems.water(192))  # compiles, so that no compiler stands in the child's peak
    result = children.probe("memory", n_atoms)
    note = f"{n_atoms} atoms, neighbour list included" + ("" if result["raised"] else "; an upper bound")
    report.add("peak memory, E + F", result["bytes"] / n_atoms / 1e3, "kB/atom", note=note)


def startup(report):
    """Import and first calls in fresh processes: with no compiled kernels, and with those of the call before."""
    from statistics import median

    imports = [children.probe("import")["seconds"] for _ in range(2 if report.quick else 7)]
    report.add("import eann_lite", median(imports), "s")
    for what, label in (("forces", "first call"), ("gradient", "first gradient")):
        if report.quick:
            children.probe("first", what)
            report.add(f"{label}, cached", children.probe("first", what)["first"], "s", note="cold: not with --quick")
            continue
        with tempfile.TemporaryDirectory() as folder:
            report.add(f"{label}, cold", children.probe("first", what, cache=folder)["first"], "s")
            cached = [children.probe("first", what, cache=folder)["first"] for _ in range(3)]
            report.add(f"{label}, cached", median(cached), "s", note="imports of everything included")


GROUPS = {
    group.__name__: group
    for group in (reference, sizes, hyperparameters, molecules, training, precision, threads, dynamics, memory, startup)
}


def machine():
    """What the numbers depend on: versions, processor, cores and load."""
    import importlib.metadata

    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "ase")}
    processor = platform.processor() or platform.machine()
    try:
        processor = next(text.split(":")[1].strip() for text in open("/proc/cpuinfo") if text.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions["python"] = platform.python_version()
    return versions | {"processor": processor, "cores": os.cpu_count(), "load": load()}


def load():
    """Processes that want to run, on average over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def main():
    """Measure; 0, or 1 with the reason when something is broken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats, within a minute")
    parser.add_argument("--only", nargs="+", default=list(GROUPS), choices=list(GROUPS), metavar="NAME",
                        help=f"some of {', '.join(GROUPS)}")  # fmt: skip
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="the published code: the folder with reann/")
    parser.add_argument("--against-python", type=Path, metavar="PYTHON", help="interpreter with torch and opt_einsum")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, points and versions here")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write log-log plots here")
    options = parser.parse_args()
    if (options.against is None) != (options.against_python is None):
        parser.error("--against FOLDER and --against-python PYTHON go together")
    if options.against and not (options.against / "reann").is_dir():
        parser.error(f"--against {options.against}: there is no folder reann in it")
    from eann_lite.compiled import set_threads

    set_threads(1)
    facts, started = machine(), time.monotonic()
    print(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
    report = Report(options.quick, options.against and (options.against, options.against_python))
    try:
        print(HEADER)
        for name in options.only:
            begun = time.monotonic()
            GROUPS[name](report)
            print(f"-- {name}: {time.monotonic() - begun:.0f} s\n", flush=True)
    except (RuntimeError, ArithmeticError, subprocess.CalledProcessError) as error:
        print(f"BROKEN: {error}")
        return 1
    print(f"{time.monotonic() - started:.0f} s in all; load now {load()}")
    if options.json:
        document = {"machine": facts, "rows": report.rows, "points": report.points}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plots:
        print("\n".join(write_figures(options.plots, report.points, FITTED)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
