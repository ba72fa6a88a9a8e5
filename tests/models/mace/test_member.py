import numpy as np
import pytest
import torch

from aims_pax.errors import RestartError
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.member import Member, ValidationProgress
from tests.models.mace.tiny import settings


@pytest.fixture(scope="module")
def member():
    return Member("m_1", 1, build_model(settings(), (1, 8), 1), settings())


def test_improvement_means_better_by_more_than_the_margin():
    progress = ValidationProgress()
    looks = [progress.look(loss, 10, 0.1) for loss in (5.0, 4.95, 4.9, 4.8, 6.0)]
    assert looks == [True, False, False, True, False]
    assert (progress.best, progress.stale) == (4.8, 1)


def test_a_loss_that_is_not_finite_is_no_improvement():
    progress = ValidationProgress()
    assert [progress.look(loss, 10, 0.0) for loss in (2.0, np.nan, np.inf)] == [True, False, False]
    assert progress.stale == 2


def test_a_loss_that_is_not_finite_on_new_frames_can_be_beaten():
    progress = ValidationProgress()
    assert [progress.look(1.0, 10, 0.1), progress.look(np.nan, 11, 0.1), progress.look(3.0, 11, 0.1)] == [
        True,
        False,
        True,
    ]


def test_weights_arrays_of_another_architecture_are_refused(member):
    other = Member("m_2", 2, build_model(settings(num_channels=4), (1, 8), 2), settings())
    with pytest.raises(RestartError, match="m_1 belong to another architecture"):
        member.set_weights_arrays(other.weights_arrays())


def test_the_tail_is_the_sum_since_the_last_restart(member):
    first = [w.detach().clone() for w in member.weights]
    member.swa.add(member.weights, restart=True)
    member.swa.add(member.weights, restart=False)
    assert member.swa.epochs == 2
    torch.testing.assert_close(member.swa.sum[0], 2 * first[0])
    member.swa.add(member.weights, restart=True)
    assert member.swa.epochs == 1


def test_a_frozen_copy_has_the_averaged_weights_and_shares_nothing(member):
    with torch.no_grad():
        member.weights[0].add_(1.0)
    copied = dict(member.frozen_copy().named_parameters())
    name = next(iter(member.parameters))
    assert torch.equal(copied[name], member.average.shadow[0])
    assert not copied[name].requires_grad
    assert copied[name].data_ptr() != member.average.shadow[0].data_ptr()
