"""What a person sees on a terminal while the run works. Nothing of it enters a log file or a pipe."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

INTERVAL = 0.2  # s between two drawings
MARKS = {"running": "▶", "waiting": "…", "training": "◆", "done": "■"}


class Display:
    """A few live lines under the log; silent when the console is not a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._last = 0.0

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Draw while this lasts."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=5, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def show(self, stage: str, state: Any, rules: Any, doing: str, labeller: Any) -> None:
        """Draw the state of a stage; cheap enough to be called at every turn."""
        now = time.monotonic()
        if self._live is None or now - self._last < INTERVAL:
            return
        self._last = now
        lines = {"initial": _initial, "explore": _explore, "converge": _converge}[stage](state, rules)
        calls = labeller.calls
        reference = Text(
            f"reference: {calls.finished} done · {calls.begun - calls.finished - _failures(calls)} running · "
            f"{_failures(calls)} failed    now: {doing}",
            style="dim",
        )
        self._live.update(Group(*lines, reference))


def _failures(calls: Any) -> int:
    return sum(calls.failed.values())


def _initial(state: Any, rules: Any) -> list[Any]:
    train, valid = (sum(getattr(m, n) for m in state.members) for n in ("n_train", "n_valid"))
    text = f"initial dataset · step {state.visit} · {train} training + {valid} validation points · "
    return [Text(f"{text}{state.epochs} epochs{_mae(state.force_mae)}")]


def _explore(state: Any, rules: Any) -> list[Any]:
    table = Table.grid(padding=(0, 2))
    for i, t in enumerate(state.trajectories[:20]):
        limit = "" if math.isinf(rules.max_steps) else f" / {int(rules.max_steps)}"
        table.add_row(MARKS[t.status], str(i), t.system[:20], f"{t.step}{limit}", t.reason or t.status)
    more = len(state.trajectories) - 20
    rest = [Text(f"… and {more} more trajectories", style="dim")] if more > 0 else []
    δ = state.thresholds[0][1].value(rules.c_x)
    shown = "not yet" if math.isinf(δ) else f"{δ:.3f} eV/Å"
    head = f"active learning · {state.n_train} training points · threshold {shown}{_mae(state.force_mae)}"
    return [Text(head), table, *rest]


def _converge(state: Any, rules: Any) -> list[Any]:
    return [
        Text(
            f"convergence · member {p.member} · epoch {p.epochs} / {int(rules.max_epochs)} · best {p.best_epoch}"
            + ("" if math.isnan(p.best_mae) else f" · force MAE {1000 * p.best_mae:.1f} meV/Å")
        )
        for p in state.members
    ]


def _mae(values: tuple[float, ...]) -> str:
    return f" · force MAE {1000 * sum(values) / len(values):.1f} meV/Å" if values else ""
