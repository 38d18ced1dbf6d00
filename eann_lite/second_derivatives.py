"""Exact second derivatives of the energy, and the normal modes that follow from them."""

import numpy as np

from eann_lite.batches import draw_batch, pack_structures
from eann_lite.errors import InputError

#: sqrt(eV / Angstrom^2 / amu) as a wavenumber, 1/cm (CODATA 2018).
WAVENUMBER = 521.4708980082235
#: Atoms of all copies of a structure, each with a direction of its own, that are computed together.
ATOMS_AT_A_TIME = 2048


def hessian_products(model, atoms, directions):
    """Hessian times each of ``directions`` (m, n, 3): derivatives (m, n, 3) of -forces in eV/Angstrom^2.

    The Hessian itself is not formed.  Exact, by the tangent of the reverse sweep with respect to positions.  Atoms move
    relative to a fixed cell.  ``model`` is a ``Model`` or the path of a model file, ``atoms`` one ``ase.Atoms`` or
    ``Structure``; InputError for anything else, for a list of structures, and for directions of another shape.

    >>> from ase.build import molecule
    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("H", "O"), cutoff=4.0, densities=8)
    >>> model = Model(specification, initial_parameters(specification, seed=0))
    >>> shift = np.ones((1, 3, 3))
    >>> bool(np.abs(hessian_products(model, molecule("H2O"), shift)).max() < 1e-12)
    True
    """
    from eann_lite.io.model_file import as_model
    from eann_lite.structures import as_one_structure

    model, structure = as_model(model), as_one_structure(atoms)
    specification, n = model.specification, len(structure.numbers)
    directions = np.asarray(directions, dtype=float)
    if directions.shape[-2:] != (n, 3):
        raise InputError(f"directions have shape {directions.shape}: expected (m, {n}, 3), as there are {n} atoms.")
    directions = directions.reshape(-1, n, 3)
    products = np.empty(directions.shape)
    copies = max(1, ATOMS_AT_A_TIME // n)
    for begin in range(0, len(directions), copies):
        part = directions[begin : begin + copies]
        packed = pack_structures([structure] * len(part), specification.elements, specification.reach)
        batch = draw_batch(packed, np.arange(len(part)), len(specification.elements))
        sweeps = model.sweeps
        sweeps.forward(batch, keep=True)
        sweeps.reverse()
        along = sweeps.forces_along(np.ascontiguousarray(part.reshape(-1, 3)[batch.order]))
        products[begin : begin + copies].reshape(-1, 3)[batch.order] = -along
    return products


def hessian(model, atoms, indices=None):
    """Second derivatives (m, 3, m, 3) of the energy in eV/Angstrom^2; entry [i, x, j, y] is -dF_jy/dx_ix.

    indices : the m atoms that move, as whole numbers; the others are held where they are.  None: all, whatever their
        constraints

    Other arguments and errors as for `hessian_products`; InputError for indices that are no such numbers, or twice the
    same.

    >>> from ase.build import molecule
    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("H", "O"), cutoff=4.0, densities=8)
    >>> model = Model(specification, initial_parameters(specification, seed=0))
    >>> hessian(model, molecule("H2O")).shape, hessian(model, molecule("H2O"), indices=[1, 2]).shape
    ((3, 3, 3, 3), (2, 3, 2, 3))
    """
    from eann_lite.io.model_file import as_model
    from eann_lite.structures import as_one_structure

    model, n = as_model(model), as_one_structure(atoms).n_atoms
    moving = np.arange(n) if indices is None else _checked_indices(indices, n)
    directions = np.zeros((moving.size, 3, n, 3))
    for x in range(3):
        directions[np.arange(moving.size), x, moving, x] = 1.0
    products = hessian_products(model, atoms, directions)
    return np.ascontiguousarray(products[:, moving].reshape(moving.size, 3, moving.size, 3))


def _checked_indices(indices, n):
    """(m,) from 0 to n - 1 of atoms; negative ones count from the end, as in Python."""
    try:
        given = np.asarray(indices)
    except ValueError:  # Lists of several lengths.
        given = np.empty((0, 0))
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
        cure = "np.flatnonzero(mask) makes them of a mask" if given.dtype.kind == "b" else "None is the default"
        raise InputError(f"indices = {indices!r}: expected whole numbers, one for each atom that moves; {cure}.")
    if given.min() < -n or given.max() >= n:
        wrong = given[(given < -n) | (given >= n)][0]
        raise InputError(f"indices hold {wrong}, but there are {n} atoms: expected 0 to {n - 1}.")
    moving = given.astype(np.int64) % n
    found, counts = np.unique(moving, return_counts=True)
    if counts.max() > 1:
        raise InputError(f"indices hold atom {found[np.argmax(counts)]} more than once: expected each atom once.")
    return moving


def free_indices(atoms, where="atoms"):
    """Indices (m,) of those of ``ase.Atoms`` that their constraints leave free, as ASE's ``Vibrations`` chooses them.

    ``FixAtoms`` holds an atom, and so do ``FixCartesian`` and ``FixScaled`` in all three directions (extended xyz files
    may have the former for every atom, with nothing held for most).  InputError, which begins with ``where``, for all
    other constraints on atoms that are not held anyway, and where no atom is free.

    >>> from ase.build import molecule
    >>> from ase.constraints import FixAtoms
    >>> water = molecule("H2O")
    >>> water.set_constraint(FixAtoms([0]))
    >>> free_indices(water)
    array([1, 2])
    """
    from ase.constraints import FixAtoms, FixCartesian, FixScaled

    is_free = np.ones(len(atoms), dtype=bool)
    others = []
    for constraint in atoms.constraints:
        mask = constraint.mask if isinstance(constraint, (FixCartesian, FixScaled)) else None
        if isinstance(constraint, FixAtoms) or (mask is not None and mask.all()):
            is_free[constraint.get_indices()] = False
        elif mask is None or mask.any():
            others.append(constraint)
    for constraint in others:
        concerned = np.array(getattr(constraint, "get_indices", list)(), dtype=np.int64)
        if concerned.size == 0:  # A constraint on all atoms together names none.
            concerned = np.arange(len(atoms))
        free_ones = concerned[is_free[concerned]]
        if free_ones.size:
            raise InputError(
                f"{where}: the constraint {type(constraint).__name__} on atom {free_ones[0]} is none that modes are "
                "computed with: expected atoms that are held wholly (FixAtoms) or free. Replace or remove it, or name "
                "the atoms that move, eann_lite.vibrations(model, atoms, indices=[...]), which heeds no constraints."
            )
    if not is_free.any():
        raise InputError(f"{where}: all {len(atoms)} atoms are held still by constraints. Free at least one.")
    return np.flatnonzero(is_free)


def wavenumbers(matrix, masses):
    """Wavenumbers (3 m,) in 1/cm, rising, of a Hessian (m, 3, m, 3) and masses (m,) in amu; imaginary ones negative.

    InputError for a mass that is not positive.
    """
    masses = np.asarray(masses, dtype=float)
    _check_masses(masses, np.arange(masses.size))
    root = np.sqrt(np.repeat(masses, 3))
    flat = matrix.reshape(root.size, root.size)
    values = np.linalg.eigvalsh((flat + flat.T) / 2 / np.outer(root, root))
    return np.sign(values) * np.sqrt(np.abs(values)) * WAVENUMBER


def _check_masses(masses, moving):
    wrong = moving[~(np.isfinite(masses[moving]) & (masses[moving] > 0.0))]
    if wrong.size:
        raise InputError(
            f"the mass of atom {wrong[0]} is {masses[wrong[0]]}: expected a positive number of amu. "
            "atoms.set_masses('defaults') gives those of the elements."
        )


def vibrations(model, atoms, indices=None):
    """``ase.vibrations.VibrationsData`` of a structure, from the exact Hessian: no displacements, no files.

    Gives modes, energies, zero-point energy and pictures for viewers (``write_jmol``), with the masses of the atoms.
    Where some are held, there are no modes of zero wavenumber for the translations and rotations of all.

    indices : the m atoms that move, as in ASE's ``Vibrations``, in any order (the result has them rising); the others
        are held where they are, and constraints play no role.  ``range(len(atoms))``: all.  None: all but those that
        ``FixAtoms`` holds (or ``FixCartesian`` in all three directions)

    Other arguments and errors as for `hessian`.  InputError also for a mass that is not positive, and, without
    indices, for constraints that hold atoms only in part, such as ``FixedLine``.

    >>> from ase.build import molecule
    >>> from ase.constraints import FixAtoms
    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("H", "O"), cutoff=4.0, densities=8)
    >>> model = Model(specification, initial_parameters(specification, seed=0))
    >>> water = molecule("H2O")
    >>> water.set_constraint(FixAtoms([0]))
    >>> vibrations(model, water).get_indices(), vibrations(model, water, indices=range(3)).get_energies().shape
    (array([1, 2]), (9,))
    """
    from ase.vibrations import VibrationsData

    from eann_lite.io.model_file import as_model
    from eann_lite.structures import Structure, as_one_structure

    model = as_model(model)
    as_one_structure(atoms)
    atoms = atoms.to_atoms() if isinstance(atoms, Structure) else atoms
    moving = free_indices(atoms) if indices is None else np.sort(_checked_indices(indices, len(atoms)))
    _check_masses(atoms.get_masses(), moving)
    # Rising: VibrationsData takes masses by a mask, so in no other order.
    return VibrationsData(atoms, hessian(model, atoms, moving), indices=moving)
