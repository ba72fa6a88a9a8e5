"""`aims-PAX gpr train.in`: files in, files out, with their names, shapes and numbers."""

import io
import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from rich.console import Console

from aims_pax.commands.gpr import workflow
from aims_pax.commands.gpr.workflow import gpr
from aims_pax.errors import RunInterrupted, SettingsError, SetupError
from aims_pax.models.gp.coordinate_process import CoordinateProcess
from aims_pax.models.gp.gp_calculator import GPRCalculator
from aims_pax.models.gp.process_file import load_any_process
from aims_pax.potential import calculate
from aims_pax.structure_files.xsf import read_xsf, xsf_text
from tests.models.gp import systems

TRAIN, TEST = systems.h2(np.linspace(0.95, 2.0, 7)), systems.h2(np.linspace(1.0, 1.9, 12))
WRITTEN = "Train_file train/file_*.xsf\nTest_file test/file_*.xsf\n"


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Run the command in a folder of its own; returns what it said."""
    monkeypatch.chdir(tmp_path)
    for name, data in (("train", TRAIN), ("test", TEST)):
        Path(name).mkdir()
        for k, x in enumerate(data):
            Path(name, f"file_{k:05d}.xsf").write_text(xsf_text(x.frame, x.label.energy, x.label.forces))

    def run(text=WRITTEN):
        Path("train.in").write_text(text)
        said = io.StringIO()
        gpr(Path("train.in"), Console(file=said, width=200))
        return said.getvalue()

    return run


def errors():
    return json.loads(Path("gpr/errors.json").read_text())


def test_train_and_test_write_the_published_arrays_and_a_page(go):
    said = go()
    shapes = {
        "energy_test_reference": (12,), "force_test_reference": (12, 2, 3), "energy_test_gpr": (12,),
        "force_test_gpr": (12, 2, 3), "unc_e_test_gpr": (12,), "unc_f_test_gpr": (12, 2, 3),
    }  # fmt: skip
    found = {name: np.load(f"{name}.npy") for name in shapes}
    assert {name: a.shape for name, a in found.items()} == shapes
    mae = np.abs(found["energy_test_gpr"] - found["energy_test_reference"]).mean()
    assert mae < 5e-4
    assert f"GPR energy MAE (eV): {mae:.6f}" in said
    norms = np.linalg.norm(found["force_test_gpr"] - found["force_test_reference"], axis=2)
    assert f"GPR force MAE (eV/Ang): {norms.mean():.6f}" in said
    component = np.abs(found["force_test_gpr"] - found["force_test_reference"]).mean()
    assert f"GPR force component MAE (eV/Ang): {component:.6f}" in said
    assert errors()["force_mae"] == pytest.approx(component)
    page = Path("gpr.html").read_text()
    assert page.count("<figure") == 4
    assert Path("gpr/gpr_forces.png").stat().st_size > 1000
    assert not Path("additional_xsf").exists()


def test_without_variance_and_without_test(go):
    go(WRITTEN + "get_variance False\n")
    assert not Path("unc_e_test_gpr.npy").exists()
    go("Train_file train/*.xsf\n")
    assert "energy_mae" not in errors()


def test_copies_are_written_with_provenance_and_the_same_bytes_again(go):
    more = (
        WRITTEN + "Additional_write True\nDisp_length 0.05\nNum_copy 10\nTrain_write True\nTest_write True\n"
    )
    said = go(more)
    files = sorted(Path("additional_xsf").glob("file_*.xsf"))
    assert f"{len(files)} of 70 copies" in said
    assert np.load("energy_additional_gpr.npy").shape == (len(files),)
    assert np.load("force_additional_gpr.npy").shape == (len(files), 2, 3)
    for path in files:
        frame, label = read_xsf(path)
        assert abs(label.energy - calculate(frame, LennardJones()).energy) < 0.05
        assert "# provenance = surrogate:" in path.read_text()
    assert len(list(Path("train_xsf").iterdir())) == 7
    assert len(list(Path("test_xsf").iterdir())) == 12
    content = [p.read_bytes() for p in files]
    with pytest.raises(SettingsError, match="overwrite True"):
        go(more)
    go(more + "overwrite True\n")
    assert [p.read_bytes() for p in files] == content
    with pytest.raises(SettingsError, match="labels of a surrogate"):
        go("Train_file additional_xsf/*.xsf\n")


@pytest.mark.parametrize("descriptor", ["", "Descriptor cart\n"], ids=["auto", "cart"])
def test_the_saved_process_is_the_one_that_was_tested(go, descriptor):
    go(WRITTEN + "Train_model_save True\n" + descriptor)
    process = load_any_process(Path("model.gp"))
    assert isinstance(process, CoordinateProcess) == bool(descriptor)
    said = process.predict([x.frame for x in TEST])
    assert said.energies == pytest.approx(np.load("energy_test_gpr.npy"), abs=1e-6 if descriptor else 1e-9)


def test_cartesian_coordinates_are_honoured_and_one_line_says_what_auto_reaches(go):
    said = go(WRITTEN + "Descriptor cart\n")
    assert "Descriptor auto would reach" in said
    assert errors()["descriptor"] == "cart"
    go(WRITTEN)
    assert errors()["descriptor"] == "auto"


def test_every_format_of_ase_and_structures_of_several_sizes(go):
    pytest.importorskip("featomic")
    images = []
    for x in [*TRAIN, *systems.cu13(4)]:
        atoms = x.frame.to_atoms()
        atoms.calc = SinglePointCalculator(atoms, energy=x.label.energy, forces=x.label.forces)
        images.append(atoms)
    ase.io.write("all.traj", images)
    go("Train_file all.traj\nTest_file all.traj\nFile_format traj\n")
    assert np.load("force_test_gpr.npy").shape == (7 * 2 + 4 * 13, 3)
    assert np.load("atoms_test.npy").tolist() == [2] * 7 + [13] * 4
    images[2].calc = None
    ase.io.write("bad.traj", images)
    with pytest.raises(SettingsError, match=r"bad.traj: structure 3 has no energy"):
        go("Train_file bad.traj\nFile_format traj\n")
    with pytest.raises(SettingsError, match="nearest: vasp-out"):
        go("Train_file bad.traj\nFile_format vasp-uot\n")
    with pytest.raises(SettingsError, match="cannot be read as vasp-out"):
        go("Train_file bad.traj\nFile_format vasp-out\n")


def test_soap_with_and_without_centres(go):
    pytest.importorskip("featomic")
    soap = "Descriptor soap\nsoap_r_cut 4.0\nsoap_n_max 3\nsoap_l_max 2\n"
    go(WRITTEN + soap)
    assert errors()["force_mae"] < 1
    go(WRITTEN + soap + "soap_centers [[0.0, 0.6, 0.0], [0.0, -0.6, 0.2]]\nscale 6.0\nnoise 1e-4\n")
    assert errors()["energy_mae"] < 0.05


def test_close_structures_are_left_out_and_missing_files_are_named(go):
    assert "train: 4 structures" in go(WRITTEN + "Filter True\nfilter_threshold 0.2\n")
    with pytest.raises(SettingsError, match=r"train.in:1: train_file: no file is called no/\*.xsf"):
        go("Train_file no/*.xsf\n")


def test_without_featomic_the_extra_is_named_before_anything_is_written(go, monkeypatch):
    monkeypatch.setitem(sys.modules, "featomic", None)
    with pytest.raises(SetupError, match=r"aims-pax\[gpr\]"):
        go(WRITTEN + "Descriptor soap\n")
    assert not Path("gpr.html").exists()
    go(WRITTEN)  # distances need no featomic


SCALED = """
from ase.calculators.lj import LennardJones

