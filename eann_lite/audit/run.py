"""Running an audit: the parts one after another, within a time, and what they found together."""

import time
import warnings
from typing import NamedTuple

from eann_lite.audit.approach import check_approach
from eann_lite.audit.case import Case
from eann_lite.audit.check import BROKEN, Check, overall
from eann_lite.audit.data_errors import check_data
from eann_lite.audit.dynamics import check_dynamics
from eann_lite.audit.familiarity import check_outside, check_sensitivity
from eann_lite.audit.laws import check_derivatives, check_laws
from eann_lite.audit.modes import check_modes
from eann_lite.audit.smoothness import check_smoothness
from eann_lite.errors import InputError

#: The parts: key, title, share of the time, function (case, seconds) -> (checks, record).
PARTS = (
    ("laws", "Laws", 0.2, check_laws),
    ("derivatives", "Forces and stress", 0.15, check_derivatives),
    ("smoothness", "Smoothness at the cutoff", 0.1, check_smoothness),
    ("dynamics", "Energy in dynamics", 0.15, check_dynamics),
    ("modes", "Normal modes", 0.1, check_modes),
    ("approach", "Short range", 0.1, check_approach),
    ("outside", "Unlike the training data", 0.05, check_outside),
    ("sensitivity", "Descriptors", 0.05, check_sensitivity),
    ("data", "Errors on the data", 0.1, check_data),
)
TITLES = {key: title for key, title, _, _ in PARTS}
#: Seconds that an audit may take, about, without what the first compilation takes.
SECONDS = 90.0


class Audit(NamedTuple):
    """What an audit found.

    checks : list of `Check`, one for each line; records : {part: plain data behind its lines, for tables and plots};
    model : ``describe`` of the model; subjects : the audited structures, as plain data; origin : where they come from;
    seed; seconds : all of it, and seconds_by_part.
    """

    checks: list
    records: dict
    model: dict
    subjects: list
    origin: str
    seed: int
    seconds: float
    seconds_by_part: dict

    @property
    def verdict(self):
        """``BROKEN`` if any law is, else ``warning`` if there is any, else ``ok``."""
        return overall(self.checks)

    @property
    def broken(self):
        """The lines whose verdict is ``BROKEN``."""
        return [check for check in self.checks if check.verdict == BROKEN]


def audit(model, data=None, seed=0, calculator=None, seconds=SECONDS, progress=None, parts=None):
    """Check everything about a model that can be checked: `Audit`.

    model : ``Model`` or the path of a model file.
    data : ``ase.Atoms``, ``Structure`` or a list of these, labelled or not; default: the training data that the model
        names, where they are here, else structures built from its elements.
    seed : of everything drawn.
    calculator : ASE calculator to audit in place of ``EANNCalculator(model)``, such as a faulty one.
    seconds : about how long it may take; larger structures are checked less, or not, so that it ends.
    progress : object with ``update(fraction, text)`` and ``finish()``, or None.
    parts : names of the parts to run, in any order; default: all (keys of ``TITLES``).

    InputError for a model file that cannot be read, data with an element that the model does not know, an unknown
    part, and a model without a finite energy for any structure.

    >>> from eann_lite import Model, Specification
    >>> from eann_lite.model.initial import initial_parameters
    >>> specification = Specification(elements=("H", "O"), cutoff=4.0, densities=8, recursions=1, repulsion="zbl")
    >>> model = Model(specification, initial_parameters(specification, seed=0))
    >>> found = audit(model, seconds=2.0, parts=("laws", "modes"))
    >>> [check.name for check in found.broken]
    []
    """
    from eann_lite.extrapolation import ExtrapolationWarning
    from eann_lite.report import describe

    start = time.monotonic()
    unknown = [part for part in parts or () if part not in TITLES]
    if unknown:
        raise InputError(f"no part {unknown[0]!r} of an audit: expected some of {', '.join(TITLES)}.")
    model = _loaded(model)
    checks, records, times, done = [], {}, {}, 0.0
    with warnings.catch_warnings():
        # How far outside the structures are is one of the lines.
        warnings.simplefilter("ignore", ExtrapolationWarning)
        _tell(progress, 0.0, "structures")
        case = Case(model, _checked_data(data, model), seed, calculator)
        for key, title, share, check in (row for row in PARTS if parts is None or row[0] in parts):
            _tell(progress, done, title)
            begun = time.monotonic()
            try:
                found, record = check(case, share * seconds)
            except InputError as error:
                found, record = [Check(title, verdict="warning", detail=f"It could not be computed: {error}")], {}
            checks += [line._replace(part=key) for line in found]
            records[key], times[key], done = record, time.monotonic() - begun, done + share
    if progress is not None:
        progress.finish()
    subjects = [
        {
            "name": s.name, "formula": s.atoms.get_chemical_formula(), "n_atoms": len(s.atoms),
            "pbc": s.atoms.pbc.tolist(), "relaxed": s.relaxed, "seconds_per_evaluation": s.seconds,
        }
        for s in case.subjects
    ]  # fmt: skip
    return Audit(checks, records, describe(model), subjects, case.origin, seed, time.monotonic() - start, times)


def _tell(progress, fraction, text):
    if progress is not None:
        progress.update(fraction, text)


def _loaded(model):
    from eann_lite.model.model import Model

    if isinstance(model, Model):
        return model
    from eann_lite.io.model_file import load

    return load(model)


def _checked_data(data, model):
    """List of ``Structure`` whose elements the model knows, or None."""
    if data is None:
        return None
    from eann_lite.batches import species_of
    from eann_lite.structures import as_structures

    structures = as_structures(data)
    for q, structure in enumerate(structures):
        species_of(structure.numbers, model.specification.elements, structure.source or f"structure {q}")
    return structures
