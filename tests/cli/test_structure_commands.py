"""Commands that need no run: each works in any folder and refuses in one line."""

from tests.projects import command


def test_augment_runs_its_own_story(tmp_path):
    done = command("augment", "none.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert "none.yaml: no such file" in done.stderr


def test_select_copies_structures_and_refuses_in_one_line(tmp_path):
    water = "3\nnote=mine\nO 0 0 0\nH 0.96 0 {}\nH -0.24 0.93 0\n"
    (tmp_path / "pool.xyz").write_text("".join(water.format(z / 10) for z in range(6)))
    done = command("select", "pool.xyz", "-n", "3", "--random-share", "0", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "selected.xyz").read_text().count("note=mine") == 3
    again = command("select", "pool.xyz", "-n", "3", folder=tmp_path)
    assert again.returncode == 2
    assert "selected.xyz exists already and is not replaced" in again.stderr
    assert command("select", "pool.xyz", folder=tmp_path).returncode == 2, "-n is required"
