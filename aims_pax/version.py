"""The version of this package, as `aims-PAX --version` and files of runs give it."""

__version__ = "0.1.0"
