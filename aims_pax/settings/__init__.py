"""The user's input files: aimsPAX.yaml, mace.yaml and control.in. Each is read once and checked strictly."""

from aims_pax.settings.read import read_settings, unsupported
from aims_pax.settings.reference_settings import read_reference_settings
from aims_pax.settings.settings import LabellingSettings, Settings, dump, effective

__all__ = [
    "LabellingSettings",
    "Settings",
    "dump",
    "effective",
    "read_reference_settings",
    "read_settings",
    "unsupported",
]
