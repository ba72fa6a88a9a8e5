"""Initial weights of further models of one architecture, without building these models.

MACE draws its initial weights with torch's generator while it builds a model; nothing else in a new model depends on
the seed. `recorded_draws` notes these draws while one model is built; `InitialWeights.found` looks for the draw that
each parameter is made of, and repeats all draws to see that none was missed. Another seed then needs only the draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

T = torch.Tensor
aten = torch.ops.aten


@dataclass(frozen=True)
class Draw:
    """One call of torch's generator: its distribution with arguments, and shape and type of the numbers."""

    method: str  # of a tensor that is filled in place
    arguments: tuple[float, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    def repeated(self) -> T:
        """As many numbers from the same distribution and the current state of the generator."""
        empty = torch.empty(self.shape, dtype=self.dtype)
        filled: T = getattr(empty, self.method)(*self.arguments)
        return filled


class _Recorder(TorchDispatchMode):
    """Notes draws from the global generator. What it does not know leaves the generator in another state."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws: list[tuple[Draw, T]] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if (kwargs or {}).get("generator") is None:
            if func is aten.randn.default:
                self._note("normal_", (), made)
            elif func in (aten.normal_.default, aten.uniform_.default):
                self._note(str(func).split(".")[1], tuple(float(x) for x in args[1:]), made)
        return made

    def _note(self, method: str, arguments: tuple[float, ...], made: T) -> None:
        self.draws.append((Draw(method, arguments, tuple(made.shape), made.dtype), made.detach().clone()))


@contextmanager
def recorded_draws() -> Iterator[list[tuple[Draw, T]]]:
    """Inside the block draws from torch's global generator are appended to the list, with their numbers."""
    with _Recorder() as recorder:
        yield recorder.draws


@dataclass(frozen=True)
class InitialWeights:
    """The draws of an architecture in their order, and what they become: entries of the model's state."""

    draws: tuple[Draw, ...]
    entries: Mapping[str, tuple[int, int]]  # name: (number of the draw, by what its numbers are divided)

    @classmethod
    def found(
        cls, model: torch.nn.Module, recorded: list[tuple[Draw, T]], seed: int, generator: T
    ) -> Self | None:
        """From a new model, its draws, their seed, and the state of the generator after them.

        None unless every parameter is a draw, divided by a whole number, or has the same value everywhere, and the
        draws can be repeated exactly: then further models must be built. Buffers never depend on the seed. Numbers
        that no parameter has were examples for optimising functions.
        """
        state = model.state_dict()
        entries = {}
        for name, value in state.items():
            for k, (_, numbers) in enumerate(recorded):
                by = _divisor(numbers, value)
                if by is not None:
                    entries[name] = (k, by)
        if any(name not in entries and not _uniform(value) for name, value in model.named_parameters()):
            return None
        weights = cls(tuple(draw for draw, _ in recorded), entries)
        again = weights.drawn(seed)
        complete = torch.equal(torch.get_rng_state(), generator)
        return weights if complete and all(torch.equal(again[n], state[n]) for n in again) else None

    def drawn(self, seed: int) -> dict[str, T]:
        """The entries of the state that depend on the seed. Changes the state of torch's generator."""
        torch.manual_seed(seed)
        numbers = [draw.repeated() for draw in self.draws]
        return {name: numbers[k] / by if by != 1 else numbers[k] for name, (k, by) in self.entries.items()}


def _divisor(numbers: T, value: T) -> int | None:
    """The whole number by which these numbers are divided in the state; None if it was not made from them."""
    if numbers.shape != value.shape or numbers.dtype != value.dtype or not numbers.numel():
        return None
    first, other = float(numbers.flatten()[0]), float(value.flatten()[0])
    by = round(first / other) if other else 0
    return by if by > 0 and torch.equal(numbers / by, value) else None


def _uniform(value: T) -> bool:
    """Whether it has one value everywhere, so that it was not drawn; a single number only if it is a whole one."""
    if value.numel() < 2:
        return value.numel() == 0 or float(value.detach()).is_integer()
    return bool((value == value.flatten()[0]).all())
