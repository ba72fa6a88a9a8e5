"""Restart format 1 is frozen: a stored sample of it must still load, whatever becomes of the code.

The sample was made by `python -m tests.record.test_format` from a tiny interrupted run.
"""

import shutil
import sys
from pathlib import Path

import pytest

from aims_pax.core import active_learning, convergence, initial_dataset
from aims_pax.core.rules import ConvergenceRules
from aims_pax.engine.stage_environment import group_arrays
from aims_pax.frames import Frame
from aims_pax.md.state import MDState
from aims_pax.record.arrays import unpack_arrays
from aims_pax.record.checkpoint import from_plain
from tests.projects import command, write_project

SAMPLE = Path(__file__).with_name("format1")


def stored(stage):
    (state,) = SAMPLE.glob(f"restart/{stage}/state-*.npy")
    (weights,) = SAMPLE.glob(f"restart/{stage}/weights-*.npy")
    return (*unpack_arrays(state.read_bytes()), unpack_arrays(weights.read_bytes())[0])


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("initial", initial_dataset.State), ("explore", active_learning.State), ("converge", convergence.State)],
)
def test_every_stage_s_state_still_loads(stage, kind):
    _, meta, weights = stored(stage)
    state = from_plain(kind, meta["state"])
    assert isinstance(state, kind)
    assert "names" in weights
    if kind is convergence.State:
        assert convergence.outstanding(state, ConvergenceRules((0,), 5, 0.0, 100)) == ()


def test_trajectories_and_frames_under_way_still_load():
    arrays, meta, _ = stored("explore")
    grouped = group_arrays(arrays)
    for stored_md in grouped["md"].values():
        assert MDState.from_arrays(stored_md).step > 0
    for frame_id, stored_frame in grouped.get("frame", {}).items():
        assert Frame.from_arrays(stored_frame).id == frame_id
    assert meta["remarks"]["entries"] > 0


def test_a_folder_of_format_1_is_continued_by_this_version(tmp_path):
    """The whole of it: the finished run of the sample is extended by raising a limit."""
    folder = write_project(tmp_path, {"ACTIVE_LEARNING": {"max_MD_steps": 20, "max_convergence_epochs": 2}})
    shutil.copytree(SAMPLE, folder, dirs_exist_ok=True)
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    assert "complete (max_MD_steps" in done.stdout
    assert list((folder / "results").glob("*.model"))


def make_sample(folder: Path) -> None:
    """A finished tiny run, stripped to what a restart reads."""
    write_project(folder, {"ACTIVE_LEARNING": {"max_MD_steps": 20, "max_convergence_epochs": 2}})
    assert command(folder=folder).returncode == 0
    shutil.rmtree(SAMPLE, ignore_errors=True)
    for stage in ("initial", "explore", "converge"):
        state = max((folder / "restart" / stage).glob("state-*.npy"))
        version = unpack_arrays(state.read_bytes())[1]["version"]
        (SAMPLE / "restart" / stage).mkdir(parents=True)
        shutil.copy(state, SAMPLE / "restart" / stage)
        shutil.copy(state.parent / f"weights-{version:06d}.npy", SAMPLE / "restart" / stage)
    for name in ("restart/settings.json", "data/labelled.xyz", "data/splits.jsonl"):
        (SAMPLE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, SAMPLE / name)


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]))
