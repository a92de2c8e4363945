"""Hook of MkDocs: a page for each script of docs/gallery, and the page that shows all of them.

A script's docstring is its text (the first line is the title), ``# %%`` starts another block of
text in comments, and the figure is ``figures/NAME.png``, which ``docs/gallery/make.py`` writes.
"""

from __future__ import annotations

import ast
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

GALLERY = Path(__file__).parents[1] / "gallery"
NOT_PAGES = {"make.py"}


@dataclass(frozen=True)
class GalleryPage:
    """One script as a page."""

    name: str
    title: str
    lead: str
    markdown: str


def scripts() -> list[Path]:
    """The gallery's scripts, in the order of its page."""
    return sorted(path for path in GALLERY.glob("*.py") if path.name not in NOT_PAGES)


def page_of(script: Path) -> GalleryPage:
    """The page of a script."""
    source = script.read_text(encoding="utf-8")
    first = ast.parse(source).body[0]
    text = ast.literal_eval(ast.unparse(first.value)) if isinstance(first, ast.Expr) else ""
    if not isinstance(text, str) or not text.strip():
        raise PluginError(f"{script.name}: expected a docstring with a title, got none")
    title, _, rest = text.strip().partition("\n")
    lead = rest.strip().partition("\n\n")[0]
    if not (GALLERY / "figures" / f"{script.stem}.png").exists():
        raise PluginError(
            f"{script.name}: no figure; run python docs/gallery/make.py {script.stem}"
        )
    code = "\n".join(source.splitlines()[first.end_lineno :])
    parts = [f"# {title.rstrip('.')}", rest.strip()]
    parts.append(f"![{title}](figures/{script.stem}.png)")
    for number, block in enumerate(code.split("\n# %%")):
        lines = block.strip("\n").splitlines()
        if number:
            words = []
            while lines and lines[0].startswith("#"):
                words.append(lines.pop(0)[1:].removeprefix(" "))
            parts.append("\n".join(words).strip())
        body = "\n".join(lines).strip("\n")
        if body:
            parts.append(f"```python\n{body}\n```")
    parts.append(f"Run it: `python docs/gallery/{script.name}` writes `{script.stem}.png`.")
    return GalleryPage(script.stem, title.rstrip("."), lead, "\n\n".join(parts) + "\n")


def overview(pages: list[GalleryPage]) -> str:
    """The page that shows all figures."""
    cards = [
        f'<a href="{page.name}.html"><img src="figures/{page.name}.png" alt="" loading="lazy">'
        f"<span>{html.escape(page.title)}</span></a>"
        for page in pages
    ]
    return (
        "# Gallery\n\nEach page is a short script that runs in the test suite: its result is "
        "asserted, and it ends in a figure.\n\n"
        f'<div class="gallery">\n{"".join(cards)}\n</div>\n'
    )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages into the navigation."""
    for section in config.nav or []:
        if isinstance(section, dict) and "Gallery" in section:
            section["Gallery"] = [
                "gallery/index.md",
                *({page_of(s).title: f"gallery/{s.stem}.md"} for s in scripts()),
            ]
    config.watch.append(str(GALLERY))
    return config


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages."""
    pages = [page_of(script) for script in scripts()]
    for page in pages:
        files.append(File.generated(config, f"gallery/{page.name}.md", content=page.markdown))
    files.append(File.generated(config, "gallery/index.md", content=overview(pages)))
    return files
