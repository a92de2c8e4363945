"""Adapters that let the suite of faults score other packages (not dependencies of this one).

    pip install training-doctor mldoct
    PYTHONPATH=benchmarks optiscope doctor bugs --tool doctor_peers:training_doctor --clean 40

training-doctor reads the loss, the rate and the gradient norm of each step. mldoct reads source
text: `mldoct_on_suite` shows it each faulty script's own source and its mended twin's.
"""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch


class TrainingDoctor:
    """Metrics of each step, handed to training-doctor."""

    def __init__(self, model: Any, optimizer: Any, criterion: Any, scheduler: Any = None) -> None:
        from training_doctor import Doctor

        self.doctor, self.step, self.loss = Doctor(), 0, float("nan")
        self.said: dict[str, Any] = {}
        if isinstance(criterion, torch.nn.Module):
            criterion.register_forward_hook(self._loss)
        optimizer.register_step_pre_hook(self._step)

    def _loss(self, module: Any, inputs: Any, output: Any) -> None:
        if output.requires_grad:
            self.loss = float(output.detach())

    def _step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        parameters = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        norm = (
            float(torch.stack([p.grad.float().norm() for p in parameters]).norm())
            if (parameters)
            else 0.0
        )
        rate = float(optimizer.param_groups[0]["lr"])
        self.doctor.log(step=self.step, loss=self.loss, lr=rate, grad_norm=norm)
        self.step += 1
        if self.step % 10 == 0:
            for diagnosis in self.doctor.check():
                self.said.setdefault(diagnosis.problem, (diagnosis, self.step))

    @property
    def findings(self) -> list[Any]:
        """What it diagnosed, in the suite's form."""
        for diagnosis in self.doctor.analyze():
            self.said.setdefault(diagnosis.problem, (diagnosis, self.step))
        return [
            SimpleNamespace(
                rule=d.problem,
                sentence=d.explanation,
                severity="note" if d.severity.name == "INFO" else "error",
                step=step,
            )
            for d, step in self.said.values()
        ]


training_doctor = TrainingDoctor


def mldoct_on_suite() -> dict[str, Any]:
    """What mldoct says of the source of each public and held-back fault, and of its mend."""
    from mldoctor.linter import lint_script

    from optiscope.testing.bugs.score import KINDS

    said: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        from optiscope.testing.bugs import script

        loop = inspect.getsource(script.Script)
        for kind in KINDS["all"].values():
            for name, change in (("faulty", kind.bug), ("mended", kind.mend)):
                path = Path(folder) / "train.py"
                path.write_text(f"import torch\n{loop}\n{inspect.getsource(change)}\n")
                issues, _ = lint_script(str(path))
                said[f"{kind.name}, {name}"] = sorted({issue["type"] for issue in issues})
    return said


if __name__ == "__main__":
    json.dump(mldoct_on_suite(), sys.stdout, indent=1)
