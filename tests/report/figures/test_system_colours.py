"""Systems and their colours."""

from dataclasses import replace

from aims_pax.report.figures.style import COLOURS, MUTED
from aims_pax.report.figures.system_colours import (
    system_colour,
    system_names,
    systems_legend,
    trajectory_colour,
)


def named(run, *names):
    """The run with one trajectory of each of these systems."""
    some = (replace(run.trajectories[0], index=k, system=name) for k, name in enumerate(names))
    return replace(run, trajectories=tuple(some))


def test_systems_of_trajectories_come_first_then_those_of_the_data(run):
    assert system_names(named(run, "zinc", "water", "zinc")) == ["zinc", "water", "copper"]
    assert system_names(replace(run, trajectories=(), structures=())) == []


def test_a_trajectory_has_the_colour_of_its_system_in_every_figure(run):
    for t in run.trajectories:
        assert trajectory_colour(run, t.index) == system_colour(run, t.system)
    assert system_colour(run, "copper") != system_colour(run, "water")
    assert system_colour(run, "nobody") == trajectory_colour(run, 99) == MUTED


def test_colours_begin_again_and_the_legend_names_no_more_than_there_are(run):
    many = named(run, *(f"s{k}" for k in range(8)))
    assert system_colour(many, "s6") == system_colour(many, "s0") == COLOURS[0]
    assert systems_legend(many) == [(colour, f"s{k}") for k, colour in enumerate(COLOURS)]
    assert systems_legend(named(replace(run, structures=()), "alone")) == [], "one system needs no legend"
