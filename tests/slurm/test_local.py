"""`type: local` inside one Slurm job: calculations are steps of it, side by side."""

import json
import sys

import yaml

from tests import worlds
from tests.batch.folders import write_aims_project
from tests.batch.runs import check_datasets
from tests.batch.sites import SLURM
from tests.projects import ROOT


def test_steps_run_side_by_side_in_the_job_of_the_driver(slurm, tmp_path):
    launch = worlds.launch("emt", seconds=1, count=tmp_path / "count")
    folder = write_aims_project(tmp_path / "run", SLURM, launch, systems={"water": worlds.water()})
    path = folder / "aimsPAX.yaml"
    project = yaml.safe_load(path.read_text())
    project["CLUSTER"] = {
        "type": "local",
        "launch_str": f"srun --ntasks=1 {launch} >> aims.out",
        "calc_dir": "calc",
    }
    path.write_text(yaml.safe_dump(project))
    code = "import sys; sys.argv[0] = 'aims-PAX'; from aims_pax.cli import main; main()"
    (tmp_path / "job.sh").write_text(
        f"#!/bin/bash\ncd {folder}\nexport PYTHONPATH={ROOT} OMP_NUM_THREADS=1\n"
        f"{sys.executable} -c {json.dumps(code)}\n"
    )
    told = slurm.run(
        "sbatch", "--parsable", "--nodes=1", "--ntasks=4", "--ntasks-per-node=4", "--mem=400",
        f"--output={tmp_path}/out", str(tmp_path / "job.sh"),
    )  # fmt: skip
    job = told.strip()
    slurm.until(lambda: slurm.state(job) in ("COMPLETED", "FAILED"), 600)
    out = (tmp_path / "out").read_text()
    assert slurm.state(job) == "COMPLETED", out
    assert "threads, 4 at once" in out
    assert check_datasets(folder) > 10
