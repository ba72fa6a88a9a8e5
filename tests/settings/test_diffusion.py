"""Keys of `aims-PAX diffusion train`, from a file and from the command line."""

import pytest

from aims_pax.errors import SettingsError
from aims_pax.settings.diffusion import read_diffusion


def test_options_of_the_command_line_come_before_keys_of_the_file(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("noisers: [CellPositions, Types]\nmax_time_minutes: 10\nseed: 3\nconfinement: [2, 10]\n")
    found = read_diffusion(path, {"seed": 7, "lr": None, "max_time": 1.0})
    assert found.noisers == ("CellPositions", "Types")
    assert (found.seed, found.lr, found.seconds) == (7, 2e-3, 600 + 3600)
    assert found.confinement == (2.0, 10.0)


def test_a_number_of_epochs_alone_has_no_limit_of_time():
    assert read_diffusion(None, {}).seconds == 300
    assert read_diffusion(None, {"epochs": 50}).seconds == 0
    assert read_diffusion(None, {"epochs": 50, "max_time_minutes": 2}).seconds == 120


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("cutof: 5\n", {}, r"train\.yaml.*cutof: unknown key; nearest: cutoff"),
        ("cutoff: -1\n", {}, r"train\.yaml.*cutoff: .*more than 0"),
        ("", {"sde": "vee"}, "--sde: expected ve | vp"),
        ("", {"confinement": (5.0, 2.0)}, "the lower height first"),
        ("repeat: 2\n", {}, "repeat needs repeat_epoch"),
        ("repeat_epoch: 2\n", {}, "repeat_epoch needs repeat"),
        ("max_time_minutes: 0\n", {}, "training would never end"),
        ("epochs: 0\n", {}, "expected at least 1"),
        ("conditioning_type: integer\n", {}, "need conditioning"),
    ],
)
def test_mistakes_are_named_where_they_are(tmp_path, text, options, said):
    path = tmp_path / "train.yaml"
    path.write_text(text + "log_dir: logs\n")
    with pytest.raises(SettingsError, match=said):
        read_diffusion(path, options)
