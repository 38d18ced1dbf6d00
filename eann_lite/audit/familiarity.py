"""What the model can know: atoms outside the training densities, and whether densities tell structures apart."""

import time

import numpy as np

from eann_lite.audit.case import MOVED, source_text
from eann_lite.audit.check import OK, WARNING, Check, judged

#: A singular value below this part of the largest one is none.
RANK = 1e-9
#: Atoms of an environment at the most; for more the derivatives take long.
MOST_ATOMS = 40


def check_outside(case, seconds):
    """(checks, record): the part of the audited atoms outside the training densities, element by element."""
    bounds = getattr(case.model, "bounds", None)
    elements = case.model.specification.elements
    names = [f"{element} outside the training densities" for element in elements]
    if bounds is None:
        return [Check(name, detail="Not known: the model file has no bounds.") for name in names], {}
    from eann_lite.extrapolation import OUTSIDE

    atoms = [(subject.name, subject.atoms) for subject in case.subjects]
    if case.data:
        per_structure = min(subject.seconds / len(subject.atoms) for subject in case.subjects)
        most, total = seconds / (2 * per_structure), 0
        for q in case.rng().permutation(len(case.data)):
            total += case.data[q].n_atoms
            if total > most:
                break
            atoms.append((source_text(case.data[q], q), case.data[q]))
    results = case.model.evaluate([one for _, one in atoms])
    record, checks = {}, []
    for element, name in zip(elements, names):
        found = []
        for (where, one), result in zip(atoms, results):
            symbols = one.symbols if hasattr(one, "n_atoms") else one.get_chemical_symbols()
            found += [
                (float(d), where, k) for k, (d, s) in enumerate(zip(result.extrapolation, symbols)) if s == element
            ]
        if not found:
            checks.append(Check(name, detail="None of the audited structures holds this element."))
            continue
        farthest, where, atom = max(found)
        part = float(np.mean([distance > OUTSIDE for distance, _, _ in found]))
        text = f"{len(found)} atoms; the farthest is atom {atom}: {farthest:.3g} (up to {OUTSIDE:g} is inside)."
        checks.append(Check(name, part, "of the atoms", 0.0, WARNING if part else OK, where, text))
        record[element] = {"atoms": len(found), "part_outside": part, "farthest": farthest}
    return checks, record


def check_sensitivity(case, seconds):
    """(checks, record): how many of the 3n - 3 ways in which n neighbours can move (turns taken out) show in the final
    densities of their centre, for one environment or more of each element.

    All atoms are moved a little at random first: where they are placed with symmetry, derivatives vanish for good
    reasons.
    """
    elements, until = case.model.specification.elements, time.monotonic() + seconds
    names = {element: f"movements unseen around {element}" for element in elements}
    centres = []
    for subject in case.subjects:
        cost, moved = 0.0, subject.atoms.copy()
        moved.rattle(MOVED, seed=case.seed)
        for centre, symbol in enumerate(subject.atoms.get_chemical_symbols()):
            cluster = environment(moved, centre, case.model.specification.cutoff)
            if len(cluster) < 3 or len(cluster) > MOST_ATOMS:
                continue
            if [c["element"] for c in centres].count(symbol) and time.monotonic() + cost > until:
                continue
            start = time.monotonic()
            singular = np.linalg.svd(density_derivatives(case.model, cluster), compute_uv=False)
            cost = time.monotonic() - start
            ways = 3 * (len(cluster) - 1) - 3
            rank = int(np.sum(singular > RANK * singular[0])) if singular[0] > 0.0 else 0
            centres.append(
                {
                    "element": symbol, "structure": subject.name, "atom": centre, "neighbors": len(cluster) - 1,
                    "ways": ways, "rank": rank, "singular_values": singular[:ways].tolist(),
                }
            )  # fmt: skip
        if {c["element"] for c in centres} == set(elements):
            break
    checks = [
        _rank_line(names[element], [c for c in centres if c["element"] == element], case.model) for element in elements
    ]
    return checks, {"centres": centres, "elements": list(elements), "threshold": RANK} if centres else {}


def environment(atoms, centre, cutoff):
    """``ase.Atoms`` of an atom, first, and all atoms and images within the cutoff, not periodic."""
    from ase import Atoms

    from eann_lite.neighbors import neighbor_pairs

    pairs = neighbor_pairs(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    row = slice(pairs.first[centre], pairs.first[centre + 1])
    near = pairs.neighbor[row]
    positions = atoms.positions[near] + pairs.shift[row] @ atoms.cell.array
    return Atoms(atoms.numbers[np.r_[centre, near]], positions=np.vstack([atoms.positions[centre], positions]))


def density_derivatives(model, atoms):
    """Exact derivatives (M, 3n) of the final densities of atom 0 with respect to the positions of the n others."""
    from eann_lite.model.descriptors import descriptors

    found = descriptors(atoms, model, derivatives=True)
    matrix = np.zeros((found.values.shape[1], len(atoms), 3))
    of_first = found.center == 0
    matrix[:, found.moved[of_first]] = found.derivatives[of_first].transpose(2, 0, 1)
    return matrix[:, 1:].reshape(len(matrix), -1)


def _rank_line(name, centres, model):
    if not centres:
        text = f"No audited structure has such an atom with 2 to {MOST_ATOMS - 1} neighbours."
        return Check(name, detail=text)
    worst = max(centres, key=lambda centre: centre["ways"] - centre["rank"])
    unseen, singular = worst["ways"] - worst["rank"], worst["singular_values"]
    smallest = singular[worst["rank"] - 1] / singular[0] if worst["rank"] else 0.0
    text = (
        f"With atoms moved by {MOVED} A, {worst['neighbors']} neighbours can move in {worst['ways']} ways (3n - 3); "
        f"{worst['rank']} show in the densities, the weakest {smallest:.1g} as strongly as the strongest."
    )
    few, where = model.specification.densities, f"{worst['structure']}, atom {worst['atom']}"
    if few < worst["ways"]:
        text += f" {few} densities cannot show more than {few}."
    return judged(name, unseen, f"of {worst['ways']}", max(0, worst["ways"] - few), where, text, WARNING)
