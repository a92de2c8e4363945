"""A small network that should learn digits, and does not: the script has six faults.

`mend.py` mends them one at a time. Nothing here is subtle on purpose; each fault was somebody's.
"""

import math

import torch
from torch import nn

import optiscope
from optiscope.data import load_digits

SEED = 0
EPOCHS = 12
BATCH = 32


def load():
    """Training and validation data: standardized images [N, 1, 8, 8] and labels [N]."""
    digits = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(SEED))
    images, labels = digits.images.float()[order] / 16, digits.labels[order]
    train = images[:1400], labels[:1400]
    valid = images[:300], labels[:300]
    return train, valid


def augment(images, generator):
    """Turn each image by a random angle."""
    angles = (2 * torch.rand(len(images), generator=generator) - 1) * math.pi
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turns = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = nn.functional.affine_grid(turns, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def make_model():
    """Two hidden layers."""
    torch.manual_seed(SEED)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    return model


def main():
    """Check, train and watch: findings of both, and rows of measurements."""
    train, valid = load()
    model, loss = make_model(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=1.5)
    report = optiscope.check(
        model, loss, optimizer, train=train, valid=valid, augment=augment, seconds=10
    )
    watch = optiscope.watch(
        model, optimizer, loss=loss, scheduler=schedule, instruments="light", on_finding="log"
    )
    generator = torch.Generator().manual_seed(SEED)
    rows, step = [], 0
    for epoch in range(EPOCHS):
        model.train()
        order = torch.randperm(len(train[0]), generator=generator)
        for batch in order.split(BATCH):
            images, labels = augment(train[0][batch], generator), train[1][batch]
            value = loss(model(images), labels)
            value.backward()
            optimizer.step()
            step += 1
            rows.append((step, epoch, "train", "loss", value.item()))
        schedule.step()
        model.eval()
        with torch.no_grad():
            output = model(valid[0])
        accuracy = (output.argmax(1) == valid[1]).float().mean().item()
        rows.append((step, epoch + 1, "valid", "accuracy", accuracy))
    watch.close()
    settings = {"rate": optimizer.defaults["lr"], "epochs": EPOCHS, "seed": SEED}
    return report, watch, settings, rows


if __name__ == "__main__":
    report, watch, _, rows = main()
    print(report.table())
    for finding in watch.findings:
        print(finding)
    print(f"validation accuracy {rows[-1][-1]:.2f}")
