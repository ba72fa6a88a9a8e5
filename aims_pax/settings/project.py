"""aimsPAX.yaml: the initial dataset, active learning, files, and the reference method."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, field_validator, model_validator

from aims_pax.settings.augment import as_calculator
from aims_pax.settings.bias import BiasSettings
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.calculator_conventions import check_keys
from aims_pax.settings.callables import registered_factory
from aims_pax.settings.cluster import Seconds
from aims_pax.settings.control_in import MOVES_ATOMS
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
    RealLimit,
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

Sampling = Annotated[
    str, one_of("mace-mp0", *BUNDLED, "aimd", "calculator", foundational="mace-mp0"), Kind("`str`")
]
Spread = Annotated[str, one_of("max_atomic_sd", "mean_atomic_sd", "ensemble_sd"), Kind("`str`")]
Sharing = Annotated[str, one_of("shared", "per_system", "calibrated"), Kind("`str`")]
Stop = Annotated[str, one_of("limits", "when_done"), Kind("`str`")]
Acquisition = Annotated[str, one_of("window", "crossing"), Kind("`str`")]
Selection = Annotated[str, one_of("diverse", "spread", "random"), Kind("`str`")]
Starts = Annotated[str, one_of("sampled", "geometry"), Kind("`str`")]
DrivingForce = Annotated[str, one_of("mean", "member"), Kind("`str`")]
Replay = Annotated[str, one_of("full_dataset", "random_subset"), Kind("`str`")]
Criterion = Annotated[str, one_of("force_mae", "loss"), Kind("`str`")]
FinalTraining = Annotated[str, one_of("fresh", "continued", "shrink_perturb"), Kind("`str`")]
SpinConvention = Annotated[str, one_of("None", "multiplicity", "unpaired_electrons"), Kind("`str` or `None`")]
Method = Annotated[str, one_of("aims", "calculator", "given", fhi_aims="aims"), Kind("`str`")]


def _seeds(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise ValueError("expected a table {tag: seed}")
    seeds = {str(tag): as_whole(seed) for tag, seed in value.items()}
    if len(set(seeds.values())) < len(seeds):
        twice = next(s for s in seeds.values() if list(seeds.values()).count(s) > 1)
        raise ValueError(
            f"seed {twice} is given to two members, which would be identical; expected different seeds"
        )
    return seeds


Seeds = Annotated[dict[str, int] | None, optional(_seeds), Kind("`dict` or `None`")]


# keywords of control.in that define the method: labels with different values must not be mixed
_METHOD = (
    "xc relativistic override_relativity k_grid k_grid_density k_offset charge spin fixed_spin_moment "
    "vdw_correction_hirshfeld many_body_dispersion many_body_dispersion_nl hybrid_xc_coeff hse_unit compute_forces "
    "occupation_type include_spin_orbit use_dipole_correction total_energy_method"
)
METHOD = frozenset((*_METHOD.split(), *MOVES_ATOMS))


def _rungs(value: object) -> tuple[dict[str, str | int | float | bool], ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of tables {keyword: value}")
    for rung in value:
        if not isinstance(rung, dict) or not rung:
            raise ValueError(f"expected a table {{keyword: value}} for each retry, got {rung!r}")
        for word, wanted in rung.items():
            if str(word) in METHOD:
                raise ValueError(
                    f"{word} defines the method; labels with another value would be inconsistent"
                )
            if not isinstance(wanted, str | int | float | bool):
                raise ValueError(f"{word}: expected a value, got {wanted!r}")
    return tuple({str(k): v for k, v in rung.items()} for rung in value)


Rungs = Annotated[tuple[dict[str, str | int | float | bool], ...], BeforeValidator(_rungs), Kind("`list`")]


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


class ActiveLearningSettings(Section):
    """ACTIVE_LEARNING: trajectories from which structures are labelled where the ensemble is uncertain."""

    species_dir: OptionalText = key(
        None,
        "Folder of the FHI-aims species defaults; the same in both sections.",
        mandatory="the reference is FHI-aims",
    )
    num_trajectories: Whole = key(
        1,
        "Number of simultaneous trajectories. Geometries are assigned to them in turn.",
        possible=COUNT,
        plausible="[1, 1000]",
        mandatory="there is active learning",
    )
    analysis: Flag = key(
        False,
        "Label structures at fixed intervals and save predictions, errors and uncertainties to `analysis/`.",
    )
    analysis_skip: Whole = key(50, "MD steps between two analysis calculations.", possible=COUNT)
    c_x: Real = key(
        0.0,
        "Threshold = (1 + `c_x`) × mean of the recent uncertainties. Negative values label more structures, positive "
        "values fewer.",
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
        "Number of members; the same in both sections. 1 is possible for models that predict their own uncertainty "
        "(not MACE).",
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
        1, "Epochs of one training visit; other trajectories run between visits.", possible=COUNT
    )
    margin: Real = key(
        0.002,
        "Smallest decrease of the validation loss that counts as an improvement (in the unit of the loss); in "
        "convergence only with `convergence_criterion: loss`.",
        possible="[0, inf)",
        plausible="[0, 1]",
    )
    max_MD_steps: Limit = key(math.inf, "Maximum number of MD steps of each trajectory.", possible=LIMIT)
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
        "Uncertainty of a structure, from the standard deviation of the members' forces on each atom: its maximum "
        "(`max_atomic_sd`), its mean (`mean_atomic_sd`), or each atom separately (`ensemble_sd`).",
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
    acquisition: Acquisition = key(
        "window",
        "How structures are chosen for labelling. `window`: trajectories move on and collect uncertain structures; the "
        "best of each window are labelled. `crossing`: a trajectory stops at the first structure above the threshold "
        "and waits until it is labelled and learnt (arXiv:2508.12888).",
    )
    window_steps: OptionalWhole = key(
        None,
        "MD steps of a window, for each trajectory; None: 500 fs, and at least 10 × `skip_step_mlff`. Structures of a "
        "shorter time resemble each other.",
        possible=COUNT,
        plausible="[10, 100000]",
    )
    labels_per_window: OptionalWhole = key(
        None, "Structures labelled after each window; None: as many as trajectories.", possible=COUNT
    )
    selection: Selection = key(
        "diverse",
        "Which candidates of a window are labelled: those with the largest uncertainty × distance to the nearest "
        "labelled structure (`diverse`), the largest uncertainty (`spread`), or any (`random`).",
    )
    start_structures: Starts = key(
        "sampled",
        "Where trajectories begin: at different structures of the initial dataset (`sampled`), or at the geometry "
        "(`geometry`).",
    )
    energy_limit: RealLimit = key(
        5.0,
        "An uncertain structure is not labelled, and its trajectory is rewound, when its predicted energy is farther "
        "from the lowest label of the same atoms than thermal motion reaches: f/2 kT + `energy_limit` × √(f/2) kT "
        "for f degrees of freedom. inf: no limit.",
        possible="[0, inf]",
        plausible="[2, inf]",
    )
    spread_limit: RealLimit = key(
        4.0,
        "The same when its uncertainty is larger than `spread_limit` × the threshold: the models know nothing there. "
        "Its trajectory is rewound, and the structure where the uncertainty began to rise is labelled. inf: no limit.",
        possible="(1, inf]",
        plausible="[2, inf]",
    )
    epochs_before_exploration: Whole = key(
        100,
        "Epochs of training, at most, before the trajectories begin: until the force error on the validation set no "
        "longer falls. Models that have only begun to learn lead MD to structures that no simulation visits. Fewer for "
        "training sets of more than 100 structures. 0: none.",
        possible="[0, inf)",
        plausible="[0, 1000]",
    )
    threshold: Sharing = key(
        "shared",
        "One uncertainty threshold for all geometries (`shared`), one for each (`per_system`), or the spread at "
        "which the error may exceed `target_error`, learnt from the labels of each geometry (`calibrated`; until "
        "there are 5 of them as `per_system`).",
    )
    target_error: Real = key(
        0.0,
        "Largest error of a force component in a structure (eV/Å), averaged over the structures that MD visits, "
        "that you want to reach; the mean absolute error of all components is about 4 times smaller in a small "
        "molecule. It is measured on every labelled structure before it is learnt. 0: no target.",
        unit="eV/Å",
        possible="[0, inf)",
        plausible="[0.01, 2]",
        usual=0.1,
        unit_confusions=MEV,
    )
    confidence: Real = key(
        0.9,
        "Probability with which errors are below their bounds: of a structure (`threshold: calibrated`) and of "
        "the mean (stop rule).",
        possible="[0.5, 0.99]",
        plausible="[0.7, 0.95]",
    )
    audit_share: Real = key(
        0.2,
        "Share of the labels that is drawn at random, whatever the uncertainty, so that the error is measured without "
        "bias. Test structures count. Others are learnt after their error was measured.",
        possible="[0, 1]",
        plausible="[0.05, 0.5]",
    )
    stop: Stop = key(
        "limits",
        "When active learning ends: at the limits below (`limits`), or also when, for every geometry, "
        "`target_error` is reached and no new region was reached for `quiet_MD_steps`, or more labels hardly help "
        "(`when_done`).",
    )
    quiet_MD_steps: Limit = key(
        2000,
        "With `stop: when_done`: MD steps of all trajectories of a geometry together, without a structure whose "
        "expected error is above twice `target_error`.",
        possible=LIMIT,
        plausible="[100, inf]",
    )
    max_labels: Limit = key(
        math.inf,
        "Budget: active learning stops after this many reference calculations of its own; those of the initial dataset "
        "and of `MISC.check_given_data` are not counted. 0: no active learning; the models learn the structures "
        "that they have, and converge.",
        possible="[0, inf]",
    )
    n_test: Whole = key(
        0,
        "Structures that are labelled at random times of active learning and used only for the final test errors. Each "
        "is drawn from a trajectory that has moved for 200 fs since its start (1 ps with `start_structures: geometry`) "
        "and since its last test structure. Those missing when a limit is reached are drawn then; their labels are set "
        "aside from `max_labels`.",
        possible="[0, inf)",
        plausible="[0, 10000]",
    )
    initial_train_dataset: OptionalTextOrMap = key(
        None,
        "extxyz file with labelled training structures to start from, or one file per member "
        "`{member: path}`.",
    )
    initial_valid_dataset: OptionalTextOrMap = key(
        None,
        "The same for validation; without it a fraction `valid_ratio` of the training structures is used.",
    )
    initial_models: OptionalTexts = key(
        None, "Model files (`.model` for MACE) to start from, one per member."
    )
    md_force: DrivingForce = key(
        "mean",
        "Forces that drive the trajectories: the `mean` of all members, or those of one `member` (trajectory i uses "
        "member i mod `ensemble_size`). With `member`, the others are evaluated only when the uncertainty is checked: "
        "several times faster.",
    )
    bias: BiasSettings | None = key(
        None,
        "Bias of the MD towards structures about which the members disagree, `{kind: hal, strength: 1}`; `None`: none. "
        "All members are evaluated at every step, also with `md_force: member`.",
    )
    replay_strategy: Replay = key(
        "full_dataset",
        "Data of a training visit in addition to the new structures: the whole dataset (`full_dataset`), or a new "
        "random subset (`random_subset`), so that the cost per label does not grow with the dataset.",
    )
    train_subset_size: Whole = key(
        100,
        "Training structures of a training visit with `random_subset`.",
        possible=COUNT,
        plausible="[20, 100000]",
    )
    valid_subset_size: Whole = key(
        50,
        "Validation structures used with `random_subset`.",
        possible="[10, inf)",
        plausible="[20, 100000]",
    )
    converge_al: Flag = key(True, "Converge on the final dataset after active learning.")
    converge_best: Flag = key(True, "Converge only the best member; the others go to `results/committee/`.")
    convergence_criterion: Criterion = key(
        "force_mae",
        "What decides on the best epoch of convergence and on patience: the force MAE on the validation set "
        "(`force_mae`; an improvement is at least 0.1 %), or the loss (`loss`; at least `margin`). The loss is a mean "
        "of squares, so one validation frame far from equilibrium can hide that all others improve.",
    )
    final_training: FinalTraining = key(
        "continued",
        "Weights with which convergence begins: those at the end of active learning (`continued`); those that the "
        "member began the run with, before its first training (`fresh`: random ones of its seed, of the foundation "
        "model, or pre-trained), with energy offsets and force scale of all data; or halfway between the two "
        "(`shrink_perturb`).",
    )
    convergence_patience: Whole = key(
        50,
        "Epochs without improvement before convergence ends; not while errors fall so fast that they will be below the "
        "best before as many epochs again.",
        possible=COUNT,
    )
    max_convergence_epochs: Whole = key(500, "Maximum number of epochs of convergence.", possible=COUNT)


class MiscSettings(Section):
    """MISC: where files are and how they are read."""

    create_restart: Flag = key(
        True, "Save the state of the run, so that running the same command continues it."
    )
    dataset_dir: Text = key("./data", "Folder of the datasets.")
    log_dir: Text = key("./logs", "Folder of the logs.")
    path_to_control: TextOrMap = key(
        "./control.in",
        "FHI-aims control file; or one for each geometry, `{geometry file: control file}`, e.g. for molecules and "
        "crystals in one run.",
    )
    path_to_geometry: Texts = key(
        "./geometry.in",
        "Geometry file, folder of ASE-readable files, or list of files. For a file with several structures: `file@0`, "
        "`file@-1` (the last) or `file@:` (all).",
    )
    charge: OptionalRealOrMap = key(
        None,
        "Total charge (e) of the geometries; or one for each, `{geometry file: charge}`. `None`: from the geometry "
        "file, otherwise from `control.in` or `REFERENCE.kwargs`, otherwise neutral. Contradicting values are errors.",
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
        "Number of structures of each given file that the reference labels as a check before the file is used: a file "
        "made with another method is refused. 0: no check.",
        possible="[0, inf)",
        plausible="[0, 100]",
    )
    test_set: OptionalText = key(None, "extxyz file with labels on which the final models are tested.")
    max_walltime: Seconds = key(
        math.inf,
        "Walltime of one `aims-PAX` process, in seconds or `[D-]HH:MM:SS`. The run saves its state and stops before it "
        "ends (exit code 75); run the same command to continue. Inside a scheduler job the end of the job counts too.",
        unit="s",
        possible="(0, inf]",
    )
    report: Flag = key(
        True, "Write `report.html`, its figures and the model cards, during the run and at its end."
    )
    md_test: Whole = key(
        1000,
        "MD steps of each trajectory of the test at the end of a run that shows in the report whether the model is fit "
        "for MD (at most 16 trajectories, and at most 2 % of the time of the run or 20 s); 0: no test. `aims-PAX test "
        "--md` makes a longer one.",
        possible="[0, inf)",
        plausible="[0, 1000000]",
    )
    save_trajectories: OptionalWhole = key(
        None,
        "Write every n-th MD step of each trajectory as extxyz; `None`: do not write them.",
        possible=COUNT,
    )


def _from_factory(data: object) -> object:
    """A section with a factory but no type has the type `calculator`."""
    if isinstance(data, dict) and "type" not in data and data.get("factory") is not None:
        return {"type": "calculator", **data}
    return data


def _baseline(value: Any) -> Any:
    """A potential as it was written; the registered name of a factory is replaced. Raises ValueError."""
    if isinstance(value, dict) and isinstance(value.get("factory"), str):
        value = {**value, "factory": registered_factory(value["factory"])}
    as_calculator(value)
    return value


OptionalBaseline = Annotated[Any, optional(_baseline), Kind("`dict`, `str` or `None`")]


class ReferenceSettings(Section):
    """REFERENCE (optional): the method that labels structures."""

    type: Method = key(
        "aims",
        "`aims`: FHI-aims with `control.in`, `species_dir` and `CLUSTER.launch_str`; `calculator`: any "
        "ASE calculator; `given`: no labels are computed, the models learn given structures only "
        "(`ACTIVE_LEARNING.max_labels: 0`).",
    )
    factory: OptionalText = key(
        None,
        'Callable that returns the calculator, `"package.module:callable"`, also from a module in the '
        "working folder; or the name that an installed package registers for it; or `so3lr` or `chgnet`.",
        mandatory="the type is `calculator`",
    )
    kwargs: Table = key({}, "Keyword arguments of that callable.")
    charge_key: OptionalText = key(
        None,
        "Keyword argument of the callable for the total charge of a structure; use dots for nested tables "
        "(`input_data.system.tot_charge`). `atoms.info`: the calculator reads `atoms.info['charge']`; "
        "`atoms.initial_charges`: it sums the initial charges. `None`: chosen automatically for ASE's calculators, "
        "tblite, xtb, GPAW, AIMNet2 and others, or from the argument names (`charge`). If there is no such argument, a "
        "charged structure is refused.",
    )
    spin_key: OptionalText = key(
        None,
        "The same for the spin; `atoms.info` (2S+1 as `atoms.info['spin']`), `atoms.initial_magnetic_moments` (their "
        "sum is 2S). If there is no such argument, an open-shell structure is refused.",
    )
    spin_convention: SpinConvention = key(
        "None",
        "Meaning of the argument for the spin: `multiplicity` (2S+1) or `unpaired_electrons` (2S: PySCF's `spin`, "
        "`uhf`, a total magnetic moment). `None`: chosen automatically, as for `charge_key`; mandatory for an argument "
        "named just `spin`.",
    )
    retries: Rungs = key(
        (),
        "Changes of `control.in` to try if the SCF cycle of FHI-aims does not converge: a list of tables "
        "`{keyword: value}`, tried one after the other within the time limit of one calculation. Use only keywords "
        "that help convergence without changing the converged result, e.g. "
        "`[{charge_mix_param: 0.02}, {charge_mix_param: 0.02, sc_iter_limit: 500}]`.",
    )

    baseline: OptionalBaseline = key(
        None,
        "A cheap potential for [Δ-learning](delta_learning.md): the models learn the difference reference − baseline, "
        "and MD and all predictions use the sum. `{factory, kwargs}` of an ASE calculator, or the name or file of a "
        "model, as `potential` of `SAMPLERS`. It is evaluated at each MD step.",
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
