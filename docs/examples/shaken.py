"""A sampler: every free atom makes a random step, normally distributed with `sigma` Å."""

from aims_pax.samplers import Sample
from aims_pax.samplers.base import register


class Shaken:
    name = "shaken"

    def __init__(self, sigma=0.05):
        self.sigma = sigma

    def sample(self, systems, n, rng):
        for _ in range(n):
            for system in systems:
                step = rng.normal(0, self.sigma, system.frame.positions.shape)
                if system.frame.fixed is not None:
                    step[system.frame.fixed] = 0
                frame = system.frame.moved(system.frame.positions + step)
                yield Sample(frame, None, {"sampler": self.name, "system": system.name})


register("shaken", Shaken)
