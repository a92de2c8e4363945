"""Tuned results that were published for DeepOBS's problems, ten seeds each.

The two frameworks' rows are kept apart, because their splits and some of their models differ: the
TensorFlow version trained on all training data, the PyTorch version on what a validation set left.
Losses of the regularized problems contain the L2 term there and are therefore not listed.
"""

from __future__ import annotations

from optiscope.problems.baseline import Baseline

__all__ = ["baselines_of"]

PYTORCH = "DeepOBS 1.2.0 beta, PyTorch (Bahde 2019; Bald 2019)"
TENSORFLOW = "DeepOBS 1.1, TensorFlow (Schneider, Balles, Hennig 2019)"

SETTINGS: dict[str, dict[str, dict[str, float]]] = {
    PYTORCH: {
        "sgd": {},
        "momentum": {"momentum": 0.9},
        "nesterov": {"momentum": 0.9, "nesterov": 1.0},
        "adam": {},
    },
    TENSORFLOW: {
        "sgd": {},
        "momentum": {"momentum": 0.99},
        "adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    },
}

# Columns: problem, epochs, metric, framework, optimizer, tuned rate, mean and standard deviation
# of the final test value over seeds (ddof 1).
Row = tuple[str, int, str, str, str, float, float, float]
ROWS: tuple[Row, ...] = (
    ("mnist_logreg", 50, "accuracy", PYTORCH, "sgd", 0.112884, 0.924219, 0.000649),
    ("mnist_logreg", 50, "accuracy", PYTORCH, "momentum", 0.0206914, 0.92471, 0.000543),
    ("mnist_logreg", 50, "accuracy", PYTORCH, "nesterov", 0.0206914, 0.92493, 0.000553),
    ("mnist_logreg", 50, "accuracy", PYTORCH, "adam", 0.000297635, 0.926773, 0.000747),
    ("mnist_vae", 50, "loss", TENSORFLOW, "sgd", 0.00398107, 38.4561, 12.5),
    ("mnist_vae", 50, "loss", TENSORFLOW, "momentum", 2.51189e-05, 52.9271, 0.0123),
    ("mnist_vae", 50, "loss", TENSORFLOW, "adam", 0.000158489, 27.8308, 0.0946),
    ("fmnist_2c2d", 100, "accuracy", PYTORCH, "sgd", 0.112884, 0.920523, 0.00195),
    ("fmnist_2c2d", 100, "accuracy", PYTORCH, "momentum", 0.0206914, 0.922636, 0.00202),
    ("fmnist_2c2d", 100, "accuracy", PYTORCH, "nesterov", 0.0206914, 0.922566, 0.00214),
    ("fmnist_2c2d", 100, "accuracy", PYTORCH, "adam", 0.000127427, 0.921705, 0.00269),
    ("fmnist_2c2d", 100, "accuracy", TENSORFLOW, "sgd", 0.158489, 0.922726, 0.00184),
    ("fmnist_2c2d", 100, "accuracy", TENSORFLOW, "momentum", 0.00251189, 0.921444, 0.00212),
    ("fmnist_2c2d", 100, "accuracy", TENSORFLOW, "adam", 0.000251189, 0.923417, 0.00294),
    ("fmnist_vae", 100, "loss", TENSORFLOW, "sgd", 0.00398107, 23.799, 0.246),
    ("fmnist_vae", 100, "loss", TENSORFLOW, "momentum", 1e-05, 59.2279, 18.4),
    ("fmnist_vae", 100, "loss", TENSORFLOW, "adam", 0.000158489, 23.0739, 0.0929),
    ("cifar10_3c3d", 100, "accuracy", PYTORCH, "sgd", 0.0483293, 0.821024, 0.0116),
    ("cifar10_3c3d", 100, "accuracy", PYTORCH, "momentum", 0.00379269, 0.832933, 0.00382),
    ("cifar10_3c3d", 100, "accuracy", PYTORCH, "nesterov", 0.00379269, 0.836228, 0.00349),
    ("cifar10_3c3d", 100, "accuracy", PYTORCH, "adam", 0.000297635, 0.832973, 0.0044),
    ("cifar10_3c3d", 100, "accuracy", TENSORFLOW, "sgd", 0.0630957, 0.837059, 0.0121),
    ("cifar10_3c3d", 100, "accuracy", TENSORFLOW, "momentum", 0.000398107, 0.844101, 0.00637),
    ("cifar10_3c3d", 100, "accuracy", TENSORFLOW, "adam", 0.000398107, 0.847546, 0.00353),
    ("cifar100_allcnnc", 350, "accuracy", PYTORCH, "sgd", 0.263665, 0.58097, 0.0119),
    ("cifar100_allcnnc", 350, "accuracy", PYTORCH, "momentum", 0.0483293, 0.600401, 0.00731),
    ("cifar100_allcnnc", 350, "accuracy", PYTORCH, "nesterov", 0.0483293, 0.611428, 0.00466),
    ("cifar100_allcnnc", 350, "accuracy", PYTORCH, "adam", 0.000695193, 0.560697, 0.00971),
    ("cifar100_allcnnc", 350, "accuracy", TENSORFLOW, "sgd", 0.158489, 0.570623, 0.0164),
    ("cifar100_allcnnc", 350, "accuracy", TENSORFLOW, "momentum", 0.00398107, 0.603285, 0.00808),
    ("cifar100_allcnnc", 350, "accuracy", TENSORFLOW, "adam", 0.001, 0.561488, 0.0095),
    ("svhn_wrn164", 160, "accuracy", PYTORCH, "sgd", 0.0483293, 0.950373, 0.00486),
    ("svhn_wrn164", 160, "accuracy", PYTORCH, "momentum", 0.00885867, 0.951155, 0.00164),
    ("svhn_wrn164", 160, "accuracy", PYTORCH, "nesterov", 0.00885867, 0.949958, 0.00189),
    ("svhn_wrn164", 160, "accuracy", PYTORCH, "adam", 5.45559e-05, 0.949557, 0.00249),
    ("svhn_wrn164", 160, "accuracy", TENSORFLOW, "sgd", 0.0251189, 0.953675, 0.00403),
    ("svhn_wrn164", 160, "accuracy", TENSORFLOW, "momentum", 0.000630957, 0.955261, 0.00165),
    ("svhn_wrn164", 160, "accuracy", TENSORFLOW, "adam", 0.000158489, 0.952478, 0.00234),
    ("tolstoi_char_rnn", 200, "accuracy", TENSORFLOW, "sgd", 1.58489, 0.620716, 0.00294),
    ("tolstoi_char_rnn", 200, "accuracy", TENSORFLOW, "momentum", 0.0398107, 0.612956, 0.00127),
    ("tolstoi_char_rnn", 200, "accuracy", TENSORFLOW, "adam", 0.00251189, 0.612255, 0.00307),
    ("quadratic_deep", 100, "loss", TENSORFLOW, "sgd", 0.0158489, 87.3975, 0.169),
    ("quadratic_deep", 100, "loss", TENSORFLOW, "momentum", 0.00251189, 87.045, 0.0252),
    ("quadratic_deep", 100, "loss", TENSORFLOW, "adam", 0.0398107, 87.1119, 0.0242),
)


def baselines_of(problem: str) -> tuple[Baseline, ...]:
    """Published tuned results of a problem; metrics are final values on the test set."""
    return tuple(
        Baseline(
            optimizer=optimizer,
            hyperparameters={"lr": rate, **SETTINGS[framework][optimizer]},
            epochs=epochs,
            metric=f"test_{metric}",
            mean=mean,
            std=std,
            seeds=10,
            source=framework,
        )
        for name, epochs, metric, framework, optimizer, rate, mean, std in ROWS
        if name == problem
    )
