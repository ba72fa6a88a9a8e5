"""What a snapshot costs: a 4-member ensemble (32×0e+32×1o, correlation 3), with 200 and with 2 000 frames.

    python benchmarks/snapshot.py

Prints the median time and the size of a snapshot, and the share of run time at the default interval of 60 s.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from aims_pax.core import active_learning
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.dataset import Dataset
from aims_pax.engine.event_loop import SNAPSHOT_SECONDS
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.md.state import MDState
from aims_pax.models.mace import Ensemble, MemberData
from aims_pax.record.checkpoint import Checkpoint
from aims_pax.record.folder import RunFolder
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)

ETHANOL = [6, 6, 8, 1, 1, 1, 1, 1, 1]
POSITIONS = np.random.default_rng(0).normal(size=(9, 3)) * 1.5


def labelled(k: int) -> LabelledFrame:
    rng = np.random.default_rng(k)
    frame = Frame(ETHANOL, POSITIONS + 0.05 * rng.normal(size=(9, 3)))
    return LabelledFrame(
        frame, Label(float(rng.normal()), rng.normal(size=(9, 3))), {"system": "ethanol", "step": k}
    )


def main() -> None:
    settings = MaceSettings(
        general=GeneralSettings(name_exp="snapshot"),
        architecture=ArchitectureSettings(num_channels=32),
        training=TrainingSettings(),
        misc=MaceMiscSettings(),
    )
    ensemble = Ensemble.build(settings, [1, 2, 3, 4], (1, 6, 8))
    few = MemberData([labelled(k) for k in range(5)], [labelled(9)])
    ensemble.train([few] * 4, 1)
    rules = ActiveLearningRules(25, 0.0, 0.1, 2, 1)
    states = [MDState.start(labelled(k).frame, 300.0, k) for k in range(16)]
    for n in (200, 2000):
        root = Path(tempfile.mkdtemp())
        folder = RunFolder(
            SimpleNamespace(  # type: ignore[arg-type]
                folder=root, path=lambda p, root=root: root / p, mace=settings,
                misc=SimpleNamespace(dataset_dir="data", log_dir="logs"),
            )
        )  # fmt: skip
        data = Dataset(folder.data)
        for k in range(n):
            data.add(labelled(k), "train")
        state = active_learning.begin(("ethanol",) * 16, rules, n, {"ethanol": n // 10})
        checkpoint, times = Checkpoint(folder, "explore"), []
        for version in range(15):
            began = time.perf_counter()
            data.sync()
            arrays = {f"md/{i}/{k}": v for i, s in enumerate(states) for k, v in s.arrays().items()}
            checkpoint.write(state, arrays, version, ensemble.arrays, {"entries": n})
            times.append(time.perf_counter() - began)
        size = sum(f.stat().st_size for f in checkpoint.path.glob("*-00001[45].npy")) / 1e6
        median = statistics.median(times)
        share = 100 * median / SNAPSHOT_SECONDS
        print(
            f"{n:5d} frames: {1000 * median:6.1f} ms, {size:5.1f} MB, {share:.2f} % of the run time at one a minute"
        )


if __name__ == "__main__":
    main()
