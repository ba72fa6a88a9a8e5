"""What differs between the clusters of the tests: the headers of blocks, and what stands in front of a program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """header: of a block for two calculations; launch: in front of a program."""

    name: str  # CLUSTER.type
    title: str
    header: str
    launch: str = ""


SLURM = Site("slurm", "Slurm", "#SBATCH --time=10 --ntasks=2 --mem=400\n", "srun --ntasks=1")
GRID_ENGINE = Site("sge", "Grid Engine", "#$ -l h_rt=0:10:0\n#$ -pe smp 2\n")
