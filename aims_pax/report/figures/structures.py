"""The most uncertain structures as interactive 3D views: a small canvas script without any library."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors

from aims_pax.report.figures.style import escaped
from aims_pax.report.run_record import RunRecord
from aims_pax.report.tolerant_readers import StructureHeader

SHOWN, LARGEST = 3, 400

SCRIPT = """
for(const c of document.querySelectorAll('canvas[data-atoms]')){
const d=JSON.parse(c.dataset.atoms),g=c.getContext('2d');let a=.5,b=-.35,drag=null;
const R=Math.max(1.2,...d.p.map(p=>Math.hypot(...p)))+.8;
const draw=()=>{const q=devicePixelRatio||1,w=c.clientWidth,h=c.clientHeight;
c.width=w*q;c.height=h*q;g.setTransform(q,0,0,q,w*q/2,h*q/2);
const s=Math.min(w,h)/2/R,ca=Math.cos(a),sa=Math.sin(a),cb=Math.cos(b),sb=Math.sin(b);
const turn=p=>{const x=ca*p[0]+sa*p[2],z=ca*p[2]-sa*p[0];return[x*s,(cb*p[1]-sb*z)*s,cb*z+sb*p[1]]};
const P=d.p.map(turn),line=getComputedStyle(document.documentElement).getPropertyValue('--muted');
const bond=([i,j])=>({z:(P[i][2]+P[j][2])/2-.01,f:()=>{g.strokeStyle=line;g.lineWidth=Math.max(1.5,.11*s);
g.lineCap='round';g.beginPath();g.moveTo(P[i][0],-P[i][1]);g.lineTo(P[j][0],-P[j][1]);g.stroke()}});
const atom=(p,i)=>({z:p[2],f:()=>{g.beginPath();g.arc(p[0],-p[1],.42*d.r[i]*s,0,7);g.fillStyle=d.c[i];g.fill();
g.lineWidth=.8;g.strokeStyle='rgba(20,24,28,.55)';g.stroke()}});
[...d.b.map(bond),...P.map(atom)].sort((u,v)=>u.z-v.z).forEach(t=>t.f())};
c.onpointerdown=e=>{drag=[e.clientX,e.clientY];c.setPointerCapture(e.pointerId)};c.onpointerup=()=>drag=null;
c.onpointermove=e=>{if(drag){a+=(e.clientX-drag[0])/90;b+=(e.clientY-drag[1])/90;drag=[e.clientX,e.clientY];draw()}};
c.onkeydown=e=>{const t={ArrowLeft:[-.15,0],ArrowRight:[.15,0],ArrowUp:[0,-.15],ArrowDown:[0,.15]}[e.key];
if(t){a+=t[0];b+=t[1];e.preventDefault();draw()}};
addEventListener('resize',draw);matchMedia('(prefers-color-scheme:dark)').addEventListener('change',draw);draw()}
"""


def uncertain_structures(run: RunRecord) -> str:
    """HTML of the labelled frames on which the models disagreed most, first one per system; "" if none."""
    known = {(s.info.get("trajectory"), s.info.get("step")): s for s in run.structures}
    candidates: list[tuple[float, StructureHeader, Any]] = []
    for t in run.trajectories:
        for k in np.flatnonzero(t.labelled):
            s = known.get((str(t.index), str(t.steps[k])))
            if s is not None and s.n_atoms <= LARGEST:
                candidates.append((float(t.uncertainty[k]), s, t))
    candidates.sort(key=lambda m: -m[0])
    best = list({s.system: (u, s, t) for u, s, t in reversed(candidates)}.values())
    best = sorted(best, key=lambda m: -m[0])[:SHOWN]
    best += [m for m in candidates if all(m[1].id != b[1].id for b in best)][: SHOWN - len(best)]
    drawn = "".join(_view(u, s, t.index) for u, s, t in best)
    if not drawn:
        return ""
    return (
        f'<h3 style="margin:18px 0 8px">Frames on which the models disagreed most</h3><div class=figures>{drawn}</div>'
        f"<script>{SCRIPT}</script>"
    )


def _view(uncertainty: float, structure: StructureHeader, trajectory: int) -> str:
    geometry = structure.geometry()
    if geometry is None:
        return ""
    z = geometry.numbers
    positions = geometry.positions - geometry.positions.mean(axis=0)
    d = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    reach = 1.25 * (covalent_radii[z][:, None] + covalent_radii[z][None])
    bonds = [[int(i), int(j)] for i, j in zip(*np.nonzero(np.triu(d < reach, 1)), strict=True)]
    colours = ["#" + "".join(f"{round(255 * c):02x}" for c in jmol_colors[k]) for k in z]
    data = {
        "p": positions.round(3).tolist(),
        "b": bonds,
        "c": colours,
        "r": covalent_radii[z].round(2).tolist(),
    }
    step = structure.info.get("step", "")
    name = structure.system or "structure"
    words = f"{name}, {structure.n_atoms} atoms; the arrow keys turn it"
    atoms = escaped(json.dumps(data, separators=(",", ":")))
    return (
        f'<figure id="structure_{escaped(structure.id)}"><h3>{escaped(name)}</h3>'
        f'<canvas tabindex=0 role=img aria-label="{escaped(words)}" data-atoms="{atoms}"></canvas>'
        f"<figcaption><b>{uncertainty:.3g} eV/Å</b> · trajectory {trajectory}, step {escaped(step)} · "
        "drag or arrow keys turn it</figcaption></figure>"
    )
