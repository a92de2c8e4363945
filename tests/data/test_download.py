"""Downloads from a server on this machine that misbehaves in every way real ones do."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import pytest
from file_writers import idx_bytes, pixels, write

from optiscope.data import catalogue, fetch
from optiscope.data.catalogue import DATASETS
from optiscope.data.dataset import RemoteFile, sha256
from optiscope.data.download import fetch_file
from optiscope.data.errors import FetchFailed

CONTENT = bytes(range(256)) * 2000
PLACE = "set/file.bin"


@dataclass
class Server:
    """What is served and how; what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    length: bool = True
    shift: int = 0
    breaks: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    encoding: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    behaviour = Server({"/file.bin": CONTENT})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            behaviour.asked.append((self.path, wanted))
            if behaviour.status and (status := behaviour.status.pop(0)) != 200:
                self.send_error(status)
                return
            content = behaviour.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            start = start if behaviour.ranges else 0
            if start >= len(content) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if start:
                start += behaviour.shift
                self.send_response(206)
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            else:
                self.send_response(200)
            if behaviour.encoding:
                self.send_header("Content-Encoding", behaviour.encoding)
            if behaviour.length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = start + behaviour.breaks.pop(0) if behaviour.breaks else len(content)
            with contextlib.suppress(OSError):
                self.wfile.write(content[start:stop])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        behaviour.port = listener.server_address[1]
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield behaviour
        listener.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["optiscope.data.download"], "PAUSE", 0.0)


def remote(*urls: str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(urls, PLACE, len(content), sha256(hashlib.sha256(content).hexdigest()))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / PLACE).parent.iterdir())


def test_a_file_arrives_whole_with_progress(tmp_path: Path, server: Server) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = fetch_file(remote(server.url()), tmp_path, lambda *told: seen.append(told))
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]
    assert seen[-1] == (PLACE, len(CONTENT), len(CONTENT))
    received = [told[1] for told in seen]
    assert received == sorted(received)
    assert len(received) > 2


def test_a_broken_connection_is_taken_up_where_it_broke(tmp_path: Path, server: Server) -> None:
    server.breaks = [100_000, 50_000]
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_an_interrupted_download_resumes_in_the_next_process(
    tmp_path: Path, server: Server
) -> None:
    write(tmp_path / f"{PLACE}.part", CONTENT[:77_777])
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/file.bin", "bytes=77777-")]
    assert names(tmp_path) == ["file.bin"]


def test_an_interrupt_keeps_what_came(tmp_path: Path, server: Server) -> None:
    def interrupt(place: str, received: int, total: int | None) -> None:
        if received > 200_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_file(remote(server.url()), tmp_path, interrupt)
    assert names(tmp_path) == ["file.bin.part"]
    kept = (tmp_path / f"{PLACE}.part").stat().st_size
    assert 200_000 < kept < len(CONTENT)
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("/file.bin", f"bytes={kept}-")


@pytest.mark.parametrize("length", [True, False])
def test_a_server_without_ranges_sends_all_of_it_again(
    tmp_path: Path, server: Server, length: bool
) -> None:
    server.ranges, server.length = False, length
    server.breaks = [300_000, 100_000]
    write(tmp_path / f"{PLACE}.part", b"something else" * 1000)
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_server_that_sends_another_range_is_not_believed(tmp_path: Path, server: Server) -> None:
    server.shift = 5
    write(tmp_path / f"{PLACE}.part", CONTENT[:1000])
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=1000-", None]


def test_a_partial_file_that_is_whole_needs_no_byte(tmp_path: Path, server: Server) -> None:
    write(tmp_path / f"{PLACE}.part", CONTENT)
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/file.bin", f"bytes={len(CONTENT)}-")]


def test_a_partial_file_that_is_too_long_starts_anew(tmp_path: Path, server: Server) -> None:
    write(tmp_path / f"{PLACE}.part", CONTENT + b"more")
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT


def test_a_gzipped_file_stays_gzipped(tmp_path: Path, server: Server) -> None:
    server.encoding = "gzip"  # some servers label files they do not compress
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT


