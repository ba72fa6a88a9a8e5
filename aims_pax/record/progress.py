"""What a person sees on a terminal while the run works. Nothing of it enters a log file or a pipe."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aims_pax.core import explore

INTERVAL = 0.2  # s between two drawings
MOST = 20  # trajectories drawn
WIDTH = 10  # characters of the bar of an uncertainty at the threshold
MARKS = {"running": "▶", "waiting": "…", "training": "◆", "done": "■"}
STYLES = {"running": "", "waiting": "yellow", "training": "cyan", "done": "dim"}


@dataclass(frozen=True)
class Seen:
    """A trajectory at its last look. temperature: K. spread: eV/Å, what is compared with the threshold."""

    temperature: float
    spread: float


class Display:
    """A few live lines under the log; silent when the console is not a terminal. Fits 80 columns."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._last = 0.0
        self._clock = Clock()

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

    def show(
        self,
        stage: str,
        state: Any,
        rules: Any,
        doing: str,
        labeller: Any,
        seen: Mapping[int, Seen] | None = None,
    ) -> None:
        """Draw the state of a stage; cheap enough to be called at every turn."""
        now = time.monotonic()
        self._clock.now(stage, doing, now)
        if self._live is None or now - self._last < INTERVAL:
            return
        self._last = now
        if stage == "initial":
            lines = _initial(state)
        elif stage == "explore":
            lines = _explore(state, rules, seen or {}, self._clock)
        else:
            lines = _converge(state, rules)
        self._live.update(Group(*lines, _reference(labeller), Text(self._clock.line(doing), style="dim")))


class Clock:
    """Where the time of a stage went, from what it was doing between two looks."""

    def __init__(self) -> None:
        self.stage, self.began, self.last, self.doing = "", 0.0, 0.0, ""
        self.seconds: dict[str, float] = {}

    def now(self, stage: str, doing: str, now: float) -> None:
        if stage != self.stage:
            self.stage, self.began, self.seconds = stage, now, {}
        elif self.doing:
            self.seconds[self.doing] = self.seconds.get(self.doing, 0.0) + now - self.last
        self.last, self.doing = now, doing

    def line(self, doing: str) -> str:
        total = sum(self.seconds.values())
        shares = sorted(self.seconds.items(), key=lambda item: -item[1])
        text = " · ".join(f"{k} {100 * v / total:.0f} %" for k, v in shares if v > 0.005 * total)
        return f"now: {doing} · {span(total)}" + (f" · {text}" if text else "")

    def left(self, progress: float) -> str:
        """About how long it will still take, once a twentieth is done."""
        elapsed = self.last - self.began
        if not 0.05 < progress < 1:
            return ""
        return f" · about {span(elapsed * (1 - progress) / progress)} left"


def span(seconds: float) -> str:
    """A time one can read at a glance: 42 s, 7 min, 3 h 20 min, 2 d 5 h."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    if hours < 36:
        return f"{int(hours)} h {int(minutes) % 60} min"
    return f"{int(days)} d {int(hours) % 24} h"


def _reference(labeller: Any) -> Text:
    calls = labeller.calls
    failed = sum(calls.failed.values())
    running = max(calls.begun - calls.finished - failed, 0)
    classes = ", ".join(f"{n} {kind}" for kind, n in sorted(calls.failed.items()))
    text = f"reference · {running} under way · {calls.finished} done · {failed} failed"
    return Text(text + (f" ({classes})" if classes else ""), style="dim", overflow="ellipsis", no_wrap=True)


def _initial(state: Any) -> list[Any]:
    train, valid = (sum(getattr(m, n) for m in state.members) for n in ("n_train", "n_valid"))
    text = f"initial dataset · step {state.visit} · {train} training + {valid} validation points · "
    return [Text(f"{text}{state.epochs} epochs{_mae(state.force_mae)}")]


def _explore(state: Any, rules: Any, seen: Mapping[int, Seen], clock: Clock) -> list[Any]:
    table = Table.grid(padding=(0, 1))
    for k, justify in enumerate(("left", "right", "left", "right", "right", "right", "left", "left")):
        widest = (1, 3, 12, 15, 7, 6, WIDTH + 4, 9)[k]
        table.add_column(justify=justify, max_width=widest, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    for i, t in enumerate(state.trajectories[:MOST]):
        limit = "" if math.isinf(rules.max_steps) else f" / {int(rules.max_steps)}"
        look, δ = seen.get(i), explore.threshold_of(state, t.system, rules)
        known = look is not None and t.status != "done"
        table.add_row(
            MARKS[t.status], str(i), t.system, f"{t.step}{limit}",
            f"{look.temperature:.0f} K" if look is not None and known else "",
            f"{look.spread:.3f}" if look is not None and known else "",
            bar(look.spread, δ) if look is not None and known else "",
            t.status,
            style=STYLES[t.status],
        )  # fmt: skip
    done = [t for t in state.trajectories if t.status == "done"]
    more = len(state.trajectories) - MOST
    rest = [f"… and {more} more trajectories"] if more > 0 else []
    rest += [f"{len(done)} ended, the last one: {done[-1].reason}"] if done and done[-1].reason else []
    δ = state.thresholds[0][1].value(rules.c_x)
    shown = "not yet" if math.isinf(δ) else f"{δ:.3f} eV/Å"
    asked = f"{state.n_asked}" + ("" if math.isinf(rules.max_labels) else f" of {int(rules.max_labels)}")
    limit = "" if math.isinf(rules.max_train) else f" of {int(rules.max_train)}"
    head = f"active learning · {state.n_train}{limit} training points · {asked} labels asked for"
    second = f"threshold {shown}{_mae(state.force_mae)}{clock.left(explore.progress(state, rules))}"
    tail = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in rest]
    return [Text(head, style="bold"), Text(second), table, *tail]


def bar(spread: float, threshold: float) -> str:
    """The uncertainty as a bar; the stroke is the threshold: ━━━━━━━    │"""
    if not math.isfinite(threshold) or threshold <= 0 or not math.isfinite(spread):
        return ""
    n = min(round(WIDTH * spread / threshold), WIDTH + 3)
    cells = ["━"] * n + [" "] * (WIDTH + 3 - n)
    cells.insert(WIDTH, "│")
    return "".join(cells).rstrip()


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
