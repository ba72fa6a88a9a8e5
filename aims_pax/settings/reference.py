"""REFERENCE in aimsPAX.yaml: the method that labels structures."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, field_validator, model_validator

from aims_pax.settings.augment import as_calculator
from aims_pax.settings.calculator_conventions import check_keys
from aims_pax.settings.callables import registered_factory
from aims_pax.settings.control_in import MOVES_ATOMS
from aims_pax.settings.fields import (
    Kind,
    OptionalText,
    Section,
    Table,
    key,
    one_of,
    optional,
)

SpinConvention = Annotated[str, one_of("None", "multiplicity", "unpaired_electrons"), Kind("`str` or `None`")]
Method = Annotated[str, one_of("aims", "calculator", "given", fhi_aims="aims"), Kind("`str`")]

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
