"""JSON schemas (draft 7) of aimsPAX.yaml and mace.yaml for editors, generated from the settings classes.

Editors read YAML more strictly than aims-PAX: words that only aims-PAX reads as a number, a truth value or None
(`np.inf`, `yes`, `None`) are text for an editor, so the schema also allows the text.
`python -m aims_pax.settings.schema FOLDER` writes both.
"""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from aims_pax.settings.fields import Interval, Kind, Section
from aims_pax.settings.model import NAME as MODEL
from aims_pax.settings.read import INEFFECTIVE, MAY_BE_ABSENT, OPTIONAL
from aims_pax.settings.samplers import FILTERS, KINDS, OWN
from aims_pax.settings.samplers import NAME as SAMPLERS
from aims_pax.settings.settings import MACE, PROJECT

Schema = dict[str, Any]

FILES = {"aimsPAX.yaml": PROJECT, "mace.yaml": MACE}
FOLDER = ".schemas"  # in the folder of the settings files
NOTHING = {"enum": [None, "None", "none", "~"]}
INFINITE = {"type": "string", "pattern": r"^[-+]?(\.?inf|\.?Inf|\.?INF|(np|numpy|math)\.inf|[iI]nfinity)$"}
SAID = {"type": "string", "pattern": "^([yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF)$"}
REAL, WHOLE, TEXT = {"type": "number"}, {"type": "integer"}, {"type": ["string", "integer"]}


def name_of(file: str) -> str:
    """`.schemas/aimsPAX.json`: path of the schema, relative to the settings file."""
    return f"{FOLDER}/{Path(file).stem}.json"


def first_line(file: str) -> str:
    """The comment that tells editors where the schema is."""
    return f"# yaml-language-server: $schema={name_of(file)}"


def text(file: str) -> str:
    """The schema of `aimsPAX.yaml` or `mace.yaml` as JSON."""
    return json.dumps(schema(file), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def schema(file: str) -> Schema:
    """The schema of `aimsPAX.yaml` or `mace.yaml`."""
    sections = FILES[file]
    properties = {name: _section(name, model) for name, model in sections.items()}
    if sections is PROJECT:
        properties[SAMPLERS] = _samplers()
    mandatory = [s for s in sections if s not in OPTIONAL | MAY_BE_ABSENT | {"CLUSTER"}]
    about = "the run" if sections is PROJECT else "the models"
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"{file} of aims-PAX",
        "description": f"Settings of {about}.",
        "type": "object",
        "properties": properties,
        "required": mandatory,
        "additionalProperties": False,
    }


def _samplers() -> Schema:
    """Schema of the list SAMPLERS: every kind with its own keys; a kind with a colon is the user's own."""
    kinds = []
    for kind, model in (KINDS.available() | OWN).items():
        entry = _table(model)
        entry["properties"]["kind"] = {"type": "string", "pattern": ":"} if kind in OWN else {"enum": [kind]}
        entry["properties"]["potential"] = {"anyOf": [TEXT, {"type": "object"}, NOTHING]}
        entry["properties"]["filters"] = {"type": "array", "items": {"anyOf": [TEXT, *_filters()]}}
        kinds.append(entry)
    about = "Sources of the structures of the initial dataset, with their shares."
    return {"type": "array", "minItems": 1, "description": about, "items": {"anyOf": kinds}}


def _filters() -> list[Schema]:
    tables = []
    for kind, model in FILTERS.available().items():
        table = _table(model)
        table["properties"]["kind"] = {"enum": [kind]}
        tables.append({**table, "required": ["kind"]})
    return tables


def _section(name: str, model: type[Section]) -> Schema:
    table = _table(model)
    if name == "MD":  # one table, or one for each system
        systems = {"additionalProperties": {"type": "object"}}
        either = [{"required": table.pop("required")}, systems]
        return {**table, "additionalProperties": _table(model), "anyOf": either}
    if name == MODEL:  # the name of the kind alone is allowed
        return {**table, "type": ["object", "string", "null"]}
    return {**table, "type": ["object", "null"]} if name in OPTIONAL else table


def _table(model: type[Section]) -> Schema:
    """Schema of a section: its keys and their other spellings; obsolete keys are accepted but not suggested."""
    properties = {name: _key(model, name) for name in model.model_fields}
    for written, intended in model.aliases.items():
        properties[written] = {**properties[intended], "description": f"Another spelling of {intended}."}
    dead = "|".join(sorted(INEFFECTIVE - set(properties)))
    return {
        "type": "object",
        "description": _about(model),
        "properties": properties,
        "patternProperties": {f"^(intermol_.*|{dead})$": {"description": "Has no effect; remove it."}},
        "required": [n for n in model.model_fields if model.meaning(n).mandatory == "always"],
        "additionalProperties": False,
    }


