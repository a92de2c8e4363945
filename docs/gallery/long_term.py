"""Long-term dependencies: a recurrent network is the power method.

Going back t steps through h ← W h multiplies a gradient by Wᵀ t times, as the power method does.
Its norm behaves like λᵗ, with λ the largest absolute eigenvalue: below 1 the gradient vanishes,
above 1 it explodes. A tanh network follows while its units are in their linear range. Units that
saturate pass on less, so its gradients fall faster than λᵗ.
"""

import numpy as np
import torch

from optiscope.problems.textbook.adding import SequenceReader, adding, state_gradient_norms
from optiscope.problems.textbook.repeated_matrix import gradient_norms_back, largest_eigenvalue
from optiscope.report.figures.textbook import Curve, curve_figure

generator = torch.Generator().manual_seed(3)
matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
matrix /= torch.linalg.eigvals(matrix).abs().max()
last = torch.randn(12, generator=generator, dtype=torch.float64)
back = np.arange(61.0)
sequences = adding(61).data(None).train.select(torch.arange(100)).inputs
through_matrix, through_network = [], []

for radius in (0.9, 1.0, 1.1):
    label = f"λ = {radius:g}"
    norms = gradient_norms_back(radius * matrix, last, 60).numpy()
    power = largest_eigenvalue(radius * matrix)
    assert abs(power - radius) < 0.01  # the power method finds it
    measured = (norms[60] / norms[20]) ** (1 / 40)
    assert abs(measured - radius) < 0.02  # and the gradient follows it
    line = norms[60] * power ** (back - 60)
    through_matrix.append(Curve(label, back, norms))
    through_matrix.append(Curve("λᵗ, λ by the power method", back, line, theory=True))

    torch.manual_seed(0)
    model = SequenceReader(32, radius)
    norms = state_gradient_norms(model, sequences, torch.zeros(100, 1)).numpy()[::-1]
    line = norms[0] * largest_eigenvalue(model.recur.weight.detach()) ** back
    through_network.append(Curve(label, back, norms))
    through_network.append(Curve("λᵗ, λ by the power method", back, line, theory=True))

exploding = through_matrix[4].y
assert exploding[60] > 20 * exploding[20]
vanishing, largest = through_network[0].y, through_network[4].y
assert vanishing[60] < 0.9**60 * vanishing[0]
assert largest[60] > 100 * vanishing[60]

figure = curve_figure(
    "Gradients many steps back vanish or explode by the largest eigenvalue λ",
    {"random 12 × 12 matrix": through_matrix, "tanh network": through_network},
    x="steps back, t",
    y="norm of the gradient by the state",
)
figure.savefig("long_term.png", dpi=110)
