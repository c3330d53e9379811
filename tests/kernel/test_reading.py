# SPDX-License-Identifier: Apache-2.0
"""The daemon is not blocked by what it reads: kills are recorded while reads of processes and files hang for ever."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import IN_VM, ROOT, TIMEOUT_S, TIMEOUT_SCALE, attempts, not_applicable, wait_until
from tests.harness.hanging import dead_server, ends_in, frozen, process_state, stuck
from tests.harness.oracles import Record
from tests.harness.vanishing import processes_below, read_existing
from tracer.base.hung_disk import DiskWorker
from tracer.identity.runtimes import READ_FUNCTIONS, list_entries
from tracer.linux import procfs
from tracer.linux.privileges import CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE
from tracer.linux.safe_files import UnreadableError
from tracer.reading import procfs_reader
from tracer.reading.hung_sources import HungSources
from tracer.reading.procfs_reader import LOOK_S, ProcfsReader
from tracer.reading.reader_processes import GIVEN_UP_MAX, ReaderPool, ReadTimeoutError
from tracer.records.host import read_boot_id

from .conftest import Eat, MakeDaemon

SOON_S = TIMEOUT_SCALE * (10.0 if IN_VM else 1.0)
"""Upper bound for a kill to be recorded, whatever hangs."""
SILENT = "127.0.0.253"
END_S = TIMEOUT_SCALE * 5.0
"""Upper bound for the daemon to exit after SIGTERM."""


@pytest.fixture
def readers() -> Iterator[ReaderPool]:
    made = ReaderPool((*procfs_reader.FUNCTIONS, *READ_FUNCTIONS))
    yield made
    made.close()


def kill(daemon: Daemon, eat: Eat, group: Cgroup) -> Record:
    """Make a kill and wait SOON_S for its record."""
    eater = eat(16, group).die()
    for _ in attempts(SOON_S):
        for record in daemon.of_type("oom_kill"):
            if record["victim"]["pid"] == eater.pid:
                return record
    pytest.fail(f"no record within {SOON_S} s; {daemon.stderr()}")


def end(daemon: Daemon) -> None:
    """Stop the daemon: it exits within END_S of SIGTERM, and has written its stop record."""
    assert ends_in(daemon.process, END_S) == 0
    assert daemon.records()[-1]["type"] == "stop"


def left_behind(pid: int) -> list[int]:
    """Its readers in uninterruptible sleep."""
    return [found for found in processes_below(pid) if comm(found) == "oomtrace-read" and process_state(found) == "D"]


def comm(pid: int) -> str:
    """Empty if the process has ended."""
    return "".join(read_existing([Path(f"/proc/{pid}/comm")])).strip()


def test_stuck_before_the_start(tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat) -> None:
    """A process whose command line cannot be read delays neither the start nor the reading of other command lines."""
    with stuck(tmp_path / "mnt") as pid:
        early = eat(30, gate=True, life=3600, comm="early", extra=["early", "bird"])
        early.start()
        daemon = make_daemon()
        daemon.wait_ready()
        record = kill(daemon, eat, cgroup.child("limit", 8))
        assert record["victim"]["cmdline"]
        cgroup.child("early", 16).write("cgroup.procs", early.pid)
        early.go()
        early.die()
        wait_until("the early eater's record", lambda: len(daemon.of_type("oom_kill")) == 2, SOON_S)
        assert daemon.of_type("oom_kill")[-1]["victim"]["cmdline"][-2:] == ["early", "bird"]
        assert process_state(pid) != "Z"
        end(daemon)


def test_stuck_victim(tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat) -> None:
    """A victim that hides its command line is recorded without it; other kills are recorded in time."""
    daemon = make_daemon()
    daemon.wait_ready()
    group = cgroup.child("both", 24)
    with stuck(tmp_path / "mnt", group) as pid:
        eat(20, group)
        wait_until("its record", lambda: [each for each in daemon.of_type("oom_kill") if each["victim"]["pid"] == pid])
        for name in ("one", "two", "three"):
            assert kill(daemon, eat, cgroup.child(name, 8))["victim"]["cmdline"]
        victim = next(each["victim"] for each in daemon.of_type("oom_kill") if each["victim"]["pid"] == pid)
        assert (victim["comm"], victim["cmdline"]) == ("stuck", None)
        end(daemon)
    assert daemon.records()[-1]["metadata_errors"] > 0


def test_stuck_is_not_asked_again(tmp_path: Path, readers: ReaderPool) -> None:
    """A stuck process is not read again, neither later nor by the next daemon; other processes are."""
    boot_id, path = read_boot_id(), str(tmp_path / "hung")

    def look(hung: HungSources, pid: int) -> float:
        started_ns, began_s = procfs.read_start_ns(pid), time.monotonic()
        assert started_ns is not None
        assert ProcfsReader(readers, hung).look(pid, started_ns) is None
        return time.monotonic() - began_s

    readers.ask(TIMEOUT_S, procfs.read_start_ns, os.getpid())  # the reader is started
    with stuck(tmp_path / "mnt") as pid:
        disk = DiskWorker()
        hung = HungSources(path, boot_id, disk)
        assert look(hung, pid) >= LOOK_S
        assert look(hung, pid) < LOOK_S / 2
        assert disk.wait_idle()
        assert look(HungSources(path, boot_id, disk), pid) < LOOK_S / 2
        assert look(HungSources(path, "0" * 32, disk), pid) >= LOOK_S
        # Other processes are read; a new reader may take longer than a record waits.
        own_ns = procfs.read_start_ns(os.getpid())
        assert own_ns is not None
        shown = readers.ask(TIMEOUT_S, procfs.read_process, os.getpid(), own_ns)
        assert shown is not None
        assert tuple(shown) == procfs.read_process(os.getpid(), own_ns)


def test_seeding_goes_round_it(tmp_path: Path, readers: ReaderPool) -> None:
    """Seeding skips stuck processes: all other command lines are read at once."""
    with stuck(tmp_path / "one") as one, stuck(tmp_path / "two") as two:
        hung = HungSources()
        reader = ProcfsReader(readers, hung)
        reader.seed_cmdlines(-1)
        assert reader.is_seeded.wait(TIMEOUT_S)
        wait_until("both are marked as hung", lambda: hung.has_pid(one) and hung.has_pid(two))


def test_uninterruptible(tmp_path: Path, readers: ReaderPool) -> None:
    """A reader in uninterruptible sleep is replaced; with too many of them nothing is read until they end."""
    with ExitStack() as servers:
        ended: list[Callable[[], bool]] = []
        for number in range(GIVEN_UP_MAX):
            folder = tmp_path / str(number)
            asked = servers.enter_context(dead_server(folder))
            with pytest.raises(ReadTimeoutError) as hangs:
                readers.ask(TIMEOUT_SCALE, list_entries, str(folder), ".")
            assert asked.is_set()
            ended.append(hangs.value.has_ended)
        wait_until("all readers hang", lambda: len(left_behind(os.getpid())) == GIVEN_UP_MAX)
        assert not any(each() for each in ended)
        with pytest.raises(UnreadableError, match="readers hang"):
            readers.ask(5.0, list_entries, str(tmp_path), ".")
    wait_until("all readers have ended", lambda: all(each() for each in ended))
    assert len(readers.ask(5.0, list_entries, str(tmp_path), ".")) == GIVEN_UP_MAX


def test_runtime_folder(tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat) -> None:
    """A user's file system in a runtime's directory whose server never answers: the read cannot be interrupted."""
    with dead_server(tmp_path / "docker") as asked:
        daemon = make_daemon(arguments=["--runtime-root", f"docker={tmp_path / 'docker'}"])
        daemon.wait_ready()
        group = cgroup.child("docker").child(secrets.token_hex(32), 8)
        for _ in range(5):
            assert kill(daemon, eat, group)["container"]["name"] is None
        assert asked.is_set()
        wait_until("one reader hangs", lambda: len(left_behind(daemon.process.pid)) == 1)
        end(daemon)
    assert daemon.records()[-1]["metadata_errors"] > 0


@pytest.fixture
def silent_resolver(tmp_path: Path) -> Iterator[list[str]]:
    """A command that executes another command with a name server that never answers."""
    if IN_VM:
        not_applicable("the guest uses no name server")
    config = tmp_path / "resolv.conf"
    config.write_text(f"nameserver {SILENT}\n")
    mount = f'mount --bind {config} /etc/resolv.conf && exec "$@"'
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SILENT, 53))
        yield ["unshare", "--mount", "sh", "-c", mount, "sh"]
        server.settimeout(1)
        assert server.recv(512), "the name server got no query"


@pytest.fixture
def stopped_server() -> Iterator[int]:
    """Port of a stopped process: the kernel accepts connections and data for it until its buffers are full."""
    program = (
        "import os, signal, socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        wait_until("the server is stopped", lambda: process_state(server.pid) == "T")
        yield port
        server.kill()


def test_outputs_that_hang(
    tmp_path: Path, silent_resolver: list[str], stopped_server: int, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat
) -> None:
    """A full pipe, a stopped server and a name that never resolves do not delay the other output."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(reader, b"x" * 4096)
    uris = [f"file:{fifo}", f"http://127.0.0.1:{stopped_server}", "syslog+tcp://nobody.example:514"]
    daemon = make_daemon(arguments=[word for uri in uris for word in ("-o", uri)], wrapper=silent_resolver)
    daemon.wait_ready()
    for name in ("one", "two", "three"):
        kill(daemon, eat, cgroup.child(name, 8))
    end(daemon)
    os.close(reader)


