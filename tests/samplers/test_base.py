"""What every sampler promises, run on each of them, and how they are found."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from aims_pax.commands.training_set import dynamics
from aims_pax.errors import SettingsError
from aims_pax.sampler import Sampler, Stateful
from aims_pax.samplers import base, duplicates, farthest_filter, sanity
from aims_pax.samplers.kinds.aimd import AbInitioMDSampler
from aims_pax.samplers.kinds.md import MDSampler
from aims_pax.samplers.kinds.rattle_tree import RattleTreeSampler
from aims_pax.samplers.mixture import Mixture, Part
from aims_pax.settings.samplers import KINDS, SamplerSettings, register_sampler
from aims_pax.settings.training_set import ClassicalMD, MDSampling
from tests.md.potentials import LennardJones
from tests.md.settings import langevin
from tests.samplers.contract import MD, PROMISES, argon, as_before, drawn, of_kind


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """One folder for all tests of this file, since diffusion models are stored where the run is."""
    folder = tmp_path_factory.getbasetemp() / "samplers"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)


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
            of_kind("rattle_tree"),
            0.5,
            (duplicates(by="descriptor", threshold=1e-3), farthest_filter(of=2)),
        ),
    ]
    return Mixture(parts)


SAMPLERS: dict[str, Callable[[], Sampler]] = {
    **{f"kind {kind}": partial(of_kind, kind) for kind in KINDS},  # as settings make them: they continue
    "md": lambda: MDSampler(LennardJones(), lambda system: langevin(40), 5),
    "md with a calculator": lambda: MDSampler(argon(), lambda system: langevin(40), 3, name="lj"),
    "aimd": lambda: AbInitioMDSampler(argon(), lambda system: langevin(40), 3, name="aimd"),
    "rattle_tree": lambda: RattleTreeSampler(LennardJones(), temperature=100, sigma_range=(0.05, 0.2)),
    "crystal md, NVT": lambda: of_a_crystal(),
    "crystal md, NPT": lambda: of_a_crystal(ensemble="NPT"),
    "crystal md, isotropic NPT": lambda: of_a_crystal(ensemble="NPT", npt_algo="mtk_isotropic"),
    "mixture with filters": mixture,
}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_keeps_its_promises(name, promise):
    promise(SAMPLERS[name])


@pytest.mark.parametrize("kind", ["md", "aimd", "rattle_tree"])
def test_kinds_that_move_from_structure_to_structure_have_a_state(kind):
    made = of_kind(kind)
    drawn(made)
    assert isinstance(made, Stateful)
    assert made.state_arrays()


@pytest.mark.parametrize("name", ["kind rattle_tree", "kind md", "crystal md, NPT"])
def test_trees_and_trajectories_made_in_parts_are_those_made_in_one_go(name):
    """Whatever generator the later parts are given: the first one decides."""
    whole = [s.frame.id for s in drawn(SAMPLERS[name](), n=6, seed=1)]
    made = SAMPLERS[name]()
    parts = [s.frame.id for n, seed in ((2, 1), (1, 5), (3, 6)) for s in drawn(made, n, seed)]
    assert parts == whole


# ---------------------------------------------------------------- kinds by name


def test_the_kinds_are_the_files_of_a_folder_and_are_read_without_torch():
    code = (
        "import sys; from aims_pax.settings.samplers import KINDS; print(*KINDS); list(KINDS.values()); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["md", "aimd", "rattle_tree", "phonons", "diffusion", "gpr"]
    assert done.returncode == 0, done.stderr


def test_a_sampler_is_made_by_its_kind_with_the_keys_of_the_settings():
    made = base.sampler("md", LennardJones(), md=MD, skip_step=2, temperature=70)
    assert isinstance(made, MDSampler)
    assert (made.skip_steps, made.md_of(None).temperature, made.md_of(None).timestep) == (2, 70, 2.0)


@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        ("amd", {}, "did you mean 'aimd'"),
        ("zzz", {}, "known: aimd, diffusion, gpr, md"),
        ("md", {"skip_steps": 2}, "skip_steps: unknown key; nearest: skip_step"),
        ("md", {}, "needs a potential"),
        ("aimd", {}, "aimd needs the reference of a run"),
    ],
)
def test_what_is_wrong_with_a_kind_or_its_keys_is_said(kind, keys, said):
    with pytest.raises(SettingsError, match=said):
        base.sampler(kind, **keys)


def test_a_name_is_given_once_and_a_callable_under_a_name_is_called_with_kwargs():
    with as_before(KINDS):
        base.register("mine", lambda skip: MDSampler(LennardJones(), lambda system: langevin(), skip))
        assert base.sampler("mine", kwargs={"skip": 7}).skip_steps == 7
        with pytest.raises(SettingsError, match=r"mine\.kwargs: mine: .*unexpected keyword argument 'skp'"):
            base.sampler("mine", kwargs={"skp": 7})
        for taken in ("mine", "phonons"):
            with pytest.raises(ValueError, match="already exists"):
                register_sampler(taken)(SamplerSettings)
    with pytest.raises(TypeError, match="expected a subclass of SamplerSettings"):
        register_sampler("three")(3)


def test_the_examples_of_the_page_are_true():
    result = doctest.testmod(base)
    assert result.attempted > 3
    assert result.failed == 0
