"""Chemical symbols and atomic numbers (ASE's table), with errors that say what came."""

from eann_lite.errors import InputError


def atomic_number(symbol):
    """Atomic number of a chemical symbol; an InputError names what came instead.

    >>> atomic_number("C")
    6
    """
    from ase.data import atomic_numbers

    number = atomic_numbers.get(symbol, 0)
    if number == 0:
        raise InputError(f"{symbol!r} is not a chemical symbol: expected one such as 'H', 'C' or 'Ni'.")
    return number


def chemical_symbol(number):
    """Chemical symbol of an atomic number between 1 and 118.

    >>> chemical_symbol(28)
    'Ni'
    """
    from ase.data import chemical_symbols

    if not 1 <= number < len(chemical_symbols):
        raise InputError(f"atomic number {number}: expected 1 to {len(chemical_symbols) - 1}.")
    return chemical_symbols[number]
