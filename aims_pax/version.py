"""The version of this package, shown by `aims-PAX --version` and written to files of runs."""

__version__ = "0.1.0"
