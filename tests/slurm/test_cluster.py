"""The cluster of the tests is a real one: it runs jobs, loses nodes and gets them back; Slurm keeps its contract."""

import subprocess

from aims_pax.schedulers.registry import known_schedulers
from tests.batch.contract import check_contract


def test_slurm_keeps_the_contract_of_schedulers(slurm, tmp_path):
    def header(seconds: int) -> str:
        return f"#SBATCH --time={seconds // 60}:{seconds % 60:02d} --ntasks=1 --mem=100\n"

    folder = tmp_path / "runs: a, $b and 100%"
    folder.mkdir()
    check_contract(known_schedulers()["slurm"], folder, header, header(300) + "#SBATCH --partition=nowhere\n")


def test_jobs_run_and_a_killed_node_fails_its_jobs_and_comes_back(slurm):
    told = slurm.run("sbatch", "--parsable", "--no-requeue", "--output=/dev/null", "--wrap", "srun sleep 300")
    job = told.strip()
    slurm.until(lambda: slurm.state(job) == "RUNNING", 120)
    node = slurm.node_of(job)
    slurm.kill_node(node)
    slurm.until(lambda: slurm.state(job) == "NODE_FAIL", 300)
    slurm.start_node(node)
    slurm.until(lambda: slurm.states()[node] == "idle", 120)
    assert subprocess.run(["srun", "--nodelist", node, "hostname"], capture_output=True).returncode == 0


def test_the_controller_can_be_restarted(slurm):
    slurm.stop_controller()
    slurm.start_controller()
    slurm.until(lambda: set(slurm.states().values()) == {"idle"}, 120)
