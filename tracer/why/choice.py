# SPDX-License-Identifier: Apache-2.0
"""Why the kernel selected the victim, as far as the candidates show."""

from typing import Literal, TypedDict

from tracer.records.conclusions import LOG_CANDIDATES, chosen_candidate, is_allocating_task
from tracer.records.model import Candidate, OomKill

ChosenBy = Literal["allocating_task", "group", "group_first", "only", "oom_score_adj", "score", "size"]
"""``group``: killed together with the selected process; ``group_first``: the selected process of a group kill;
``score``: highest score of all that were scored; ``size``: largest of all that a log lists."""


class VictimChoice(TypedDict):
    by: ChosenBy
    other: Candidate | None
    """The selected process (``group``), or the largest one that was spared (``oom_score_adj``)."""
    of: int | None
    """Number of candidates; null: unknown."""


def victim_choice(kill: OomKill) -> VictimChoice | None:
    """None: unknown."""
    victim, first, is_group = kill["victim"], chosen_candidate(kill), kill["incident"]["group_kill"] is True
    is_first = first is not None and first["pid"] == victim["pid"]
    if is_allocating_task(kill):
        return {"by": "allocating_task", "other": None, "of": None}
    if is_group and not is_first:
        return {"by": "group", "other": first, "of": None}
    if is_group and (kill["incident"]["victims"] or 0) > 1:
        return {"by": "group_first", "other": None, "of": None}
    candidates = kill["candidates"]
    if candidates is None or not is_first:
        return None  # Linux before 5.1 may kill a child of the selected process (bbbe48029720)
    of = _count(kill)
    if of == 1:
        return {"by": "only", "other": None, "of": 1}
    larger = _largest_other(kill, candidates)
    adjusted = victim["oom_score_adj"]
    spared = None if larger is None else larger["oom_score_adj"]
    if adjusted is not None and spared is not None and adjusted > spared:
        return {"by": "oom_score_adj", "other": larger, "of": of}
    if victim["points"] is not None:
        return {"by": "score", "other": None, "of": of}
    return {"by": "size", "other": None, "of": of} if larger is None and victim["rss_bytes"] is not None else None


def _largest_other(kill: OomKill, candidates: list[Candidate]) -> Candidate | None:
    """The largest other candidate with at least the victim's resident memory."""
    own = kill["victim"]["rss_bytes"]
    others = [each for each in candidates[1:] if own is not None and (each["rss_bytes"] or 0) >= own]
    return max(others, key=lambda each: each["rss_bytes"] or 0, default=None)


def _count(kill: OomKill) -> int | None:
    scored, listed = kill["candidates_scored"], len(kill["candidates"] or ())
    if scored is not None:
        return scored
    return listed if kill["source"] == "kernel_log" and listed < LOG_CANDIDATES else None