def test_a_wrong_digest_is_said_and_what_came_is_kept(tmp_path: Path, server: Server) -> None:
    altered = CONTENT[:-1] + b"\x00"
    server.files["/file.bin"] = altered
    for number in (1, 2):
        with pytest.raises(FetchFailed) as raised:
            fetch_file(remote(server.url()), tmp_path)
        message = str(raised.value)
        assert hashlib.sha256(CONTENT).hexdigest() in message
        assert hashlib.sha256(altered).hexdigest() in message
        assert f"kept as file.bin.rejected{number} and not used" in message
        assert "\n" not in message
    assert names(tmp_path) == ["file.bin.rejected1", "file.bin.rejected2"]
    assert (tmp_path / f"{PLACE}.rejected1").read_bytes() == altered
    server.files["/file.bin"] = CONTENT
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT


def test_a_resumed_file_is_checked_as_a_whole(tmp_path: Path, server: Server) -> None:
    write(tmp_path / f"{PLACE}.part", b"\xff" + CONTENT[1:1000])
    with pytest.raises(FetchFailed, match="rejected1"):
        fetch_file(remote(server.url()), tmp_path)


def test_the_second_place_serves_where_the_first_does_not(tmp_path: Path, server: Server) -> None:
    server.files["/short.bin"] = CONTENT[:-1]
    file = remote(server.url("absent.bin"), server.url("short.bin"), server.url())
    assert fetch_file(file, tmp_path).read_bytes() == CONTENT


def test_every_place_is_named_where_none_serves(tmp_path: Path, server: Server) -> None:
    server.files["/short.bin"] = CONTENT[:-1]
    with pytest.raises(FetchFailed) as raised:
        fetch_file(remote(server.url("absent.bin"), server.url("short.bin")), tmp_path)
    assert str(raised.value) == (
        f"could not fetch {PLACE} (127.0.0.1:{server.port}: HTTP 404 Not Found; "
        f"127.0.0.1:{server.port}: it serves 511,999 bytes, expected 512,000): try again later, or "
        f"copy the file to {tmp_path / PLACE}"
    )
    assert names(tmp_path) == []


def test_a_busy_server_is_asked_again_but_not_for_ever(tmp_path: Path, server: Server) -> None:
    server.status = [503, 502, 200]
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT
    server.status = [503] * 20
    with pytest.raises(FetchFailed, match="HTTP 503 Service Unavailable"):
        fetch_file(replace(remote(server.url()), place="set/other.bin"), tmp_path)
    assert len(server.status) == 16


def test_a_server_that_goes_away_leaves_something_to_resume(tmp_path: Path, server: Server) -> None:
    server.breaks = [1000, 0, 0, 0, 0]
    with pytest.raises(FetchFailed, match="1,000 bytes are kept and the same command resumes"):
        fetch_file(remote(server.url()), tmp_path)
    assert names(tmp_path) == ["file.bin.part"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://no-such-host.invalid/file.bin", "no-such-host.invalid: .*is there a network"),
        ("http://127.0.0.1:9/file.bin", "127.0.0.1:9: connection refused"),
    ],
)
def test_without_a_network_it_is_one_line_at_once(
    tmp_path: Path, url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with pytest.raises(FetchFailed, match=said) as raised:
        fetch_file(remote(url), tmp_path)
    assert "\n" not in str(raised.value)
    assert names(tmp_path) == []


def test_a_full_disk_is_one_line_and_resumes(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = Path.open

    def nearly_full(path: Path, mode: str = "r", *rest: Any) -> IO[Any]:
        stream: IO[Any] = real_open(path, mode, *rest)
        if mode != "ab":
            return stream
        write_on = stream.write

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(stream, name)

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *_: object) -> None:
                stream.close()

            def write(self, content: bytes) -> int:
                if stream.tell() > 200_000:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return int(write_on(content))

        return Full()  # type: ignore[return-value]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", nearly_full)
        with pytest.raises(FetchFailed, match=r"cannot write .*No space left on device.*resumes"):
            fetch_file(remote(server.url()), tmp_path)
    assert names(tmp_path) == ["file.bin.part"]
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, server: Server) -> None:
    folder = write(tmp_path / "file", b"")
    with pytest.raises(FetchFailed, match=r"cannot write .*--data-dir"):
        fetch_file(remote(server.url()), folder)


