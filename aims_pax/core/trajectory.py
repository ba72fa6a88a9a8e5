"""One trajectory in the core, without positions and momenta: these are in `stages.active_learning`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.work import Effect, LogMessage, Rewind
from aims_pax.wire_names import in_files

Status = Literal["running", "waiting", "training", "done"]
_MAY_END = ("max_MD_steps", "max_labels", "stopped")  # ends that changed settings can take back


@in_files("Trajectory", n_rewinds="life", last_label_step="quiet_since", restart_frame="home")
@dataclass(frozen=True)
class Trajectory:
    """State of a trajectory in the table of `core.active_learning`."""

    system: str
    status: Status = "running"
    step: int = 0  # MD steps done
    n_rewinds: int = 0  # rewinds so far
    last_label_step: int = 0  # MD step of its last label
    frame: str | None = None  # WAITING: the frame whose label it waits for
    restart_frame: str | None = None  # last labelled frame: where a rewind goes
    n_train: int = 0  # TRAINING: size of the training set when its point was added
    epochs: int = 0  # TRAINING: epochs with its point
    faults: int = 0  # exploded frames in a row
    failures: int = 0  # failed labels in a row
    started: int = 0  # MD step at which it began, or was rewound for the last time
    window_start: int = 0  # MD step at which its present window began (acquisition: window)
    last_test_step: int | None = None  # MD step of its last test frame
    reason: str | None = None  # DONE: the reason

    def run_on(self, rules: ActiveLearningRules) -> Trajectory:
        """The trajectory itself, or done if it has reached its last step."""
        if self.status == "running" and self.step >= rules.max_steps:
            return replace(self, status="done", reason=f"max_MD_steps: {self.step}")
        return self

    def window_over(self, rules: ActiveLearningRules, times: int = 1) -> bool:
        """Whether it has moved so many times the length of a window."""
        return self.step - self.window_start >= times * rules.window

    def equilibrated(self, step: int, rules: ActiveLearningRules) -> bool:
        """Whether a frame at this step is a fair sample: long enough after the start and after the last test frame."""
        before = self.started if self.last_test_step is None else max(self.started, self.last_test_step)
        return step - before >= rules.equilibration

    def revived(self, rules: ActiveLearningRules) -> Trajectory:
        """Running again, if it had ended because of a step limit, the budget or a stop that no longer applies."""
        ended = self.status == "done" and (self.reason or "").startswith(_MAY_END)
        if ended and self.step < rules.max_steps:
            return replace(self, status="running", reason=None)
        return self.run_on(rules)

    def rewound(self, i: int, why: str, limit: int, in_a_row: int) -> tuple[Trajectory, tuple[Effect, ...]]:
        """Trajectory i back at its last labelled frame with new momenta, or done after too many failures in a row."""
        if in_a_row >= limit:
            reason = f"{why} ({in_a_row} times in a row)"
            done = replace(self, status="done", frame=None, reason=reason)
            return done, (LogMessage(f"trajectory {i} · step {self.step} · ended: {reason}", "warning"),)
        back = replace(self, status="running", frame=None, n_rewinds=self.n_rewinds + 1, started=self.step)
        text = f"trajectory {i} · step {self.step} · {why} · rewound with fresh momenta"
        return back, (Rewind(i, self.restart_frame, back.n_rewinds), LogMessage(text, "warning"))
