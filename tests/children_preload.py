"""Imported by the process that `tests.children` forks from, and by nothing else."""

from tests.children import import_all

import_all()
