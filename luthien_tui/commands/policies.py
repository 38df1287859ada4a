"""`luthien policies`: what policies there are, trying one, writing one, and taking over other programs' files."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from proxy_core.errors import ConfigurationError, ExitCode
from proxy_core.logs import escaped
from proxy_core.policies.described import ParamDescription, PolicyDescription, as_json
from proxy_core.policies.registry import nearest, registered, registry_name
from proxy_core.settings import Settings

NAME_WIDTH = 30


def print_policies(settings: Settings, *, as_json_text: bool) -> int:
    """Every policy that can be used here. Exits 1 if one of them cannot be loaded."""
    found = registered(settings)
    if as_json_text:
        print(json.dumps({"policies": [as_json(one) for one in found]}, indent=2, ensure_ascii=False))
    else:
        for one in found:
            said = f"cannot be used: {one.problem}" if one.problem else one.summary
            print(f"{escaped(one.name):<{NAME_WIDTH}} {escaped(said)}")
            facts = [] if one.problem else _facts(one)
            if one.source != "built in":
                facts.insert(0, one.source)
            if facts:
                print(f"{'':<{NAME_WIDTH}} {escaped('; '.join(facts))}")
            for param in one.params:
                print(f"{'':<{NAME_WIDTH}}   {escaped(_param_line(param))}")
        print("\n`luthien policies show NAME` says more of one.")
    return ExitCode.CRASH if any(one.problem for one in found) else ExitCode.OK


def print_policy(settings: Settings, name: str, *, as_json_text: bool) -> int:
    """One policy with all that it takes. Raises ConfigurationError where there is none of that name."""
    found = registered(settings)
    wanted = registry_name(name)
    one = next((one for one in found if one.name == wanted), None)
    if one is None:
        near = nearest(wanted, [one.name for one in found])
        hint = f"did you mean {near!r}?" if near else "`luthien policies list` shows them all"
        raise ConfigurationError(f"no policy is called {name!r}; {hint}")
    if one.problem:
        raise ConfigurationError(f"{one.name} ({one.source}) cannot be used: {one.problem}")
    if as_json_text:
        print(json.dumps(as_json(one), indent=2, ensure_ascii=False))
        return ExitCode.OK
    print(escaped(f"{one.name}: {one.summary}"))
    rest = one.text.partition("\n\n")[2]
    if rest:
        print("\n" + "\n".join(map(escaped, rest.splitlines())))
    print(f"\n{one.source}; {'; '.join(_facts(one))}")
    if one.params:
        print("\nParameters")
    _print_params(one.params, "  ")
    print(f"\npolicies:\n  - use: {one.name}")
    needed = {param.name: f"<{param.kind}>" for param in one.params if param.required}
    if needed:
        print(f"    params: {json.dumps(needed, ensure_ascii=False)}")
    return ExitCode.OK


def _facts(one: PolicyDescription) -> list[str]:
    stages = {
        "class": f"acts on {' and '.join(one.stages)}",
        "place": "acts on requests before the send, on answers after it",
        "params": "acts where its parameters say",
    }[one.acts_by]
    release = {
        "pass": "streams pass as they come",
        "tail": "holds back the end of a stream",
        "block": "holds back one block of a stream",
        "full": "holds a stream back whole",
    }[one.release]
    asks_only = one.acts_by == "class" and "response" not in one.stages
    facts = [stages, "" if asks_only or one.sends else release, "sends" if one.sends else ""]
    facts.append("may wait for a person" if one.waits_for_people else f"deadline {one.deadline_s:g} s")
    facts.append(f"on error {one.on_error}")
    return [fact for fact in facts if fact]


def _print_params(params: tuple[ParamDescription, ...], indent: str) -> None:
    for param in params:
        print(f"{indent}{escaped(_param_line(param))}")
        if param.meaning:
            print(f"{indent}    {escaped(param.meaning)}")
        _print_params(param.fields, f"{indent}    ")


def _param_line(param: ParamDescription) -> str:
    default = "required" if param.required else f"default {json.dumps(param.default, ensure_ascii=False)}"
    if len(default) > 60:
        default = "has a default"
    return f"{param.name}: {param.kind}; {default}" + ("; tunable" if param.tunable else "")


# -- writing one ------------------------------------------------------------------------------------------------------


def write_policy(name: str, folder: Path) -> int:
    """Write a policy and its test into `folder`. Raises ConfigurationError where the name or a file stands in the way."""
    from proxy_core.policies.template import policy_files

    made = policy_files(name)
    for file in made:
        if (folder / file).exists():
            raise ConfigurationError(f"{folder / file} is there already; choose another name, or another --dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in made.items():
            (folder / file).write_text(text, "utf-8")
    except OSError as fault:
        raise ConfigurationError(f"cannot write to {folder}: {fault.strerror or fault}; choose another --dir") from fault
    policy, test = made
    registered_as = policy.removesuffix(".py")
    print(f"{folder / policy}\n{folder / test}")
    print(f"\nTry it:   pytest {folder / test}")
    print(f"Use it:   policy_paths: [{folder}]\n          policies: [{{use: {registered_as}}}]      in your configuration file")
    return ExitCode.OK


# -- trying one -------------------------------------------------------------------------------------------------------


def try_policy(
    settings: Settings,
    name: str,
    file: Path,
    *,
    params: str,
    operation: str,
    stream: bool,
    as_json_text: bool,
) -> int:
    """Run a policy on what a file holds, and print what became of it. Nothing is sent anywhere."""
    from proxy_core.policies.registry import build_policy
    from proxy_core.policies.trial import read_sample, run_trial

    try:
        given: Any = json.loads(params) if params else {}
    except ValueError as fault:
        raise ConfigurationError(f"--params is not JSON: {fault}") from None
    if not isinstance(given, dict):
        raise ConfigurationError("--params has to be a JSON object like '{\"threshold\": 0.5}'")
    policy = build_policy(name, given, settings)
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as fault:
        raise ConfigurationError(f"cannot read {file}: {fault.strerror or fault}") from fault
    sample = read_sample(content, operation=operation, stream=stream)
    trial = asyncio.run(run_trial(policy, sample))
    if as_json_text:
        print(json.dumps(trial.as_json(), indent=2, ensure_ascii=False))
        return ExitCode.OK
    for phase in trial.phases:
        print(f"{phase.stage} ({sample.operation.value}{', stream' if phase.stream else ''})")
        if phase.after == phase.before:
            print("  unchanged" + (f", {len(phase.before)} bytes" if phase.before else ""))
        else:
            _print_body("before", phase.before)
            _print_body("after", phase.after)
        for verdict in phase.verdicts:
            score = "" if verdict.score is None else f" score {verdict.score:.3f}"
            message = f": {verdict.message}" if verdict.message else ""
            detail = f" {json.dumps(verdict.detail, ensure_ascii=False, default=str)}" if verdict.detail else ""
            said = f"{verdict.policy}: {verdict.action} {verdict.reason.value} ({verdict.ran}){score}{message}{detail}"
            print(f"  {escaped(said)}")
        if phase.denied:
            print(f"  denied: {escaped(phase.denied)}")
    return ExitCode.OK


def _print_body(title: str, body: bytes) -> None:
    print(f"  {title}:")
    for line in body.decode("utf-8", "backslashreplace").splitlines():
        print(f"    {escaped(line)}")


# -- other programs' files --------------------------------------------------------------------------------------------


def import_policies(file: Path, out: Path | None) -> int:
    """Translate another program's file; the configuration goes to `out` or stdout, notes to stderr."""
    import os

    from proxy_core.policies.importing import import_file

    imported = import_file(file, os.environ)
    if out is None:
        print(imported.text, end="")
    else:
        try:
            with out.open("x", encoding="utf-8") as stream:
                stream.write(imported.text)
        except FileExistsError:
            raise ConfigurationError(f"{out} is there already; remove it or choose another --out") from None
        except OSError as fault:
            raise ConfigurationError(f"cannot write {out}: {fault.strerror or fault}") from fault
    print(f"read as a file of {imported.program}" + (f"; {out} is valid" if out else ""), file=sys.stderr)
    for note in imported.notes:
        print(f"note: {escaped(note)}", file=sys.stderr)
    return ExitCode.OK