def _about(model: type[Section]) -> str:
    about = " ".join((model.__doc__ or "").split()).partition(": ")[2]
    return about[:1].upper() + about[1:]


def _key(model: type[Section], name: str) -> Schema:
    field, meaning = model.model_fields[name], model.meaning(name)
    prose = (field.description or "").strip()
    if meaning.mandatory not in ("", "always"):
        prose += f" Mandatory when {meaning.mandatory}."
    if meaning.possible is not None:
        prose += f" Possible: {meaning.possible.words(meaning.unit)}."
    found: Schema = {"description": prose, **_value(field, meaning.possible)}
    default = _plain(field.default)
    if not field.is_required() and default is not None:
        found["default"] = default
    return found


def _value(field: FieldInfo, possible: Interval | None) -> Schema:
    """The allowed values of a key."""
    choices = next((c for m in field.metadata if (c := _choices(m))), ())
    if choices:
        none = [NOTHING] if "None" in choices else []
        return _any([{"enum": list(choices)}, {"type": "string", "pattern": _any_case(choices)}, *none])
    options = list(_options(field.annotation, possible))
    kinds = next((m.name for m in field.metadata if isinstance(m, Kind)), "")
    if "`str`" in kinds and TEXT not in options:  # HH:MM:SS
        options.append({"type": "string"})
    if {"type": "array", "items": TEXT, "minItems": 1} in options:  # a single text counts as a list
        options.append(TEXT)
    return _any(options)


def _choices(metadata: Any) -> tuple[str, ...]:
    if (
        not isinstance(metadata, BeforeValidator)
        or get_origin(metadata.json_schema_input_type) is not Literal
    ):
        return ()
    return get_args(metadata.json_schema_input_type)


def _options(annotation: Any, possible: Interval | None) -> Iterable[Schema]:
    """The alternatives of a type annotation."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _options(inside[0], possible)
    elif origin in (Union, types.UnionType):
        for one in inside:
            yield from _options(one, possible)
    elif annotation is type(None):
        yield NOTHING
    elif annotation is bool:
        yield from ({"type": "boolean"}, SAID)
    elif annotation is int:
        yield _bounded(WHOLE, possible)
    elif annotation is float:
        yield _bounded(REAL, possible)
        if possible is not None and math.isinf(possible.high) and possible.high_in:
            yield INFINITE
    elif annotation is str:
        yield TEXT
    elif origin is tuple:
        item = _any(list(_options(inside[0], possible)))
        fixed = {"minItems": len(inside), "maxItems": len(inside)} if inside[-1] is not Ellipsis else {}
        least = {} if fixed or get_origin(inside[0]) is dict else {"minItems": 1}
        yield {"type": "array", "items": item, **fixed, **least}
    elif origin is dict:
        yield {"type": "object", "additionalProperties": _any(list(_options(inside[1], possible)))}
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        yield _table(annotation)
    else:
        yield {}


def _bounded(kind: Schema, possible: Interval | None) -> Schema:
    bounds: Schema = {}
    if possible is not None and math.isfinite(possible.low):
        bounds["minimum" if possible.low_in else "exclusiveMinimum"] = possible.low
    if possible is not None and math.isfinite(possible.high):
        bounds["maximum" if possible.high_in else "exclusiveMaximum"] = possible.high
    return {**kind, **bounds}


def _any(options: list[Schema]) -> Schema:
    once = [o for i, o in enumerate(options) if o not in options[:i]]
    return once[0] if len(once) == 1 else {"anyOf": once}


def _any_case(words: Iterable[str]) -> str:
    """A pattern for these words in any case, with hyphens or underscores; JSON schemas have no regex flags."""

    def letter(c: str) -> str:
        if c in "-_":
            return "[-_]"
        return f"[{c.lower()}{c.upper()}]" if c.isalpha() else c

    return "^(" + "|".join("".join(map(letter, word)) for word in words) + ")$"


def _plain(value: Any) -> Any:
    """A default value in JSON form; None if JSON cannot express it."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".inf"
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return dict(value) if isinstance(value, Mapping) else None


if __name__ == "__main__":
    for file in FILES:
        path = Path(sys.argv[1]) / name_of(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(file), encoding="utf-8")
