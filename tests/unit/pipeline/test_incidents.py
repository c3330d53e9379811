# SPDX-License-Identifier: Apache-2.0
"""incidents.py: which events belong to one incident, and when it is complete."""

from collections.abc import Iterable

import pytest

from tests.harness import events
from tracer.capture import wire
from tracer.pipeline.incidents import QUIET_NS, Incidents, Joined, JoinedKill

PLAIN = events.victim().flags
GROUP = PLAIN | wire.VICTIM_GROUP
MARKED = PLAIN | wire.VICTIM_MARKED
NEXT_NS = events.INCIDENT_NS + 1_000_000
INVOKED = events.log(b"hog invoked oom-killer")
KILLED = events.log(b"Memory cgroup out of memory: Killed process")


def kills_in(joined: Iterable[Joined]) -> list[JoinedKill]:
    return [each for each, _ in joined if isinstance(each, JoinedKill)]


def items(joined: Iterable[Joined]) -> list[JoinedKill | wire.ExitEvent | wire.KilledAgainEvent]:
    return [item for item, _ in joined]


def feed(incidents: Incidents, *several: wire.Event, now_ns: int = 0) -> list[JoinedKill]:
    """The kills that these events complete."""
    return [kill for event in several for kill in kills_in(incidents.feed(event, now_ns))]


def pids(kills: Iterable[JoinedKill]) -> list[int]:
    return [kill.victim.pid for kill in kills]


def later(event: wire.VictimEvent) -> wire.VictimEvent:
    """The same in the next incident."""
    return event._replace(header=event.header._replace(incident_ns=NEXT_NS, time_ns=NEXT_NS + 1))


def test_single() -> None:
    """A kill is complete when its incident ends."""
    incidents = Incidents()
    victim, incident = events.victim(), events.incident()
    assert feed(incidents, victim, incident) == []
    assert incidents.deadline_ns() is not None
    assert [JoinedKill(victim, incident, 1, (), (), ())] == feed(incidents, events.end())
    assert incidents.deadline_ns() is None


def test_killed_again() -> None:
    """A repeated kill of an earlier victim is passed on at once, and begins no incident."""
    incidents = Incidents()
    again = wire.KilledAgainEvent(events.header(wire.KILLED_AGAIN), tid=5)
    assert items(incidents.feed(again, 0)) == [again]
    assert not incidents.is_open
    assert feed(incidents, events.victim(), events.incident()) == []
    assert items(incidents.feed(again, 0)) == [again]
    assert pids(feed(incidents, events.end())) == [events.victim().pid]


def test_exit_is_told_after_the_kill() -> None:
    """The exit of a victim of the open incident waits; an exit of an earlier incident does not."""
    incidents = Incidents()
    victim, incident = events.victim(), events.incident()
    gone = wire.ExitEvent(events.header(wire.EXIT), events.KILL_NS, victim.pid)
    other = gone._replace(header=gone.header._replace(incident_ns=NEXT_NS))
    assert feed(incidents, victim, incident) == []
    assert list(incidents.feed(gone, 0)) == []
    assert items(incidents.feed(other, 0)) == [other]
    assert items(incidents.feed(events.end(), 0)) == [JoinedKill(victim, incident, 1, (), (), ()), gone]
    assert items(incidents.feed(gone, 0)) == [gone]


def test_group() -> None:
    """All kills of a group kill are complete at once, in order, with their number."""
    victims = [events.victim(pid=pid, flags=GROUP) for pid in (3, 1, 2)]
    incident = events.incident()
    kills = feed(Incidents(), victims[0], incident, *victims[1:], events.end())
    assert [JoinedKill(victim, incident, 3, (), (), ()) for victim in victims] == kills


def test_sharers() -> None:
    """A shared_mm process is added to its victim, once for all of its threads."""
    several: list[wire.Event] = [
        events.victim(pid=1, flags=GROUP),
        events.incident(),
        events.shared_mm(11, victim_pid=1),
        events.shared_mm(11, victim_pid=1),
        events.shared_mm(12, victim_pid=1),
        events.victim(pid=2, flags=GROUP),
        events.shared_mm(21, victim_pid=2),
        events.end(),
    ]
    kills = feed(Incidents(), *several)
    assert [[sharer.pid for sharer in kill.shared_mm] for kill in kills] == [[11, 12], [21]]


