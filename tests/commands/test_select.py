"""Selection from pools: the chosen structures are those of the rule, byte for byte, with their origin."""

import csv
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from rich.console import Console

from aims_pax.commands import select as module
from aims_pax.commands.select import RULES, SelectOptions, check_options, select
from aims_pax.commands.structure_pool import structure_bytes
from aims_pax.core.selection import element_moments, farthest_first
from aims_pax.core.uncertainty import atomic_spread
from aims_pax.dataset import read_extxyz, to_extxyz
from aims_pax.errors import SettingsError
from aims_pax.labelled_data import LabelKeys
from aims_pax.models.calculator import calculator
from aims_pax.samplers.descriptors import histograms
from tests.models.mace import tiny


def chosen(pools, folder, **options):
    console = Console(record=True, width=200)
    options = {"output": folder / "out.xyz", "share": 0.0, **options}
    found = select(pools, SelectOptions(**options), console)
    return found, console.export_text()


def table(folder, name="out.xyz.csv"):
    return list(csv.DictReader((folder / name).read_text().splitlines()))


@pytest.fixture
def pool(tmp_path):
    """Twelve ethanols and four waters, with a property that no reader of this package knows."""
    path = tmp_path / "pool.xyz"
    text = to_extxyz([*tiny.ethanol(12, noise=0.03), *tiny.water(4, noise=0.03)])
    path.write_text(text.replace("REF_energy=", 'hand_written="1.0e+00  x" REF_energy='))
    return path


@pytest.fixture
def models(trained):
    return tuple(sorted((trained / "results").glob("*.model")))


def test_chosen_structures_are_copied_byte_for_byte_with_their_origin(pool, tmp_path):
    found, said = chosen([pool], tmp_path, n=5)
    blocks = list(structure_bytes(pool))
    assert (tmp_path / "out.xyz").read_bytes() == b"".join(blocks[k] for k in found)
    rows = table(tmp_path)
    assert [int(r["index"]) for r in rows] == found
    assert {r["file"] for r in rows} == {str(pool)}
    assert [r["formula"] for r in rows] == [
        a.get_chemical_formula() for a in ase.io.read(tmp_path / "out.xyz", ":")
    ]
    assert "5 structures by diverse" in said


def test_diverse_is_farthest_first_in_the_radial_descriptor(pool, tmp_path):
    found, said = chosen([pool], tmp_path, n=6)
    points = []
    for labelled in read_extxyz(pool):
        g, z = histograms(labelled.frame), labelled.frame.numbers
        full = np.zeros((len(z), 3, 16))
        full[:, np.searchsorted([1, 6, 8], np.unique(z))] = g.reshape(len(z), -1, 16)
        points.append(element_moments(full.reshape(len(z), -1), z, [1, 6, 8]))
    assert found == farthest_first(np.array(points), 6)
    assert "radial descriptor" in said
    assert {r["formula"] for r in table(tmp_path)} == {"C2H6O", "H2O"}, "both molecules are found at once"


def test_with_models_the_features_are_theirs_and_the_spread_counts(pool, tmp_path, models):
    found, said = chosen([pool], tmp_path, n=3, by="spread", models=models)
    potential = calculator(models).potential
    spreads = []
    for labelled in read_extxyz(pool):
        forces = potential.evaluate([labelled.frame]).forces.numpy()
        spreads.append(atomic_spread(forces).max())
    assert found == list(np.argsort(spreads)[::-1][:3])
    assert [float(r["spread_eV_per_A"]) for r in table(tmp_path)] == pytest.approx(
        sorted(spreads)[::-1][:3], rel=1e-3
    )
    assert "those of the model" in said


def test_the_folder_of_a_run_is_a_committee(pool, tmp_path, models, trained):
    files, _ = chosen([pool], tmp_path, n=4, by="spread-diverse", models=models)
    run, _ = chosen([pool], tmp_path, n=4, by="spread-diverse", models=(trained,), output=tmp_path / "b.xyz")
    assert files == run


def test_by_error_those_are_chosen_where_the_model_is_most_wrong(pool, tmp_path, models):
    found, _ = chosen([pool], tmp_path, n=2, by="error", models=models[:1])
    potential = calculator(models[0]).potential
    errors = [
        np.linalg.norm(potential.labels([x.frame])[0].forces - x.label.forces, axis=1).max()
        for x in read_extxyz(pool)
    ]
    assert found == list(np.argsort(errors)[::-1][:2])


