#!/bin/bash
# The driver of a run as a Slurm job that submits itself again until the run is done.
# Put it next to aimsPAX.yaml, mace.yaml, control.in and the geometry, then: sbatch job.sh
#SBATCH --job-name=aims-PAX
#SBATCH --time=24:00:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:1
#SBATCH --output=logs/driver-%j.out
#SBATCH --signal=TERM@180
set -u
mkdir -p logs
source /path/to/aims-PAX/.venv/bin/activate

# --signal reaches the steps of the job, so aims-PAX runs as one (srun). It saves and exits with 75, also when it
# sees the end of the walltime itself.
srun --ntasks=1 aims-PAX
code=$?

case $code in
    75) cd "$SLURM_SUBMIT_DIR" && sbatch job.sh ;;   # not done yet: run me again
    0) echo "done: see results/" ;;
    *) echo "aims-PAX ended with exit code $code: see logs/" ; exit $code ;;
esac
