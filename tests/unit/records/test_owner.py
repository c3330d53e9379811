# SPDX-License-Identifier: Apache-2.0
"""A process that creates cgroups below its own, of any name and depth, changes nothing that is reported of others.

Each test makes the record of a kill in a path that the host created the beginning of, and a hostile container or user
chose the rest of.  It must be reported by the same names as a kill in the beginning itself.
"""

import os
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.harness import events
from tests.harness.records import complete
from tracer.capture import wire
from tracer.delivery.metrics import victim_labels as labels_of
from tracer.delivery.sinks.journald_fields import journal_entry
from tracer.encoding.decoder import RecordReader
from tracer.encoding.ecs import ecs
from tracer.encoding.otel import otel
from tracer.identity import enrich
from tracer.identity.cgroup_path import classify_cgroup, parse_cgroup_path
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.pipeline.oom_exit import PendingExits
from tracer.reading import processes
from tracer.records.filter import FIELDS, OWNER_PARTS, Filter
from tracer.records.matching import (
    OwnerFilter,
    names_container,
    names_pod,
    names_unit,
    shown_container,
    shown_pod,
    shown_unit,
    split_kind,
)
from tracer.records.owner import owner_of
from tracer.records.summary import summarize
from tracer.report.victim_names import victim_names
from tracer.top.snapshot import ProcessEntry, select_entries
from tracer.top.table import render_table
from tracer.why.grouping import Namesake, namesakes_sentence
from tracer.why.killer import killer_kind as killer_of
from tracer.why.search import Target, first_kind, select_kills
from tracer.why.sources import FoundKill

OWN, OTHER = "a" * 64, "b" * 64
POD, OTHER_POD = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e", "00000000-1111-4222-8333-444444444444"
BASES = {
    "docker": f"/system.slice/docker-{OWN}.scope",
    "docker, cgroupfs": f"/docker/{OWN}",
    "pod": f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{OWN}.scope",
    "pod, cgroupfs": f"/kubepods/besteffort/pod{POD}/{OWN}",
    "podman": f"/machine.slice/libpod-{OWN}.scope",
    "lxc": "/lxc.payload.own",
    "lxc 3": "/lxc/own",
    "nspawn": "/machine.slice/systemd-nspawn@own.service",
    "a user": "/user.slice/user-1000.slice/user@1000.service",
    "a session": "/user.slice/user-1000.slice/session-3.scope",
    "another cgroup namespace": f"/../../docker/{OWN}",
}
"""Cgroups that the host created, in cgroup v1 and v2."""
OTHERS = {
    "docker": f"/system.slice/docker-{OTHER}.scope",
    "lxc": "/lxc.payload.payments",
    "nspawn": "/machine.slice/systemd-nspawn@payments.service",
    "unit": "/system.slice/payments.service",
    "pod": f"/kubepods/burstable/pod{OTHER_POD}/{OTHER}",
    "user": "/user.slice/user-1001.slice/user@1001.service",
}
"""Containers, pods and units that must not be named."""
NAMES = ["payments", OTHER, OTHER[:12], "payments.service", OTHER_POD, "shop/bank-0", "bank-0", "user@1001.service"]
_CHOSEN = [
    *(name for path in OTHERS.values() for name in path.split("/")[1:]),
    *("docker", "lxc", "kubepods", "garden", "ecs", "nomad", "moby", "default", "k8s.io", "ns", "payload", "libvirt"),
    *(f"libpod-{OTHER}", f"crio-{OTHER}", f"cri-containerd-{OTHER}.scope", f"system.slice:docker:{OTHER}", OTHER),
    *("machine-payments.scope", "payments.libvirt-lxc", f"pod{OTHER_POD}", "user@0.service", "payments.slice", "..."),
    *("init.scope", "x" * 255, "é" * 120, "payments\x1b[31m", ",task_memcg=", "a:b", "…", "payments\\x2f"),
]
BELOW = st.lists(
    st.sampled_from(_CHOSEN)
    | st.text(st.characters(blacklist_characters="/\0\n", codec="utf-8"), min_size=1, max_size=20),
    max_size=12,
).flatmap(lambda names: st.integers(0, 80).map(lambda deep: [*names, *["x"] * deep]) | st.just(names * 9))


