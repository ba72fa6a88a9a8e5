"""The cache of a long journal's content, `restart/journal_read.npy`.

It is written only when much of the journal was new, and not at all in a read-only folder. It is used if the journal
still has the same bytes before the position up to which it was read, and ignored otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.report.run_history import FrameOrigin, RunHistory, UncertaintyTable
from aims_pax.report.run_record import Span, TrainingRecord

FORMAT = 3
WORTH = 4_000_000  # fewer bytes of new journal than this are not cached
TAIL = 4096  # bytes before the cached position that must be the same


def load_cache(path: Path, journal: Path) -> tuple[RunHistory, int]:
    """(cached history, number of journal bytes it covers); an empty history and 0 when there is no valid cache."""
    try:
        arrays, meta = unpack_arrays(path.read_bytes())
        if meta["kept"] != FORMAT or meta["tail"] != _tail(journal, int(meta["end"])):
            return RunHistory(), 0
        return _history(arrays, meta["story"]), int(meta["end"])
    except (OSError, Torn, KeyError, TypeError, ValueError):
        return RunHistory(), 0


def save_cache(path: Path, journal: Path, history: RunHistory, start: int, end: int) -> None:
    """Write the cache if much was read between the bytes `start` and `end`: at least WORTH and a tenth of all."""
    if end - start < max(WORTH, end // 10):
        return
    from aims_pax.errors import SetupError
    from aims_pax.record.files import write_bytes

    looks = history.looks
    columns = {c: np.frombuffer(getattr(looks, c), getattr(looks, c).typecode) for c in _columns()}
    columns["frames"] = np.frombuffer("\n".join(looks.frames).encode("utf-8", "replace"), np.uint8)
    plain = {
        name: getattr(history, name)
        for name in ("began", "heard", "other", "labels", "fresh", "ended", "last", "pauses")
    }
    plain |= {
        name: list(getattr(history, name).items())
        for name in ("stood", "faults", "answers", "moments", "seconds")
    }
    plain["sampled"] = [
        [frame, *asdict(sampled_origin).values()] for frame, sampled_origin in history.sampled.items()
    ]
    plain["visits"] = [list(asdict(v).values()) for v in history.visits.values()]
    plain["spans"] = [[s.doing, s.began, s.ended] for s in history.spans]
    with contextlib.suppress(OSError, SetupError):
        # in a read-only folder or on a full disk the next reading reads all
        meta = {"kept": FORMAT, "end": end, "tail": _tail(journal, end), "story": plain}
        write_bytes(path, pack_arrays(columns, meta))


def _history(arrays: dict[str, Any], plain: dict[str, Any]) -> RunHistory:
    looks = UncertaintyTable()
    for name in _columns():
        getattr(looks, name).frombytes(arrays[name].tobytes())
    text = arrays["frames"].tobytes().decode("utf-8")
    looks.frames = text.split("\n") if len(looks.step) else []
    if len({len(looks.frames), *(len(getattr(looks, c)) for c in _columns())}) != 1:
        raise ValueError("columns of different length")
    visits = [
        replace(TrainingRecord(*v), valid_loss=tuple(v[-2]), force_mae=tuple(v[-1])) for v in plain["visits"]
    ]
    return RunHistory(
        **{name: plain[name] for name in ("began", "heard", "other", "labels", "fresh", "ended")},
        looks=looks,
        stood=dict(plain["stood"]),
        faults={i: [(int(step), why) for step, why in of] for i, of in plain["faults"]},
        sampled={frame: FrameOrigin(*sampled_origin) for frame, *sampled_origin in plain["sampled"]},
        answers={frame: tuple(answer) for frame, answer in plain["answers"]},
        visits={(v.stage, v.visit, v.member): v for v in visits},
        spans=[Span(*s) for s in plain["spans"]],
        moments={stage: tuple(moments) for stage, moments in plain["moments"]},
        seconds=dict(plain["seconds"]),
        last=None if plain["last"] is None else tuple(plain["last"]),
        pauses=[(began, ended) for began, ended in plain["pauses"]],
    )


def _columns() -> list[str]:
    return [f.name for f in fields(UncertaintyTable) if f.name != "frames"]


def _tail(journal: Path, end: int) -> str:
    with open(journal, "rb") as file:
        file.seek(max(0, end - TAIL))
        tail = file.read(min(end, TAIL))
    return f"{end} {hashlib.sha256(tail).hexdigest()}" if len(tail) == min(end, TAIL) else ""
