"""Random numbers for molecular dynamics without a generator: they are a function of their purpose.

The number for (stream, step, atom, component) is the same in any batch, in any order and after a restart, so no state
has to be saved and trajectories do not depend on the others in a batch. Philox4x32-10 (Salmon,
Moraes, Dror and Shaw, SC'11, 10.1145/2063384.2063405) turns a counter and a key into four 32-bit words; Box
and Muller (Ann. Math. Stat. 29, 610, 1958) turn those into normal deviates.

Logarithm, sine and cosine are computed from series, so that only additions, multiplications, divisions and
square roots are used, whose rounding IEEE 754 defines. Library functions differ in the last bit between CPU
and GPU, and between the body and the tail of a vectorised loop, that is, between batches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

THERMOSTAT, START, BAROSTAT = 0, 1, 2  # purposes: a word of the counter, so that their numbers differ

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_SQRT_HALF = math.sqrt(0.5)


def normals(stream: Tensor, step: Tensor, atom: Tensor, n_steps: int, purpose: int = THERMOSTAT) -> Tensor:
    """(n_steps, A, 3) independent standard normal deviates, float64.

    stream, step, atom: (A,) int64: the key of the atom's trajectory (below 2^63), the trajectory's step at
    the first of the n_steps, and the atom's index in its own system.
    """
    steps = step + torch.arange(n_steps, device=step.device)[:, None]  # (S, A)
    atoms = atom.expand_as(steps)
    counter = torch.stack((steps & _MASK, steps >> 32, atoms, torch.full_like(steps, purpose)))
    key = torch.stack((stream & _MASK, stream >> 32))[:, None, :]
    return _box_muller(philox4x32(counter, key))


def philox4x32(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10. counter: (4, …) int64 words below 2^32, key: (2, …) likewise → (4, …) words below 2^32.

    One round: (c0, c1, c2, c3) → (hi(M1·c2) ^ c1 ^ k0, lo(M1·c2), hi(M0·c0) ^ c3 ^ k1, lo(M0·c0)).
    A 64-bit product may overflow into the sign bit; its bits are still right, and the mask after the arithmetic
    shift removes the copied sign bits.
    """
    column = (2,) + (1,) * (counter.dim() - 1)
    multipliers = torch.tensor(_MULTIPLIERS, dtype=torch.int64, device=counter.device).view(column)
    weyl = torch.tensor(_WEYL, dtype=torch.int64, device=counter.device).view((2,) + (1,) * (key.dim() - 1))
    even, odd = counter[0::2], counter[1::2]
    for _ in range(_ROUNDS):
        product = (even * multipliers).flip(0)
        even, odd = ((product >> 32) & _MASK) ^ odd ^ key, product & _MASK
        key = (key + weyl) & _MASK
    return torch.stack((even[0], odd[0], even[1], odd[1]))


def _box_muller(words: Tensor) -> Tensor:
    """(4, …) words → (…, 3) deviates: two radii and two angles; the fourth deviate is not used."""
    radius = (-2.0 * _log(_unit(words[:2], 32))).sqrt()
    x, y = _on_circle(words[2:])
    return torch.stack((radius[0] * x[0], radius[0] * y[0], radius[1] * x[1]), dim=-1)


def _unit(words: Tensor, bits: int) -> Tensor:
    """The midpoint of interval number `words` of 2^bits equal intervals of (0, 1), float64."""
    return (words.to(torch.float64) + 0.5) * 2.0**-bits  # an integer tensor plus 0.5 would be float32


def _log(u: Tensor) -> Tensor:
    """ln u for 0 < u < 1: u = m·2^e with √½ ≤ m < √2, ln m = 2 artanh s, s = (m − 1)/(m + 1), |s| < 0.172."""
    mantissa, exponent = torch.frexp(u)
    low = mantissa < _SQRT_HALF
    mantissa = torch.where(low, mantissa * 2.0, mantissa)
    exponent = (exponent - low.to(exponent.dtype)).to(u.dtype)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner(s * s, [1.0 / (2 * k + 1) for k in range(11)])
    return exponent * math.log(2.0) + 2.0 * s * series


def _on_circle(words: Tensor) -> tuple[Tensor, Tensor]:
    """A point on the unit circle from 32 bits: 30 for the position in one quadrant, two for the signs.

    x = cos(π/4 + t), y = sin(π/4 + t) with |t| < π/4, by the series of cos t and sin t.
    """
    t = (_unit(words & 0x3FFFFFFF, 30) - 0.5) * (math.pi / 2)
    t2 = t * t
    cos = _horner(t2, [(-1) ** k / math.factorial(2 * k) for k in range(10)])
    sin = t * _horner(t2, [(-1) ** k / math.factorial(2 * k + 1) for k in range(10)])
    sign_x = (1 - 2 * (words >> 31)).to(t.dtype)
    sign_y = (1 - 2 * ((words >> 30) & 1)).to(t.dtype)
    return sign_x * ((cos - sin) * _SQRT_HALF), sign_y * ((cos + sin) * _SQRT_HALF)


def _horner(x: Tensor, coefficients: list[float]) -> Tensor:
    """Σ_k c_k x^k."""
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total
