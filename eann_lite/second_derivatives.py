"""Exact second derivatives of the energy, and the normal modes that follow from them."""

import numpy as np

from eann_lite.batches import draw_batch, pack_structures

#: sqrt(eV / Angstrom^2 / amu) as a wavenumber, 1/cm (CODATA 2018).
WAVENUMBER = 521.4708980082235
#: Atoms of all copies of a structure, each with a direction of its own, that are computed together.
ATOMS_AT_A_TIME = 2048


def hessian_products(model, atoms, directions):
    """Hessian times each of ``directions`` (m, n, 3): derivatives (m, n, 3) of -forces in eV/Angstrom^2.

    The Hessian itself is not formed.  Exact, by the tangent of the reverse sweep with respect to positions.  Atoms move
    relative to a fixed cell.  ``model`` is a ``Model`` or the path of a model file, ``atoms`` one ``ase.Atoms`` or
    ``Structure``; InputError for anything else, and for a list of structures.

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
    directions = np.asarray(directions, dtype=float).reshape(-1, n, 3)
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


def hessian(model, atoms):
    """Second derivatives (n, 3, n, 3) of the energy in eV/Angstrom^2; entry [i, x, j, y] is -dF_jy/dx_ix.

    Arguments and errors as for `hessian_products`.

    >>> from ase.build import molecule
    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("H", "O"), cutoff=4.0, densities=8)
    >>> hessian(Model(specification, initial_parameters(specification, seed=0)), molecule("H2O")).shape
    (3, 3, 3, 3)
    """
    from eann_lite.io.model_file import as_model
    from eann_lite.structures import as_one_structure

    model, n = as_model(model), as_one_structure(atoms).n_atoms
    return hessian_products(model, atoms, np.eye(3 * n)).reshape(n, 3, n, 3)


def wavenumbers(matrix, masses):
    """Wavenumbers (3 n,) in 1/cm, rising, of a Hessian (n, 3, n, 3) and masses (n,) in amu; imaginary ones negative."""
    root = np.sqrt(np.repeat(masses, 3))
    flat = matrix.reshape(root.size, root.size)
    values = np.linalg.eigvalsh((flat + flat.T) / 2 / np.outer(root, root))
    return np.sign(values) * np.sqrt(np.abs(values)) * WAVENUMBER


def vibrations(model, atoms):
    """``ase.vibrations.VibrationsData`` of a structure, from the exact Hessian: no displacements, no files.

    Gives modes, energies, zero-point energy and pictures for viewers (``write_jmol``).  Constrained atoms take part.
    Arguments and errors as for `hessian`.
    """
    from ase.vibrations import VibrationsData

    from eann_lite.structures import Structure

    # Before the copy: what is no structure is refused there.
    matrix = hessian(model, atoms)
    free = atoms.to_atoms() if isinstance(atoms, Structure) else atoms.copy()
    free.set_constraint()
    return VibrationsData(free, matrix)
