# SPDX-License-Identifier: Apache-2.0
"""Reloading the configuration: filters, labels and outputs change, and no record is lost."""

import json
import signal
import time
from pathlib import Path
from typing import Any

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import IN_VM, not_applicable, wait_until

from .conftest import Eat, MakeDaemon

ONE = """
label = {{site = "old"}}
output = ["file:{folder}/records.json"]
"""
TWO = """
label = {{site = "new"}}
only = {{comm = "wanted*"}}
max-record = 4096
runtime-root = {{docker = "/nowhere"}}

[[output]]
uri = "file:{folder}/records.json"

[[output]]
uri = "file:{folder}/flat.json"
style = "flat"
types = ["oom_kill"]
"""

STORM_KILLS = 600
AT_ONCE = 4
"""SIGHUPs per change: most arrive while the daemon reads the configuration."""
PAUSE_S = 0.02
RELOADED = "the configuration was reloaded"


def reload(daemon: Daemon, message: str) -> str:
    """Send SIGHUP and wait for a message on stderr; all of stderr."""
    before = daemon.stderr().count("\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_until("the message on stderr", lambda: message in "".join(daemon.stderr().splitlines(keepends=True)[before:]))
    return daemon.stderr()


def kills_in(path: Path, *pids: int) -> list[dict[str, Any]]:
    """The oom_kill records of these pids."""
    kills = [record for record in lines(path) if record["type"] == "oom_kill"]
    return [record for record in kills if (record.get("victim.pid") or record["victim"]["pid"]) in pids]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def test_reload(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """Labels, filters and outputs change at once, other outputs continue; an error is reported and changes nothing."""
    config, group = tmp_path / "config.toml", cgroup.child("limit", 8)
    config.write_text(ONE.format(folder=tmp_path))
    daemon = make_daemon(arguments=["--config", str(config)])
    daemon.wait_ready()
    first = eat(16, group, comm="first").die()
    wait_until("the record of the first kill", lambda: kills_in(tmp_path / "records.json", first.pid))

    config.write_text(TWO.format(folder=tmp_path).replace("flat.json", "no/such/folder"))
    reload(daemon, "its directory does not exist")
    for mistake, message in (("[]", "output"), ('["file:/a%00b"]', "the old configuration remains in use")):
        config.write_text(f"output = {mistake}")
        reload(daemon, message)
    for text, message in (("", "no longer has any settings"), ('label = {site = "x"}', "no longer has an output")):
        config.write_text(text)
        reload(daemon, f"{config} {message}: the old configuration remains in use")
    config.write_text("output = 1")
    reload(daemon, f"{config}, line 1: an output has no uri")
    config.write_text(TWO.format(folder=tmp_path))
    message = reload(daemon, "the configuration was reloaded; runtime-root will change at the next start")
    assert message.count("the configuration was reloaded") == 1

    excluded = eat(16, group, comm="unwanted").die()
    included = eat(16, group, comm="wanted-1").die()
    wait_until("the record of the included kill", lambda: lines(tmp_path / "flat.json"))
    stop = daemon.stop()
    kills = kills_in(tmp_path / "records.json", first.pid, excluded.pid, included.pid)
    assert [(kill["victim"]["pid"], kill["host"]["labels"]) for kill in kills] == [
        (first.pid, {"site": "old"}),
        (included.pid, {"site": "new"}),
    ]
    (flat,) = lines(tmp_path / "flat.json")
    assert (flat["victim.pid"], flat["host.labels"], flat["id"]) == (included.pid, {"site": "new"}, kills[1]["id"])
    assert stop["lost"] == 0
    assert stop["filtered"] >= 1
    assert excluded.pid not in [record.get("pid") for record in daemon.records()]
    assert [record["seq"] for record in daemon.records()] == list(range(len(daemon.records())))


def test_output_leaves(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """A removed output gets the records before the reload and none after; other outputs get all."""
    config, group = tmp_path / "config.toml", cgroup.child("limit", 8)
    both = f'output = ["file:{tmp_path}/records.json", "file:{tmp_path}/other.json"]\n'
    config.write_text(both)
    daemon = make_daemon(arguments=["--config", str(config)])
    daemon.wait_ready()
    pids = []
    for text in (both.replace(f', "file:{tmp_path}/other.json"', ""), both):
        pids.append(eat(16, group).die().pid)
        wait_until("the record of the kill", lambda: kills_in(tmp_path / "records.json", pids[-1]))
        config.write_text(text)
        reload(daemon, "the configuration was reloaded")
    pids.append(eat(16, group).die().pid)
    wait_until("the record of the last kill", lambda: kills_in(tmp_path / "records.json", pids[-1]))
    daemon.stop()
    assert [record["victim"]["pid"] for record in kills_in(tmp_path / "records.json", *pids)] == pids
    assert [record["victim"]["pid"] for record in kills_in(tmp_path / "other.json", *pids)] == [pids[0], pids[2]]


def test_storm(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """Bursts of SIGHUP with valid and invalid configurations while processes are killed: one record per kill."""
    if IN_VM:
        not_applicable("does not depend on the kernel's OOM path")
    config, group = tmp_path / "config.toml", cgroup.child("limit", 8)
    one = f'output = ["file:{tmp_path}/records.json"]\n'
    two = f'output = ["file:{tmp_path}/records.json", "file:{tmp_path}/other.json"]\n'
    labelled, nowhere = f'label = {{site = "x"}}\n{one}', f'output = ["file:{tmp_path}/no/such/file"]\n'
    texts = [(text, RELOADED) for text in (two, labelled, one)]
    texts[1:1] = [("output = 1", "an output has no uri"), (nowhere, "its directory does not exist")]
    config.write_text(one)
    daemon = make_daemon(arguments=["--config", str(config)])
    daemon.wait_ready()
    eater = eat(16, group, children=STORM_KILLS, jobs=2, life=600)
    rounds = 0
    while rounds < len(texts) or not eater.ended():
        new = tmp_path / "new.toml"
        text, message = texts[rounds % len(texts)]
        new.write_text(text)
        new.rename(config)
        before = daemon.stderr().count(message)
        for _ in range(AT_ONCE):
            daemon.process.send_signal(signal.SIGHUP)
            time.sleep(PAUSE_S)
        wait_until(message, lambda: daemon.stderr().count(message) > before)  # noqa: B023
        rounds += 1
    pids = eater.children(STORM_KILLS)
    assert group.oom_kills() == STORM_KILLS
    wait_until("the records", lambda: len(kills_in(tmp_path / "records.json", *pids)) >= STORM_KILLS)
    stop = daemon.stop()
    assert sorted(pids) == sorted(kill["victim"]["pid"] for kill in kills_in(tmp_path / "records.json", *pids))
    assert (stop["lost"], daemon.of_type("lost"), daemon.of_type("gap")) == (0, [], [])
    assert [record["seq"] for record in daemon.records()] == list(range(len(daemon.records())))
    assert "Traceback" not in daemon.stderr()
    print(f"SIGHUPs: {AT_ONCE * rounds}; reloads: {daemon.stderr().count(RELOADED)}, of {rounds}")
