"""Make the pictures of pages in the README: the report of quickstart, and the doctor's page.

Run with ``python docs/figures/make.py RUNS``, where RUNS holds the finished study ``quickstart``
(``optiscope bench quickstart``). Needs Playwright and Chromium.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

FIGURES = Path(__file__).parent

BROKEN = """
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(240):
    batch = torch.randint(len(x), (64,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    loss.backward()
    optimizer.step()
"""


def doctors_page(folder: Path) -> Path:
    """The page of a watched run without ``zero_grad``."""
    script = folder / "train.py"
    script.write_text(BROKEN, encoding="utf-8")
    words = ["-m", "optiscope", "watch", "--out", str(folder / "pages"), "--", sys.executable]
    subprocess.run(
        [sys.executable, *words, str(script)], stdin=subprocess.DEVNULL, timeout=300, check=False
    )
    (page,) = (folder / "pages").glob("*.html")
    return page


def main() -> None:
    """Make both."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = Path(sys.argv[1]).resolve() / "quickstart" / "report.html"
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        pages = {"report.png": (report, 704), "doctor.png": (doctors_page(Path(scratch)), 600)}
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"]
        )
        for name, (page, height) in pages.items():
            view = browser.new_page(viewport={"width": 1200, "height": height})
            view.goto(page.as_uri())
            view.wait_for_timeout(300)
            view.screenshot(path=FIGURES / name)
        browser.close()


if __name__ == "__main__":
    main()