class Runtimes(NamedTuple):
    """The metadata of root's runtimes for both containers, and the requests."""

    asked: list[tuple[str, int | None]]

    def fetch_metadata(
        self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
    ) -> ContainerMetadata:
        self.asked.append((container_id, user))
        if user is not None:
            return {}
        if container_id in (OTHER, "payments"):
            return {"runtime": "docker", "name": "payments", "image": "bank:1", "labels": {"team": "bank"}}
        found: ContainerMetadata = {
            "runtime": runtime or "docker",
            "name": "own",
            "image": "own:1",
            "labels": {"team": "own"},
        }
        if pod_uid is not None:
            found |= {"pod_name": "web-0", "namespace": "web", "container_name": "own"}
        return found


def cut(path: str) -> tuple[bytes, int]:
    """The path as the BPF programs send it: as many components from the root as have room."""
    names = [name.encode("utf-8", "replace") for name in path.split("/")[1:] if name not in ("", ".", "..")]
    kept, room = [], 4096 - 256
    for name in names[:64]:
        room -= len(name) + 1
        if room < 0:
            break
        kept.append(name)
    return b"".join(name + b"\0" for name in reversed(kept)), 0 if len(kept) == len(
        names
    ) else wire.VICTIM_CGROUP_TRUNCATED


def killed(path: str, runtimes: Runtimes | None = None) -> Any:
    """The record of a kill in this cgroup."""
    names, flag = cut(path)
    of = events.victim(cgroup=names, flags=events.victim().flags | flag)
    limit = {"limit_cgroup": names, "trigger_cgroup": names}
    record: Any = complete(events.kill(of, events.incident(**limit)))
    enrich.enrich_cgroups(record, runtimes or Runtimes([]))  # type: ignore[arg-type]
    record["victim"].update(comm="hog", cmdline=["hog"], exe="/hog")
    return record


def sent(path: str) -> Any:
    """A SIGKILL from this cgroup to a process of the host, by a process named like the kubelet."""
    names, _ = cut(path)
    made: Any = events.sigkill(sender_cgroup=names, sender_uid=1000, sender_comm=events.comm(b"kubelet"))
    from tracer.pipeline.sigkill import SigkillBuilder

    (record, _), *_ = SigkillBuilder("bpf", "6a4ce4a0", "all").feed(made, 0)
    enrich.enrich_sigkill(record, Runtimes([]))  # type: ignore[arg-type]
    return record


def journald(record: Any) -> dict[bytes, bytes]:
    """The fields that log pipelines search."""
    found = dict(line.partition(b"=")[::2] for line in journal_entry(orjson.dumps(record)).split(b"\n") if b"=" in line)
    return {name: value for name, value in found.items() if name.startswith((b"CONTAINER_", b"IMAGE_"))} | {
        b"unit": found.get(b"OBJECT_SYSTEMD_UNIT", b"")
    }


def ids(fields: Any) -> tuple[str | None, str | None, str | None]:
    owner = owner_of(fields)
    return (
        owner.container["id"] if owner.container else None,
        owner.kubernetes["pod_uid"] if owner.kubernetes else None,
        owner.systemd["unit"] if owner.systemd else None,
    )


def cases() -> Iterator[tuple[str, list[str]]]:
    """Names below each base, first those that were tried on real hosts."""
    for base in BASES:
        yield base, ["docker", OTHER]
        yield base, [f"docker-{OTHER}.scope"]
        yield base, ["lxc.payload.payments"]
        yield base, ["machine.slice", "systemd-nspawn@payments.service"]
        yield base, ["system.slice", "payments.service"]
        yield base, ["kubepods", f"pod{OTHER_POD}", OTHER]
        yield base, ["user.slice", "user-1001.slice", "user@1001.service"]
        yield base, ["docker", OTHER, *["x"] * 62]
        yield base, ["docker", OTHER, *["y" * 248] * 15, "z" * 36]


