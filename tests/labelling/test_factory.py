"""The user's settings decide which reference runs where."""

import os
from pathlib import Path

import pytest

from aims_pax.errors import SettingsError
from aims_pax.labelling import Labeller
from aims_pax.labelling.factory import executor_of, reference_of
from aims_pax.labelling.references.fhi_aims import AimsReference
from aims_pax.schedulers.registry import known_schedulers
from aims_pax.settings import read_settings
from tests import worlds
from tests.projects import write_project


def settings(folder, changes, **systems):
    return read_settings(write_project(folder, changes, **systems))


def aims_project(folder: Path, **cluster):
    folder.mkdir(exist_ok=True)
    (folder / "control.in").write_text(worlds.CONTROL)
    worlds.write_species(folder / "species")
    section = {"species_dir": "species"}
    cluster = {"launch_str": worlds.launch("xtb"), "calc_dir": "calc", "executor": "auto", **cluster}
    changes = {
        "REFERENCE": None,
        "CLUSTER": cluster,
        "INITIAL_DATASET_GENERATION": section,
        "ACTIVE_LEARNING": section,
    }
    return read_settings(write_project(folder, changes))


def test_without_a_reference_section_fhi_aims_runs_in_threads(tmp_path):
    told = aims_project(tmp_path, job_time_limit="01:00:00", max_workers=3)
    reference = reference_of(told)
    assert isinstance(reference, AimsReference)
    assert reference.species_dir == tmp_path / "species"
    assert reference.calc_dir == tmp_path / "calc"
    assert reference.time_limit == 3600
    assert not reference.stress
    executor = executor_of(told, reference)
    assert (executor.kind, executor.capacity) == ("threads", 3)


def test_no_time_limit_is_no_time_limit(tmp_path):
    assert reference_of(aims_project(tmp_path)).time_limit is None


@pytest.mark.parametrize(
    ("factory", "asked", "kind"),
    [
        ("tblite.ase:TBLite", "auto", "threads"),
        ("ase.calculators.emt:EMT", "auto", "threads"),
        ("slow_one:make", "auto", "htex"),
        ("slow_one:make", "threads", "threads"),
        ("tblite.ase:TBLite", "inline", "InlineExecutor"),
    ],
)
def test_auto_gives_threads_to_the_quick_and_processes_to_the_slow(tmp_path, factory, asked, kind):
    (tmp_path / "slow_one.py").write_text("from ase.calculators.emt import EMT as make")
    reference = {"type": "calculator", "factory": factory, "kwargs": {}}
    told = settings(tmp_path, {"REFERENCE": reference, "CLUSTER": {"executor": asked}})
    executor = executor_of(told, reference_of(told))
    assert getattr(executor, "kind", type(executor).__name__) == kind
    if kind == "htex":
        assert executor.capacity == len(os.sched_getaffinity(0))
        assert executor.run_dir == tmp_path / "logs" / "parsl"


def test_contents_of_control_in_without_effect_are_in_the_log_of_a_run(tmp_path, caplog):
    told = aims_project(tmp_path)
    text = "xc pbe\nfixed_spin_moment 2\nspecies H\n  nucleus 1\n"
    (tmp_path / told.misc.path_to_control).write_text(text)
    Labeller.from_settings(told, tmp_path / "data")
    assert "the species blocks of ./control.in are ignored, species_dir is used" in caplog.text
    assert "fixed_spin_moment is ignored by FHI-aims without spin collinear" in caplog.text


def test_a_misspelt_argument_of_a_calculator_is_in_the_log_of_a_run(tmp_path, caplog):
    reference = {"type": "calculator", **worlds.XTB, "kwargs": {"metod": "GFN1-xTB"}}
    Labeller.from_settings(settings(tmp_path, {"REFERENCE": reference}), tmp_path / "data")
    assert "REFERENCE.kwargs.metod: tblite.ase:TBLite has no such argument and may ignore it" in caplog.text


def test_what_does_not_run_yet_says_so(tmp_path):
    told = settings(tmp_path, {"CLUSTER": {"executor": "mpi"}})
    with pytest.raises(SettingsError, match="mpi"):
        executor_of(told, reference_of(told))


