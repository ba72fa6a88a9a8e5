"""One contract for every executor, and what each promises besides."""

import os
import threading
from concurrent.futures import FIRST_COMPLETED, wait

import pytest

from aims_pax.errors import NotConverged, SettingsError
from aims_pax.labelling.executors.inline import InlineExecutor
from aims_pax.labelling.factory import KINDS, make_executor


@pytest.fixture(scope="module", params=KINDS)
def executor(request, tmp_path_factory):
    with make_executor(request.param, 2, tmp_path_factory.mktemp("logs") / "parsl") as it:
        yield it


def square(x):
    return x * x


def fail(reason, folder):
    raise NotConverged(reason, folder)


def where():
    return os.getpid(), threading.get_ident(), os.environ.get("OMP_NUM_THREADS")


def test_results_come_back(executor):
    assert [f.result(60) for f in [executor.submit(square, x) for x in range(5)]] == [0, 1, 4, 9, 16]
    assert executor.capacity in (1, 2)


def test_an_exception_is_the_futures_and_crosses_whole(executor):
    error = executor.submit(fail, "after 99 cycles", "/calc/7f3a").exception(60)
    assert type(error) is NotConverged
    assert (error.reason, error.folder) == ("after 99 cycles", "/calc/7f3a")


def test_futures_can_be_waited_for_without_polling(executor):
    futures = [executor.submit(square, x) for x in range(3)]
    done, _ = wait(futures, timeout=60, return_when=FIRST_COMPLETED)
    assert done


def test_work_runs_where_it_should(executor):
    pid, thread, omp = executor.submit(where).result(60)
    kind = "inline" if isinstance(executor, InlineExecutor) else executor.kind
    assert (pid == os.getpid()) == (kind != "htex")
    assert (thread == threading.get_ident()) == (kind == "inline")
    if kind == "htex":
        assert omp == "1"


def test_ctrl_c_in_inline_work_is_not_swallowed():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InlineExecutor().submit(interrupted)


def test_an_executor_that_does_not_run_here_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="mpi"):
        make_executor("mpi", 1, tmp_path)
