"""The live view: what the terminal shows while a run works. It is not written to log files or pipes."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aims_pax.core import active_learning
from aims_pax.report.time_left import DOING, Limit, duration, rounded_seconds, time_left

INTERVAL = 0.2  # s between two updates
AROUND = 14  # lines of the terminal reserved for the log and the other lines of the view
WIDTH = 10  # length of the uncertainty bar at the threshold, characters
MARKS = {"running": "▶", "waiting": "…", "training": "◆", "done": "■"}
STYLES = {"running": "", "waiting": "yellow", "training": "cyan", "done": "dim"}


@dataclass(frozen=True)
class LastCheck:
    """A trajectory at its last check. temperature: K. spread: eV/Å, the value compared with the threshold."""

    temperature: float
    spread: float


class Display:
    """A few live lines below the log; draws nothing when the console is not a terminal. Fits 80 columns.

    rested: returns the seconds that this process has been paused so far.
    """

    def __init__(self, console: Console, rested: Callable[[], float] = lambda: 0.0) -> None:
        self.console = console
        self._live: Live | None = None
        self._last = 0.0
        self._clock = StageClock(rested)
        self._lines: list[Any] = []

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Draw inside the block."""
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
        seen: Mapping[int, LastCheck] | None = None,
    ) -> None:
        """Draw the state of a stage; cheap enough to call at every turn of the event loop."""
        now = time.monotonic()
        of_stage = STAGES.get(stage, _converge)
        self._clock.now(stage, doing, now, LIMITS.get(stage, _epochs)(state, rules))
        if self._live is None or now - self._last < INTERVAL:
            return
        self._last = now
        rows = max(4, self.console.height - AROUND)
        lines = of_stage(state, rules, seen or {}, rows)
        self._lines = [*lines, _reference(labeller)]
        self._draw(_Ticking(self._clock))

    def rest(self, resting: bool) -> None:
        """Show that the run is paused, or has resumed."""
        if self._live is not None:
            what = f"paused at {time.strftime('%H:%M')}" if resting else "resumed"
            self._draw(Text(f"{what} · aims-PAX resume continues, aims-PAX stop ends" if resting else what,
                            style="yellow"))  # fmt: skip

    def _draw(self, last: Any) -> None:
        assert self._live is not None
        self._live.update(Group(*self._lines, last))


class StageClock:
    """Time that a stage spent on each activity, without pauses; the activity is noted at every call of `now`."""

    def __init__(self, rested: Callable[[], float] = lambda: 0.0) -> None:
        self.paused_seconds = rested
        self.stage, self.last, self.doing, self.before = "", 0.0, "", 0.0
        self.seconds: dict[str, float] = {}
        # limit → (amount used, s of work) when it was first named
        self.first: dict[str, tuple[float, float]] = {}
        self.limits: tuple[Limit, ...] = ()

    def now(self, stage: str, doing: str, now: float, used: Iterable[tuple[str, float, float]] = ()) -> None:
        """Note the current activity. used: (name of a limit, amount used, its value)."""
        rested = self.paused_seconds()
        if stage != self.stage:
            self.stage, self.seconds, self.first = stage, {}, {}
        elif self.doing:
            spent = now - self.last - (rested - self.before)
            self.seconds[self.doing] = self.seconds.get(self.doing, 0.0) + max(0.0, spent)
        self.last, self.doing, self.before = now, doing, rested
        worked = sum(self.seconds.values())
        found = [(n, *self.first.setdefault(n, (at, worked)), at, most) for n, at, most in used]
        self.limits = tuple(Limit(n, first, at, most, since) for n, first, since, at, most in found)

    def line(self, now: float, width: int = 79) -> str:
        """`now: dynamics · 7 min · dynamics 80 % · training 20 % · about 3 min left (max_labels 500)`."""
        going = {self.doing: max(0.0, now - self.last - (self.paused_seconds() - self.before))}
        seconds = {k: self.seconds.get(k, 0.0) + going.get(k, 0.0) for k in {**self.seconds, **going}}
        total = sum(seconds.values())
        shares = sorted(seconds.items(), key=lambda item: -item[1])
        name, left = time_left(total, self.limits)
        parts = [f"now: {_short(self.doing)}", duration(float(round(total)))]
        parts += [
            f"{_short(k)} {100 * v / total:.0f} %" for k, v in shares if len(shares) > 1 and v > 0.005 * total
        ]
        ends = [f"about {rounded_seconds(left)} left ({name})"] if math.isfinite(left) else []
        if len(" · ".join(parts + ends)) > width:
            ends = [end.partition(" (")[0] for end in ends]
        while len(" · ".join(parts + ends)) > width and len(parts) > 2:
            parts.pop()  # the smallest share
        return " · ".join(parts + ends)


