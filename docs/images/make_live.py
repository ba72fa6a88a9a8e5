"""Draws live.svg: the live view of a terminal, 80 columns wide, from a run that is made up.

python docs/images/make_live.py [FILE]
"""

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from aims_pax.core import active_learning
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.threshold import Threshold
from aims_pax.report.live_view import Display, LastCheck

LOG = (
    "trajectory 2 · step 740 · spread 0.151 > 0.135 eV/Å · labelling 7ceb41",
    "7ceb41 → train · 40 training points",
    "training visit 27 · validation: force MAE 94.4 meV/Å · energy 2.43 meV/atom",
)
LOOKS = ((373, 0.094), (708, 0.046), (450, 0.161), (540, 0.103), (741, 0.118), (354, 0.056))
STATUS = ("running", "running", "waiting", "training", "running", "running")
RULES = ActiveLearningRules(20, 0.0, 0.1, 2, 1, max_steps=2000, max_train=60, max_labels=100)


def main(file: Path) -> None:
    console = Console(
        file=io.StringIO(), record=True, width=80, height=24, force_terminal=True, legacy_windows=False
    )
    display = Display(console)
    display._clock.now("explore", "moving", 0.0, [("max_train_set_size", 20, 60)])
    for at, doing in ((150.0, "training"), (195.0, "waiting"), (201.0, "moving")):
        display._clock.now("explore", doing, at, [("max_train_set_size", 40, 60)])
    seen = {i: LastCheck(*look) for i, look in enumerate(LOOKS)}
    for line in LOG:
        console.print(line, highlight=False)
    lines = [
        *explore_lines(state(), seen),
        "reference · 1 under way · 66 done · 1 failed (NotConverged)",
        f"[dim]{display._clock.line(201.0)}[/dim]",
    ]
    for line in lines:
        console.print(line, highlight=False)
    # rich names fonts of a server; a picture of ours asks nobody
    style = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    style = style.replace(
        "font-family: Fira Code, monospace", "font-family: DejaVu Sans Mono, Menlo, monospace"
    )
    svg = console.export_svg(title="aims-PAX", code_format=style, unique_id="live")
    svg = re.sub(r"<!--.*?-->\s*", "", svg)
    svg = re.sub(r' clip-path="url\(#live-line-\d+\)"', "", svg)  # they cut underscores off in other fonts
    file.write_text(svg, encoding="utf-8")


def explore_lines(now: active_learning.State, seen: dict[int, LastCheck]) -> list[object]:
    from aims_pax.report.live_view import _explore

    return _explore(now, RULES, seen, 10)


def state() -> active_learning.State:
    """Six trajectories of two molecules, one waiting for its label, one training."""
    begun = active_learning.begin(("ethanol", "malonaldehyde") * 3, RULES, 40, {})
    threshold = Threshold()
    for _ in range(10):
        threshold = threshold.seen((0.135,))
    trajectories = tuple(
        replace(t, status=status, step=600 + 20 * ((7 * i) % 9), frame="f" if status != "running" else None)
        for i, (t, status) in enumerate(zip(begun.trajectories, STATUS, strict=True))
    )
    known = (("", threshold),)
    return replace(begun, trajectories=trajectories, thresholds=known, n_asked=27, force_mae=(0.0944, 0.0944))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("live.svg"))
