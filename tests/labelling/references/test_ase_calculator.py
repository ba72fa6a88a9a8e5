"""Any ASE calculator labels frames, and its exceptions become failure classes."""

import errno
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.calculators import calculator as ase
from ase.calculators.emt import EMT

from aims_pax.errors import Crashed, NotConverged, SettingsError, SetupError, TimedOut
from aims_pax.labelling.references.ase_calculator import CalculatorReference, classify, own_folder
from aims_pax.potential import calculate
from tests import worlds


def reference(section, folder=None, **kwargs):
    return CalculatorReference(section["factory"], {**section.get("kwargs", {}), **kwargs}, folder)


def module(folder, name, text):
    (folder / f"{name}.py").write_text(text)
    sys.modules.pop(name, None)
    return name


def test_a_label_is_what_the_calculator_says():
    frame = worlds.rattled(worlds.crystal(), 1)[0]
    got, truth = reference(worlds.EMT).label(frame), calculate(frame, EMT())
    assert got.energy == truth.energy
    np.testing.assert_array_equal(got.forces, truth.forces)
    np.testing.assert_array_equal(got.stress, truth.stress)


def test_forces_on_fixed_atoms_are_raw():
    frame = worlds.slab()
    assert abs(reference(worlds.EMT).label(frame).forces[frame.fixed.all(axis=1)]).max() > 1e-3


@pytest.mark.parametrize(
    ("factory", "kwargs", "said"),
    [
        ("ase.calculators.vasp:Vasp", {"nsw": 20, "ibrion": 2}, "nsw: 20"),
        (
            "ase.calculators.espresso:Espresso",
            {"input_data": {"control": {"calculation": "relax"}}},
            "calculation: relax",
        ),
        ("ase.calculators.espresso:Espresso", {"input_data": {"calculation": "vc-relax"}}, "vc-relax"),
        ("ase.calculators.aims:Aims", {"relax_geometry": "bfgs 1e-2"}, "relax_geometry: bfgs 1e-2"),
        ("ase.calculators.dftb:Dftb", {"Driver_": "ConjugateGradient"}, "Driver_: ConjugateGradient"),
        ("ase.calculators.dftb:Dftb", {"Driver": "ConjugateGradient"}, "Driver: ConjugateGradient"),
        ("ase.calculators.espresso:Espresso", {"input_data": {"CONTROL": {"CALCULATION": "relax"}}}, "relax"),
        ("ase.calculators.castep:Castep", {"Task": "GeometryOptimization"}, "task: GeometryOptimization"),
        ("ase.calculators.gamess_us:GAMESSUS", {"contrl": {"RUNTYP": "optimize"}}, "runtyp: optimize"),
        ("ase.calculators.elk:ELK", {"tasks": [[0], [2]]}, "tasks: 2"),
        ("ase.calculators.elk:ELK", {"tasks": 420}, "tasks: 420"),
        ("ase.calculators.crystal:CRYSTAL", {"otherkeys": ["anderson", ["optgeom", "endopt"]]}, "optgeom"),
        ("ase.calculators.gaussian:Gaussian", {"Opt": "tight"}, "opt: tight"),
        ("ase.calculators.gaussian:Gaussian", {"extra": "scf=xqc opt=(tight)"}, "extra: opt"),
        ("ase.calculators.gulp:GULP", {"keywords": "opti conp"}, "keywords: opti"),
        ("ase.calculators.mopac:MOPAC", {"task": "GRADIENTS"}, "task: GRADIENTS"),
        ("ase.calculators.octopus:Octopus", {"CalculationMode": "go"}, "CalculationMode: go"),
        (
            "ase.calculators.onetep:Onetep",
            {"keywords": {"task": "GeometryOptimization"}},
            "GeometryOptimization",
        ),
        (
            "ase.calculators.orca:ORCA",
            {"orcasimpleinput": "B3LYP def2-SVP TightOpt"},
            "orcasimpleinput: TightOpt",
        ),
        ("ase.calculators.orca:ORCA", {"orcasimpleinput": "B3LYP", "orcablocks": "%md run 9 end"}, "%md"),
        ("ase.calculators.qchem:QChem", {"jobtype": "opt"}, "jobtype: opt"),
        (
            "ase.calculators.siesta:Siesta",
            {"fdf_arguments": {"MD.TypeOfRun": "CG", "MD.Steps": 50}},
            "'MD.Steps': 50",
        ),
    ],
)
def test_arguments_that_make_a_program_relax_the_structure_are_refused(factory, kwargs, said):
    with pytest.raises(SettingsError, match=rf"REFERENCE\.kwargs: .*{said}: .* a label is a single point"):
        CalculatorReference(factory, kwargs).check()