def test_a_labeller_from_settings_labels(tmp_path):
    told = aims_project(tmp_path)
    with Labeller.from_settings(told, tmp_path / "data") as labeller:
        label = labeller.submit(worlds.water()).result(60)
    assert label.energy == pytest.approx(-156.98, abs=1.0)
    assert (tmp_path / "data" / "labels" / labeller.method / f"{worlds.water().id}.json").is_file()
    assert not (tmp_path / "runinfo").exists()


SLURM = {
    "type": "slurm",
    "project_name": "my run",
    "parsl_options": {"nodes_per_block": 2, "init_blocks": 1, "min_blocks": 0, "max_blocks": 3, "label": "l 1",
                      "jobs_per_block": 2, "function_dir": "scripts"},
    "slurm_str": "#SBATCH -N 2\n#SBATCH --time=1-00\n",
    "worker_str": "module load x",
}  # fmt: skip


def test_every_key_of_a_slurm_cluster_reaches_its_blocks(tmp_path):
    told = aims_project(tmp_path, **SLURM, job_time_limit="01:00:00")
    reference = reference_of(told)
    executor = executor_of(told, reference)
    blocks = executor.blocks
    assert (executor.kind, executor.capacity, executor.outlives) == ("blocks", 6, True)
    assert (blocks.name, blocks.label, blocks.worker) == ("my_run", "l_1", "module load x")
    assert (blocks.nodes, blocks.init, blocks.least, blocks.most, blocks.jobs) == (2, 1, 0, 3, 2)
    assert (blocks.drain, blocks.mpi) == (86400 - 3600 - 120, False)
    assert blocks.scripts == tmp_path / "scripts"
    assert executor.run_dir == tmp_path / "logs" / "parsl"
    assert reference.shared


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"executor": "inline"}, "inline does not run on Slurm's nodes"),
        ({"executor": "mpi", "slurm_str": "#SBATCH --nodes=3"}, "nodes_per_block is 2; expected the same"),
        (
            {"executor": "mpi", "parsl_options": {**SLURM["parsl_options"], "jobs_per_block": 3}},
            r"CLUSTER\.parsl_options\.jobs_per_block: with executor: mpi .*, and 2 cannot be shared by 3",
        ),
    ],
)
def test_what_cannot_run_on_slurm_says_so(tmp_path, changes, said):
    told = aims_project(tmp_path, **{**SLURM, **changes})
    with pytest.raises(SettingsError, match=said):
        executor_of(told, reference_of(told))


def test_a_header_without_a_walltime_is_warned_of(tmp_path, caplog):
    told = aims_project(tmp_path, **{**SLURM, "slurm_str": "#SBATCH -N 2"})
    executor_of(told, reference_of(told))
    assert "CLUSTER.slurm_str sets no walltime" in caplog.text
    caplog.clear()
    told = aims_project(tmp_path, **SLURM)
    executor_of(told, reference_of(told))
    assert "sets no walltime" not in caplog.text


@pytest.mark.parametrize(
    ("header", "launch", "jobs", "warned"),
    [
        ("#SBATCH -N 2 --ntasks-per-node=8", "srun -n 8 aims.x", 2, False),
        ("#SBATCH -N 2 --ntasks-per-node=8", "srun -n 8 -c 2 aims.x", 2, True),
        ("#SBATCH -N 2 --ntasks=8", "mpirun -np 4 aims.x", 3, True),
        ("#SBATCH -N 2 --ntasks=2 --cpus-per-task=8", "srun -n 8 aims.x", 2, False),
        ("#SBATCH -N 2 --ntasks=2 --exclusive", "srun -n 8 aims.x", 2, False),
        ("#SBATCH -N 2", "srun -n 8 aims.x", 2, False),
        ("#SBATCH -N 2 --ntasks=2", "srun aims.x", 2, False),
    ],
)
def test_blocks_that_cannot_hold_their_calculations_are_warned_of(
    tmp_path, caplog, header, launch, jobs, warned
):
    options = {**SLURM["parsl_options"], "jobs_per_block": jobs}
    section = {**SLURM, "slurm_str": header, "launch_str": launch, "parsl_options": options}
    told = aims_project(tmp_path, **section)
    executor_of(told, reference_of(told))
    assert (f"jobs_per_block is {jobs}: unless a block gets whole nodes" in caplog.text) is warned


