"""Molecular dynamics of many trajectories in one batch."""

from aims_pax.md.propagate import MDOutcome, advance
from aims_pax.md.state import MDState
from aims_pax.md.temperature import temperature_at

__all__ = ["MDOutcome", "MDState", "advance", "temperature_at"]
