# SPDX-License-Identifier: Apache-2.0
"""reload.py: reads the current configuration file in a child process, as the daemon does."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.lines import wait_for
from tracer.base.errors import TracerError
from tracer.config import reload
from tracer.config.options import Options, from_json
from tracer.config.reload import ConfigReloader

FILES = 'output = ["file:/var/log/a.json"]\nlabel = {site = "a"}\nredact = ["geheim"]\n'


def apply(path: Path, before: str, after: str, *arguments: str) -> Options:
    """The options of a daemon that was started with one content and reloads another one."""
    path.write_text(before)
    old = reload.read_options(("--config", str(path), *arguments))
    path.write_text(after)
    wanted = reload.read_options(("--config", str(path), *arguments))
    reload.refuse_emptied(old, wanted)
    return wanted


@pytest.mark.parametrize("after", ["", "# nothing\n"])
@pytest.mark.parametrize("arguments", [(), ("-o", "stdout")])
def test_emptied(tmp_path: Path, after: str, arguments: tuple[str, ...]) -> None:
    """An empty (or incomplete) file removes neither outputs nor redaction, and is reported."""
    path = tmp_path / "config.toml"
    with pytest.raises(TracerError, match="no longer has any settings: the old configuration remains in use") as caught:
        apply(path, FILES, after, *arguments)
    assert str(path) in str(caught.value)


def test_without_output(tmp_path: Path) -> None:
    """Records do not go to stdout because the file has lost its outputs; they do if it names stdout."""
    path = tmp_path / "config.toml"
    with pytest.raises(TracerError, match="no longer has an output"):
        apply(path, FILES, 'label = {site = "b"}\n')
    assert apply(path, FILES, 'output = "stdout"\n').outputs == ("stdout",)
    assert apply(path, FILES, 'output = ["stdout"]\n').labels == ()


def test_never_there(tmp_path: Path) -> None:
    """A file that had no outputs or settings before needs none."""
    path = tmp_path / "config.toml"
    assert apply(path, "", "").outputs == ("stdout",)
    assert apply(path, 'label = {site = "a"}\n', 'label = {site = "b"}\n').labels == (("site", "b"),)
    assert apply(path, "", FILES).outputs == ("file:/var/log/a.json",)


@pytest.fixture
def hups() -> Iterator[list[int]]:
    """Received SIGHUPs."""
    came: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda *_: came.append(1))
    yield came
    signal.signal(signal.SIGHUP, before)


def started_with(config: Path) -> Options:
    return from_json(b"{}")._replace(config=str(config), arguments=("--config", str(config)))


def test_beside_the_capture(tmp_path: Path, hups: list[int]) -> None:
    """Nothing waits for a configuration that hangs; a request meanwhile leads to one more read."""
    config = tmp_path / "config.toml"
    os.mkfifo(config)
    old, rereading = started_with(config), ConfigReloader()
    for _ in range(2):
        began_s = time.monotonic()
        assert rereading.options(old) is None
        assert time.monotonic() - began_s < 1
        assert rereading.is_busy
    for cmdline in ("true", "false"):
        assert rereading.options(old) is None
        config.write_text(f'cmdline = {cmdline}\noutput = "file:/x"\n')
        wait_for(lambda: hups.pop() if hups else None, 60)
    wanted = rereading.options(old)
    assert wanted is not None
    assert (wanted.cmdline, wanted.outputs) == (False, ("file:/x",))
    assert not rereading.is_busy


def test_wrong(tmp_path: Path, hups: list[int]) -> None:
    """An error is reported once; the next reload works."""
    config = tmp_path / "config.toml"
    config.write_text("cmdline = 3")
    old, rereading = started_with(config), ConfigReloader()
    for _ in range(2):
        assert rereading.options(old) is None
        wait_for(lambda: hups.pop() if hups else None, 60)
        with pytest.raises(TracerError, match="cmdline"):
            rereading.options(old)
