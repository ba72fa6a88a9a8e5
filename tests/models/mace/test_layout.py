import numpy as np
import pytest
import torch

from aims_pax.models.mace.layout import arrange, pad


def graph(degrees, elements, seed=0):
    """Random edges with so many neighbours at each receiver."""
    rng = np.random.default_rng(seed)
    receiver = np.repeat(np.arange(len(degrees)), degrees)
    rng.shuffle(receiver)
    sender = rng.integers(len(degrees), size=len(receiver))
    return [torch.from_numpy(np.asarray(a, dtype=np.int64)) for a in (elements, sender, receiver)]


@pytest.mark.parametrize("degrees", [[3, 3, 3, 3], [0, 5, 2, 1], [0, 0, 0, 0], [7], [40] * 20 + [3] * 90])
def test_every_edge_has_one_slot_in_the_row_of_its_receiver(degrees):
    species, sender, receiver = graph(degrees, np.arange(len(degrees)) % 3)
    layout = arrange(species, sender, receiver, 4)
    assert len(set(layout.slot.tolist())) == len(sender)
    assert torch.equal(layout.order[layout.sender[layout.slot]], sender)
    assert torch.equal(layout.order[layout.receiver[layout.slot]], receiver)
    assert torch.equal(layout.order[layout.rank], torch.arange(len(degrees)))
    assert torch.equal(species[layout.order], layout.species)
    assert layout.counts == tuple(np.bincount(species, minlength=4))
    end = 0
    for first, n, K in layout.rows:
        assert first == end
        end = first + n * K
        row = layout.receiver[first:end].view(n, K)
        assert (row == row[:, :1]).all()
    assert end == len(layout.sender)
    heads = torch.cat([layout.receiver[a : a + n * K : K] for a, n, K in layout.rows])
    if layout.place is not None:
        heads = heads[layout.place]
    assert torch.equal(heads, torch.arange(len(degrees)))


def test_rows_of_very_different_length_are_kept_apart():
    species, sender, receiver = graph([40] * 20 + [3] * 90, np.zeros(110))
    together = arrange(species, sender, receiver, 1, sets=1)
    apart = arrange(species, sender, receiver, 1)
    assert len(together.rows) == 1
    assert len(together.sender) == 110 * 40
    assert len(apart.rows) > 1
    assert len(apart.sender) == len(sender)


def test_dummies_are_beyond_the_cutoff():
    species, sender, receiver = graph([0, 2, 1], [0, 0, 0])
    layout = arrange(species, sender, receiver, 1)
    v = pad(torch.ones((3, 3)), layout, 5.0)
    lengths = v.norm(dim=1)
    assert int((lengths == 10).sum()) == len(v) - 3
    assert torch.equal(v[layout.slot], torch.ones((3, 3)))
