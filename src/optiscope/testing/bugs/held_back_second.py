"""A second set of held-back kinds, written without sight of any rule, to be scored once.

They were written after the first set had been scored and about 45 rules had been added. Whoever
writes rules does not look here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from optiscope.testing.bugs.kind import registry
from optiscope.testing.bugs.public import again
from optiscope.testing.bugs.script import Gan, Recurrent, Script

__all__ = ["HELD_BACK_SECOND"]

HELD_BACK_SECOND, kind = registry()
"""Kinds by name."""


# -- data and targets


def _scaled(script: Script, by: float) -> None:
    low = script.train[0].min()
    script.train = (script.train[0] - low) / by, script.train[1]
    script.valid = (script.valid[0] - low) / by, script.valid[1]


def divided_once(script: Script) -> None:
    _scaled(script, 4.0)


@kind(
    r"inputs?.{0,80}(small|tiny|scale|normali|standard|near zero)|standardi[sz]|normali[sz]",
    "mlp", "adam",
    mend=divided_once,
)  # fmt: skip
def inputs_divided_twice(script: Script) -> None:
    _scaled(script, 4.0 * 255.0)


def scaled_copies(script: Script) -> None:
    batch = script.batch
    script.replace(batch=lambda places: (batch(places)[0] * 0.97, batch(places)[1]))


@kind(
    r"inputs?.{0,80}(change|shrink|drift|smaller|scale|in.place|not the same|differ)|in.place",
    "mlp", "cnn",
    mend=scaled_copies,
)  # fmt: skip
def inputs_scaled_in_place(script: Script) -> None:
    x = script.train[0].clone()
    script.train = x, script.train[1]

    def batch(places: Tensor) -> tuple[Tensor, Tensor]:
        x[places] *= 0.8
        return x[places], script.train[1][places]

    script.replace(batch=batch)


def _clamped(script: Script, most: int) -> None:
    script.train = script.train[0].clamp(max=most), script.train[1]
    script.valid = script.valid[0].clamp(max=most), script.valid[1]


def rare_tokens_unknown(script: Script) -> None:
    _clamped(script, 28)


@kind(
    r"token|vocabular|embedding.{0,60}(row|never|used|one)|same (input|value)|inputs? .{0,40}same",
    "gpt",
    mend=rare_tokens_unknown,
)
def most_tokens_unknown(script: Script) -> None:
    _clamped(script, 2)


def _truncated(script: Script, by: float) -> None:
    for which in ("train", "valid"):
        x, y = getattr(script, which)
        setattr(script, which, (x, (y * by).long().float() / by))


def targets_in_hundredths(script: Script) -> None:
    _truncated(script, 100.0)


@kind(
    r"targets?.{0,80}(whole|integer|round|truncat|distinct|few|same|values)|integer|truncat",
    "regression",
    mend=targets_in_hundredths,
)
def targets_cut_to_integers(script: Script) -> None:
    _truncated(script, 1.0)


def _odd_or_even(script: Script, low: float) -> None:
    for which in ("train", "valid"):
        x, y = getattr(script, which)
        setattr(script, which, (x, torch.where(y % 2 == 1, 1.0, low)[:, None]))
    script.model = nn.Sequential(script.model, nn.ReLU(), nn.Linear(10, 1))
    again(script)
    script.criterion = nn.BCEWithLogitsLoss()


def targets_of_zero_and_one(script: Script) -> None:
    _odd_or_even(script, 0.0)


@kind(
    r"targets?.{0,80}(-1|negative|outside|range|between 0 and 1|\[0, 1\]|below)|negative loss",
    "mlp", "adam",
    mend=targets_of_zero_and_one,
)  # fmt: skip
def targets_of_minus_one_and_one(script: Script) -> None:
    _odd_or_even(script, -1.0)


def _drawn(script: Script, among: int) -> None:
    def order(epoch: int) -> Iterator[Tensor]:
        for _ in range(len(script.train[0]) // script.batch_size):
            yield torch.randint(among, (script.batch_size,), generator=script.generator)

    script.replace(order=order)


def drawn_with_replacement(script: Script) -> None:
    _drawn(script, len(script.train[0]))


@kind(
    r"repeat|same (batch|samples|inputs|data)|few (samples|distinct|different)|distinct|one_batch"
    r"|again and again",
    "mlp", "cnn", "regression",
    mend=drawn_with_replacement,
)  # fmt: skip
def only_the_first_samples_drawn(script: Script) -> None:
    _drawn(script, script.batch_size)


@kind(
    r"(input|column|feature|time).{0,80}(constant|same|vary|zero)|constant (input|column|feature)",
    "diffusion",
)
def time_never_told(script: Script) -> None:
    batch = script.batch

    def without(places: Tensor) -> tuple[Tensor, Tensor]:
        x, y = batch(places)
        x[:, -1] = 0.0
        return x, y

    script.replace(batch=without)
    script.valid[0][:, -1] = 0.0


# -- model


def _four_layers(script: Script, activation: Callable[[], nn.Module]) -> None:
    torch.manual_seed(script.seed)
    body = [part for _ in range(3) for part in (nn.Linear(64, 64), activation())]
    script.model = nn.Sequential(nn.Flatten(), *body, nn.Linear(64, 10))
    again(script)


def activations_there(script: Script) -> None:
    _four_layers(script, nn.ReLU)


@kind(
    r"activation|non-?linear|linear layers?.{0,60}(follow|between|one|single|collapse|in a row)",
    "mlp", "adam",
    mend=activations_there,
)  # fmt: skip
def no_activation_between_layers(script: Script) -> None:
    _four_layers(script, nn.Identity)


def _deep(script: Script, activation: Callable[[], nn.Module]) -> None:
    torch.manual_seed(script.seed)
    body = [part for _ in range(8) for part in (nn.Linear(64, 64), activation())]
    script.model = nn.Sequential(nn.Flatten(), *body, nn.Linear(64, 10))
    again(script)


def eight_layers_that_keep_their_scale(script: Script) -> None:
    _deep(script, nn.SELU)
    for module in script.model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)


@kind(
    r"vanish|satur|sigmoid|gradient.{0,80}(small|vanish|tiny|shrink|decay|fade)|outputs?.{0,40}(same"
    r"|equal)",
    "mlp", "adam",
    mend=eight_layers_that_keep_their_scale,
)  # fmt: skip
def eight_sigmoid_layers(script: Script) -> None:
    _deep(script, nn.Sigmoid)


def dropout_before_the_last_layer(script: Script) -> None:
    *body, head = script.model.children()
    script.model = nn.Sequential(*body, nn.Dropout(0.3), head)


@kind(
    r"dropout.{0,80}(output|last|final|logit|loss|after)|(output|last|logit|zero).{0,60}dropout"
    r"|outputs?.{0,60}(exactly zero|zeroed)",
    "mlp", "regression",
    mend=dropout_before_the_last_layer,
)  # fmt: skip
def dropout_on_the_output(script: Script) -> None:
    script.model = nn.Sequential(script.model, nn.Dropout(0.3))


class Stateful(Recurrent):
    """Keeps the state of one batch for the next; the data are shuffled."""

    def __init__(self, carried: bool) -> None:
        super().__init__()
        self.carried = carried
        self.state: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.state is not None and self.state[0].shape[1] != len(x):
            self.state = None
        states, (h, c) = self.rnn(x[:, 0], self.state if self.carried else None)
        self.state = h.detach(), c.detach()
        logits: Tensor = self.head(states[:, -1])
        return logits


def state_begun_anew(script: Script) -> None:
    torch.manual_seed(script.seed)
    script.model = Stateful(carried=False)
    again(script)


@kind(
    r"state|carr(y|ied)|batch before|previous|depends? on|history|twice.{0,40}(differ|not the same)"
    r"|determin|memory",
    "lstm",
    mend=state_begun_anew,
)
def state_carried_over_shuffled_batches(script: Script) -> None:
    torch.manual_seed(script.seed)
    script.model = Stateful(carried=True)
    again(script)


class Checkpointed(nn.Module):
    """A body that is computed again in the backward pass, and a head."""

    def __init__(self, parts: list[nn.Module], reentrant: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*parts[:-1]), parts[-1]
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            h = checkpoint(self.body, x, use_reentrant=self.reentrant)
        else:
            h = self.body(x)
        out: Tensor = self.head(h)
        return out


def checkpoint_with_gradient(script: Script) -> None:
    script.model = Checkpointed(list(script.model.children()), reentrant=False)
    again(script)


@kind(
    r"no gradient|without gradient|never (get|receive|reach)|unused|checkpoint|detach",
    "mlp", "cnn",
    mend=checkpoint_with_gradient,
)  # fmt: skip
def checkpoint_without_gradient(script: Script) -> None:
    script.model = Checkpointed(list(script.model.children()), reentrant=True)
    again(script)


# -- loss


def nll_of_logarithms(script: Script) -> None:
    script.criterion = lambda out, y: functional.nll_loss(out.log_softmax(1), y)


@kind(
    r"nll|log.?softmax|logarithm|log.?prob|probabilit|negative",
    "mlp", "cnn", "lstm",
    mend=nll_of_logarithms,
)  # fmt: skip
def nll_of_probabilities(script: Script) -> None:
    script.model = nn.Sequential(script.model, nn.Softmax(1))
    script.criterion = nn.NLLLoss()


def rounded_for_the_log_only(script: Script) -> None:
    log = script.log
    script.replace(log=lambda loss: log(loss.detach().round(decimals=3)))


@kind(
    r"round|no gradient|gradient.{0,60}(zero|vanish)|zero gradient|all zero|constant|piecewise",
    "regression",
    mend=rounded_for_the_log_only,
)
def outputs_rounded_before_the_loss(script: Script) -> None:
    script.replace(loss=lambda x, y: script.criterion(script.forward(x).round(), y))


def loss_of_every_second_sample(script: Script) -> None:
    script.replace(loss=lambda x, y: script.criterion(script.forward(x[::2]), y[::2]))


@kind(
    r"(one|first|single|few|other|most|only|rest).{0,60}sample|samples?.{0,60}(no gradient|unused"
    r"|ignor|without)|rows?.{0,60}(no gradient|zero|unused)|batch.{0,60}(unused|ignored|only)",
    "mlp", "regression",
    mend=loss_of_every_second_sample,
)  # fmt: skip
def loss_of_one_sample(script: Script) -> None:
    script.replace(loss=lambda x, y: script.criterion(script.forward(x)[:1], y[:1]))


def _penalized(script: Script, factor: float) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        squares = torch.stack([p.square().sum() for p in script.model.parameters()]).sum()
        value: Tensor = script.criterion(script.forward(x), y) + factor * squares
        return value

    script.replace(loss=loss)


def small_penalty(script: Script) -> None:
    _penalized(script, 1e-5)


@kind(
    r"penalt|regulari[sz]|decay|weights?.{0,60}(shrink|collapse|toward|vanish)|added to the loss"
    r"|not (of|from) the (criterion|loss)",
    "mlp", "adam", "regression",
    mend=small_penalty,
)  # fmt: skip
def penalty_swamps_the_loss(script: Script) -> None:
    _penalized(script, 0.3)


# -- optimizer, gradients and rate


def _rate_ends(script: Script, after: int) -> None:
    script.scheduler = torch.optim.lr_scheduler.LambdaLR(
        script.optimizer, lambda step: max(0.0, 1.0 - step / after)
    )
    script.scheduler_per = "batch"


def rate_ends_with_the_run(script: Script) -> None:
    _rate_ends(script, 2 * script.steps)


@kind(
    r"rate.{0,60}(zero|0\b|collapse|vanish|too small)|rate_zero|schedule.{0,60}(end|short|over)",
    "mlp", "adam", "gpt",
    mend=rate_ends_with_the_run,
)  # fmt: skip
def rate_ends_after_a_quarter(script: Script) -> None:
    _rate_ends(script, script.steps // 4)


def _cleared(script: Script, every_batch: bool) -> None:
    zero = script.zero
    script.replace(zero=lambda: zero() if every_batch else None)
    script.replace(train_mode=lambda: (script.model.train(), zero())[1])


def cleared_twice(script: Script) -> None:
    _cleared(script, every_batch=True)


@kind(r"zero_grad|clear|accumul|add up|adds? up", "mlp", "adam", "segmentation", mend=cleared_twice)
def cleared_once_an_epoch(script: Script) -> None:
    _cleared(script, every_batch=False)


def _noisy_gradients(script: Script, size: float) -> None:
    def add() -> None:
        for p in script.model.parameters():
            if p.grad is not None:
                p.grad += size * torch.randn_like(p.grad)

    script.replace(before_step=add)


def a_little_gradient_noise(script: Script) -> None:
    _noisy_gradients(script, 1e-5)


@kind(
    r"noise|random|(chang|alter|modif|replac|edit).{0,60}(after|between|backward|outside)|not what"
    r"|differ.{0,60}backward",
    "mlp", "adam",
    mend=a_little_gradient_noise,
)  # fmt: skip
def noise_swamps_the_gradient(script: Script) -> None:
    _noisy_gradients(script, 1.0)


@kind(r"maximi[sz]|ascent|uphill|sign|opposite|wrong direction", "mlp", "adam", "cnn")
def maximize_left_on(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["maximize"] = True


def mild_decay_of_the_right_sign(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["weight_decay"] = 1e-3


@kind(
    r"decay.{0,60}(negative|sign|below|grow|-)|negative.{0,60}decay|weights?.{0,40}grow",
    "mlp", "adam",
    mend=mild_decay_of_the_right_sign,
)  # fmt: skip
def decay_of_the_wrong_sign(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["weight_decay"] = -0.02 / group["lr"]


def no_dampening(script: Script) -> None:
    script.optimizer.param_groups[0].update(momentum=0.9, dampening=0.0, lr=0.02)


@kind(
    r"dampen|momentum.{0,80}(never|only|first|stale|no new|not)|stale|old gradient"
    r"|gradient.{0,60}(not used|never|ignored|no part)",
    "mlp", "cnn",
    mend=no_dampening,
)  # fmt: skip
def dampening_of_one(script: Script) -> None:
    script.optimizer.param_groups[0].update(momentum=0.9, dampening=1.0, lr=0.02)


def _second_moments(script: Script, value: float) -> None:
    for p in script.model.parameters():
        script.optimizer.state[p] = {
            "step": torch.tensor(2000.0),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.full_like(p, value),
        }


def second_moment_of_this_run(script: Script) -> None:
    _second_moments(script, 1e-5)


@kind(
    r"second moment|exp_avg_sq|state|denominator|updates?.{0,60}(small|tiny)|too.small",
    "adam", "lstm",
    mend=second_moment_of_this_run,
)  # fmt: skip
def second_moment_from_elsewhere(script: Script) -> None:
    _second_moments(script, 1e8)


def _scaled_and_kept_near(script: Script, inside_root: float) -> None:
    """Steps through a gradient scaler; a penalty keeps biases near where they are."""
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    biases = [p for p in script.model.parameters() if p.ndim == 1]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        moved = torch.stack([(p - p.detach()).square().sum() for p in biases]).sum()
        value: Tensor = script.criterion(script.forward(x), y)
        return value + 1e-4 * (moved + inside_root).sqrt()

    def step() -> None:
        scaler.step(script.optimizer)
        scaler.update()

    script.replace(loss=loss, backward=lambda loss: scaler.scale(loss).backward(), step=step)


def root_kept_from_zero(script: Script) -> None:
    _scaled_and_kept_near(script, 1e-8)


@kind(
    r"skip|scaler|loss scale|overflow|not finite|non-?finite|\binf\b|\bnan\b|never (step|mov)"
    r"|not move|unchanged",
    "mlp", "adam",
    mend=root_kept_from_zero,
)  # fmt: skip
def every_step_skipped_by_the_scaler(script: Script) -> None:
    _scaled_and_kept_near(script, 0.0)


@kind(
    r"seed|same (random|mask|noise|draw|numbers)|mask.{0,40}(same|repeat)|repeat|generator",
    "adam", "cnn",
)  # fmt: skip
def seed_set_in_every_step(script: Script) -> None:
    forward = script.forward

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        out: Tensor = forward(x)
        return out

    script.replace(forward=seeded)


# -- two networks


@kind(
    r"same (target|label)|one class|constant|targets?.{0,60}(all|same|vary|one|no effect|ignored)",
    "gan",
)
def both_called_real(script: Script) -> None:
    script.criterion = lambda out, target: functional.binary_cross_entropy_with_logits(
        out, torch.ones_like(target)
    )


class HelpfulGan(Gan):
    """Its generator is trained to be recognized."""

    def iteration(self, number: int, places: Tensor) -> None:
        real, ones = self.batch(places)
        zeros = torch.zeros_like(ones)
        self.zero()
        loss = self.criterion(self.model(real), ones) + self.criterion(
            self.model(self.for_critic(self.fake(len(real)))), zeros
        )
        loss.backward()
        self.step()
        self.generator_zero()
        self.criterion(self.model(self.fake(len(real))), zeros).backward()
        self.generator_optimizer.step()
        self.after_step()
        self.log(loss)
        self.done += 1


@kind(
    r"generator.{0,80}(help|target|label|fool|same|sign)|same (target|label)|both (networks|nets)"
    r"|not (against|adversarial)",
    "gan",
)
def generator_helps_the_critic(script: Script) -> None:
    script.__class__ = HelpfulGan
