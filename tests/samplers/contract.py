"""What every sampler promises (`aims_pax.sampler.Sampler`), as checks of anything that makes one."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.lj import LennardJones as AseLennardJones

from aims_pax.frames import Label
from aims_pax.labelled_data import structure_text
from aims_pax.potential import CalculatorPotential
from aims_pax.record.arrays import pack_arrays, unpack_arrays
from aims_pax.registry import Registry
from aims_pax.sampler import Sample, Sampler, Stateful
from aims_pax.samplers import Mixture, sampler
from aims_pax.samplers.kinds.md import MDSampler
from aims_pax.settings.md import MDSettings
from aims_pax.settings.samplers import KINDS
from aims_pax.systems import System
from tests.md.potentials import LennardJones, cluster, crystal

Make = Callable[[], Sampler]
SYSTEMS = (
    System("drop", cluster(5, charge=1.0, spin=2)),
    System("slab", crystal(1, 5.4, fixed=[True, False, False, False], moments=[1, 0, 0, 0])),
    System("pair", cluster(2)),
)
MD = MDSettings(stat_ensemble="NVT", temperature=40.0, timestep=2.0)


DIFFUSION = {"train_steps": 40, "steps": 6, "relax": 30, "retries": 1000}


@functools.cache
def displaced() -> Path:
    """A file of 100 displaced structures of each system."""
    rng, path = np.random.default_rng(0), Path(tempfile.mkdtemp(prefix="contract")) / "displaced.xyz"
    texts = []
    for system in SYSTEMS:
        loose = 1.0 if system.frame.fixed is None else ~system.frame.fixed
        for _ in range(100):
            moved = system.frame.positions + 0.1 * loose * rng.normal(size=system.frame.positions.shape)
            texts.append(structure_text(system.frame.moved(moved).to_atoms()))
    path.write_text("".join(texts))
    atexit.register(shutil.rmtree, path.parent)
    return path


def argon() -> CalculatorPotential:
    return CalculatorPotential(lambda: AseLennardJones(epsilon=0.0104, sigma=3.4, rc=8.5, smooth=True))


def of_kind(kind: str) -> Sampler:
    """A sampler as the settings `{kind: …}` make it, from whatever a run offers."""
    keys = KINDS[kind].example if kind != "diffusion" else DIFFUSION | {"data": str(displaced())}
    return sampler(kind, LennardJones(smooth=True), reference=argon(), md=MD, skip_step=3, **keys)


@contextmanager
def as_before(registry: Registry[Any]) -> Iterator[None]:
    """What is registered meanwhile is taken back; modules of ours that were loaded stay."""
    before = {*registry}
    yield
    for name in {*registry} - before:
        registry.unregister(name)


def drawn(made: Sampler, n: int = 3, seed: int = 1) -> list[Sample]:
    return list(made.sample(systems_of(made), n, np.random.default_rng(seed)))


def systems_of(made: Sampler) -> tuple[System, ...]:
    """The systems; without fixed atoms where the pressure is held, which does not go together."""
    return tuple(System(s.name, replace(s.frame, fixed=None)) for s in SYSTEMS) if held(made) else SYSTEMS


def held(made: Sampler) -> bool:
    return isinstance(made, MDSampler) and made.md_of(SYSTEMS[1]).stat_ensemble == "NPT"


# ---------------------------------------------------------------- the promises


def it_gives_n_structures_of_each_system_in_turn(make: Make) -> None:
    made = make()
    assert isinstance(made, Sampler)
    samples = drawn(made)
    assert [s.origin["system"] for s in samples] == ["drop", "slab", "pair"] * 3
    parts = [p.sampler for p in made.parts] if isinstance(made, Mixture) else [made]
    assert {s.origin["sampler"] for s in samples} == {part.name for part in parts}
    assert len({s.frame.id for s in samples} | {s.frame.id for s in SYSTEMS}) == 12


def everything_but_the_positions_stays_the_systems_own(make: Make) -> None:
    made = make()
    systems = {s.name: s.frame for s in systems_of(made)}
    for sample in drawn(made):
        began = systems[str(sample.origin["system"])]
        assert sample.frame.moved(began.positions, began.cell if held(made) else None) == began


def atoms_move_and_fixed_ones_do_not(make: Make) -> None:
    systems = {s.name: s.frame for s in systems_of(make())}
    for sample in drawn(make()):
        began = systems[str(sample.origin["system"])]
        moved = sample.frame.positions != began.positions
        fixed = np.zeros_like(moved) if began.fixed is None else began.fixed
        assert (moved == ~fixed).all()
        if sample.origin["sampler"] != "diffusion":  # which gives new arrangements
            assert abs(sample.frame.positions - began.positions).max() < 3


def equal_generators_give_equal_structures_and_others_others(make: Make) -> None:
    first = [s.frame.id for s in drawn(make(), seed=1)]
    assert [s.frame.id for s in drawn(make(), seed=1)] == first
    assert not set(first) & {s.frame.id for s in drawn(make(), seed=2)}


def none_of_each_is_none(make: Make) -> None:
    assert drawn(make(), n=0) == []


def the_origin_can_be_stored_with_the_frame(make: Make) -> None:
    sample = drawn(make(), n=1)[0]
    label = Label(-1.0, np.zeros((len(sample.frame), 3)))
    info = sample.labelled(label).to_atoms().info
    assert sample.origin.items() <= info.items()
    assert all(isinstance(v, str | int | float) for v in sample.origin.values())


def one_with_a_state_continues_in_another_process_as_if_never_stopped(make: Make) -> None:
    """What `state_arrays` gave went through the bytes of a file."""
    made, again = make(), make()
    if not isinstance(made, Stateful):
        return
    first = drawn(made, seed=1)
    again.load_state_arrays(unpack_arrays(pack_arrays(made.state_arrays(), {}))[0])
    ids = [s.frame.id for s in drawn(made, n=4, seed=2)]
    assert [s.frame.id for s in drawn(again, n=4, seed=2)] == ids
    assert len({s.frame.id for s in first} | set(ids)) == 3 * 7, "nothing is made twice"
    without = [s.frame.id for s in drawn(make(), n=4, seed=2)]
    assert bool(made.state_arrays()) == (without != ids), "a state that is not empty matters"


PROMISES = (
    it_gives_n_structures_of_each_system_in_turn,
    everything_but_the_positions_stays_the_systems_own,
    atoms_move_and_fixed_ones_do_not,
    equal_generators_give_equal_structures_and_others_others,
    none_of_each_is_none,
    the_origin_can_be_stored_with_the_frame,
    one_with_a_state_continues_in_another_process_as_if_never_stopped,
)