@pytest.mark.parametrize("by", ["diverse", "maxdet", "random"])
def test_what_is_there_already_is_not_chosen_again(pool, tmp_path, by):
    first, _ = chosen([pool], tmp_path, n=6, by=by)
    already = tmp_path / "out.xyz"
    more, said = chosen([pool], tmp_path, n=10, by=by, already=(already,), output=tmp_path / "more.xyz")
    assert sorted(first + more) == list(range(16))
    assert "6 structures of the pool are in --already and are left out" in said
    with pytest.raises(SettingsError, match="-n 11: there are 10 structures to choose from"):
        chosen([pool], tmp_path, n=11, by=by, already=(already,), output=tmp_path / "again.xyz")


def test_a_farthest_first_selection_continues_where_the_first_one_ended(pool, tmp_path):
    whole, _ = chosen([pool], tmp_path, n=8)
    chosen([pool], tmp_path, n=5, output=tmp_path / "five.xyz")
    rest, _ = chosen([pool], tmp_path, n=3, already=(tmp_path / "five.xyz",), output=tmp_path / "three.xyz")
    assert rest == whole[5:]


def test_a_part_may_be_random_and_the_seed_decides_which(pool, tmp_path):
    a, b, c = (
        chosen([pool], tmp_path, n=8, share=0.5, seed=seed, output=tmp_path / f"{k}.xyz")[0]
        for k, seed in enumerate((1, 1, 2))
    )
    assert a == b
    assert set(a[:4]) != set(c[:4])
    assert [r["chosen_by"] for r in table(tmp_path, "0.xyz.csv")] == ["random"] * 4 + ["diverse"] * 4


def test_without_a_share_a_third_is_random_unless_something_is_there(pool, tmp_path, models):
    def n_random(name, **options):
        chosen([pool], tmp_path, n=6, share=None, output=tmp_path / name, **options)
        return [r["chosen_by"] for r in table(tmp_path, f"{name}.csv")].count("random")

    assert n_random("a.xyz") == n_random("b.xyz", by="maxdet") == 2
    assert n_random("c.xyz", already=(tmp_path / "a.xyz",)) == 0
    assert n_random("d.xyz", by="spread-diverse", models=models) == 0


def test_structures_may_be_kept_apart(pool, tmp_path):
    whole, _ = chosen([pool], tmp_path, n=16)
    apart = [float(r["distance_to_earlier"]) for r in table(tmp_path)]
    assert np.isnan(apart[0])
    assert apart[1:] == sorted(apart[1:], reverse=True)
    least = (apart[9] + apart[10]) / 2
    found, said = chosen([pool], tmp_path, n=16, least=least, output=tmp_path / "b.xyz")
    assert found == whole[:10]
    assert f"only 10 structures are {least:g} apart: fewer than -n 16" in said


@pytest.mark.parametrize("options", [{"by": "random"}, {"share": 0.5}])
def test_the_random_part_is_kept_apart_too(pool, tmp_path, options):
    chosen([pool], tmp_path, n=16)
    least = float(table(tmp_path)[9]["distance_to_earlier"])
    known = tmp_path / "known.xyz"
    known.write_bytes(b"".join(list(structure_bytes(pool))[:2]))
    found, said = chosen(
        [pool], tmp_path, n=12, least=least, already=(known,), output=tmp_path / "b.xyz", **options
    )
    rows = table(tmp_path, "b.xyz.csv")
    assert all(float(r["distance_to_earlier"]) >= least * (1 - 1e-5) for r in rows)
    assert 1 <= len(found) < 12
    assert rows[0]["chosen_by"] == "random"
    assert f"only {len(found)} structures are {least:g} apart" in said


def test_without_features_there_is_no_distance(pool, tmp_path):
    _, said = chosen([pool], tmp_path, n=4, by="random")
    assert "no features needed" in said
    assert {r["distance_to_earlier"] for r in table(tmp_path)} == {"nan"}


def test_several_files_are_one_pool(pool, tmp_path):
    other = tmp_path / "other.xyz"
    other.write_text(to_extxyz(tiny.copper(2)))
    found, _ = chosen([pool, other], tmp_path, n=18)
    assert sorted(found) == list(range(18))
    rows = {(r["file"], r["index"]) for r in table(tmp_path)}
    assert (str(other), "1") in rows


def test_large_pools_are_read_in_pieces_and_progress_is_said(pool, tmp_path, monkeypatch):
    whole, _ = chosen([pool], tmp_path, n=7)
    monkeypatch.setattr(module, "ATOMS_AT_ONCE", 20)
    monkeypatch.setattr(module, "LOG_EVERY", 0.0)
    pieces, said = chosen([pool], tmp_path, n=7, output=tmp_path / "b.xyz")
    assert pieces == whole
    assert "3 of 16 structures read" in said