@pytest.mark.parametrize(
    ("factory", "kwargs"),
    [
        ("ase.calculators.vasp:Vasp", {"nsw": 0, "xc": "pbe"}),
        ("ase.calculators.espresso:Espresso", {"input_data": {"control": {"calculation": "scf"}}}),
        ("ase.calculators.gaussian:Gaussian", {"extra": "scf=(xqc,maxcycle=200) int=ultrafine"}),
        ("ase.calculators.elk:ELK", {"tasks": [[0], [10], [20]]}),
        ("ase.calculators.crystal:CRYSTAL", {"otherkeys": ["anderson", ["maxcycles", "500"]]}),
        ("ase.calculators.mopac:MOPAC", {}),
        ("ase.calculators.mopac:MOPAC", {"task": "1SCF GRADIENTS DISP"}),
        (
            "ase.calculators.orca:ORCA",
            {"orcasimpleinput": "! B3LYP def2-SVP EnGrad", "orcablocks": "%scf end"},
        ),
        ("ase.calculators.siesta:Siesta", {"fdf_arguments": {"MD.TypeOfRun": "CG", "MD.NumCGsteps": 0}}),
    ],
)
def test_arguments_of_single_points_are_none_of_relaxation(factory, kwargs):
    CalculatorReference(factory, kwargs).check()


def test_labels_do_not_depend_on_their_order():
    """tblite starts from its last density: at accuracy 1 reuse shifts forces by 1e-4 eV/Å."""
    xtb = reference(worlds.XTB, accuracy=1.0)
    frames = worlds.rattled(worlds.water(), 3)
    there = [xtb.label(f).forces for f in frames]
    back = [xtb.label(f).forces for f in reversed(frames)]
    np.testing.assert_allclose(there, back[::-1], rtol=0, atol=1e-9)  # rounding depends on memory addresses


def test_threads_can_label_side_by_side(tmp_path):
    xtb = reference(worlds.XTB, tmp_path)
    frames = worlds.rattled(worlds.ethanol(), 8)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(xtb.label, frames))
    for frame, label in zip(frames, together, strict=True):
        alone = xtb.label(frame)
        assert abs(label.energy - alone.energy) < 1e-9
        np.testing.assert_allclose(label.forces, alone.forces, atol=1e-9)


def test_a_module_in_the_working_folder_serves_and_its_text_is_part_of_the_method(tmp_path):
    text = """
from ase.calculators.emt import EMT
def make():
    import neighbour_of_mine_a
    return EMT()
"""
    module(tmp_path, "neighbour_of_mine_a", "")
    module(tmp_path, "mine_a", text)
    mine = CalculatorReference("mine_a:make", {}, tmp_path)
    mine.check()
    assert (
        mine.label(worlds.dimer("Cu", 2.6)).energy
        == reference(worlds.EMT).label(worlds.dimer("Cu", 2.6)).energy
    )
    before = mine.describe()
    (tmp_path / "mine_a.py").write_text(text.replace("EMT(", "EMT(  "))
    assert mine.describe() != before
    assert reference(worlds.EMT, tmp_path).describe() == reference(worlds.EMT).describe()


def test_a_factory_that_is_not_there_is_known_before_the_first_call(tmp_path):
    with pytest.raises(SettingsError, match="no_such_package"):
        CalculatorReference("no_such_package.ase:Calc", {}, tmp_path).check()
    module(tmp_path, "strict_a", "def make(method):\n    return None\n")
    with pytest.raises(SettingsError, match="metod"):
        CalculatorReference("strict_a:make", {"metod": "pbe"}, tmp_path).label(worlds.water())


