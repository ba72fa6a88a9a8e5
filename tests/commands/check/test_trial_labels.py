"""What `aims-PAX check` tries at its end, and what it says then."""

import shutil
from types import SimpleNamespace

import pytest

from aims_pax.commands.check import trial_labels
from aims_pax.commands.check.project import checked_settings
from aims_pax.errors import SettingsError
from tests.projects import command, write_project

XTB = {"type": "calculator", "factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN1-xTB", "verbosity": 0}}


def settings(folder, changes=None, mace=None):
    return checked_settings(write_project(folder, changes, mace))


def test_a_cheap_calculator_labels_the_smallest_structure(tmp_path):
    said = trial_labels.check_verdict(settings(tmp_path, {"REFERENCE": XTB}))
    assert said.text.startswith("everything is in order; REFERENCE labelled water in 0.")
    assert "INITIAL_DATASET_GENERATION.initial_calculator labelled water" in said.text


def test_what_only_shows_at_the_first_label_is_found(tmp_path):
    wrong = {**XTB, "kwargs": {"method": "GFN9-xTB", "verbosity": 0}}
    with pytest.raises(
        SettingsError, match=r"REFERENCE: tblite.ase:TBLite cannot label water \(H2O\).*GFN9-xTB"
    ):
        trial_labels.check_verdict(settings(tmp_path, {"REFERENCE": wrong}))


def test_a_warning_about_the_blocks_is_counted_with_the_others(tmp_path):
    blocks = {
        "type": "slurm",
        "project_name": "run",
        "calc_dir": "calculations",
        "worker_str": "true",
        "executor": "auto",
        "slurm_str": "#SBATCH -N 1",
        "parsl_options": {
            "nodes_per_block": 1,
            "init_blocks": 1,
            "min_blocks": 1,
            "max_blocks": 1,
            "label": "blocks",
        },
    }
    said = trial_labels.check_verdict(settings(tmp_path, {"REFERENCE": XTB, "CLUSTER": blocks}))
    assert said.text.startswith("ready for a run (1 warning, see above)")
    assert "CLUSTER.slurm_str sets no walltime" in said.warnings[0]


def with_samplers(folder, *samplers):
    """Settings whose first structures come from these samplers."""
    replaced = {"initial_sampling": None, "initial_calculator": None}
    return settings(folder, {"INITIAL_DATASET_GENERATION": replaced, "SAMPLERS": list(samplers)})


def test_potentials_of_samplers_are_tried_too(tmp_path):
    emt = {"factory": "ase.calculators.emt:EMT"}
    potential = {"factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN8", "verbosity": 0}}
    good = with_samplers(tmp_path, {"kind": "md", "potential": emt}, {"kind": "rattle_tree"})
    assert "; SAMPLERS.0.potential labelled water in " in trial_labels.check_verdict(good).text
    wrong = with_samplers(
        tmp_path, {"kind": "rattle_tree", "potential": emt}, {"kind": "md", "potential": potential}
    )
    said = r"^SAMPLERS\.1\.potential: tblite.ase:TBLite cannot label water \(H2O\): TBLiteValueError"
    with pytest.raises(SettingsError, match=said):
        trial_labels.check_verdict(wrong)


OWN = """from ase.calculators.emt import EMT
def make():
    open("made", "w").close()
    return EMT()
"""


