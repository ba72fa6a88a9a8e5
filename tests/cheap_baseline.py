"""Baselines for tests: scaled EMT that writes down what it computes, and ones that fail or jump as told."""

import os

from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT


class Cheap(EMT):
    """scale × EMT. OUT (environment): a file for a line for each calculation."""

    def __init__(self, scale=0.8, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {name: self.scale * value for name, value in self.results.items()}
        if "CHEAP" in os.environ:
            file = os.open(os.environ["CHEAP"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{atoms.info.get('frame_id')}\n".encode())
            os.close(file)


class Failing(Cheap):
    """Does not converge where the second atom is a hydrogen further than `reach` (Å) from the first."""

    def __init__(self, reach=1.2, **kwargs):
        super().__init__(**kwargs)
        self.reach = reach

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if atoms.numbers[1] == 1 and atoms.get_distance(0, 1) > self.reach:
            raise CalculationFailed("SCF not converged in 250 cycles")
        super().calculate(atoms, properties, system_changes)


class Jumping(Cheap):
    """Another state, `height` eV above, where the first two atoms are further apart than `reach` (Å).

    after: also from its calculation of this number on, as an SCF cycle that starts from its last density may.
    """

    def __init__(self, reach=1.0, height=2.0, after=10**9, **kwargs):
        super().__init__(**kwargs)
        self.reach, self.height, self.after, self.count = reach, height, after, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.count += 1
        if atoms.get_distance(0, 1) > self.reach or self.count >= self.after:
            for name in ("energy", "free_energy"):
                self.results[name] += self.height


class Inconsistent(Cheap):
    """Its forces are not the derivative of its energy."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = 3.0 * self.results["forces"]


class Stressless(Cheap):
    """It computes no stress."""

    implemented_properties = ("energy", "free_energy", "forces")


def without_arguments():
    """A factory that takes no arguments."""
    return Cheap()
