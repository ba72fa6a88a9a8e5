"""What every sampler promises, run on each of them, and how they are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.lj import LennardJones as AseLennardJones

from aims_pax.commands.training_set import dynamics
from aims_pax.errors import SettingsError
from aims_pax.frames import Label
from aims_pax.potential import CalculatorPotential
from aims_pax.record.arrays import pack_arrays, unpack_arrays
from aims_pax.samplers import base
from aims_pax.samplers.ab_initio_md import AbInitioMDSampler
from aims_pax.samplers.base import Sample, Sampler, Stateful
from aims_pax.samplers.filters import duplicates, farthest_filter, sanity
from aims_pax.samplers.foundation_md import MDSampler
from aims_pax.samplers.mixture import Mixture, Part
from aims_pax.samplers.phonons import PhononSampler
from aims_pax.samplers.rattle_tree import RattleTreeSampler
from aims_pax.settings.training_set import ClassicalMD, MDSampling
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


def of_a_crystal(**changes: object) -> MDSampler:
    """The dynamics `aims-PAX training-set` asks for; NPT where a structure is periodic in three directions."""
    section = MDSampling(md_crystal=ClassicalMD(time_step_fs=2.0, **changes), temperature_K=40.0)
    asked = dynamics._md_settings(section, 1)
    nvt = asked.model_copy(update={"stat_ensemble": "NVT"})
    potential = LennardJones(smooth=True)
    return MDSampler(potential, lambda s: asked if s.frame.periodic else nvt, 4, continues=True)


def mixture() -> Mixture:
    parts = [
        Part(
            "md", MDSampler(LennardJones(), lambda system: langevin(40), 5, continues=True), 0.5, (sanity(),)
        ),
        Part(
            "trees",
            SAMPLERS["rattle_tree that goes on"](),
            0.5,
            (duplicates(by="descriptor", threshold=1e-3), farthest_filter(of=2)),
        ),
    ]
    return Mixture(parts)


SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "md": lambda: MDSampler(LennardJones(), lambda system: langevin(40), 5),
    "md with a calculator": lambda: MDSampler(argon(), lambda system: langevin(40), 3, name="lj"),
    "aimd": lambda: AbInitioMDSampler(argon(), lambda system: langevin(40), 3, name="aimd"),
    "rattle_tree": lambda: RattleTreeSampler(LennardJones(), temperature=100, sigma_range=(0.05, 0.2)),
    "rattle_tree that goes on": lambda: RattleTreeSampler(
        LennardJones(), continues=True, temperature=100, sigma_range=(0.05, 0.2)
    ),
    "phonons": lambda: PhononSampler(LennardJones(smooth=True), temperature=40),
    "md that goes on": lambda: MDSampler(argon(), lambda system: langevin(40), 3, continues=True),
    "aimd that goes on": lambda: AbInitioMDSampler(
        argon(), lambda system: langevin(40), 3, "aimd", continues=True
    ),
    "crystal md, NVT": lambda: of_a_crystal(),
    "crystal md, NPT": lambda: of_a_crystal(ensemble="NPT"),
    "crystal md, isotropic NPT": lambda: of_a_crystal(ensemble="NPT", npt_algo="mtk_isotropic"),
    "mixture with filters": mixture,
}
GO_ON = [name for name in SAMPLERS if "go" in name.split()[-2:] or name.startswith(("crystal", "mixture"))]


@pytest.fixture(params=SAMPLERS)
def make(request) -> Callable[[], Sampler]:
    return SAMPLERS[request.param]


def drawn(sampler: Sampler, n: int = 3, seed: int = 1) -> list[Sample]:
    return list(sampler.sample(systems_of(sampler), n, np.random.default_rng(seed)))


def systems_of(sampler: Sampler) -> tuple[System, ...]:
    """The systems; without fixed atoms where the pressure is held, which does not go together."""
    held = isinstance(sampler, MDSampler) and sampler.md_of(SYSTEMS[1]).stat_ensemble == "NPT"
    return tuple(System(s.name, replace(s.frame, fixed=None)) for s in SYSTEMS) if held else SYSTEMS


def test_it_gives_n_structures_of_each_system_in_turn(make):
    sampler = make()
    assert isinstance(sampler, Sampler)
    samples = drawn(sampler)
    assert [s.origin["system"] for s in samples] == ["drop", "slab", "pair"] * 3
    parts = [p.sampler for p in sampler.parts] if isinstance(sampler, Mixture) else [sampler]
    assert {s.origin["sampler"] for s in samples} == {part.name for part in parts}
    assert len({s.frame.id for s in samples} | {s.frame.id for s in SYSTEMS}) == 12


def test_everything_but_the_positions_stays_the_systems_own(make, request):
    moves_cells = "NPT" in request.node.callspec.params["make"]
    systems = {s.name: s.frame for s in systems_of(make())}
    for sample in drawn(make()):
        began = systems[sample.origin["system"]]
        cell = began.cell if moves_cells else None
        assert sample.frame.moved(began.positions, cell) == began


def test_atoms_move_and_fixed_ones_do_not(make):
    systems = {s.name: s.frame for s in systems_of(make())}
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


@pytest.mark.parametrize("name", GO_ON)
def test_what_is_remembered_goes_on_like_what_never_stopped(name):
    """In another process: what was remembered went through the bytes of a file."""
    sampler, again = SAMPLERS[name](), SAMPLERS[name]()
    assert isinstance(sampler, Stateful)
    first = drawn(sampler, seed=1)
    again.load_state_arrays(unpack_arrays(pack_arrays(sampler.state_arrays(), {}))[0])
    ids = [s.frame.id for s in drawn(sampler, n=4, seed=2)]
    assert [s.frame.id for s in drawn(again, n=4, seed=2)] == ids
    assert len({s.frame.id for s in first} | set(ids)) == 3 * 7, "nothing is made twice"
    assert [s.frame.id for s in drawn(SAMPLERS[name](), n=4, seed=2)] != ids


@pytest.mark.parametrize("name", ["rattle_tree that goes on", "md that goes on", "crystal md, NPT"])
def test_trees_and_trajectories_made_in_parts_are_those_made_in_one_go(name):
    """Whatever generator the later parts are given: the first one decides."""
    whole = [s.frame.id for s in drawn(SAMPLERS[name](), n=6, seed=1)]
    sampler = SAMPLERS[name]()
    parts = [s.frame.id for n, seed in ((2, 1), (1, 5), (3, 6)) for s in drawn(sampler, n, seed)]
    assert parts == whole


def test_every_sampler_of_the_registry_is_tested_here():
    assert {name.split(",")[0].removesuffix(" that goes on") for name in SAMPLERS} >= set(
        base.sampler_kinds()
    )


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
    assert set(base.sampler_kinds()) >= {"aimd", "md", "mine", "rattle_tree"}
    with pytest.raises(ValueError, match="exists already"):
        base.register("md", MDSampler)


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'aimd'"):
        base.sampler("amd")
    with pytest.raises(SettingsError, match="known: aimd, md"):
        base.sampler("zzz")
