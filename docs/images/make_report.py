"""Makes the pictures of the README and of the page `report` from a finished run: report.png, report_*.png.

python docs/images/make_report.py FOLDER      the folder of the run (`./demo` after `bash setup.sh demo`)

report.png is the top of FOLDER/report.html as a browser shows it; it needs `chromium` (or another name in CHROMIUM).
The others are figures of FOLDER/report.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
FIGURES = {
    "report_learning": "learning_forces",
    "report_calibration": "honesty_delivered",
    "report_uncertainty": "uncertainty_000",
}
WIDTH, HEIGHT, SCALE = (
    1180,
    830,
    1.5,
)  # of the part that is shown, in CSS pixels; pixels of the picture for each


def main(folder: Path) -> None:
    for name, figure in FIGURES.items():
        shutil.copyfile(folder / "report" / f"{figure}.png", HERE / f"{name}.png")
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "page.png"
        browser = [os.environ.get("CHROMIUM", "chromium"), "--headless", "--no-sandbox", "--disable-gpu"]
        browser += ["--hide-scrollbars", f"--force-device-scale-factor={SCALE}"]
        browser += [f"--window-size={WIDTH},{HEIGHT + 200}", f"--screenshot={whole}"]
        page = (folder / "report.html").resolve().as_uri()
        subprocess.run([*browser, page], check=True, timeout=60, capture_output=True)
        with Image.open(whole) as picture:
            top = picture.convert("RGB").crop((0, 0, int(WIDTH * SCALE), int(HEIGHT * SCALE)))
            top.quantize(96).save(HERE / "report.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
