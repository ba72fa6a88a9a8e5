"""Reduces a MACE model of several heads (levels of theory) to one of them, in place.

MACE evaluates the readouts of all heads and takes the entries of one. Head k of H has the k-th column of each linear
readout, the k-th of H equal blocks of the hidden scalars of the last readout, and the k-th atomic energies, scale and
shift. `model_surgery` compares the result with the original.
"""

from __future__ import annotations

from typing import Any

from aims_pax.errors import SettingsError
from aims_pax.models.mace.linear_selection import UnknownLayer, selected_linear
from aims_pax.models.mace.mace_import import MaceModel, default_dtype, o3
from aims_pax.suggestions import nearest

KEY = "FOUNDATION.head"
ALONE = "Default"  # name of the only head of a model, as in models that MACE builds


def heads_of(model: MaceModel) -> tuple[str, ...]:
    """The names of the heads; old models have none."""
    return tuple(getattr(model, "heads", None) or [ALONE])


def chosen_head(model: MaceModel, wanted: str | None, where: str, key: str = KEY) -> int:
    """The index of the head named in the settings; without a name the only one, or the one called default.

    where: the model, for the error. Raises SettingsError that lists the heads.
    """
    heads = heads_of(model)
    if wanted is not None:
        if wanted in heads:
            return heads.index(wanted)
        near = nearest(wanted, heads)
        hint = f"; nearest: {near}" if near else ""
        raise SettingsError(f"{key}: {where} has no head {wanted!r}; it has {', '.join(heads)}{hint}")
    named = [k for k, head in enumerate(heads) if head.lower() == "default"]
    if len(heads) > 1 and not named:
        advice = (
            "name one of them" if key == KEY else "use a model with one head (mace_select_head makes one)"
        )
        raise SettingsError(
            f"{key}: {where} has the heads {', '.join(heads)} and none named default; {advice}"
        )
    return named[0] if named else 0


def select_head(model: MaceModel, k: int) -> None:
    """Leave only head k. In place. Raises UnknownLayer for a readout that is not known here."""
    H = len(heads_of(model))
    model.heads = [ALONE]
    if H == 1:
        return
    with default_dtype(next(model.parameters()).dtype):
        for readout in model.readouts:
            _select_in_readout(readout, k, H)
    energies = model.atomic_energies_fn
    energies.atomic_energies = energies.atomic_energies[k : k + 1].clone()
    if hasattr(model, "scale_shift"):
        for name in ("scale", "shift"):
            setattr(model.scale_shift, name, getattr(model.scale_shift, name)[k : k + 1].clone())


def _select_in_readout(readout: Any, k: int, H: int) -> None:
    kind = type(readout).__name__
    if kind == "LinearReadoutBlock":
        readout.linear = selected_linear(readout.linear, outputs=[k])
        return
    if kind not in ("NonLinearReadoutBlock", "NonLinearBiasReadoutBlock"):
        raise UnknownLayer(kind)
    hidden = readout.linear_1.irreps_out
    if hidden.dim % H:
        raise UnknownLayer(f"{hidden.dim} hidden scalars for {H} heads")
    M = hidden.dim // H
    block = range(k * M, (k + 1) * M)
    readout.linear_1 = selected_linear(readout.linear_1, outputs=block)
    if hasattr(readout, "linear_mid"):
        readout.linear_mid = selected_linear(readout.linear_mid, inputs=block, outputs=block)
    readout.linear_2 = selected_linear(readout.linear_2, inputs=block, outputs=[k])
    readout.hidden_irreps = o3.Irreps(f"{M}x0e")
    readout.num_heads = 1
    _narrow(readout.non_linearity, M)


def _narrow(activation: Any, n: int) -> None:
    """Apply the same function to n scalars."""
    if len(activation.irreps_in) != 1:
        raise UnknownLayer(f"activation of {activation.irreps_in}")
    activation.irreps_in = o3.Irreps([(n, activation.irreps_in[0].ir)])
    activation.irreps_out = o3.Irreps([(n, activation.irreps_out[0].ir)])
