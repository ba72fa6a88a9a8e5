from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.figures import observables
from aims_pax.report.run_record import Observables


def test_a_temperature_ramp_is_drawn_and_no_error(run):
    ramp = replace(run, settings={**run.settings, "aimsPAX.MD.temperature": "[200.0, 500.0]"})
    seen = Observables(
        0, *(np.array(v) for v in ([5.0, 10, 15], [210.0, 300, 480], [-1.0] * 3, [1.0] * 3, [9.0] * 3))
    )
    (temperature, *_) = observables.observables_figure(replace(ramp, observables=(seen,)))
    assert temperature.name == "temperature"
    assert observables._targets(ramp) == [200.0, 500.0]
    assert observables._targets(run) == [500.0]
    ladder = {"aimsPAX.MD.temperatures": "[300.0, 800.0]"}
    assert observables._targets(replace(run, settings={**run.settings, **ladder})) == [300.0, 800.0]
    none = {"aimsPAX.MD.temperatures": "None"}
    assert observables._targets(replace(run, settings={**run.settings, **none})) == [500.0]


def observed(run, energy, volume):
    n = len(energy)
    columns = (np.arange(n), np.full(n, np.nan), np.array(energy), np.ones(n), np.array(volume))
    return replace(run, observables=(Observables(1, *columns),))


@pytest.mark.usefixtures("undrawn")
def test_a_volume_that_does_not_change_and_temperatures_that_are_missing_are_not_drawn(run):
    names = [p.name for p in observables.observables_figure(observed(run, [-1.0, -1.5, -1.2], [9.0] * 3))]
    assert names == ["model_energy", "label_energies", "distances"]
    (_, volume, *_) = observables.observables_figure(observed(run, [-1.0, -1.5, -1.2], [9.0, 9.5, np.nan]))
    assert volume.name == "volume"
    assert volume.table == {"trajectory": [1, 1], "step": [0, 1], "volume": [9.0, 9.5]}


@pytest.mark.usefixtures("undrawn")
def test_the_numbers_of_the_energy_are_as_measured_and_the_labels_have_theirs_per_atom(run):
    energy, labels, distances = observables.observables_figure(observed(run, [-1.0, -1.5, -1.2], [9.0] * 3))
    assert energy.table["energy"] == [-1.0, -1.5, -1.2]
    one = next(s for s in run.structures if s.info.get("stage") == "active learning")
    row = labels.table["step"].index(float(one.info["step"]))
    steps = zip(
        labels.table["system"], labels.table["step"], labels.table["reference_energy_eV_atom"], strict=True
    )
    assert (one.system, float(one.info["step"]), pytest.approx(one.energy / one.n_atoms)) in steps
    assert row >= 0
    assert set(distances.table["pair"]) == {"H-O", "H-H", "Cu-Cu"}


@pytest.mark.usefixtures("undrawn")
def test_distances_of_pairs_are_drawn_with_the_limit_below_which_a_frame_counts_as_exploded(run):
    (distances,) = [p for p in observables.observables_figure(run) if p.name == "distances"]
    assert [words for _, words in distances.legend] == ["labelled frames", "counts as exploded"]
    assert min(distances.table["shortest_A"]) > 0.5
    assert not [
        p for p in observables.observables_figure(replace(run, structures=())) if p.name == "distances"
    ]
