"""`aims-PAX sample`: structures in a file, to the number asked for, the same after any end."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from rich.console import Console

from aims_pax.commands import sample as story
from aims_pax.commands.sample import sample
from aims_pax.engine.interrupts import RunInterrupted
from aims_pax.errors import Busy, RestartError, SettingsError, SetupError
from aims_pax.frames import Frame
from aims_pax.models.mace import Ensemble
from aims_pax.potentials.named import Potentials
from aims_pax.record.arrays import pack_arrays, unpack_arrays
from aims_pax.record.lock import Lock
from aims_pax.sampler import SamplingError
from aims_pax.settings import mace
from aims_pax.systems import read_systems
from tests.projects import command
from tests.worlds import crystal, dimer

EXAMPLE = Path(__file__).parents[2] / "example" / "sample"
EMT = {"factory": "ase.calculators.emt:EMT"}
CONFIG = {
    "path_to_geometry": ["crystal.xyz", "pair.xyz"],
    "output": "samples.xyz",
    "n_per_geometry": 12,
    "MD": {"temperature": 300, "timestep": 1.0, "friction": 0.02},
    "SAMPLERS": [
        {"kind": "md", "share": 0.5, "potential": EMT, "skip_step": 3, "filters": ["sanity"]},
        {"kind": "rattle_tree", "share": 0.5, "sigma_range": [0.1, 0.2],
         "filters": [{"kind": "duplicates", "threshold": 0.05}, {"kind": "farthest_points", "of": 2}]},
    ],
}  # fmt: skip


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Run the command in a folder of its own; returns what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(story, "BATCH", 4)
    ase.io.write("crystal.xyz", crystal().to_atoms(), format="extxyz")
    ase.io.write("pair.xyz", dimer("Cu", 2.4).to_atoms(), format="extxyz")

    def run(**changes) -> str:
        Path("config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
        said = io.StringIO()
        sample(Path("config.yaml"), Console(file=said, width=300))
        return said.getvalue()

    return run


def output() -> str:
    return Path("samples.xyz").read_text()


def test_every_geometry_gets_its_structures_from_the_samplers_in_their_shares(go):
    said = go()
    made = ase.io.read("samples.xyz", index=":")
    counts = Counter((a.info["system"], a.info["sampler"]) for a in made)
    assert counts == {(s, k): 6 for s in ("crystal", "pair") for k in ("md", "rattle_tree")}
    for name in ("crystal", "pair"):
        assert [a.info["id"] for a in made if a.info["system"] == name] == [f"{name}-{k}" for k in range(12)]
    assert "made: md 12, rattle_tree 12" in said


def test_where_a_structure_came_from_is_told_and_it_is_the_frame_of_its_id(go):
    go()
    systems = {s.name: s.frame for s in read_systems([Path("crystal.xyz"), Path("pair.xyz")])}
    for atoms in ase.io.read("samples.xyz", index=":"):
        frame = Frame.from_atoms(atoms)
        assert frame.id == atoms.info["frame_id"]
        assert frame.moved(systems[atoms.info["system"]].positions) == systems[atoms.info["system"]]
        assert atoms.info["temperature"] == 300
        kind = {"md": "step", "rattle_tree": "node"}[atoms.info["sampler"]]
        assert kind in atoms.info
        assert "energy" not in atoms.info, "a cheap potential's energies are no labels"


BROKEN = """from ase.calculators.emt import EMT
class Never(EMT):
    def calculate(self, *args):
        raise ValueError("no such method")
def nothing():
    raise KeyError("license")
