"""What the user writes: aimsPAX.yaml, mace.yaml and control.in, read strictly and once."""

from aims_pax.settings.partly import read_reference_settings
from aims_pax.settings.read import read_settings, unsupported
from aims_pax.settings.whole import Settings, dump, effective

__all__ = ["Settings", "dump", "effective", "read_reference_settings", "read_settings", "unsupported"]
