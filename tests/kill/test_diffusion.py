"""Trainings of a diffusion model that are killed again and again end with the weights of an undisturbed one."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from aims_pax.models.diffusion import training_run
from aims_pax.models.diffusion.model_files import read_checkpoint
from tests.kill.harness import Faults
from tests.models.diffusion.structures import settings, trimers

pytestmark = pytest.mark.kill
FRAMES = [(f, {}) for f in trimers(100)]
SOURCE = {"file": "a.xyz", "digest": "0"}
ASKED = settings(epochs=60, log_interval=2)
KILLS = 20


def train(folder: Path, at_write: int | None = None, after: float | None = None) -> bool:
    """Fork a training in this folder; whether it ended by itself.

    at_write: it dies inside this file operation. after: it is killed so many seconds after its first checkpoint.
    """
    before = stamp(folder)
    child = os.fork()
    if child == 0:
        faults, code = Faults(at_write, folder.with_suffix(".trace")), 1
        try:
            training_run.SAVE_EVERY = 0.0
            faults.install()
            training_run.train_in_folder(FRAMES, ASKED, SOURCE, folder)
            faults.at = None
            folder.with_suffix(".operations").write_text(str(faults.count))
            code = 0
        finally:
            os._exit(code)
    if after is not None:
        while stamp(folder) == before and not os.waitid(
            os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.002)
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
    return not os.WIFSIGNALED(status)


def stamp(folder: Path) -> int:
    path = folder / "checkpoints" / "last_model.ckpt"
    return path.stat().st_mtime_ns if path.exists() else 0


def test_killed_at_twenty_instants_the_weights_are_those_of_an_undisturbed_training(tmp_path):
    training_run.train_in_folder(FRAMES, settings(epochs=1), SOURCE, tmp_path / "first")  # imports
    assert train(tmp_path / "undisturbed")
    operations = int((tmp_path / "undisturbed.operations").read_text())
    dice, kills, epochs, folder = random.Random(7), 0, [], tmp_path / "killed"
    while kills < KILLS:  # few operations and little time, so that all kills fall before the end
        at_write = dice.randint(1, operations // KILLS) if kills % 2 else None
        if train(folder, at_write, None if at_write else dice.uniform(0, 0.1)):
            break
        kills += 1
        checkpoint = folder / "checkpoints" / "last_model.ckpt"
        if checkpoint.exists():  # whole after every kill
            epochs.append(read_checkpoint(checkpoint)["counts"][0])
    assert kills == KILLS
    assert epochs == sorted(epochs), "what was trained is kept"
    assert len(set(epochs)) >= 5
    assert train(folder)
    whole, again = (
        read_checkpoint(f / "checkpoints" / "last_model.ckpt") for f in (tmp_path / "undisturbed", folder)
    )
    for part in ("weights", "average"):
        assert all(torch.equal(whole[part][k], again[part][k]) for k in whole[part])
    assert whole["counts"] == again["counts"]
    losses = [(f / "losses.csv").read_text() for f in (tmp_path / "undisturbed", folder)]
    assert losses[0] == losses[1]
