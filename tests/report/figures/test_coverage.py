import io

import matplotlib.image
import numpy as np

from aims_pax.report.figures.coverage import coverage_picture, principal_components


def test_components_are_the_directions_of_largest_variance_with_a_fixed_sign():
    rng = np.random.default_rng(0)
    directions = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0]])
    points = rng.normal(size=(500, 2)) * [5, 1] @ directions + [1, 2, 3]
    mean, axes = principal_components(points)
    np.testing.assert_allclose(mean, points.mean(0))
    assert axes[0] @ directions[0] > 0.99
    assert abs(axes[1] @ directions[1]) > 0.99
    np.testing.assert_allclose(principal_components(points[::-1])[1], axes, atol=1e-9)


def test_one_dimension_still_has_two_axes():
    _, axes = principal_components(np.arange(5.0)[:, None])
    assert axes.tolist() == [[1.0], [0.0]]


def test_the_picture_shows_pool_known_and_chosen_structures():
    points = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)
    with_known = matplotlib.image.imread(io.BytesIO(coverage_picture(points, [3, 50, 7], points[:9] + 1)))
    without = matplotlib.image.imread(io.BytesIO(coverage_picture(points, [3, 50, 7])))
    assert with_known.shape[0] > 400

    def coloured(image, colour):
        return int((np.abs(image[..., :3] - np.array(colour) / 255).max(-1) < 0.08).sum())

    assert coloured(without, (0xC9, 0x85, 0x00)) > 100, "rings of the chosen"
    assert coloured(with_known, (0x00, 0x72, 0xB2)) > coloured(without, (0x00, 0x72, 0xB2)) + 50, (
        "crosses of the known"
    )
