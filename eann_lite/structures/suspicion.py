"""What looks wrong in a set of structures: every test is simple, documented here, and quiet on sound data.

The limits were chosen on public sets (organic molecules, random CH4, liquid water, Cu, Ge, CO2 on Ni; all-electron and
pseudopotential energies): none of them is warned about, while copies of them in Hartree and Bohr or in kcal/mol are.
"""

import numpy as np

from eann_lite.structures.agreement import (
    bulk_modulus,
    closest_atoms_against_forces,
    energies_against_derivatives,
    explained,
)
from eann_lite.structures.distances import shortest_distances
from eann_lite.structures.structure import as_structures
from eann_lite.structures.summary import composition_matrix, find_duplicates
from eann_lite.structures.units import ENERGY_UNITS, PRESSURE_UNITS

#: Force components above this (eV/Angstrom) are suspicious.
LARGEST_FORCE = 1e3
#: Atoms closer than this (Angstrom) are suspicious.
CLOSEST_ATOMS = 0.35
#: Energies off by more than this many robust standard deviations and this much (eV) are suspicious ...
OUTLIER_SIGMAS, OUTLIER_ENERGY = 20.0, 1.0
#: ... unless more than this part of a group are, which then has a wide distribution and no outliers.
OUTLIER_PART = 0.05
#: Fewest structures whose spread can be judged.
FEWEST = 10
#: How many structures a warning names.
NAMED = 5

#: Nearest-neighbour distances as multiples of the sum of covalent radii: the 5% quantile is 0.8 to 1.2 for matter in
#: Angstrom, dense or dilute, 1.5 and more for the same in Bohr, a tenth in nanometres.
BOHR_RATIO, NANOMETRE_RATIO = 1.4, 0.25
#: Hartree-Fock energies (Hartree) of the free atoms H to Kr (Bunge, Barrientos, Bunge, At. Data Nucl. Data Tables 53,
#: 113 (1993)); all-electron energies of molecules and solids are 0.2 to 2% lower.
ATOMIC_ENERGIES = (
    -0.500, -2.862, -7.433, -14.573, -24.529, -37.689, -54.401, -74.809, -99.409, -128.547, -161.859, -199.615,
    -241.877, -288.854, -340.719, -397.505, -459.482, -526.818, -599.165, -676.758, -759.736, -848.406, -942.884,
    -1043.356, -1149.866, -1262.444, -1381.415, -1506.871, -1638.964, -1777.848, -1923.261, -2075.360, -2234.239,
    -2399.868, -2572.441, -2752.055,
)  # fmt: skip
ALL_ELECTRON_RANGE = 0.99, 1.03
#: Lower than all electrons together by this factor: no choice of pseudopotentials gives that.
TOO_LOW = 1.15
#: Energies (Hartree, rounded) of free atoms whose core is a norm-conserving pseudopotential (H 1, C 4, O 6 electrons).
VALENCE_ENERGIES = {1: -0.5, 6: -5.4, 7: -9.8, 8: -15.9, 9: -24.2, 14: -3.8, 15: -6.5, 16: -10.1, 17: -15.0}
VALENCE_RANGE = 0.97, 1.06
#: Spring constants (eV/Angstrom^2) that forces and energies together tell (see `_stiffness`): soft solids 0.3,
#: molecules 5 to 40, nothing above 150.  Below SOFT energies may be in Hartree; between STIFF and IMPOSSIBLE energies
#: and forces fit each other in eV; above it they do not.
SOFT, STIFF, IMPOSSIBLE = 3.0, 5.0, 300.0
#: Forces below this (eV/Angstrom, rms) are those of small displacements, which may all have one energy.
NOTABLE_FORCE = 0.5
#: Factors by which energies may change compared with what forces and stresses say: anharmonic steps give 0.5 to 1.1,
#: and 1/3 or little less from one side of a minimum to the other, where all but the cubic part cancels.
AGREEING = 0.27, 3.0
#: Factors of forces beside which that of stresses is judged: steps far beyond what is linear end anywhere.
NEARLY_LINEAR = 0.7, 1.5
#: Energies that change by the reciprocal number of atoms times what forces say, up to this (relative), are per atom.
EXPLAINED = 0.2
#: Closest atoms whose pushing apart grows with their distance, by this rank correlation, while no more than this part
#: of them is pushed apart, have gradients instead of forces.
GROWING, PUSHED = 0.5, 0.75
#: Bulk moduli (eV/Angstrom^3) are below 3 (diamond; 450 GPa), over volumes down to half of that at rest below 7.
LARGEST_MODULUS = 15.0
#: Correlations must be so many times what chance gives.
CHANCE = 4.0