def test_two_processes_do_not_write_one_file(tmp_path: Path, server: Server) -> None:
    pytest.importorskip("fcntl")
    part = write(tmp_path / f"{PLACE}.part", b"")
    code = (
        f"import fcntl, sys; f = open({str(part)!r}, 'ab'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(FetchFailed, match=r"another process is fetching file\.bin: wait"):
            fetch_file(remote(server.url()), tmp_path)
        holder.stdin.close()
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT


def test_a_revised_text_is_known_by_its_marker(tmp_path: Path, server: Server) -> None:
    server.files["/file.bin"] = b"The Project Gutenberg EBook of War and Peace"
    text = RemoteFile((server.url(),), PLACE, None, None, marker=b"War and Peace")
    fetch_file(text, tmp_path)
    (tmp_path / PLACE).unlink()
    server.files["/file.bin"] = b"<html>Please sign in to this network</html>"
    with pytest.raises(FetchFailed, match="expected 'War and Peace' near its start, got none"):
        fetch_file(text, tmp_path)


def test_a_text_without_digest_is_never_put_together_of_two(tmp_path: Path, server: Server) -> None:
    """Cut, then revised: what came before is dropped; without a length the end is missed."""
    old, new = (start * 50_000 + b"*** END ***" for start in (b"old words\n", b"new words\n"))
    text = RemoteFile((server.url(),), PLACE, None, None, marker=b"words", ending=b"*** END ***")
    server.files["/file.bin"] = old
    server.breaks = [100_000] * 8
    with pytest.raises(FetchFailed, match="connection lost"):
        fetch_file(text, tmp_path)
    assert names(tmp_path) == []
    server.files["/file.bin"], server.breaks = new, [100_000]
    assert fetch_file(text, tmp_path).read_bytes() == new
    (tmp_path / PLACE).unlink()
    server.length, server.breaks = False, [100_000]
    with pytest.raises(FetchFailed, match=r"expected '\*\*\* END \*\*\*' near its end, got none"):
        fetch_file(text, tmp_path)


def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(stream: IO[bytes], how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert fetch_file(remote(server.url()), tmp_path).read_bytes() == CONTENT


def test_a_partial_file_renamed_by_who_finished_it_is_left_alone(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(stream: IO[bytes], how: int) -> None:
        (tmp_path / f"{PLACE}.part").replace(tmp_path / PLACE)  # the other process ends

    write(tmp_path / f"{PLACE}.part", CONTENT)
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(FetchFailed, match="another process is fetching"):
        fetch_file(remote(server.url()), tmp_path)
    assert (tmp_path / PLACE).read_bytes() == CONTENT


def serve_mnist(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """MNIST with four made-up files, served from here."""
    contents, files = {}, []
    for file in DATASETS["mnist"].files:
        name = Path(file.place).name
        contents[file.place] = content = idx_bytes(pixels(40, seed=len(files)))
        server.files[f"/{name}"] = content
        digest = sha256(hashlib.sha256(content).hexdigest())
        files.append(RemoteFile((server.url(name),), file.place, len(content), digest))
    here = replace(DATASETS["mnist"], files=tuple(files))
    monkeypatch.setattr(catalogue, "DATASETS", {**DATASETS, "mnist": here})
    return contents


def test_a_data_set_is_fetched_file_by_file_and_only_what_is_missing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = serve_mnist(server, monkeypatch)
    there = next(iter(contents))
    write(tmp_path / there, contents[there])
    report = fetch("mnist", tmp_path)
    assert report.complete
    assert len(server.asked) == 3
    assert {place: (tmp_path / place).read_bytes() for place in contents} == contents
    fetch("mnist", tmp_path)
    assert len(server.asked) == 3


def test_a_damaged_file_beside_the_published_one_is_named(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be read in its place, and fetching again would mend nothing."""
    contents = serve_mnist(server, monkeypatch)
    fetch("mnist", tmp_path)
    packed = next(iter(contents))
    assert packed.endswith(".gz")
    damaged = write(tmp_path / packed.removesuffix(".gz"), b"damaged")
    with pytest.raises(FetchFailed, match=r"is damaged .*move it away"):
        fetch("mnist", tmp_path)
    damaged.unlink()
    assert fetch("mnist", tmp_path).complete


def test_another_file_in_the_place_is_never_overwritten(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = serve_mnist(server, monkeypatch)
    mine = write(tmp_path / next(iter(contents)), b"mine")
    with pytest.raises(FetchFailed, match=r"is there and is not the published file .*move it away"):
        fetch("mnist", tmp_path)
    assert mine.read_bytes() == b"mine"
    assert server.asked == []


def test_what_cannot_be_fetched_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"imagenet cannot be fetched: .*ask image-net\.org"):
        fetch("imagenet", tmp_path)
    assert fetch("digits", tmp_path).ok
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        fetch("cifar", tmp_path)
