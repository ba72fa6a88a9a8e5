"""How long a run takes to build the models of a committee: MACE's constructor for each, and ours.

    python benchmarks/build_models.py [--members 4] [--rounds 3]

Every measurement is a process of its own, alternately, in CPU seconds without imports: `constructor` calls MACE's for
each member as `build_model` did before; `empty cache` is the first run ever of an architecture; `cache` is every later
one. Architectures: the default of mace.yaml, the small one of the quickstart. Median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WAYS = ("constructor", "empty cache", "cache")
ARCHITECTURES = {
    "default": {},
    "quickstart": {"num_channels": 16, "max_L": 0, "correlation": 2, "r_max": 4.5},
}


def measure(way: str, name: str, members: int) -> float:
    """CPU seconds of building all members in this process."""
    import time

    from aims_pax.models.mace import build
    from aims_pax.settings.mace import (
        ArchitectureSettings,
        GeneralSettings,
        MaceMiscSettings,
        MaceSettings,
        TrainingSettings,
    )

    settings = MaceSettings(
        general=GeneralSettings(name_exp="built"), training=TrainingSettings(), misc=MaceMiscSettings(),
        architecture=ArchitectureSettings(**ARCHITECTURES[name]),
    )  # fmt: skip
    began = time.process_time()
    for seed in range(members):
        if way == "constructor":
            build._constructed(settings.architecture, (1, 6, 8))
        else:
            build.build_model(settings, (1, 6, 8), seed)
    return time.process_time() - began


def in_a_process(way: str, name: str, members: int, cache: str) -> float:
    done = subprocess.run(
        [sys.executable, __file__, "--one", way, name, "--members", str(members)],
        env={**os.environ, "AIMS_PAX_CACHE": cache, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "ARCHITECTURE"), help="measure in this process")
    given = parser.parse_args()
    if given.one:
        print(measure(*given.one, given.members))
        return
    print("| architecture | " + " | ".join(WAYS) + " |\n" + "|---" * (len(WAYS) + 1) + "|")
    for name in ARCHITECTURES:
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(given.rounds):
            with tempfile.TemporaryDirectory() as cache:
                for way in WAYS:
                    found[way].append(in_a_process(way, name, given.members, cache))
        middle = {way: statistics.median(each) for way, each in found.items()}
        whole = middle["constructor"]
        print(
            f"| {name} | " + " | ".join(f"{s:.1f} s ({whole / s:.1f}×)" for s in middle.values()) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
