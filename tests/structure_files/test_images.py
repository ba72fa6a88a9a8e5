"""One of several structures of a file is chosen by its index."""

from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

from aims_pax.errors import SettingsError
from aims_pax.structure_files.images import choose_images, numbered, split_index, unreadable_image
from aims_pax.systems import read_frame, read_systems
from tests.structure_files.files import at, atom, mol, pdb, refused


@pytest.fixture
def trajectory(tmp_path):
    for name in ("t.xyz", "t.traj"):
        write(tmp_path / name, [molecule(m) for m in ("H2O", "CH4", "NH3")])
    return tmp_path


@pytest.mark.parametrize("name", ["t.xyz", "t.traj"])
def test_one_of_several_structures_is_chosen_by_its_index(trajectory, name):
    assert f"{name}@0" in refused(trajectory / name)
    assert read_frame(trajectory / f"{name}@1").formula == "CH4"
    (last,) = read_systems(trajectory / f"{name}@-1")
    assert (last.name, last.frame.formula) == ("t", "H3N")
    every = read_systems(trajectory / f"{name}@:")
    assert [(s.name, s.frame.formula) for s in every] == [("t_0", "H2O"), ("t_1", "CH4"), ("t_2", "H3N")]
    assert [s.name for s in read_systems(trajectory / f"{name}@1:")] == ["t_1", "t_2"]
    assert "no such structure; the file holds 3" in refused(trajectory / f"{name}@3")


def test_several_models_and_records_are_several_structures(tmp_path):
    model = pdb(atom("N")).replace("END\n", "")
    path = at(tmp_path, "a.pdb", f"MODEL        1\n{model}ENDMDL\nMODEL        2\n{model}ENDMDL\nEND\n")
    assert "holds 2 structures" in refused(path)
    assert len(read_systems(tmp_path / "a.pdb@:")) == 2
    assert "holds 2 structures" in refused(at(tmp_path, "a.sdf", (mol() + "$$$$\n") * 2))


@pytest.mark.parametrize(
    ("name", "file", "index"),
    [
        ("a.xyz@0", "a.xyz", "0"),
        ("a.xyz@-1", "a.xyz", "-1"),
        ("a.xyz@:", "a.xyz", ":"),
        ("a.xyz@1:-1:2", "a.xyz", "1:-1:2"),
        ("a@b.xyz", "a@b.xyz", None),
        ("a@2.xyz@3", "a@2.xyz", "3"),
        ("a.xyz@x", "a.xyz@x", None),
        ("@3", "@3", None),
    ],
)
def test_an_index_is_what_follows_the_last_at_sign_if_it_is_one(name, file, index):
    assert split_index(Path("run", name)) == (Path("run", file), index)


def test_a_file_whose_own_name_looks_like_an_index_is_that_file(tmp_path):
    (tmp_path / "a.xyz@0").write_text("")
    assert split_index(tmp_path / "a.xyz@0") == (tmp_path / "a.xyz@0", None)


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        ("0", [0]),
        ("-1", [4]),
        ("-5", [0]),
        (":", [0, 1, 2, 3, 4]),
        ("1:3", [1, 2]),
        ("-2:", [3, 4]),
        ("::2", [0, 2, 4]),
    ],
)
def test_an_index_means_what_it_means_in_python(index, numbers):
    assert choose_images("abcde", index, Path("t.xyz")) == [(k, "abcde"[k]) for k in numbers]


@pytest.mark.parametrize(
    ("parts", "index", "said"),
    [
        ("", None, "no structures in the file"),
        (
            "ab",
            None,
            r"holds 2 structures, expected one: choose one with t\.xyz@0 .* or take all with t\.xyz@:$",
        ),
        ("abcde", "5", "@5: no such structure; the file holds 5, counted from 0"),
        ("abcde", "-6", "@-6: no such structure"),
        ("abcde", "3:3", "@3:3: no such structure"),
    ],
)
def test_an_index_that_chooses_nothing_is_refused(parts, index, said):
    with pytest.raises(SettingsError, match=said):
        choose_images(parts, index, Path("t.xyz"))


def test_an_error_names_the_structure_if_there_are_several():
    with pytest.raises(ValueError, match="bad"), numbered(3, several=False):
        raise ValueError("bad")
    with pytest.raises(SettingsError) as refused, numbered(3, several=True):
        raise ValueError("bad\n  line")
    assert str(refused.value) == "structure 3 (from 0): ValueError: bad line"


def test_an_unknown_symbol_is_named_and_isotopes_have_a_hint():
    assert unreadable_image(KeyError("Xx")) == "unreadable: 'Xx' is not an element"
    assert unreadable_image(KeyError("D")).endswith(
        "write isotopes as H, with a column masses, in an extended XYZ file"
    )
    assert unreadable_image(SettingsError("no volume")) == "no volume"
