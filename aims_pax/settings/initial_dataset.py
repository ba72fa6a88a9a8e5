"""INITIAL_DATASET_GENERATION in aimsPAX.yaml: the first structures and the members trained on them."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import field_validator

from aims_pax.settings.active_learning import Criterion, FinalTraining
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.fields import (
    COUNT,
    LIMIT,
    MEV,
    Flag,
    Kind,
    Limit,
    OptionalText,
    Real,
    Section,
    Table,
    Text,
    Whole,
    key,
    one_of,
)

Sampling = Annotated[
    str, one_of("mace-mp0", *BUNDLED, "aimd", "calculator", foundational="mace-mp0"), Kind("`str`")
]


class FactorySettings(Section):
    """Any ASE calculator, given as a Python callable that returns it."""

    factory: Text = key(
        ...,
        'Callable that returns an ASE calculator, `"package.module:callable"`, also from a module in the '
        "working folder; or `so3lr` or `chgnet`.",
    )
    kwargs: Table = key({}, "Keyword arguments of that callable.")

    @field_validator("factory")
    @classmethod
    def _short(cls, factory: str) -> str:
        return BUNDLED[factory].calculator if factory in BUNDLED else factory


class InitialDatasetSettings(Section):
    """INITIAL_DATASET_GENERATION: the first structures and the ensemble trained on them."""

    species_dir: OptionalText = key(
        None,
        "Folder of the FHI-aims species defaults; the same in both sections.",
        mandatory="the reference is FHI-aims",
    )
    n_points_per_sampling_step_idg: Whole = key(
        ...,
        "Structures sampled at each step for each member of the ensemble (or for all members together, with "
        "`distinct_model_sets: False`) and each geometry.",
        possible=COUNT,
        plausible="[1, 1000]",
    )
    analysis: Flag = key(False, "Save the losses of the members to `analysis/initial_losses.npz`.")
    desired_acc: Real = key(
        0.0,
        "Target force MAE (eV/Å) on the validation set; this stage stops at `desired_acc` × "
        "`desired_acc_scale_idg`. 0: no such criterion.",
        unit="eV/Å",
        possible="[0, inf)",
        plausible="[0.0005, 1]",
        usual=0.02,
        unit_confusions=MEV,
    )
    desired_acc_scale_idg: Real = key(
        10.0,
        "Factor by which `desired_acc` is multiplied in this stage.",
        possible="(0, inf)",
        plausible="[1, 100]",
    )
    ensemble_size: Whole = key(
        4, "Number of members; the same in both sections.", possible=COUNT, plausible="[1, 20]"
    )
    distinct_model_sets: Flag = key(
        True,
        "Whether each member gets structures of its own in this stage (`True`), or all members share one set, so that "
        "an ensemble costs no more labels than one model (`False`).",
    )
    initial_foundational_size: Text = key(
        "small",
        "Size of the foundation model (`small`, `medium`, `large`, …) for MD with `initial_sampling: mace-mp0`, or the "
        "path of a model file. A foundation model is downloaded at first use.",
    )
    initial_sampling: Sampling = key(
        "mace-mp0",
        "Where the first structures come from: MD with a [foundation model](foundation_models.md) (`mace-mp0`, "
        "downloaded at first use; `so3lr` for molecules and `chgnet` for crystals, installed by the extras of these "
        "names), with the reference itself (`aimd`), or with the calculator of `initial_calculator` (`calculator`).",
    )
    initial_calculator: FactorySettings | None = key(
        None, "`{factory, kwargs}` of the calculator for `initial_sampling: calculator`."
    )
    intermediate_epochs_idg: Whole = key(
        5, "Training epochs after each growth of the dataset.", possible=COUNT, plausible="[1, 1000]"
    )
    max_initial_epochs: Limit = key(
        math.inf, "Maximum number of training epochs in this stage.", possible=LIMIT
    )
    max_initial_set_size: Limit = key(
        math.inf, "Training set size at which this stage stops.", possible=LIMIT
    )
    progress_dft_update: Whole = key(
        10, "Reference calculations between two progress messages in the log.", possible=COUNT
    )
    scheduler_initial: Flag = key(True, "Use the learning rate scheduler in this stage.")
    skip_step_initial: Whole = key(
        25, "MD steps between two sampled structures.", possible=COUNT, plausible="[5, 10000]"
    )
    valid_ratio: Real = key(
        0.1,
        "Fraction of the labelled structures used for validation.",
        possible="[0, 1)",
        plausible="[0.02, 0.5]",
    )
    valid_skip: Whole = key(
        1, "Training epochs between two validations.", possible=COUNT, plausible="[1, 100]"
    )
    converge_initial: Flag = key(
        False, "Converge the members on the initial dataset at the end of this stage."
    )
    convergence_patience: Whole = key(
        50,
        "Epochs without improvement before convergence ends; not while errors fall so fast that they will be below the "
        "best before as many epochs again.",
        possible=COUNT,
    )
    convergence_criterion: Criterion = key(
        "force_mae", "What decides on the best epoch of this convergence; as in `ACTIVE_LEARNING`."
    )
    final_training: FinalTraining = key(
        "continued", "Weights with which this convergence begins; as in `ACTIVE_LEARNING`."
    )
    margin: Real = key(
        0.002,
        "Smallest decrease of the validation loss that counts as an improvement (in the unit of the loss); in "
        "convergence only with `convergence_criterion: loss`.",
        possible="[0, inf)",
        plausible="[0, 1]",
    )
    max_convergence_epochs: Whole = key(500, "Maximum number of epochs of convergence.", possible=COUNT)
