"""Everything that can be checked of a model without new reference data, with a verdict, a number and a limit each.

`audit` runs the checks, `write_audit` makes one self-contained page and the same as JSON; ``eann-lite audit`` is both.
"""

from eann_lite.audit.case import Case
from eann_lite.audit.check import Check
from eann_lite.audit.page import audit_table, write_audit
from eann_lite.audit.run import Audit, audit

__all__ = ["Audit", "Case", "Check", "audit", "audit_table", "write_audit"]
