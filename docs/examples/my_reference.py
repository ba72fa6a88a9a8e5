"""A reference: a program that reads an XYZ file from its input and prints JSON with eV and eV/Å."""

import io
import json
import subprocess

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.io import write


class MyProgram(Calculator):
    implemented_properties = ("energy", "forces")

    def __init__(self, command, timeout=600):
        super().__init__()
        self.command, self.timeout = command, timeout

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        text = io.StringIO()
        write(text, self.atoms, format="xyz")
        run = subprocess.run(self.command, input=text.getvalue(), capture_output=True, text=True,
                             check=True, timeout=self.timeout)  # fmt: skip
        answer = json.loads(run.stdout)
        self.results = {"energy": answer["energy"], "forces": np.array(answer["forces"])}
