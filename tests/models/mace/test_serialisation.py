from dataclasses import replace

import numpy as np
import pytest
import torch

from aims_pax.models.mace.ensemble import Ensemble
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.serialisation import PackedEnsemble, packed_member, unpacked
from tests.models.mace.tiny import ELEMENTS, copper, ensemble, settings, water

CHOSEN = {"inference": "torch"}  # symmetrix would be compared first


@pytest.fixture(scope="module")
def made():
    return ensemble((5,), **CHOSEN)


@pytest.fixture
def member(made):
    return made.members[0]


def test_a_member_comes_back_with_the_same_bits(member):
    back = unpacked(packed_member(member.model), "other_name", 9, settings(**CHOSEN))
    assert (back.name, back.seed) == ("other_name", 9)
    assert back.parameters.keys() == member.parameters.keys()
    assert all(torch.equal(p, member.parameters[name]) for name, p in back.parameters.items())
    assert all(torch.equal(a, w) for a, w in zip(back.average.shadow, member.weights, strict=True))
    frames = [water(1)[0].frame, copper(1)[0].frame]
    ours, theirs = Committee([member.model]).evaluate(frames), Committee([back.model]).evaluate(frames)
    assert torch.equal(ours.energies, theirs.energies)
    assert torch.equal(ours.forces, theirs.forces)


def test_its_statistics_are_in_the_module_and_digits_that_float32_loses_are_kept(member):
    before = member.statistics
    E0 = [-13.6, -1030.123456, -2043.654321, -45210.7123456]
    member.freeze(replace(before, E0=np.array(E0)))
    assert float(member.model.atomic_energies_fn.atomic_energies[0, 3]) != E0[3]
    back = unpacked(packed_member(member.model), "m", 1, settings(**CHOSEN)).statistics
    member.freeze(before)
    np.testing.assert_array_equal(back.E0, E0)
    assert back.avg_num_neighbors == 7.0
    assert back.scale == pytest.approx(1.7)
    assert back.shift == pytest.approx(0.3)


def test_the_copy_shares_nothing_with_the_member(member):
    back = unpacked(packed_member(member.model), "m", 5, settings(**CHOSEN))
    name = next(iter(back.parameters))
    before = member.parameters[name].detach().clone()
    with torch.no_grad():
        back.parameters[name].add_(1.0)
    assert torch.equal(member.parameters[name], before)


def test_packing_is_bytes_says_nothing_and_names_every_member(made, capfd, recwarn):
    packed = made.packed()
    assert isinstance(packed, PackedEnsemble)
    assert [(name, seed) for name, seed, _ in packed.members] == [("tiny_5", 5)]
    assert all(isinstance(data, bytes) for _, _, data in packed.members)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    back = Ensemble.unpacked(packed)
    assert tuple(back.elements) == ELEMENTS
    frame = water(1)[0].frame
    assert torch.equal(back.potential().evaluate([frame]).forces, made.potential().evaluate([frame]).forces)
