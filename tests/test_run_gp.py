"""`MODEL: gp`: whole runs with a Gaussian process as the model, to the delivered model."""

import pytest

from aims_pax.models.gp.process_file import load_process
from tests.projects import command, write_project

pytest.importorskip("featomic")


def project(folder, **changes):
    own = {"ensemble_size": 1}
    both = {
        "MODEL": "gp",
        "INITIAL_DATASET_GENERATION": own,
        "ACTIVE_LEARNING": {**own, "max_MD_steps": 40, "n_test": 2},
        **changes,
    }
    return write_project(folder, both, {"ARCHITECTURE": None, "TRAINING": None})


def test_one_process_learns_explores_and_is_delivered(tmp_path):
    done = command(folder=project(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    (model,) = (tmp_path / "results").glob("*.gp")
    assert f"done: {model.name}" in done.stdout.replace("\n", " ")
    process = load_process(model)
    assert process.frames >= 5
    assert process.errors.force_mae > 0
    assert "spread" in done.stdout