OTHERS = {
    "sge": "#$ -l h_rt=24:00:00 -pe smp 8\n#$ -o mine\n",
    "pbs": "#PBS -l walltime=24:00:00 -l select=1:ncpus=8\n#PBS -o mine\n",
    "lsf": "#BSUB -W 24:00\n#BSUB -n 8 -o mine\n",
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_mpi_executor_needs_a_scheduler_of_nodes(tmp_path, name):
    options = {**SLURM["parsl_options"], "nodes_per_block": 1, "jobs_per_block": 1}
    section = {
        **SLURM,
        "type": name,
        "executor": "mpi",
        "parsl_options": options,
        f"{name}_str": OTHERS[name],
    }
    del section["slurm_str"]
    told = aims_project(tmp_path, **section)
    with pytest.raises(
        SettingsError, match=r"CLUSTER\.executor: mpi needs .* gives slots; expected auto or htex"
    ):
        executor_of(told, reference_of(told))


@pytest.mark.parametrize("name", OTHERS)
def test_other_schedulers_give_blocks_too_and_say_when_they_have_not_run_yet(tmp_path, caplog, name):
    options = {**SLURM["parsl_options"], "nodes_per_block": 1}
    section = {
        **SLURM,
        "type": name,
        "parsl_options": options,
        f"{name}_str": OTHERS[name],
        "project_name": "2 runs",
    }
    del section["slurm_str"]
    told = aims_project(tmp_path, **section, job_time_limit="01:00:00")
    executor = executor_of(told, reference_of(told))
    blocks, scheduler = executor.blocks, known_schedulers()[name]
    assert (blocks.scheduler, blocks.drain) == (scheduler, 86400 - 3600 - 120)
    assert blocks.name == scheduler.job_name("2_runs")
    assert f"CLUSTER.{name}_str: -o: set by aims-PAX for its blocks, not used" in caplog.text
    assert ("has not run on a real cluster yet" in caplog.text) is (name != "sge")


def test_inside_a_slurm_job_the_allocation_decides_how_many_run(tmp_path):
    told = aims_project(tmp_path, type="local", launch_str="srun -n 4 aims.x >> aims.out")
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "16", "SLURM_NTASKS": "16"}
    reference = reference_of(told)
    executor = executor_of(told, reference, job)
    assert (executor.kind, executor.capacity) == ("threads", 4)


@pytest.mark.parametrize(
    ("launch", "capacity"),
    [("aims.x", 16), ("mpirun -np 4 aims.x", 4), ("nice -n 19 mpirun --np 4 aims.x", 4), ("mpirun aims.x", 1),
     ("mpirun -np 32 aims.x", 1)],
)  # fmt: skip
def test_calculations_on_one_machine_do_not_need_more_cores_than_it_has(
    tmp_path, monkeypatch, launch, capacity
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr("aims_pax.schedulers.usable_cores.cpu_quotas", lambda *_: [])
    told = aims_project(tmp_path, type="local", launch_str=f"{launch} > aims.out")
    assert executor_of(told, reference_of(told), {}).capacity == capacity


def test_control_files_are_paired_with_geometries(tmp_path, caplog):
    told = aims_project(tmp_path)
    (tmp_path / "periodic.in").write_text(worlds.CONTROL_PERIODIC)
    project = write_project(
        tmp_path,
        {
            "REFERENCE": {"factory": None, "type": "aims", "retries": [{"charge_mix_param": 0.02}]},
            "CLUSTER": {"launch_str": "aims.x", "calc_dir": "calc", "executor": "auto"},
            "INITIAL_DATASET_GENERATION": {"species_dir": "species"},
            "ACTIVE_LEARNING": {"species_dir": "species"},
            "MISC": {"path_to_control": {0: "periodic.in", "water.xyz": "control.in"}},
        },
        systems={"copper": worlds.crystal(), "water": worlds.water()},
    )
    told = read_settings(project)
    reference = reference_of(told)
    assert reference.for_system("copper").control.get("k_grid") == "2 2 2"
    assert reference.for_system("water").control.get("k_grid") is None
    assert reference.retries == ({"charge_mix_param": 0.02},)
    assert "copper ← periodic.in, water ← control.in" in caplog.text
