"""What must be given, what is guaranteed of samples, and what happens when they are refused."""

import numpy as np
import pytest
import torch

from aims_pax.errors import LabelError, SettingsError
from aims_pax.models.diffusion.generation import (
    Generating,
    GenerationFailed,
    generate,
    is_supercell,
    numbers_of_formula,
    sampled,
    starting_graph,
)
from tests.md.potentials import LennardJones
from tests.models.diffusion.structures import adsorbates, trained

TEMPLATE = adsorbates(1)[0].chosen([0], [[0, 0, 0]])
LOOSE = Generating(steps=4, guarded=False)


def start(kind: str, **keys):
    model, data, _ = trained(kind)
    return starting_graph(model, data, **keys)


@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        ("trimers", {}, "formula: mandatory"),
        ("trimers", {"formula": "Ar3", "n_atoms": 4}, "n_atoms: 4, but the formula has 3"),
        ("trimers", {"formula": "Kr3"}, "Kr: the model was trained on Ar only"),
        ("trimers", {"formula": "Xx3"}, "cannot be read"),
        ("trimers", {"formula": "Ar3", "cell": np.eye(3)}, "cell: this model generates molecules"),
        ("trimers", {"formula": "Ar3", "positions": np.zeros((3, 3))}, "this model generates them"),
        ("trimers", {"formula": "Ar3", "confinement": (0.0, 1.0)}, "trained without"),
        ("types", {}, "n_atoms: mandatory without a formula"),
        ("types", {"n_atoms": 2}, "give the template"),
        ("types", {"n_atoms": 2, "template": TEMPLATE, "cell": np.eye(3)}, "the template has one"),
        ("slab", {"formula": "Au", "pbc": (False,) * 3, "template": TEMPLATE}, "with pbc T T F, not F F F"),
        ("slab", {"n_atoms": 2, "template": TEMPLATE}, "formula: mandatory"),
    ],
)
def test_what_is_missing_or_too_much_is_named(kind, keys, said):
    with pytest.raises(SettingsError, match=said):
        start(kind, **keys)


def test_template_atoms_come_first_and_do_not_move_by_a_bit():
    model, data, _ = trained("types")
    begin, counts = start("types", formula="AuPd", template=TEMPLATE)
    assert counts == {46: 1, 79: 1}
    assert begin.fixed.tolist() == [True, False, False]
    made = sampled(model, [begin] * 20, torch.Generator().manual_seed(0), LOOSE, counts)
    for graph in made:
        assert (graph.pos[0] == TEMPLATE.positions[0]).all()
        assert sorted(graph.x.tolist()) == [29, 46, 79], "the composition asked for"
        assert graph.x[0] == 29
        assert 1 <= graph.pos[1:, 2].min() <= graph.pos[1:, 2].max() <= 4
    assert len({tuple(g.x) for g in made}) == 2, "both orders"


def test_elements_that_are_not_asked_for_come_from_the_vocabulary():
    model, _, _ = trained("types")
    begin, counts = start("types", n_atoms=3, template=TEMPLATE)
    assert counts is None
    made = sampled(model, [begin] * 10, torch.Generator().manual_seed(0), LOOSE, None)
    assert {int(z) for g in made for z in g.x} <= {29, 46, 79}


def test_equal_seeds_give_equal_structures():
    model, data, _ = trained("trimers")
    begin, _ = start("trimers", formula="Ar3")
    first, again, other = (generate(model, data, begin, 3, ("a", k), LOOSE).graphs for k in (1, 1, 2))
    assert all((a.pos == b.pos).all() for a, b in zip(first, again, strict=True))
    assert not (first[0].pos == other[0].pos).all()


def test_refusals_are_counted_and_tries_are_bounded():
    model, data, _ = trained("trimers")
    begin, _ = start("trimers", formula="Ar3")
    strict = Generating(steps=4, covalent=10.0, retries=2)
    with pytest.raises(
        GenerationFailed, match=r"0 of 12 structures passed; refused: too close 12, 4 were asked for"
    ):
        generate(model, data, begin, 4, ("a",), strict)
    made = generate(model, data, begin, 4, ("a",), LOOSE)
    assert (len(made.graphs), made.attempts) == (4, 4)


