"""Failed frames are written down once, and survive what a crash leaves in the file."""

import ase.io

from aims_pax.errors import Crashed, NotConverged
from aims_pax.frames import Frame
from aims_pax.labelling.quarantine import Quarantine
from tests import worlds

CU, SLAB = worlds.dimer("Cu", 2.5), worlds.slab()


def test_frame_class_reason_and_folder_are_there(tmp_path):
    it = Quarantine(tmp_path)
    it.add(CU, Crashed('exit code 2: "eigensolver"\nfailed', "/calc/failed/x.tar.gz"))
    it.add(SLAB, NotConverged("99 cycles"))
    first, second = it.entries()
    assert (first["frame"], first["class"], first["folder"]) == (CU.id, "Crashed", "/calc/failed/x.tar.gz")
    assert (second["reason"], second["folder"], second["formula"]) == ("99 cycles", None, "Al3")
    read = ase.io.read(tmp_path / "quarantine.xyz", ":")
    assert [a.info["failure"] for a in read] == ["Crashed", "NotConverged"]
    assert [Frame.from_atoms(a).id for a in read] == [CU.id, SLAB.id]


def test_the_same_failure_is_written_once_also_after_a_restart(tmp_path):
    for _ in range(2):
        it = Quarantine(tmp_path)
        it.add(CU, Crashed("again"))
        it.add(CU, Crashed("and again"))
    it.add(CU, NotConverged("something else"))
    assert [e["class"] for e in it.entries()] == ["Crashed", "NotConverged"]


def test_a_torn_line_is_left_out_and_the_next_one_is_whole(tmp_path):
    it = Quarantine(tmp_path)
    it.add(CU, Crashed("one"))
    for path in (it.frames, it.lines):
        path.write_text(path.read_text()[:-1])
    with open(it.lines, "a") as file:
        file.write('\n{"frame": "7f')
    again = Quarantine(tmp_path)
    again.add(SLAB, Crashed("two"))
    assert [e["reason"] for e in again.entries()] == ["one", "two"]
    assert len(ase.io.read(it.frames, ":")) == 2


def test_a_full_disk_does_not_stop_the_run(tmp_path, caplog):
    (tmp_path / "file").touch()
    Quarantine(tmp_path / "file").add(CU, Crashed("x"))
    assert "cannot write" in caplog.text
