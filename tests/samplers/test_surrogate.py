"""A process of the labels so far moves atoms where it can, and never labels a structure."""

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from aims_pax.errors import Crashed, SettingsError
from aims_pax.frames import Label, LabelledFrame
from aims_pax.labelled_data import to_extxyz
from aims_pax.potential import Potential
from aims_pax.sampler import LearnsFromLabels, Sample, SamplingError, Stateful
from aims_pax.samplers.mixture import Mixture, Part
from aims_pax.samplers.surrogate import (
    NEWEST,
    SurrogateDriven,
    SurrogatePotential,
    labelled_file,
    rattled_sample,
)
from aims_pax.systems import System
from tests.models.gp import systems

DATA = systems.h2(np.linspace(0.95, 2.0, 9))
TRIMERS = systems.trimer(6)
H2 = System("h2", DATA[0].frame)
OTHER = System("other", TRIMERS[0].frame)


class Inner:
    """Marks the structures that it makes; fails after so many of each system."""

    name = "inner"

    def __init__(self, until=99):
        self.until, self.asked = until, []

    def sample(self, systems, n, rng):
        self.asked.append([s.name for s in systems])
        for k in range(n):
            if k == self.until:
                raise SamplingError("exploded")
            for s in systems:
                yield Sample(
                    s.frame.moved(s.frame.positions + rng.random()), None, {"system": s.name, "own": 1}
                )

    def state_arrays(self):
        return {"asked": np.array(len(self.asked))}

    def load_state_arrays(self, arrays):
        self.asked = [None] * int(arrays["asked"])


def made(driven, n=3, seed=1, of=(H2, OTHER)):
    return list(driven.sample(of, n, np.random.default_rng(seed)))


def test_it_is_a_potential_that_learns_new_labels_when_it_is_next_used():
    surrogate = SurrogatePotential(given=DATA[:4])
    assert isinstance(surrogate, Potential)
    assert not surrogate.ready(H2.frame)
    surrogate.new_labels(DATA[3:5])
    assert surrogate.ready(H2.frame)
    assert surrogate.process.frames == 5
    before = surrogate.process
    surrogate.new_labels(DATA[:5])
    assert surrogate.process is before, "labels that it has already change nothing"
    coarse = abs(surrogate.labels([DATA[8].frame])[0].energy - DATA[8].label.energy)
    surrogate.new_labels(DATA[5:])
    assert abs(surrogate.labels([DATA[8].frame])[0].energy - DATA[8].label.energy) < 0.1 * coarse
    assert not surrogate.ready(OTHER.frame)


def test_it_learns_the_newest_labels_only():
    many = systems.h2(np.linspace(0.95, 2.0, NEWEST + 7))
    assert SurrogatePotential(given=many).process.frames == NEWEST


def test_deviations_grow_away_from_the_data_and_do_not_count_fixed_atoms():
    surrogate = SurrogatePotential(given=DATA)
    far = systems.h2([0.8])[0].frame
    held = type(far)(far.numbers, far.positions, fixed=np.array([True, True]))
    near, away, none = surrogate.deviations([DATA[4].frame, far, held])
    assert away > 10 * near
    assert none == 0


def test_rattled_structures_until_there_are_labels_of_the_system_then_its_own_motion():
    inner, surrogate = Inner(), SurrogatePotential()
    driven = SurrogateDriven(inner, surrogate)
    assert isinstance(driven, LearnsFromLabels)
    assert isinstance(driven, Stateful)
    first = made(driven)
    assert [s.origin["system"] for s in first] == ["h2", "other"] * 3
    assert inner.asked == []
    assert all(s.origin["moved_by"] == "rattle" and s.origin["sampler"] == "inner" for s in first)
    driven.new_labels(DATA)
    second = made(driven)
    assert [s.origin["system"] for s in second] == ["h2", "other"] * 3
    assert inner.asked == [["h2"]]
    assert [s.origin.get("own") for s in second] == [1, None] * 3
    driven.new_labels(TRIMERS)
    assert inner.asked == [["h2"]]
    made(driven, of=(H2,))
    assert all(s.label is None for s in [*first, *second])
    other = SurrogateDriven(Inner(), SurrogatePotential())
    other.load_state_arrays(driven.state_arrays())
    assert len(other.inner.asked) == 2


def test_where_the_motion_fails_the_rest_of_the_batch_is_rattled(caplog):
    driven = SurrogateDriven(Inner(until=1), SurrogatePotential(given=DATA))
    samples = made(driven, n=4, of=(H2,))
    assert [s.origin.get("own") for s in samples] == [1, None, None, None]
    assert "exploded; rattled structures instead, for this batch" in caplog.text
    assert len({s.frame.id for s in samples}) == 4


def test_a_mixture_passes_labels_on_to_those_who_learn():
    surrogate = SurrogatePotential()
    mixture = Mixture([Part("a", Inner(), 0.5), Part("b", SurrogateDriven(Inner(), surrogate), 0.5)])
    assert isinstance(mixture, LearnsFromLabels)
    mixture.new_labels(DATA)
    assert surrogate.process.frames == len(DATA)


