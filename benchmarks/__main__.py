"""`python -m benchmarks`: the gateway, nginx and the bare upstream side by side in one run.

Prints figures, ratios and targets, and writes them as JSON. Exit status 0 when every target that was measured holds, 1 when
one does not, 2 when nothing could be measured. What a measurement lacks is named with the line that installs it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report
from benchmarks.ground import Ground
from benchmarks.machine import TOOLS, describe
from benchmarks.processes import BenchmarkError
from benchmarks.suites import QUICK, SUITES, Plan
from benchmarks.targets import Results, judge

RESULTS = Path(__file__).parent / "results"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the gateway beside nginx and the bare upstream, one CPU for each proxy. Loopback only.",
        epilog="example: python -m benchmarks --only json,stream --duration 4",
    )
    parser.add_argument("--only", metavar="A,B", default=",".join(SUITES), help=f"of {', '.join(SUITES)} [all]")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds of load on one proxy [6]")
    parser.add_argument("--rounds", type=int, metavar="N", help="repeat the loads and take medians [1]")
    parser.add_argument("--rows", type=int, metavar="N", help="transactions before memory and stalls are read [50000]")
    parser.add_argument("--shape", choices=("openai", "anthropic"), default="openai", help="dialect of the traffic [openai]")
    parser.add_argument("--quick", action="store_true", help="a rough look: short loads, 5,000 rows")
    parser.add_argument("--json", action="store_true", help="print the JSON document instead of tables")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the JSON goes [a new file in benchmarks/results]")
    given = parser.parse_args()
    given.suites = [name for name in given.only.split(",") if name]
    if unknown := [name for name in given.suites if name not in SUITES]:
        parser.error(f"--only knows {', '.join(SUITES)}; not {', '.join(unknown)}")
    return given


def plan_of(given: argparse.Namespace) -> Plan:
    plan = QUICK if given.quick else Plan()
    changes = {"duration_s": given.duration, "rounds": given.rounds, "rows": given.rows}
    changes = {name: value for name, value in changes.items() if value is not None}
    return replace(plan, say=lambda text: print(text, file=sys.stderr, flush=True), **changes)


def main() -> int:
    given = parse()
    plan = plan_of(given)
    missing = [f"{tool.name} is missing: {tool.purpose}. To install: {tool.install}" for tool in TOOLS if not tool.path]
    machine = describe()
    results: Results = {}
    with Ground(shape=given.shape) as ground:
        ground.notes[:0] = missing
        for note in ground.notes:
            plan.say(f"note: {note}")
        for name in given.suites:
            plan.say(name)
            told = len(ground.notes)
            try:
                results[name] = SUITES[name](ground, plan)
            except (BenchmarkError, OSError) as error:
                ground.notes.append(f"{name}: {error}")
            for note in ground.notes[told:]:
                plan.say(f"note: {note}")
        notes = ground.notes
    judgements = judge(results)
    finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    options: dict[str, object] = {
        "suites": given.suites,
        "shape": given.shape,
        "duration_s": plan.duration_s,
        "rounds": plan.rounds,
        "rows": plan.rows,
    }
    content = report.document(machine, options, results, judgements, notes, finished_at)
    output = given.output or RESULTS / f"{finished_at.replace(':', '').replace('+0000', 'Z')}.json"
    report.write(output, content)
    if given.json:
        print(json.dumps(content, indent=2))
    else:
        for name, found in results.items():
            if found:
                print(report.suite_table(name, found), end="\n\n")
        print(report.target_table(judgements))
        for note in notes:
            print("note:", note)
        print("written:", output)
    if not any(results.values()):
        return 2
    return 1 if any(judgement.met is False for judgement in judgements) else 0


if __name__ == "__main__":
    sys.exit(main())
