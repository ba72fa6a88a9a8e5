"""How many cores this process may use."""

import os

import pytest

from aims_pax.schedulers.usable_cores import cores, cpu_quotas


def machine(root, group, files):
    """A /proc and /sys with this content."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for path, text in files.items():
        (root / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / path).write_text(text)
    return root


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),  # a container, version 2
        ("0::/user.slice/u1\n", {"user.slice/cpu.max": "200000 100000", "user.slice/u1/cpu.max": "max 100000"}, 2),
        ("0::/a\n", {"a/cpu.max": "50000 100000\n"}, 1),  # half a core
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 64),
        # version 1
        (
            "4:cpu,cpuacct:/docker/7f\n0::/\n",
            {"cpu,cpuacct/docker/7f/cpu.cfs_quota_us": "350000", "cpu,cpuacct/docker/7f/cpu.cfs_period_us": "100000"},
            3,
        ),
        # inside a container whose own path is that of the host
        (
            "4:cpu,cpuacct:/docker/7f\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "600000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            6,
        ),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 64),
        ("3:cpuset:/x\n", {}, 64),
    ],
)  # fmt: skip
def test_a_quota_of_the_control_group_counts(many, tmp_path, group, files, expected):
    assert cores({}, machine(tmp_path, group, files)) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 64),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_CPUS_ON_NODE": "8"}, 64),  # left over from another job
        ({"JOB_ID": "7", "NSLOTS": "4"}, 4),
        ({"PBS_JOBID": "7.server", "NCPUS": "16"}, 16),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "128"}, 64),
    ],
)
def test_a_jobs_share_of_its_node_counts(many, tmp_path, environment, expected):
    assert cores(environment, tmp_path) == expected


def test_without_proc_there_is_no_quota(tmp_path):
    assert cpu_quotas(tmp_path) == []


def test_cores_are_those_we_may_use():
    assert 1 <= cores() <= (os.cpu_count() or 1)
