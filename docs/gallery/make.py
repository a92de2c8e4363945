"""Make the gallery's figures: ``python docs/gallery/make.py [NAME ...]``."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import time
import traceback
from pathlib import Path

GALLERY = Path(__file__).resolve().parent


def main(names: list[str]) -> int:
    """Run the named scripts, or all, and keep their figures; return the number that failed."""
    failed = 0
    for name in names or sorted(p.stem for p in GALLERY.glob("*.py") if p.name != "make.py"):
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                runpy.run_path(str(GALLERY / f"{name}.py"), run_name="__main__")
                data = Path(f"{name}.png").read_bytes()
                (GALLERY / "figures" / f"{name}.png").write_bytes(data)
                print(f"{name}: {time.perf_counter() - begun:.1f} s, {len(data) // 1024} kB")
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"{name}: failed", flush=True)
            os.chdir(GALLERY)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
