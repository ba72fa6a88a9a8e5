"""Figure of failed labels by class."""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from aims_pax.report.figures.style import VERMILLION, Panel, drawing, panel
from aims_pax.report.run_record import RunRecord


def failures_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """Failed reference calculations by class."""
    counts = run.failures.most_common()
    if not counts:
        return []
    with drawing(0.55 + 0.3 * len(counts)) as (figure, axes):
        width, height = figure.get_size_inches()
        axes.set_position((1.0 / width, 0.42 / height, 1 - 1.25 / width, 1 - 0.5 / height))
        names = [name for name, _ in counts][::-1]
        values = [n for _, n in counts][::-1]
        axes.barh(names, values, color=VERMILLION, height=0.55)
        for k, n in enumerate(values):
            axes.annotate(str(n), (n, k), (4, 0), textcoords="offset points", va="center")
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.margins(x=0.12)
        axes.set_xlabel("reference calculations that failed")
        return [
            panel(
                figure, "failures", "Failures by class", table={"class": names, "failures": values}, png=png
            )
        ]
