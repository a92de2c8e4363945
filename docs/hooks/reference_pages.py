"""Hook of MkDocs: the reference, one page for each public part, from docstrings.

Every name of ``__all__`` of the packages and modules below is shown. ``missing_docstrings`` is what
the test of the site asserts to be empty.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "optiscope": ("What `import optiscope` gives", ("optiscope",)),
    "objective": ("The loss as a function of the parameters", ("objective", "objective.risk")),
    "curvature": ("Eigenpairs, density, trace, outliers, with their errors", ("curvature",)),
    "landscape": ("Lines, planes, paths, matched units, basins", ("landscape",)),
    "doctor": (
        "Checks, the watch, findings and rules",
        ("doctor.check", "doctor.watching", "doctor.finding", "doctor.rule"),
    ),
    "monitor": ("Instruments", ("monitor.instrument", "monitor.curvature", "monitor.budget")),
    "integrations": (
        "Lightning, Hugging Face, any training loop",
        ("integrations.lightning", "integrations.transformers", "integrations.training_loop"),
    ),
    "optim": ("Optimizers and their specifications", ("optim", "optim.spec", "optim.registry")),
    "problems": (
        "Problems and what they are made of",
        ("problems", "problems.initialisation", "problems.textbook.trajectory"),
    ),
    "data": ("Data sets read into tensors", ("data",)),
    "train": ("The training loop", ("train", "train.schedule", "train.stopping")),
    "study": ("Studies: declared, tuned, run, resumed", ("study", "study.single")),
    "executors": ("Process pools, Slurm, Dask", ("executors", "executors.slurm")),
    "records": ("Trials, runs and their store", ("records",)),
    "stats": (
        "Comparisons, claims, tuning curves",
        ("stats.comparison", "stats.claims", "stats.refusal", "stats.tuning_curve", "stats.export"),
    ),
    "report": ("The report", ("report",)),
    "testing": (
        "Conformance suites for your own parts",
        ("testing.problems", "testing.optimizers", "testing.executors", "testing.instruments"),
    ),
    "errors": ("Errors and exit codes", ("errors",)),
}
"""Pages by name: one line each, and the modules whose public names it shows."""


def path_of(module: str) -> str:
    """Import path of a module in ``PARTS``."""
    return module if module == "optiscope" else f"optiscope.{module}"


def public_names(module: str) -> list[str]:
    """Names in a module's ``__all__``."""
    return list(importlib.import_module(path_of(module)).__all__)


def missing_docstrings() -> list[str]:
    """Import paths of the reference's classes and functions that have no docstring."""
    missing = []
    for _, modules in PARTS.values():
        for module in modules:
            loaded = importlib.import_module(path_of(module))
            for name in public_names(module):
                value = getattr(loaded, name)
                described = inspect.isclass(value) or inspect.isfunction(value)
                if described and not (value.__doc__ or "").strip():
                    missing.append(f"{path_of(module)}.{name}")
    return missing


def page_of(part: str) -> str:
    """Markdown of a part's page: a directive for each public name, once."""
    line, modules = PARTS[part]
    title = "optiscope" if part == "optiscope" else f"optiscope.{part}"
    text = [f"# {title}", f"{line}."]
    shown: set[str] = set()
    for module in modules:
        names = [name for name in public_names(module) if name not in shown]
        shown.update(names)
        if len(modules) > 1 and names:
            text.append(f"From `{path_of(module)}`:")
        text += [f"::: {path_of(module)}.{name}" for name in names]
    return "\n\n".join(text) + "\n"


def overview() -> str:
    """The page that lists the parts."""
    rows = [
        f"| [`{part}`]({part}.md) | {line} | {sum(len(public_names(m)) for m in modules)} |"
        for part, (line, modules) in PARTS.items()
    ]
    return (
        "# Reference\n\nGenerated from docstrings, which state shapes, units, errors raised and "
        "the source.\n\n| part | what it holds | names |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages into the navigation."""
    for section in config.nav or []:
        if isinstance(section, dict) and "Reference" in section:
            section["Reference"] = [
                "reference/index.md",
                *({path_of(part): f"reference/{part}.md"} for part in PARTS),
            ]
    return config


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages."""
    files.append(File.generated(config, "reference/index.md", content=overview()))
    for part in PARTS:
        files.append(File.generated(config, f"reference/{part}.md", content=page_of(part)))
    return files
