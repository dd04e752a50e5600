"""The version of vtg: read by the package, its build and its commands."""

__all__ = ["__version__"]

__version__ = "0.1.0"
