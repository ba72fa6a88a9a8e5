"""Keys of `aims-PAX diffusion train`, from a file and from the command line."""

import pytest

from aims_pax.errors import SettingsError
from aims_pax.settings.diffusion import DiffusionSettings, read_diffusion


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
        ("conditioning: q\nn_classes: 3\n", {}, "only with conditioning_type integer"),
    ],
)
def test_mistakes_are_named_where_they_are(tmp_path, text, options, said):
    path = tmp_path / "train.yaml"
    path.write_text(text + "log_dir: logs\n")
    with pytest.raises(SettingsError, match=said):
        read_diffusion(path, options)


def test_mask_none_can_be_written_in_a_file_although_yaml_reads_it_as_nothing(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("mask: none\n")
    assert read_diffusion(path, {}).mask == "none"
    assert read_diffusion(None, {"mask": "none"}).mask == "none"


def test_a_training_that_continues_has_the_settings_that_it_began_with_unless_others_are_asked_for(tmp_path):
    begun = read_diffusion(None, {"conditioning": "energy", "epochs": 50, "seed": 3})
    again = read_diffusion(None, {"epochs": 80}, begun)
    assert (again.conditioning, again.epochs, again.seed) == ("energy", 80, 3)
    assert again.seconds == 0, "no limit of time was written"
    path = tmp_path / "train.yaml"
    path.write_text("seed: 4\n")
    assert read_diffusion(path, {}, begun).seed == 4


def test_an_empty_file_and_the_place_of_stored_settings_are_said(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("\n")
    with pytest.raises(SettingsError, match=r"train\.yaml: the file is empty; expected keys such as"):
        read_diffusion(path, {})
    with pytest.raises(SettingsError, match=r"hparams\.yaml: settings\.lr: expected a number"):
        read_diffusion(None, {"lr": "fast"}, place="hparams.yaml: settings.")


def test_a_limit_that_equals_the_default_is_not_forgotten():
    begun = DiffusionSettings.model_validate(DiffusionSettings(epochs=500, max_time_minutes=5).plain())
    assert begun.seconds == 300
    assert read_diffusion(None, {}, begun).seconds == 300
    assert read_diffusion(None, {"epochs": 900}, begun).seconds == 0, "only epochs: no limit of time"
    timed = read_diffusion(None, {"epochs": 900, "max_time": 1}, begun)
    assert (timed.epochs, timed.seconds) == (900, 3900), "hours are added to the minutes"


@pytest.mark.parametrize(("epochs", "fits"), [(50, False), (51, True), (-1, True)])
def test_a_size_of_repeat_that_is_never_reached_is_refused(epochs, fits):
    asked = {"repeat": 2, "repeat_epoch": 50, "epochs": epochs}
    if fits:
        assert read_diffusion(None, asked).repeat == 2
        return
    with pytest.raises(SettingsError, match="repeat: 2 × 2 × 1 would begin in epoch 51, but epochs is 50"):
        read_diffusion(None, asked)


def test_walls_are_finite():
    with pytest.raises(SettingsError, match="expected finite heights"):
        read_diffusion(None, {"confinement": [1, float("inf")]})
