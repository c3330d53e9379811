# SPDX-License-Identifier: Apache-2.0
"""A question -> its answer: search, verdict, words and advice."""

import sys
import time
from typing import NamedTuple, TypedDict

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.printable import printable
from tracer.identity.runtimes import Runtimes
from tracer.records.conclusions import uptime_s
from tracer.records.host import read_host
from tracer.why import grouping, search, sources
from tracer.why.advice import Advice, advise
from tracer.why.timestamps import format_moment, format_time
from tracer.why.verdict import Verdict, judge
from tracer.why.words import explain_verdict

_EVIDENCE_MAX = 5


class Question(NamedTuple):
    name: str
    exit_code: int | None
    records: list[str]
    logs: list[str]


class Evidence(TypedDict):
    source: str
    type: str
    id: str
    time: str | None
    uptime_s: float | None
    """Seconds since boot, of a kill in a log without dates."""


class Answer(TypedDict):
    sentences: list[str]
    advice: list[Advice]
    verdict: Verdict
    evidence: list[Evidence]
    """Kills of the target, oldest first."""
    others: list[grouping.Namesake]
    """Other owners with the same name."""
    unread: list[str]
    """Runtime directories that could not be read, each with the consequence."""


def answer_question(question: Question, runtimes: Runtimes) -> Answer:
    """Find out what ended the target.  Sources that cannot be read are reported on stderr.

    Raises TracerError if nothing is known of the name.
    """
    if not question.name:
        raise TracerError("NAME is empty", "give a container, pod, unit, pid or process name", EXIT_USAGE)
    target = search.find_target(question.name, runtimes)
    host = read_host()
    read = sources.read_sources(
        question.records,
        question.logs,
        runtimes.fetch_metadata,
        lambda kill: search.may_match(kill, target),
        host,
    )
    for problem in read.problems:
        print(f"oomtrace: {printable(problem)}", file=sys.stderr)
    kept, target = search.prefer_given_sources(read.found, target, host["boot_id"])
    is_given = any(each.is_given for each in kept)
    kind, found, target = search.select_kills(kept, target)
    if kind is None:
        raise _unknown(question, read)
    if question.logs and not is_given:
        files = ", ".join([*question.records, *question.logs])
        print(
            printable(f"oomtrace: no kill of {question.name!r} in {files}; the answer is about this machine"),
            file=sys.stderr,
        )
    verdict = judge(
        target,
        kind,
        found,
        read.coverages,
        sum(each.missing for each in read.searched if each.is_given or not is_given),
        question.exit_code,
        time.time(),
    )
    return {
        "sentences": [
            *explain_verdict(verdict),
            *map(printable, filter(None, [grouping.namesakes_sentence(target.others)])),
        ],
        "advice": advise(verdict),
        "verdict": verdict,
        "evidence": [
            {
                "source": each.source,
                "type": each.kill["type"],
                "id": each.kill["id"],
                "time": each.kill["time"],
                "uptime_s": None if each.kill["time"] is not None else uptime_s(each.kill),
            }
            for each in found
        ],
        "others": list(target.others),
        "unread": list(runtimes.unread.values()),
    }


def format_answer(result: Answer) -> list[str]:
    """Lines of text."""
    shown = [*result["sentences"]]
    for advice in result["advice"]:
        shown += ["", advice["text"], *(f"    $ {command}" for command in advice["commands"])]
    if result["evidence"]:
        shown += ["", "Evidence:"]
        left = len(result["evidence"]) - _EVIDENCE_MAX
        if left > 0:
            shown.append(f"    {left} earlier ones (--json shows all)")
        for each in result["evidence"][-_EVIDENCE_MAX:]:
            shown.append(
                f"    {format_moment(each['time'], each['uptime_s'])}  {each['type']} {each['id']}, {each['source']}"
            )
    return [printable(line) for line in shown]


def _unknown(question: Question, read: sources.Sources) -> TracerError:
    where = [
        f"{searched.source}{'' if searched.since is None else f' (since {format_time(searched.since)})'}"
        for searched in read.searched
    ]
    if not question.records and not any(searched.source != "kernel log" for searched in read.searched):
        where.append(f"{sources.RECORDS} (no records)")
    places = ", ".join([*where, "the runtimes' files", "what runs now"])
    return TracerError(
        printable(f"nothing is known of {question.name!r}"),
        printable(f"looked in {places}; give other places with --records, --log and --runtime-root"),
    )
