"""One line of an audit: what was checked, the number found, its limit, and the verdict."""

import math
from typing import NamedTuple

OK, BROKEN, WARNING, NOT_CHECKED = "ok", "BROKEN", "warning", "not checked"
#: From bad to good: the verdict of several lines is the first of these that any of them has.
VERDICTS = (BROKEN, WARNING, OK, NOT_CHECKED)


class Check(NamedTuple):
    """One line of an audit.

    name : what was checked, short.
    value, unit : the largest number found, None where nothing was found or checked.
    limit : the largest value that passes, (lowest, highest), or None where nothing is judged.
    verdict : ``ok``; ``BROKEN``, a law does not hold; ``warning``, the model is not to be trusted there;
        ``not checked``, with the reason in ``detail``.
    where : the structure on which the value was found.
    detail : one sentence.
    part : the part of the audit that it belongs to; set by the audit.
    """

    name: str
    value: float | None = None
    unit: str = ""
    limit: object = None
    verdict: str = NOT_CHECKED
    where: str = ""
    detail: str = ""
    part: str = ""


def judged(name, value, unit, limit, where="", detail="", bad=BROKEN):
    """`Check` with the verdict ``bad`` where the value is outside its limit (or is not a number), else ``ok``.

    >>> judged("force", 2e-3, "eV/A", 1e-3).verdict, judged("slope", 2.01, "", (1.8, 2.2)).verdict
    ('BROKEN', 'ok')
    """
    value, limit = float(value), limit if isinstance(limit, tuple) else float(limit)
    low, high = limit if isinstance(limit, tuple) else (-math.inf, limit)
    return Check(name, value, unit, limit, OK if low <= value <= high else bad, where, detail)


def worst(name, found, unit, bad=BROKEN, detail=""):
    """`judged` for the entry of ``found`` (value, limit, where[, detail]) that uses most of its limit.

    >>> worst("jump", [(1e-9, 1e-6, "H2"), (3e-9, 1e-8, "CH4")], "eV").where
    'CH4'
    """
    if not found:
        return Check(name, unit=unit, detail=detail or "There was no structure to check it on.")
    value, limit, where, *rest = max(found, key=lambda row: math.inf if math.isnan(row[0]) else row[0] / row[1])
    return judged(name, value, unit, limit, where, rest[0] if rest else detail, bad)


def overall(checks):
    """The verdict of several checks: the worst; warnings do not break anything.

    >>> overall([Check("a", verdict="ok"), Check("b", verdict="warning")])
    'warning'
    """
    found = {check.verdict for check in checks}
    return next((verdict for verdict in VERDICTS if verdict in found), NOT_CHECKED)


def counted(number, noun):
    """A number with its noun, in the plural where there are several.

    >>> counted(1, "structure"), counted(3, "structure")
    ('1 structure', '3 structures')
    """
    return f"{number} {noun}" + "s" * (number != 1)
