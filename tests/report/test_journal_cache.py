"""What was read of a long journal is kept, believed while it fits, and changes nothing."""

import json

import pytest

from aims_pax.report import journal_cache
from aims_pax.report.load_run import load_run
from aims_pax.report.seen_files import JOURNAL_CACHE
from tests.report.folders import advanced, answered, made_up, trained


def entries(first, n):
    """A run of two trajectories with labels, training, a pause, a fault and steps done again after a restart."""
    for k in range(first, first + n):
        t = 1000.0 + 10 * k
        yield advanced(t, k % 2, 10 * (k // 2), 10 * (k // 2) + 10, 0.1 + 0.01 * (k % 7), 0.2)
        if k % 9 == 4:
            yield answered(t + 1, f"f{k % 2}s{10 * (k // 2) + 10}")
            yield trained(t + 2, k, 20 + k, 0.1, 0.2)
        if k % 11 == 7:
            yield {
                "time": t + 4,
                "stage": "explore",
                "kind": "paused",
                "content": {"began": t + 3, "ended": t + 4},
            }
        if k % 13 == 12:
            yield {"time": t + 5, "stage": "run", "kind": "begun", "content": {"pid": k}}
            yield advanced(t + 6, k % 2, 10 * (k // 2), 10 * (k // 2) + 10, 0.3)
        if k % 17 == 16:
            yield advanced(t + 7, k % 2, 10 * (k // 2) + 10, 10 * (k // 2) + 13, fault="too hot")


def add(folder, more):
    with open(folder / "restart/journal.jsonl", "a") as file:
        file.write("".join(json.dumps(e) + "\n" for e in more))


def plain(run):
    """Everything the journal says."""
    trajectories = [
        [t.step, t.steps.tolist(), t.uncertainty.tolist(), t.threshold.tolist(), t.times.tolist(),
         t.labelled.tolist(), t.faults, t.status]
        for t in run.trajectories
    ]  # fmt: skip
    return trajectories, run.calls, run.visits, run.spans, run.stages, run.began, run.heard


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The same run read at three moments, and only at its end."""
    monkeypatch.setattr(journal_cache, "WORTH", 1)
    often, once = (made_up(tmp_path / name, entries(0, 40)) for name in ("often", "once"))
    load_run(often)
    assert (often / "restart" / JOURNAL_CACHE).exists()
    add(often, entries(40, 40))
    load_run(often)
    add(often, entries(80, 30))
    add(once, entries(40, 70))
    return often, once


def test_reading_on_gives_what_reading_everything_gives(folders, monkeypatch):
    often, once = folders
    taken = []
    from aims_pax.report import journal_reader

    real = journal_reader.JournalParser.read_lines
    monkeypatch.setattr(
        journal_reader.JournalParser,
        "read_lines",
        lambda self, lines: (taken.append(len(lines)), real(self, lines)),
    )
    continued = plain(load_run(often))
    assert sum(taken) == len(list(entries(80, 30)))  # no line before was read again
    assert continued == plain(load_run(once))
    assert sum(len(steps) for _, steps, *_ in continued[0]) > 100


@pytest.mark.parametrize("harm", ["other journal", "shorter journal", "torn", "not ours", "other settings"])
def test_what_does_not_fit_is_not_believed(folders, harm):
    often, once = folders
    path, journal = often / "restart" / JOURNAL_CACHE, often / "restart/journal.jsonl"
    if harm == "other journal":
        for folder in folders:
            content = (folder / "restart/journal.jsonl").read_text().replace("0.1", "0.5")
            (folder / "restart/journal.jsonl").write_text(content)
    elif harm == "shorter journal":
        for folder in folders:
            lines = (folder / "restart/journal.jsonl").read_text().splitlines(keepends=True)
            (folder / "restart/journal.jsonl").write_text("".join(lines[:20]))
    elif harm == "torn":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "not ours":
        path.write_bytes(b"something else")
    else:
        for folder in folders:
            settings = folder / "restart/settings.json"
            settings.write_text(
                settings.read_text().replace('skip_step_mlff": "10"', 'skip_step_mlff": "20"')
            )
    assert journal.exists()
    assert plain(load_run(often)) == plain(load_run(once))


def test_a_short_journal_leaves_nothing_behind(tmp_path):
    folder = made_up(tmp_path, entries(0, 40))
    load_run(folder)
    assert not (folder / "restart" / JOURNAL_CACHE).exists()


def test_a_line_that_is_being_written_is_read_when_it_is_whole(folders):
    often, once = folders
    line = json.dumps(advanced(5000.0, 0, 550, 560, 0.9)) + "\n"
    with open(often / "restart/journal.jsonl", "a") as file:
        file.write(line[:50])
    before = plain(load_run(often))
    with open(often / "restart/journal.jsonl", "a") as file:
        file.write(line[50:])
    add(once, [advanced(5000.0, 0, 550, 560, 0.9)])
    assert before != plain(load_run(often)) == plain(load_run(once))


def test_a_folder_that_cannot_be_written_is_read_all_the_same(folders, monkeypatch):
    often, once = folders
    (often / "restart" / JOURNAL_CACHE).unlink()

    def refused(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr("os.replace", refused)
    assert plain(load_run(often)) == plain(load_run(once))