def warnings_for(structures):
    """Warnings (list of texts, empty if all looks sound) about structures, named by their indices from 0.

    What is tested: force components above 1000 eV/Angstrom; atoms closer than 0.35 Angstrom; distances that smell of
    Bohr or nanometres; energies that smell of Hartree, Rydberg, kcal/mol or kJ/mol, or that do not fit the forces;
    forces of the wrong sign; energies per atom where structures are alike enough to tell; stresses of another sign or
    unit, where structures are alike or cells have several volumes; energies far (20 robust standard deviations) from
    those of like structures, or, where each composition is rare, from a least-squares energy for each element, and not
    explained by forces on the way there; atoms whose force is exactly zero although the others do not balance
    (constraints applied when the file was written); exact duplicates; missing labels.

    >>> from ase import Atoms
    >>> warnings_for(Atoms("H2", [[0, 0, 0], [0, 0, 0.2]]))[0]  # doctest: +ELLIPSIS
    'atoms closer than 0.35 A in 1 structure: structure 0 (0.200 A, H-H, atoms 0 and 1). ...'
    """
    structures = as_structures(structures)
    shortest = shortest_distances(structures)
    with np.errstate(over="ignore", invalid="ignore"):  # Labels may be any numbers.
        return [
            *_large_forces(structures),
            *_close_atoms(structures, shortest),
            *_odd_lengths(shortest),
            *_odd_energies(structures, shortest),
            *_energy_outliers(structures),
            *_zeroed_forces(structures),
            *_duplicates(structures),
            *_missing_labels(structures),
        ]


# ---- naming ---------------------------------------------------------------------------------------------------------


def _name(structures, i, remark=""):
    source = structures[i].source
    details = [source] if source and source != f"structure {i}" else []
    details += [remark] if remark else []
    return f"structure {i}" + (f" ({', '.join(details)})" if details else "")


def _names(structures, found, remarks=None):
    """The first few of the structures with indices ``found``, and how many more."""
    remarks = remarks or [""] * len(found)
    text = ", ".join(_name(structures, i, remark) for i, remark in list(zip(found, remarks))[:NAMED])
    return text + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def _count(found):
    return f"{len(found)} structure" + ("" if len(found) == 1 else "s")


# ---- forces and distances -------------------------------------------------------------------------------------------


def _large_forces(structures):
    found, remarks = [], []
    for i, structure in enumerate(structures):
        if structure.forces is not None and np.abs(structure.forces).max() > LARGEST_FORCE:
            atom, x = np.unravel_index(np.argmax(np.abs(structure.forces)), structure.forces.shape)
            found.append(i)
            remarks.append(f"{structure.forces[atom, x]:.4g} eV/A, atom {atom} {structure.symbols[atom]}")
    if found:
        yield (
            f"force components above {LARGEST_FORCE:g} eV/A in {_count(found)}: {_names(structures, found, remarks)}. "
            "Remove such structures, or check the units of the forces."
        )


def _close_atoms(structures, shortest):
    found = [int(i) for i in np.argsort(shortest.per_structure, kind="stable")]
    found = [i for i in found if shortest.per_structure[i] < CLOSEST_ATOMS]
    remarks = []
    for i in found:
        first, second = sorted((shortest.first[i], shortest.second[i]))
        symbols = structures[i].symbols
        remarks.append(
            f"{shortest.per_structure[i]:.3f} A, {symbols[first]}-{symbols[second]}, atoms {first} and {second}"
        )
    if found:
        yield (
            f"atoms closer than {CLOSEST_ATOMS} A in {_count(found)}: {_names(structures, found, remarks)}. "
            "Remove such structures, or check the units of the positions and whether they are fractional."
        )


def _odd_lengths(shortest):
    ratios = shortest.per_atom[np.isfinite(shortest.per_atom)]
    if ratios.size == 0:
        return
    ratio = float(np.quantile(ratios, 0.05))
    unit = "Bohr" if ratio > BOHR_RATIO else "nm" if ratio < NANOMETRE_RATIO else None
    if unit:
        yield (
            f"lengths look like {unit}, not Angstrom: nearest neighbours are {ratio:.2f} times the sum of their "
            f"covalent radii apart (5% quantile; 0.8 to 1.2 is usual). If so, read with length_unit={unit!r}."
        )


# ---- energies -------------------------------------------------------------------------------------------------------


def _all_electron(z):
    # Beyond krypton the Thomas-Fermi-like 0.5 Z^2.4 Hartree is good to a few percent up to gold.
    return ATOMIC_ENERGIES[z - 1] if z <= len(ATOMIC_ENERGIES) else -0.5 * z**2.4


