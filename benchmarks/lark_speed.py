"""Figure and page of Lark's speed beside tuned AdamW on the problems for development.

Reads the records of ``studies/lark-speed-30-nov.toml``, the part of ``optiscope bench lark-speed``
that was run. Run with ``python benchmarks/lark_speed.py --figure FILE [--page FILE]``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from optiscope.report.figure_style import figure_style
from optiscope.report.figures.speed import draw_speeds
from optiscope.report.speed_page import looks_of, speeds_of, write_speed_page
from optiscope.stats.speed import means

RECORDS = Path(__file__).parent / "records" / "lark-speed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="file to write the figure to")
    parser.add_argument("--page", type=Path, help="file to write the page to")
    given = parser.parse_args()
    speeds = speeds_of(RECORDS)
    overall = means(speeds)
    for one in speeds:
        print(
            f"{one.problem:18} {one.algorithm}: {one.bound} {one.steps:.2f} "
            f"{one.steps_interval} steps, {one.seconds:.2f} {one.seconds_interval} seconds, "
            f"beside {one.baseline}"
        )
    for mean in overall.values():
        print(mean)
    if given.figure is not None:
        with figure_style():
            figure, axes = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
            draw_speeds(axes, speeds, overall, looks_of(RECORDS))
            figure.savefig(given.figure, dpi=150)
    if given.page is not None:
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place) / "records"
            shutil.copytree(RECORDS, copy)
            shutil.copyfile(write_speed_page(copy), given.page)


if __name__ == "__main__":
    main()
