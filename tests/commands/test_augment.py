"""`aims-PAX augment`: files in, files out, any end in between."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from rich.console import Console

from aims_pax.commands import augment as story
from aims_pax.commands.augment import augment
from aims_pax.engine.interrupts import RunInterrupted
from aims_pax.errors import Busy, RestartError, SettingsError, SetupError
from aims_pax.labelled_data import LabelKeys, labelled_frame
from aims_pax.sampler import SamplingError
from aims_pax.settings.augment import read_augment

EXAMPLE = Path(__file__).parents[2] / "example" / "augment"
CONFIG = {
    "data": {"input": "input.xyz", "output": "output.xyz"},
    "config": {
        "n_per_structure": 5, "T": 500, "beta": 0.5, "sigma_range": [0.1, 0.2], "seed": 1,
    },
    "model": {"calculator": {"factory": "ase.calculators.emt:EMT"}},
}  # fmt: skip


def clusters():
    base = np.array([[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]])
    noise = np.random.default_rng(0).normal(0, 0.03, (3, 4, 3))
    return [Atoms("Cu4", base + n, info={"REF_energy": 7.0, "charge": k}) for k, n in enumerate(noise)]


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Run the command in a folder of its own; returns what it said."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("input.xyz", clusters(), format="extxyz")

    def run(structures=None, **changes):
        if structures is not None:
            ase.io.write("input.xyz", structures, format="extxyz")
        document = {s: {**keys, **changes.get(s, {})} for s, keys in CONFIG.items()}
        Path("config.yaml").write_text(yaml.safe_dump(document))
        said = io.StringIO()
        augment(Path("config.yaml"), Console(file=said, width=200))
        return said.getvalue()

    return run


def output():
    return ase.io.read("output.xyz", index=":")


def test_every_structure_gets_a_family(go):
    said = go()
    made = output()
    assert len(made) == 15
    for k, start in enumerate(clusters()):
        family = [a for a in made if a.info["starting-structure"] == k]
        assert [a.info["id"] for a in family] == [f"{k}-{n}" for n in range(5)]
        root = family[0]
        assert (root.info["level"], root.info["parent"]) == (0, "none")
        np.testing.assert_allclose(root.positions, start.positions, atol=1e-7)
        levels = {a.info["id"]: a.info["level"] for a in family}
        for child in family[1:]:
            assert child.info["level"] == levels[child.info["parent"]] + 1
            assert 0.1 <= child.info["sigma"] <= 0.2
            assert isinstance(child.info["relax_steps"], int | np.integer)
            assert child.info["charge"] == k
            assert "REF_energy" not in child.info, "a label of the starting structure is not the child's"
    assert "15 structures from" in said
    assert "rejected: " in said


def test_labels_are_those_of_the_calculator(go):
    go()
    for atoms in output():
        read = labelled_frame(atoms, LabelKeys("energy", "forces", "stress"))
        atoms.calc = EMT()
        assert read.label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(read.label.forces, atoms.get_forces(), atol=1e-7)


def test_stress_is_written_when_the_cell_moves(go):
    crystal = bulk("Cu", cubic=True)
    go([crystal], config={"cell_sigma": 0.02, "n_per_structure": 4})
    made = output()
    assert len({a.cell.array.tobytes() for a in made}) == 4
    for atoms in made:
        stress = atoms.calc.results["stress"]
        atoms.calc = EMT()
        np.testing.assert_allclose(stress, atoms.get_stress(), atol=1e-8)


def test_running_it_again_adds_nothing_and_asking_for_more_adds_the_rest(go):
    go(config={"n_per_structure": 3})
    few = Path("output.xyz").read_text()
    said = go(config={"n_per_structure": 3})
    assert "9 of 9 structures made" in said
    assert Path("output.xyz").read_text() == few
    assert "9 structures exist, 6 were requested" in go(config={"n_per_structure": 2})
    assert Path("output.xyz").read_text() == few
    go()
    grown = Path("output.xyz").read_text()
    assert grown.startswith(few)
    Path("output.xyz").unlink()
    go()
    assert by_id(grown) == by_id(Path("output.xyz").read_text()), "the same families as in one go"


def by_id(text):
    """{id: lines of the structure}."""
    lines, found = text.splitlines(), {}
    while lines:
        n = int(lines[0]) + 2
        found[lines[1].split(" id=")[1].split()[0]], lines = lines[:n], lines[n:]
    return found


@pytest.mark.parametrize("cut", [1, 40, 700, 2500])
def test_a_torn_end_is_made_again(go, cut):
    go()
    whole = Path("output.xyz").read_bytes()
    Path("output.xyz").write_bytes(whole[:-cut])
    said = go()
    assert "was incomplete and was removed" in said
    assert by_id(Path("output.xyz").read_text()) == by_id(whole.decode())


def test_a_file_torn_in_its_first_structure_begins_anew(go):
    go()
    whole = Path("output.xyz").read_bytes()
    Path("output.xyz").write_bytes(whole[:100])
    go()
    assert Path("output.xyz").read_bytes() == whole


def test_structures_are_on_disk_as_they_are_accepted(go, monkeypatch):
    seen = []
    plain = story.node_as_extxyz

    def counted(tree, node):
        seen.append(len(output()) if Path("output.xyz").exists() else 0)
        return plain(tree, node)

    monkeypatch.setattr(story, "node_as_extxyz", counted)
    go()
    assert seen == list(range(15))


def test_a_signal_stops_it_between_two_evaluations_and_it_goes_on(go, monkeypatch):
    go()
    whole = Path("output.xyz").read_text()
    Path("output.xyz").unlink()
    plain, calls = story.node_as_extxyz, []

    def struck(tree, node):
        calls.append(node)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(tree, node)

    monkeypatch.setattr(story, "node_as_extxyz", struck)
    with pytest.raises(RunInterrupted) as stop:
        go()
    assert stop.value.code == 75
    assert 7 <= len(output()) < 15
    monkeypatch.setattr(story, "node_as_extxyz", plain)
    go()
    assert by_id(Path("output.xyz").read_text()) == by_id(whole)


def test_it_goes_on_from_a_file_of_augment_atoms(go):
    old = []
    for k, start in enumerate(clusters()[:2]):
        for level in range(2):
            atoms = Atoms(start.symbols, start.positions + 0.2 * level * np.eye(4, 3))
            atoms.calc = EMT()
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            atoms.calc = None
            atoms.arrays["forces"] = forces
            atoms.info = {
                "starting-structure": k, "id": f"b3c1-{k}{level}", "level": level, "relax_steps": 0,
                "parent": f"b3c1-{k}0" if level else None, "sigma": 0.1, "energy": energy,
            }  # fmt: skip
            old.append(atoms)
    ase.io.write("output.xyz", old, format="extxyz", write_results=False)
    go()
    made = output()
    assert len(made) == 15
    assert [a.info["id"] for a in made[:4]] == [a.info["id"] for a in old]
    assert {"b3c1-00", "b3c1-01"} & {a.info["parent"] for a in made[4:]}


def test_a_hopeless_structure_is_named_and_the_others_are_complete(go):
    lonely = Atoms("Cu", [[0, 0, 0]])
    with pytest.raises(
        SamplingError, match="1 of 2 trees are not complete: 1: given up at 1 of 5 structures after 20"
    ):
        go([clusters()[0], lonely], config={"max_attempts": 20})
    assert [a.info["id"] for a in output() if len(a) > 1] == [f"0-{k}" for k in range(5)]


def test_kilocalories_change_the_boltzmann_factor_only(go):
    # LJ in kcal/mol: k·T is 23.06 times larger than in eV, so relaxations end earlier
    for units in ("eV", "kcal/mol"):
        said = go(model={"calculator": {"+lennard_jones": {"sigma": 2.2, "epsilon": 5.0, "rc": 8.0}}},
                  config={"units": units, "n_per_structure": 12, "max_force": 1e4},
                  data={"output": f"{units[:2]}.xyz"})  # fmt: skip
        assert ("forces in kc.xyz are in kcal/mol" in said) == (units == "kcal/mol")
    steps = {
        name: np.mean([a.info["relax_steps"] for a in ase.io.read(f"{name}.xyz", ":") if a.info["level"]])
        for name in ("eV", "kc")
    }
    assert steps["kc"] < steps["eV"]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"input": "nothing.xyz"}}, "data.input: nothing.xyz: no such file"),
        ({"data": {"output": "out.db"}}, "ends in .xyz"),
        ({"data": {"output": "no/out.xyz"}}, "existing folder"),
        ({"data": {"output": "input.xyz"}}, "the same file as the input"),
        ({"model": {"calculator": "+nofile.f()"}}, "cannot import nofile"),
        ({"model": {"calculator": "no_such_size"}}, "model.calculator: .*neither a size"),
    ],
)
def test_mistakes_are_said_in_one_line(go, changes, said):
    with pytest.raises(SettingsError, match=said) as told:
        go(**changes)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"config": {"T": 300}}, "config.T: 500.0 → 300.0"),
        ({"config": {"seed": 2}}, "config.seed: 1 → 2"),
        (
            {
                "model": {
                    "calculator": {"factory": "ase.calculators.emt:EMT", "kwargs": {"asap_cutoff": True}}
                }
            },
            "model.calculator: ase.calculators.emt:EMT() → ase.calculators.emt:EMT(asap_cutoff=True)",
        ),
    ],
)
@pytest.mark.parametrize("n", [3, 5])
def test_other_settings_do_not_go_on_with_it_and_the_keys_are_named(go, changed, said, n):
    go(config={"n_per_structure": 3})
    before = Path("output.xyz").read_bytes()
    changed = {"config": {}, **changed}
    with pytest.raises(RestartError) as told:
        go(**changed | {"config": changed["config"] | {"n_per_structure": n}})
    assert str(told.value) == (
        f"output.xyz was made with other settings:\n  {said}\nUndo the change; or name another data.output, or "
        "remove output.xyz"
    )
    assert Path("output.xyz").read_bytes() == before
    Path("output.xyz").unlink()
    go(**changed)
    assert len(output()) == 15, "whoever removes the file begins anew"


def test_another_model_behind_the_same_name_is_another_calculator(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.model").write_bytes(b"one")
    settings = read_augment(written(CONFIG | {"model": {"calculator": "a.model"}}))
    before = story._made_with(settings)
    Path("a.model").write_bytes(b"two")
    assert before["model.calculator"].startswith("a.model (contents ")
    assert before != story._made_with(settings)


def written(document):
    Path("config.yaml").write_text(yaml.safe_dump(document))
    return Path("config.yaml")


def test_what_a_tree_that_was_given_up_asks_for_may_change_and_is_told(go):
    with pytest.raises(SamplingError, match="raise sigma_range or lower similarity_threshold"):
        go(config={"similarity_threshold": 5.0, "max_attempts": 3})
    assert len(output()) == 3
    said = go(config={"max_attempts": 400})
    assert "changed since the last run: config.similarity_threshold: 5.0 → 0.1" in said
    assert "changed since the last run: config.max_attempts: 3 → 400" in said
    assert len(output()) == 15
    assert "changed since" not in go(config={"max_attempts": 400})


def test_what_a_file_of_unknown_settings_was_made_with_is_said_to_be_unknown(go):
    go(config={"n_per_structure": 2})
    Path(".output.xyz.settings.json").unlink()
    assert "its settings are not known" in go(config={"T": 300, "n_per_structure": 3})
    with pytest.raises(RestartError, match=r"config\.T: 300\.0 → 500\.0"):
        go()
    memory = Path(".output.xyz.settings.json")
    memory.write_text(memory.read_text().replace("config.T", "config.of_another_version"))
    assert "9 of 9 structures made" in go(config={"n_per_structure": 3})
    Path(".output.xyz.settings.json").write_text("{")
    with pytest.raises(RestartError, match=r"settings\.json cannot be read"):
        go()


BROKEN = """from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT
class Never(EMT):
    def calculate(self, *args):
        raise ValueError("no such method")