"""


@pytest.mark.parametrize(
    ("made", "said"), [("Never", "ValueError: no such method"), ("nothing", "KeyError: 'license'")]
)
@pytest.mark.parametrize("kind", ["md", "rattle_tree"])
def test_a_potential_that_does_not_work_is_named_by_its_key(go, made, said, kind):
    module = f"broken_{made}_{kind}"
    Path(f"{module}.py").write_text(BROKEN)
    broken = {"kind": kind, "potential": {"factory": f"{module}:{made}"}}
    with pytest.raises(SetupError, match=rf"^SAMPLERS\.0\.potential: {said}$"):
        go(SAMPLERS=[broken])
    with pytest.raises(SetupError, match=r"^SAMPLERS\.1\.potential: "):
        go(SAMPLERS=[{"kind": kind}, broken])


def test_equal_seeds_give_equal_files_and_others_others(go):
    go()
    first = output()
    Path("samples.xyz").unlink()
    go()
    assert output() == first, "whoever removes the file begins anew"
    Path("samples.xyz").unlink()
    go(seed=43)
    assert output() != first


def test_running_it_again_adds_nothing_and_asking_for_more_adds_the_rest(go):
    go(n_per_geometry=5)
    few = output()
    assert "5 of 5 structures of each" in go(n_per_geometry=5)
    assert output() == few
    said = go(n_per_geometry=3)
    assert "5 structures of each of 2 geometries exist, 3 were requested" in said
    assert output() == few
    go()
    assert output().startswith(few)
    made = ase.io.read("samples.xyz", index=":")
    assert len(made) == len({a.info["frame_id"] for a in made}) == 24
    trees = [
        a.info["node"] for a in made if a.info["sampler"] == "rattle_tree" and a.info["system"] == "pair"
    ]
    assert len(set(trees)) == 6, "the same trees went on"
    steps = [a.info["step"] for a in made if a.info["sampler"] == "md" and a.info["system"] == "pair"]
    assert steps == [3 * k for k in range(1, 7)], "the same trajectory went on"


class Killed(BaseException):
    """What SIGKILL would do at this point."""


@pytest.mark.parametrize("what", ["write", "memory"])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_killed_anywhere_and_run_again_it_makes_the_same_file(go, monkeypatch, what, batch):
    go()
    undisturbed = output()
    Path("samples.xyz").unlink()
    calls = [0]

    def die(*_):
        calls[0] += 1
        if calls[0] > batch + 1:  # the first is written before there is anything
            raise Killed

    with monkeypatch.context() as patch:
        if what == "write":  # half of a batch is in the file
            texts = story._texts

            def torn(samples, done):
                calls[0] += 1
                whole = "".join(texts(samples, done))
                if calls[0] > batch:
                    with open("samples.xyz", "a") as file:
                        file.write(whole[: len(whole) // 2])
                    raise Killed
                return iter([whole])

            patch.setattr(story, "_texts", torn)
        else:  # all of it is, but what the samplers remember is not
            write = story._write_memory

            def forgetful(*given):
                die()
                write(*given)

            patch.setattr(story, "_write_memory", forgetful)
        with pytest.raises(Killed):
            go()
    go()
    assert output() == undisturbed


def test_a_file_of_somebody_else_is_left_alone(go):
    Path("samples.xyz").write_text("mine\n")
    with pytest.raises(RestartError, match="not written by this command"):
        go()
    assert output() == "mine\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 7}, "seed: 42 → 7"),
        ({"SAMPLERS": [{**CONFIG["SAMPLERS"][0], "share": 1.0}]}, "SAMPLERS.0.share: 0.5 → 1.0"),
        ({"SAMPLERS": [{**CONFIG["SAMPLERS"][0], "share": 1.0}]}, "SAMPLERS.1.kind: rattle_tree → not set"),
        ({"MD": {**CONFIG["MD"], "temperature": 200}}, "MD.temperature: 300.0 → 200.0"),
        ({"path_to_geometry": "pair.xyz"}, "geometry.crystal: structure "),
    ],
)
def test_other_samplers_or_seeds_do_not_go_on_with_it_and_the_keys_are_named(go, change, said):
    go(n_per_geometry=2)
    with pytest.raises(RestartError, match="was made with other settings") as told:
        go(**change)
    assert f"\n  {said}" in str(told.value)
    assert str(told.value).endswith("Undo the change; or name another output, or remove samples.xyz")


def test_a_file_from_before_settings_were_kept_says_what_it_can(go):
    go(n_per_geometry=2)
    memory = Path(".samples.xyz.memory.npy")
    arrays, meta = unpack_arrays(memory.read_bytes())
    del meta["made_with"]
    memory.write_bytes(pack_arrays(arrays, meta))
    assert "2 of 2 structures" in go(n_per_geometry=2)
    with pytest.raises(RestartError, match="samplers, geometries or seed: changed"):
        go(seed=7)


def test_after_a_failure_without_structures_a_file_of_somebody_else_is_left_alone(go):
    """What failed before it had made anything has no claim to the name."""
    fixed = {"kind": "rattle_tree", "potential": EMT, "sigma_range": [1e-4, 2e-4], "max_attempts": 3}
    with pytest.raises(SamplingError):
        go(SAMPLERS=[fixed])
    assert not list(Path().glob(".samples*memory*"))
    Path("samples.xyz").write_text("mine\n")
    with pytest.raises(RestartError, match="not written by this command"):
        go(SAMPLERS=[fixed])
    assert Path("samples.xyz").read_text() == "mine\n"


def test_a_file_that_was_cut_is_not_gone_on_with(go):
    go(n_per_geometry=2)
    Path("samples.xyz").write_text(output()[:-200])
    with pytest.raises(RestartError, match="shorter than when it was written"):
        go()


def test_a_torn_memory_says_what_to_remove(go):
    go(n_per_geometry=2)
    memory = Path(".samples.xyz.memory.npy")
    memory.write_bytes(memory.read_bytes()[:-9])
    with pytest.raises(RestartError, match=r"remove it and samples\.xyz to start again"):
        go()


def test_the_reference_is_not_here(go):
    with pytest.raises(SettingsError, match=r"SAMPLERS.0.kind: aimd needs the reference of a run"):
        go(SAMPLERS=[{"kind": "aimd"}])


def test_a_file_name_that_is_no_extended_xyz_is_refused(go):
    for name in ("samples.db", "nowhere/samples.xyz"):
        with pytest.raises(SettingsError, match="output: "):
            go(output=name)


def test_two_at_once_do_not_mix(go, tmp_path):
    with Lock(tmp_path / ".samples.xyz.lock").held(), pytest.raises(Busy):
        go()


def test_a_potential_that_cannot_be_made_is_named_with_its_key(go):
    with pytest.raises(SettingsError, match=r"SAMPLERS.1.potential: .*nowhere"):
        go(SAMPLERS=[{"kind": "md", "potential": EMT}, {"kind": "md", "potential": {"factory": "nowhere:x"}}])


def test_features_of_a_potential_that_is_no_mace_model_are_refused(go):
    filters = [{"kind": "farthest_points", "descriptor": "mace"}]
    with pytest.raises(SettingsError, match=r"SAMPLERS.0.filters.0: descriptor: mace needs a MACE model"):
        go(SAMPLERS=[{"kind": "md", "potential": EMT, "filters": filters}])


def test_filters_that_let_nothing_pass_end_it_with_the_reason(go):
    filters = [{"kind": "duplicates", "by": "descriptor", "threshold": 900}]
    with pytest.raises(SamplingError, match="the filters of sampler md removed"):
        go(SAMPLERS=[{"kind": "md", "potential": EMT, "skip_step": 1, "filters": filters}])


OWN = """
import numpy as np
from aims_pax.samplers import Sample

