"""The given test set and files of labels in report and card: counted where they belong, no more claimed than known."""

from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.data_sources import frames_by_set, method_of_labels, source_rows
from aims_pax.report.html_page import page
from aims_pax.report.model_card import card

CHECK = {"file": "mine.xyz", "structures": 4, "force": 0.001, "energy": 0.0001, "shift": 0.0}


@pytest.fixture
def tested(run):
    """The recorded run with two structures of a test set of the user."""
    p = {k: np.array(v) for k, v in run.predictions.items()}
    p["split"] = p["split"].astype("U8")
    p["split"][np.flatnonzero(p["split"] == "valid")[:2]] = "test set"
    settings = {**run.settings, "aimsPAX.MISC.test_set": "mytest.xyz"}
    return replace(run, predictions=p, settings=settings)


def given(run, *files):
    """The run with all its labels from these files, in turns."""
    return replace(
        run,
        structures=tuple(
            replace(s, info={**s.info, "source": f"given:{files[k % len(files)]}#{k}"})
            for k, s in enumerate(run.structures)
        ),
    )


def test_the_given_test_set_is_counted_in_a_row_of_its_own(run, tested):
    assert frames_by_set(tested) == {**run.counts(), "given test set (mytest.xyz)": {"test": 2}}
    text = card(tested, "tiny_255.model")
    assert "| given test set (mytest.xyz) | 0 | 0 | 2 |" in text
    own = sum(row.get("test", 0) for row in run.counts().values())
    assert text.split("| all |")[1].splitlines()[0].endswith(f"| {own + 2} |")
    assert "| given in mytest.xyz (test set) | 2 |" in text
    html, *_ = page(tested)
    assert "<td class=t>given test set (mytest.xyz)</td>" in html


def test_where_nothing_was_given_nothing_is_added(run):
    assert frames_by_set(run) == run.counts()
    assert source_rows(run) == []
    assert method_of_labels(run).endswith("(hash of everything that determines a label).")


def test_the_method_of_given_data_is_what_the_user_says_unless_it_was_compared(run, tested):
    alone = given(run, "mine.xyz")
    said = method_of_labels(alone)
    assert said.startswith(
        f"All {sum(alone.sources().values())} labelled frames were given in files (see Data)."
    )
    assert "The method of mine.xyz is what whoever gave the data says it is: no label was compared" in said
    assert "None of the labels is of the reference of this run, method " in said
    assert "0 of" not in said
    mixed = replace(run, structures=(*alone.structures[:3], *run.structures[3:]))
    total = sum(run.sources().values())
    assert f"It applies to {total - 3} of {total} labelled frames; the other 3 were" in method_of_labels(
        mixed
    )
    known = method_of_labels(replace(alone, given_check=(CHECK,)))
    assert "Labels in mine.xyz were compared with those of the reference for a few structures" in known
    assert "whoever gave" not in known
    both = method_of_labels(replace(given(tested, "mine.xyz", "b.xyz"), given_check=(CHECK,)))
    assert "Labels in mine.xyz were compared" in both
    assert "The method of b.xyz and mytest.xyz is what whoever gave the data says it is" in both
    assert "The method of mytest.xyz is what" in method_of_labels(tested)