class Scaled(LennardJones):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        for name in ("energy", "forces", "free_energy"):
            self.results[name] = self.by * self.results[name]

def fails(**kwargs):
    raise RuntimeError("no licence")
"""


def test_a_baseline_is_the_prior_mean_and_belongs_to_the_saved_process(go, monkeypatch):
    Path("scaled_lj.py").write_text(SCALED)
    three = "Train_file train/file_0000[036].xsf\nTest_file test/file_*.xsf\nTrain_model_save True\n"
    go(three)
    alone = errors()["force_mae"]
    said = go(three + 'baseline {factory: "scaled_lj:Scaled", kwargs: {by: 0.999}}\n')
    assert "prior mean scaled_lj:Scaled(by=0.999)" in said
    assert errors()["force_mae"] < 0.3 * alone
    with pytest.raises(SettingsError, match="trained with the baseline scaled_lj:Scaled"):
        GPRCalculator("model.gp")
    monkeypatch.syspath_prepend(Path.cwd())
    from scaled_lj import Scaled

    atoms = TEST[3].frame.to_atoms()
    atoms.calc = GPRCalculator("model.gp", baseline=Scaled(0.999))
    assert atoms.get_forces() == pytest.approx(np.load("force_test_gpr.npy")[3], abs=1e-9)
    go()
    Path("model.gp").unlink()
    go(WRITTEN + "Train_model_save True\n")
    with pytest.raises(SettingsError, match="without a baseline"):
        GPRCalculator("model.gp", baseline=Scaled(0.999))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('baseline {factory: "scaled_lj:Scaled"}', r"train.in:3: baseline: .*missing 1 required"),
        ('baseline {factory: "scaled_lj:fails"}', "no licence"),
        ("baseline none.model", r"none\.model"),
        ("baseline {factory: 3}", r"train.in:3: baseline: expected a potential"),
        ('descriptor cart\nbaseline {factory: "ase.calculators.lj:LennardJones"}', "needs Descriptor auto"),
    ],
)
def test_a_baseline_that_cannot_be_used_is_refused_before_anything_is_trained(go, line, said):
    Path("scaled_lj.py").write_text(SCALED)
    with pytest.raises((SettingsError, SetupError), match=said):
        go(WRITTEN + line + "\n")
    assert not Path("gpr").exists()


ALL = WRITTEN + "Train_write True\nAdditional_write True\nNum_copy 3\n"


def test_after_an_interruption_the_same_command_begins_again(go, monkeypatch):
    def interrupted(*anything):
        raise RunInterrupted("stopped by the user", 3)

    def stopped_in(step, text):
        with monkeypatch.context() as patched:
            patched.setattr(workflow, step, interrupted)
            with pytest.raises(RunInterrupted):
                go(text)

    stopped_in("make_copies", ALL)
    assert len(list(Path("train_xsf").iterdir())) == 7
    assert "of 21 copies" in go(ALL)
    with pytest.raises(SettingsError, match="overwrite True"):  # that one was finished
        go(ALL)
    stopped_in("train_process", WRITTEN + "Test_write True\n")
    # not touched by the one that was interrupted
    with pytest.raises(SettingsError, match="train_xsf exists"):
        go(ALL)


def test_results_of_another_process_do_not_stay_beside_new_ones(go):
    go(ALL)
    Path("mine.npy").write_bytes(b"kept")
    said = go("Train_file train/*.xsf\n")
    assert "removed 10 arrays of an earlier run" in said
    assert [p.name for p in Path().glob("*.npy")] == ["mine.npy"]
    assert sorted(p.name for p in Path("gpr").iterdir()) == ["errors.json", "gpr_leave_one_out.png"]


@pytest.mark.parametrize("name", ["gpr.html", "gpr"])
def test_something_in_the_way_of_an_output_is_said_before_training(go, name, monkeypatch):
    monkeypatch.setattr(workflow, "train_process", None)
    Path(name).mkdir() if name == "gpr.html" else Path(name).write_text("")
    with pytest.raises(SetupError, match=f"{name} is in the way"):
        go()


def extended(name, changed):
    """The training set as extended XYZ, after `changed(index, atoms, energy, forces)`."""
    images = []
    for k, x in enumerate(TRAIN):
        atoms, energy, forces = changed(k, x.frame.to_atoms(), x.label.energy, x.label.forces.copy())
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, forces  # ASE does not touch them
        images.append(atoms)
    ase.io.write(name, images)
    return f"Train_file {name}\nFile_format extxyz\n"


def test_labels_that_contradict_each_other_are_refused(go):
    def again(k, atoms, energy, forces):
        if k == 4:
            atoms.positions = TRAIN[1].frame.positions
        return atoms, energy, forces

    with pytest.raises(
        SettingsError, match=r"structure 2 of train_file and structure 5 of train_file are the same"
    ):
        go(extended("a.xyz", again))

    def charged(k, atoms, energy, forces):
        atoms.info["charge"] = k % 2
        return atoms, energy, forces

    with pytest.raises(SettingsError, match=r"different charge \(0, 1\)"):
        go(extended("b.xyz", charged))

    def broken(k, atoms, energy, forces):
        forces[0, 0] = np.nan if k == 2 else forces[0, 0]
        return atoms, energy, forces

    with pytest.raises(SettingsError, match=r"c.xyz: structure 3: forces not finite"):
        go(extended("c.xyz", broken))


def test_zeros_that_are_no_forces_are_refused(go):
    def fixed(k, atoms, energy, forces):
        if k > 4:
            atoms.set_constraint(FixAtoms([0]))
            forces[0] = 0
        return atoms, energy, forces

    with pytest.raises(
        SettingsError, match=r"train_file: 2 of 7 structures, the first is 6, have fixed atoms"
    ):
        go(extended("a.xyz", fixed))

    def energies_alone(k, atoms, energy, forces):
        return atoms, energy, 0 * forces

    text = extended("b.xyz", energies_alone)
    with pytest.raises(SettingsError, match=r"train_file: all forces of 7 of 7 structures are exactly zero"):
        go(text)
    with pytest.raises(SettingsError, match=r"test_file: all forces of 7 of 7"):
        go(extended("c.xyz", lambda k, *kept: kept) + "Test_file b.xyz\n")
    assert not Path("gpr").exists()


def test_constraints_with_forces_and_forces_that_vanish_by_symmetry_are_learnt(go):
    pytest.importorskip("featomic")

    def fixed(k, atoms, energy, forces):
        atoms.set_constraint(FixAtoms([0]))
        return atoms, energy, forces

    assert "train: 7 structures" in go(extended("a.xyz", fixed))
    crystals = [systems.labelled(bulk("Cu", cubic=True, a=a)).to_atoms() for a in (3.5, 3.6, 3.7)]
    ase.io.write("b.xyz", crystals)
    assert "train: 3 structures" in go("Train_file b.xyz\nFile_format extxyz\n")


def test_what_xsf_cannot_hold_is_refused_before_training_and_what_it_leaves_out_is_said_once(go):
    def wire(k, atoms, energy, forces):
        atoms.set_cell([9, 9, 9])
        atoms.pbc = (False, False, True)
        return atoms, energy, forces

    text = extended("a.xyz", wire)
    for key in ("Train_write", "Additional_write", "Test_file a.xyz\nTest_write"):
        with pytest.raises(SettingsError, match=r"structure 1: XSF cannot hold H2 with pbc F F T"):
            go(text + f"{key} True\n")
    assert not Path("gpr").exists()

    def charged(k, atoms, energy, forces):
        atoms.info.update(charge=1, spin=2)
        atoms.set_constraint(FixAtoms([0]))
        return atoms, energy, forces

    said = go(extended("b.xyz", charged) + "Train_write True\nAdditional_write True\nNum_copy 2\n")
    assert said.count("XSF has no place for charge, fixed atoms, spin") == 1
    assert "no place" not in go("Train_file b.xyz\nFile_format extxyz\n")


@pytest.mark.parametrize(
    ("descriptor", "change", "said"),
    [
        ("", {"charge": 1}, r"test_file: structures of different charge \(1, none\)"),
        (
            "",
            {"energy": 1.0},
            r"test_file: structure 2 of train_file and structure 2 of test_file are the same",
        ),
        ("", {"symbols": "HeH"}, r"test_file: the Gaussian process was not trained on structures like HHe"),
        ("Descriptor soap\n", {"symbols": "HeH"}, r"test_file: the Gaussian process was not trained on He"),
        ("Descriptor cart\n", {"symbols": "HeH"}, r"test_file: HHe: no training structure has these atoms"),
    ],
)
def test_a_test_set_of_which_nothing_can_be_predicted_is_refused_before_training(
    go, monkeypatch, descriptor, change, said
):
    def changed(k, atoms, energy, forces):
        if "charge" in change:
            atoms.info["charge"] = change["charge"]
        if k == 1:
            atoms.symbols = change.get("symbols", "H2")
        return atoms, energy + (k == 1) * change.get("energy", 0.0), forces

    extended("train.xyz", lambda k, *kept: kept)
    extended("test.xyz", changed)
    monkeypatch.setattr(workflow, "train_process", None)
    Path("energy_test_gpr.npy").write_bytes(b"of an earlier run")
    with pytest.raises(SettingsError, match=said):
        go("Train_file train.xyz\nTest_file test.xyz\nFile_format extxyz\n" + descriptor)
    assert Path("energy_test_gpr.npy").exists()


def test_a_width_that_is_too_small_for_the_cutoff_is_refused_before_training(go, monkeypatch):
    pytest.importorskip("featomic")
    monkeypatch.setattr(workflow, "train_process", None)
    with pytest.raises(
        SettingsError, match=r"train.in:4: soap_sigma: width 0.01 Å is too small for cutoff 5 Å"
    ):
        go(WRITTEN + "Descriptor soap\nsoap_sigma 0.01\n")
    with pytest.raises(SettingsError, match=r"train.in:4: soap_r_cut: expected a number above 1, got '1.0'"):
        go(WRITTEN + "Descriptor soap\nsoap_r_cut 1.0\n")


def test_points_on_an_atom_or_far_from_all_are_refused_before_training(go, monkeypatch):
    pytest.importorskip("featomic")
    monkeypatch.setattr(workflow, "train_process", None)
    soap = WRITTEN + "Descriptor soap\nsoap_r_cut 4.0\nsoap_centers "
    with pytest.raises(
        SettingsError, match=r"train.in:5: soap_centers: point 1 .* of structure 1 of train_file"
    ):
        go(soap + "[[0.475, 0.0, 0.0]]\n")
    with pytest.raises(
        SettingsError, match=r"point 2 \[0.0, 9.0, 0.0\]: no atom of the training set is within"
    ):
        go(soap + "[[0.0, 0.6, 0.0], [0.0, 9.0, 0.0]]\n")


def test_a_test_set_that_was_learnt_is_pointed_out(go):
    assert "7 of 7 structures are also in train_file" in go("Train_file train/*.xsf\nTest_file train/*.xsf\n")


def test_files_that_are_given_twice_do_not_make_the_leave_one_out_errors_smaller(go):
    def leave_one_out(said):
        return next(
            line.partition("leave-one-out")[2].split(" · ")[0] for line in said.splitlines() if "MAE" in line
        )

    once = leave_one_out(go("Train_file train/*.xsf\n"))
    for path in list(Path("train").iterdir()):
        Path("train", f"again_{path.name}").write_bytes(path.read_bytes())
    said = go("Train_file train/*.xsf\n")
    assert "7 of 14 structures are copies of others and left out" in said
    assert leave_one_out(said) == once


def test_one_structure_has_no_leave_one_out_error(go):
    for descriptor in ("", "Descriptor cart\n"):
        said = go("Train_file train/file_00003.xsf\n" + descriptor)
        assert "one structure has no leave-one-out error" in said
        assert "nan" not in said
        assert "would reach" not in said


def test_a_fitted_scale_and_deviations_that_are_too_small_are_said(go):
    said = go(WRITTEN + "Descriptor cart\nscale 2.0\nfit_weight False\n")
    assert "(fitted: the best of 2 and its half and double)" in said
    assert "% of the energies" in said
    found = errors()
    assert ("deviations are too small" in said) == (
        min(found["coverage_90"], found["energy_coverage_90"]) < 0.7
    )
    assert "fitted:" not in go(WRITTEN + "Descriptor cart\nscale 1.0\nfit_scale False\n")


def test_few_copies_come_with_the_reason(go):
    said = go(WRITTEN + "Additional_write True\nNum_copy 3\nmax_unc_forces 1e-9\n")
    assert "0 of 21 copies · refused" in said
    assert "lower disp_length" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Train_file './train/*.xsf'", "without quotes or brackets"),
        ("Train_file train", r"train is a folder; write train/\*.xsf"),
        ("Train_file one.xyz", "write file_format for another one, as extxyz"),
        ("Train_file one.xyz\nFile_format xyz", "is extended XYZ: write extxyz"),
    ],
)
def test_files_that_are_not_found_or_read_come_with_what_to_write(go, line, said):
    extended("one.xyz", lambda k, *kept: kept)
    with pytest.raises(SettingsError, match=said):
        go(line + "\n")
