"""Made-up results of the MD test, as `md_test.json` has them."""

from __future__ import annotations

from typing import Any


def trajectory(T: float, fault: str = "", ps: float = 1.0, system: str = "water") -> dict[str, Any]:
    return {"system": system, "start": "f", "temperature": T, "ensemble": "NVT", "timestep_fs": 0.5, "ps": ps,
            "fault": fault, "bonds": 2, "t_ps": [0.0, 0.5 * ps, ps], "T_K": [T, 1.1 * T, 0.9 * T],
            "E_meV_atom": [0.0, 1.0, -1.0]}  # fmt: skip


def md_results(faults: dict[float, list[str]] | None = None, **changes: Any) -> dict[str, Any]:
    """A sound model at 300 and 450 K. faults: {K: why each of its trajectories ended, "": it did not}."""
    faults = faults or {300: ["", ""], 450: ["", ""]}
    law = {"system": "water", "target": 300, "degrees": 9, "mean": 303.0, "mean_error": 9.0, "width": 140.0,
           "width_error": 8.0, "canonical_width": 141.4, "independent": 120.0, "agrees": True,
           "canonical_thermostat": True}  # fmt: skip
    calm = {"system": "water", "temperature": 300, "ps": 0.5, "fault": "", "drift_meV_atom_ps": 0.02,
            "rms_meV_atom": 0.11, "t_ps": [0.0, 0.25, 0.5], "E_meV_atom": [0.0, 0.1, 0.01]}  # fmt: skip
    return {
        "format": 1, "digest": "0", "models": {"a.model": "1f"}, "shortened": False, "wall_s": 12.0,
        "thermostat": "Langevin 0.02 fs⁻¹",
        "trajectories": [trajectory(T, why, 0.2 if why else 1.0) for T, own in faults.items() for why in own],
        "temperature_law": [law],
        "constant_energy": [calm],
        "drift": [{"system": "water", "trajectories": 2, "mean": 0.02, "error": 0.01, "largest": 0.03}],
        "distances": [{"pair": "H–O", "data": 0.9, "md": 0.89, "md_hot": 0.86, "covalent": 0.97, "bin": 0.04,
                       "histogram_data": [0, 2, 1], "histogram_md": [0, 3, 1], "histogram_md_hot": [1, 3, 1]}],
        **changes,
    }  # fmt: skip
