"""ACTIVE_LEARNING.bias: dynamics that is driven to structures about which the members disagree; see `md.bias`."""

from __future__ import annotations

from typing import Annotated

from aims_pax.settings.fields import Kind, Real, Section, key, one_of

BiasKind = Annotated[str, one_of("hal", "udd"), Kind("`str`")]
Biased = Annotated[str, one_of("all", "every other"), Kind("`str`")]


class BiasSettings(Section):
    """ACTIVE_LEARNING.bias: forces towards structures about which the members disagree."""

    kind: BiasKind = key(
        "hal",
        "`hal`: the bias energy is linear in the spread of the members' energies and unlimited. `udd`: a Gaussian of "
        "it, at most `strength` × k_BT.",
    )
    strength: Real = key(
        1.0,
        "Strength of the bias (in k_BT): `hal` moves the spread by about so many of its thermal standard deviations, "
        "`udd` makes structures with a large spread up to exp(`strength`) times as likely.",
        possible="(0, 100]",
        plausible="[0.1, 10]",
        usual=1.0,
    )
    max_force: Real = key(
        1.0,
        "Largest force of the bias on an atom, in units of the root mean square force on the atoms; beyond it the bias "
        "of the whole structure is scaled down.",
        possible="(0, 100]",
        plausible="[0.05, 5]",
        usual=1.0,
    )
    trajectories: Biased = key(
        "all",
        "Trajectories with a bias: `all`, or `every other` of each geometry, beginning with the first.",
    )
