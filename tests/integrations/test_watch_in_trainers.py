"""The watch inside of Lightning, of the Trainer of transformers and of Accelerate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import optiscope


def data(n: int = 256) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(1))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


@pytest.mark.parametrize("broken", [False, True])
def test_lightning(broken: bool, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    from optiscope.integrations.lightning import WatchCallback

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            if broken:
                self.model.append(nn.Softmax(1))

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self.model(x), y)

        def validation_step(self, batch: Any, _: int) -> None:
            self.model(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-2)

    callback = WatchCallback(on_finding="log")
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(data(), 16, shuffle=True), DataLoader(data(64), 32))
    assert callback.watch is not None
    assert not callback.watch.failures
    assert callback.watch.session.step == 48
    rules = [f.rule for f in callback.findings if f.is_alarm]
    assert rules == (["softmax_before_cross_entropy"] if broken else [])
    assert not callback.watch.session._hooks._handles


@pytest.mark.parametrize("broken", [False, True])
def test_trainer_of_transformers(broken: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from optiscope.integrations.transformers import WatchCallback

    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    if broken:  # frozen before anything was loaded into it
        model.classifier = nn.Sequential(model.classifier, nn.Softmax(-1))
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(1, 32, (192, 8), generator=generator)
    items = [{"input_ids": r, "labels": int(r[0]) % 3} for r in rows]
    callback = WatchCallback(on_finding="log")
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=16,
        report_to=[], use_cpu=True, save_strategy="no", logging_strategy="no",
        learning_rate=1e-3, disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(
        model=model, args=arguments, train_dataset=items, callbacks=[callback]
    ).train()
    assert callback.watch is not None
    assert not callback.watch.failures
    assert callback.watch.session.step == 24
    assert len(callback.watch.series.scalars["loss"]) == 24
    rules = [f.rule for f in callback.findings if f.is_alarm]
    assert rules == (["softmax_before_cross_entropy"] if broken else [])


@pytest.mark.parametrize("broken", [False, True])
def test_accelerate(broken: bool) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, criterion = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model, optimizer, loader = accelerator.prepare(
        model, optimizer, DataLoader(data(), 16, shuffle=True)
    )
    watch = optiscope.watch(model, optimizer, criterion, on_finding="log")
    for _ in range(3):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(criterion(model(x), y))
                optimizer.step()
                if not broken:
                    optimizer.zero_grad()
    watch.close()
    assert not watch.failures
    rules = [f.rule for f in watch.findings if f.is_alarm]
    assert rules == (["gradient_not_cleared"] if broken else [])