def test_calculators_that_write_files_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """
from ase.calculators.calculator import FileIOCalculator
import os
class Files(FileIOCalculator):
    implemented_properties = ["energy", "forces"]
    _legacy_default_command = "pwd > out"
    def write_input(self, atoms, properties=None, system_changes=None):
        super().write_input(atoms, properties, system_changes)
    def read_results(self):
        with open(os.path.join(self.directory, "out")) as file:
            place = file.read().strip()
        self.results = {"energy": -float(len(place)), "forces": [[0.0] * 3] * len(self.atoms)}
"""
    module(tmp_path, "files_a", text)
    files = CalculatorReference("files_a:Files", {"command": "pwd > out"}, tmp_path, tmp_path / "calc")
    energy = files.label(worlds.water()).energy
    assert -energy > len(str(tmp_path / "calc"))
    assert list((tmp_path / "calc").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_every_calculator_that_writes_files_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    """Not only those that derive from FileIOCalculator: in one folder Vasp reads the vasprun.xml of another label."""
    from ase.calculators.dftd3 import DFTD3
    from ase.calculators.mixing import SumCalculator
    from ase.calculators.vasp import Vasp

    monkeypatch.chdir(tmp_path)
    vasp, dispersion = Vasp(), DFTD3(command="dftd3")
    both = SumCalculator([Vasp(), DFTD3(command="dftd3", dft=EMT())])
    inside = [both.mixer.calcs[0], both.mixer.calcs[1].dftd3]
    scratch = tmp_path / "calc"
    for calculator, writers in ((vasp, [vasp]), (dispersion, [dispersion.dftd3]), (both, inside)):
        with own_folder(calculator, scratch, worlds.water()):
            used = [Path(one.directory).resolve() for one in writers]
            assert len(set(used)) == len(writers)
            assert all(folder.parent == scratch and folder.is_dir() for folder in used)
        assert list(scratch.iterdir()) == []
    chosen = Vasp(directory="mine")
    with own_folder(chosen, scratch, worlds.water()):
        assert chosen.directory == "mine"
    with own_folder(EMT(), tmp_path / "none", worlds.water()):
        assert not (tmp_path / "none").exists()  # computes in memory: no folder for each label


def test_a_calculator_of_the_user_writes_into_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """
from ase.calculators.calculator import Calculator
from pathlib import Path
class Program(Calculator):
    implemented_properties = ["energy", "forces"]
    def calculate(self, atoms=None, properties=None, system_changes=None):
        super().calculate(atoms, properties, system_changes)
        Path(self.directory, "restart").open("x").close()  # fails in a folder that was used before
        self.results = {"energy": 0.0, "forces": [[0.0] * 3] * len(self.atoms)}
"""
    module(tmp_path, "program_a", text)
    program = CalculatorReference("program_a:Program", {}, tmp_path, tmp_path / "calc")
    program.label(worlds.water())
    program.label(worlds.ethanol())
    assert not (tmp_path / "restart").exists()


@pytest.mark.parametrize(
    ("said", "converged"),
    [
        ("     convergence has been achieved in  11 iterations", True),
        ("     convergence NOT achieved after 100 iterations: stopping", False),
        ("  *** SCF run converged in    12 steps ***", True),
        ("  *** SCF run NOT converged ***", False),
    ],
)
def test_a_program_that_says_that_it_has_not_converged_and_goes_on_gives_no_label(tmp_path, said, converged):
    text = """
from ase.calculators.calculator import Calculator
from pathlib import Path
class Program(Calculator):
    implemented_properties = ["energy", "forces"]
    default_parameters = {"said": ""}
    def calculate(self, atoms=None, properties=None, system_changes=None):
        super().calculate(atoms, properties, system_changes)
        Path(self.directory, "program.out").write_text(f"first\\n{self.parameters.said}\\nlast\\n")
        self.results = {"energy": 0.0, "forces": [[0.0] * 3] * len(self.atoms)}
"""
    module(tmp_path, "program_b", text)
    program = CalculatorReference("program_b:Program", {"said": said}, tmp_path, tmp_path / "calc")
    if converged:
        program.label(worlds.water())
    else:
        with pytest.raises(NotConverged, match=rf"^program\.out: {re.escape(said.strip())}$"):
            program.label(worlds.water())


def test_calculators_with_one_state_for_all_threads_run_in_processes():
    assert CalculatorReference("ase.calculators.vasp:Vasp").quick
    assert not CalculatorReference("ase.calculators.psi4:Psi4").quick


def test_turbomole_of_ase_is_refused_before_it_deletes_files_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "control").write_text("of the user")
    turbomole = CalculatorReference("ase.calculators.turbomole:Turbomole", {"multiplicity": 1}, tmp_path)
    for refused in (turbomole.check, lambda: turbomole.label(worlds.water())):
        with pytest.raises(
            SettingsError, match=r"takes no list of properties.* write a calculator of your own"
        ):
            refused()
    assert (tmp_path / "control").read_text() == "of the user"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("SCF not converged in 250 cycles"), NotConverged),
        (RuntimeError("the self-consistency cycle did not converge"), NotConverged),
        (RuntimeError("convergence not achieved after 50 steps"), NotConverged),
        (ase.SCFError("no luck"), NotConverged),
        (RuntimeError("SCF converged, but the eigensolver failed"), Crashed),
        (KeyError("Xx"), Crashed),
        (ValueError(), Crashed),
        (MemoryError(), Crashed),
        (ase.CalculationFailed("died"), Crashed),
        (subprocess.CalledProcessError(-11, "pw.x"), Crashed),
        (subprocess.CalledProcessError(127, "pw.x"), SetupError),
        (subprocess.TimeoutExpired("pw.x", 10), TimedOut),
        (TimeoutError("slow"), TimedOut),
        (ModuleNotFoundError("No module named 'pyscf'"), SetupError),
        (FileNotFoundError(2, "No such file", "pw.x"), SetupError),
        (OSError(errno.ENOSPC, "No space left on device"), SetupError),
        (NotImplementedError("No EMT-potential for U"), SetupError),
        (ase.CalculatorSetupError("no command"), SetupError),
        (SettingsError("yours"), SettingsError),
        (NotConverged("own"), NotConverged),
    ],
)
def test_exceptions_become_classes_with_their_text(error, kind):
    found = classify(error, "pw")
    assert type(found) is kind
    assert str(error).strip("'") in str(found)