class Compared(int):
    """A pid that counts how often one is compared with another."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return int(self) == other

    __hash__ = int.__hash__


@pytest.mark.parametrize("count", [1000, 8000])
def test_work_grows_with_the_number(count: int) -> None:
    """A container decides how many victims, processes and lines an incident has: each is handled once."""
    several: list[wire.Event] = [INVOKED]
    for pid in range(1, count + 1):
        victim = events.victim(pid=Compared(pid), flags=GROUP)
        sharer = events.shared_mm(Compared(1_000_000 + pid), victim_pid=Compared(pid))
        several += [victim, KILLED, sharer, sharer]
    incidents = Incidents()
    Compared.times = 0
    assert feed(incidents, *several) == []
    kills = kills_in(incidents.end())
    assert Compared.times <= 5 * count
    assert [[sharer.pid for sharer in kill.shared_mm] for kill in kills] == [[1_000_001 + own] for own in range(count)]
    assert {kill.log for kill in kills} == {(INVOKED.text, KILLED.text)}, "and not a line for each other victim"


def test_incident_missing() -> None:
    """If the incident event is lost, its victims still belong together."""
    victims = [events.victim(pid=pid, flags=GROUP) for pid in (1, 2)]
    kills = feed(Incidents(), *victims, events.end())
    assert [JoinedKill(victim, None, 2, (), (), ()) for victim in victims] == kills


def test_the_next_incident_ends_one_without_end() -> None:
    """A missing end does not hold a victim back."""
    incidents = Incidents()
    first, incident, second = events.victim(pid=1), events.incident(), later(events.victim(pid=2))
    assert [JoinedKill(first, incident, 1, (), (), ())] == feed(incidents, first, incident, second)
    assert incidents.deadline_ns() is not None


def test_silence_ends_one_without_end() -> None:
    """The deadline completes the kills, and not before."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1), now_ns=100)
    feed(incidents, events.victim(pid=2), now_ns=200)
    assert list(incidents.flush(200 + QUIET_NS - 1)) == []
    assert pids(kills_in(incidents.flush(200 + QUIET_NS))) == [1, 2]
    assert incidents.deadline_ns() is None
    assert list(incidents.flush(1 << 62)) == []


def test_what_is_left_comes_out() -> None:
    """At the stop all kills are complete."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1))
    assert pids(kills_in(incidents.end())) == [1]
    assert list(incidents.end()) == []


def test_victim_without_beginning() -> None:
    """A victim whose incident's begin was not seen is a kill at once, and ends no other incident."""
    incidents = Incidents()
    orphan = events.victim(pid=9, header=events.header(wire.VICTIM, incident_ns=events.KILL_NS))
    member = events.victim(pid=1)
    assert [JoinedKill(orphan, None, None, (), (), ())] == feed(incidents, member, orphan)
    assert pids(feed(incidents, events.end())) == [1]


def test_too_late() -> None:
    """Events after the end open no incident."""
    incidents = Incidents()
    feed(incidents, events.victim(), events.incident(), events.end())
    assert feed(incidents, events.shared_mm(3), events.end()) == []
    assert incidents.deadline_ns() is None


def test_nobody_was_killed() -> None:
    """An incident without victims makes no kill."""
    incidents = Incidents()
    assert feed(incidents, INVOKED, events.memcg_chain(events.counters()), later(events.victim(pid=2))) == []
    assert pids(kills_in(incidents.end())) == [2]


def test_tracepoints_single() -> None:
    """Without kprobes a single victim is complete when the log has named it, with its own counters and log lines."""
    levels = (events.counters(limit_pages=5), events.counters())
    victim, incident = events.victim(), events.blind_incident()
    incidents = Incidents()
    assert feed(incidents, INVOKED, events.memcg_chain(*levels), victim, incident) == []
    assert [JoinedKill(victim, incident, 1, (), levels, (INVOKED.text, KILLED.text))] == feed(incidents, KILLED)
    assert incidents.deadline_ns() is None


