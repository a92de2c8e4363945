"""A spectrum: a few large eigenvalues, and a bulk near zero.

After training, the Hessian of a classifier has about as many large eigenvalues as classes, and
thousands near zero (Sagun et al. 2016, Papyan 2019). `curvature` finds the large ones with
residuals and error bars, draws the density of all, and counts the outliers.
"""

import torch

from optiscope import EmpiricalRisk, curvature
from optiscope.problems import get
from optiscope.report.figures.spectrum import DensityLine, Leading, spectrum_figure

problem = get("digits_mlp")
data = problem.data(None).train.select(torch.arange(600))
torch.manual_seed(0)
model = problem.make_model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loss = torch.nn.CrossEntropyLoss()
for _ in range(6):
    for rows in torch.randperm(600).split(50):
        optimizer.zero_grad()
        loss(model(data.inputs[rows]), data.targets[rows]).backward()
        optimizer.step()

batches = [(data.inputs[i : i + 100], data.targets[i : i + 100]) for i in range(0, 600, 100)]
risk = EmpiricalRisk(model, loss, batches)
hessian = risk.hessian()
pairs = curvature.top_eigenpairs(hessian, k=16, tol=1e-3)
density = curvature.spectral_density(hessian, deflate=pairs, probes=4, steps=30)
count = curvature.count_outliers(pairs, density)

# %%
# ## Checked
#
# Each pair against a product of its own, and the trace against Hutchinson's estimate.

assert pairs.converged.all()
v = pairs.vectors[0]
assert (hessian @ v - pairs.values[0] * v).norm() < 1e-2 * pairs.values[0]
assert 6 <= count.count <= 16  # ten classes
assert float(pairs.values[:9].sum()) > 0.5 * float(curvature.trace(hessian, deflate=pairs).value)

# %%
# ## Drawn

linear = density.resolution()
reach = torch.stack([density.grid[0].clamp(max=-linear), density.atoms.max()]).double() / linear
low, high = torch.asinh(reach).tolist()
place = torch.linspace(low - 0.5, high + 0.3, 600, dtype=torch.float64)
curve = density.on(linear * torch.sinh(place), 0.25, linear_below=linear)
figure = spectrum_figure(
    f"{risk.size:,} parameters, {count.count} outliers",
    Leading(
        values=pairs.values.tolist(),
        errors=pairs.data_errors.tolist(),
        threshold=count.threshold,
        outliers=f"{count.count} outliers ({count.low} to {count.high})",
    ),
    "digits_mlp after six epochs. Bars: 1.96 standard errors from the spread over batches.",
    DensityLine(
        grid=curve.grid.tolist(),
        density=curve.density.tolist(),
        half_width=density.half_width_of(curve).tolist(),
        data=curve.data.tolist(),
        atoms=density.atoms.tolist(),
        atom_mass=density.atom_mass,
        linear_below=linear,
    ),
)
figure.savefig("spectrum.png", dpi=110)
