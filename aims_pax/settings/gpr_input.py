"""`train.in` of `aims-PAX gpr`: the keys of ænet-gpr, one `key value` a line, and ours; or YAML with the same keys.

Keys are case-insensitive; a remark begins with # or !. Every line has an effect, a message that it has none, or is an
error with its line and the nearest key.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aims_pax.errors import SettingsError
from aims_pax.settings.samplers import as_spelling
from aims_pax.settings.yaml_reader import read_document
from aims_pax.suggestions import nearest, no_such

AUTO, CART, SOAP = "auto", "cart", "soap"


@dataclass(frozen=True)
class GprKey:
    """A key: default, how its text becomes a value, a sentence; idle: why it has no effect here, or ""."""

    default: Any
    read: Callable[[str], Any]
    text: str
    idle: str = ""
    ours: bool = False  # unknown to ænet-gpr


class _Expected(ValueError):
    """What a value should be."""


def _flag(text: str) -> bool:
    word = text.lower().strip(".")
    if word in ("true", "t", "yes", "on", "1"):
        return True
    if word in ("false", "f", "no", "off", "0"):
        return False
    raise _Expected("True or False")


def _number(low: float = -math.inf, inside: bool = True) -> Callable[[str], float]:
    def read(text: str) -> float:
        words = f"a number {'of at least' if inside else 'above'} {low:g}" if low > -math.inf else "a number"
        try:
            value = float(re.sub(r"(?i)(?<=[\d.])d(?=[-+\d])", "e", text))
        except ValueError:
            raise _Expected(words) from None
        if not math.isfinite(value) or value < low or (value == low and not inside):
            raise _Expected(words)
        return value

    return read


def _whole(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[-+]?\d{1,12}", text) or int(text) < low:
            raise _Expected(f"a whole number of at least {low}")
        return int(text)

    return read


def _word(text: str) -> str:
    return text


def _descriptor(text: str) -> str:
    word = text.lower()
    for known in (AUTO, SOAP, "cart"):
        if known in word:
            return known
    if "mace" in word or "cheb" in word:
        raise _Expected(
            "auto, cart or soap (features of MACE and Chebyshev polynomials are not available here)"
        )
    raise _Expected("auto, cart or soap")


def _centres(text: str) -> tuple[tuple[float, float, float], ...] | None:
    if text.lower() == "none":
        return None
    try:
        value = ast.literal_eval(text)
        rows = tuple(tuple(float(x) for x in row) for row in value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _Expected("a list of points such as [[0.0, 0.0, 1.5], [2.0, 0.0, 1.5]]") from None
    if not rows or any(len(row) != 3 or not all(map(math.isfinite, row)) for row in rows):
        raise _Expected("a list of points of three numbers each")
    return rows  # type: ignore[return-value]


def _potential(text: str) -> Any:
    """A potential as samplers spell it; a table in braces, as YAML has it."""
    try:
        value = yaml.safe_load(text) if text.startswith("{") else text
        return None if text.lower() == "none" else as_spelling(value)
    except (yaml.YAMLError, ValueError) as error:
        why = " ".join(str(error).split())
        raise _Expected(f"a potential: {{factory, kwargs}}, a name or a path ({why})") from None


_OTHER_FEATURES = "features of MACE and Chebyshev polynomials are not available here"
KEYS: dict[str, GprKey] = {
    "train_file": GprKey(None, _word, "Files of the training set: a path with * and ?."),
    "test_file": GprKey(None, _word, "Files of the test set."),
    "file_format": GprKey("xsf", _word, "`xsf`, or a format of ASE: `vasp-out`, `aims-output`, `extxyz` …"),
    "descriptor": GprKey(
        AUTO, _descriptor,
        "`auto`: distances for molecules up to four atoms, a sum over atoms of SOAP for others; `cart`: Cartesian "
        "coordinates, as ænet-gpr; `soap`: with the keys below.",
    ),
    "scale": GprKey(0.4, _number(0, False), "Length l of the squared exponential, Å for `cart`; where a fit begins."),
    "weight": GprKey(1.0, _number(0, False), "Amplitude w of the squared exponential, eV."),
    "fit_scale": GprKey(True, _flag, "Choose the scale among l/2, l, 2l by evidence."),
    "fit_weight": GprKey(True, _flag, "Choose the weight by evidence."),
    "prior_update": GprKey(True, _flag, "The constant prior mean has the largest likelihood; False: the mean energy."),
    "noise": GprKey(1e-6, _number(0, False), "Noise of forces, eV/Å."),
    "noisefactor": GprKey(0.5, _number(0, False), "Noise of energies over that of forces."),
    "batch_size": GprKey(25, _whole(1), "Structures at once.", "batches are chosen by their size in memory"),
    "data_process": GprKey("batch", _word, "batch or iterative.", "batches are chosen by their size in memory"),
    "standardization": GprKey(False, _flag, "Energies and forces over the standard deviation of the energies."),
    "descriptor_standardization": GprKey(False, _flag, "", "it is wrong in ænet-gpr; descriptors are normalised here"),
    "filter": GprKey(False, _flag, "Leave out training structures closer than filter_threshold to an earlier one."),
    "filter_threshold": GprKey(0.1, _number(0), "Å, norm of the difference of all coordinates."),
    "get_variance": GprKey(True, _flag, "Also compute standard deviations of energies and forces."),
    "train_write": GprKey(False, _flag, "Write the training set to train_xsf/."),
    "train_model_save": GprKey(False, _flag, "Save the process as model.gp."),
    "test_write": GprKey(False, _flag, "Write the test set to test_xsf/."),
    "additional_write": GprKey(False, _flag, "Augment: make, label and write copies of the training set."),
    "disp_length": GprKey(0.055, _number(0, False), "Standard deviation of the displacements of copies, Å."),
    "num_copy": GprKey(25, _whole(1), "Copies of each training structure."),
    "soap_r_cut": GprKey(5.0, _number(1, False), "Cutoff, Å, above 1: neighbours fade over the last Å."),
    "soap_n_max": GprKey(6, _whole(1), "Radial functions."),
    "soap_l_max": GprKey(4, _whole(0), "Largest angular momentum."),
    "soap_sigma": GprKey(0.5, _number(0, False), "Width of the Gaussians of atoms, Å."),
    "soap_rbf": GprKey("gto", _word, "", "the radial functions are Gaussian-type orbitals"),
    "soap_centers": GprKey(None, _centres, "Fixed points in Å; None: all atoms."),
    "soap_n_jobs": GprKey(1, _whole(-1), "", "derivatives are analytical and need no processes"),
    "mace_system": GprKey("materials", _word, "", _OTHER_FEATURES),
    "mace_model": GprKey("small", _word, "", _OTHER_FEATURES),
    "mace_delta": GprKey(1e-4, _number(0, False), "", _OTHER_FEATURES),
    "mace_invariants": GprKey(True, _flag, "", _OTHER_FEATURES),
    "mace_num_layers": GprKey(-1, _whole(-1), "", _OTHER_FEATURES),
    "mace_n_jobs": GprKey(1, _whole(-1), "", _OTHER_FEATURES),
    "cheb_rad_order": GprKey(10, _whole(0), "", _OTHER_FEATURES),
    "cheb_rad_cutoff": GprKey(5.0, _number(0, False), "", _OTHER_FEATURES),
    "cheb_ang_order": GprKey(6, _whole(0), "", _OTHER_FEATURES),
    "cheb_ang_cutoff": GprKey(3.0, _number(0, False), "", _OTHER_FEATURES),
    "cheb_delta": GprKey(1e-4, _number(0, False), "", _OTHER_FEATURES),
    "constraints": GprKey(True, _flag, "", "forces of fixed atoms are observed too"),
    "force": GprKey(True, _flag, "", "forces are always used"),
    "autograd": GprKey(False, _flag, "", "derivatives are always analytical"),
    "baseline": GprKey(
        None, _potential,
        "A cheap potential as prior mean: `{factory: …, kwargs: …}` of an ASE calculator, the name of a foundation "
        "model, or the path of a model.", ours=True,
    ),
    "seed": GprKey(0, _whole(0), "Seed of the displacements of copies.", ours=True),
    "overwrite": GprKey(False, _flag, "Empty output folders that exist; False: they are refused.", ours=True),
    "max_unc_forces": GprKey(
        0.1, _number(0, False), "Copies with a larger standard deviation of a force are refused, eV/Å.", ours=True
    ),
    "min_separation": GprKey(
        0.7, _number(0), "Copies are refused with atoms closer than this share of the closest in the data.", ours=True
    ),
}  # fmt: skip
WHOLE_LINE = ("soap_centers", "baseline")  # keys whose value may have several words
DATA_KEYS = ("train_file", "test_file")


@dataclass(frozen=True)
class GprSettings:
    """Values by lower-case key (all keys), which of them were written, and messages for the user."""

    file: str
    values: Mapping[str, Any]
    written: Mapping[str, int]  # key → line
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def problem(self, key: str, text: str) -> SettingsError:
        """An error at the line of this key."""
        line = self.written.get(key)
        where = self.file if line is None else f"{self.file}:{line}"
        return SettingsError(f"{where}: {key}: {text}")


def read_gpr_input(path: Path) -> GprSettings:
    """The settings of a train.in, or of YAML with the same keys. Raises SettingsError that lists all mistakes."""
    if not path.is_file():
        raise SettingsError(f"{path}: {no_such(path) if not path.exists() else 'not a file'}")
    entries, problems, notes = _yaml_entries(path) if path.suffix in (".yaml", ".yml") else _entries(path)
    values: dict[str, Any] = {name: key.default for name, key in KEYS.items()}
    written: dict[str, int] = {}
    for line, name, text in entries:
        key = KEYS.get(name.lower())
        where = f"{path}:{line}"
        if key is None:
            near = nearest(name, KEYS)
            problems.append(f"{where}: {name}: unknown key{f'; nearest: {near}' if near else ''}")
            continue
        name = name.lower()
        if name in written:
            notes.append(f"{where}: {name} appears twice; this line counts, not line {written[name]}")
        written[name] = line
        if not text:
            problems.append(f"{where}: {name}: no value; expected {_expectation(key)}")
            continue
        try:
            values[name] = key.read(text)
        except _Expected as error:
            problems.append(f"{where}: {name}: expected {error}, got {text[:60]!r}")
            continue
        if key.idle:
            notes.append(f"{where}: {name} has no effect: {key.idle}")
    settings = GprSettings(
        str(path), values, written, tuple([*notes, *_idle_together(path, values, written)])
    )
    if not problems and not any(values[name] for name in DATA_KEYS):
        problems.append(
            f"{path}: neither train_file nor test_file; expected train_file with the files of the labels"
        )
    elif not problems and values["train_file"] is None:
        problems.append(f"{path}: test_file without train_file; expected the files to train on too")
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def is_gpr_input(path: Path) -> bool:
    """Whether a file has the keys of `train.in`: for `aims-PAX check`."""
    if path.suffix in (".yaml", ".yml"):
        try:
            document = read_document(path, str(path))
        except SettingsError:
            return False
        return any(str(name).lower() in DATA_KEYS for name in document.data)
    return path.suffix == ".in" and path.is_file() and path.name not in ("geometry.in", "control.in")


Entries = tuple[list[tuple[int, str, str]], list[str], list[str]]  # (line, key, text), problems, notes


def _entries(path: Path) -> Entries:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not text in UTF-8; save it as that, with lines `key value`") from error
    entries: list[tuple[int, str, str]] = []
    notes: list[str] = []
    for number, line in enumerate(lines, 1):
        words = re.split(r"(?:^|\s)[#!]", line, maxsplit=1)[0].split(None, 1)
        if not words:
            continue
        name, rest = words[0], words[1].strip() if len(words) > 1 else ""
        if name.lower() in WHOLE_LINE or not rest:
            entries.append((number, name, rest))
            continue
        value, *more = rest.split(None, 1)
        if more:
            notes.append(f"{path}:{number}: {more[0]!r} has no effect; only one word after the key counts")
        entries.append((number, name, value))
    return entries, [], notes


def _yaml_entries(path: Path) -> Entries:
    document = read_document(path, str(path))
    entries = []
    problems = []
    for key, value in document.data.items():
        line, name = document.line((key,)), str(key)  # YAML reads some names as numbers or truth values
        if isinstance(value, Mapping) and name.lower() == "baseline":
            value = json.dumps(value)
        elif isinstance(value, Mapping):
            problems.append(f"{path}:{line}: {name}: expected one value, got a table")
            continue
        entries.append((line, name, "" if value is None and name.lower() != "soap_centers" else str(value)))
    return entries, problems, []


def _expectation(key: GprKey) -> str:
    try:
        key.read("?")
    except _Expected as error:
        return str(error)
    return "a word"


def _idle_together(path: Path, values: Mapping[str, Any], written: Mapping[str, int]) -> list[str]:
    """Keys that have no effect together with others."""
    descriptor = values["descriptor"]
    dense = descriptor == CART or (descriptor == SOAP and values["soap_centers"] is not None)
    unused = {
        **{k: f"Descriptor {descriptor}" for k in KEYS if k.startswith("soap_") and descriptor != SOAP},
        **{
            k: f"Descriptor {descriptor}: noise and amplitude follow from the data"
            for k in ("scale", "weight", "fit_scale", "fit_weight", "prior_update", "noise", "noisefactor",
                      "standardization")
            if not dense
        },
    }  # fmt: skip
    if not values["additional_write"]:
        unused |= {k: "Additional_write is not True" for k in ("disp_length", "num_copy", "seed", "max_unc_forces",
                                                               "min_separation")}  # fmt: skip
    if not values["filter"]:
        unused["filter_threshold"] = "Filter is not True"
    return [
        f"{path}:{written[name]}: {name} has no effect with {why}" for name, why in unused.items()
        if name in written and not KEYS[name].idle
    ]  # fmt: skip