def test_output_file_that_hangs_at_the_start(tmp_path: Path, make_daemon: MakeDaemon) -> None:
    """The daemon exits with an error instead of waiting for ever."""
    with dead_server(tmp_path / "disk"):
        daemon = make_daemon(tmp_path / "records", arguments=["-o", f"file:{tmp_path}/disk/records"])
        wait_until("the error", lambda: "no answer in time" in daemon.stderr(), TIMEOUT_SCALE * 20)
    assert daemon.process.wait(TIMEOUT_SCALE * 10) == 1


def test_configuration_that_hangs(tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat) -> None:
    """While reading the configuration hangs, kills are recorded, and the daemon and its reader stop in time."""
    config = tmp_path / "config.toml"
    config.write_text(f'output = "file:{tmp_path}/records.json"')
    daemon = make_daemon(arguments=["--config", str(config)])
    daemon.wait_ready()
    config.unlink()
    os.mkfifo(config)
    before = processes_below(daemon.process.pid)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until("the configuration is read", lambda: set(processes_below(daemon.process.pid)) - set(before))
    reading = set(processes_below(daemon.process.pid)) - set(before)
    for name in ("one", "two"):
        kill(daemon, eat, cgroup.child(name, 8))
    end(daemon)
    wait_until("the reader's exit", lambda: not any(Path(f"/proc/{pid}").exists() for pid in reading))