class _Ticking:
    """The line with the times, computed whenever it is drawn, because a turn of the event loop may take minutes."""

    def __init__(self, clock: StageClock) -> None:
        self.clock = clock

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text(self.clock.line(time.monotonic(), options.max_width - 1), style="dim")


def _reference(labeller: Any) -> Text:
    calls = labeller.calls
    failed = sum(calls.failed.values())
    running = max(calls.begun - calls.finished - failed, 0)
    classes = ", ".join(f"{n} {kind}" for kind, n in sorted(calls.failed.items()))
    text = f"reference since this start · {running} under way · {calls.finished} done"
    text += f" · {failed} failed ({classes})" if failed else ""
    return Text(text, style="red" if failed > calls.finished else "", no_wrap=True, overflow="ellipsis")


# ---------------------------------------------------------------- the stages


def _free_labels(state: Any, rules: Any, _: Mapping[int, LastCheck], __: int) -> list[Any]:
    return [
        Text("pre-training · structures with free labels", style="bold"),
        Text(f"{state.frames} of {rules.n_frames} structures"),
    ]


def _initial(state: Any, rules: Any, _: Mapping[int, LastCheck], __: int) -> list[Any]:
    train, valid = sum(m.n_train for m in state.members), sum(m.n_valid for m in state.members)
    labelling = state.phase == "label"
    labelled = f" · {len(state.answers)} of {len(state.batch)} labels of this step" if labelling else ""
    head = f"initial dataset · step {state.visit + 1}{labelled}"
    points = f"{train} training + {valid} validation points (all members together)"
    points += " before this step" if labelling else ""
    limit = "" if math.isinf(rules.max_epochs) else f" of {int(rules.max_epochs)}"
    return [
        Text(head, style="bold"),
        Text(points),
        Text(f"{state.epochs}{limit} epochs{_mae(state.force_mae)}"),
    ]


def _explore(state: Any, rules: Any, seen: Mapping[int, LastCheck], rows: int) -> list[Any]:
    table = Table.grid(padding=(0, 1))
    digits = "" if math.isinf(rules.max_steps) else f" / {int(rules.max_steps)}"
    steps = max(7, *(len(f"{t.step}{digits}") for t in state.trajectories))
    for k, justify in enumerate(("left", "right", "left", "right", "right", "right", "left", "left")):
        widest = (1, 3, max(8, 29 - steps), steps, 6, 6, WIDTH + 5, 9)[k]
        table.add_column(justify=justify, max_width=widest, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    table.add_row("", "#", "system", "MD step", "T (K)", "σ eV/Å", "σ and threshold", "", style="dim")
    shown = len(state.trajectories) if len(state.trajectories) <= rows else rows - 1
    for i, t in enumerate(state.trajectories[:shown]):
        look, δ = seen.get(i), active_learning.threshold_of(state, t.system, rules)
        known = look is not None and t.status != "done"
        table.add_row(
            MARKS[t.status], str(i), t.system, f"{t.step}{digits}",
            f"{look.temperature:.0f}" if look is not None and known else "",
            f"{look.spread:.3f}" if look is not None and known else "",
            bar(look.spread, δ) if look is not None and known else "",
            t.status,
            style=STYLES[t.status],
        )  # fmt: skip
    done = [t for t in state.trajectories if t.status == "done"]
    counts = Counter(t.status for t in state.trajectories[shown:])
    more = ", ".join(f"{n} {status}" for status, n in counts.items())
    rest = [f"… and {sum(counts.values())} more trajectories: {more}"] if counts else []
    rest += [f"{len(done)} ended, the last one: {done[-1].reason}"] if done and done[-1].reason else []
    first = state.thresholds[0][0] or state.trajectories[0].system
    δ = active_learning.threshold_of(state, first, rules)
    limit = "" if math.isinf(rules.max_train) else f" of {int(rules.max_train)}"
    asked = f"{state.n_asked}" + ("" if math.isinf(rules.max_labels) else f" of {int(rules.max_labels)}")
    head = f"active learning · {state.n_train}{limit} training points (a member) · {asked} labels asked"
    value = "no threshold yet" if math.isinf(δ) else f"threshold {δ:.3f} eV/Å"
    if len(state.thresholds) > 1:
        value = f"{len(state.thresholds)} thresholds, the first: {value.removeprefix('threshold ')}"
    if state.closing and not state.stopped:
        rest.insert(0, f"{state.closing}: {rules.n_test - state.n_tests} test frames still to be drawn")
    tail = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in rest]
    return [Text(head, style="bold"), Text(f"{value}{_mae(state.force_mae)}"), table, *tail]


