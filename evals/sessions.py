"""Sends the requests of known sessions through a real gateway and counts which sessions it recovers.

    python -m evals.sessions DIR [--json] [--limit N] [--seed S]

DIR holds sessions, session_variants, sessions_wire and agent_cli_traffic as `.jsonl.gz`. A session is exact where one found
session holds all of its requests and no other; F1 is that of all pairs of requests. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.loopback_http import Client, Upstream
from evals.session_requests import Asked, expanded, recorded_agents, recorded_wire
from proxy_core.runtime import GatewayRuntime
from proxy_core.settings import Settings

TIMEOUT_S = 20.0
TARGETS = {
    "sessions": (0.90, 0.97),
    "sessions_wire": (1.0, 0.0),
    "sessions_wire, stripped": (0.90, 0.0),
    "agent_cli_traffic": (1.0, 0.0),
    "agent_cli_traffic, stripped": (0.90, 0.0),
}
"""Least share of exact sessions and least F1 of a set; what a header or field names must be right in all of them."""


@dataclass
class Found:
    """One request and the session that the gateway gave it."""

    asked: Asked
    session: str
    link: str


@dataclass
class Score:
    """How well one set was recovered."""

    name: str
    requests: int
    sessions: int
    exact: int
    precision: float
    recall: float
    named: int
    """Requests whose session a header or a field tells."""
    named_right: int
    """Of those, the ones in sessions that are exact."""
    links: dict[str, int]
    misses: dict[str, int]
    """Sessions that are not exact, by where they come from and what went wrong first."""

    @property
    def share(self) -> float:
        return self.exact / self.sessions if self.sessions else 1.0

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    @property
    def met(self) -> bool:
        share, f1 = TARGETS.get(self.name, (0.0, 0.0))
        return self.share >= share and self.f1 >= f1 and self.named == self.named_right


async def sent(asked: list[Asked]) -> list[Found]:
    """Send all requests through a gateway of their own, one after another."""
    upstream = Upstream()
    await upstream.start()
    base_url = f"http://127.0.0.1:{upstream.port}"
    settings = Settings.model_validate(
        {
            "server": {"port": 0, "drain_s": 1.0},
            "upstreams": {api: {"api": api, "base_url": base_url} for api in ("openai", "anthropic", "ollama")},
        }
    )
    sent_ids: list[str] = []
    given_names: list[str] = []
    with tempfile.TemporaryDirectory(prefix="luthien-sessions-") as data_dir:
        gateway = GatewayRuntime(settings, data_dir=Path(data_dir))
        await gateway.start()
        host, _, port = gateway.address.rpartition(":")
        client = Client(host.strip("[]"), int(port))
        try:
            for one in asked:
                upstream.planned = one.answer
                async with asyncio.timeout(TIMEOUT_S):
                    response = await client.request("POST", one.path, one.headers, one.body)
                sent_ids.append(dict(response.headers)["x-luthien-transaction-id"])
                given_names.append(dict(response.headers).get("x-luthien-session-id", ""))
            rows = {row.transaction_id: row for row in await gateway.plane.history(len(sent_ids) + 1)}
        finally:
            await client.close()
            gateway.begin_shutdown()
            await gateway.wait_closed()
            await upstream.stop()
    found: list[Found] = []
    for one, transaction_id, name in zip(asked, sent_ids, given_names, strict=True):
        row = rows[transaction_id]
        session = row.parent_session if one.sub_agent and row.parent_session else name
        found.append(Found(one, session or f"none {len(found)}", row.link))
    return found


def score(name: str, found: list[Found]) -> Score:
    """Compare the sessions found with those known."""
    known: dict[str, list[int]] = defaultdict(list)
    told: dict[str, list[int]] = defaultdict(list)
    for at, one in enumerate(found):
        known[one.asked.session].append(at)
        told[one.session].append(at)
    whole = {tuple(places) for places in told.values()}
    exact = {session for session, places in known.items() if tuple(places) in whole}
    together = _pairs(Counter((one.asked.session, one.session) for one in found).values())
    pairs_told = _pairs(map(len, told.values()))
    pairs_known = _pairs(map(len, known.values()))
    misses: Counter[str] = Counter()
    for session, places in known.items():
        if session not in exact:
            misses[_miss([found[at] for at in places], told)] += 1
    named = [one for one in found if one.asked.named]
    return Score(
        name=name,
        requests=len(found),
        sessions=len(known),
        exact=len(exact),
        precision=together / pairs_told if pairs_told else 1.0,
        recall=together / pairs_known if pairs_known else 1.0,
        named=len(named),
        named_right=sum(one.asked.session in exact for one in named),
        links=dict(Counter(one.link for one in found).most_common()),
        misses=dict(misses.most_common()),
    )


def _miss(requests: list[Found], told: dict[str, list[int]]) -> str:
    """What went wrong first in a session."""
    first = requests[0]
    strayed = next((one for one in requests if one.session != first.session), None)
    if strayed is not None:
        return f"{first.asked.source}: split at '{strayed.asked.kind}' (told by {strayed.link})"
    others = len(told[first.session]) - len(requests)
    return f"{first.asked.source}: together with {'one request' if others == 1 else 'requests'} of another session"


def _pairs(sizes: Iterable[int]) -> int:
    return sum(size * (size - 1) // 2 for size in sizes)


async def run(folder: Path, limit: int | None, seed: int) -> list[Score]:
    """All sets, each through a new gateway."""
    sets = {
        "sessions": expanded(folder, limit, seed),
        "sessions_wire": recorded_wire(folder, limit, seed, stripped=False),
        "sessions_wire, stripped": recorded_wire(folder, limit, seed, stripped=True),
        "agent_cli_traffic": recorded_agents(folder, limit, seed, stripped=False),
        "agent_cli_traffic, stripped": recorded_agents(folder, limit, seed, stripped=True),
    }
    return [score(name, await sent(asked)) for name, asked in sets.items()]


def as_data(scores: list[Score]) -> list[dict[str, Any]]:
    """Everything as plain data."""
    extra = [{"share": one.share, "f1": one.f1, "met": one.met} for one in scores]
    return [{**vars(one), **more} for one, more in zip(scores, extra, strict=True)]


def show(scores: list[Score]) -> None:
    for one in scores:
        print(f"{one.name}: {one.requests} requests of {one.sessions} sessions{'' if one.met else '  TARGET MISSED'}")
        print(f"  exact {one.exact} ({one.share:.1%}), F1 {one.f1:.4f} (precision {one.precision:.4f}, recall {one.recall:.4f})")
        if one.named:
            print(f"  named by a header or field: {one.named} requests, {one.named_right} of them in exact sessions")
        print("  told by " + ", ".join(f"{link or 'nothing'} {count}" for link, count in one.links.items()))
        for miss, count in one.misses.items():
            print(f"  {count:4} {miss}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evals.sessions", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="folder with the recorded sessions")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--limit", type=int, help="only so many sessions of each set, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="the order of requests, and which sessions are drawn")
    arguments = parser.parse_args()
    scores = asyncio.run(run(arguments.folder, arguments.limit, arguments.seed))
    if arguments.json:
        json.dump(as_data(scores), sys.stdout, indent=2)
        print()
    else:
        show(scores)
    return 0 if all(one.met for one in scores) else 1


if __name__ == "__main__":
    sys.exit(main())