def everywhere(test: Any) -> Any:
    """Run for each of ``cases``, and for random names."""
    for base, below in cases():
        test = example(base=base, below=below)(test)
    return given(base=st.sampled_from(sorted(BASES)), below=BELOW)(test)


@everywhere
def test_record(base: str, below: list[str]) -> None:
    """The owner is what the host created; files of others are not read, and the record has nothing of them."""
    runtimes = Runtimes([])
    record, plain = killed("/".join([BASES[base], *below]), runtimes), killed(BASES[base])
    assert ids(record) == ids(plain)
    assert owner_of(record).kubernetes == owner_of(plain).kubernetes
    assert owner_of(record).systemd == owner_of(plain).systemd
    assert not {(OTHER, None), ("payments", None)} & set(runtimes.asked)
    assert b"bank" not in orjson.dumps(record)
    assert record["victim"]["cgroup"].startswith(plain["victim"]["cgroup"])


@everywhere
def test_earlier_versions(base: str, below: list[str]) -> None:
    """The owner of a record without one follows from the path, or, if that was cut, is the record's container."""
    record = killed("/".join([BASES[base], *below]))
    expected, is_cut = ids(record), bool(record["truncated"])
    del record["owner"]
    old = RecordReader().conform(record)
    container = ids(old)[0]
    assert ids(old) == expected or (is_cut and container in (expected[0], None, *_claimed(record, expected)))


def _claimed(record: Any, expected: tuple[str | None, ...]) -> list[str]:
    """Earlier versions wrote no owner for a user's containers."""
    container = record["container"]
    return [container["id"]] if container and expected[0] is None else []


@everywhere
def test_filters(base: str, below: list[str]) -> None:
    """Filters use the host's names."""
    record, plain = killed("/".join([BASES[base], *below])), killed(BASES[base])
    for field, paths in FIELDS.items():
        if paths[0].partition(".")[0] not in OWNER_PARTS:
            continue
        for pattern in (
            "payments*",
            "*payments*",
            f"{OTHER[:6]}*",
            "bank*",
            OTHER_POD,
            "*.service",
            "user@1001.*",
            "*.slice",
        ):
            only, unwanted = Filter([(field, pattern)], []), Filter([], [(field, pattern)])
            assert only.matches(record) == only.matches(plain)
            assert unwanted.matches(record) == unwanted.matches(plain)


@everywhere
def test_metrics(base: str, below: list[str]) -> None:
    """The kill is counted for the owner."""
    record, plain = killed("/".join([BASES[base], *below])), killed(BASES[base])
    assert labels_of(record)._replace(level="") == labels_of(plain)._replace(level="")


@everywhere
def test_styles(base: str, below: list[str]) -> None:
    """Fields of other styles for containers, pods and units have the owner's names."""
    record, plain = killed("/".join([BASES[base], *below])), killed(BASES[base])
    assert otel(record)["Resource"] == otel(plain)["Resource"]
    for part in ("container", "orchestrator"):
        own, other = ecs(record).get(part) or {}, ecs(plain).get(part) or {}
        assert {**own, "labels": None} == {**other, "labels": None}
    assert journald(record) == journald(plain)


@everywhere
def test_names(base: str, below: list[str]) -> None:
    """A NAME refers to what the host created; a displayed name begins with the owner, and is a valid NAME."""
    record, plain = killed("/".join([BASES[base], *below])), killed(BASES[base])
    for name in NAMES:
        assert not names_container(name, record)
        assert not names_pod(name, record)
        assert not names_unit(name, record)
    for shown, names in ((shown_container, names_container), (shown_pod, names_pod), (shown_unit, names_unit)):
        own, told = shown(plain), shown(record)
        assert told == own or told is None or told.startswith(f"{shown_container(plain) or shown_unit(plain)}/")
        assert told is None or "*" in told or "?" in told or "[" in told or names(told, record)