def test_a_picture_shows_the_selection(pool, tmp_path):
    chosen([pool], tmp_path, n=3, plot=tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_replaced(pool, tmp_path):
    for name in ("out.xyz", "out.xyz.csv", "p.png"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(SettingsError, match=f"{name} exists already and is not replaced"):
            chosen([pool], tmp_path, n=2, plot=tmp_path / "p.png")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pool.xyz"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"by": "divers"}, "--by: 'divers' is not a rule; nearest: diverse"),
        ({"by": "x"}, "--by: 'x' is not a rule; expected random, diverse"),
        ({"n": 0}, "-n: expected at least 1, got 0"),
        ({"by": "spread"}, "--by spread: needs several --model"),
        ({"by": "error"}, "--by error: needs --model"),
        ({"share": 1.5}, "--random-share: expected 0 to 1, got 1.5"),
        ({"keys": LabelKeys("foo", option="--{}-key")}, "--energy-key: only with --by error"),
        (
            {"keys": LabelKeys(forces="foo", option="--{}-key"), "by": "random"},
            "--forces-key: only with --by error",
        ),
        ({"least": -1.0}, "--least-distance: expected at least 0"),
        ({"output": "out.traj"}, "-o: .*out.traj: expected a name that ends in .xyz"),
        ({"output": "none/out.xyz"}, "no such folder"),
        ({"plot": "p.pdf"}, "--plot: .*expected a name that ends in .png"),
        ({"already": ("pool.xyz",)}, "pool.xyz: named twice"),
    ],
)
def test_mistakes_are_said_in_one_sentence(pool, tmp_path, options, what):
    given = {"n": 2, "output": "out.xyz", **options}
    for name in ("output", "plot"):
        if name in given:
            given[name] = tmp_path / given[name]
    given["already"] = tuple(tmp_path / a for a in given.get("already", ()))
    with pytest.raises(SettingsError, match=what) as error:
        check_options([pool], SelectOptions(**given))
    assert "\n" not in str(error.value)


def test_one_model_has_no_spread_and_an_unknown_element_is_named(pool, tmp_path, models):
    with pytest.raises(SettingsError, match="--by spread: one model has no spread"):
        chosen([pool], tmp_path, n=2, by="spread", models=models[:1])
    gold = tmp_path / "gold.xyz"
    gold.write_text("1\n\nAu 0 0 0\n")
    with pytest.raises(SettingsError, match=r"gold.xyz@0: the model does not know Au, only H C O Cu"):
        chosen([pool, gold], tmp_path, n=2, models=models[:1])
    assert not (tmp_path / "out.xyz").exists()


def test_without_labels_there_is_no_error_to_choose_by(tmp_path, models):
    path = tmp_path / "bare.xyz"
    path.write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    with pytest.raises(SettingsError, match=r"bare.xyz, structure 1 .*: no REF_energy .* --energy-key"):
        chosen([path], tmp_path, n=1, by="error", models=models[:1])
    found, _ = chosen([path], tmp_path, n=1)
    assert found == [0]


def test_every_rule_chooses_as_many_as_asked(pool, tmp_path, models):
    for by in RULES:
        found, _ = chosen([pool], tmp_path, n=5, by=by, models=models, output=tmp_path / f"{by}.xyz")
        assert len(set(found)) == 5, by


def test_a_labelled_structure_is_known_although_its_label_added_a_charge(tmp_path):
    frames = [x.frame for x in tiny.water(6, noise=0.03)]
    stated = [replace(f, charge=1.0, spin=2) for f in frames[:2]]
    neutral = replace(frames[3], charge=0.0)
    ase.io.write(tmp_path / "pool.xyz", [f.to_atoms() for f in [*frames[:3], neutral]], format="extxyz")
    known = [*stated, replace(neutral, charge=1.0)]
    ase.io.write(tmp_path / "known.xyz", [f.to_atoms() for f in known], format="extxyz")
    found, said = chosen(
        [tmp_path / "pool.xyz"], tmp_path, n=2, by="random", already=(tmp_path / "known.xyz",)
    )
    assert sorted(found) == [2, 3], "the ion of the last one is another structure"
    assert "2 structures of the pool are in --already and are left out" in said


@pytest.mark.parametrize("by", ["random", "diverse", "maxdet"])
def test_a_structure_that_occurs_twice_is_chosen_once(tmp_path, by):
    frames = [x.frame for x in tiny.water(4, noise=0.03)]
    ion = replace(frames[0], charge=1.0)
    pool = tmp_path / "pool.xyz"
    ase.io.write(pool, [f.to_atoms() for f in [*frames, *frames, ion]], format="extxyz")
    found, said = chosen([pool], tmp_path, n=5, by=by)
    assert sorted(found) == [0, 1, 2, 3, 8], "the ion is another structure"
    assert "4 structures of the pool repeat earlier ones and are left out" in said
    with pytest.raises(SettingsError, match="there are 5 structures to choose from"):
        chosen([pool], tmp_path, n=6, by=by, output=tmp_path / "more.xyz")