def _odd_energies(structures, shortest):
    """Mean energies against what all electrons, or all valence electrons, of the atoms have; and against forces.

    One reason at most: energies in another unit do not fit the forces either.
    """
    labelled = [i for i, s in enumerate(structures) if s.energy is not None and s.n_atoms > 1]
    agreement = energies_against_derivatives(structures)
    gradients = _gradients(structures, shortest, agreement)
    if gradients or not labelled:
        yield from gradients
        return
    stiffness, force = _stiffness(structures, labelled)
    unit, why = _likely_unit(structures, labelled, stiffness)
    if why is not None:
        per_atom = np.sum([structures[i].energy for i in labelled]) / sum(structures[i].n_atoms for i in labelled)
        name = unit or "another unit (kcal/mol or kJ/mol?)"
        cure = f"energy_unit={unit!r}" if unit else "the right energy_unit"
        mean = f"the mean, {per_atom:.4f} per atom"
        yield f"energies look like {name}, not eV: {mean}, is {why}. If so, read with {cure}."
    elif _per_atom(agreement):
        name = "stresses" if agreement.forces is None else "forces"
        factor = agreement.stress if agreement.forces is None else agreement.forces
        yield (
            f"energies look like energies per atom: between like structures they change by {factor:.3g} times what the "
            f"{name} say ({_pairs(agreement)}, of {agreement.n_atoms:g} atoms). Energies of whole structures are "
            f"expected: multiply them by the number of atoms{_or_a_unit(factor)}."
        )
    elif stiffness is not None and stiffness > IMPOSSIBLE and force > NOTABLE_FORCE:
        yield (
            f"energies and forces do not look like eV and eV/A: forces are {force:.3g} rms, but energies vary so "
            f"little that springs of {stiffness:.3g} eV/A^2 would be needed (molecules: 5 to 40). Check energy_unit "
            "and forces_unit."
        )
    elif agreement.forces is not None and not AGREEING[0] < agreement.forces < AGREEING[1]:
        yield (
            f"energies and forces do not fit each other: between like structures energies change by "
            f"{agreement.forces:.3g} times what the forces say ({_pairs(agreement)}). Check energy_unit and "
            f"forces_unit{', the sign of the forces' if agreement.forces < 0.0 else ''}, and that energies are those "
            "of whole structures."
        )
    else:
        yield from _odd_stresses(structures, agreement)


def _gradients(structures, shortest, agreement):
    """[warning] about forces of the wrong sign, by how energies change, else by what the closest atoms do; or []."""
    if agreement.forces is not None:
        if agreement.forces > -AGREEING[0]:
            return []
        why = (
            f"between like structures energies change by {agreement.forces:.3g} times what the forces say "
            f"({_pairs(agreement)})"
        )
    else:
        closest = closest_atoms_against_forces(structures, shortest)
        if closest is None or closest[1] > PUSHED:
            return []
        # Chance, such as the noise of rigid molecules, gives correlations around 1 / sqrt(n).
        if closest[0] < max(GROWING, CHANCE / np.sqrt(closest[2])):
            return []
        why = (
            f"the closest atoms of {closest[2]} structures are driven apart more strongly the farther they are apart "
            f"(rank correlation {closest[0]:.2f}; sound forces have one near -1)"
        )
    cure = "change their sign in the file, or name the right ones with forces_key"
    return [f"forces look like gradients, of the wrong sign: {why}. Forces are minus the energy's derivative: {cure}."]


def _pairs(agreement):
    return f"{agreement.pairs} pairs of structures that follow each other"


def _per_atom(agreement):
    """Whether energies change by the reciprocal of the number of atoms times what all else says."""
    factors = [factor for factor in (agreement.forces, agreement.stress) if factor is not None]
    return bool(factors) and all(
        factor < AGREEING[0] and abs(factor * agreement.n_atoms - 1.0) < EXPLAINED for factor in factors
    )


def _or_a_unit(factor):
    """What else may be where energies change by so much less than expected."""
    causes = []
    for unit, value in ENERGY_UNITS.items():
        causes.append((abs(factor * value - 1.0), f"they are in {unit}: then read with energy_unit={unit!r}"))
        in_force = f"forces are in {unit}/A: then read with forces_unit='{unit}/Angstrom'"
        causes.append((abs(factor / value - 1.0), in_force))
    off, cause = min(causes)
    return f", unless {cause}" if off < EXPLAINED else ""


