import csv
import json
import re
from html.parser import HTMLParser

import pytest

from aims_pax.errors import SettingsError
from aims_pax.report import formatting
from aims_pax.report.figures.structures import SCRIPT
from aims_pax.report.html_page import page, write_report
from aims_pax.report.load_run import load_run
from tests.report.folders import advanced, answered, made_up, trained

NASTY = "<script>alert(\"1\")</script> & 'x' <img src=x onerror=y>"


FIGURES = (
    *("learning_forces", "learning_energies", "convergence", "honesty_during", "honesty_delivered"),
    *("parity_energy", "parity_forces", "parity_stress", "errors_energy", "errors_forces", "errors_stress"),
    *("uncertainty_000", "uncertainty_003", "label_energies", "distances", "timeline", "failures"),
)


class Elements(HTMLParser):
    """Counts elements, remembers attributes and text; complains about what is left open."""

    VOID = frozenset({"meta", "link", "br", "i", "img", "wbr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.attributes, self.open, self.text = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_of_a_real_run_has_every_figure_and_table(folder):
    path = write_report(folder)
    text = path.read_text()
    found = Elements(text)
    for name in FIGURES:
        assert name in found.ids, name
        numbers = "uncertainty" if name.startswith("uncertainty") else name
        assert (folder / f"report/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"report/{numbers}.csv").stat().st_size > 20
    assert len(found.ids) == len(set(found.ids))
    assert found.tags.count("table") >= 6
    assert found.tags.count("canvas") >= 1
    assert len(text) < 1_000_000


def test_nothing_is_fetched_from_anywhere(folder):
    text = write_report(folder, pictures=False).read_text()
    addresses = set(re.findall(r"\b(?:https?|ftp|file)://[^\s\"'<>)]*", text)) | set(
        re.findall(r"url\(([^)]*)\)", text)
    )
    outside = {a for a in addresses if not a.startswith(("http://www.w3.org/", "#"))}
    assert not outside
    sources = [v for k, v in Elements(text).attributes if k in ("src", "href", "data", "srcset", "action")]
    assert sources == ["data:,"]
    assert "@import" not in text


def test_numbers_beside_the_page_are_those_of_the_run(folder):
    write_report(folder)
    run = load_run(folder)
    rows = list(csv.DictReader((folder / "report/uncertainty.csv").read_text().splitlines()))
    assert len(rows) == sum(len(t.steps) for t in run.trajectories)
    assert float(rows[0]["uncertainty_eV_A"]) == pytest.approx(run.trajectories[0].uncertainty[0], rel=1e-6)
    summary = json.loads((folder / "report/summary.json").read_text())
    assert summary["labels"] == run.labelled
    assert summary["failed"] == dict(run.failures)
    assert summary["state"] == "finished"
    errors = list(csv.DictReader((folder / "report/errors.csv").read_text().splitlines()))
    assert {r["group"] for r in errors} >= {"copper", "water", "all", "H", "O", "Cu"}


def test_everything_a_stranger_could_have_written_is_escaped(tmp_path):
    told = [advanced(1, 0, 0, 10, 0.1), answered(2, "f0s10", "Crashed", NASTY), trained(3, 0, 5, 0.2)]
    folder = made_up(tmp_path / "run", told)
    path = folder / "restart/settings.json"
    stored = json.loads(path.read_text())
    stored["settings"] |= {"mace.GENERAL.name_exp": NASTY, f"aimsPAX.{NASTY}": NASTY}
    stored["geometries"] = {NASTY: "0"}
    path.write_text(json.dumps(stored))
    (folder / "logs").mkdir()
    (folder / "logs/active_learning.log").write_text(f"2026 · ERROR · {NASTY}\n")
    found = Elements(write_report(folder, pictures=False).read_text())
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert not [k for k, _ in found.attributes if k.startswith("on")]
    assert "".join(found.text).count('alert("1")') >= 4


def test_the_only_script_is_ours(folder):
    text = write_report(folder, pictures=False).read_text()
    assert re.findall(r"<script>(.*?)</script>", text, flags=re.S) == [SCRIPT]


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    text = write_report(made_up(tmp_path / "run")).read_text()
    assert "stopped, not finished" in text
    assert "<figure" not in text


def test_a_live_page_reads_itself_again_and_a_finished_one_does_not(folder):
    finished = page(load_run(folder))[0]
    assert 'http-equiv="refresh"' not in finished
    from dataclasses import replace

    live = page(replace(load_run(folder), state="running"))[0]
    assert 'http-equiv="refresh"' in live


def test_a_long_run_has_a_small_page(tmp_path):
    told = [
        advanced(k, k % 3, 10 * (k // 3), 10 * (k // 3) + 10, 0.1 + (k * 7919 % 997) / 2000)
        for k in range(30_000)
    ]
    run = load_run(made_up(tmp_path / "run", told))
    assert len(page(run)[0]) < 400_000


def test_no_run_no_page(tmp_path):
    with pytest.raises(SettingsError, match="no aims-PAX run"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_read_well():
    assert [formatting.format_number(v) for v in (0, 3.14159, 1234.5, 0.0123456, 67.44, float("nan"))] == [
        "0", "3.14", "1234", "0.0123", "67.4", "—",
    ]  # fmt: skip
    assert [formatting.duration(s) for s in (0.5, 45, 140, 3 * 3600 + 300, 52 * 3600 * 24, float("nan"))] == [
        "0.5 s", "45 s", "2 min 20 s", "3 h 05 min", "52 d 0 h", "—",
    ]  # fmt: skip
    assert formatting.compact(203) == ("3.4", "min")
    assert formatting.compact(30 * 3600) == ("30", "h")
    assert (formatting.plural(1, "label"), formatting.plural(2, "label")) == ("1 label", "2 labels")