def test_tracepoints_without_a_log() -> None:
    """Without kprobes and log lines the timeout completes a victim."""
    incidents = Incidents()
    assert feed(incidents, events.victim(pid=1), events.blind_incident()) == []
    assert pids(kills_in(incidents.flush(QUIET_NS))) == [1]


def test_tracepoints_hold_a_group() -> None:
    """Without kprobes any member of a group kill may be the last one: they wait for the timeout."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1, flags=GROUP), events.blind_incident(), KILLED)
    for pid in (2, 3):
        assert feed(incidents, events.victim(pid=pid, flags=GROUP), KILLED, now_ns=pid) == []
    kills = kills_in(incidents.flush(3 + QUIET_NS))
    assert [(kill.victim.pid, kill.victims) for kill in kills] == [(1, 3), (2, 3), (3, 3)]


def test_tracepoints_hold_for_sharers() -> None:
    """Without kprobes a victim whose memory has more users than it has threads waits for the others."""
    incidents = Incidents()
    victim = events.victim(mm_users=3, threads=2)
    assert feed(incidents, victim, events.blind_incident(), KILLED, events.shared_mm(5)) == []
    (kill,) = kills_in(incidents.flush(QUIET_NS))
    assert [sharer.pid for sharer in kill.shared_mm] == [5]


def test_tracepoints_threads_are_no_sharers() -> None:
    """The users of a threaded victim's memory are its own threads."""
    several = (events.victim(mm_users=8, threads=8), events.blind_incident(), KILLED)
    assert len(feed(Incidents(), *several)) == 1


def test_tracepoints_next_incident_ends_a_group() -> None:
    """A waiting kill precedes all items of the next incident."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1, flags=GROUP), events.blind_incident(), KILLED)
    assert pids(feed(incidents, later(events.victim(pid=2)))) == [1]


def test_tracepoints_mark_without_a_kill() -> None:
    """A dying task is marked as well: without a signal and a log line it was not killed."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1, flags=MARKED), events.blind_incident())
    assert list(incidents.flush(QUIET_NS)) == []
    assert incidents.deadline_ns() is None


def test_tracepoints_mark_that_the_log_confirms() -> None:
    """If the signal was not seen, the log line confirms the kill of the victim before it."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1, flags=MARKED | GROUP), events.blind_incident())
    feed(incidents, events.victim(pid=2, flags=MARKED | GROUP), KILLED)
    assert [(kill.victim.pid, kill.victims) for kill in kills_in(incidents.flush(QUIET_NS))] == [(2, 1)]


def test_tracepoints_mark_and_another_line() -> None:
    """Only the line of a kill confirms one, no other line that the same task causes."""
    incidents = Incidents()
    marked = events.victim(pid=1, flags=MARKED), events.blind_incident()
    assert feed(incidents, *marked, events.log(b"hog: page fault")) == []
    assert list(incidents.flush(QUIET_NS)) == []
    assert pids(feed(incidents, *marked, KILLED)) == [1]


def test_long_report() -> None:
    """Log lines without a victim wait without a timeout."""
    incidents = Incidents()
    assert feed(incidents, events.log(b"hog invoked oom-killer")) == []
    assert incidents.deadline_ns() is None
    assert list(incidents.flush(1 << 62)) == []
    kills = feed(incidents, events.victim(), events.blind_incident(), events.log(b"x: Killed process"))
    assert [kill.log for kill in kills] == [(b"hog invoked oom-killer", b"x: Killed process")]


def test_open_without_victims() -> None:
    """Log lines that precede the victim keep the incident open."""
    incidents = Incidents()
    assert not incidents.is_open
    assert list(incidents.feed(events.log(b"x invoked oom-killer: "), 0)) == []
    assert incidents.is_open
    assert incidents.deadline_ns() is None
    list(incidents.end())
    assert not incidents.is_open
