"""Molecular dynamics with cheap ASE calculators on several cores, for samplers that move several trajectories."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aims_pax import fork_server
from aims_pax.md.propagate import MDOutcome, advance
from aims_pax.md.state import MDState
from aims_pax.parallel.core_allocation import calculator_processes
from aims_pax.parallel.dynamics import MDPool
from aims_pax.potential import Potential

if TYPE_CHECKING:
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)

# s of dynamics in this process before others start, which takes them this long: forks, new interpreters
FORKED, NEW = 0.5, 5.0


@dataclass(frozen=True)
class LoadedCalculator:
    """A calculator in a worker."""

    loaded: Potential

    def potential(self) -> Potential:
        return self.loaded


@dataclass(frozen=True)
class SerialisedCalculator:
    """make: makes the potential, a function that can be pickled."""

    make: Callable[[], Potential]

    def load(self) -> LoadedCalculator:
        return LoadedCalculator(self.make())


@dataclass(frozen=True)
class CalculatorSource:
    """A calculator in the driver; it has no weights. make: as in `SerialisedCalculator`."""

    make: Callable[[], Potential]
    version: int = 0

    def serialised(self) -> SerialisedCalculator:
        return SerialisedCalculator(self.make)

    def weights(self) -> None:
        return None


class CalculatorDynamics(AbstractContextManager["CalculatorDynamics"]):
    """Up to n processes of each calculator that moves several trajectories; they start when that has taken a while.

    patience: seconds until then; None: about as long as their start takes. Trajectories are the same with and without,
    to the last bit if this process has one thread too (`OMP_NUM_THREADS`).
    """

    def __init__(self, n: int, threads: int = 1, patience: float | None = None) -> None:
        self.n, self.threads = n, threads
        self.patience = patience
        self._spent: defaultdict[str, float] = defaultdict(float)  # seconds of dynamics in this process
        self._pools: dict[str, MDPool] = {}
        self._open = ExitStack()

    @classmethod
    def of_run(cls, settings: Settings) -> CalculatorDynamics:
        """As many processes as the settings of a run say."""
        profile = settings.cluster.dynamics
        return cls(calculator_processes(settings), 1 if profile is None else profile.threads)

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._pools.clear()

    @property
    def _patience(self) -> float:
        if self.patience is not None:
            return self.patience
        return FORKED if fork_server.current() is not None and self.threads == 1 else NEW

    def advance(
        self,
        make: Callable[[], Potential],
        name: str,
        states: Sequence[MDState],
        potential: Potential,
        n_steps: int,
        md: Sequence[Any],
        **how: Any,
    ) -> list[MDOutcome]:
        """`md.advance`, in processes that make the potential themselves; one trajectory moves in this one.

        make: a function that can be pickled. name: of the calculator, one pool for each.
        """
        if len(states) < 2 or self.n < 2:
            return advance(states, potential, n_steps, md, **how)
        if self._spent[name] < self._patience:
            began = time.monotonic()
            moved = advance(states, potential, n_steps, md, **how)
            self._spent[name] += time.monotonic() - began
            return moved
        if name not in self._pools:
            log.info("molecular dynamics with %s in %d processes", name, min(self.n, len(states)))
            self._pools[name] = self._open.enter_context(MDPool(CalculatorSource(make), self.n, self.threads))
        return self._pools[name].advance(states, n_steps, md, **how)
