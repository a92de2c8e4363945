"""Lark needs torch and none of the other dependencies."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys

BLOCKED = {
    "scipy", "pandas", "pyarrow", "sklearn", "PIL", "optuna", "matplotlib", "jinja2", "click",
    "rich", "pydantic", "platformdirs", "requests",
}


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED and "optiscope" in sys.modules:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)


import torch
import torch._dynamo  # looks for what is installed

sys.meta_path.insert(0, Refuse())
from optiscope import Lark

model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))


def closure():
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss = model(torch.randn(5, 8)).square().mean()
    loss.backward()
    return loss


parameters = list(model.parameters())
optimizers = [Lark(parameters, total_steps=10), Lark(parameters)]
for optimizer in optimizers:
    for _ in range(12):
        optimizer.step(closure)
    optimizer.load_state_dict(optimizer.state_dict())
print("stepped", sorted(BLOCKED & set(sys.modules)))
"""


def test_lark_steps_with_torch_alone() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert ran.stdout.strip() == "stepped []", ran.stderr