def test_frozen_cgroup(cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat) -> None:
    """A frozen process can be read: the kernel answers, not the process."""
    daemon = make_daemon()
    daemon.wait_ready()
    group = cgroup.child("frozen", 24)
    eater = eat(8, group, hold=True).full()
    with frozen(group, eater.pid):
        assert kill(daemon, eat, cgroup.child("other", 8))["victim"]["cmdline"]
        shown = procfs.read_process(eater.pid, procfs.read_start_ns(eater.pid) or 0)
        assert shown is not None
        end(daemon)


def readers_below(pid: int) -> list[int]:
    """Its readers; other descendants may be the compiler's, which exit a moment later."""
    return [each for each in processes_below(pid) if comm(each).startswith("oomtrace-")]


@pytest.mark.parametrize("network", [False, True])
def test_readers_end_with_it(make_daemon: MakeDaemon, network: bool) -> None:
    """Readers exit when the daemon is killed; they have few capabilities and none of the daemon's descriptors."""
    daemon = make_daemon(arguments=["--network"] if network else [])
    daemon.wait_ready()
    wait_until("readers", lambda: len(readers_below(daemon.process.pid)) >= 2)
    readers = readers_below(daemon.process.pid)
    for pid in readers:
        opened = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
        assert len(opened) == 4, opened
        assert {each.partition(":")[0] for each in opened} == {"/dev/null", "socket"}
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        kept = 1 << CAP_DAC_READ_SEARCH | 1 << CAP_SYS_PTRACE | network << CAP_SYS_ADMIN
        assert (int(status["CapEff"], 16) | kept, status["NoNewPrivs"].strip()) == (kept, "1")
    daemon.process.kill()
    daemon.process.wait()
    wait_until("the readers' exit", lambda: not any(Path(f"/proc/{pid}").exists() for pid in readers))


def test_top(tmp_path: Path) -> None:
    """``top`` shows a stuck process without its command line, and all others with it."""
    with stuck(tmp_path / "mnt") as pid:
        command = [sys.executable, "-m", "tracer", "top", "--json"]
        began_s = time.monotonic()
        shown = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout)
        assert time.monotonic() - began_s < TIMEOUT_SCALE * 5
        found = {each["pid"]: each for each in shown["processes"]}
        assert (found[pid]["comm"], found[pid]["cmdline"]) == ("stuck", [])
        assert found[os.getpid()]["cmdline"]


@pytest.mark.parametrize("command", [["why", "anything"], ["resolve", f"/docker/{'a' * 64}"], ["top", "-n", "1"]])
def test_commands(tmp_path: Path, cgroup: Cgroup, command: list[str]) -> None:
    """Commands give up on a runtime's directory that hangs, print a warning, and exit."""
    group = cgroup.child("docker").child(secrets.token_hex(32), 16)
    with dead_server(tmp_path / "docker") as asked, subprocess.Popen(["sleep", "600"]) as sleeper:
        group.write("cgroup.procs", sleeper.pid)
        tried = [sys.executable, "-m", "tracer", *command, "--runtime-root", f"docker={tmp_path / 'docker'}"]
        with subprocess.Popen(tried, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            _, errors = process.communicate(timeout=TIMEOUT_SCALE * 20)
            assert process.returncode in (0, 1)
        sleeper.kill()
        assert asked.is_set()
    expected = f"oomtrace: {tmp_path / 'docker'}: no answer within 2 s; names of Docker's containers may be missing"
    assert errors.splitlines().count(expected) == 1
