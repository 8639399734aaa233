"""The order of names of labels and capabilities, the same in heads, tables and reports."""

import re
from decimal import Decimal

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)


def sort_key(name: str) -> tuple[bool, Decimal, str]:
    """Sort names of labels and capabilities by this: numbers by their value, before all else."""
    is_number = NUMBER.fullmatch(name) is not None
    return not is_number, Decimal(name) if is_number else Decimal(0), name
