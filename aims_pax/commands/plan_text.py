"""The plan as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aims_pax.report.forecast import forecast_lines
from aims_pax.report.formatting import plural


def plan_lines(ahead: dict[str, Any]) -> list[str]:
    """Lines of the plan."""
    out = [
        f"{ahead['name']}: {plural(len(ahead['systems']), 'system')}, {plural(ahead['members'], 'member')}"
    ]
    width = max(len(s["name"]) for s in ahead["systems"])
    dealt = (ahead["active_learning"] or {}).get("trajectories", {})
    for s in ahead["systems"][:20]:
        kind = {0: "molecule", 3: "periodic"}.get(sum(s["periodic"]), "slab or wire")
        heat = s["temperature"]
        heat = f"{heat:g} K" if not isinstance(heat, list | tuple) else f"{heat[0]:g} … {heat[1]:g} K"
        if s.get("temperatures"):
            heat = ", ".join(f"{t:g}" for t in s["temperatures"]) + " K in active learning"
        near = "" if s["neighbours"] is None else f" · {s['neighbours']:g} neighbours"
        many = f" · trajectories: {dealt[s['name']]}" if s["name"] in dealt else ""
        out.append(
            f"  {s['name']:{width}}  {s['formula']} · {s['atoms']} atoms · {kind} · {s['ensemble']} {heat}, "
            f"{s['timestep']:g} fs{near}{many}"
        )
    if len(ahead["systems"]) > 20:
        out.append(f"  … and {len(ahead['systems']) - 20} more")
    if ahead["models_begin_from"]:
        out += ["", f"models begin from {ahead['models_begin_from']}: no reference call"]
    if ahead["isolated_atoms"]:
        out += ["", f"isolated atoms: {ahead['isolated_atoms']} reference calls"]
    if free := ahead["pretraining"]:
        out += [
            "",
            f"pre-training (free): {free['free_labels']} labels from {free['potential']}",
            f"  MD steps         {free['MD_steps']}",
            f"  training epochs  at most {free['most_epochs']} of each member",
        ]
    if copies := ahead["copies"]:
        few, many = copies["structures"]
        out += [
            "",
            f"copies (AUGMENTATION): no reference call; an epoch may cost up to {1 + copies['of_each_structure']} "
            f"times as much while a member has {few} to {many} training structures",
        ]
    out += [*_initial_lines(ahead["initial"]), *_active_lines(ahead["active_learning"])]
    for c in ahead["convergence"]:
        who = "one member" if c["members"] == 1 else f"{c['members']} members"
        each = " each" if c["members"] > 1 else ""
        out.append(
            f"convergence after {c['after']}: {who}, at most {plural(c['most_epochs'], 'epoch')}{each}"
        )
    memory, cluster = ahead["memory_MB"], ahead["cluster"]
    out += ["", f"reference calls in all: {_range(ahead['reference_calls'])}"]
    if ahead["comparisons"]:
        out[-1] += (
            f", and at most {ahead['comparisons']} that compare given data with it (MISC.check_given_data)"
        )
    if (base := ahead["baseline"]) is not None:
        n = base["evaluations_in_MD"]
        steps = "without limit" if n is None else f"at most {n:,}".replace(",", " ")
        out.append(
            f"baseline {base['baseline']}: no reference calls; evaluations for labels "
            f"{_range(base['evaluations_for_labels'])}, in MD of active learning {steps}"
        )
    if "blocks" in cluster:
        out.append(
            f"cluster: {cluster['blocks'][0]} … {cluster['blocks'][1]} blocks of {cluster['nodes_a_block']} nodes × "
            f"{cluster['jobs_a_block']} jobs: at most {cluster['at_once']} calculations at the same time"
        )
    else:
        out.append(f"this machine: {plural(cluster['at_once'], 'calculation')} at the same time")
    if ahead["processes"]:
        out.append(_sharing(ahead["processes"]))
    if memory is not None:
        out.append(
            f"memory, estimated, without about 600 MB of torch and MACE: members {memory['members']:g} MB, "
            f"a training batch {memory['training']:g} MB, MD of all trajectories {memory['moving']:g} MB"
        )
    out.append(f"disk, estimated: {_range(ahead['disk_MB'])} MB")
    if ahead["forecast"] is None:
        out += ["", "time and cost: aims-PAX check --try measures and forecasts them for these settings"]
    else:
        out += ["", *forecast_lines(ahead["forecast"])]
    return out


def _initial_lines(first: dict[str, Any] | None) -> list[str]:
    if first is None:
        return []
    ends = first["ends_by"] or first["may_end_by"]
    also = f"; earlier at {first['may_end_by']}" if first["ends_by"] and first["may_end_by"] else ""
    return [
        "",
        f"initial dataset ({first['sampling']})",
        f"  sampling steps   {_range(first['steps_of_sampling'])}, each at most "
        f"{plural(first['structures_a_step'], 'structure')}",
        f"  reference calls  {_range(first['reference_calls'])}",
        f"  MD steps         {_range(first['MD_steps'])}",
        *_evaluation_lines(first["evaluations"], first["evaluations_in_words"]),
        f"  training epochs  {_range(first['epochs'])}",
        f"  ends by          {ends}{also}",
    ]


def _evaluation_lines(evaluations: dict[str, Any], words: dict[str, str]) -> list[str]:
    """Evaluations of the samplers' potentials besides MD."""
    said = [
        words.get(name, f"{name}: {{}}").format(_range(value) if isinstance(value, list) else value)
        for name, value in evaluations.items()
    ]
    return [f"  evaluations      {'; '.join(said)}"] if said else []


def _active_lines(active: dict[str, Any] | None) -> list[str]:
    if active is None:
        return []
    limits = ", ".join(f"{k} {v:g}" for k, v in active["limits"].items())
    steps = (
        "until another limit" if active["MD_steps"] is None else f"{active['MD_steps']:,}".replace(",", " ")
    )
    return [
        "",
        "active learning",
        f"  reference calls  {_range(active['reference_calls'])}" + _testing(active),
        f"  MD steps         {steps}" + ("" if active["ps"] is None else f" at most ({active['ps']:g} ps)"),
        f"  training epochs  {_range(active['epochs'])}" + _before_exploration(active),
        f"  ends by          {limits or 'no limit: it runs until it is stopped or the walltime ends'}",
        "",
    ]


def _before_exploration(active: dict[str, Any]) -> str:
    before = active["epochs_before_exploration"]
    return f" (at most {before} of them before exploration begins)" if before else ""


def _sharing(processes: dict[str, int]) -> str:
    """How members and trajectories share the cores of this machine."""
    training, dynamics = processes["training"], processes["dynamics"]
    moving = f"trajectories move in {plural(dynamics, 'process')}"
    if training:
        return f"on this machine members train in {plural(training, 'process')} while {moving}"
    return f"on this machine training and dynamics take turns: {moving}"


def _testing(active: dict[str, Any]) -> str:
    wanted, most = active["test_structures"], active["test_structures_at_most"]
    if not wanted:
        return ""
    if most < wanted:
        return f" (at most {most} of them for testing: n_test {wanted} cannot be reached)"
    return f" (up to {wanted} of them for testing)"


def _range(values: Sequence[float | None]) -> str:
    low, high = (
        "no limit" if v is None or math.isinf(v) else f"{v:g}" if v < 1e6 else f"{v:.3g}" for v in values
    )
    return low if low == high else f"{low} … {high}"
