"""``optiscope watch -- python train.py``: a script that knows nothing of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from optiscope.cli.watch import command

SCRIPT = """
import sys
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), 1e-2)
x = torch.randn(96, 6)
y = (x[:, :3]).argmax(1)
for step in range(30):
    i = torch.randperm(96)[:16]
    {clear}
    loss = criterion(model(x[i]), y[i])
    loss.backward()
    optimizer.step()
print(loss.item(), "sitecustomize" in sys.modules, sys.argv[1:])
"""


def watched(path: Path, *options: str) -> tuple[int, str]:
    runner = CliRunner()
    result = runner.invoke(
        command, [*options, "--", sys.executable, str(path), "a", "--b"], standalone_mode=False
    )
    assert result.exception is None, result.exception
    return result.return_value, result.output


def test_a_broken_script_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(SCRIPT.format(clear="pass"))
    code, output = watched(broken, "--json")
    data = json.loads(output)
    assert code == 1
    assert data["exit_status"] == 0
    (one,) = data["watches"]
    assert [f["rule"] for f in one["findings"]] == ["gradient_not_cleared"]
    assert one["step"] == 30
    assert one["trouble"] == []


def test_nothing_is_said_of_a_healthy_script_and_it_prints_what_it_prints_without_a_watch(
    tmp_path: Path,
) -> None:
    path, out = tmp_path / "train.py", tmp_path / "out"
    path.write_text(SCRIPT.format(clear="optimizer.zero_grad()"))
    plain = [sys.executable, str(path), "x"]
    watch = [sys.executable, "-c", "from optiscope.cli import main; main()", "watch"]
    alone, watched = (
        subprocess.run(
            line, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=240
        )
        for line in (plain, [*watch, "--out", str(out), "--", *plain])
    )
    loss, _, arguments = alone.stdout.splitlines()[0].split(maxsplit=2)
    words = watched.stdout.splitlines()[0].split(maxsplit=2)
    assert (loss, arguments) == (words[0], words[2])
    assert "Nothing wrong found" in watched.stderr
    assert len(list(out.glob("*.html"))) == 1


def test_a_script_that_fails_keeps_its_status_and_one_without_torch_runs(tmp_path: Path) -> None:
    path = tmp_path / "fails.py"
    path.write_text("import sys; sys.exit(7)")
    code, output = watched(path)
    assert code == 7
    assert "trained nothing" in output


def test_the_page_is_served_on_the_loopback_while_the_script_runs(tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(
        "import pathlib, sys, urllib.request\n"
        "folder, port = sys.argv[1:]\n"
        "(pathlib.Path(folder) / 'watch.html').write_text('the page')\n"
        "url = f'http://127.0.0.1:{port}/watch.html'\n"
        "answer = urllib.request.urlopen(url, timeout=20)\n"
        "assert answer.read() == b'the page' and answer.headers['Cache-Control'] == 'no-store'\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out = tmp_path / "pages"
    arguments = ["--serve", port, "--out", str(out), "--", sys.executable, str(script), str(out)]
    result = CliRunner().invoke(command, [*arguments, port])
    assert result.exit_code == 0, result.output
    assert f"http://127.0.0.1:{port}/" in result.output
    with socket.socket() as closed:
        assert closed.connect_ex(("127.0.0.1", int(port))) != 0
