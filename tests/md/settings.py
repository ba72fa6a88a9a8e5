"""MD settings as the integrators read them."""

from __future__ import annotations

from types import SimpleNamespace


def langevin(temperature=60.0, friction=0.001, timestep=2.0, **changes) -> SimpleNamespace:
    """Attributes of `aims_pax.settings.project.MDSettings`."""
    told = {"stat_ensemble": "NVT", "thermostat": "Langevin", "barostat": "Berendsen", "MD_seed": 42}
    told |= {"temperature": temperature, "friction": friction, "timestep": timestep}
    return SimpleNamespace(**(told | changes))
