"""Atomic structures with their labels: reading, checking, summarising.

`Structure` is what the rest of the package works on; `as_structures` makes a list of them from whatever a caller
has, `read_structures` from files (`read_atoms`: with masses and constraints), `summarise` tells what is in them and
`warnings_for` what looks wrong.
"""

from eann_lite.structures.configuration import write_configuration
from eann_lite.structures.labels import label_atoms
from eann_lite.structures.read import read_atoms, read_structures
from eann_lite.structures.structure import Structure, as_one_structure, as_structures
from eann_lite.structures.summary import DataSummary, find_duplicates, fingerprint, summarise
from eann_lite.structures.suspicion import warnings_for

__all__ = [
    "DataSummary",
    "Structure",
    "as_one_structure",
    "as_structures",
    "find_duplicates",
    "fingerprint",
    "label_atoms",
    "read_atoms",
    "read_structures",
    "summarise",
    "warnings_for",
    "write_configuration",
]
