"""Many named arrays in one `.npy` file without pickle.

The file is a one-dimensional uint8 array: the SHA-256 of all that follows, 8 bytes of header length, a JSON header,
the raw arrays. The header names the format and the arrays (dtype, shape, offset). `unpack_arrays` verifies the checksum
before anything else, so that truncated or changed files are rejected; `read_meta` looks at the header alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1


class Torn(ValueError):
    """The bytes are truncated, corrupt, or not of this format."""


def pack_arrays(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> bytes:
    """The bytes of an `.npy` file that holds these arrays and a JSON-able `meta`."""
    index, blobs, offset = {}, [], 0
    for name, values in arrays.items():
        array = np.asarray(values)
        blob = np.ascontiguousarray(array).tobytes()
        index[name] = [array.dtype.str, list(array.shape), offset]
        blobs.append(blob)
        offset += len(blob)
    head = json.dumps({"format": FORMAT, "arrays": index, "meta": dict(meta)}).encode("utf-8")
    body = len(head).to_bytes(8, "little") + head + b"".join(blobs)
    whole = hashlib.sha256(body).digest() + body
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(whole, np.uint8), allow_pickle=False)
    return buffer.getvalue()


def unpack_arrays(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(arrays, meta) from the bytes of `pack_arrays`. Raises Torn when they are incomplete or not of this format."""
    try:
        whole = np.load(io.BytesIO(content), allow_pickle=False).tobytes()
    except Exception as error:  # NumPy's header reader raises many kinds of exception
        raise Torn(f"not a complete .npy file ({type(error).__name__})") from error
    checksum, body = whole[:32], whole[32:]
    if len(whole) < 40 or hashlib.sha256(body).digest() != checksum:
        raise Torn("its content does not match its checksum")
    length = int.from_bytes(body[:8], "little")
    head, data = json.loads(body[8 : 8 + length]), body[8 + length :]
    if head["format"] > FORMAT:
        raise Torn(f"format {head['format']} was written by a newer aims-PAX; this one reads up to {FORMAT}")
    arrays = {}
    for name, (dtype, shape, offset) in head["arrays"].items():
        flat = np.frombuffer(data, dtype=np.dtype(dtype), count=int(np.prod(shape)), offset=offset)
        arrays[name] = flat.reshape(shape).copy()
    return arrays, head["meta"]


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta` of a file of `pack_arrays`, however large its arrays are; the checksum is not verified.

    Raises Torn for a file that is shorter or longer than it should be or has another format, and OSError.
    """
    with open(path, "rb") as file:
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise Torn("not a .npy file of version 1.0")
            (size,), _, _ = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise Torn(f"not a .npy file ({error})") from error
        begin = file.tell()
        if file.seek(0, 2) != begin + size or size < 40:
            raise Torn("not as long as its header says")
        file.seek(begin + 32)
        length = int.from_bytes(file.read(8), "little")
        try:
            head = json.loads(file.read(min(length, size)))
            found: dict[str, Any] = head["meta"]
            if head["format"] <= FORMAT:
                return found
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Torn(f"its header is unreadable ({type(error).__name__})") from error
    raise Torn(f"format {head['format']} was written by a newer aims-PAX; this one reads up to {FORMAT}")
