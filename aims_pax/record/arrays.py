"""Many named arrays in one `.npy` file without pickle.

The file is a one-dimensional uint8 array: 8 bytes of header length, a JSON header, then the raw arrays. The header
names the format, the arrays (dtype, shape, offset) and a SHA-256 of everything behind it, so that a torn or
changed file is recognised before anything of it is believed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1


class Torn(ValueError):
    """The bytes are not a whole file of this kind."""


def pack(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> bytes:
    """The bytes of an `.npy` file that holds these arrays and a JSON-able `meta`."""
    index, blobs, offset = {}, [], 0
    for name, values in arrays.items():
        array = np.asarray(values)
        blob = np.ascontiguousarray(array).tobytes()
        index[name] = [array.dtype.str, list(array.shape), offset]
        blobs.append(blob)
        offset += len(blob)
    data = b"".join(blobs)
    head = {"format": FORMAT, "sha256": hashlib.sha256(data).hexdigest(), "arrays": index, "meta": dict(meta)}
    header = json.dumps(head).encode("utf-8")
    buffer = io.BytesIO()
    whole = len(header).to_bytes(8, "little") + header + data
    np.save(buffer, np.frombuffer(whole, np.uint8), allow_pickle=False)
    return buffer.getvalue()


def unpack(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(arrays, meta) of `pack`'s bytes. Raises Torn when they are not whole or not of this kind."""
    try:
        whole = np.load(io.BytesIO(content), allow_pickle=False).tobytes()
        length = int.from_bytes(whole[:8], "little")
        head = json.loads(whole[8 : 8 + length])
        data = whole[8 + length :]
        if head["format"] > FORMAT:
            raise Torn(f"format {head['format']} was written by a newer aims-PAX; this one reads up to {FORMAT}")
        if hashlib.sha256(data).hexdigest() != head["sha256"]:
            raise Torn("its content does not fit its checksum")
        arrays = {}
        for name, (dtype, shape, offset) in head["arrays"].items():
            count = int(np.prod(shape))
            flat = np.frombuffer(data, dtype=np.dtype(dtype), count=count, offset=offset)
            arrays[name] = flat.reshape(shape).copy()
        return arrays, head["meta"]
    except (ValueError, KeyError, TypeError, EOFError, OSError, AttributeError) as error:
        raise Torn(str(error)) from error
