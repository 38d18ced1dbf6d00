"""The calls that are timed: functions without arguments, made from a model and a system."""

import numpy as np
from systems import first_methanes, labelled, specification


def energy_and_forces(model, atoms, properties=("energy", "forces"), threads=None, precision="float64"):
    """Energy and forces of ASE Atoms from a neighbour list that is already there, through the calculator."""
    from eann_lite import EANNCalculator

    # A skin of 0 lists exactly the pairs of the model, and keeps them as long as nothing moves.
    calculator = EANNCalculator(model, skin=0.0, threads=threads, precision=precision)

    def call():
        # As in a dynamics, where nothing else changes.
        calculator.calculate(atoms, properties, ["positions"])
        return calculator.results

    return call


def loss_gradient(model, atoms, threads=1):
    """Loss and its gradient for all parameters, on the energy and forces of one labelled system; pairs are there."""
    from eann_lite.training.loss import Loss

    # Said in full, as the published code beside it has these weights, whatever the defaults of a fit are.
    loss = Loss(energy_weight=1.0, forces_weight=1.0, huber=np.inf, forces_huber=np.inf)
    return batch_gradient(model, [labelled(atoms)], loss, threads)


def batch_gradient(model, structures, loss, threads=1):
    """Loss and gradient of a whole list of labelled structures."""
    from eann_lite.memory import keep_freed_memory
    from eann_lite.training.objective import Evaluator, labelled_set

    keep_freed_memory()  # As fits do.
    evaluator = Evaluator(model.specification, model.constants, threads)
    evaluator.set_parameters(model.vector)
    data, everything = labelled_set(structures, model.specification), np.arange(len(structures))
    return lambda: evaluator.loss_and_gradient(data, everything, loss)


def neighbour_list(atoms, cutoff):
    """All ordered pairs with their reversed pairs, made anew."""
    from eann_lite.neighbors import neighbor_pairs

    return lambda: neighbor_pairs(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)


def through_ase(atoms, calculator):
    """Energy and forces as ASE's users ask for them; one atom moves a little before every call."""
    atoms = atoms.copy()
    atoms.calc = calculator
    shift = np.zeros((len(atoms), 3))
    shift[0, 0] = 1e-4

    def call():
        nonlocal shift
        atoms.positions += shift
        shift = -shift
        return atoms.get_potential_energy(), atoms.get_forces()

    return call


def dynamics(atoms, calculator, steps, seed=0):
    """``steps`` steps of velocity Verlet, 0.5 fs, going on from call to call; starts at 300 K."""
    from ase import units
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet

    atoms = atoms.copy()
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(seed))
    verlet = VelocityVerlet(atoms, 0.5 * units.fs)
    return lambda: verlet.run(steps)


def training_steps(n_structures, batch, steps, precision):
    """``steps`` steps of SOAP on batches of CH4 with forces, going on from call to call, as a fit does them."""
    from eann_lite.kernels.parameter_steps import add_to_average, scale_gradient
    from eann_lite.model.initial import fit_reference_energies, initial_parameters, scale_to_data
    from eann_lite.training.loss import Loss
    from eann_lite.training.objective import Evaluator, labelled_set
    from eann_lite.training.solvers.soap import Soap
    from eann_lite.training.solvers.stochastic import matrix_places

    spec = specification(elements=("C", "H"))
    data = labelled_set(first_methanes(n_structures), spec)
    everything = np.arange(n_structures)
    parameters, constants, scales = scale_to_data(spec, initial_parameters(spec, seed=0), data.packed, everything)
    # As a fit does: where networks have to give the 40 eV of CH4 their units saturate, and derivatives are subnormal.
    counts = np.tile([1.0, 4.0], (n_structures, 1))
    constants["reference_energies"] = fit_reference_energies(counts, data.energies)
    constants["energy_scale"] = np.std(data.energies) / np.sqrt(5.0)
    evaluator, loss = Evaluator(spec, constants, 1, precision), Loss()
    scales = evaluator.layout.pack(scales)
    vector = evaluator.layout.pack(parameters) / scales
    average = vector.copy()
    matrices = matrix_places(spec, evaluator.layout)
    solver = Soap(vector.size, matrices, decayed=matrices, decay=0.1, precision=precision)
    rng = np.random.default_rng(0)

    def call():
        for _ in range(steps):
            chosen = rng.choice(everything, batch, replace=False)
            evaluator.set_parameters(vector * scales)
            value, gradient = evaluator.loss_and_gradient(data, chosen, loss)
            scale_gradient(gradient, scales, batch)
            solver.step(vector, gradient, 1e-3, evaluator.threads)
            add_to_average(average, vector, 1e-3)
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss became {value}")

    return call
