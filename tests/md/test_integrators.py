"""Which integrator moves a trajectory."""

from __future__ import annotations

import pytest

from aims_pax.errors import SettingsError
from aims_pax.md.barostats import ParrinelloRahman
from aims_pax.md.integrators import integrator_kind
from aims_pax.md.thermostats import Langevin
from tests.md.settings import langevin


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stat_ensemble": "NPT", "barostat": "Andersen"}, "barostat Andersen"),
        ({"stat_ensemble": "NVT", "thermostat": "Bussi"}, "thermostat Bussi"),
        ({"stat_ensemble": "muVT"}, "muVT"),
    ],
)
def test_an_unknown_ensemble_is_refused_with_a_way_out(changes, words):
    with pytest.raises(SettingsError, match=rf"{words}.*is not known.*isotropic-MTK"):
        integrator_kind(langevin(**changes))


def test_the_ensemble_may_be_written_in_any_case():
    assert integrator_kind(langevin(stat_ensemble="nvt", thermostat="langevin")) is Langevin
    assert integrator_kind(langevin(stat_ensemble="npt", barostat="Npt")) is ParrinelloRahman
