"""aimsPAX.yaml: the initial dataset, active learning, files, and the reference method."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import BeforeValidator, field_validator, model_validator

from aims_pax.settings.calculator_conventions import check_keys
from aims_pax.settings.callables import registered_factory
from aims_pax.settings.cluster import Seconds
from aims_pax.settings.fields import (
    Flag,
    Kind,
    Limit,
    OptionalRealOrMap,
    OptionalText,
    OptionalTextOrMap,
    OptionalTexts,
    OptionalWhole,
    OptionalWholeOrMap,
    Real,
    Section,
    Table,
    Text,
    TextOrMap,
    Texts,
    Whole,
    as_whole,
    key,
    one_of,
    optional,
)
from aims_pax.settings.md import MDSettings

__all__ = [
    "ActiveLearningSettings",
    "FactorySettings",
    "InitialDatasetSettings",
    "MDSettings",
    "MiscSettings",
    "ReferenceSettings",
]

COUNT = "[1, inf)"
LIMIT = "[1, inf]"
MEV = {"meV/Å": 1e-3}

Sampling = Annotated[str, one_of("mace-mp0", "aimd", "calculator", foundational="mace-mp0"), Kind("`str`")]
Spread = Annotated[str, one_of("max_atomic_sd", "mean_atomic_sd", "ensemble_sd"), Kind("`str`")]
Sharing = Annotated[str, one_of("shared", "per_system"), Kind("`str`")]
DrivingForce = Annotated[str, one_of("mean", "member"), Kind("`str`")]
Replay = Annotated[str, one_of("full_dataset", "random_subset"), Kind("`str`")]
SpinConvention = Annotated[str, one_of("None", "multiplicity", "unpaired_electrons"), Kind("`str` or `None`")]
Method = Annotated[str, one_of("aims", "calculator", fhi_aims="aims"), Kind("`str`")]


def _seeds(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise ValueError("expected a table {tag: seed}")
    seeds = {str(tag): as_whole(seed) for tag, seed in value.items()}
    if len(set(seeds.values())) < len(seeds):
        twice = next(s for s in seeds.values() if list(seeds.values()).count(s) > 1)
        raise ValueError(
            f"seed {twice} is given to two members, which would then be one; expected different seeds"
        )
    return seeds


Seeds = Annotated[dict[str, int] | None, optional(_seeds), Kind("`dict` or `None`")]


# keywords of control.in that define what is computed: two values of them would mix two methods
_METHOD = (
    "xc relativistic k_grid k_grid_density k_offset charge spin fixed_spin_moment vdw_correction_hirshfeld "
    "many_body_dispersion many_body_dispersion_nl hybrid_xc_coeff hse_unit compute_forces"
)
METHOD = frozenset(_METHOD.split())


def _rungs(value: object) -> tuple[dict[str, str | int | float | bool], ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of tables {keyword: value}")
    for rung in value:
        if not isinstance(rung, dict) or not rung:
            raise ValueError(f"expected a table {{keyword: value}} for each retry, got {rung!r}")
        for word, wanted in rung.items():
            if str(word) in METHOD:
                raise ValueError(
                    f"{word} defines the method; labels with another value would not fit the others"
                )
            if not isinstance(wanted, str | int | float | bool):
                raise ValueError(f"{word}: expected a value, got {wanted!r}")
    return tuple({str(k): v for k, v in rung.items()} for rung in value)


Rungs = Annotated[tuple[dict[str, str | int | float | bool], ...], BeforeValidator(_rungs), Kind("`list`")]


class FactorySettings(Section):
    """Any ASE calculator, named by the Python callable that makes it."""

    factory: Text = key(
        ...,
        'Callable that returns an ASE calculator, `"package.module:callable"`, also from a module in the '
        "working folder.",
    )
    kwargs: Table = key({}, "Keyword arguments of that callable.")


class InitialDatasetSettings(Section):
    """INITIAL_DATASET_GENERATION: the first structures and the ensemble trained on them."""

    species_dir: OptionalText = key(
        None,
        "Folder of the FHI-aims species defaults; the same in both sections.",
        mandatory="the reference is FHI-aims",
    )
    n_points_per_sampling_step_idg: Whole = key(
        ...,
        "Structures sampled at each step for each member of the ensemble and each geometry.",
        possible=COUNT,
        plausible="[1, 1000]",
    )
    analysis: Flag = key(False, "Save the losses of the members to `analysis/initial_losses.npz`.")
    desired_acc: Real = key(
        0.0,
        "Force MAE (eV/Å) on the validation set to reach; this stage stops at `desired_acc` × "
        "`desired_acc_scale_idg`. 0: no such criterion.",
        unit="eV/Å",
        possible="[0, inf)",
        plausible="[0.0005, 1]",
        usual=0.02,
        unit_confusions=MEV,
    )
    desired_acc_scale_idg: Real = key(
        10.0, "Factor on `desired_acc` during this stage.", possible="(0, inf)", plausible="[1, 100]"
    )
    ensemble_size: Whole = key(
        4, "Number of members; the same in both sections.", possible=COUNT, plausible="[1, 20]"
    )
    initial_foundational_size: Text = key(
        "small",
        "Size of the foundation model (`small`, `medium`, `large`, …) that moves the atoms when "
        "`initial_sampling` is `mace-mp0`, or the path of a model file. A size is downloaded at first use.",
    )
    initial_sampling: Sampling = key(
        "mace-mp0",
        "Where the first structures come from: MD with a foundation model (`mace-mp0`, recommended), with "
        "the reference itself (`aimd`), or with the calculator of `initial_calculator` (`calculator`).",
    )
    initial_calculator: FactorySettings | None = key(
        None, "`{factory, kwargs}` of the calculator for `initial_sampling: calculator`."
    )
    intermediate_epochs_idg: Whole = key(
        5, "Training epochs after each growth of the dataset.", possible=COUNT, plausible="[1, 1000]"
    )
    max_initial_epochs: Limit = key(math.inf, "Most training epochs in this stage.", possible=LIMIT)
    max_initial_set_size: Limit = key(
        math.inf, "Training structures after which this stage stops.", possible=LIMIT
    )
    progress_dft_update: Whole = key(
        10, "Log progress after this many reference calculations.", possible=COUNT
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
        False, "Converge the members on the initial dataset once this stage stopped."
    )
    convergence_patience: Whole = key(
        50, "Epochs without improvement before convergence ends.", possible=COUNT
    )
    margin: Real = key(
        0.002,
        "Decrease of the validation loss that counts as an improvement (in the unit of the loss).",
        possible="[0, inf)",
        plausible="[0, 1]",
    )
    max_convergence_epochs: Whole = key(500, "Most epochs of convergence.", possible=COUNT)


class ActiveLearningSettings(Section):
    """ACTIVE_LEARNING: trajectories that call the reference where the ensemble disagrees."""

    species_dir: OptionalText = key(
        None,
        "Folder of the FHI-aims species defaults; the same in both sections.",
        mandatory="the reference is FHI-aims",
    )
    num_trajectories: Whole = key(
        ...,
        "Trajectories that explore at the same time. Geometries are dealt to them in turn.",
        possible=COUNT,
        plausible="[1, 1000]",
    )
    analysis: Flag = key(
        False,
        "Label structures at fixed intervals and save predictions, errors and uncertainties to `analysis/`.",
    )
    analysis_skip: Whole = key(50, "MD steps between two analysis calculations.", possible=COUNT)
    c_x: Real = key(
        0.0,
        "Threshold = (1 + `c_x`) × mean of the recent uncertainties: below 0 tightens, above 0 relaxes.",
        possible="[-1, inf)",
        plausible="[-0.9, 10]",
    )
    desired_acc: Real = key(
        0.0,
        "Force MAE (eV/Å) on the validation set at which active learning stops. 0: no such criterion.",
        unit="eV/Å",
        possible="[0, inf)",
        plausible="[0.0005, 1]",
        usual=0.02,
        unit_confusions=MEV,
    )
    ensemble_size: Whole = key(
        4,
        "Number of members; the same in both sections. One is enough for a kind of model that tells its uncertainty "
        "by itself.",
        possible=COUNT,
        plausible="[1, 20]",
    )
    epochs_per_worker: Whole = key(
        2, "Training epochs for each new training structure.", possible=COUNT, plausible="[1, 100]"
    )
    freeze_threshold_dataset: Limit = key(
        math.inf, "Training set size at which the threshold is frozen; inf: never.", possible=LIMIT
    )
    intermediate_epochs_al: Whole = key(
        1, "Epochs of one visit to training; other trajectories move in between.", possible=COUNT
    )
    margin: Real = key(
        0.002,
        "Decrease of the validation loss that counts as an improvement (in the unit of the loss).",
        possible="[0, inf)",
        plausible="[0, 1]",
    )
    max_MD_steps: Limit = key(math.inf, "Most MD steps of each trajectory.", possible=LIMIT)
    max_train_set_size: Limit = key(
        math.inf, "Training set size at which active learning stops.", possible=LIMIT
    )
    seeds_tags_dict: Seeds = key(
        None,
        "Seeds of the members, `{tag: seed}`; `None`: drawn from `GENERAL.seed`.",
        possible="[0, 4294967295]",
    )
    skip_step_mlff: Whole = key(
        25, "MD steps between two checks of the uncertainty.", possible=COUNT, plausible="[1, 1000]"
    )
    uncertainty_type: Spread = key(
        "max_atomic_sd",
        "Uncertainty of a structure: largest (`max_atomic_sd`) or mean (`mean_atomic_sd`) spread of the "
        "members' forces on an atom, or each atom for itself (`ensemble_sd`).",
    )
    uncert_not_crossed_limit: Limit = key(
        50000,
        "MD steps without crossing the threshold after which a structure is labelled anyway.",
        possible=LIMIT,
        plausible="[100, inf]",
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
    threshold: Sharing = key(
        "shared", "One uncertainty threshold for all geometries (`shared`) or one for each (`per_system`)."
    )
    max_labels: Limit = key(
        math.inf, "Budget: reference calculations of active learning after which it stops.", possible=LIMIT
    )
    n_test: Whole = key(
        0,
        "Structures labelled at random times and used for nothing but the final test errors.",
        possible="[0, inf)",
        plausible="[0, 10000]",
    )
    initial_train_dataset: OptionalTextOrMap = key(
        None,
        "extxyz file with labelled training structures to start from, or one for each member "
        "`{member: path}`.",
    )
    initial_valid_dataset: OptionalTextOrMap = key(
        None, "The same for validation; without it `valid_ratio` of the training structures are set aside."
    )
    initial_models: OptionalTexts = key(
        None, "Model files (of MACE: `.model`) to start from, one for each member."
    )
    md_force: DrivingForce = key(
        "mean",
        "Forces that drive the trajectories: the `mean` of all members, or of one `member` each (trajectory i by "
        "member i mod `ensemble_size`), the others being evaluated only when the uncertainty is checked: several "
        "times faster.",
    )
    replay_strategy: Replay = key(
        "full_dataset",
        "What a training visit sees besides the new structures: everything (`full_dataset`), or a fresh random "
        "part (`random_subset`), which keeps the cost of a label the same however many there are.",
    )
    train_subset_size: Whole = key(
        100, "Training structures of a visit under `random_subset`.", possible=COUNT, plausible="[20, 100000]"
    )
    valid_subset_size: Whole = key(
        50,
        "Validation structures used under `random_subset`.",
        possible="[10, inf)",
        plausible="[20, 100000]",
    )
    converge_al: Flag = key(True, "Converge on the final dataset after active learning.")
    converge_best: Flag = key(True, "Converge only the best member; the others go to `results/committee/`.")
    convergence_patience: Whole = key(
        50, "Epochs without improvement before convergence ends.", possible=COUNT
    )
    max_convergence_epochs: Whole = key(500, "Most epochs of convergence.", possible=COUNT)


class MiscSettings(Section):
    """MISC: where files lie and how they are read."""

    create_restart: Flag = key(True, "Save the state of the run, so that the same command continues it.")
    dataset_dir: Text = key("./data", "Folder of the datasets.")
    log_dir: Text = key("./logs", "Folder of the logs.")
    path_to_control: TextOrMap = key(
        "./control.in",
        "FHI-aims control file; or one for each geometry, `{geometry file: control file}`, so that molecules "
        "and crystals mix.",
    )
    path_to_geometry: Texts = key(
        "./geometry.in",
        "Geometry file, folder of ASE-readable files, or list of files; of a file with several structures `file@0`, "
        "`file@-1` (the last) or `file@:` (all).",
    )
    charge: OptionalRealOrMap = key(
        None,
        "Total charge (e) of the geometries; or one for each, `{geometry file: charge}`. `None`: as the geometry file "
        "says, else as `control.in` or `REFERENCE.kwargs` say, else neutral. Two of them that differ are refused.",
        unit="e",
        possible="[-1000, 1000]",
        plausible="[-20, 20]",
    )
    spin: OptionalWholeOrMap = key(
        None,
        "Spin multiplicity 2S+1 of the geometries (1: closed shell, 2: one unpaired electron); or one for each, "
        "`{geometry file: multiplicity}`. `None`: as for `charge`.",
        possible="[1, 1000]",
        plausible="[1, 20]",
    )
    energy_key: Text = key("REF_energy", "Name of the energy (eV) in extxyz files you provide.")
    forces_key: Text = key("REF_forces", "Name of the forces (eV/Å) in extxyz files you provide.")
    stress_key: Text = key("REF_stress", "Name of the stress (eV/Å³) in extxyz files you provide.")
    virials_key: Text = key(
        "REF_virials",
        "Name of the virials (eV, −dE/dε as in GAP and MACE) in extxyz files you provide: stress = −virials/V.",
    )
    check_given_data: Whole = key(
        4,
        "Structures of each given file that the reference labels, too, before they are used: a file of another method "
        "is refused. 0: none.",
        possible="[0, inf)",
        plausible="[0, 100]",
    )
    test_set: OptionalText = key(None, "extxyz file the final models are tested on.")
    max_walltime: Seconds = key(
        math.inf,
        "Walltime of one `aims-PAX` process, in seconds or `[D-]HH:MM:SS`: it stops cleanly before, exit code 75, "
        "and the same command continues. Inside a job of a scheduler its own end counts too.",
        unit="s",
        possible="(0, inf]",
    )
    report: Flag = key(
        True, "Write `report.html`, its figures and the model cards, during the run and at its end."
    )
    save_trajectories: OptionalWhole = key(
        None, "Write every n-th MD step of each trajectory as extxyz; `None`: none.", possible=COUNT
    )


def _from_factory(data: object) -> object:
    """A section that names a factory but no type means a calculator."""
    if isinstance(data, dict) and "type" not in data and data.get("factory") is not None:
        return {"type": "calculator", **data}
    return data


class ReferenceSettings(Section):
    """REFERENCE (optional): the method that labels structures."""

    type: Method = key(
        "aims",
        "`aims`: FHI-aims with `control.in`, `species_dir` and `CLUSTER.launch_str`; `calculator`: any "
        "ASE calculator.",
    )
    factory: OptionalText = key(
        None,
        'Callable that returns the calculator, `"package.module:callable"`, also from a module in the '
        "working folder; or the name that an installed package registers for it.",
        mandatory="the type is `calculator`",
    )
    kwargs: Table = key({}, "Keyword arguments of that callable.")
    charge_key: OptionalText = key(
        None,
        "Its keyword argument that takes the total charge of a structure; dots lead into tables "
        "(`input_data.system.tot_charge`). `atoms.info`: the calculator reads `atoms.info['charge']`; "
        "`atoms.initial_charges`: it sums these. `None`: as is known of ASE's calculators, tblite, xtb, GPAW, AIMNet2 "
        "and others, or as its name says (`charge`). A charged structure is refused where there is none.",
    )
    spin_key: OptionalText = key(
        None,
        "The same for the spin; `atoms.info` (2S+1 as `atoms.info['spin']`), `atoms.initial_magnetic_moments` (their "
        "sum is 2S). An open-shell structure is refused where there is none.",
    )
    spin_convention: SpinConvention = key(
        "None",
        "What that argument counts: `multiplicity` (2S+1) or `unpaired_electrons` (2S: PySCF's `spin`, `uhf`, a total "
        "magnetic moment). `None`: as is known, or as its name says; needed where it is just `spin`.",
    )
    retries: Rungs = key(
        (),
        "What to try when the SCF cycle of FHI-aims does not converge: a list of tables `{keyword: value}` of "
        "changed `control.in` keywords, one after the other, within the time limit of one calculation. Keywords "
        "that help convergence without changing the converged result, e.g. "
        "`[{charge_mix_param: 0.02}, {charge_mix_param: 0.02, sc_iter_limit: 500}]`.",
    )

    _infer = model_validator(mode="before")(_from_factory)

    @field_validator("factory")
    @classmethod
    def _registered(cls, factory: str | None) -> str | None:
        return None if factory is None else registered_factory(factory)

    @model_validator(mode="after")
    def _keys(self) -> Self:
        check_keys(self.charge_key, self.spin_key, self.spin_convention)
        return self
