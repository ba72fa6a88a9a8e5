"""MD settings as the integrators read them."""

from __future__ import annotations

from types import SimpleNamespace

KEYS = {
    "stat_ensemble": "NVT", "thermostat": "Langevin", "barostat": "Berendsen", "MD_seed": 42,
    "taut": 500.0, "taup": 1000.0, "compressibility": 4.57e-5, "pressure_au": 3.4e-7,
    "ttime": 30.0, "pfactor": 100.0, "external_stress": 6.24e-7,
}  # fmt: skip


def langevin(temperature=60.0, friction=0.001, timestep=2.0, **changes) -> SimpleNamespace:
    """Attributes of `aims_pax.settings.md.MDSettings`."""
    told = {**KEYS, "temperature": temperature, "friction": friction, "timestep": timestep}
    return SimpleNamespace(**(told | changes))


def rescaling(temperature=60.0, taut=100.0, timestep=2.0, **changes) -> SimpleNamespace:
    return langevin(temperature, timestep=timestep, thermostat="SVR", taut=taut, **changes)


def npt(barostat: str, temperature=60.0, timestep=2.0, **changes) -> SimpleNamespace:
    """pressure: that of either key."""
    pressure = changes.pop("pressure", 0.0)
    told = {
        "stat_ensemble": "NPT",
        "barostat": barostat,
        "pressure_au": pressure,
        "external_stress": pressure,
    }
    return langevin(temperature, timestep=timestep, **(told | changes))
