"""Counter-based noise: the generator's published answers, the normal law, and independence of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from aims_pax.md import noise

# Random123, tests/kat_vectors, lines "philox4x32 10": counter, key, answer
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> torch.Tensor:
    return torch.tensor([int(w, 16) for w in text.split()])


def deviates(stream: list[int], step: int, n_steps: int, purpose: int = noise.THERMOSTAT) -> torch.Tensor:
    keys = torch.tensor(stream)
    return noise.normals(keys, torch.full_like(keys, step), torch.arange(len(keys)), n_steps, purpose)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    assert noise.philox4x32(words(counter), words(key)).tolist() == words(answer).tolist()


def test_the_published_answers_hold_inside_any_array():
    counter = torch.stack([words(c) for c, _, _ in KNOWN] * 7, dim=1)
    key = torch.stack([words(k) for _, k, _ in KNOWN] * 7, dim=1)
    answer = torch.stack([words(a) for _, _, a in KNOWN] * 7, dim=1)
    assert torch.equal(noise.philox4x32(counter, key), answer)


def test_logarithm_and_circle_are_those_of_the_library():
    w = torch.randint(0, 2**32, (20000,), generator=torch.Generator().manual_seed(1))
    w = torch.cat((w, torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])))
    u = (w.double() + 0.5) * 2.0**-32
    exact = np.log(u.numpy().astype(np.longdouble))
    assert u.min() > 0
    assert u.max() < 1
    assert abs((noise._log(u).numpy() - exact) / exact).max() < 5e-16
    x, y = noise._on_circle(w)
    assert (x * x + y * y - 1).abs().max() < 1e-15
    angle = torch.atan2(y.abs(), x.abs()) / (np.pi / 2)
    assert torch.allclose(angle, ((w & 0x3FFFFFFF).double() + 0.5) * 2.0**-30, atol=1e-14)


def test_deviates_are_normal():
    x = deviates([5] * 200, 0, 400).numpy().reshape(-1, 3)
    n = len(x)
    assert len(np.unique(x)) > 0.999 * x.size  # all 32 bits count
    assert abs(x.mean(0)).max() < 4 / np.sqrt(n)
    assert abs(x.var(0) - 1).max() < 4 * np.sqrt(2 / n)
    assert abs(stats.skew(x)).max() < 4 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(x)).max() < 4 * np.sqrt(24 / n)
    for component in x.T:
        assert stats.kstest(component, "norm").pvalue > 1e-3


def test_steps_atoms_components_streams_and_purposes_are_uncorrelated():
    x = deviates([5] * 200, 0, 400)
    bound = 4 / np.sqrt(x.numel() / 3)
    pairs = [
        (x[..., 0], x[..., 1]),
        (x[..., 0], x[..., 2]),
        (x[..., 1], x[..., 2]),
        (x[1:], x[:-1]),
        (x[:, 1:], x[:, :-1]),
        (x, deviates([6] * 200, 0, 400)),
        (x, deviates([5 + 2**40] * 200, 0, 400)),
        (x, deviates([5] * 200, 0, 400, noise.START)),
        (x, deviates([5] * 200, 2**32, 400)),
    ]
    for a, b in pairs:
        assert abs(float((a * b).mean())) < bound
        assert abs(float((a * a * b * b).mean()) - 1) < 3 * bound


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_bits():
    stream, atom = torch.arange(1000) * 2**50, torch.arange(1000)
    here = noise.normals(stream, atom * 3, atom, 7)
    there = noise.normals(stream.cuda(), (atom * 3).cuda(), atom.cuda(), 7)
    assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 33])
def test_a_number_depends_on_stream_step_and_atom_alone(size):
    stream = torch.tensor([11, 2**62 + 3, 7])
    big = stream.repeat_interleave(40)
    atom = torch.arange(40).repeat(3)
    step = torch.tensor([0, 1000, 2**33]).repeat_interleave(40)
    whole = noise.normals(big, step, atom, 9)
    pick = torch.randperm(120, generator=torch.Generator().manual_seed(size))[:size]
    part = noise.normals(big[pick], step[pick] + 4, atom[pick], 3)
    assert torch.equal(part, whole[4:7, pick])
