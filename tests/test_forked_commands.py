"""Commands in forks of one process: beside each other, each with its own output and exit code, or killed in time."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.projects import command


def test_commands_of_several_threads_get_their_own_answers(tmp_path):
    with ThreadPoolExecutor(6) as pool:
        words = ["--version", "--no-such-option"] * 6
        ends = [end.result() for end in [pool.submit(command, word, folder=tmp_path) for word in words]]
    assert [end.returncode for end in ends] == [0, 2] * 6
    assert all(end.stdout.startswith("aims-PAX ") for end in ends[::2])
    assert all("--no-such-option" in end.stderr for end in ends[1::2])


def test_a_command_that_takes_too_long_is_killed(tmp_path):
    os.mkfifo(tmp_path / "aimsPAX.yaml")  # nobody writes to it: reading the settings never ends
    with pytest.raises(subprocess.TimeoutExpired):
        command("check", folder=tmp_path, timeout=1.0)