@everywhere
def test_sentence(base: str, below: list[str]) -> None:
    """The sentence names the owner first."""
    record, plain = killed("/".join([BASES[base], *below])), killed(BASES[base])
    for each in (record, plain):
        each["limit"] = None
    place = shown_container(plain) or shown_unit(plain)
    assert place is not None
    assert f"{place}/" in summarize(record) or summarize(record) == summarize(plain)


@everywhere
def test_why(base: str, below: list[str]) -> None:
    """Such a kill changes no answer about others."""
    record, real = killed("/".join([BASES[base], *below])), killed(OTHERS["docker"])
    real["id"], real["victim"]["tid"] = "another", 7
    state: Any = {"id": OTHER, "name": "payments", "pod_uid": None, "running": True, "finished_at": None}
    for name in NAMES:
        assert first_kind(record, Target(name, (), ())) is None
        for states, running in (((state,), ("container",)), ((), ("unit",)), ((), ("pod",)), ((state,), ())):
            kind, found, target = select_kills([FoundKill(record, "hostile")], Target(name, states, running))  # type: ignore[arg-type]
            assert (found, target.name) == ([], name)
            assert kind is not None
    for name in ("payments", OTHER, OTHER[:12]):
        _, found, target = select_kills([FoundKill(record, "hostile"), FoundKill(real, "real")], Target(name, (), ()))
        assert ([each.source for each in found], target.name) == (["real"], name)
    _, found, target = select_kills([FoundKill(record, "hostile")], Target("payments", (), ()))
    assert not found or "/" in target.name  # a full name has the owner


def in_pod(path: str, namespace: str, pod: str, container: str) -> Any:
    """A kill in a pod's container with these names, or below it."""
    record = killed(path)
    pod_names: Any = {"pod_uid": POD, "pod_name": pod, "namespace": namespace, "container_name": container}
    record["kubernetes"] = pod_names
    if record["owner"] is not None:
        record["owner"]["kubernetes"] = pod_names
    return record


def test_why_pod_called_like_something_inside() -> None:
    """NAMESPACE/POD refers to the host's pod, not to a name inside a container with the namespace's name."""
    inside = in_pod(f"{BASES['pod']}/lxc.payload.payments", "evil", "evilpod", "prod")
    real = in_pod(OTHERS["pod"], "prod", "payments", "app")
    real["id"], real["victim"]["tid"] = "another", 7
    kind, found, target = select_kills(
        [FoundKill(inside, "inside"), FoundKill(real, "real")], Target("prod/payments", (), ())
    )
    assert (kind, [each.source for each in found], target.name) == ("pod", ["real"], "prod/payments")
    kind, found, _ = select_kills([FoundKill(inside, "inside")], Target("prod/payments", (), ("pod",)))
    assert (kind, found) == ("pod", [])


def test_why_container_called_like_an_id() -> None:
    """An id has precedence over names of containers in pods."""
    named = in_pod(BASES["pod"], "evil", "evilpod", OTHER[:12])
    real = killed(OTHERS["docker"])
    real["id"], real["victim"]["tid"] = "another", 7
    kind, found, _ = select_kills([FoundKill(named, "named"), FoundKill(real, "real")], Target(OTHER[:12], (), ()))
    assert (kind, [each.source for each in found]) == ("container", ["real"])


@everywhere
def test_report_and_watch(base: str, below: list[str]) -> None:
    """Views show the owner's names, and inner names with the owner."""
    record, plain = victim_names(killed("/".join([BASES[base], *below]))), victim_names(killed(BASES[base]))
    assert (record.image, record.namespace, record.node) == (plain.image, plain.namespace, plain.node)
    assert record.workload == plain.workload or record.workload.startswith(f"{plain.workload}/")
    assert record.container == plain.container or (record.container or "").startswith(f"{plain.workload}/")


