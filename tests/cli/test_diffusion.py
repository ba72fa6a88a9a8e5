"""The options of `aims-PAX diffusion`."""

import pytest
from typer.testing import CliRunner

from aims_pax.cli import app

RUN = CliRunner()


def test_both_spellings_of_an_option_are_accepted_and_reach_the_settings(tmp_path, monkeypatch):
    from aims_pax.commands import diffusion

    seen = []
    monkeypatch.setattr(diffusion, "train_command", lambda *given: seen.append(given))
    words = (
        "diffusion train a.xyz -n CellPositions -n Types --max_time_minutes 2 --n-blocks 4 --confinement 1 3"
    )
    done = RUN.invoke(app, words.split())
    assert done.exit_code == 0, done.output
    data, settings, checkpoint, _ = seen[0]
    assert (str(data), checkpoint) == ("a.xyz", None)
    assert settings.noisers == ("CellPositions", "Types")
    assert (settings.max_time_minutes, settings.n_blocks, settings.confinement) == (2, 4, (1, 3))


def test_a_request_holds_what_was_asked(monkeypatch):
    from aims_pax.commands import diffusion

    seen = []
    monkeypatch.setattr(diffusion, "sample_command_of", lambda *given: seen.append(given))
    words = ["diffusion", "sample", "logs/version_0", "--formula", "Pd2O2", "-t", "slab.xyz", "-n", "4"]
    words += ["--property", "energy=-3.5", "--cell", "4 0 0 0 4 0 0 0 20", "--name", "made"]
    done = RUN.invoke(app, words)
    assert done.exit_code == 0, done.output
    folder, request, _ = seen[0]
    assert str(folder) == "logs/version_0"
    assert (request.n, request.formula, str(request.template)) == (4, "Pd2O2", "slab.xyz")
    assert request.properties == (("energy", -3.5),)
    assert list(request.cell) == [4, 0, 0, 0, 4, 0, 0, 0, 20]
    assert (str(request.output), request.overwrite) == ("made.xyz", False)
    RUN.invoke(app, [*words[:-1], "made.xyz", "--overwrite"])
    assert (str(seen[1][1].output), seen[1][1].overwrite) == ("made.xyz", True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--property", "energy"], "expected name=value"),
        (["--cell", "1 2 3"], "expected nine numbers"),
    ],
)
def test_mistakes_end_with_the_exit_code_of_settings(words, said):
    done = RUN.invoke(app, ["diffusion", "sample", "logs/version_0", *words])
    assert done.exit_code == 2
    assert said in done.output


def test_a_training_that_continues_has_its_folder_already():
    words = ["diffusion", "train", "a.xyz", "--checkpoint", "logs/version_0", "--log-dir", "others"]
    done = RUN.invoke(app, words)
    assert done.exit_code == 2
    assert "log_dir: has no effect with checkpoint" in done.output
