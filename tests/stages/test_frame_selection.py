"""Which of a window's uncertain frames are labelled."""

import numpy as np
from ase.build import molecule

from aims_pax.core.work import SelectFrames
from aims_pax.frames import Frame
from aims_pax.stages.frame_selection import FrameSelection

WATER = molecule("H2O")


def stretched(by):
    atoms = WATER.copy()
    atoms.set_distance(0, 1, 0.9686 + by, fix=0)
    return Frame.from_atoms(atoms)


def choose(candidates, n, known=(), rule="diverse"):
    """candidates: {name: (stretch in Å, uncertainty)}."""
    frames = {name: stretched(by) for name, (by, _) in candidates.items()}
    frames |= {f"known {by}": stretched(by) for by in known}
    labelled = [name for name in frames if name.startswith("known")]
    work = SelectFrames(0, tuple(candidates), tuple(u for _, u in candidates.values()), n)
    return FrameSelection([1, 8], rule).choose(work, labelled, frames.__getitem__)


def test_two_like_frames_are_not_both_chosen():
    candidates = {"a": (0.20, 1.0), "twin of a": (0.201, 0.99), "b": (-0.10, 0.5)}
    assert set(choose(candidates, 2)) == {"a", "b"}
    assert choose(candidates, 2, rule="spread") == ("a", "twin of a")


def test_a_frame_like_a_labelled_one_comes_last():
    candidates = {"near": (0.2, 1.0), "new": (-0.15, 0.6)}
    assert choose(candidates, 1, known=[0.201]) == ("new",)


def test_of_equally_new_frames_the_more_uncertain_is_chosen():
    assert choose({"a": (0.2, 0.4), "b": (0.2001, 0.8)}, 1, known=[0.0]) == ("b",)


def test_the_order_of_atoms_and_their_place_in_space_do_not_matter():
    turned = WATER.copy()
    turned.rotate(40, (1, 2, 3))
    turned.positions += 3.0
    frames = {
        "a": stretched(0.2),
        "turned": Frame.from_atoms(turned[[0, 2, 1]]),
        "known": Frame.from_atoms(WATER),
    }
    chosen = FrameSelection([1, 8]).choose(
        SelectFrames(0, ("turned", "a"), (1.0, 0.01), 1), ["known"], frames.__getitem__
    )
    assert chosen == ("a",)


def test_systems_of_different_elements_are_compared():
    frames = {"w": stretched(0.1), "m": Frame.from_atoms(molecule("CH4")), "known": stretched(0.0)}
    chosen = FrameSelection([1, 6, 8]).choose(
        SelectFrames(0, ("w", "m"), (1.0, 1.0), 1), ["known"], frames.__getitem__
    )
    assert chosen == ("m",)


def test_the_same_candidates_give_the_same_choice():
    rng = np.random.default_rng(0)
    candidates = {f"c{k}": (float(b), float(u)) for k, (b, u) in enumerate(rng.random((30, 2)) * [0.3, 1])}
    assert choose(candidates, 8) == choose(candidates, 8)


def test_at_random_every_window_has_its_own_draw():
    frames = {f"c{k}": stretched(0.01 * k) for k in range(20)}
    works = [SelectFrames(v, tuple(frames), (1.0,) * 20, 3) for v in (0, 0, 1)]
    a, again, b = (FrameSelection([1, 8], "random").choose(w, [], frames.__getitem__) for w in works)
    assert a == again
    assert a != b


def test_given_structures_with_other_elements_do_not_disturb():
    frames = {"a": stretched(0.1), "known": Frame.from_atoms(molecule("CH4"))}
    work = SelectFrames(0, ("a",), (1.0,), 1)
    assert FrameSelection([1, 8]).choose(work, ["known"], frames.__getitem__) == ("a",)
