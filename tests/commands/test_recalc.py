"""`aims-PAX-recalc` as a user meets it: what comes out, what a kill costs, what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.emt import EMT
from tblite.ase import TBLite

from aims_pax.commands.recalc import label_differences, ranges
from aims_pax.dataset import read_extxyz
from aims_pax.frames import Frame, Label
from aims_pax.potential import calculate
from tests import worlds
from tests.projects import ENTRIES, command, write_project

COUNTED = """
import os, time
from ase.calculators.emt import EMT

class Counted(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        with open("calls.log", "a") as file:
            file.write(atoms.info["frame_id"] + "\\n")
        time.sleep(float(os.environ.get("SECONDS_A_LABEL", "0")))
        if os.path.exists("broken") or atoms.positions[:, 2].max() > 50:
            raise RuntimeError("the program died")
        super().calculate(atoms, properties, system_changes)

class Charged(Counted):
    # 1 eV for each charge, 2 eV for each unpaired electron
    def __init__(self, charge=0, multiplicity=1):
        super().__init__()
        self.more = charge + 2 * (multiplicity - 1)

    def calculate(self, *arguments):
        super().calculate(*arguments)
        self.results["energy"] += self.more
        self.results["free_energy"] += self.more
"""


def recalc(*words, folder, **kwargs):
    return command(*words, folder=folder, name="aims-PAX-recalc", **kwargs)


def calls(folder):
    path = folder / "calls.log"
    return path.read_text().split() if path.exists() else []


def write(path, frames):
    ase.io.write(path, [f if hasattr(f, "info") else f.to_atoms() for f in frames], format="extxyz")


@pytest.fixture
def project(tmp_path):
    folder = write_project(tmp_path, {"REFERENCE": {"factory": "counted:Counted"}})
    (folder / "counted.py").write_text(COUNTED)
    return folder


def unlabellable(frame):
    """Its calculation dies in the counted calculator, though nothing is wrong with it."""
    return frame.moved(frame.positions + np.array([0, 0, 100]))


# what comes out -------------------------------------------------------------------------------------------


def dataset():
    """Molecules and crystals with labels 10 meV/atom too high, one that overlaps, one NaN, one twice."""
    atoms = [f.to_atoms() for f in worlds.rattled(worlds.water(), 4) + worlds.rattled(worlds.crystal(), 3)]
    for k, a in enumerate(atoms):
        label = calculate(worlds.Frame.from_atoms(a), EMT())
        a.info.update(config_type=f"kind{k}", weight=k / 2, REF_energy=label.energy + 0.010 * len(a))
        a.arrays["REF_forces"] = label.forces * 1.0
        a.info["dipole"] = np.zeros(3)  # of the old method
        if label.stress is not None:
            a.info["REF_stress"] = np.ravel(label.stress + 0.002)
    del atoms[2].info["frame_id"]
    atoms[2].positions[1] = atoms[2].positions[0] + 0.01
    broken = atoms[0].copy()
    del broken.info["frame_id"]
    broken.positions[0, 0] = np.nan
    return [atoms[0], broken, *atoms[1:], atoms[0].copy()]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = write_project(tmp_path_factory.mktemp("recalc"), {"REFERENCE": worlds.EMT})
    write(folder / "old.xyz", dataset())
    return folder, recalc("old.xyz", "-o", "new.xyz", folder=folder)


def test_every_structure_that_can_be_labelled_comes_out_in_the_order_of_the_input(labelled):
    folder, done = labelled
    assert done.returncode == 0, done.stderr
    new = list(read_extxyz(folder / "new.xyz"))
    assert [f.origin["config_type"] for f in new] == [
        "kind0",
        "kind1",
        "kind3",
        "kind4",
        "kind5",
        "kind6",
        "kind0",
    ]
    for f in new:
        truth = calculate(f.frame, EMT())
        assert f.label.energy == pytest.approx(truth.energy, abs=1e-9)
        np.testing.assert_allclose(f.label.forces, truth.forces, atol=1e-8)
        if f.frame.periodic:
            np.testing.assert_allclose(f.label.stress, truth.stress, atol=1e-9)


def test_what_else_the_file_says_stays_but_nothing_of_the_old_method(labelled):
    folder, _ = labelled
    atoms = ase.io.read(folder / "new.xyz", index=4)
    assert (atoms.info["config_type"], atoms.info["weight"]) == ("kind5", 2.5)
    assert "dipole" not in atoms.info


def test_columns_and_entries_of_the_structure_stay_and_labels_of_another_method_do_not(project):
    water, broken = (f.to_atoms() for f in worlds.rattled(worlds.water(), 2))
    broken = unlabellable(Frame.from_atoms(broken)).to_atoms()
    for a in (water, broken):
        a.set_tags([1, 2, 2])
        a.set_array("site", np.array(["O1", "H1", "H2"]))
        a.set_array("vector", np.arange(9.0).reshape(3, 3))
        a.set_array("DFT_forces", np.ones((3, 3)))
        a.info |= {"DFT_energy": -1.0, "energy": -2.0, "dipole": np.ones(3), "axis": np.array([0, 0, 1.0])}
        a.info |= {"nested": {"a": [1, 2]}, "config_energy_weight": 1.0, "E_tot": -3.0}
    write(project / "old.xyz", [water, broken])
    done = recalc("old.xyz", "-o", "new.xyz", "--keep-failed", folder=project)
    assert done.returncode == 0, done.stderr
    names = ("DFT_energy", "DFT_forces", "E_tot", "dipole", "energy")
    said = ", ".join(f"{name} (2 structures)" for name in names)
    assert done.stdout.count(f"may be those of another method: {said}; they stay in old.xyz") == 1
    for atoms in ase.io.read(project / "new.xyz", index=":"):
        assert atoms.get_tags().tolist() == [1, 2, 2]
        assert atoms.arrays["site"].tolist() == ["O1", "H1", "H2"]
        assert atoms.arrays["vector"].tolist() == np.arange(9).reshape(3, 3).tolist()
        assert (atoms.info["axis"].tolist(), atoms.info["nested"]) == ([0, 0, 1], {"a": [1, 2]})
        assert atoms.info["config_energy_weight"] == 1.0
        assert not {*names} & {*atoms.info, *atoms.arrays}
        assert atoms.calc is None
    (project / "new.xyz").write_text((project / "new.xyz").read_text().split("\n3\n")[0] + "\n")
    assert [len(f.frame) for f in read_extxyz(project / "new.xyz")] == [3]


def test_failed_structures_are_told_by_index_and_class_and_kept_apart(labelled):
    folder, done = labelled
    assert "structure 3 · Unphysical: not calculated: atoms O0 and H1 are 0.017 Å apart" in done.stdout
    assert "structure 1 · Unphysical: not calculated: the structure contains NaN" in done.stdout
    assert "2 of 9 structures failed (2 Unphysical): indices from 0: 1, 3" in done.stdout
    (entry,) = [json.loads(line) for line in (folder / "data/quarantine.jsonl").read_text().splitlines()]
    assert entry["class"] == "Unphysical"
    assert ase.io.read(folder / "data/quarantine.xyz").info["failure"] == "Unphysical"


def test_the_summary_compares_old_and_new(labelled):
    _, done = labelled
    assert "7 structures: energy MAE 10.000, RMSE 10.000 meV/atom, mean -10.000" in done.stdout
    assert "forces MAE 0.000, RMSE 0.000 meV/Å" in done.stdout
    assert "3 structures: stress MAE 2.000, RMSE 2.000 meV/Å³" in done.stdout
    assert "reference calculations in this run: 6" in done.stdout


def test_asked_to_it_keeps_failed_structures_without_labels(labelled):
    folder, _ = labelled
    done = recalc("old.xyz", "--keep-failed", folder=folder)
    assert done.returncode == 0, done.stderr
    atoms = ase.io.read(folder / "old_recalculated.xyz", index=":")
    assert len(atoms) == 9
    assert ["REF_energy" in a.info for a in atoms] == [k not in (1, 3) for k in range(9)]
    assert not any(a.has("REF_forces") for a in (atoms[1], atoms[3]))
    assert atoms[3].info["failure"] == "Unphysical"
    assert "apart" in atoms[3].info["reason"]
    assert "reference calculations in this run: 0; labels from the store: 6" in done.stdout


def test_structures_without_labels_are_labelled_too(project):
    write(project / "bare.xyz", worlds.rattled(worlds.water(), 3))
    done = recalc("bare.xyz", folder=project)
    assert done.returncode == 0, done.stderr
    assert "no old labels to compare with (looked for REF_energy and REF_forces)" in done.stdout
    assert len(list(read_extxyz(project / "bare_recalculated.xyz"))) == 3


def test_old_labels_may_have_other_names(project):
    (frame,) = worlds.rattled(worlds.water(), 1)
    atoms = frame.to_atoms()
    atoms.calc = EMT()
    atoms.get_forces()
    ase.io.write(project / "old.xyz", atoms, format="extxyz")  # energy and forces, as ASE writes them
    text = (project / "aimsPAX.yaml").read_text()
    keys = "  energy_key: energy\n  forces_key: forces\n  path_to_geometry:"
    (project / "aimsPAX.yaml").write_text(text.replace("  path_to_geometry:", keys))
    done = recalc("old.xyz", folder=project)
    assert "1 structures: energy MAE 0.000" in done.stdout, done.stdout + done.stderr


def test_differences_are_those_of_the_definition():
    old = Label(1.0, np.zeros((2, 3)))
    pairs = [(old, Label(1.4, np.full((2, 3), 0.1))), (old, Label(0.0, np.full((2, 3), -0.3)))]
    energy, forces = label_differences(pairs)
    assert "MAE 350.000, RMSE 380.789 meV/atom, mean -150.000" in energy
    assert "MAE 200.000, RMSE 223.607 meV/Å" in forces
    assert label_differences([]) == []


def test_ranges_name_every_index():
    assert ranges([0, 3, 4, 5, 9]) == "0, 3-5, 9"
    assert ranges([]) == ""


# going on -------------------------------------------------------------------------------------------------


def begin(*words, folder, seconds):
    """The command in the background, each label taking so many seconds."""
    entry = ENTRIES["aims-PAX-recalc"]
    code = f"import sys; sys.argv[0] = 'aims-PAX-recalc'; from aims_pax.cli import {entry}; {entry}()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SECONDS_A_LABEL": str(seconds)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def ten(project):
    """Ten structures, of which the third fails; returns their number in the result."""
    frames = worlds.rattled(worlds.water(), 10)
    frames[2] = unlabellable(frames[2])
    write(project / "old.xyz", frames)
    return [f.id for f in frames]


@pytest.mark.parametrize("executor", ["inline", pytest.param("threads", marks=pytest.mark.slow)])
def test_killed_again_and_again_it_goes_on_and_pays_for_nothing_twice(tmp_path, executor):
    def prepared(name):
        folder = write_project(
            tmp_path / name,
            {
                "REFERENCE": {"factory": "counted:Counted"},
                "CLUSTER": {"executor": executor, "max_workers": 2},
            },
        )
        (folder / "counted.py").write_text(COUNTED)
        return folder, ten(folder)

    calm, ids = prepared("calm")
    assert recalc("old.xyz", folder=calm).returncode == 0
    assert sorted(calls(calm)) == sorted(ids)
    folder, _ = prepared("killed")
    in_flight = []
    for answers in (6, 9):
        process = begin("old.xyz", folder=folder, seconds=0.15)
        wait_for(lambda n=answers: len(calls(folder)) >= n, process)
        process.kill()
        process.communicate()
        done = {p.stem for p in folder.glob("data/labels/*/*.json")}
        in_flight += [i for i in calls(folder) if i not in done]
    done = recalc("old.xyz", folder=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "old_recalculated.xyz").read_bytes() == (calm / "old_recalculated.xyz").read_bytes()
    assert "1 of 10 structures failed (1 Crashed): indices from 0: 2;" in done.stdout
    repeated = {i for i in ids if calls(folder).count(i) > 1}
    assert repeated <= set(in_flight), "only what was being computed when the kill fell may begin again"
    assert calls(folder).count(ids[2]) == 1, "a failure is remembered too"
    assert not list(folder.glob("restart/recalculate-*")), "nothing to go on with is left"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 3), (signal.SIGTERM, 75)])
def test_a_signal_ends_it_cleanly_and_the_same_command_goes_on(project, number, code):
    ids = ten(project)
    process = begin("old.xyz", folder=project, seconds=0.2)
    wait_for(lambda: len(calls(project)) >= 4, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, out + err
    assert "run the same command again to continue" in out
    assert not (project / "old_recalculated.xyz").exists()
    assert "run the same command again" in (project / "logs/recalculate.log").read_text()
    finished = {p.stem for p in project.glob("data/labels/*/*.json")}
    assert recalc("old.xyz", folder=project).returncode == 0
    assert set(calls(project)) == set(ids)
    repeated = [i for i in ids if calls(project).count(i) > 1]
    assert len(repeated) <= 1, "only the calculation that the signal interrupted begins again"
    assert not finished & set(repeated)


@pytest.mark.slow
def test_it_stops_before_the_walltime_and_goes_on(tmp_path):
    folder = write_project(
        tmp_path, {"REFERENCE": {"factory": "counted:Counted"}, "MISC": {"max_walltime": 2}}
    )
    (folder / "counted.py").write_text(COUNTED)
    ids = ten(folder)
    codes = []
    while not codes or codes[-1] == 75:
        process = begin("old.xyz", folder=folder, seconds=0.5)
        process.communicate(timeout=60)
        codes.append(process.returncode)
        assert len(codes) < 12
    assert codes[-1] == 0
    assert len(codes) > 1
    assert sorted(calls(folder)) == sorted(ids)


def test_a_finished_one_run_again_tries_the_failed_ones_again_and_nothing_else(project):
    ids = ten(project)
    for times in (1, 2):
        assert recalc("old.xyz", folder=project).returncode == 0
        assert calls(project).count(ids[2]) == times
    assert len(calls(project)) == 11


def test_other_structures_begin_anew_while_labels_serve_all(project):
    ids = ten(project)
    process = begin("old.xyz", folder=project, seconds=0.2)
    wait_for(lambda: len(calls(project)) >= 6, process)
    process.kill()
    process.communicate()
    frames = list(ase.io.read(project / "old.xyz", index=":"))
    write(project / "part.xyz", frames[1:4])
    done = recalc("part.xyz", folder=project)
    assert done.returncode == 0, done.stderr
    assert [f.id for f in read_extxyz(project / "part_recalculated.xyz")] == [ids[1], ids[3]]


def test_when_everything_fails_alike_it_ends_at_once_and_all_is_tried_again_later(project):
    ids = ten(project)
    (project / "broken").touch()
    done = recalc("old.xyz", folder=project)
    assert done.returncode == 1
    assert "no reference calculation has worked: the last 5 failed in the same way (Crashed)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "old_recalculated.xyz").exists()
    (project / "broken").unlink()
    done = recalc("old.xyz", folder=project)
    assert done.returncode == 0, done.stderr
    assert len(list(read_extxyz(project / "old_recalculated.xyz"))) == 9
    assert set(calls(project)) == set(ids)


def test_a_few_structures_that_all_fail_are_an_error_not_an_empty_file(project):
    write(project / "old.xyz", [unlabellable(f) for f in worlds.rattled(worlds.water(), 2)])
    done = recalc("old.xyz", folder=project)
    assert done.returncode == 1
    assert "none of the 2 structures could be labelled" in done.stderr
    assert not (project / "old_recalculated.xyz").exists()


def test_one_command_a_folder(project):
    ten(project)
    process = begin("old.xyz", folder=project, seconds=5)
    wait_for(lambda: calls(project), process)
    other = recalc("old.xyz", folder=project)
    process.kill()
    process.communicate()
    assert other.returncode == 1
    assert "another aims-PAX works in this folder" in other.stderr


# FHI-aims -------------------------------------------------------------------------------------------------


def aims_project(folder, control):
    worlds.write_species(folder / "species")
    (folder / "molecule.in").write_text(worlds.CONTROL)
    (folder / "cell.in").write_text(worlds.CONTROL_PERIODIC)
    changes = {
        "REFERENCE": None,
        "CLUSTER": {
            "type": "local",
            "executor": "threads",
            "launch_str": worlds.launch(),
            "calc_dir": "calc",
        },
        "INITIAL_DATASET_GENERATION": {"species_dir": "species"},
        "ACTIVE_LEARNING": {"species_dir": "species"},
        "MISC": {"path_to_control": control},
    }
    systems = {"water": worlds.water(), "copper": worlds.crystal()}
    mace = {"GENERAL": {"compute_stress": True}}
    return write_project(folder, changes, mace, systems)


def test_with_fhi_aims_each_structure_gets_the_control_file_of_its_geometry(tmp_path):
    folder = aims_project(tmp_path, {"water": "molecule.in", "copper": "cell.in"})
    frames = []
    for name, frame in (("copper", worlds.crystal()), ("water", worlds.water())):
        for f in worlds.rattled(frame, 2):
            atoms = f.to_atoms()
            atoms.info["system"] = name
            frames.append(atoms)
    write(folder / "old.xyz", frames)
    done = recalc("old.xyz", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    new = list(read_extxyz(folder / "old_recalculated.xyz"))
    assert [f.origin["system"] for f in new] == ["copper", "copper", "water", "water"]
    for f in new:
        truth = calculate(f.frame, EMT())
        assert f.label.energy == pytest.approx(truth.energy, abs=1e-6)
        np.testing.assert_allclose(f.label.forces, truth.forces, atol=1e-6)
        assert (f.label.stress is None) == (not f.frame.periodic)

    del frames[1].info["system"]
    write(folder / "old.xyz", frames)
    done = recalc("old.xyz", folder=folder)
    assert done.returncode == 2
    assert (
        "structure 1 (from 0): MISC.path_to_control names no file for a structure of unknown origin"
        in done.stderr
    )
    frames[1].info["system"] = "water"
    frames.append(frames[1].copy())
    frames[-1].info["system"] = "copper"
    write(folder / "old.xyz", frames)
    done = recalc("old.xyz", folder=folder)
    assert done.returncode == 2
    assert "structure 4 (from 0): a duplicate of a structure with another control.in" in done.stderr


def test_isolated_atoms_are_computed_in_their_ground_state_without_the_charge_of_the_molecules(tmp_path):
    folder = aims_project(tmp_path, "molecule.in")
    (folder / "molecule.in").write_text(worlds.CONTROL + "charge 1\n")
    project = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    project["CLUSTER"]["launch_str"] = worlds.launch("xtb")
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(project))
    in_box = Atoms("O", positions=[[1, 1, 1]], cell=[12] * 3, pbc=True)
    in_box.info["config_type"] = "IsolatedAtom"
    triplet = Atoms("C", positions=[[0, 0, 0]], info={"spin": 1})
    write(folder / "old.xyz", [worlds.water(), Atoms("H", positions=[[0, 0, 0]]), in_box, triplet])
    done = recalc("old.xyz", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ground state or stated spin, multiplicity: H 2, O 3, C 1" in done.stdout
    _, *atoms = read_extxyz(folder / "old_recalculated.xyz")
    for atom, symbol, spin in zip(atoms, "HOC", (2, 3, 1), strict=True):
        truth = TBLite(method="GFN1-xTB", charge=0, multiplicity=spin, accuracy=0.01, verbosity=0)
        expected = calculate(Frame(atom.frame.numbers, [[0, 0, 0]]), truth).energy
        assert atom.label.energy == pytest.approx(expected, abs=1e-4), symbol
        assert atom.frame.spin == spin


def test_an_element_without_species_file_ends_it_before_the_first_calculation(tmp_path):
    folder = aims_project(tmp_path, "cell.in")
    write(folder / "old.xyz", [worlds.water(), worlds.dimer("Ne")])
    done = recalc("old.xyz", folder=folder)
    assert done.returncode == 1
    assert "10_Ne_default missing" in done.stderr
    assert not (folder / "calc").exists()


# what is refused ------------------------------------------------------------------------------------------


def test_charge_and_spin_are_part_of_a_structure(project):
    frame = worlds.water()
    write(project / "old.xyz", [frame, replace(frame, charge=1.0, spin=2)])
    write_project(project, {"REFERENCE": {"factory": "counted:Charged"}})
    assert recalc("old.xyz", folder=project).returncode == 0
    new = list(read_extxyz(project / "old_recalculated.xyz"))
    assert (new[1].frame.charge, new[1].frame.spin, len(calls(project))) == (1.0, 2, 2)
    assert new[1].label.energy - new[0].label.energy == pytest.approx(3.0)


@pytest.mark.parametrize("key", ["0", "water.xyz", "geometries/water.xyz", "water"])
def test_a_charge_that_the_settings_have_for_its_geometry_reaches_a_structure(project, key):
    systems = {"water": worlds.water(), "xenon": worlds.dimer("Cu", 2.6)}
    changes = {"REFERENCE": {"factory": "counted:Charged"}, "MISC": {"charge": {key: 1}}}
    write_project(project, changes, systems=systems)
    atoms = worlds.water().to_atoms()
    atoms.info["system"] = "water"
    write(project / "old.xyz", [atoms])
    done = recalc("old.xyz", folder=project)
    assert done.returncode == 0, done.stderr
    (new,) = read_extxyz(project / "old_recalculated.xyz")
    assert new.frame.charge == 1
    assert new.label.energy - calculate(worlds.water(), EMT()).energy == pytest.approx(1.0)


def test_a_calculator_that_cannot_be_given_a_charge_labels_no_charged_structure(project):
    frame = worlds.water()
    write(project / "old.xyz", [frame, replace(frame, charge=1.0), replace(frame, spin=3)])
    done = recalc("old.xyz", folder=project)
    assert done.returncode == 0
    assert "H2O has charge 1, and counted:Counted has no known argument for the charge" in done.stdout
    assert "2 of 3 structures failed (2 Unsupported): indices from 0: 1-2" in done.stdout
    assert len(list(read_extxyz(project / "old_recalculated.xyz"))) == len(calls(project)) == 1


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        (None, ("old.xyz",), "old.xyz: No such file"),
        ("", ("old.xyz",), "old.xyz: no structures in it"),
        (
            "3\nrubbish",
            ("old.xyz",),
            "old.xyz, structure 1 (counted from 1): the file is incomplete: it ends after 0 of 3",
        ),
        (
            "1\nREF_energy=1 Properties=species:S:1:pos:R:3\nH 0 0 0\n",
            ("old.xyz", "-o", "old.xyz"),
            "is the input",
        ),
        ("1\n\nH 0 0 0\n", ("old.xyz", "-o", "nowhere/new.xyz"), "nowhere/new.xyz: cannot be written there"),
        ("1\n\nH 0 0 0\n", ("old.xyz", "-o", "geometries"), "geometries: cannot be written there"),
        ("1\nframe_id=abc\nH 0 0 0\n", ("old.xyz",), "structure 0 (from 0): frame_id abc does not fit"),
        (
            "2\n\nH 0 0 0\nX 0 0 2\n",
            ("old.xyz",),
            "structure 0 (from 0): atom 2 is X, which is not an element",
        ),
        (
            "1\nREF_energy=1 Properties=species:S:1:pos:R:3:REF_forces:R:2\nH 0 0 0 0 0\n",
            ("old.xyz",),
            "structure 0 (from 0): REF_forces has shape (1, 2)",
        ),
    ],
)
def test_wrong_inputs_are_one_line_and_exit_code_2(project, content, words, said):
    if content is not None:
        (project / "old.xyz").write_text(content)
    done = recalc(*words, folder=project)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not calls(project)


def test_it_needs_its_argument(project):
    done = recalc(folder=project)
    assert done.returncode == 2
    assert "data" in done.stderr.lower()


def test_an_output_named_as_if_compressed_is_refused(project):
    """Plain text in a .gz could be read by nobody, ourselves included."""
    write(project / "old.xyz", worlds.rattled(worlds.water(), 1))
    done = recalc("old.xyz", "-o", "new.xyz.gz", folder=project)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "write -o new.xyz" in done.stderr
    assert not (project / "new.xyz.gz").exists()


def test_a_file_that_holds_other_labels_is_never_overwritten(project):
    """Neither somebody's own data nor the result of another reference."""
    write(project / "old.xyz", worlds.rattled(worlds.water(), 2))
    (project / "mine.xyz").write_text((project / "old.xyz").read_text())
    before = (project / "mine.xyz").read_bytes()
    done = recalc("old.xyz", "-o", "mine.xyz", folder=project)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "mine.xyz exists and contains something that aims-PAX-recalc did not write" in done.stderr
    assert (project / "mine.xyz").read_bytes() == before
    assert recalc("old.xyz", "-o", "new.xyz", folder=project).returncode == 0
    assert recalc("old.xyz", "-o", "new.xyz", folder=project).returncode == 0
    text = (project / "new.xyz").read_text()
    (project / "new.xyz").write_text(text.replace("method=", "method=f"))
    assert "contains labels of another method" in recalc("old.xyz", "-o", "new.xyz", folder=project).stderr
