from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Makes commands that print what was recorded, and nothing else on PATH; gives a log of how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("SGE_ROOT", "SLURM_CONF"):
        monkeypatch.delenv(name, raising=False)

    def make(**texts: Any) -> Path:
        for name, answer in texts.items():
            out, err, code = (answer, "", 0) if isinstance(answer, str) else answer
            script = folder / name
            (folder / f"{name}.out").write_text(out)
            (folder / f"{name}.err").write_text(err)
            script.write_text(
                f'#!/bin/sh\n{{ echo {name} "$@"; [ {name} = bsub ] && /bin/cat; }} >>{tmp_path}/called\n'
                f"/bin/cat {script}.out; /bin/cat {script}.err >&2; exit {code}\n"
            )
            script.chmod(0o755)
        return tmp_path / "called"

    return make
