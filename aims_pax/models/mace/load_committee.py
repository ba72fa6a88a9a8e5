"""Committees from model files, evaluated as in a run: by symmetrix where it supports the models, else by torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aims_pax.errors import SettingsError
from aims_pax.models.mace.build import DTYPES, doubled, elements_of, model_atomic_energies, read_model
from aims_pax.models.mace.head_selection import chosen_head
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.mace_import import MaceModel
from aims_pax.models.mace.native import Backend
from aims_pax.models.mace.native_support import unsupported_reason
from aims_pax.models.mace.precision import dtype_of


def load_committee(
    paths: Sequence[Path], device: str = "cpu", dtype: str | None = None, inference: str = "auto"
) -> Committee:
    """The models of these files as one potential.

    dtype: None for that of the files, float64 if they differ. inference: auto, native or torch.
    Raises SettingsError when a file is not a MACE model, when the models differ in elements, cutoff or head, or when
    `native` is not possible.
    """
    stored = [read_model(path, device, None) for path in paths]
    heads = {
        chosen_head(model, None, str(path), "calculator") for model, path in zip(stored, paths, strict=True)
    }
    kinds = {(elements_of(m), round(float(m.r_max), 6)) for m in stored}
    if len(kinds) > 1 or len(heads) > 1:
        raise SettingsError(
            "the models differ in elements, r_max or heads, so they cannot form a committee: "
            + ", ".join(map(str, paths))
        )
    kinds_of_number = {dtype_of(model) for model in stored}
    wanted = dtype or (kinds_of_number.pop() if len(kinds_of_number) == 1 else "float64")
    models = [_converted(model, wanted).eval().requires_grad_(False) for model in stored]
    (head,) = heads
    # symmetrix knows all or none
    hardest = next((model for model in models if unsupported_reason(model)), models[0])
    backend = Backend(inference, device, hardest, what="calculator", key="inference: native")
    return Committee(models, device, head=head, evaluator=backend.evaluator)


def _converted(model: MaceModel, dtype: str) -> MaceModel:
    """The model in this precision; its atomic energies stay exact, so that large energies are not rounded."""
    if dtype_of(model) == dtype:
        return model
    if dtype == "float64":
        return doubled(model)
    if len(getattr(model, "heads", None) or ["Default"]) == 1:
        model.atomic_energies_fn.exact = model_atomic_energies(model).tolist()
    return model.to(DTYPES[dtype])
