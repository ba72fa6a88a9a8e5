"""AUGMENTATION of aimsPAX.yaml: copies of labelled structures with labels of a Gaussian process, for training."""

from __future__ import annotations

from typing import Annotated

from aims_pax.settings.fields import Kind, Real, Section, Whole, key, one_of

NAME = "AUGMENTATION"
GPR = "gpr"
AugmentationKind = Annotated[str, one_of(GPR), Kind("`str`")]


class AugmentationSettings(Section):
    """AUGMENTATION (optional): train also on perturbed copies of the labelled structures, with labels of a Gaussian
    process, where it is known to be better than the members.
    """

    kind: AugmentationKind = key(
        ...,
        "`gpr`: a [Gaussian process](gaussian_processes.md#copies-for-the-training-of-a-run) that learns the labels of "
        "the run.",
    )
    copies: Whole = key(4, "Copies of each structure.", possible="[1, 1000]", plausible="[1, 20]")
    sigma: Real = key(
        0.03,
        "Standard deviation of the displacements.",
        unit="Å",
        possible="(0, 1]",
        plausible="[0.005, 0.1]",
    )
    weight: Real = key(1.0, "Weight of a copy in the loss; that of a label is 1.", possible="(0, 10]")
    gate: Real = key(
        0.5,
        "Copies are used while the leave-one-out force error of the process is below this share of the validation "
        "force error of the member.",
        possible="(0, 1]",
    )
    max_sd: Real = key(
        0.1,
        "A copy is refused when a force component has a larger standard deviation.",
        unit="eV/Å",
        possible="(0, 10]",
        plausible="[0.01, 0.5]",
    )
    min_labels: Whole = key(
        5, "No copies before a member has so many training structures.", possible="[2, 2000]"
    )
    until_labels: Whole = key(
        100,
        "No copies when a member has more training structures.",
        possible="[2, 2000]",
        plausible="[20, 500]",
    )
    seed: Whole = key(42, "Seed of the displacements.", possible="[0, 4294967295]")
