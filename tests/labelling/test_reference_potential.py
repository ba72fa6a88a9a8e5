"""The reference as a potential, as ab initio MD uses it."""

from concurrent.futures import Future

import numpy as np
import pytest

from aims_pax.errors import NotFinite
from aims_pax.frames import Label
from aims_pax.labelling.reference_potential import ReferencePotential
from tests import worlds
from tests.labelling.labellers import Scripted, calculator, labeller, of_two_controls, same

FRAMES = worlds.rattled(worlds.ethanol(), 6)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def test_as_a_potential_every_force_is_a_stored_label(folder):
    with labeller(calculator(worlds.XTB), folder) as it:
        potential = ReferencePotential(it)
        labels = potential.labels(FRAMES[:2])
        bound = potential.bind(FRAMES[:2])
        import torch

        positions = torch.from_numpy(np.concatenate([f.positions for f in FRAMES[:2]]))
        evaluation = bound(positions, torch.zeros(2, 3, 3, dtype=torch.float64))
        np.testing.assert_array_equal(evaluation.energies.numpy()[0], [label.energy for label in labels])
        forces = np.concatenate([label.forces for label in labels])
        np.testing.assert_array_equal(evaluation.forces.numpy()[0], forces)
        assert it.calls.finished == 2
        assert it.calls.reused == 2


def test_a_potential_raises_the_frames_failure(folder):
    with labeller(Scripted([NotFinite("NaN")]), folder) as it, pytest.raises(NotFinite):
        ReferencePotential(it).labels(FRAMES[:1])


def test_ab_initio_md_runs_each_geometry_with_its_own_control(tmp_path, folder):
    from aims_pax.samplers.kinds.aimd import AbInitioMDSampler
    from aims_pax.systems import System
    from tests.md.settings import langevin

    systems = [System("molecule", worlds.water()), System("cell", worlds.crystal())]
    with labeller(of_two_controls(tmp_path, count=tmp_path / "count"), folder, "threads") as it:
        sampler = AbInitioMDSampler(ReferencePotential(it), lambda system: langevin(100), 1)
        samples = list(sampler.sample(systems, 1, np.random.default_rng(1)))
        for sample in samples:
            known = it.known(sample.frame, str(sample.origin["system"]))
            assert known is not None
            assert same(known, sample.label)
        assert it.known(samples[0].frame, "cell") is None
    assert len((tmp_path / "count").read_text().splitlines()) == 4, "the start and one step of each"


def test_each_frame_is_asked_for_by_the_method_of_its_own_geometry():
    asked = []

    class Notes:
        """A labeller that notes what it is asked."""

        def submit(self, frame, system):
            asked.append((frame.id, system))
            future = Future()
            future.set_result(Label(-1.0 * len(frame), np.zeros((len(frame), 3))))
            return future

        def method_of(self, system):
            return f"method of {system}"

        def check(self):
            pass

    frames = [worlds.water(), worlds.crystal()]
    names = {frames[0].formula: "molecule", frames[1].formula: "cell"}
    plain = ReferencePotential(Notes())
    potential = plain.of(lambda frame: names[frame.formula])
    assert [label.energy for label in potential.labels(frames)] == [-3.0, -4.0]
    assert asked == [(frames[0].id, "molecule"), (frames[1].id, "cell")]
    plain.labels(frames[:1])
    assert asked[-1] == (frames[0].id, None)
    assert potential.method_of("cell") == "method of cell"