class Shaken:
    name = "shaken"

    def __init__(self, sigma, potential=None):
        self.sigma, self.potential = sigma, potential

    def sample(self, systems, n, rng):
        for _ in range(n):
            for s in systems:
                moved = s.frame.positions + rng.normal(0, self.sigma, s.frame.positions.shape)
                yield Sample(s.frame.moved(moved), None, {"sampler": self.name, "system": s.name, "temperature": 300})
"""


def test_a_sampler_of_one_s_own_stands_in_the_working_folder(go):
    Path("shaken.py").write_text(OWN)
    go(SAMPLERS=[{"kind": "shaken:Shaken", "kwargs": {"sigma": 0.1}, "potential": EMT}])
    made = ase.io.read("samples.xyz", index=":")
    assert {a.info["sampler"] for a in made} == {"shaken"}
    assert len({a.positions.tobytes() for a in made}) == 24
    Path("samples.xyz").unlink()
    with pytest.raises(SettingsError, match=r"SAMPLERS.0.kwargs: shaken:Shaken: .*sigmma"):
        go(SAMPLERS=[{"kind": "shaken:Shaken", "kwargs": {"sigmma": 0.1}}])
    with pytest.raises(SettingsError, match=r"which is not a sampler"):
        go(SAMPLERS=[{"kind": "ase.calculators.emt:EMT"}])
    sys.modules.pop("shaken", None)


def test_a_state_by_the_former_names_of_its_methods_is_refused_with_the_new_ones(go):
    """It would begin anew after a restart, and nobody would see it."""
    old = "\n    def memory(self):\n        return {}\n\n    def remember(self, arrays):\n        pass\n"
    Path("forgetful.py").write_text(OWN + old)
    text = r"^SAMPLERS\.0\.kind: Shaken has .* rename memory\(\) to state_arrays\(\), remember\(\) to load_state_arrays"
    with pytest.raises(SettingsError, match=text):
        go(SAMPLERS=[{"kind": "forgetful:Shaken", "kwargs": {"sigma": 0.1}}])
    assert not Path("samples.xyz").exists()


def test_a_sampler_of_one_s_own_that_cannot_be_made_is_named_by_its_key(go):
    Path("moody.py").write_text("def moody():\n    raise KeyError('license')\n")
    with pytest.raises(SetupError, match=r"^SAMPLERS\.0\.kind: KeyError: 'license'$"):
        go(SAMPLERS=[{"kind": "moody:moody"}])


def test_a_signal_ends_it_cleanly_and_the_same_command_goes_on(go, monkeypatch):
    go()
    undisturbed = output()
    Path("samples.xyz").unlink()
    sampled, calls = story._texts, []

    def signalled(samples, done):
        calls.append(done)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return sampled(samples, done)

    with monkeypatch.context() as patch:
        patch.setattr(story, "_texts", signalled)
        with pytest.raises(RunInterrupted):
            go()
    assert undisturbed.startswith(output())
    go()
    assert output() == undisturbed


@pytest.mark.slow
def test_killed_for_good_it_goes_on(go, tmp_path):
    go()
    undisturbed = output()
    Path("samples.xyz").unlink()
    code = "from aims_pax.commands import sample as s; s.BATCH = 4; from aims_pax.cli import main; main()"
    for delay in (3.0, 4.0, 5.0):
        process = subprocess.Popen([sys.executable, "-c", code, "sample", "config.yaml"], cwd=tmp_path)
        time.sleep(delay)
        process.kill()
        process.wait()
    go()
    assert output() == undisturbed


def test_the_example_runs_in_less_than_a_minute(tmp_path):
    pytest.importorskip("phonopy")
    shutil.copytree(EXAMPLE, tmp_path / "sample")
    done = command("sample", "config.yaml", folder=tmp_path / "sample", timeout=120)
    assert done.returncode == 0, done.stderr
    made = ase.io.read(tmp_path / "sample" / "samples.xyz", index=":")
    counts = Counter((a.info["system"], a.info["sampler"]) for a in made)
    assert {k: counts["cluster", k] for k in ("md", "rattle_tree", "phonons")} == {
        "md": 10,
        "rattle_tree": 6,
        "phonons": 4,
    }
    assert len(made) == 40
    assert all(np.isfinite(a.positions).all() for a in made)
    mistake = tmp_path / "sample" / "config.yaml"
    mistake.write_text(mistake.read_text().replace("n_per_geometry", "n_per_geometri"))
    done = command("sample", "config.yaml", folder=tmp_path / "sample", timeout=60)
    assert done.returncode == 2
    assert "n_per_geometri: unknown key; nearest: n_per_geometry" in done.stderr


def test_features_of_the_potential_s_own_model_choose_the_farthest(go, tmp_path):
    model = tmp_path / "tiny.model"
    settings = mace.MaceSettings(
        general=mace.GeneralSettings(name_exp="tiny"),
        architecture=mace.ArchitectureSettings(num_channels=4, r_max=3.5, max_L=0, max_ell=1, correlation=1),
        training=mace.TrainingSettings(),
        misc=mace.MaceMiscSettings(),
    )
    Ensemble.build(settings, [1], (29,)).save(0, model)
    samplers = [{"kind": "rattle_tree", "potential": "tiny.model", "max_relax_steps": 0, "max_force": 1e6}]
    pair = {"path_to_geometry": "pair.xyz", "n_per_geometry": 4}
    chosen = [{"kind": "farthest_points", "of": 2, "descriptor": "mace"}]
    go(**pair, SAMPLERS=[{**samplers[0], "filters": chosen}])
    kept = ase.io.read("samples.xyz", index=":")
    frame = Frame.from_atoms(kept[0])
    describe = Potentials(tmp_path, "cpu").describe("tiny.model", "x")
    order = frame.moved(frame.positions[::-1])
    np.testing.assert_allclose(describe([frame]), describe([order]), atol=1e-6)
    assert len(kept) == 4
    assert np.linalg.norm(np.diff(describe([Frame.from_atoms(a) for a in kept]), axis=0), axis=1).min() > 0


def test_settings_of_the_dynamics_that_nothing_uses_are_said(go):
    md = {"barostat": "MTK", "pressure_au": 6e-3}
    said = go(n_per_geometry=1, MD=CONFIG["MD"] | md)
    assert "MD.barostat: has no effect: stat_ensemble is NVT" in said
    assert "MD.pressure_au: has no effect: stat_ensemble is NVT" in said
    Path("samples.xyz").unlink()
    pressed = [{"kind": "md", "potential": EMT, "skip_step": 2, "stat_ensemble": "NPT"}]
    said = go(n_per_geometry=1, MD={"timestep": 1.0, **md}, SAMPLERS=pressed)
    assert "has no effect" not in said
    assert "pair is not periodic in three directions: NVT is used, with the thermostat Langevin" in said
    assert "crystal is not periodic" not in said


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("banana", "device: expected devices like cpu, cuda or cuda:0, got 'banana'"),
        ("mps", "device: mps cannot be used"),
        ("cuda:99", "device: cuda:99"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused_at_once(go, device, said):
    with pytest.raises(SettingsError, match=said):
        go(device=device)
    assert not Path("samples.xyz").exists()


def test_a_changed_module_of_the_user_does_not_go_on_with_the_output(go):
    """The same name with other contents is another potential."""
    text = "from ase.calculators.lj import LennardJones\n\n\ndef make():\n    return LennardJones(sigma={})\n"
    Path("of_user_lj.py").write_text(text.format(2.0))
    samplers = [{"kind": "md", "potential": {"factory": "of_user_lj:make"}, "skip_step": 5}]
    go(n_per_geometry=1, SAMPLERS=samplers)
    before = output()
    Path("of_user_lj.py").write_text(text.format(2.2))
    with pytest.raises(RestartError, match=r"made with other settings:\n  contents\.of_user_lj\.py: "):
        go(n_per_geometry=2, SAMPLERS=samplers)
    assert output() == before
    Path("of_user_lj.py").write_text(text.format(2.0))
    go(n_per_geometry=2, SAMPLERS=samplers)
    assert output().startswith(before)
    assert len(output()) > len(before)
