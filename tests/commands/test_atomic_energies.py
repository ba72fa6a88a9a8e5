"""Isolated atoms: their spin, their input, the file, and its way into the models."""

import tarfile

import pytest
import yaml
from ase import Atoms
from ase.calculators.emt import EMT
from tblite.ase import TBLite

from aims_pax.settings import read_settings
from aims_pax.settings.mace import atomic_energies_by_element
from tests import worlds
from tests.projects import command, write_project


def atomic(*words, folder):
    return command(*words, folder=folder, name="aims-PAX-atomic-energies")


def emt(symbol):
    return Atoms(symbol, calculator=EMT()).get_potential_energy()


def xtb(symbol, multiplicity):
    calculator = TBLite(method="GFN1-xTB", accuracy=0.01, verbosity=0, charge=0, multiplicity=multiplicity)
    return Atoms(symbol, calculator=calculator).get_potential_energy()


# the command ----------------------------------------------------------------------------------------------


def test_it_prints_and_writes_what_mace_yaml_takes(tmp_path):
    folder = write_project(tmp_path, {"REFERENCE": worlds.EMT})
    done = atomic("Cu", folder=folder)
    assert done.returncode == 0, done.stderr
    expected = {s: emt(s) for s in ("H", "O", "Cu")}
    assert yaml.safe_load((folder / "atomic_energies.yaml").read_text()) == pytest.approx(expected)
    block = done.stdout[done.stdout.index("ARCHITECTURE:") :]
    assert yaml.safe_load(block) == {"ARCHITECTURE": {"atomic_energies": pytest.approx(expected)}}

    # the file and the block are both accepted, from any element order
    mace = (folder / "mace.yaml").read_text()
    for value in ("atomic_energies.yaml", yaml.safe_load(block)["ARCHITECTURE"]["atomic_energies"]):
        data = yaml.safe_load(mace)
        data["ARCHITECTURE"]["atomic_energies"] = value
        (folder / "mace.yaml").write_text(yaml.safe_dump(data))
        assert command("check", folder=folder).returncode == 0
        given = read_settings(folder).mace.architecture.atomic_energies
        assert atomic_energies_by_element(given, [8, 1], folder) == pytest.approx({1: emt("H"), 8: emt("O")})

    labels = {p: p.stat().st_mtime_ns for p in folder.glob("data/labels/*/*.json")}
    assert atomic("Cu", "-o", "again.yaml", folder=folder).returncode == 0
    assert yaml.safe_load((folder / "again.yaml").read_text()) == pytest.approx(expected)
    assert labels == {p: p.stat().st_mtime_ns for p in folder.glob("data/labels/*/*.json")}, "computed once"


def test_elements_alone_need_no_geometry(tmp_path):
    folder = write_project(tmp_path, {"REFERENCE": worlds.EMT, "MISC": {"path_to_geometry": "nowhere.xyz"}})
    assert atomic("Cu", "-o", "cu.yaml", folder=folder).returncode == 0
    assert yaml.safe_load((folder / "cu.yaml").read_text()) == {"Cu": pytest.approx(emt("Cu"))}
    done = atomic(folder=folder)
    assert done.returncode == 2
    assert "nowhere.xyz: no such file" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cu",), "cu: not an element"),
        (("-o", "no/e.yaml"), "no/e.yaml: cannot be written there"),
        (("Rf",), "Rf atom"),
    ],
)
def test_wrong_inputs_are_one_line_and_exit_code_2(tmp_path, words, said):
    done = atomic(*words, folder=write_project(tmp_path, {"REFERENCE": worlds.EMT}))
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_calculator_is_given_the_spin_but_not_the_charge_of_the_molecule(tmp_path):
    kwargs = {**worlds.XTB["kwargs"], "charge": 1, "multiplicity": 2}
    folder = write_project(tmp_path, {"REFERENCE": {**worlds.XTB, "kwargs": kwargs}})
    done = atomic(folder=folder)
    assert done.returncode == 0, done.stderr
    got = yaml.safe_load((folder / "atomic_energies.yaml").read_text())
    assert got == pytest.approx({"H": xtb("H", 2), "O": xtb("O", 3)}, abs=1e-8)


# FHI-aims -------------------------------------------------------------------------------------------------

CHARGED = (
    worlds.CONTROL_PERIODIC
    + "charge 1\nspin collinear\nfixed_spin_moment 1\ncompute_analytical_stress .true.\n"
)


def aims_project(folder, launch, control=CHARGED, controls=None, systems=None):
    worlds.write_species(folder / "species")
    (folder / "control.in").write_text(control)
    changes = {
        "REFERENCE": None,
        "CLUSTER": {"launch_str": launch, "calc_dir": "calc", "clean_dirs": False},
        "INITIAL_DATASET_GENERATION": {"species_dir": "species"},
        "ACTIVE_LEARNING": {"species_dir": "species"},
        "MISC": {"path_to_control": controls or "control.in"},
    }
    return write_project(folder, changes, {"GENERAL": {"compute_stress": True}}, systems)


