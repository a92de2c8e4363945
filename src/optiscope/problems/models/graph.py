"""Graph convolutions on small dense graphs (Kipf & Welling 2017).

Index legend: B graphs, N nodes, F features of a node, H hidden units, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GraphNetwork"]


class GraphNetwork(nn.Module):
    """relu(A X W + b) twice or more, then a linear layer at every node: logits of its class.

    Glorot-uniform weights, biases 0. A graph is one matrix [N, N + F]: the propagation matrix
    A [N, N], as normalized as it should be used, beside the features X [N, F].
    """

    def __init__(self, features: int, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        widths = [features, *[hidden] * layers]
        self.convolutions = nn.ModuleList(
            nn.Linear(widths[i], widths[i + 1]) for i in range(layers)
        )
        self.output = nn.Linear(hidden, classes)
        for layer in (*self.convolutions, self.output):
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, graphs: Tensor) -> Tensor:
        """Graphs [B, N, N + F] -> logits [B, N, K]."""
        nodes = graphs.shape[1]
        propagate, state = graphs[..., :nodes], graphs[..., nodes:]
        for layer in self.convolutions:
            state = F.relu(layer(propagate @ state))
        logits: Tensor = self.output(state)
        return logits