@everywhere
def test_top(base: str, below: list[str]) -> None:
    """Processes are selected and displayed by the owner's names."""
    own = processes.read_process(os.getpid())
    assert own is not None
    found = enrich.resolve_cgroup("/".join([BASES[base], *below]), Runtimes([]).fetch_metadata)
    one = ProcessEntry(own._replace(comm="hog"), "root", 1.0, 1.0, None, (), found, ["hog"])
    for name in NAMES:
        assert (
            select_entries([one], "rss", OwnerFilter(container=name))
            == select_entries([one], "rss", OwnerFilter(unit=name))
            == []
        )
    place = shown_container(killed(BASES[base])) or shown_unit(killed(BASES[base])) or ""
    cells = render_table([one])[1].split()
    assert all(cell.startswith(place[:20]) or cell == "hog" for cell in cells if "payments" in cell)


@everywhere
def test_sender(base: str, below: list[str]) -> None:
    """The sender of a SIGKILL has the owner's names; its own name does not make it a part of the host."""
    record, plain = sent("/".join([BASES[base], *below])), sent(BASES[base])
    assert ids(record["sender"]) == ids(plain["sender"])
    assert b"bank" not in orjson.dumps(record)
    assert killer_of(record) == killer_of(plain)
    assert killer_of(record) != "kubelet" or base == "a session"


@everywhere
def test_exit(base: str, below: list[str]) -> None:
    """The state is read from the runtime that created the container; for a user's containers from the user's."""
    record = killed("/".join([BASES[base], *below]))
    exits = PendingExits(None)
    exits.add_victim(record, 7, 1)
    victim = exits._victims[record["id"]]
    assert (victim.container_id, victim.user) in {
        (ids(record)[0], None),
        (None, None),
        (None, 1000),
    } or victim.user == 1000


@pytest.mark.parametrize("base", BASES)
def test_the_host_is_named(base: str) -> None:
    """Each base is what it is meant to be: created by the host, with a name."""
    record = killed(BASES[base])
    assert record["owner"] is None
    if base not in ("a user", "a session"):
        assert owner_of(record).container
        assert (shown_container(record) or "").endswith("own")


@pytest.mark.parametrize("path", OTHERS.values(), ids=OTHERS)
def test_the_others_are_named(path: str) -> None:
    """Those that must not be named exist: some of NAMES is theirs."""
    record = killed(path)
    assert any(names_container(name, record) or names_unit(name, record) or names_pod(name, record) for name in NAMES)


def test_level_of_a_cut_path() -> None:
    """A cut path may continue with anything: only a level of all cgroups below is shown."""
    assert classify_cgroup(f"/docker/{OWN}/x", is_cut=True) == "container"
    assert classify_cgroup("/kubepods/besteffort", is_cut=True) == "other"
    assert classify_cgroup("/system.slice/a.service/x", is_cut=True) == "unit"


def test_beginning_cut_off() -> None:
    """A path without its beginning has no identity."""
    assert parse_cgroup_path(f"…/docker/{OTHER}") == (None, None, None, None)


def named_kill(number: int, path: str, *, container: str | None = None, pod: tuple[str, str, str] | None = None) -> Any:
    """The next kill in this cgroup; the container and its pod (namespace, pod, container) have names."""
    record = killed(path, Runtimes([]))
    if record["container"] is not None:
        record["container"].update({"name": container, "labels": {}})
    if pod is not None:
        record["kubernetes"].update({"namespace": pod[0], "pod_name": pod[1], "container_name": pod[2]})
    record["victim"].update(tid=number, pid=number, comm="hog")
    record["incident"]["id"] = record["id"] = f"kill-{number}"
    record["time"] = f"2026-11-30T08:{number:02}:00.000000000Z"
    return record


def in_a_pod(number: int, namespace: str, pod: str, name: str, container_id: str | None = None) -> Any:
    """The name that Kubernetes gives a container in Docker."""
    uid = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{pod}.{namespace}"))
    path = f"/kubepods/besteffort/pod{uid}/{container_id or f'{number:064x}'}"
    return named_kill(number, path, container=name, pod=(namespace, pod, name))