def inputs(folder):
    """{element: (control.in, geometry.in)} of the calculations kept."""
    found = {}
    for archive in (folder / "calc/kept").glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            texts = {m.name.split("/")[1]: tar.extractfile(m).read().decode() for m in tar.getmembers()}
        geometry = texts["geometry.in"]
        found[geometry.split("atom ")[1].split()[3]] = texts["control.in"].split("species")[0], geometry
    return found


def test_fhi_aims_computes_polarised_atoms_without_cell_charge_or_k_points(tmp_path):
    folder = aims_project(tmp_path, worlds.launch("xtb"))
    done = atomic("Ar", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = {"H": xtb("H", 2), "O": xtb("O", 3), "Ar": xtb("Ar", 1)}
    assert yaml.safe_load((folder / "atomic_energies.yaml").read_text()) == pytest.approx(expected, abs=1e-6)
    kept = inputs(folder)
    assert sorted(kept) == ["Ar", "H", "O"]
    for control, geometry in kept.values():
        assert not any(word in control for word in ("k_grid", "charge", "stress", "output"))
        assert "lattice_vector" not in geometry
        assert "sc_accuracy_rho 1e-5" in control, "the rest of the method stays as written"
    assert "spin collinear" in kept["O"][0]
    assert "fixed_spin_moment 2.0" in kept["O"][0]
    assert "initial_moment 2.0" in kept["O"][1]
    assert "spin" not in kept["Ar"][0]


def test_an_atom_that_does_not_converge_is_an_error_that_names_it(tmp_path):
    folder = aims_project(tmp_path, worlds.launch("xtb", "unconverged"))
    done = atomic(folder=folder)
    assert done.returncode == 1
    assert "the energy of isolated atoms is not known: H: NotConverged: " in done.stderr
    assert "O: NotConverged" in done.stderr
    assert not (folder / "atomic_energies.yaml").exists()
    text = (folder / "aimsPAX.yaml").read_text()
    (folder / "aimsPAX.yaml").write_text(text.replace("--fault unconverged", "--fault none"))
    assert atomic(folder=folder).returncode == 0, "and it is tried again"


def test_control_files_that_differ_in_the_method_are_said_so(tmp_path):
    controls = {"water": "control.in", "copper": "other.in"}
    systems = {"water": worlds.water(), "copper": worlds.crystal()}
    folder = aims_project(tmp_path, worlds.launch(), controls=controls, systems=systems)
    (folder / "other.in").write_text(worlds.CONTROL + "charge -1\n")
    done = atomic(folder=folder)
    assert done.returncode == 0, done.stderr
    assert "differ" not in done.stdout
    (folder / "other.in").write_text(worlds.CONTROL.replace("pbe", "pbe0"))
    done = atomic(folder=folder)
    assert (
        "the control.in of water and of copper differ in more than charge, spin and k-points" in done.stdout
    )


# in a run -------------------------------------------------------------------------------------------------


def test_a_run_can_ask_for_them_itself_and_says_so_and_asks_once(tmp_path):
    import torch

    from aims_pax.models.mace.build import read_model, read_statistics

    folder = write_project(
        tmp_path,
        {"REFERENCE": worlds.EMT, "INITIAL_DATASET_GENERATION": {"max_initial_epochs": 2}},
        {"ARCHITECTURE": {"atomic_energies": "reference"}},
    )
    done = command(folder=folder, name="aims-PAX-initial-ds")
    assert done.returncode == 0, done.stdout + done.stderr
    said = f"isolated atoms with the settings of the reference: H {emt('H'):.3f} eV, O {emt('O'):.3f} eV"
    assert said in done.stdout
    assert "atomic energies from given" in done.stdout
    for path in (folder / "model").glob("*.model"):
        statistics = read_statistics(read_model(path, "cpu", torch.float32))
        assert list(statistics.E0) == pytest.approx([emt("H"), emt("O")], abs=1e-6)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("data/labels/*/*.json")}
    assert command(folder=folder, name="aims-PAX-initial-ds").returncode == 0
    assert before == {p: p.stat().st_mtime_ns for p in folder.glob("data/labels/*/*.json")}


def test_check_accepts_the_word_in_any_case(tmp_path):
    folder = write_project(
        tmp_path, {"REFERENCE": worlds.EMT}, {"ARCHITECTURE": {"atomic_energies": "Reference"}}
    )
    done = command("check", folder=folder)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["mace"]["ARCHITECTURE"]["atomic_energies"] == "reference"