def test_other_calculators_are_tried_when_that_is_wanted(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    own = settings(tmp_path, {"REFERENCE": {"type": "calculator", "factory": "own:make"}})
    said = trial_labels.check_verdict(own)
    assert "the reference was not tried (aims-PAX check --try" in said.text
    assert not (tmp_path / "made").exists()
    assert "REFERENCE labelled water" in trial_labels.check_verdict(own, wanted=True).text


def test_a_calculator_that_writes_into_the_working_folder_is_warned_of(tmp_path, monkeypatch):
    (tmp_path / "own_made.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    own = settings(tmp_path, {"REFERENCE": {"type": "calculator", "factory": "own_made:make"}})
    (said,) = [w for w in trial_labels.check_verdict(own, wanted=True).warnings if "working folder" in w]
    assert said.startswith(
        "REFERENCE: a label has written made into the working folder: labels that are computed at"
    )
    quiet = settings(tmp_path, {"REFERENCE": {"type": "calculator", "factory": "ase.calculators.emt:EMT"}})
    assert not [w for w in trial_labels.check_verdict(quiet, wanted=True).warnings if "working folder" in w]


def test_no_program_is_started_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("ASE_VASP_COMMAND", f"touch {tmp_path / 'started'}")
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    vasp = {"type": "calculator", "factory": "ase.calculators.vasp:Vasp", "kwargs": {"xc": "PBE"}}
    said = trial_labels.check_verdict(settings(tmp_path, {"REFERENCE": vasp}))
    assert "the reference was not tried" in said.text
    assert not (tmp_path / "started").exists()


def test_a_large_structure_is_not_tried_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_labels, "SMALL", 2)
    assert "was not tried" in trial_labels.check_verdict(settings(tmp_path)).text


def test_a_gpu_that_is_not_there_is_a_warning_and_an_error_when_tried(tmp_path, monkeypatch):
    import torch

    exists = trial_labels.Path.exists
    monkeypatch.setattr(trial_labels.Path, "exists", lambda p: "/dev" not in str(p) and exists(p))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda = settings(tmp_path, mace={"MISC": {"device": "cuda"}})
    (warning,) = trial_labels.check_verdict(cuda).warnings
    assert "MISC.device: cuda, but this machine shows no GPU" in warning
    with pytest.raises(SettingsError, match="torch finds no GPU"):
        trial_labels.check_verdict(cuda, wanted=True)


@pytest.mark.parametrize(
    ("launch", "missing"),
    [
        ("mpirun -n 4 /opt/nowhere/aims.x", ["/opt/nowhere/aims.x"]),
        ("no-such-launcher aims.x", ["no-such-launcher", "aims.x"]),
        ("OMP_NUM_THREADS=1 {sh}", []),
        ("module load aims; aims.x", []),
        ("mpirun -n 4 /opt/nowhere/aims.x < in > /opt/nowhere/out 2>&1", ["/opt/nowhere/aims.x"]),
        ('mpirun -n 4 sh -c "ulimit -s unlimited; /opt/nowhere/aims.x"', ["/opt/nowhere/aims.x"]),
        ("mpirun {sh} >/opt/nowhere/out 2>/dev/null; $HOME/aims.x", []),
    ],
)
def test_programs_of_fhi_aims_that_are_not_there_are_named(tmp_path, launch, missing):
    class Fake:
        folder = tmp_path
        cluster = type(
            "C", (), {"type": "local", "scheduler": None, "launch_str": launch.format(sh=shutil.which("sh"))}
        )
        reference = type("R", (), {"type": "aims"})

    found = [line.split()[1] for line in trial_labels._programs(Fake)]
    assert [m for m in found if m != "mpirun"] == missing


@pytest.mark.parametrize("scheduler", [None, object()])
@pytest.mark.parametrize(
    ("launch", "named"),
    [
        ("sh ./aims.x", ["./aims.x"]),
        ("sh run.sh > aims.out", ["run.sh"]),
        ("A=1 sh bin/aims.x < control.in | tee aims.out", ["bin/aims.x"]),
        ("sh {folder}/run.sh", []),
    ],
)
def test_files_beside_the_settings_are_not_in_the_folder_of_a_calculation(tmp_path, launch, named, scheduler):
    (tmp_path / "bin").mkdir()
    for name in ("aims.x", "run.sh", "bin/aims.x", "control.in", "aims.out"):
        (tmp_path / name).write_text("exit 0\n")
    given = SimpleNamespace(scheduler=scheduler, launch_str=launch.format(folder=tmp_path))
    fake = SimpleNamespace(folder=tmp_path, cluster=given, reference=SimpleNamespace(type="aims"))
    said = [line for line in trial_labels._programs(fake) if "will not be found" in line]
    assert [line.split()[1] for line in said] == named
    assert all(line.endswith(f"write {tmp_path / name}") for line, name in zip(said, named, strict=True))


def test_check_ends_with_its_verdict(tmp_path):
    done = command("check", folder=write_project(tmp_path / "good"))
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1].startswith("check: everything is in order; REFERENCE labelled water")
    done = command("check", folder=write_project(tmp_path / "bad", {"MD": {"timestep": -1, "tempratur": 3}}))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "2 problems to correct"
    done = command("--aimsPAX-settings", "other.yaml", "check", folder=tmp_path)
    assert "    there is no run in this folder" in done.stderr
    assert done.stderr.splitlines()[-1] == "2 problems to correct"