def test_a_rattled_structure_is_a_displaced_labelled_one_with_its_fixed_atoms_in_place():
    frame = DATA[0].frame
    fixed = type(frame)(frame.numbers, frame.positions, fixed=np.array([True, False]))
    surrogate = SurrogatePotential(given=[LabelledFrame(fixed.moved(fixed.positions + 0.5), DATA[0].label)])
    sample = rattled_sample(System("s", fixed), surrogate, 0.05, "x", np.random.default_rng(0))
    assert sample.frame.positions[0] == pytest.approx(frame.positions[0] + 0.5)
    assert 0 < abs(sample.frame.positions[1] - frame.positions[1] - 0.5).max() < 0.3


def test_a_file_of_labels_is_read_or_refused_with_its_key(tmp_path):
    (tmp_path / "old.xyz").write_text(to_extxyz(DATA))
    assert [x.id for x in labelled_file(tmp_path, "old.xyz", "SAMPLERS.0.data")] == [x.id for x in DATA]
    copy = LabelledFrame(DATA[0].frame, DATA[0].label, {"provenance": "surrogate:abc"})
    (tmp_path / "copies.xyz").write_text(to_extxyz([copy]))
    (tmp_path / "empty.xyz").write_text("")
    for name in ("copies.xyz", "empty.xyz", "none.xyz"):
        with pytest.raises(SettingsError, match=r"^SAMPLERS\.0\.data: "):
            labelled_file(tmp_path, name, "SAMPLERS.0.data")
    assert labelled_file(tmp_path, None, "SAMPLERS.0.data") == []


def with_charge(labelled, charge, spin=None):
    return [replace(x, frame=replace(x.frame, charge=charge, spin=spin)) for x in labelled]


def test_labels_of_another_charge_of_the_same_atoms_are_not_learnt(caplog):
    """The process knows positions only: a cation and the neutral molecule would be one surface with two energies."""
    neutral, cations = with_charge(DATA[:6], 0.0), with_charge(DATA[:9], 1.0, 2)
    surrogate = SurrogatePotential(given=neutral)
    surrogate.new_labels(cations)
    surrogate.new_labels([*cations[6:], *DATA[6:]])
    assert surrogate.process.frames == 9, "those that state nothing are learnt"
    assert caplog.text.count("labels of H2, charge 1, multiplicity 2 are not learnt") == 1
    assert surrogate.ready(neutral[0].frame)
    assert not surrogate.ready(cations[0].frame)
    inner = Inner()
    (sample,) = made(SurrogateDriven(inner, surrogate), 1, of=(System("cation", cations[0].frame),))
    assert inner.asked == []
    assert sample.frame.charge == 1


def test_data_of_several_charges_are_refused(tmp_path):
    (tmp_path / "mixed.xyz").write_text(
        to_extxyz([*with_charge(DATA[:2], 0.0), *with_charge(DATA[2:3], 1.0, 2)])
    )
    said = r"^SAMPLERS\.0\.data: mixed\.xyz: structure 3 .*H2, charge 1, multiplicity 2\) has another charge or mult"
    with pytest.raises(SettingsError, match=said):
        labelled_file(tmp_path, "mixed.xyz", "SAMPLERS.0.data")


class Failing:
    """A baseline without energy and forces, which fails for long molecules."""

    def labels(self, frames):
        if any(np.ptp(f.positions[:, 0]) > 1.5 for f in frames):
            raise Crashed("SCF not converged")
        return [Label(0.0, np.zeros((len(f), 3))) for f in frames]


def test_structures_on_which_the_baseline_fails_are_not_learnt(caplog):
    short = [x for x in DATA if np.ptp(x.frame.positions[:, 0]) <= 1.5]
    surrogate = SurrogatePotential(Failing(), given=DATA)
    assert surrogate.ready(H2.frame) is (len(short) >= 5)
    assert surrogate.process.labels([H2.frame])
    assert caplog.text.count("is not learnt: the baseline fails: SCF not converged") == len(DATA) - len(short)


def test_it_is_ready_for_what_is_among_the_newest_labels_only(monkeypatch):
    surrogate = SurrogatePotential(given=[*DATA, *TRIMERS])
    assert surrogate.ready(H2.frame)
    monkeypatch.setattr("aims_pax.samplers.surrogate.NEWEST", len(TRIMERS))
    assert not surrogate.ready(H2.frame)
    assert surrogate.ready(OTHER.frame)


class OnlyTheData:
    """A baseline without energy and forces, which fails for all structures that are not given."""

    def labels(self, frames):
        if any(f.id not in {x.frame.id for x in DATA[:6]} for f in frames):
            raise CalculationFailed("SCF not converged")
        return [Label(0.0, np.zeros((len(f), 3))) for f in frames]


def test_deviations_need_no_baseline_which_may_fail():
    surrogate = SurrogatePotential(OnlyTheData(), DATA)
    assert surrogate.ready(H2.frame)
    moved = [x.frame.moved(x.frame.positions * 1.01) for x in DATA]
    expected = SurrogatePotential(given=DATA[:6]).deviations(moved)
    assert surrogate.deviations(moved) == pytest.approx(expected)
    assert surrogate.process.frames == 6
