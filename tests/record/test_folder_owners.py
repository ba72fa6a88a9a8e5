"""Each folder that a run writes is one run's, wherever its project is moved to."""

import shutil
from types import SimpleNamespace

import pytest

from aims_pax.errors import SettingsError
from aims_pax.record import folder_owners


def run(root, **folders):
    paths = {name: root / name for name in ("data", "model", "losses", "checkpoints")} | folders
    root.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(root=root, restart=root / "restart", **paths)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("data", "MISC.dataset_dir"),
        ("model", "GENERAL.model_dir"),
        ("losses", "GENERAL.loss_dir"),
        ("checkpoints", "GENERAL.checkpoints_dir"),
    ],
)
def test_a_folder_of_another_run_is_refused_with_its_key(tmp_path, name, key):
    shared = tmp_path / "shared"
    folder_owners.claim(run(tmp_path / "a", **{name: shared}), "tiny")
    other = run(tmp_path / "b", **{name: shared})
    for refuse in (folder_owners.claim, folder_owners.check_owner):
        with pytest.raises(SettingsError, match=f"{key}: .*shared belongs to the run in .*/a, and two runs"):
            refuse(other, "tiny")
    folder_owners.claim(run(tmp_path / "a", **{name: shared}), "tiny")


def test_models_of_other_names_may_lie_in_one_folder(tmp_path):
    shared = tmp_path / "models"
    folder_owners.claim(run(tmp_path / "a", model=shared), "one")
    folder_owners.claim(run(tmp_path / "b", model=shared), "two")
    with pytest.raises(SettingsError, match="or another name_exp"):
        folder_owners.claim(run(tmp_path / "c", model=shared), "two")


def test_a_project_that_was_moved_or_begins_anew_keeps_its_folders(tmp_path):
    shared = tmp_path / "data"
    first = run(tmp_path / "a", data=shared)
    folder_owners.claim(first, "x")
    shutil.rmtree(first.restart)
    folder_owners.claim(first, "x")  # its restart was removed
    (tmp_path / "a").rename(tmp_path / "b")
    moved = run(tmp_path / "b", data=shared)
    folder_owners.check_owner(moved, "x")
    folder_owners.claim(moved, "x")
    with pytest.raises(SettingsError, match=r"belongs to the run in .*/b"):
        folder_owners.claim(run(tmp_path / "a", data=shared), "x")


def test_a_copy_of_a_project_has_folders_of_its_own(tmp_path):
    folder_owners.claim(run(tmp_path / "a"), "x")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    folder_owners.claim(run(tmp_path / "b"), "x")
    folder_owners.claim(run(tmp_path / "a"), "x")


def test_a_copy_that_shares_its_data_with_the_original_is_refused(tmp_path):
    shared = tmp_path / "data"
    folder_owners.claim(run(tmp_path / "a", data=shared), "x")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(SettingsError, match=r"belongs to the run in .*/a"):
        folder_owners.claim(run(tmp_path / "b", data=shared), "x")


def test_a_link_to_the_folder_is_the_folder(tmp_path):
    folder_owners.claim(run(tmp_path / "a", data=tmp_path / "data"), "x")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(SettingsError, match=r"belongs to the run in .*/a"):
        folder_owners.claim(run(tmp_path / "b", data=tmp_path / "link"), "x")


def test_checking_writes_nothing(tmp_path):
    folder_owners.check_owner(run(tmp_path / "a"), "x")
    assert not list((tmp_path / "a").iterdir())


def test_of_many_that_come_at_once_one_has_the_folder(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def attempt(k):
        try:
            folder_owners.claim(run(tmp_path / str(k), data=tmp_path / "data"), "x")
        except SettingsError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1