def answer(name: str, kills: list[Any], target: Target | None = None) -> tuple[Any, list[str], tuple[Namesake, ...]]:
    """The owner in the answer, its kills, and the others with the name."""
    text, only = split_kind(name)
    kind, found, told = select_kills(
        [FoundKill(each, "test") for each in kills], target or Target(text, (), (), kind=only)
    )
    return kind, [each.kill["id"] for each in found], told.others


def test_containers_of_one_name_in_two_pods() -> None:
    """They are two: the answer is about the one killed last, and shows how to ask for the other."""
    shop = [in_a_pod(number, "shop", "web-0", "app") for number in (1, 2, 3)]
    payments = [in_a_pod(number, "payments", "api-0", "app") for number in (4, 5)]
    kind, ids, (other,) = answer("app", [*shop, *payments])
    assert (kind, ids) == ("container", ["kill-4", "kill-5"])
    assert other == {"kind": "container", "name": "shop/web-0/app", "kills": 3, "ask": "shop/web-0/app"}
    line = namesakes_sentence([other])
    assert line == (
        "Others with that name, not counted here: container shop/web-0/app: 3 times (oomtrace why shop/web-0/app)."
    )
    assert answer(other["ask"], [*shop, *payments]) == ("container", ["kill-1", "kill-2", "kill-3"], ())


def test_counted_together() -> None:
    """A restarted container, and a pod's replacement in a StatefulSet or Deployment, count as the same one."""
    restarted = [in_a_pod(number, "shop", "web-0", "app") for number in (1, 2)]
    assert answer("app", restarted) == ("container", ["kill-1", "kill-2"], ())
    pods = ["api-5d4f8c7b9d-x2vbn", "api-5d4f8c7b9d-zzk4q", "api-7c9f6bb58c-4tlqs"]
    deployed = [in_a_pod(number, "shop", pod, "app") for number, pod in enumerate(pods, 3)]
    other = in_a_pod(9, "shop", "api-db-0", "app")
    kind, ids, (told,) = answer("app", [*deployed, other])
    assert (kind, ids, told["kills"], told["ask"]) == ("container", ["kill-9"], 3, "shop/api/app")
    assert answer(told["ask"], [*deployed, other]) == ("container", ["kill-3", "kill-4", "kill-5"], ())
    assert answer("shop/api-5d4f8c7b9d-zzk4q/app", [*deployed, other]) == ("container", ["kill-4"], ())
    anew = [named_kill(number, f"/docker/{number:064x}", container="cart") for number in (1, 2)]
    assert answer("cart", anew) == ("container", ["kill-1", "kill-2"], ())


def test_project_decides() -> None:
    """Containers of the same name in two Compose projects, or in two runtimes, are different."""
    kills = [named_kill(number, f"/docker/{str(number) * 64}", container="cart") for number in (1, 2, 3)]
    for kill, project in zip(kills, ("shop", "bank", None), strict=True):
        if project is not None:
            kill["container"]["labels"] = {"com.docker.compose.project": project, "com.docker.compose.service": "cart"}
    _, ids, others = answer("cart", kills)
    assert (ids, len(others)) == (["kill-3"], 2)
    for each, expected in zip(others, (["kill-1"], ["kill-2"]), strict=True):
        assert answer(each["ask"], kills) == ("container", expected, ())


def test_name_that_begins_like_another() -> None:
    """An LXC container's id is its name, which may be a prefix of another's."""
    kills = [named_kill(number, f"/lxc.payload.payments{end}") for number, end in enumerate(("", "-db", "2"), 1)]
    assert answer("payments", kills) == ("container", ["kill-1"], ())
    kills = [named_kill(1, "/lxc.payload.web"), in_a_pod(2, "shop", "web-0", "web")]
    assert answer("web", kills) == ("container", ["kill-1"], ())