def _odd_stresses(structures, agreement):
    """By how energies change with the cell, else by what bulk modulus the stresses would have."""
    is_linear = agreement.forces is None or NEARLY_LINEAR[0] < agreement.forces < NEARLY_LINEAR[1]
    if agreement.stress is not None and is_linear:
        factor = agreement.stress
        is_negative, is_of_unit = factor < 0.0, AGREEING[0] < abs(factor) < AGREEING[1]
        change = f"energies change by {factor:.3g} times what the stresses say"
        why = f"between like structures {change} ({_pairs(agreement)})"
        unit = next((u for u, v in PRESSURE_UNITS.items() if AGREEING[0] < abs(factor) / v < AGREEING[1]), None)
    else:
        modulus, number = bulk_modulus(structures) or (0.0, 0)
        is_negative, is_of_unit, unit = modulus < 0.0, abs(modulus) < LARGEST_MODULUS, None
        in_gpa = modulus / PRESSURE_UNITS["GPa"]
        why = f"as {number} cells of several volumes have them, the bulk modulus would be {in_gpa:.3g} GPa"
    looks, cures = [], []
    if is_negative:
        looks.append("of the wrong sign")
        cures.append("change their sign in the file (a stress is positive where stretched, unlike a pressure)")
    if not is_of_unit:
        looks.append("in another unit" + (f" ({unit}, if they were read in eV/A^3)" if unit else ""))
        cures.append(
            "read with the right stress_unit" + (f", such as stress_unit={unit!r}" if unit else "")
            + " (a virial is in energy_unit)"
        )  # fmt: skip
    if looks:
        yield f"stresses seem to be {' and '.join(looks)}: {why}. If so, {' and '.join(cures)}."


def _likely_unit(structures, labelled, stiffness):
    """(unit, why) if the energies are not in eV, the unit None where it is not told; (None, None) if they may be."""
    matrix, elements = composition_matrix([structures[i] for i in labelled])
    energy = np.sum([structures[i].energy for i in labelled])
    present = {int(z) for z in elements}

    def matching(table, limits, units):
        """Unit in which the energies are those of the table (Hartree), within limits, or None; and the ratio in eV."""
        ratio = energy / (matrix.sum(axis=0) @ [table(int(z)) for z in elements] * ENERGY_UNITS["Hartree"])
        return next((u for u in units if limits[0] < ratio * ENERGY_UNITS[u] < limits[1]), None), ratio

    unit, ratio = matching(_all_electron, ALL_ELECTRON_RANGE, ("Hartree", "Ry", "kcal/mol", "kJ/mol"))
    valence = present <= set(VALENCE_ENERGIES)
    if ratio > TOO_LOW:
        if unit is None and valence:
            unit, _ = matching(VALENCE_ENERGIES.get, VALENCE_RANGE, ("kcal/mol", "kJ/mol"))
        return unit, f"{ratio:.3g} times what all electrons of these atoms have"
    plausible = stiffness is not None and STIFF < stiffness < IMPOSSIBLE
    if unit is not None and max(present) <= len(ATOMIC_ENERGIES) and not plausible:
        return unit, f"what all electrons of these atoms have in {unit}"
    if valence and stiffness is not None and stiffness < SOFT:
        unit, _ = matching(VALENCE_ENERGIES.get, VALENCE_RANGE, ("Hartree", "Ry"))
        if unit is not None:
            return unit, f"what the valence electrons of these atoms have in {unit}, and forces are weak for eV/A"
    return None, None


def _stiffness(structures, labelled):
    """(k, rms force): the spring constant (eV/Angstrom^2) at which the forces explain the spread of the energies.

    For n atoms that vibrate thermally about one place on springs k, <F^2> = k kT for each component and
    std(E) = sqrt(3 n / 2) kT, so k = sqrt(3 n / 2) <F^2> / std(E).  (None, None) where it cannot be told.
    """
    both = [i for i in labelled if structures[i].forces is not None]
    if len(both) < FEWEST:
        return None, None
    square = np.mean(np.concatenate([structures[i].forces.ravel() for i in both]) ** 2)
    n = np.array([structures[i].n_atoms for i in both])
    matrix, _ = composition_matrix([structures[i] for i in both])
    spread = np.std(_off_composition(np.array([structures[i].energy for i in both]), matrix) / np.sqrt(n))
    if spread == 0.0:
        return None, None
    return float(np.sqrt(1.5) * square / spread), float(np.sqrt(square))


def _off_composition(energy, matrix):
    """Energies (eV) minus the energy for each element that fits best in the sense of absolute deviations."""
    n = matrix.sum(axis=1)
    weight = 1.0 / n
    rest = energy
    # Least squares, reweighted so that a few wrong energies do not bend the fit.
    for _ in range(15):
        rest = energy - matrix @ np.linalg.lstsq(matrix * weight[:, None], energy * weight, rcond=None)[0]
        deviation = np.abs(rest) / n
        weight = 1.0 / (n * np.sqrt(np.maximum(deviation, 1e-6 + 1e-3 * np.median(deviation))))
    return rest


