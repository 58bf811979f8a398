"""The version of the package; `hatch` reads it here, and the modules below the package's root use it."""

__version__ = "0.1.0"
