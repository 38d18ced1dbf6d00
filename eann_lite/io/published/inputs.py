"""``input_nn`` and ``input_density`` of the published packages: lines of Python that the originals execute.

Here every line must be an assignment of literals, ``nl = [64, 64]  # a comment``, and is read as such.
"""

import ast
import os

from eann_lite.errors import InputError


def read_inputs(path):
    """{name: value} of an input file; a name that is given twice has its last value, as in the original.

    Numbers, texts, True, False, None, and lists and tuples of these.  InputError, by line, for anything else.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/input_nn"
    >>> with open(path, "w") as file: _ = file.write("# networks\\n  nl = [64, 32]  # widths\\n activate='Tanh_like'")
    >>> read_inputs(path)
    {'nl': [64, 32], 'activate': 'Tanh_like'}
    """
    where = os.fspath(path)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror or error}. Check the path.") from error
    values = {}
    for number, line in enumerate(lines, start=1):
        # The originals cut at the first #, wherever it stands.
        text = line.split("#")[0].strip()
        if text:
            values.update(_assignments(text, f"{where}, line {number}"))
    return values


def _assignments(text, where):
    try:
        statements = ast.parse(text).body
        assigned = {}
        for statement in statements:
            (target,) = statement.targets
            value = ast.literal_eval(statement.value)
            if not isinstance(target, ast.Name) or not _is_plain(value):
                raise ValueError
            assigned[target.id] = value
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        raise InputError(
            f"{where}: {text[:80]!r} is not read. Expected NAME = VALUE with numbers, texts, True, False, lists and "
            "tuples; nothing is executed."
        ) from None
    return assigned


def _is_plain(value):
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
