"""The page's look: one style sheet, nothing from the network, light and dark, desktop and phone."""

STYLE = """
:root{--ink:#1f2329;--muted:#5c6670;--grid:#dde1e6;--paper:#ffffff;--ground:#f5f6f8;--line:#e3e6ea;
--blue:#0072b2;--orange:#c98500;--green:#008f68;--vermillion:#cc5500;--purple:#a8518c;--sky:#3f9fd8}
@media (prefers-color-scheme:dark){:root{--ink:#e7eaee;--muted:#9da7b2;--grid:#39414a;--paper:#191d22;
--ground:#101316;
--line:#2a3037;--blue:#5aaee6;--orange:#f0b23c;--green:#3ccb9c;--vermillion:#ff8f52;--purple:#dd97c6;
--sky:#83c9f4}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:27px;line-height:1.2;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:19px;line-height:1.3;margin:44px 0 4px;letter-spacing:-.005em}
h3{font-size:14.5px;line-height:1.35;margin:0;font-weight:600;overflow-wrap:anywhere}
p{margin:0 0 12px}
.lead{color:var(--muted);max-width:46em;margin:0 0 14px}
.head{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:baseline}
.state{font-size:13px;font-weight:600;padding:2px 10px;border-radius:99px;border:1px solid currentColor;
white-space:nowrap}
.state.finished{color:var(--green)}.state.running,.state.starting{color:var(--blue)}
.state.stopped,.state.killed,.state.missed{color:var(--vermillion)}
.sub{color:var(--muted);margin:6px 0 20px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;background:var(--line);
border:1px solid var(--line);border-radius:10px;overflow:hidden}
.tile{background:var(--paper);padding:12px 13px}
.tile b{display:block;font-size:21px;line-height:1.25;font-weight:600;font-variant-numeric:tabular-nums;
letter-spacing:-.01em}
.tile b small{font-size:12.5px;font-weight:400;color:var(--muted);letter-spacing:0}
.tile span{display:block;color:var(--muted);font-size:13px;line-height:1.35}
.error{border-left:3px solid var(--vermillion);background:var(--paper);padding:10px 14px;margin:0 0 20px;
overflow-wrap:anywhere}
.verdict{border-left:3px solid var(--muted);background:var(--paper);padding:10px 14px;margin:0 0 20px;
max-width:70em}
.verdict.reached{border-color:var(--green)}.verdict.missed,.verdict.unfinished{border-color:var(--vermillion)}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(330px,100%),1fr));gap:14px}
figure{margin:0;background:var(--paper);border:1px solid var(--line);border-radius:10px;
padding:12px 14px 10px;min-width:0}
figure.wide{grid-column:1/-1}
figure svg{display:block;width:100%;max-width:440px;height:auto;margin:6px auto 0;overflow:visible}
figure.wide svg{max-width:none}
figure svg text{font-family:inherit;font-variant-numeric:tabular-nums}
figure .narrow{display:none}
@media (max-width:940px){figure .broad{display:none}figure .narrow{display:block}}
figcaption{color:var(--muted);font-size:13px;line-height:1.45;margin-top:6px}
figcaption b{color:var(--ink);font-weight:500}
.legend{display:flex;flex-wrap:wrap;gap:0 12px;font-size:12.5px;color:var(--muted);margin-top:1px}
section>.legend{margin:-4px 0 10px;font-size:13.5px}
.legend i{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:5px}
.card{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:4px 14px;
margin-top:14px;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;font-size:14.5px;padding:8px 0 4px}
th{font-weight:500;color:var(--muted);text-align:right;padding:5px 0 5px 14px;vertical-align:bottom;
line-height:1.3}
td{text-align:right;padding:5px 0 5px 14px;border-top:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child,th.t,td.t{text-align:left}
th:first-child,td:first-child{padding-left:0}
td.w,th.w{text-align:left}td.w{overflow-wrap:anywhere}
.tables{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(430px,100%),1fr));gap:0 14px;
align-items:start}
tr.sum td{font-weight:600}
code{font:12.5px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}
footer{color:var(--muted);font-size:13px;margin-top:40px;border-top:1px solid var(--line);padding-top:12px;
overflow-wrap:anywhere}
canvas:focus-visible{outline:2px solid var(--blue);outline-offset:2px;border-radius:6px}
canvas{display:block;width:100%;height:230px;touch-action:none;cursor:grab}
@media (max-width:640px){main{padding:18px 12px 36px}h1{font-size:22px}h2{margin-top:34px;font-size:18px}
.tiles{grid-template-columns:1fr 1fr}.tile{padding:10px 12px}.tile b{font-size:19px}
.tile:last-child:nth-child(odd){grid-column:1/-1}
figure{padding:10px 8px 8px}
figure h3,figure .legend,figcaption{padding:0 4px}
.card{padding:4px 12px}
th,td{padding-left:9px}table{font-size:12.5px}code{font-size:11.5px}}
@media print{body{background:#fff}figure,.card,.tiles{break-inside:avoid}}
"""

AIDS = {
    "learning_forces": (
        "On validation frames. Should fall; when it stays flat although labels are added, more labels of this "
        "kind will not help."
    ),
    "learning_energies": (
        "Mean of the models on their validation frames; energy offsets lag during learning and are fitted "
        "at the end."
    ),
    "convergence": (
        "Each member is trained on all data. The delivered weights are those of the last epoch whose validation loss "
        "was better than the best before by more than ACTIVE_LEARNING.margin; its force error need not be the lowest."
    ),
    "error_forecast": (
        "The largest force error of structures before they were learnt, averaged over those that MD visits. Right of "
        "the dotted line is the forecast."
    ),
    "error_bound": (
        "About nine of ten structures drawn at random should lie below the dashed line. Uncertain ones were chosen."
    ),
    "honesty_during": (
        "With a useful uncertainty the points rise to the right: where the models disagree more, errors are larger."
    ),
    "honesty_delivered": (
        "On the dashed line errors are as large as the spread; above it the models are overconfident."
    ),
    "parity_energy": (
        "On the diagonal a prediction is right; the errors below should be narrow and centred at zero."
    ),
    "parity_forces": (
        "Components by element; points far from the diagonal show where data are missing. The outermost "
        "bars hold the rest."
    ),
    "parity_stress": (
        "All components of periodic frames; if the cloud is off the diagonal, raise mace.yaml TRAINING.stress_weight."
    ),
    "temperature": (
        "Heats up or cools down to the dashed target first, then fluctuates about it, strongly in small systems. A "
        "temperature that keeps rising beyond the target means an unstable model."
    ),
    "model_energy": "Fluctuates without drift when the dynamics is stable.",
    "volume": "Becomes constant when the cell is in equilibrium with pressure and temperature.",
    "label_energies": (
        "Frames that were uncertain. The band is the range of thermal motion (± 2 standard deviations of a harmonic "
        "system at the highest temperature): frames far above it are no structures that MD visits, and teach little."
    ),
    "distances": (
        "Each dash is one frame; atoms closer than the orange mark count as exploded and are never labelled."
    ),
    "timeline": (
        "Above: what the device did. Below: reference calculations running at the same time; gaps are "
        "idle workers."
    ),
    "failures": (
        "Single failures are normal, their frames are left out; many of one class point to the reference's settings."
    ),
}
