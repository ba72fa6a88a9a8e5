"""Labellers and references for the tests of this room."""

from dataclasses import dataclass

import numpy as np

from aims_pax.labelling import Labeller
from aims_pax.labelling.factory import make_executor
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.labelling.references.fhi_aims import AimsReference
from aims_pax.settings.control_in import read_control
from tests import worlds


def labeller(reference, folder, kind="inline", workers=2):
    if not isinstance(kind, str):
        return Labeller(reference, folder, kind)
    return Labeller(
        reference, folder, make_executor(kind, workers, folder.parent / "logs" / "parsl", folder.parent)
    )


def calculator(section, folder=None):
    return CalculatorReference(section["factory"], section.get("kwargs", {}), folder)


def same(a, b):
    return a.energy == b.energy and np.array_equal(a.forces, b.forces)


@dataclass(frozen=True)
class Scripted:
    """Answers from a list: a Label, an exception, or something strange."""

    answers: list
    quick = True

    def describe(self):
        return {"type": "scripted"}

    def check(self):
        pass

    def label(self, frame):
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self):
        pass


def of_two_controls(tmp_path, **options):
    species = worlds.write_species(tmp_path / "species")
    controls = {}
    for name, text in (("cell", worlds.CONTROL_PERIODIC), ("molecule", worlds.CONTROL)):
        (tmp_path / name).write_text(text)
        controls[name] = read_control(tmp_path / name)
    return AimsReference(
        control=controls["cell"], controls=controls, species_dir=species,
        launch=worlds.launch("emt", **options), calc_dir=tmp_path / "calc",
    )  # fmt: skip
