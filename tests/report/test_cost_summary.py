"""A run in a few numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.cost_summary import errors, key_numbers, ledger, slots_of_run, summary, wall_seconds
from aims_pax.report.load_run import load_run
from aims_pax.report.run_record import Span
from tests.report.folders import advanced, made_up


def test_what_was_no_work_is_no_part_of_it(tmp_path):
    begun = {"time": 60, "stage": "run", "kind": "begun", "content": {}}
    run = load_run(made_up(tmp_path, [advanced(0, 0, 0, 10, 0.1), advanced(10, 0, 10, 20, 0.1), begun]))
    words = [what for what, _ in ledger(run)]
    assert "… dynamics" in words
    assert words[-1] == "besides: stopped in between"


def test_the_epoch_that_is_marked_is_the_one_whose_weights_were_kept(folder):
    """A smaller improvement than the margin keeps the earlier weights, whatever the losses say."""
    from aims_pax.report import cost_summary
    from aims_pax.report.load_run import load_run

    run = load_run(folder)
    (c,) = run.convergence
    (kept,) = [e for epochs in run.losses.values() for e in cost_summary.best_epochs(run, epochs)]
    assert kept.force_mae == pytest.approx(c.best_mae)


TWO_NODES = {"parsl_options.nodes_per_block": "2"}


@pytest.mark.parametrize(
    ("settings", "slots"),
    [
        ({"launch_str": "srun -n 8 aims.x"}, 8),
        ({"launch_str": "mpirun -np 4 /path/with-n5/aims.x"}, 4),
        ({"launch_str": "srun --ntasks=16 aims.x", "slurm_str": "#SBATCH --ntasks=2"}, 16),
        ({"launch_str": "srun aims.x", "slurm_str": "#SBATCH --ntasks-per-node=32"}, 32),
        ({"launch_str": "srun aims.x", "slurm_str": "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=32"}, 64),
        ({"launch_str": "srun aims.x", "slurm_str": "#SBATCH --nodes=2\n#SBATCH --ntasks=32"}, 32),
        ({**TWO_NODES, "launch_str": "srun aims.x", "slurm_str": "#SBATCH --ntasks-per-node=32"}, 64),
        ({"launch_str": "srun --nodes=3 --ntasks-per-node=32 aims.x"}, 96),
        ({"launch_str": "mpirun --np 4 aims.x"}, 4),
        ({"launch_str": "mpirun aims.x", "type": "pbs", "pbs_str": "#PBS -l select=2:mpiprocs=36"}, 72),
        ({"launch_str": "mpirun aims.x", "type": "sge", "sge_str": "#$ -pe mpi 24"}, 24),
        # no header of this version
        (
            {"launch_str": "srun aims.x", "slurm_str": "#SBATCH --array=1-4"},
            None,
        ),
        ({"launch_str": "aims.x", "type": "local"}, None),
        ({}, None),
    ],
)
def test_the_processes_of_a_calculation_are_those_of_its_launch_command_or_its_job(run, settings, slots):
    written = {f"aimsPAX.CLUSTER.{k}": v for k, v in {"type": "slurm", **settings}.items()}
    assert slots_of_run(replace(run, settings=written)) == slots


def test_core_hours_are_the_time_of_the_reference_times_its_processes(run):
    settings = {**run.settings, "aimsPAX.CLUSTER.launch_str": "srun -n 10 aims.x"}
    rows = dict(ledger(replace(run, settings=settings, reference_seconds=1800.0)))
    assert rows["core hours of the reference (10 processes each, from CLUSTER)"] == "5.00"
    assert not any("core hours" in words for words, _ in ledger(run)), "nothing says how many"


def test_pauses_and_stops_are_no_working_time(run):
    spans = (Span("moving", 0, 10), Span("paused", 10, 60), Span("stopped", 60, 90), Span("training", 90, 95))
    assert wall_seconds(replace(run, spans=spans)) == 15


def test_errors_are_those_of_test_frames_then_of_the_best_epoch_then_of_the_last(run):
    p = run.predictions
    unseen = np.repeat(p["split"] == "test", p["n_atoms"])
    force, energy, on = errors(run)
    assert force == pytest.approx(np.abs(p["forces"] - p["true_forces"])[unseen].mean())
    test = p["split"] == "test"
    assert energy == pytest.approx((np.abs(p["energy"] - p["true_energy"]) / p["n_atoms"])[test].mean())
    assert on == "3 test frames"
    force, _, on = errors(replace(run, predictions={}))
    assert force == pytest.approx(run.convergence[0].best_mae)
    assert on == "validation frames"
    force, _, on = errors(replace(run, predictions={}, convergence=()))
    last = [epochs[-1].force_mae for epochs in run.losses.values()]
    assert force == pytest.approx(sum(last) / len(last))
    assert on == "validation frames, mean of the models"
    force, energy, on = errors(replace(run, predictions={}, convergence=(), losses={}))
    assert math.isnan(force)
    assert math.isnan(energy)
    assert on == ""


def test_what_is_not_known_is_none_in_the_summary_and_no_tile(tmp_path):
    run = load_run(made_up(tmp_path, [advanced(0, 0, 0, 10, 0.1), advanced(10, 0, 10, 20, 0.1)]))
    found = summary(run)
    assert (found["force_mae_eV_A"], found["energy_mae_eV_atom"], found["errors_on"]) == (None, None, "")
    assert found["device_s"] == {"moving": 10.0}
    tiles = [(value, unit) for value, unit, _ in key_numbers(run)]
    assert tiles[0] == ("0", "labels")
    assert ("10", "s") in tiles
    assert not any(unit.startswith("meV") for _, unit in tiles)
