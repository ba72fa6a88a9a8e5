"""How atoms move, as a user writes it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from aims_pax.md.integrators import integrator_kind
from aims_pax.settings.md import MDSettings
from tests.settings.folders import PROJECT, errors, read, with_key


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


def test_trajectories_take_the_temperatures_in_turn(tmp_path):
    md = read(tmp_path, with_key(PROJECT, "MD", "temperatures: [300, 500, 800]", "temperature: 400")).md
    assert [md.of_trajectory(k).temperature for k in range(4)] == [300, 500, 800, 300]
    assert md.temperature == 400
    assert md.of_trajectory(1).timestep == md.timestep
    plain = MDSettings(stat_ensemble="NVT", temperature=[300, 600])
    assert plain.of_trajectory(3) is plain


@pytest.mark.parametrize(
    ("temperatures", "words"),
    [
        (300, "expected a list of temperatures, at least one"),
        ([], "expected a list of temperatures, at least one"),
        ([300, "hot"], "expected a number, got text"),
        ([300, 0], "0 K is not possible"),
    ],
)
def test_impossible_temperatures_of_trajectories_are_refused(temperatures, words):
    with pytest.raises(ValidationError, match=words):
        MDSettings(stat_ensemble="NVT", temperatures=temperatures)


def test_a_ramp_and_temperatures_of_trajectories_exclude_each_other(tmp_path):
    both = with_key(PROJECT, "MD", "temperatures: [300, 500]", "temperature: [300, 600]")
    (said,) = errors(tmp_path, both)
    assert "MD.temperatures: temperature is the ramp [300.0, 600.0] of every trajectory; keep one" in said


def test_temperatures_of_trajectories_need_trajectories(tmp_path):
    project = PROJECT.replace("ACTIVE_LEARNING:\n  num_trajectories: 2\n  max_MD_steps: 100\n", "")
    (said,) = read(tmp_path, with_key(project, "MD", "temperatures: [300, 500]")).warnings
    assert "MD.temperatures: has no effect: only ACTIVE_LEARNING uses them" in said


def test_an_odd_end_of_a_ramp_is_warned_about():
    assert (
        "20000 K is"
        in dict(MDSettings(stat_ensemble="NVT", temperature=[300, 20000]).oddities())["temperature"]
    )
