"""What the commands of schedulers print, and headers of job scripts with what they mean.

Slurm 22.05 and Grid Engine 8.1.9: recorded on the clusters of tests/slurm and tests/gridengine. PBS Pro and LSF: after
the examples of their manuals.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aims_pax.schedulers.base import JobState
from aims_pax.schedulers.grid_engine import grid_engine_state
from aims_pax.schedulers.lsf import lsf_state
from aims_pax.schedulers.pbs import pbs_state
from aims_pax.schedulers.slurm import job_state

HERE = Path(__file__).parent
Answers = dict[str, Any]  # command → standard output, or (output, error, exit code)


def text(name: str) -> str:
    return (HERE / name).read_text()


def pbs(**jobs: dict[str, Any]) -> str:
    """`qstat -f -F json`."""
    common = {"Job_Owner": "root@login1", "Resource_List": {"ncpus": 4, "walltime": "01:00:00"}}
    entries = {f"{job.removeprefix('j')}.server": {**common, **entry} for job, entry in jobs.items()}
    return json.dumps(
        {"timestamp": 1795665412, "pbs_version": "2022.1", "pbs_server": "server", "Jobs": entries}
    )


# three jobs of one run: two run, one waits
JOBS: dict[str, Answers] = {
    "slurm": {"squeue": "1 RUNNING proj.ab12.1\n2 RUNNING proj.ab12.2\n3 PENDING proj.ab12.3\n"},
    "sge": {"qstat": text("sge_qstat.xml"), "qacct": ("", "error: job id 8 not found\n", 1)},
    "pbs": {
        "qstat": pbs(
            j1={"Job_Name": "proj.ab12.1", "job_state": "R"},
            j2={"Job_Name": "proj.ab12.2", "job_state": "R"},
            j3={"Job_Name": "proj.ab12.3", "job_state": "Q"},
            j4={"Job_Name": "proj.ab12.4", "job_state": "R", "Job_Owner": "somebody@login1"},
        )
    },
    "lsf": {
        "bjobs": "1|RUN|-|-|proj.ab12.1\n2|RUN|-|-|proj.ab12.2\n3|PEND|-|-|proj.ab12.3\n4|RUN|-|-|another\n",
    },
}
NO_JOBS = "<?xml version='1.0'?>\n<job_info><queue_info></queue_info><job_info></job_info></job_info>\n"
WELL = "=====\njobname x\nfailed       0    \nexit_status  0                   \n"

# phase → (job, what is printed when somebody asks for it)
ENDS: dict[str, dict[str, tuple[str, Answers]]] = {
    "slurm": {
        "completed": ("7", {"squeue": ("", "slurm_load_jobs error: Invalid job id specified\n", 1)}),
        "failed": ("7", {"squeue": "7 NODE_FAIL\n"}),
        "timeout": ("7", {"squeue": "7 TIMEOUT\n"}),
        "cancelled": ("7", {"squeue": "7 CANCELLED\n"}),
    },
    "sge": {
        "completed": ("7", {"qstat": NO_JOBS, "qacct": WELL}),
        "failed": ("2", {"qstat": NO_JOBS, "qacct": text("sge_qacct_qdel.txt")}),
        "timeout": ("1", {"qstat": NO_JOBS, "qacct": WELL + text("sge_qacct_h_rt.txt")}),
    },
    "pbs": {
        "completed": ("7.server", {"qstat": pbs(j7={"job_state": "F", "Exit_status": 0, "substate": 92})}),
        "failed": ("7.server", {"qstat": pbs(j7={"job_state": "F", "Exit_status": 7, "substate": 93})}),
        "timeout": ("7.server", {"qstat": pbs(j7={"job_state": "F", "Exit_status": -29, "substate": 93})}),
        "cancelled": ("7.server", {"qstat": pbs(j7={"job_state": "F", "Exit_status": 271, "substate": 91})}),
    },
    "lsf": {
        "completed": ("7", {"bjobs": ("", "Job <7> is not found\n", 255)}),
        "failed": ("7", {"bjobs": "7|EXIT|7|-|proj.ab12.1\n"}),
        "timeout": (
            "7",
            {"bjobs": "7|EXIT|140|TERM_RUNLIMIT: job killed after reaching LSF run time limit|x\n"},
        ),
        "cancelled": ("7", {"bjobs": "7|EXIT|130|TERM_OWNER: job killed by owner|x\n"}),
    },
}
PHASES: dict[str, tuple[Callable[[str], JobState], dict[str, str]]] = {
    "slurm": (job_state, {"PENDING": "waiting", "CONFIGURING": "waiting", "SUSPENDED": "held", "COMPLETING": "ending",
                          "OUT_OF_MEMORY": "failed", "PREEMPTED": "timeout", "A_NEW_WORD": "running"}),
    "sge": (grid_engine_state, {"qw": "waiting", "hqw": "held", "t": "running", "Rr": "running", "dr": "ending",
                                "dRt": "ending", "S": "held", "Eqw": "failed"}),
    "pbs": (lambda word: pbs_state({"job_state": word}), {"Q": "waiting", "H": "held", "E": "ending", "S": "held",
                                                          "R": "running", "T": "waiting"}),
    "lsf": (lsf_state, {"PEND": "waiting", "PSUSP": "held", "SSUSP": "held", "UNKWN": "running", "ZOMBI": "failed"}),
}  # fmt: skip
GONE = 'error: commlib error: got select error (Connection refused)\nerror: unable to send message to qmaster using port 6444 on host "vm": got send error\n'  # noqa: E501
UNANSWERED: dict[str, Answers] = {
    "slurm": {
        "squeue": ("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1)
    },
    "sge": {"qstat": ("", GONE, 1)},
    "pbs": {"qstat": ("", "Connection refused\nqstat: cannot connect to server server (errno=111)\n", 111)},
    "lsf": {"bjobs": ("", "LSF is down. Please wait ...\n", 255)},
}
# what submitting prints → words of ours, and whether it may be gone in a minute
REFUSALS: dict[str, list[tuple[str, str, bool]]] = {
    "slurm": [("sbatch: error: invalid partition specified: nowhere\n", "sbatch: .*invalid partition", False)],
    "sge": [
        ('Unable to run job: unknown resource "nosuch"\nExiting.\n', 'unknown resource "nosuch"$', False),
        ('Unable to run job: job rejected: the requested parallel environment "nope" does not exist\nExiting.\n',
         "parallel environment", False),
        ("Unable to run job: job rejected: only 5 jobs are allowed per user\nExiting.\n", "only 5 jobs", True),
        (GONE, "got send error", True),
    ],
    "pbs": [
        ("qsub: Unknown queue\n", "Unknown queue", False),
        ("qsub: would exceed queue generic's per-user limit of jobs in 'Q' state\n", "per-user limit", True),
    ],
    "lsf": [
        ("nowhere: No such queue. Job not submitted.\n", "No such queue", False),
        ("LSF is down. Please wait ...\n", "LSF is down", True),
    ],
}  # fmt: skip
HEADERS: dict[str, dict[str, Any]] = {
    "slurm": {
        "header": "#!/bin/bash -l\n#SBATCH --time=1:00:00 -J mine --mem=3G\n#SBATCH --requeue\n##SBATCH -A x\n"
        "module load x",
        "kept": ["--mem=3G", "--no-requeue", "##SBATCH -A x"],
        "dropped": ["mine", "--requeue\n"],
        "read": {
            "#SBATCH --time=90\n#SBATCH --ntasks=4 -N 2": {"walltime": 5400, "nodes": 2, "tasks": 4},
            "#SBATCH -J a --output=b": {"walltime": None, "replaced": ("--job-name", "--output")},
        },
        "refused": {
            "#SBATCH --array=1-4": "remove --array",
            "true\n#SBATCH -t 5": "comes after the command",
        },
    },
    "sge": {
        "header": "#!/bin/bash -l\n#$ -N mine -l h_rt=1:0:0,mem_free=3G\n#$ -pe smp 4 -r y\n##$ -P x\nmodule load x",
        "kept": ["#$ -l h_rt=1:0:0,mem_free=3G", "#$ -pe smp 4", "#$ -r n", "##$ -P x"],
        "dropped": ["mine", "-r y"],
        "read": {
            "#$ -l h_rt=5400 -pe smp 4": {"walltime": 5400, "nodes": None, "tasks": 4},
            "#$ -l h_rt=2:0:0,s_rt=1:59:0": {"walltime": 7140},
            "#$ -soft -l h_rt=60\n#$ -hard -q all.q": {"walltime": None},
            "#$-cwd\n#$ -o a -j y -e b": {"replaced": ("-e", "-j", "-o")},
            "true\n#$ -l h_rt=60": {"walltime": 60},  # read behind commands, too
            '#$ -v A="x y"   # last on its line': {"walltime": None},
        },
        "refused": {
            "#$ -t 1-4": "remove -t",
            "#$ -sync y": "remove -sync",
            "#$ -l h_rt=60\n#$ -l h_rt=90": "h_rt=60 and -l h_rt=90 contradict each other",
            "#$ -pe smp 2\n#$ -pe mpi 2": "two parallel environments",
            "#$ -l h_rt=1:30": "'1:30' is not a time of Grid Engine",
            '#$ -v A="x y" -l h_rt=60': "reads everything after the quotes as one word",
            " #$ -l h_rt=60": "remove the indentation",
            "#$ -pe smp": "-pe needs 2 arguments",
            "#$ -walltime 60": "'-walltime' is not an option of qsub",
        },
    },
    "pbs": {
        "header": "#!/bin/bash -l\n#PBS -N mine -l select=1:ncpus=4:mpiprocs=4\n#PBS -l walltime=1:00:00\n"
        "#PBS -j oe\n##PBS -A x\nmodule load x",
        "kept": [
            "#PBS -l select=1:ncpus=4:mpiprocs=4",
            "#PBS -l walltime=1:00:00",
            "#PBS -r n",
            "##PBS -A x",
        ],
        "dropped": ["mine", "-j oe"],
        "read": {
            "#PBS -lwalltime=90:00 -lselect=1:ncpus=8": {"walltime": 5400, "nodes": None, "tasks": 8},
            "#PBS -V -q short": {"walltime": None, "replaced": ()},
            "#PBS -j oe -r y": {"replaced": ("-j", "-r")},
        },
        "refused": {
            "#PBS -J 1-4": "remove -J",
            "#PBS -W block=true": "remove -W block=true",
            "#PBS -l walltime=60\n#PBS -l walltime=90": "contradict each other",
            "#PBS -l walltime=soon": "'soon' is not a time",
            "true\n#PBS -l walltime=60": "comes after the command",
            "#PBS --walltime=60": "is not an option of qsub",
        },
    },
    "lsf": {
        "header": '#!/bin/bash -l\n#BSUB -J mine -W 1:00 -n 4\n#BSUB -R "rusage[mem=3000] span[hosts=1]"\n'
        "#BSUB -r\n##BSUB -P x\nmodule load x",
        "kept": [
            "#BSUB -W 1:00",
            "#BSUB -n 4",
            '#BSUB -R "rusage[mem=3000] span[hosts=1]"',
            "#BSUB -rn",
            "##BSUB -P x",
        ],
        "dropped": ["mine", "#BSUB -r\n"],
        "read": {
            "#BSUB -W 90 -n 4,8": {"walltime": 5400, "nodes": None, "tasks": 4},
            "#BSUB -oo a -J b": {"walltime": None, "replaced": ("-J", "-oo")},
        },
        "refused": {
            "#BSUB -K": "remove -K",
            "#BSUB -Is": "remove -Is",
            "#BSUB -W 60\n#BSUB -W 90": "-W 60 and -W 90 contradict each other",
            "#BSUB -W 60/hostA": "is not a run limit of LSF",
            "#BSUB -t60 -walltime 3": "is not an option of bsub",
        },
    },
}
Inside = Callable[[float], tuple[dict[str, str], Answers, float]]


def _sge(now: float) -> tuple[dict[str, str], Answers, float]:
    answer = (
        text("sge_qstat_job.xml").replace("1795665412", str(int(now))).replace("20.000000", "1000.000000")
    )
    environment = {"JOB_ID": "1", "NSLOTS": "4", "SGE_ROOT": "/sge", "QUEUE": "all.q"}
    return environment, {"qstat": answer}, 1000


def _pbs(now: float) -> tuple[dict[str, str], Answers, float]:
    entry = {"job_state": "R", "stime": time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(now - 600))}
    return {"PBS_JOBID": "7.server", "NCPUS": "4"}, {"qstat": pbs(j7=entry)}, 3000


# the environment of a job with 4 cores, what its commands print, and the seconds that it has left
INSIDE: dict[str, Inside] = {
    "slurm": lambda now: (
        {"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "4", "SLURM_JOB_END_TIME": str(int(now) + 1000)}, {}, 1000,
    ),
    "sge": _sge,
    "pbs": _pbs,
    "lsf": lambda _: ({"LSB_JOBID": "1", "LSB_DJOB_NUMPROC": "4"}, {"bjobs": "0:17 L\n"}, 1020),
}  # fmt: skip
