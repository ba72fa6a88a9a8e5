"""How atoms move, as a user writes it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from aims_pax.md.integrators import integrator_kind
from aims_pax.settings.md import MDSettings
from tests.settings.folders import PROJECT, read, with_key


@pytest.mark.parametrize(
    ("written", "meant"),
    [("langevin", "Langevin"), ("svr", "SVR"), ("csvr", "SVR"), ("Bussi", "SVR")],
)
def test_thermostats_have_the_spellings_of_other_programs(written, meant):
    assert MDSettings(stat_ensemble="nvt", thermostat=written).thermostat == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("berendsen", "Berendsen"),
        ("NPT", "npt"),
        ("mtk", "MTK"),
        ("mtk_full", "MTK"),
        ("Isotropic_MTK", "isotropic-MTK"),
        ("mtk_isotropic", "isotropic-MTK"),
    ],
)
def test_barostats_have_the_spellings_of_other_programs(written, meant):
    assert MDSettings(stat_ensemble="npt", barostat=written).barostat == meant


def test_there_is_an_integrator_for_everything_that_can_be_written():
    for barostat in ("Berendsen", "npt", "MTK", "isotropic-MTK"):
        integrator_kind(MDSettings(stat_ensemble="NPT", barostat=barostat))
    for thermostat in ("Langevin", "SVR"):
        integrator_kind(MDSettings(stat_ensemble="NVT", thermostat=thermostat))


def test_a_ramp_is_a_first_and_a_last_temperature(tmp_path):
    settings = read(tmp_path, with_key(PROJECT, "MD", "temperature: [300, 600]"))
    assert settings.md.temperature == (300.0, 600.0)
    assert MDSettings(stat_ensemble="NVT", temperature=250).temperature == 250.0


@pytest.mark.parametrize(
    ("temperature", "words"),
    [
        ([300], "expected one temperature, or .first, last., got a list of 1"),
        ([300, 400, 500], "a list of 3"),
        ([300, "hot"], "expected a number, got text"),
        ([300, -5], "-5 K is not possible"),
        (0, "0 K is not possible"),
    ],
)
def test_an_impossible_temperature_is_refused(temperature, words):
    with pytest.raises(ValidationError, match=words):
        MDSettings(stat_ensemble="NVT", temperature=temperature)


def test_an_odd_end_of_a_ramp_is_warned_about():
    assert (
        "20000 K is"
        in dict(MDSettings(stat_ensemble="NVT", temperature=[300, 20000]).oddities())["temperature"]
    )
