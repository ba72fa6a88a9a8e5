"""What a block is asked for, without a Slurm; the rest is in tests/slurm."""

import socket

import pytest

from aims_pax.errors import SetupError
from aims_pax.labelling.executors.block_request import Blocks
from aims_pax.labelling.executors.parsl_blocks import BlockExecutor, _addresses, _free_port
from aims_pax.schedulers.registry import known_schedulers

SLURM = known_schedulers()["slurm"]


def test_an_interface_that_is_not_there_and_ports_that_are_taken_are_said():
    with pytest.raises(SetupError, match=r"parsl_options\.interface: ib7 has no IPv4 address.*lo"):
        _addresses(Blocks(SLURM, "", interface="ib7"))
    assert _addresses(Blocks(SLURM, "", interface="lo")) == ("127.0.0.1", {"127.0.0.1"})
    assert _addresses(Blocks(SLURM, "", address="login1.ib")) == (None, {"login1.ib"})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"port_range: no port of {port}-{port} is free"):
            _free_port("127.0.0.1", (port, port))
        assert _free_port("127.0.0.1", (port, port + 20)) in range(port + 1, port + 21)


def test_the_port_is_chosen_by_who_binds_it(tmp_path):
    """One chosen here may be taken by another run, or by any connection of this machine, before it is bound."""
    backend = BlockExecutor(Blocks(SLURM, "", ports=(54100, 54101)), tmp_path / "parsl", tmp_path)._backend()
    assert (backend.worker_port, backend.worker_port_range) == (None, (54100, 54102))


def test_where_there_is_no_slurm_the_run_ends_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="there is no squeue on this machine"):
        BlockExecutor(Blocks(SLURM, ""), tmp_path / "parsl").__enter__()
