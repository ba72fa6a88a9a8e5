"""The report in a real browser: every figure is there, nothing is asked of the network, nothing sticks out."""

import html
import json
import re
import shutil
import socketserver
import subprocess
import threading

import pytest

from aims_pax.report.html_page import write_report
from tests.report.folders import recorded

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium (apt-get install chromium)")

# what Chromium asks for itself, whatever it shows
ITS_OWN = re.compile(r"(google|gstatic|gvt1|chromium)[\w.-]*")
FRAME = (  # Chromium's windows are at least 500 pixels wide; a frame is as narrow as a phone
    "<body><script>onmessage=e=>document.body.dataset.seen=e.data</script>"
    '<iframe src="{}" style="width:{}px;height:900px;border:0"></iframe></body>'
)
LOOK = """<script>addEventListener('load',()=>{const w=document.documentElement.clientWidth,out=[];
for(const e of document.querySelectorAll('body *')){const r=e.getBoundingClientRect();
if(r.width&&(r.right>w+1||r.left<-1)&&!e.closest('.card table'))out.push(e.tagName+' '+(e.textContent||'').slice(0,40));
if(e.classList.contains('card')&&e.scrollWidth>e.clientWidth+1)out.push('card '+e.textContent.slice(0,40))}
const small=[...document.querySelectorAll('figure svg text')].filter(t=>t.getBoundingClientRect().width).map(t=>
parseFloat(getComputedStyle(t).fontSize)*Math.hypot(t.getScreenCTM().a,t.getScreenCTM().b));
parent.postMessage(JSON.stringify({width:innerWidth,wide:document.documentElement.scrollWidth,out,
figures:[...document.querySelectorAll('figure')].filter(f=>f.getBoundingClientRect().height>90).map(f=>f.id),
requests:performance.getEntriesByType('resource').map(r=>r.name),smallest:Math.min(...small),
ink:getComputedStyle(document.querySelector('figure svg text')).fill,
turned:[...document.querySelectorAll('canvas')].every(c=>{const before=c.toDataURL();
c.dispatchEvent(new KeyboardEvent('keydown',{key:'ArrowLeft'}));return c.tabIndex==0&&c.toDataURL()!=before}),
drawn:[...document.querySelectorAll('canvas')].every(c=>c.getContext('2d').getImageData(0,0,c.width,c.height).data.some(v=>v))}),'*')
})</script>"""


class Proxy(socketserver.ThreadingTCPServer):
    """Answers nobody and remembers who was asked for."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        self.asked = []
        super().__init__(("127.0.0.1", 0), Refuse)


class Refuse(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.asked.append(self.rfile.readline().decode("latin-1").strip())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = recorded(tmp_path_factory.mktemp("browser"))
    path = write_report(folder, pictures=False)
    text = path.read_text()
    assert text.count("</body>") == 1
    path.write_text(text.replace("</body>", LOOK + "</body>"))
    return path


def opened(path, width, tmp_path, dark=False):
    """What the page's own eyes saw, and which strangers were asked for."""
    frame = path.with_name(f"frame{width}.html")
    frame.write_text(FRAME.format(path.name, width))
    with Proxy() as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        done = subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--no-first-run", "--no-default-browser-check", "--disable-sync",
             "--hide-scrollbars", f"--proxy-server=127.0.0.1:{proxy.server_address[1]}",
             f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={tmp_path}",
             f"--window-size={width + 40},1000", "--virtual-time-budget=3000", "--dump-dom", frame.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        proxy.shutdown()
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stderr[-2000:]
    return json.loads(html.unescape(seen[1])), [a for a in proxy.asked if not ITS_OWN.search(a)]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_figure_is_seen_and_nothing_sticks_out(path, width, dark, tmp_path):
    seen, asked = opened(path, width, tmp_path, dark)
    assert seen["width"] == width
    assert seen["wide"] <= width
    assert seen["out"] == []
    wanted = {"learning_forces", "convergence", "parity_energy", "parity_forces", "parity_stress", "honesty_during",
              "honesty_delivered", "uncertainty_000", "distances", "timeline", "failures"}  # fmt: skip
    assert wanted <= set(seen["figures"])
    assert seen["requests"] == []
    assert asked == []
    assert seen["drawn"]
    assert seen["turned"]  # the structures, by the keyboard
    assert seen["smallest"] >= 9.0  # pixels: readable
    assert seen["ink"] == ("rgb(157, 167, 178)" if dark else "rgb(92, 102, 112)")


def test_the_test_would_notice_a_request_and_something_too_wide(path, tmp_path):
    bad = path.with_name("bad.html")
    text = path.read_text()
    bad.write_text(
        text.replace("<main>", '<main><img src="http://elsewhere.example/x.png"><p style="width:900px">x</p>')
    )
    seen, asked = opened(bad, 390, tmp_path)
    assert seen["wide"] > 390
    assert seen["out"]
    assert any("elsewhere.example" in a for a in asked)
