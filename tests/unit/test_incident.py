# SPDX-License-Identifier: Apache-2.0
"""incident.py: which victims, sharers, figures and words of the log belong together."""

from collections.abc import Iterable

from tracer import wire
from tracer.incident import QUIET_NS, Incidents, Kill

from . import events

GROUP = events.victim().flags | wire.VICTIM_GROUP
NEXT_NS = events.INCIDENT_NS + 1_000_000


def feed(incidents: Incidents, *several: wire.Event, now_ns: int = 0) -> list[Kill]:
    """The kills that come out while these go in."""
    return [kill for event in several for kill in incidents.feed(event, now_ns)]


def pids(kills: Iterable[Kill]) -> list[int]:
    return [kill.victim.pid for kill in kills]


def later(event: wire.VictimEvent) -> wire.VictimEvent:
    """The same in the next incident."""
    return event._replace(header=event.header._replace(incident_ns=NEXT_NS, time_ns=NEXT_NS + 1))


def test_single() -> None:
    """A victim comes out when its incident ends, with all of it."""
    incidents = Incidents()
    victim, incident = events.victim(), events.incident()
    assert feed(incidents, victim) == []
    assert incidents.pending()
    assert [Kill(victim, incident, 1, (), (), ())] == feed(incidents, incident)
    assert not incidents.pending()


def test_group() -> None:
    """All victims of a group kill come out at once, in order, and each knows how many they are."""
    victims = [events.victim(pid=pid, flags=GROUP) for pid in (3, 1, 2)]
    incident = events.incident(victims=3)
    assert [Kill(victim, incident, 3, (), (), ()) for victim in victims] == feed(Incidents(), *victims, incident)


def test_sharers() -> None:
    """A sharer of the memory is with its own victim, once, however many of its threads were seen."""
    several: list[wire.Event] = [
        events.victim(pid=1, flags=GROUP),
        events.sharer(11, victim_pid=1),
        events.sharer(11, victim_pid=1),
        events.sharer(12, victim_pid=1),
        events.victim(pid=2, flags=GROUP),
        events.sharer(21, victim_pid=2),
        events.incident(victims=2),
    ]
    kills = feed(Incidents(), *several)
    assert [[sharer.pid for sharer in kill.sharers] for kill in kills] == [[11, 12], [21]]


def test_the_next_incident_ends_one_without_end() -> None:
    """A lost end keeps no victim back: how many there were is unknown then."""
    incidents = Incidents()
    first, second = events.victim(pid=1), later(events.victim(pid=2))
    assert [Kill(first, None, None, (), (), ())] == feed(incidents, first, second)
    assert incidents.pending()


def test_silence_ends_one_without_end() -> None:
    """After a while without events victims come out, and not before."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1), now_ns=100)
    feed(incidents, events.victim(pid=2), now_ns=200)
    assert list(incidents.flush(200 + QUIET_NS - 1)) == []
    assert pids(incidents.flush(200 + QUIET_NS)) == [1, 2]
    assert not incidents.pending()
    assert list(incidents.flush(1 << 62)) == []


def test_the_end_lets_out_what_is_left() -> None:
    """When the tracer stops nothing stays behind."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1))
    assert pids(incidents.end()) == [1]
    assert list(incidents.end()) == []


def test_victim_without_incident() -> None:
    """A victim whose incident's beginning was not seen comes out at once, alone, and ends no other's incident."""
    incidents = Incidents()
    orphan = events.victim(pid=9, header=events.header(wire.VICTIM, incident_ns=events.KILL_NS))
    member = events.victim(pid=1)
    assert [Kill(orphan, None, None, (), (), ())] == feed(incidents, member, orphan)
    assert pids(feed(incidents, events.incident())) == [1]


def test_incident_without_victims() -> None:
    """An incident in which nobody was killed says nothing."""
    assert feed(Incidents(), events.incident(victims=0)) == []


def test_sharer_that_comes_too_late() -> None:
    """A sharer opens no incident: its victim's record is written."""
    incidents = Incidents()
    feed(incidents, events.victim(), events.incident())
    assert feed(incidents, events.sharer(3)) == []
    assert not incidents.pending()


def test_tracepoints_single() -> None:
    """Without kprobes a lone victim waits for nobody, and has the figures and the log of its incident."""
    levels = (events.counters(limit_pages=5), events.counters())
    victim, incident = events.victim(), events.blind_incident()
    several: list[wire.Event] = [
        events.log(b"hog invoked oom-killer"),
        events.levels(*levels),
        victim,
        events.log(b"Killed process"),
        incident,
    ]
    log = (b"hog invoked oom-killer", b"Killed process")
    assert [Kill(victim, incident, 1, (), levels, log)] == feed(Incidents(), *several)


def test_tracepoints_hold_a_group() -> None:
    """Without kprobes every member of a group looks like the last one: they are held until nothing follows."""
    incidents = Incidents()
    for pid in (1, 2, 3):
        member, end = events.victim(pid=pid, flags=GROUP), events.blind_incident(victims=pid)
        assert feed(incidents, member, end, now_ns=pid) == []
    kills = list(incidents.flush(3 + QUIET_NS))
    assert [(kill.victim.pid, kill.victims) for kill in kills] == [(1, 3), (2, 3), (3, 3)]


def test_tracepoints_hold_for_sharers() -> None:
    """Without kprobes a victim whose memory has more users than it has threads is held for the others."""
    incidents = Incidents()
    assert feed(incidents, events.victim(mm_users=3, threads=2), events.blind_incident(), events.sharer(5)) == []
    (kill,) = incidents.flush(QUIET_NS)
    assert [sharer.pid for sharer in kill.sharers] == [5]


def test_tracepoints_threads_are_no_sharers() -> None:
    """The users of a threaded victim's memory are its own threads."""
    assert len(feed(Incidents(), events.victim(mm_users=8, threads=8), events.blind_incident())) == 1


def test_tracepoints_next_incident_ends_a_group() -> None:
    """What is held comes out before anything of the next incident."""
    incidents = Incidents()
    feed(incidents, events.victim(pid=1, flags=GROUP), events.blind_incident())
    assert pids(feed(incidents, later(events.victim(pid=2)))) == [1]
