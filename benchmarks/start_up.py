"""CPU seconds that a new process needs before it can build a model: MACE as it imports itself against our import.

    OMP_NUM_THREADS=1 python benchmarks/start_up.py [--repeats 5]

Each line is a new process, the two kinds in turn; medians. torch alone is the part that nobody can avoid.
"""

import argparse
import resource
import statistics
import subprocess
import sys

SAFE = "import torch; torch.serialization.add_safe_globals([slice])"
KINDS = {
    "torch alone": SAFE,
    "mace.modules": f"{SAFE}; import mace.modules",
    "aims_pax.models.mace.ensemble": "import aims_pax.models.mace.ensemble",
    "the same with an optimiser": "import aims_pax.models.mace.ensemble, torch._dynamo",
}


def cost(code: str) -> float:
    """CPU seconds of a new process that runs this."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    seconds = [{name: cost(code) for name, code in KINDS.items()} for _ in range(repeats)]
    for name in KINDS:
        print(f"{statistics.median(s[name] for s in seconds):6.2f} s  {name}")


if __name__ == "__main__":
    main()
