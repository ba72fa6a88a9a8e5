"""What every sampler promises, run on each of them, and how they are found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase.calculators.lj import LennardJones as AseLennardJones

from aims_pax.errors import SettingsError
from aims_pax.frames import Label
from aims_pax.potential import CalculatorPotential
from aims_pax.samplers import base
from aims_pax.samplers.ab_initio_md import AbInitioMDSampler
from aims_pax.samplers.base import Sample, Sampler
from aims_pax.samplers.foundation_md import MDSampler
from aims_pax.samplers.phonons import PhononSampler
from aims_pax.samplers.rattle_tree import RattleTreeSampler
from aims_pax.systems import System
from tests.md.potentials import LennardJones, cluster, crystal
from tests.md.settings import langevin

SYSTEMS = (
    System("drop", cluster(5, charge=1.0, spin=2)),
    System("slab", crystal(1, 5.4, fixed=[True, False, False, False], moments=[1, 0, 0, 0])),
    System("pair", cluster(2)),
)


def argon() -> CalculatorPotential:
    return CalculatorPotential(lambda: AseLennardJones(epsilon=0.0104, sigma=3.4, rc=8.5, smooth=True))


SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "md": lambda: MDSampler(LennardJones(), lambda system: langevin(40), 5),
    "md with a calculator": lambda: MDSampler(argon(), lambda system: langevin(40), 3, name="lj"),
    "aimd": lambda: AbInitioMDSampler(argon(), lambda system: langevin(40), 3, name="aimd"),
    "rattle_tree": lambda: RattleTreeSampler(LennardJones(), temperature=100, sigma_range=(0.05, 0.2)),
    "phonons": lambda: PhononSampler(LennardJones(smooth=True), temperature=40),
}


@pytest.fixture(params=SAMPLERS)
def make(request) -> Callable[[], Sampler]:
    return SAMPLERS[request.param]


def drawn(sampler: Sampler, n: int = 3, seed: int = 1) -> list[Sample]:
    return list(sampler.sample(SYSTEMS, n, np.random.default_rng(seed)))


def test_it_gives_n_structures_of_each_system_in_turn(make):
    sampler = make()
    assert isinstance(sampler, Sampler)
    samples = drawn(sampler)
    assert [s.origin["system"] for s in samples] == ["drop", "slab", "pair"] * 3
    assert {s.origin["sampler"] for s in samples} == {sampler.name}
    assert len({s.frame.id for s in samples} | {s.frame.id for s in SYSTEMS}) == 12


def test_everything_but_the_positions_stays_the_systems_own(make):
    systems = {s.name: s.frame for s in SYSTEMS}
    for sample in drawn(make()):
        began = systems[sample.origin["system"]]
        assert sample.frame.moved(began.positions) == began


def test_atoms_move_and_fixed_ones_do_not(make):
    systems = {s.name: s.frame for s in SYSTEMS}
    for sample in drawn(make()):
        began = systems[sample.origin["system"]]
        moved = sample.frame.positions != began.positions
        fixed = np.zeros_like(moved) if began.fixed is None else began.fixed
        assert (moved == ~fixed).all()
        assert abs(sample.frame.positions - began.positions).max() < 3


def test_equal_generators_give_equal_structures_and_others_others(make):
    first = [s.frame.id for s in drawn(make(), seed=1)]
    assert [s.frame.id for s in drawn(make(), seed=1)] == first
    assert not set(first) & {s.frame.id for s in drawn(make(), seed=2)}


def test_none_of_each_is_none(make):
    assert drawn(make(), n=0) == []


def test_the_origin_can_be_stored_with_the_frame(make):
    sample = drawn(make(), n=1)[0]
    label = Label(-1.0, np.zeros((len(sample.frame), 3)))
    info = sample.labelled(label).to_atoms().info
    assert sample.origin.items() <= info.items()
    assert all(isinstance(v, str | int | float) for v in sample.origin.values())


def test_a_sample_without_a_label_says_so():
    with pytest.raises(ValueError, match="has no label"):
        Sample(cluster(2)).labelled()


def test_samplers_are_found_by_their_kind(monkeypatch):
    monkeypatch.setattr(base, "_KINDS", dict(base._KINDS))
    made = base.sampler("md", potential=LennardJones(), md_of=lambda s: langevin(), skip_steps=2)
    assert isinstance(made, MDSampler)
    base.register("mine", MDSampler)
    assert set(base.kinds()) >= {"aimd", "md", "mine", "rattle_tree"}
    with pytest.raises(ValueError, match="exists already"):
        base.register("md", MDSampler)


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'aimd'"):
        base.sampler("amd")
    with pytest.raises(SettingsError, match="known: aimd, md"):
        base.sampler("zzz")