def _energy_outliers(structures):
    """Each structure against those of the same composition and periodicity; rare ones against a fit by elements."""
    labelled = [i for i, s in enumerate(structures) if s.energy is not None and s.n_atoms > 1]
    groups = {}
    for i in labelled:
        key = np.bincount(structures[i].numbers, minlength=119).tobytes() + structures[i].pbc.tobytes()
        groups.setdefault(key, []).append(i)
    rare = [i for group in groups.values() if len(group) < FEWEST for i in group]
    found, remarks = [], []
    for group in [*(group for group in groups.values() if len(group) >= FEWEST), rare]:
        if len(group) < FEWEST:
            continue
        matrix, _ = composition_matrix([structures[i] for i in group])
        n = matrix.sum(axis=1)
        rest = _off_composition(np.array([structures[i].energy for i in group]), matrix) / n
        rest -= np.median(rest)
        sigma = 1.4826 * np.median(np.abs(rest))
        off = np.flatnonzero((np.abs(rest) > OUTLIER_SIGMAS * sigma) & (np.abs(rest) * n > OUTLIER_ENERGY))
        if off.size <= max(1, OUTLIER_PART * len(group)):
            found += [group[k] for k in off]
            remarks += [f"{structures[group[k]].energy:.6g} eV, off by {rest[k]:+.3g} eV/atom" for k in off]
    if found:
        # As the beginning of a relaxation, most of whose structures are next to its end.
        sound = explained(structures, found)
        remarks = [remark for i, remark in zip(found, remarks) if i not in sound]
        found = [i for i in found if i not in sound]
    if found:
        yield (
            f"energies far from those of like structures (more than {OUTLIER_SIGMAS:g} robust standard deviations) in "
            f"{_count(found)}: {_names(structures, found, remarks)}. Compute them again or remove them."
        )


# ---- labels and copies ----------------------------------------------------------------------------------------------


def _zeroed_forces(structures):
    """Some atoms with a force of exactly zero while the sum of all forces is far from it: applied constraints."""
    found, remarks = [], []
    for i, structure in enumerate(structures):
        if structure.forces is None:
            continue
        zero = ~structure.forces.any(axis=1)
        if 0 < zero.sum() < structure.n_atoms:
            total = np.linalg.norm(structure.forces.sum(axis=0))
            if total > 0.1 and total > 0.1 * np.linalg.norm(structure.forces, axis=1).sum():
                found.append(i)
                remarks.append(f"{zero.sum()} atoms, sum of forces {total:.3g} eV/A")
    if found:
        yield (
            f"forces of some atoms exactly zero, while the others do not balance, in {_count(found)}: "
            f"{_names(structures, found, remarks)}. Constraints were probably applied when the file was written: write "
            "it again with get_forces(apply_constraint=False), or the model learns forces that are not there."
        )


def _duplicates(structures):
    groups = find_duplicates(structures)
    if not groups:
        return
    texts = []
    for group in groups[:NAMED]:
        energies = [structures[i].energy for i in group if structures[i].energy is not None]
        differ = f" with energies up to {max(energies) - min(energies):.3g} eV apart" if len(set(energies)) > 1 else ""
        more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
        texts.append(f"{', '.join(map(str, group[:NAMED]))}{more}{differ}")
    rest = f"; and {len(groups) - NAMED} more groups" if len(groups) > NAMED else ""
    copies = sum(len(group) - 1 for group in groups)
    yield (
        f"exact duplicates, {copies} more than different ones: structures {'; '.join(texts)}{rest}. Remove copies: one "
        "in training and one in the test set spoils the test, and no model fits two energies of one structure."
    )


def _missing_labels(structures):
    bare = [i for i, s in enumerate(structures) if s.energy is None and s.forces is None and s.stress is None]
    without_energy = [
        i for i, s in enumerate(structures) if s.energy is None and (s.forces is not None or s.stress is not None)
    ]
    if len(bare) == len(structures):
        yield "no structure has an energy, forces or a stress: nothing to fit. Name the keys, e.g. energy_key='...'."
        return
    if bare:
        yield f"no energy, forces or stress in {_count(bare)}: {_names(structures, bare)}. They are of no use in a fit."
    if 0 < len(without_energy) < len(structures) - len(bare):
        yield (
            f"no energy, though other structures have one, in {_count(without_energy)}: "
            f"{_names(structures, without_energy)}. They count with their other labels only."
        )
