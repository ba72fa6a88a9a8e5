"""Many arrays in one .npy file without pickle."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays

ARRAYS = {
    "a/b": np.random.default_rng(0).normal(size=(3, 4)),
    "empty": np.zeros((0, 3)),
    "scalar": np.asarray(7),
    "flags": np.array([True, False]),
    "single": np.arange(5, dtype=np.float32),
}


def test_arrays_and_remarks_come_back_bit_for_bit():
    arrays, meta = unpack_arrays(pack_arrays(ARRAYS, {"x": [1, "two", None]}))
    assert meta == {"x": [1, "two", None]}
    assert arrays.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert arrays[name].dtype == values.dtype
        assert np.array_equal(arrays[name], values)
        assert arrays[name].shape == values.shape


def test_it_is_an_ordinary_npy_file_without_pickle():
    assert np.load(io.BytesIO(pack_arrays(ARRAYS, {})), allow_pickle=False).dtype == np.uint8


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_recognised(at, junk):
    whole = pack_arrays(ARRAYS, {"x": 1})
    at %= len(whole)
    for damaged in (whole[:at], whole[:at] + junk + whole[at + len(junk) :]):
        try:
            arrays, meta = unpack_arrays(damaged)
        except Torn:
            continue
        assert meta == {"x": 1}, "damage in NumPy's own header that changes nothing"
        assert all(np.array_equal(arrays[k], ARRAYS[k]) for k in ARRAYS)


def test_a_pickled_array_is_never_loaded():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(Torn):
        unpack_arrays(buffer.getvalue())


def test_a_newer_format_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("aims_pax.record.arrays.FORMAT", 99)
    newer = pack_arrays(ARRAYS, {})
    monkeypatch.undo()
    with pytest.raises(Torn, match="newer aims-PAX"):
        unpack_arrays(newer)
