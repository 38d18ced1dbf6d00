"""Errors that tell a person what came, what was expected, where, and what to do."""


class InputError(ValueError):
    """Something given by the user cannot be used: a file, a structure, a setting, an argument.

    Raised before any long work.  The message names the place (file, structure, atom) and the cure.
    """


class ModelFileError(InputError):
    """A model file is damaged, foreign, or of a newer format than this version reads."""
