"""``functional_call`` gives every module its value and leaves the model as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from optiscope.objective.functional import functional_call


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("shift", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.embed(x)) + self.shift
        return out


def repeated() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Sequential(layer))


@pytest.mark.parametrize("make", [Tied, repeated, lambda: nn.Linear(4, 4)])
def test_values_reach_every_place_and_nothing_stays(make: type[nn.Module]) -> None:
    model = make()
    x = torch.arange(4) if isinstance(model, Tied) else torch.randn(2, 4)
    before = {n: (t, t.clone()) for n, t in model.state_dict(keep_vars=True).items()}
    values = {n: 2 * p.detach() + 1 for n, p in model.named_parameters()}
    values |= {n: b + 1 for n, b in model.named_buffers()}
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in (*expected.named_parameters(), *expected.named_buffers()):
            tensor.copy_(values[name])
    assert torch.equal(functional_call(model, values, (x,)), expected(x))
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is before[name][0]
        assert torch.equal(tensor, before[name][1])


def test_a_failing_call_leaves_the_model_as_it_was() -> None:
    model = repeated()
    weight = model[0].weight
    with pytest.raises(RuntimeError):
        functional_call(model, {"0.weight": torch.zeros(4, 4)}, (torch.randn(2, 7),))
    assert all(m.weight is weight for m in (model[0], model[2], model[3][0]))