def test_the_network_gets_the_elements_of_the_masked_atoms_at_every_step(monkeypatch):
    model, _, _ = trained("types")
    begin, counts = start("types", formula="AuPd", template=TEMPLATE)
    forward, seen = type(model).forward, []

    def watched(self, batch, pos, classes, *rest, left, **keys):
        masked = ((classes == self.masked) & batch.free).view(len(batch), -1).sum(1)
        seen.append((left.clone(), masked))
        return forward(self, batch, pos, classes, *rest, left=left, **keys)

    monkeypatch.setattr(type(model), "forward", watched)
    made = sampled(model, [begin] * 3, torch.Generator().manual_seed(1), Generating(steps=6), counts)
    assert model.architecture.vocabulary == (29, 46, 79)
    assert seen[0][0].tolist() == [[0, 1, 1]] * 3
    assert all((left.sum(1) == masked).all() for left, masked in seen)
    assert any(masked.sum() < 6 for _, masked in seen), "they are counted down"
    assert all(sorted(graph.x) == [29, 46, 79] for graph in made)


def test_a_model_that_explodes_never_gives_a_structure(monkeypatch):
    model, data, _ = trained("trimers")
    begin, _ = start("trimers", formula="Ar3")
    forward = type(model).forward

    def exploding(self, batch, pos, *rest, **keys):
        d, scores = forward(self, batch, pos, *rest, **keys)
        return d * 1e9, scores

    monkeypatch.setattr(type(model), "forward", exploding)
    with pytest.raises(GenerationFailed, match="not finite"):
        generate(model, data, begin, 2, ("a",), Generating(steps=4, guarded=False, retries=1))


def test_a_short_relaxation_lowers_energies_and_needs_a_potential():
    model, data, _ = trained("trimers")
    begin, _ = start("trimers", formula="Ar3")
    lj = LennardJones()
    plain = generate(model, data, begin, 4, ("a",), LOOSE)
    relaxed = generate(
        model, data, begin, 4, ("a",), Generating(steps=4, guarded=False, relax=20, potential=lj)
    )
    before, after = (
        [x.energy for x in lj.labels([g.to_frame() for g in m.graphs])] for m in (plain, relaxed)
    )
    assert all(b < a for a, b in zip(before, after, strict=True))
    pushed = generate(
        model, data, begin, 4, ("a",), Generating(steps=4, guarded=False, ff_guidance=50.0, potential=lj)
    )
    assert any((a.pos != b.pos).any() for a, b in zip(plain.graphs, pushed.graphs, strict=True))
    with pytest.raises(SettingsError, match="relax needs a potential"):
        generate(model, data, begin, 1, ("a",), Generating(relax=1))
    forced = Generating(steps=4, guarded=False, max_force=1e-9, potential=lj, retries=0)
    with pytest.raises(GenerationFailed, match="forces 2"):
        generate(model, data, begin, 2, ("a",), forced)


class Flaky(LennardJones):
    """Fails on every other structure, which it knows again by its numbers."""

    def labels(self, frames):
        if any(int(f.id, 16) % 2 for f in frames):
            raise LabelError("SCF not converged")
        return super().labels(frames)


@pytest.mark.parametrize("keys", [{"relax": 1}, {"max_force": 1e6}])
def test_structures_that_the_potential_fails_on_are_refused_and_made_again(keys):
    model, data, _ = trained("trimers")
    begin, _ = start("trimers", formula="Ar3")
    how = Generating(steps=4, guarded=False, potential=Flaky(), retries=9, **keys)
    made = generate(model, data, begin, 6, ("a",), how)
    assert len(made.graphs) == 6
    assert made.refused["not calculated"] > 0
    pushed = Generating(steps=4, guarded=False, ff_guidance=1.0, potential=Flaky())
    assert len(generate(model, data, begin, 6, ("a",), pushed).graphs) == 6


def test_a_formula_is_read():
    assert numbers_of_formula("Pd2O2").tolist() == [46, 46, 8, 8]
    with pytest.raises(SettingsError, match="cannot be read"):
        numbers_of_formula("")


@pytest.mark.parametrize(
    ("change", "same"),
    [(np.diag([1.0, 1, 1]), True), (np.diag([2.0, 3, 1]), True), (np.diag([1.0, 1, 1.02]), False)],
)
def test_a_turned_cell_is_the_same_cell_and_a_sheared_one_is_not(change, same):
    unit = np.array([[4.0, 0, 0], [1.0, 4.0, 0], [0, 0, 6.0]])
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    assert is_supercell(change @ unit @ turn, unit) == same
    sheared = np.array([[1.0, 0, 0], [0.12, 1, 0], [0, 0, 1]]) @ unit
    assert not is_supercell(sheared, unit)
