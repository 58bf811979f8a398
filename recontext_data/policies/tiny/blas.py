"""One BLAS thread while the tiny policy runs, because two Python threads with one BLAS thread each do the same work sooner.

Its matrices are small: OpenBLAS splits each of them over all cores and spins until the last has answered, which on a machine
with other work takes five to fifteen times as long. Only the OpenBLAS inside numpy's own wheels is known here; any other
BLAS is left as it is.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PREFIX = "scipy_openblas_"
SUFFIX = "_num_threads64_"


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Sets numpy's OpenBLAS to one thread, and back again at the end."""
    library = _openblas()
    if library is None:
        yield
        return
    get, put = (getattr(library, f"{PREFIX}{verb}{SUFFIX}") for verb in ("get", "set"))
    before = get()
    put(1)
    try:
        yield
    finally:
        put(before)


@cache
def _openblas() -> ctypes.CDLL | None:
    """The library that numpy has loaded, or None."""
    import numpy as np

    folder = Path(np.__file__).parent.parent / "numpy.libs"
    for path in sorted(folder.glob("libscipy_openblas64_*")):
        library = ctypes.CDLL(str(path))
        if all(hasattr(library, f"{PREFIX}{verb}{SUFFIX}") for verb in ("get", "set")):
            return library
    return None