def _converge(state: Any, rules: Any, _: Mapping[int, LastCheck], __: int) -> list[Any]:
    most = "" if math.isinf(rules.max_epochs) else f" of {int(rules.max_epochs)}"
    lines = []
    for p in state.members:
        best = "" if math.isnan(p.best_mae) else f" · best: epoch {p.best_epoch},"
        best += "" if math.isnan(p.best_mae) else f" force MAE {1000 * p.best_mae:.1f} meV/Å"
        text = f"convergence · member {p.member} · epoch {p.epochs_here}{most}{best}"
        lines.append(Text(text + (" · done" if p.done else ""), style="dim" if p.done else "bold"))
    return lines


def _limits_of_free_labels(state: Any, rules: Any) -> Iterator[tuple[str, float, float]]:
    yield "n_frames", state.frames, rules.n_frames


def _limits_of_initial(state: Any, rules: Any) -> Iterator[tuple[str, float, float]]:
    yield "max_initial_epochs", state.epochs, rules.max_epochs
    yield "max_initial_set_size", sum(m.n_train for m in state.members), rules.max_train


def _limits_of_explore(state: Any, rules: Any) -> Iterator[tuple[str, float, float]]:
    if not state.warm_up.done:
        return
    yield "max_MD_steps", sum(t.step for t in state.trajectories) / len(state.trajectories), rules.max_steps
    yield "max_labels", state.n_asked, rules.max_labels
    yield "max_train_set_size", state.n_train, rules.max_train


def _epochs(state: Any, rules: Any) -> Iterator[tuple[str, float, float]]:
    done = sum(rules.max_epochs if p.done else p.epochs_here for p in state.members)
    yield "max_convergence_epochs", done / len(state.members), rules.max_epochs


STAGES = {"pretrain-sample": _free_labels, "initial": _initial, "explore": _explore}
LIMITS = {
    "pretrain-sample": _limits_of_free_labels,
    "initial": _limits_of_initial,
    "explore": _limits_of_explore,
}


def bar(spread: float, threshold: float) -> str:
    """The uncertainty as a bar; the vertical line is the threshold: ━━━━━━━    │"""
    if not math.isfinite(threshold) or threshold <= 0 or not math.isfinite(spread):
        return ""
    n = min(round(WIDTH * spread / threshold), WIDTH + 3)
    cells = ["━"] * n + [" "] * (WIDTH + 3 - n)
    cells.insert(WIDTH, "│")
    return "".join(cells).rstrip()


def _short(doing: str) -> str:
    """The name of an activity, shortened: `waiting` for `waiting for labels`."""
    return DOING.get(doing, doing).partition(" for ")[0]


def _mae(values: tuple[float, ...]) -> str:
    return f" · force MAE {1000 * sum(values) / len(values):.1f} meV/Å" if values else ""
