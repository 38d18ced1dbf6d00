"""What a single model can learn from several that were fitted to the same data: their mean, on displaced copies."""

from dataclasses import replace

import numpy as np

from eann_lite.errors import InputError

#: Displaced copies of every structure, and the weight of a structure with labels of its own where a copy has 1.
COPIES, LABELLED_WEIGHT = 8, 3.0
#: What a displacement is multiplied by where it brings atoms too close, until it does not, and how often at most.
SHRINK, SHRINKS = 0.9, 40


def with_copies(models, structures, seed, threads=None):
    """The structures, with more weight, and copies of them that the committee labels: what the last fit takes."""
    labelled = [replace(structure, weight=LABELLED_WEIGHT * structure.weight) for structure in structures]
    return labelled + displaced_copies(models, structures, seed=seed, threads=threads)


def displaced_copies(models, structures, *, copies=COPIES, displacement=0.2, seed=0, threads=None):
    """List of up to ``copies`` times as many structures, their energies and forces the means of several models.

    models : list of ``Model`` that know all elements, such as fits that differ by their seeds
    structures : list of ``Structure``
    displacement : standard deviation of each coordinate's displacement, normal, in Angstrom; smaller where atoms would
        come too close
    seed, threads : of the displacements; of the predictions (default: those Numba is set to)

    The mean of models that were fitted to the same data errs less than each of them, but costs as much as all of them.
    A model fitted to the data and to such copies comes close to the mean, since it sees, at no cost of new labels, how
    the mean goes on between the data (after G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural
    Network", arXiv 1503.02531).  No atoms of a copy are closer than those of its pair of elements ever are in
    ``structures``, where the models know nothing; structures whose atoms are all that close have no copies.  Copies
    have no stress, and the weight of their structure.

    Raises InputError for no models or no structures.

    >>> from eann_lite import Model, Specification, Structure
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("H",), cutoff=3.0, radial=4)
    >>> models = [Model(specification, initial_parameters(specification, seed)) for seed in (0, 1)]
    >>> hydrogen = Structure([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.7]], energy=-31.7)
    >>> [copy.energy is not None for copy in displaced_copies(models, [hydrogen], copies=3)]
    [True, True, True]
    """
    from eann_lite.structures.distances import shortest_distances
    from eann_lite.training.objective import labelled_set, predict

    for what, given in (("models", models), ("structures", structures)):
        if not given:
            raise InputError(f"no {what}: expected a list with at least one.")
    closest = shortest_distances(structures).by_elements
    rng = np.random.default_rng(seed)
    made = [_displaced(structure, closest, displacement, rng) for _ in range(copies) for structure in structures]
    made = [copy for copy in made if copy is not None]
    if not made:
        return []
    sets = {}
    energies, forces = 0.0, 0.0
    for model in models:
        # Models of one specification share the pairs.
        if model.specification not in sets:
            sets[model.specification] = labelled_set(made, model.specification)
        found = predict(model, sets[model.specification], threads)
        energies, forces = energies + found.energies / len(models), forces + found.forces / len(models)
    ends = np.cumsum([structure.n_atoms for structure in made])[:-1]
    return [replace(s, energy=float(e), forces=f) for s, e, f in zip(made, energies, np.split(forces, ends))]


def _pair_distances(structure, reach):
    """(numbers (P, 2) of the two atoms, smaller first; distances (P,)) of all pairs within reach."""
    from eann_lite.neighbors import neighbor_pairs

    pairs = neighbor_pairs(structure.positions, structure.cell, structure.pbc, reach)
    i = np.repeat(np.arange(structure.n_atoms), np.diff(pairs.first))
    vectors = structure.positions[pairs.neighbor] - structure.positions[i] + pairs.shift @ structure.cell
    numbers = np.sort(structure.numbers[np.stack([i, pairs.neighbor], axis=1)], axis=1)
    return numbers, np.linalg.norm(vectors, axis=1)


def _displaced(structure, closest, displacement, rng):
    """A copy without labels whose atoms are displaced, none closer than ``closest``; None if none is found."""
    from eann_lite.elements import chemical_symbol

    reach = max((distance for distance, _ in closest.values()), default=1.0)
    for _ in range(SHRINKS):
        positions = structure.positions + displacement * rng.standard_normal((structure.n_atoms, 3))
        copy = replace(structure, positions=positions, energy=None, forces=None, stress=None)
        numbers, distances = _pair_distances(copy, reach)
        names = ["-".join(sorted(map(chemical_symbol, pair))) for pair in numbers.tolist()]
        if all(distance >= closest.get(name, (np.inf, -1))[0] for name, distance in zip(names, distances)):
            return copy
        displacement *= SHRINK
    return None
