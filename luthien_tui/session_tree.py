"""Sessions in the order of a list: sub-agents under the session that started them, each level sorted.

What clients say of parents is taken with care: a parent that is not among the sessions, or a circle of parents, hides nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from luthien_tui.text import cell
from proxy_core.control.session_infos import SessionInfo

MAX_DEPTH = 6
"""Levels that are indented; what is deeper stands at the last of them."""


class Sort(NamedTuple):
    """One way to order sessions."""

    name: str
    title: str
    key: Callable[[SessionInfo], float | str]
    largest_first: bool = True


SORTS: tuple[Sort, ...] = (
    Sort("last", "last activity", lambda one: one.last_at),
    Sort("started", "beginning", lambda one: one.started_at),
    Sort("name", "name", lambda one: one.id.lower(), False),
    Sort("agent", "agent", lambda one: one.agent.lower(), False),
    Sort("turns", "turns", lambda one: one.turns),
    Sort("tokens", "tokens", lambda one: one.totals.tokens),
    Sort("cost", "cost", lambda one: -1.0 if one.totals.cost_usd is None else one.totals.cost_usd),
    Sort("tools", "tool calls", lambda one: one.totals.tool_calls),
    Sort("errors", "errors", lambda one: one.totals.errors),
    Sort("held", "holds", lambda one: one.totals.held),
    Sort("risk", "risk", lambda one: -1.0 if one.risk is None else one.risk),
)
BY_NAME = {sort.name: sort for sort in SORTS}


class SessionLine(NamedTuple):
    """A session in its place of the tree."""

    info: SessionInfo
    lead: str = ""
    """What stands before its name: `├ `, `│ └ `."""
    below: int = 0
    """Sub-sessions that are listed under it, or would be."""
    is_folded: bool = False


def session_lines(infos: Sequence[SessionInfo], sort: Sort, *, is_reversed: bool, folded: Collection[str]) -> list[SessionLine]:
    """Every session once, as the lines of a tree; of the `folded` ones without what is below. Sorted by activity, a session
    stands where the latest of all that is below it puts it."""
    known = {info.id: info for info in infos}
    parents = _parents(known)
    below: dict[str, list[SessionInfo]] = defaultdict(list)
    for name, parent in parents.items():
        if parent:
            below[parent].append(known[name])
    latest = {info.id: info.last_at for info in known.values()}
    counts = dict.fromkeys(known, 0)
    for child in reversed(_from_the_top(parents, below)):
        if parent := parents[child]:
            latest[parent] = max(latest[parent], latest[child])
            counts[parent] += counts[child] + 1

    def value(info: SessionInfo) -> float | str:
        return latest[info.id] if sort.name == "last" else sort.key(info)

    smallest_on_top = sort.largest_first != is_reversed  # of a stack: what is pushed last comes first

    def stacked(level: list[SessionInfo]) -> list[SessionInfo]:
        return sorted(level, key=value, reverse=not smallest_on_top)

    lines: list[SessionLine] = []
    waiting = [(info, "", "", 0) for info in stacked([known[name] for name, parent in parents.items() if not parent])]
    while waiting:
        info, lead, rest, depth = waiting.pop()
        children = stacked(below.get(info.id, []))
        is_folded = bool(children) and info.id in folded
        lines.append(SessionLine(info, lead, counts[info.id], is_folded))
        if is_folded:
            continue
        for place, sub in enumerate(children):
            if depth >= MAX_DEPTH:
                waiting.append((sub, lead, rest, depth))
                continue
            is_last = place == 0
            waiting.append((sub, f"{rest}{'└ ' if is_last else '├ '}", f"{rest}{'  ' if is_last else '│ '}", depth + 1))
    return lines


def relative_name(name: str, parent: str) -> str:
    """A session's name under its parent, without the part that they share: `/sub-1` of `ops-7f/sub-1`."""
    if parent and name.startswith(parent) and name[len(parent) : len(parent) + 1] in ("/", "-", ":", "."):
        return cell(name[len(parent) :])
    return cell(name)


def _parents(known: Mapping[str, SessionInfo]) -> dict[str, str]:
    """The parent of each session; empty where it is not known, or closes a circle."""
    parents: dict[str, str] = {}
    for start in known:
        path: dict[str, str] = {}
        name = start
        while name in known and name not in parents and name not in path:
            path[name] = known[name].parent
            name = path[name]
        for child, above in path.items():
            parents[child] = above if above in known else ""
        if name in path:
            parents[next(reversed(path))] = ""
    return parents


def _from_the_top(parents: Mapping[str, str], children: Mapping[str, list[SessionInfo]]) -> list[str]:
    """The names of all sessions, every parent before its children."""
    names = [name for name, parent in parents.items() if not parent]
    for name in names:
        names += [child.id for child in children.get(name, ())]
    return names
