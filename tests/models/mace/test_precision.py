"""Energies of all electrons: the delivered file says of two geometries what we say, by the path a user takes."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from aims_pax.commands.export import export
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.mace import precision
from aims_pax.models.mace.build import load_model
from aims_pax.models.mace.kind import KIND
from aims_pax.models.mace.precision import (
    as_used,
    check_precision,
    dtype_of,
    is_too_coarse,
    relative_difference,
    resolution,
)
from aims_pax.models.mace.statistics import Statistics
from aims_pax.report.model_card import _precision as row
from aims_pax.stages import delivery_precision
from tests.models.mace import tiny
from tests.sweeps import thinned

GOLD = -535649.123456  # eV, all electrons of one atom
WATER = {1: -13.6057, 8: -2041.8396}


def gold(n: int = 4, atoms: int = 32) -> list[Frame]:
    from ase.build import bulk

    cell = bulk("Au", cubic=True).repeat(2)[:atoms]
    rng = np.random.default_rng(1)
    return [
        Frame(cell.numbers, cell.positions + rng.normal(0, 0.15, cell.positions.shape), cell.cell[:], True)
        for _ in range(n)
    ]


def waters(n: int = 4) -> list[Frame]:
    return [f.frame for f in tiny.water(n)]


def ensemble(energies: dict[int, float]):
    from aims_pax.models.mace import Ensemble

    chosen = tiny.settings(inference="torch", r_max=4.0)
    made = Ensemble.build(chosen, (1, 2), tuple(energies))
    for member in made.members:
        member.freeze(Statistics(np.array(list(energies.values())), 12.0, 1.0, 0.0, "given", 1))
    return made


def run(made, frames, folder):
    """What delivering needs of a run."""
    labels = made.potential().labels(frames)
    labelled = [LabelledFrame(f, label, {}) for f, label in zip(frames, labels, strict=True)]
    (folder / "results").mkdir()
    written = SimpleNamespace(results=folder / "results", write_text=lambda path, text: path.write_text(text))
    return SimpleNamespace(
        ensemble=made, dataset=SimpleNamespace(frames={f.id: f for f in labelled}), folder=written
    ), {"training": labelled[:1], "validation": labelled[1:]}


@pytest.mark.parametrize(
    ("energy", "step", "is_coarse"),
    [
        (-17140762.0, 2.0, True),
        (-17600.0, 0.001953125, True),
        (-4200.0, 0.00048828125, False),
        (12.0, 2**-20, False),
    ],
)
def test_the_steps_of_single_precision(energy, step, is_coarse):
    assert resolution(energy) == step
    assert is_too_coarse([1.0, energy]) is is_coarse


def test_a_file_in_single_precision_has_one_energy_for_all_geometries_of_gold(tmp_path):
    """The fault itself, and that it is seen."""
    made, frames = ensemble({79: GOLD}), gold()
    made.save(0, tmp_path / "gold.model")
    ours = made.potential(members=[0]).labels(frames)
    theirs = as_used(tmp_path / "gold.model", "float32", frames)
    assert np.ptp([o.energy for o in ours]) > 0.05
    assert {t.energy % 2 for t in theirs} == {0.0}  # steps of 2 eV
    assert check_precision(tmp_path / "gold.model", frames, ours).difference > 0.05


@pytest.mark.parametrize(
    ("energies", "frames", "dtype"),
    [
        ({79: GOLD}, gold(), "float64"),
        ({29: -45210.7}, [f.frame for f in tiny.copper(4)], "float64"),  # four atoms are enough
        (WATER, waters(), "float32"),
    ],
    ids=["gold", "copper", "water"],
)
def test_the_delivered_file_says_relative_energies_as_we_do(tmp_path, caplog, energies, frames, dtype):
    made = ensemble(energies)
    story, sets = run(made, frames, tmp_path)
    path = tmp_path / "results" / "m.model"
    with caplog.at_level(logging.INFO):
        delivery_precision.save_member(story, 1, path)
        found = delivery_precision.check_delivery(story, {1: path}, sets)
    assert found.dtype == dtype == dtype_of(load_model(path)[0])
    assert found.difference < 1e-3
    ours = made.potential(members=[1]).labels(frames)
    theirs = as_used(path, dtype, frames)  # as the hint says
    assert relative_difference(frames, ours, theirs) < 1e-3
    assert abs(theirs[0].energy - ours[0].energy) < 1e-3 * len(frames[0])
    assert ('default_dtype="float64"' in caplog.text) == (dtype == "float64")
    known = json.loads((tmp_path / "results" / "precision.json").read_text())
    assert known["dtype"] == dtype
    assert f'default_dtype="{dtype}"' in row(known)
    assert ("single precision resolves these energies only to" in row(known)) == (dtype == "float64")


def test_a_file_that_turns_out_too_coarse_is_written_again(tmp_path, monkeypatch):
    """Whatever the labels promise, what counts is what the file says."""
    story, sets = run(ensemble({79: GOLD}), gold(), tmp_path)
    monkeypatch.setattr("aims_pax.models.mace.ensemble.is_too_coarse", lambda energies: False)
    path = tmp_path / "results" / "m.model"
    delivery_precision.save_member(story, 0, path)
    assert dtype_of(load_model(path)[0]) == "float32"
    assert delivery_precision.check_delivery(story, {0: path}, sets).difference < 1e-3
    assert dtype_of(load_model(path)[0]) == "float64"


def test_our_own_energies_keep_the_digits_of_the_atoms():
    """Float32 stores −535649.123456 eV as −535649.125: 32 atoms would be 0.05 eV off."""
    made = ensemble({79: GOLD})
    far = Frame([79, 79], [[0, 0, 0], [50.0, 0, 0]])
    interaction = made.potential().labels([far])[0].energy - 2 * GOLD
    other = ensemble({79: -1.0})
    assert interaction == pytest.approx(other.potential().labels([far])[0].energy + 2.0, abs=1e-6)


@pytest.mark.parametrize("form", thinned(["torchscript", "ase", "lammps"], 3))
def test_an_export_of_large_energies_is_double_and_says_so(tmp_path, form):
    made = ensemble({79: GOLD})
    made.save(0, tmp_path / "gold.model")  # an older file, in single precision
    console = Console(record=True, width=300)
    [path] = export(tmp_path, [tmp_path / "gold.model"], form, tmp_path / "out.pt", console)
    text = console.export_text()
    assert "which single precision resolves only to" in text
    if form == "ase":
        assert 'default_dtype="float64"' in text
        frames = gold()
        said = as_used(path, "float64", frames)
        ours = made.potential(members=[0]).labels(frames)
        assert relative_difference(frames, ours, said) < 1e-3


def test_a_table_of_large_energies_says_how_to_load_the_model(tmp_path):
    made, frames = ensemble({79: GOLD}), gold(2)
    made.save(0, tmp_path / "gold.model")
    energy = max(abs(label.energy) for label in made.potential().labels(frames))
    line = KIND.precision_note([tmp_path / "gold.model"], "float64", energy)
    assert "17,14" in line
    assert 'default_dtype="float64"' in line
    assert KIND.precision_note([tmp_path / "gold.model"], "float32", 10.0) == ""


def test_structures_alone_of_their_composition_are_compared_by_their_energy():
    frames = [*gold(1, 4), *gold(2, 3)]
    ours = [Label(e, np.zeros((len(f), 3))) for e, f in zip((1.0, 5.0, 6.0), frames, strict=True)]
    theirs = [Label(e, o.forces) for e, o in zip((1.0, 15.0, 16.25), ours, strict=True)]
    assert relative_difference(frames, ours, theirs) == 0.25  # ten of both are a matter of the atoms
    theirs[0] = Label(3.0, ours[0].forces)
    assert relative_difference(frames, ours, theirs) == 2.0
    assert precision.FINE == 1e-3
