"""What a run will need: parameters and memory against the models themselves."""

import pytest

from aims_pax.commands.plan import plan
from aims_pax.models.mace.resource_estimates import estimate_parameters
from tests.projects import write_project
from tests.worlds import crystal


def test_parameters_are_those_of_the_models_within_a_tenth(tmp_path):
    from aims_pax.models.mace.build import build_model
    from aims_pax.settings import read_settings

    for shape in ({"num_channels": 32, "max_L": 1}, {"num_channels": 48, "max_L": 0, "num_interactions": 1}):
        folder = write_project(
            tmp_path / str(shape["num_channels"]),
            mace={"ARCHITECTURE": {**shape, "correlation": 2, "max_ell": 3}},
        )
        settings = read_settings(folder)
        model = build_model(settings.mace, (1, 8), 0)
        truth = sum(p.numel() for p in model.parameters())
        assert estimate_parameters(settings, 2) == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize(("what", "training"), [("moving", False), ("training", True)])
def test_memory_is_that_of_tensors_saved_for_the_backward_pass_within_a_factor_of_two(
    tmp_path, what, training
):
    import torch

    from aims_pax.models.mace.build import build_model
    from aims_pax.models.mace.export import inputs
    from aims_pax.settings import read_settings

    one = {"ACTIVE_LEARNING": {"num_trajectories": 1}}
    shape = {"num_channels": 64, "max_L": 1, "correlation": 3, "max_ell": 3, "r_max": 4.0}
    folder = write_project(
        tmp_path,
        one,
        {"ARCHITECTURE": shape, "GENERAL": {"default_dtype": "float64"}, "TRAINING": {"batch_size": 1}},
        {"copper": crystal("Cu", 2)},
    )
    settings = read_settings(folder)
    model = build_model(settings.mace, (29,), 0)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    sizes, kept = {}, []

    def note(tensor):
        kept.append(tensor)  # freed memory would be counted once for two tensors
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(inputs(crystal("Cu", 2), (29,), 4.0), training=training, compute_force=True)
    saved = sum(size for pointer, size in sizes.items() if pointer not in own) / 1e6
    assert saved / 2 < plan(folder)["memory_MB"][what] < 2 * saved
