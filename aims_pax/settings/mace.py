"""mace.yaml: settings of the models, with MACE's own names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from aims_pax.errors import SettingsError
from aims_pax.settings.devices import as_device
from aims_pax.settings.fields import (
    COUNT,
    Flag,
    Kind,
    Real,
    Section,
    Text,
    Whole,
    as_real,
    as_text,
    as_whole,
    key,
    one_of,
    optional,
)
from aims_pax.settings.foundation import FoundationSettings
from aims_pax.settings.yaml_reader import read_document
from aims_pax.suggestions import nearest

INTERACTIONS = (  # mace.modules.interaction_classes of MACE 0.3.16
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
    "RealAgnosticInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
)
_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr "
    "Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta "
    "W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs "
    "Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
ELEMENTS = tuple(_SYMBOLS.split())
FROM_REFERENCE = "reference"  # atomic_energies: the reference computes isolated atoms at the start
STRESS_LOSS = "stress"  # the loss in place of `weighted` with GENERAL.compute_stress
UNWEIGHTED = {  # losses of MACE without the weights of structures, and what they do not weight
    "huber": "structures",
    "universal": "structures",
    "l1l2energyforces": "the forces of structures",
}
WEIGHT = "[0, inf)"


def _atomic_energies(value: Any) -> str | tuple[float, ...] | dict[str, float]:
    if isinstance(value, str):
        if value.strip().lower() == "average":  # of MACE's E0s
            raise ValueError(
                "the least-squares fit that MACE calls average is the default: leave the key out"
            )
        return FROM_REFERENCE if value.strip().lower() == FROM_REFERENCE else as_text(value)
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("expected one energy for each element, got an empty list")
        return tuple(_finite(v) for v in value)
    if not isinstance(value, dict) or not value:
        raise ValueError(
            "expected None, a list (ascending atomic number), {symbol: eV}, a path or the word reference"
        )
    by_symbol: dict[str, float] = {}
    for element, energy in value.items():
        symbol = ELEMENTS[_atomic_number(element) - 1]
        if symbol in by_symbol:
            raise ValueError(f"{symbol} is given twice")
        by_symbol[symbol] = _finite(energy)
    return by_symbol


def _name(value: Any) -> str:
    """A name that can be the start of a file name."""
    text = as_text(value)
    if not text.isprintable() or set(text) & set("/\\") or text.startswith("."):
        raise ValueError(f"expected a name without / or \\ and without a leading dot, got {text!r}")
    return text


def _irreps(value: Any) -> str:
    text = as_text(value).replace(" ", "")
    if not re.fullmatch(r"[1-9]\d*x0e(\+[1-9]\d*x0e)*", text):
        raise ValueError(f"expected scalars such as '16x0e', got {value!r}")
    return text


def _layers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("expected a list of layer sizes such as [64, 64, 64]")
    return tuple(as_whole(v) for v in value)


def _weights(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not value:
        raise ValueError('expected a table such as {"Default": 1.0}')
    return {str(k): as_real(v) for k, v in value.items()}


def _optimizer(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "schedulefree":
        raise ValueError("schedulefree is not available; expected adam | adamw")
    return value


AtomicEnergies = Annotated[
    str | tuple[float, ...] | dict[str, float] | None,
    optional(_atomic_energies),
    Kind("`list`, `dict`, `str` or `None`"),
]
Interaction = Annotated[str, one_of(*INTERACTIONS), Kind("`str`")]
# MACE refuses the attention block in the first layer.
FirstInteraction = Annotated[str, one_of(*(i for i in INTERACTIONS if "Att" not in i)), Kind("`str`")]
Gate = Annotated[str, one_of("silu", "tanh", "abs", "None"), Kind("`str`")]
Irreps = Annotated[str, BeforeValidator(_irreps), Kind("`str`")]
Layers = Annotated[tuple[int, ...], BeforeValidator(_layers), Kind("`list`")]
Architecture = Annotated[str, one_of("ScaleShiftMACE", "MACE"), Kind("`str`")]
Radial = Annotated[str, one_of("bessel", "gaussian", "chebyshev"), Kind("`str`")]
Scaling = Annotated[str, one_of("rms_forces_scaling", "std_scaling", "no_scaling"), Kind("`str`")]
Name = Annotated[str, BeforeValidator(_name), Kind("`str`")]
Dtype = Annotated[str, one_of("float32", "float64"), Kind("`str`")]
Weights = Annotated[dict[str, float], BeforeValidator(_weights), Kind("`dict`")]
Loss = Annotated[
    str,
    one_of("weighted", "forces_only", "virials", "stress", "huber", "universal", "l1l2energyforces"),
    Kind("`str`"),
]
Compile = Annotated[str, one_of("auto", "always", "never"), Kind("`str`")]
Optimizer = Annotated[str, one_of("adam", "adamw"), BeforeValidator(_optimizer), Kind("`str`")]
Scheduler = Annotated[str, one_of("ReduceLROnPlateau", "ExponentialLR"), Kind("`str`")]
Clip = Annotated[float | None, optional(as_real), Kind("`float` or `None`")]
Memory = Annotated[float | None, optional(as_real), Kind("`float` or `None`")]
Device = Annotated[str, BeforeValidator(as_device), Kind("`str`")]
Errors = Annotated[
    str,
    one_of(
        "PerAtomMAE",
        "PerAtomRMSE",
        "TotalMAE",
        "TotalRMSE",
        "PerAtomMAEstressvirials",
        "PerAtomRMSEstressvirials",
    ),
    Kind("`str`"),
]
Inference = Annotated[str, one_of("auto", "torch", "native"), Kind("`str`")]
LogLevel = Annotated[str, one_of("DEBUG", "INFO", "WARNING", "ERROR"), Kind("`str`")]


class GeneralSettings(Section):
    """GENERAL: names, folders and precision."""

    name_exp: Name = key(..., "Name of the experiment; models and datasets are named after it.")
    checkpoints_dir: Text = key("./checkpoints", "Folder of the model checkpoints.")
    compute_stress: Flag = key(False, "Predict and train stress (periodic structures).")
    default_dtype: Dtype = key("float32", "Precision of the models: `float32` or `float64`.")
    loss_dir: Text = key("./losses", "Folder of the training losses of each member.")
    model_dir: Text = key("./model", "Folder of the trained models.")
    seed: Whole = key(42, "Seed from which the seeds of the members are drawn.", possible="[0, 4294967295]")


class ArchitectureSettings(Section):
    """ARCHITECTURE: the architecture of the models."""

    atomic_energies: AtomicEnergies = key(
        None,
        "Energies of the isolated atoms (eV): a list over all elements in order of atomic number, "
        "`{symbol: energy}`, or a JSON or YAML file with such a table (`aims-PAX-atomic-energies` writes one). "
        "`reference`: the reference computes the isolated atoms when the run begins. `None`: least-squares fit to the "
        "training set.",
        unit="eV",
        possible="(-inf, inf)",
    )
    compute_avg_num_neighbors: Flag = key(
        True, "Compute the average number of neighbours; otherwise it is 1."
    )
    correlation: Whole = key(
        3, "Correlation order of the many-body terms.", possible="[1, 6]", plausible="[1, 4]"
    )
    gate: Gate = key("silu", "Activation of the last readout: `silu`, `tanh`, `abs` or `None`.")
    interaction: Interaction = key("RealAgnosticResidualInteractionBlock", "Interaction block.")
    interaction_first: FirstInteraction = key(
        "RealAgnosticResidualInteractionBlock", "Interaction block of the first layer."
    )
    max_ell: Whole = key(
        3, "Highest degree of the spherical harmonics.", possible="[0, 11]", plausible="[1, 4]"
    )
    max_L: Whole = key(
        1, "Highest degree of the equivariant features.", possible="[0, 11]", plausible="[0, 3]"
    )
    MLP_irreps: Irreps = key("16x0e", "Hidden scalars of the last readout, in e3nn notation.")
    model: Architecture = key("ScaleShiftMACE", "`ScaleShiftMACE` or `MACE`.")
    num_channels: Whole = key(128, "Channels (features).", possible=COUNT, plausible="[4, 1024]")
    num_cutoff_basis: Whole = key(5, "Order of the polynomial cutoff.", possible=COUNT, plausible="[2, 20]")
    num_interactions: Whole = key(2, "Interaction layers.", possible=COUNT, plausible="[1, 4]")
    num_radial_basis: Whole = key(8, "Radial basis functions.", possible=COUNT, plausible="[3, 64]")
    pair_repulsion: Flag = key(False, "Add MACE's ZBL repulsion at short distances.")
    r_max: Real = key(
        5.0,
        "Cutoff radius (Å).",
        unit="Å",
        possible="(0, 30]",
        plausible="[2.5, 12]",
        usual=5.0,
        unit_confusions={"nm": 10.0, "pm": 0.01},
    )
    radial_MLP: Layers = key(
        (64, 64, 64), "Hidden layers of the radial MLP.", possible=COUNT, plausible="[4, 1024]"
    )
    radial_type: Radial = key(
        "bessel",
        "Radial basis: `bessel` or `gaussian`. `chebyshev` of MACE has no derivative and is refused.",
    )
    scaling: Scaling = key(
        "rms_forces_scaling",
        "Scale of the interaction energy: `rms_forces_scaling`, `std_scaling`, `no_scaling`.",
    )


class TrainingSettings(Section):
    """TRAINING: how the models are trained."""

    amsgrad: Flag = key(True, "Use the AMSGrad variant of Adam.")
    batch_size: Whole = key(5, "Structures in a training batch.", possible=COUNT, plausible="[1, 512]")
    clip_grad: Clip = key(
        10.0,
        "Largest norm of the gradient; `None`: no clipping.",
        possible="(0, inf]",
        plausible="[0.01, 10000]",
    )
    compile: Compile = key(
        "auto",
        "Compile training (CPU, needs `g++`). Takes minutes; the result is cached in `~/.cache/aims-pax` (or "
        "`AIMS_PAX_CACHE`) for later runs. `auto`: only in runs long enough to benefit; a process of lowest priority "
        "compiles while training runs uncompiled (slower on few cores). With `executor: inline`, `auto` means `never`, "
        "because the moment of the switch is not reproducible. `always`: wait for it at the first visit. `never`: "
        "do not compile.",
    )
    config_type_weights: Weights = key(
        {"Default": 1.0},
        "Weights of structures by their `config_type`. As in MACE, `huber` and `universal` do not use them, and "
        "`l1l2energyforces` only for energies.",
        possible=WEIGHT,
    )
    ema: Flag = key(True, "Use the exponential moving average of the weights.")
    ema_decay: Real = key(
        0.99, "Decay of the moving average (`ema`).", possible="(0, 1)", plausible="[0.9, 0.99999]"
    )
    energy_weight: Real = key(1.0, "Weight of the energy in the loss.", possible=WEIGHT)
    forces_weight: Real = key(1000.0, "Weight of the forces in the loss.", possible=WEIGHT)
    loss: Loss = key(
        "weighted",
        "Loss: `weighted`, `forces_only`, `virials`, `stress`, `huber`, `universal` or `l1l2energyforces`. "
        "`weighted` becomes `stress` when `compute_stress` is `True`.",
    )
    lr: Real = key(0.01, "Learning rate.", possible="(0, 10]", plausible="[1e-5, 0.1]", usual=0.01)
    lr_factor: Real = key(
        0.8, "Factor by which the learning rate is multiplied at a plateau.", possible="(0, 1)"
    )
    lr_scheduler_gamma: Real = key(
        0.9993,
        "Factor by which `ExponentialLR` multiplies the learning rate in each epoch.",
        possible="(0, 1]",
        plausible="[0.9, 1]",
    )
    optimizer: Optimizer = key("adam", "`adam` or `adamw`.")
    scheduler: Scheduler = key("ReduceLROnPlateau", "`ReduceLROnPlateau` or `ExponentialLR`.")
    scheduler_patience: Whole = key(
        5, "Validations without improvement before the learning rate is reduced.", possible="[0, inf)"
    )
    stress_weight: Real = key(1.0, "Weight of the stress in the loss.", possible=WEIGHT)
    swa: Flag = key(
        False,
        "Stochastic weight averaging: convergence ends with the mean of the weights since its best validation, if its "
        "validation loss is lower. Loss and learning rate stay the same, unlike in stage two of MACE.",
    )
    valid_batch_size: Whole = key(
        5, "Structures in a validation batch.", possible=COUNT, plausible="[1, 1024]"
    )
    virials_weight: Real = key(1.0, "Weight of the virials in the loss.", possible=WEIGHT)
    weight_decay: Real = key(5e-7, "L2 regularisation.", possible=WEIGHT, plausible="[0, 0.01]")


class MaceMiscSettings(Section):
    """MISC: device and messages."""

    device: Device = key(
        "cpu", "Device of training and dynamics: `cpu`, `cuda` or `cuda:N`, the N-th card that the run sees."
    )
    inference: Inference = key(
        "auto",
        "How the models are evaluated in dynamics: `native` (symmetrix, the extra `fast`; CPU, many times faster; "
        "`float32` models in single precision, forces within 2e-5 of the largest), `torch`, or `auto`: native if it is "
        "installed, supports the architecture and agrees with torch, unless the models have 96 channels or more: a run "
        "changes weights often, and symmetrix needs longer to read so many than its "
        "faster steps save. If a label takes minutes, `native` can be faster.",
    )
    enable_cueq: Flag = key(
        False,
        "Evaluate the models in dynamics with NVIDIA's cuEquivariance (the extra `cueq`; needs `device: cuda`), "
        "provided that it agrees with torch.",
    )
    cuda_graphs: Flag = key(
        False,
        "On a GPU, record the evaluation of the models in dynamics as a CUDA graph and replay it at each step, if it "
        "gives the same forces: small systems need many times fewer launches. Off, as it was tested on CPUs only.",
    )
    memory_limit: Memory = key(
        None,
        "Memory (GB) for evaluations of the models, for all processes of a run together; larger batches are split, "
        "with the same results. `None`: half of the memory available to this job on this device at the start.",
        unit="GB",
        possible="(0, inf]",
        plausible="[0.1, 4096]",
    )
    error_table: Errors = key("PerAtomMAE", "Errors to compute and show, with MACE's names.")
    log_level: LogLevel = key("INFO", "`DEBUG`, `INFO`, `WARNING` or `ERROR`.")


class MaceSettings(Section):
    """All sections of mace.yaml. foundation: None if the members begin from random weights."""

    general: GeneralSettings
    architecture: ArchitectureSettings
    training: TrainingSettings
    misc: MaceMiscSettings
    foundation: FoundationSettings | None = None


def atomic_energies_by_element(
    value: Any, elements: Sequence[int], folder: Path | None = None, others: Sequence[int] = ()
) -> dict[int, float]:
    """{atomic number: eV} for `elements` from ARCHITECTURE.atomic_energies (paths are relative to `folder`).

    others: atomic numbers of elements whose energies may be missing; a list has none of them.
    Raises SettingsError for a list of the wrong length, a missing element, an unreadable file.
    """
    where = "ARCHITECTURE.atomic_energies"
    elements = sorted(elements)
    names = " ".join(ELEMENTS[z - 1] for z in elements)
    if isinstance(value, str):
        where = f"{where} ({value})"
        value = _energies_file(Path(folder or ".") / value, where)
    if isinstance(value, list | tuple):
        if len(value) != len(elements):
            raise SettingsError(
                f"{where}: {len(value)} energies for {len(elements)} elements; expected one for each of "
                f"{names}, in this order"
            )
        return {z: float(e) for z, e in zip(elements, value, strict=True)}
    try:
        energies = {_atomic_number(k): _finite(v) for k, v in dict(value).items()}
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{where}: {error}") from error
    missing = [ELEMENTS[z - 1] for z in elements if z not in energies]
    if missing:
        raise SettingsError(f"{where}: no energy for {', '.join(missing)}; expected one for each of {names}")
    return {z: energies[z] for z in sorted({*elements, *(z for z in others if z in energies)})}


def _energies_file(path: Path, where: str) -> Any:
    if path.suffix == ".json":
        try:
            value = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise SettingsError(f"{where}: cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise SettingsError(f"{where}: expected {{symbol: eV}} in the file")
        return value
    return read_document(path, str(path)).data


def _atomic_number(element: Any) -> int:
    if isinstance(element, str) and element.isdigit():
        element = int(element)
    if isinstance(element, int) and 1 <= element <= len(ELEMENTS):
        return element
    if element in ELEMENTS:
        return ELEMENTS.index(element) + 1
    near = nearest(element, ELEMENTS) if isinstance(element, str) else None
    raise ValueError(f"{element!r} is not an element" + (f"; nearest: {near}" if near else ""))


def _finite(value: Any) -> float:
    number = as_real(value)
    if not math.isfinite(number):
        raise ValueError(f"expected an energy in eV, got {number}")
    return number
