"""aims-PAX: machine-learned force fields that build themselves by parallel active learning."""

__version__ = "0.1.0"
