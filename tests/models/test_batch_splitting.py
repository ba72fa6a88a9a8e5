import logging

import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.batch_splitting import BatchSplitter, batch_splitter, out_of_memory, structures_that_fit

CPU = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError(CPU), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("expected scalar type Float but found Double"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_how_memory_runs_out(error, is_so):
    assert out_of_memory(error) is is_so


def test_pieces_are_as_large_as_the_limit_allows_and_never_empty():
    sizes = [5, 5, 100, 3, 3]
    assert structures_that_fit(sizes, 0, 12) == 2
    assert structures_that_fit(sizes, 2, 12) == 3
    assert structures_that_fit(sizes, 3, 12) == 5
    assert structures_that_fit(sizes, 0, float("inf")) == 5


def test_real_memory_that_runs_out_is_recognised():
    """An allocation larger than the address space, as torch's own allocator refuses it."""
    tried = []

    def work(first, end):
        tried.append(end - first)
        if end - first > 1:
            torch.empty(2**52, dtype=torch.float64)
        return end - first

    assert BatchSplitter("test").each([1, 1, 1, 1], work) == [1, 1, 1, 1]
    assert tried == [4, 2, 1, 1, 1, 1]


def fits(edges, sizes, tried):
    """Work that fails above so many edges, as on a small machine; returns the numbers of its structures."""

    def work(first, end):
        tried.append(sum(sizes[first:end]))
        if tried[-1] > edges:
            raise MemoryError
        return list(range(first, end))

    return work


def test_results_come_in_order_and_each_structure_once_however_often_it_is_halved(caplog):
    sizes, tried = [4, 1, 7, 2, 2, 9, 3], []
    splitter = BatchSplitter("dynamics")
    with caplog.at_level(logging.WARNING):
        parts = splitter.each(sizes, fits(9, sizes, tried))
    assert [k for part in parts for k in part] == list(range(7))
    assert tried[:3] == [28, 14, 5]  # 14 was the half, and did not fit either; then at most 7
    assert splitter.limit == 7
    assert [r.message for r in caplog.records] == [
        "dynamics: 7 structures (28 edges) at once do not fit into the memory of cpu; from now on at most 7 edges at "
        "a time, with the same results"
    ]


def test_the_smaller_limit_stays_for_the_next_batch_without_another_word(caplog):
    splitter, tried = BatchSplitter("dynamics"), []
    splitter.each([5, 5, 5, 5], fits(10, [5] * 4, tried))
    caplog.clear()
    tried.clear()
    splitter.each([5, 5, 5, 5], fits(10, [5] * 4, tried))
    assert tried == [10, 10]
    assert not caplog.records


def test_a_structure_that_does_not_fit_alone_is_refused_with_the_reason_and_a_way_out():
    def work(first, end):
        raise RuntimeError("CUDA out of memory.\nTried to allocate 9 GiB")

    with pytest.raises(SettingsError) as refused:
        BatchSplitter("training of m").each([40, 8], work)
    said = str(refused.value)
    assert said.startswith("training of m: one structure with 40 edges does not fit into the memory of cpu ")
    assert "(CUDA out of memory.)" in said
    assert said.endswith("or a machine with more memory")


def test_other_errors_pass_and_leave_the_limit_alone():
    splitter = BatchSplitter("dynamics")

    def work(first, end):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        splitter.each([1, 1], work)
    assert splitter.limit == float("inf")
    assert splitter.each([], work) == []


def test_one_kind_of_work_on_one_device_has_one_splitter():
    try:
        one = batch_splitter("a test", "cpu")
        assert batch_splitter("a test", "cpu") is one
        assert batch_splitter("a test", "cuda:1") is not one
        assert batch_splitter("another test", "cpu").limit == float("inf")
    finally:
        batch_splitter.cache_clear()