def test_an_element_the_method_lacks_stops_the_run():
    from aims_pax.frames import Frame

    with pytest.raises(SetupError, match="No EMT-potential for U"):
        reference(worlds.EMT).label(Frame([92], [[0, 0, 0]]))


def test_quick_means_threads_and_slow_means_processes():
    assert reference(worlds.XTB).quick
    assert reference(worlds.EMT).quick
    assert not CalculatorReference("pyscf_ase:PySCF").quick


def test_the_kind_of_arguments_counts_in_the_method():
    xtb = reference(worlds.XTB)
    assert replace(xtb, kwargs={**xtb.kwargs, "accuracy": 1.0}).describe() != xtb.describe()
    assert replace(xtb, kwargs=dict(reversed(xtb.kwargs.items()))).describe() == xtb.describe()


def test_for_atoms_what_is_said_of_a_molecule_s_electrons_leaves():
    kwargs = {"method": "GFN1-xTB", "charge": -1, "multiplicity": 2, "accuracy": 0.01}
    atoms = CalculatorReference("tblite.ase:TBLite", kwargs).for_atoms()
    assert atoms.kwargs == {"method": "GFN1-xTB", "accuracy": 0.01}
    assert CalculatorReference("a:b", {"x": 1}).for_atoms() == CalculatorReference("a:b", {"x": 1})


def test_a_factory_that_changes_its_arguments_makes_the_same_calculator_again(tmp_path):
    text = """from ase.calculators.lj import LennardJones
def make(tables):
    return LennardJones(epsilon=tables["lj"].pop("epsilon", 1.0), rc=9.0)
"""
    own = CalculatorReference(
        f"{module(tmp_path, 'changing', text)}:make", {"tables": {"lj": {"epsilon": 2.0}}}, tmp_path
    )
    assert own.label(worlds.dimer()).energy == own.label(worlds.dimer()).energy
    assert own.describe()["kwargs"] == {"tables": {"lj": {"epsilon": 2.0}}}