def test_names_that_a_shell_understands() -> None:
    """A displayed name can be copied into a shell: it is one word, and not an option."""
    inside = ["/lxc.payload.-A/system.slice/mail.service", "/lxc.payload.b/system.slice/mail.service"]
    kills = [named_kill(number, path) for number, path in enumerate(inside, 1)]
    kind, ids, (other,) = answer("mail", kills)
    assert (kind, ids, other["ask"]) == ("unit", ["kill-2"], "unit:-A/mail.service")
    assert answer(other["ask"], kills) == ("unit", ["kill-1"], ())
    line = namesakes_sentence([{"kind": "unit", "name": "a b", "kills": 1, "ask": "unit:a b;reboot"}])
    assert line is not None
    assert "(oomtrace why 'unit:a b;reboot')" in line


def test_two_that_run() -> None:
    """A container without kills is named, too."""
    kind, ids, others = answer("web", [], Target("web", (), ("pod", "unit")))
    assert (kind, ids) == ("pod", [])
    assert others == ({"kind": "unit", "name": "web", "kills": 0, "ask": "unit:web"},)


def test_log_without_names_is_counted_with_the_record() -> None:
    """A kernel log only has an id, which refers to the container."""
    kills = [in_a_pod(number, "shop", "web-0", "app", OWN) for number in (1, 2)]
    kills[0]["container"]["name"], kills[0]["kubernetes"] = None, None
    state: Any = {"id": OWN, "name": "app", "pod_uid": None, "running": True, "finished_at": None}
    assert answer("app", kills, Target("app", (state,), ("container",))) == ("container", ["kill-1", "kill-2"], ())


UNIT = named_kill(10, "/system.slice/payments.service")
IN_POD = in_a_pod(11, "prod", "payments", "app")
PLAIN = named_kill(12, f"/docker/{OTHER}", container="payments")
HONEST: dict[str, tuple[Any, str, list[str]]] = {
    "unit": (UNIT, "payments", ["payments.service", "unit:payments.service"]),
    "pod": (IN_POD, "payments", ["prod/payments", "pod:prod/payments", IN_POD["kubernetes"]["pod_uid"]]),
    "container of a pod": (IN_POD, "app", ["prod/payments/app", "container:prod/payments/app"]),
    "container": (PLAIN, "payments", [OTHER, OTHER[:12], f"container:{OTHER}"]),
}
"""A kill, its owner's short name, and all full names."""
HOSTILE_NAMES = st.sampled_from(
    ["payments", "app", "prod/payments", "prod/payments/app", "payments.service", OTHER, OTHER[:12], "*", "payments*"]
    + [full for _, _, names in HONEST.values() for full in names]
) | st.text(min_size=1, max_size=20)


@given(of=st.sampled_from(sorted(HONEST)), name=HOSTILE_NAMES, count=st.integers(1, 3), is_last=st.booleans())
def test_hostile_name(of: str, name: str, count: int, is_last: bool) -> None:
    """A container with such a name changes no answer about a full name, and hides no other with the short name."""
    kill, short, full = HONEST[of]
    start = 20 if is_last else 1
    # In Docker and podman a name is unique: a container with the same name is of another runtime.
    paths = [f"/machine.slice/libpod-{number}{'e' * 63}.scope" for number in range(count)]
    hostile = [named_kill(start + number, path, container=name) for number, path in enumerate(paths)]
    for each in full:
        before, after = answer(each, [kill]), answer(each, [*hostile, kill])
        assert (before[:2], before[1]) == (after[:2], [kill["id"]])
        state: Any = {
            "id": "e" * 64,
            "name": name,
            "pod_uid": None,
            "running": True,
            "finished_at": None,
            "full": False,
        }
        text, only = split_kind(each)
        if only in (None, "container"):
            target = Target(text, (state,), ("container",), kind=only)
            assert answer(each, [*hostile, kill], target)[:2] == before[:2]
    kind, ids, others = answer(short, [*hostile, kill])
    assert ids == [kill["id"]] or any(answer(other["ask"], [*hostile, kill])[1] == [kill["id"]] for other in others)
    for other in others:
        assert answer(other["ask"], [*hostile, kill])[1]
    assert kind is not None
