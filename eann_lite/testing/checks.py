"""One call that holds a calculator to the laws on random structures, and shows the smallest one that breaks one."""

import warnings

try:
    import hypothesis
except ImportError as error:
    raise ImportError('eann_lite.testing.check_laws needs Hypothesis: pip install "eann_lite[test]"') from error

from eann_lite.errors import InputError
from eann_lite.testing.laws import LAWS
from eann_lite.testing.strategies import ATOMS_KINDS, PERIODIC, atoms

#: Kinds of structures that a law says something about, where these are not all.
KINDS_OF_LAW = {
    "supercell": PERIODIC,
    "periodic_images": PERIODIC,
    "stress_is_gradient": PERIODIC,
    "additivity": ("cluster", "slab", "wire"),
    # Anything else takes seconds for each structure and shows no other cutoffs.
    "smooth_at_cutoff": ("cluster",),
}
#: A law that evaluates hundreds of structures for one example gets a tenth of the examples, of at most 3 atoms, and no
#: time to shrink them: the first ones drawn are the smallest.
SMOOTH_PART, SMOOTH_MOST = 10, 3


class _Broken(Exception):
    """Raised inside Hypothesis, so that it shrinks the structure."""


def check_laws(
    calculator, elements, laws=None, max_examples=200, seed=None, kinds=ATOMS_KINDS, most=5, closest=None, density=None,
    **limits,
):  # fmt: skip
    """Hold an ASE calculator to the laws of ``eann_lite.testing.laws`` on random structures.

    calculator : any ASE calculator with energy and forces; stress is checked where it has one.
    elements : chemical symbols that structures are made of.
    laws : names out of ``LAWS``; default: all.
    max_examples : structures for each law (a tenth of it for ``smooth_at_cutoff``, which scans distances).
    seed : None draws the same structures every time; a number draws others.
    kinds, most, closest, density : as in ``eann_lite.testing.atoms``; kinds=("cluster",) for calculators without cells.
    limits : ``absolute`` and ``relative`` of all laws; default: each law's own.

    Returns {law: the most severe ``Violation``, within its limit, or None where no structure came under the law}.
    Raises AssertionError at the first law that is broken, or where the calculator fails: with the law, the violation,
    its limit, and the structure, made as small and round as still breaks it, as Python to paste.

    A potential that passes, and one whose forces are wrong by 1 %:

    >>> from ase.calculators.lj import LennardJones
    >>> from eann_lite.testing import check_laws
    >>> good = LennardJones(sigma=2.3, epsilon=0.4, rc=4.0, smooth=True)
    >>> found = check_laws(good, elements=("Cu",), laws=("rotation", "force_is_gradient"), max_examples=5)
    >>> found["force_is_gradient"].broken
    False
    >>> class Wrong(LennardJones):
    ...     def calculate(self, *arguments, **keywords):
    ...         super().calculate(*arguments, **keywords)
    ...         self.results["forces"] = 1.01 * self.results["forces"]
    >>> check_laws(Wrong(sigma=2.3, epsilon=0.4, rc=4.0), ("Cu",), laws=("force_is_gradient",), kinds=("cluster",))
    Traceback (most recent call last):
        ...
    AssertionError: Wrong breaks the law force_is_gradient:
      force along x of atom 0 (Cu): -1.7..., minus the slope of the energy is -1.7...
      off by 0.017 eV/Angstrom, limit ...
      smallest structure found (2 atoms):
        from ase import Atoms
        atoms = Atoms("Cu2", positions=[[0, 0, 0], [2.4, 0, 0]])
      again with: eann_lite.testing.LAWS["force_is_gradient"](calculator, atoms)
    """
    names = list(LAWS) if laws is None else list(laws)
    unknown = [name for name in names if name not in LAWS]
    if unknown:
        raise InputError(f"no law {unknown[0]!r}: expected some of {', '.join(LAWS)}.")
    found = {}
    for name in names:
        chosen = [kind for kind in kinds if kind in KINDS_OF_LAW.get(name, ATOMS_KINDS)]
        if not chosen:
            found[name] = None
            continue
        examples, size = max_examples, most
        if name == "smooth_at_cutoff":
            examples, size = max(1, max_examples // SMOOTH_PART), min(most, SMOOTH_MOST)
        strategy = atoms(tuple(elements), tuple(chosen), size, closest, density)
        # The inputs of this law are its own: it is held to nothing less than no change.
        keywords = {} if name == "inputs_unchanged" else limits
        found[name] = _most_severe(calculator, name, strategy, examples, seed, keywords)
    return found


def _most_severe(calculator, name, strategy, examples, seed, limits):
    """The most severe ``Violation`` of one law among examples; AssertionError, on the smallest, if it is broken."""
    severe, smallest = [], []

    def check(structure):
        try:
            violation = LAWS[name](calculator, structure, **limits)
        except Exception as error:
            smallest[:] = [(structure, error)]
            raise _Broken from error
        if violation is None:
            return
        if violation.broken:
            smallest[:] = [(structure, violation)]
            raise _Broken
        severe[:] = [max([*severe, violation], key=lambda one: one.severity)]

    check = hypothesis.settings(
        max_examples=examples, deadline=None, derandomize=seed is None, database=None, print_blob=False,
        report_multiple_bugs=False, suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, *(() if name == "smooth_at_cutoff" else (hypothesis.Phase.shrink,))),
    )(hypothesis.given(strategy)(check))  # fmt: skip
    if seed is not None:
        check = hypothesis.seed(seed)(check)
    try:
        with warnings.catch_warnings():
            # Hypothesis may warn about the time that shrinking takes; the example found is good all the same.
            warnings.simplefilter("ignore", hypothesis.errors.HypothesisWarning)
            check()
    except _Broken:
        structure, why = smallest[0]
        cause = why if isinstance(why, Exception) else None
        raise AssertionError(_message(type(calculator).__name__, name, structure, why)) from cause
    return severe[0] if severe else None


def _message(calculator, name, structure, why):
    if isinstance(why, Exception):
        head = f"{calculator} fails under the law {name}:\n  {type(why).__name__}: {why}"
    else:
        head = (
            f"{calculator} breaks the law {name}:\n  {why.detail}\n"
            f"  off by {why.value:.3g} {why.unit}, limit {why.limit:.3g}"
        )
    count = f"{len(structure)} atom" + "s" * (len(structure) > 1)
    return (
        f"{head}\n  smallest structure found ({count}):\n"
        f"    from ase import Atoms\n    atoms = {as_python(structure)}\n"
        f'  again with: eann_lite.testing.LAWS["{name}"](calculator, atoms)'
    )


def as_python(structure):
    """``ase.Atoms`` as Python text that makes them again, without more digits than are needed.

    >>> from ase import Atoms
    >>> as_python(Atoms("H2", positions=[[0, 0, 0], [0.7, 0, 0]]))
    'Atoms("H2", positions=[[0, 0, 0], [0.7, 0, 0]])'
    """
    parts = [f'"{structure.symbols}"', f"positions={_rows(structure.positions)}"]
    if structure.cell.array.any():
        parts.append(f"cell={_rows(structure.cell.array)}")
    if structure.pbc.any():
        parts.append(f"pbc={[bool(periodic) for periodic in structure.pbc]}")
    return f"Atoms({', '.join(parts)})"


def _rows(array):
    return "[" + ", ".join("[" + ", ".join(_number(value) for value in row) + "]" for row in array) + "]"


def _number(value):
    value = float(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
