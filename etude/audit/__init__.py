"""Tests of data, model and loss that show a fault before it costs a step: exact, and in seconds.

audit(plan, state, objective)   all of them, before the first step
"""

from etude.audit.start import Audit, audit

__all__ = ["Audit", "audit"]
