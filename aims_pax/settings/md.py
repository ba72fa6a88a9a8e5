"""MD: settings of the dynamics, used for ab initio, foundation-model and ensemble MD.

Pressures are in eV/Å³: 1 bar = 6.24e-7 eV/Å³, 1 GPa = 6.24e-3 eV/Å³.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator

from aims_pax.settings.fields import Kind, Real, Section, Whole, as_real, key, one_of, optional

BAR = 6.241509e-7  # eV/Å³

Ensemble = Annotated[str, one_of("NVT", "NPT"), Kind("`str`")]
Barostat = Annotated[
    str,
    one_of("Berendsen", "npt", "MTK", "isotropic-MTK", mtk_full="MTK", mtk_isotropic="isotropic-MTK"),
    Kind("`str`"),
]
Thermostat = Annotated[str, one_of("Langevin", "SVR", csvr="SVR", bussi="SVR"), Kind("`str`")]


def as_temperature(value: Any) -> float | tuple[float, float]:
    """One temperature, or the first and the last temperature of a ramp."""
    if not isinstance(value, list | tuple):
        return as_real(value)
    if len(value) != 2:
        raise ValueError(f"expected one temperature, or [first, last], got a list of {len(value)}")
    return as_real(value[0]), as_real(value[1])


Temperature = Annotated[
    float | tuple[float, float], BeforeValidator(as_temperature), Kind("`float` or `list`")
]


def as_ladder(value: Any) -> tuple[float, ...]:
    """Temperatures of trajectories."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(
            "expected a list of temperatures, at least one; a single one for all is `temperature`"
        )
    return tuple(as_real(v) for v in value)


Ladder = Annotated[tuple[float, ...] | None, optional(as_ladder), Kind("`list` or `None`")]


class MDSettings(Section):
    """MD: one table for all trajectories, or a map {system name: table}."""

    aliases: ClassVar[dict[str, str]] = {"seed": "MD_seed", "externalstress": "external_stress"}

    stat_ensemble: Ensemble = key(..., "Statistical ensemble, `NVT` or `NPT` (any case).")
    barostat: Barostat = key(
        "Berendsen",
        "Barostat of `NPT`: `Berendsen`, `npt` for Nosé–Hoover–Parrinello–Rahman, `MTK` for "
        "Martyna–Tobias–Klein, or `isotropic-MTK` (only the volume changes). All work for cells of any shape.",
    )
    compressibility: Real = key(
        4.57e-5,
        "Isothermal compressibility for Berendsen NPT (per bar); the default is that of water.",
        unit="bar⁻¹",
        possible="(0, 1]",
        plausible="[1e-8, 1e-3]",
        unit_confusions={"Å³/eV": BAR, "GPa⁻¹": 1e-4},
    )
    external_stress: Real = key(
        6.24e-7,
        "Pressure of Nosé–Hoover–Parrinello–Rahman NPT (eV/Å³, positive: compression; 1 bar = 6.24e-7).",
        unit="eV/Å³",
        possible="[-1, 10]",
    )
    friction: Real = key(
        0.001,
        "Friction of Langevin dynamics (fs⁻¹).",
        unit="fs⁻¹",
        possible="(0, 10]",
        plausible="[1e-5, 0.1]",
        usual=0.001,
        unit_confusions={"ps⁻¹": 1e-3},
    )
    MD_seed: Whole = key(42, "Seed for all random numbers of the dynamics.", possible="[0, 4294967295]")
    pfactor: Real = key(
        100.0,
        "Barostat constant of Nosé–Hoover–Parrinello–Rahman NPT (ASE's internal units).",
        possible="(0, inf)",
    )
    pressure_au: Real = key(
        3.4e-7,
        "Pressure of Berendsen and MTK NPT. Despite its name, it is read in eV/Å³, as in ASE (1 bar = 6.24e-7).",
        unit="eV/Å³",
        possible="[-1, 10]",
    )
    taup: Real = key(
        1000.0,
        "Time constant of the Berendsen and MTK barostats (fs).",
        unit="fs",
        possible="(0, 1e7]",
        plausible="[50, 100000]",
        usual=1000.0,
        unit_confusions={"ps": 1000.0},
    )
    taut: Real = key(
        500.0,
        "Time constant of the thermostat in SVR, Berendsen NPT and MTK NPT (fs).",
        unit="fs",
        possible="(0, 1e7]",
        plausible="[10, 100000]",
        usual=500.0,
        unit_confusions={"ps": 1000.0},
    )
    temperature: Temperature = key(
        300.0,
        "Temperature (K), or `[first, last]`: a linear ramp over the `max_MD_steps` of a trajectory; in the initial "
        "dataset over the steps of each batch.",
        unit="K",
        possible="(0, 100000]",
        plausible="[10, 5000]",
        usual=300.0,
    )
    temperatures: Ladder = key(
        None,
        "Temperatures (K) of the trajectories of active learning, `[300, 500, 800]`: dealt in turn to the trajectories "
        "of each geometry, instead of `temperature`, which stays that of everything else (initial dataset, samplers). "
        "`None`: all at `temperature`.",
        unit="K",
        possible="(0, 100000]",
        plausible="[10, 5000]",
        usual=300.0,
    )
    thermostat: Thermostat = key(
        "Langevin", "Thermostat of `NVT`: `Langevin`, or `SVR` for stochastic velocity rescaling."
    )
    timestep: Real = key(
        0.5,
        "Time step (fs).",
        unit="fs",
        possible="(0, 100]",
        plausible="[0.05, 10]",
        usual=1.0,
        unit_confusions={"ps": 1000.0},
    )
    ttime: Real = key(
        30.0,
        "Time constant of the thermostat of Nosé–Hoover–Parrinello–Rahman NPT (fs).",
        unit="fs",
        possible="(0, 1e6]",
        plausible="[5, 10000]",
        usual=30.0,
        unit_confusions={"ps": 1000.0},
    )

    def of_trajectory(self, k: int) -> Self:
        """The settings of the k-th trajectory of a geometry in active learning: with its own temperature."""
        if self.temperatures is None:
            return self
        own = self.temperatures[k % len(self.temperatures)]
        return self.model_copy(update={"temperature": own, "temperatures": None})