class Picky(EMT):
    def calculate(self, atoms, *args):
        if atoms.info.get("charge") == 0:
            raise CalculationFailed("not this one")
        super().calculate(atoms, *args)
def nothing():
    raise KeyError("license")
"""


@pytest.mark.parametrize(
    ("made", "said"), [("Never", "ValueError: no such method"), ("nothing", "KeyError: 'license'")]
)
def test_a_calculator_that_does_not_work_is_named_by_its_key(go, made, said):
    Path(f"augment_{made}.py").write_text(BROKEN)
    with pytest.raises(SetupError, match=rf"^model\.calculator: {said}$"):
        go(model={"calculator": {"factory": f"augment_{made}:{made}"}})


def test_a_calculator_that_fails_on_one_structure_is_asked_for_the_others(go):
    Path("augment_picky.py").write_text(BROKEN)
    with pytest.raises(SamplingError, match=r"1 of 3 trees are not complete: 0: .*not this one"):
        go(model={"calculator": {"factory": "augment_picky:Picky"}})
    assert len(output()) == 10


def test_an_output_of_other_structures_is_left_alone(go):
    go()
    before = Path("output.xyz").read_bytes()
    with pytest.raises(RestartError, match=r"structure 0 \(from 0\): belongs to another starting structure"):
        go(clusters()[::-1])
    ase.io.write("output.xyz", clusters(), format="extxyz")
    with pytest.raises(RestartError, match="not written by this command"):
        go()
    Path("output.xyz").write_bytes(before)
    with pytest.raises(RestartError, match="belongs to another starting structure"):
        go(clusters()[:2])
    assert Path("output.xyz").read_bytes() == before


def test_two_commands_on_one_output_are_refused(go):
    from aims_pax.record.lock import Lock

    held = Lock(Path(".output.xyz.lock"))
    with held.held(), pytest.raises(Busy):
        go()
    go()
    assert not Path(".output.xyz.lock").exists()


def test_a_full_disk_is_said_in_one_line(go, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "output.xyz")

    monkeypatch.setattr(story, "node_as_extxyz", full)
    with pytest.raises(SetupError, match=r"output\.xyz: No space left on device"):
        go()


def test_settings_come_without_torch(tmp_path):
    (tmp_path / "config.yaml").write_text("data: 1\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom aims_pax.errors import SettingsError\n"
        "from aims_pax.commands.augment import augment\n"
        "try: augment(Path('config.yaml'), None)\nexcept SettingsError: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 0


def test_the_example_runs(tmp_path, monkeypatch):
    shutil.copytree(EXAMPLE, tmp_path / "e")
    monkeypatch.chdir(tmp_path / "e")
    augment(Path("config.yaml"), Console(file=io.StringIO()))
    made = output()
    assert len(made) == 3 * 12
    assert len({a.info["frame_id"] for a in made}) == 36
    assert max(a.info["level"] for a in made) > 2


def test_the_documents_own_calculator_works(go):
    start = Atoms("Ar2", [[0, 0, 0], [1.12, 0, 0]])
    go([start], model={"calculator": "+lennard_jones()"}, config={"n_per_structure": 3})
    for atoms in output():
        energy = atoms.get_potential_energy()
        atoms.calc = LennardJones()
        assert energy == pytest.approx(atoms.get_potential_energy())


def test_a_changed_charge_of_a_starting_structure_is_not_ignored(go):
    go()
    more = {"config": {"n_per_structure": 6}}
    ions = clusters()
    ions[2].info["charge"] = 1
    before = Path("output.xyz").read_text()
    with pytest.raises(RestartError, match="its starting structure now has another charge, spin"):
        go(ions, **more)
    assert Path("output.xyz").read_text() == before
    go(clusters(), **more)
    assert len(ase.io.read("output.xyz", index=":")) == 18


def test_a_changed_module_of_the_user_is_another_calculator(go):
    text = "from ase.calculators.emt import EMT\n\n\ndef make():\n    return EMT()  # {}\n"
    Path("of_user_emt.py").write_text(text.format(1))
    own = {"model": {"calculator": "+of_user_emt.make()"}}
    go(**own)
    before = Path("output.xyz").read_bytes()
    Path("of_user_emt.py").write_text(text.format(2))
    with pytest.raises(RestartError, match=r"made with other settings:\n  contents\.of_user_emt\.py: "):
        go(config={"n_per_structure": 6}, **own)
    assert Path("output.xyz").read_bytes() == before


def test_magnetic_moments_that_are_results_are_not_dropped_silently(go):
    atoms = clusters()[:1]
    atoms[0].set_array("magmoms", np.array([1.0, 0, 0, 0]))
    said = go(atoms)
    assert said.count("magmoms are read as results of a calculation; name them initial_magmoms") == 1


def test_a_cell_that_the_file_fixes_is_not_changed(go):
    text = "".join(
        f"lattice_vector {v}\n    constrain_relaxation .true.\n" for v in ("4 0 0", "0 4 0", "0 0 4")
    )
    Path("held.in").write_text(f"{text}atom 0 0 0 Cu\natom 2 2 0 Cu\natom 2 0 2 Cu\natom 0 2 2 Cu\n")
    with pytest.raises(
        SettingsError, match=r"data\.input: held\.in: held: constrain_relaxation .*cell_sigma"
    ):
        go(data={"input": "held.in"}, config={"cell_sigma": 0.02})
