"""Luthien Control's policies, in both of its JSON forms.

`{"type": T, "config": {…}}` and the flat `{"type": T, "name": …, …}` mean the same, at any depth. A series at the top
becomes the chain itself, and a send at the end of every branch is moved behind the branches, so that answers stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from proxy_core.policies.base import PolicyParams
from proxy_core.policies.conditions import Condition
from proxy_core.policies.importing_source import Source, literal
from proxy_core.policies.registry import fault_lines, nearest

SEND = "send_backend_request"
TYPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "SerialPolicy": ("serial", ("policies",)),
    "CompoundPolicy": ("serial", ("policies",)),
    "BranchingPolicy": ("branching", ("cond_to_policy_map", "default_policy")),
    "ClientApiKeyAuth": ("client_api_key_auth", ()),
    "AddApiKeyHeader": ("add_api_key_header", ()),
    "AddApiKeyHeaderFromEnv": ("add_api_key_header_from_env", ("api_key_env_var_name",)),
    "SetBackendPolicy": ("set_backend", ("backend_url",)),
    "ModelNameReplacement": ("model_name_replacement", ("model_mapping",)),
    "LeakedApiKeyDetection": ("leaked_api_key_detection", ("patterns",)),
    "BackendCallPolicy": ("backend_call", ("backend_call_spec",)),
    "SendBackendRequest": (SEND, ()),
    "NoopPolicy": ("noop", ()),
}
"""Their type names: our policy, and the parameters theirs takes besides its name."""

CALL_DEFAULTS: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "api_endpoint": "https://api.openai.com/v1",
    "api_key_env_var": "OPENAI_API_KEY",
    "request_args": {},
}
"""What a BackendCallPolicy does where its spec says nothing."""


class _Holder(PolicyParams):
    condition: Condition


def translate(value: dict[str, Any], source: Source, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that mean the same."""
    policy = _Reader(source).policy(value, "$")
    entries = _chain([policy] if policy else [], source)
    source.note("its clients called /api/…; point them at this gateway's /v1 (`luthien env` prints the lines)")
    return {**source.upstreams(), "policies": named_apart(entries)}


class _Reader:
    """Reads policies into `{use, name, params}`."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def policy(self, value: Any, place: str) -> dict[str, Any]:
        """One policy; empty where it is refused."""
        source = self.source
        if not isinstance(value, dict):
            source.refuse(place, 'has to be a policy: an object with "type"')
            return {}
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in TYPES:
            near = nearest(kind, TYPES) if isinstance(kind, str) else None
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(TYPES)}"
            source.refuse(f"{place}.type", f"no policy type is called {kind!r}; {hint}")
            return {}
        use, known = TYPES[kind]
        outside = {key: inner for key, inner in value.items() if key not in ("type", "config")}
        params = dict(source.section(outside, place, ("name", *known)))
        if "config" in value:
            config = source.section(value["config"], f"{place}.config", ("name", *known))
            for key in params.keys() & config.keys() - {"name"}:
                source.refuse(f"{place}.{key}", "stands in config too; keep one")
            params |= config
        name = params.pop("name", None)
        found: dict[str, Any] = {"use": use}
        if isinstance(name, str) and name and name not in (kind, use):
            found["name"] = literal(name.replace("/", "-"))
        inside = f"{place}.config" if "config" in value else place
        made = self.params(use, params, inside)
        if made:
            found["params"] = made
        return found

    def params(self, use: str, params: dict[str, Any], place: str) -> dict[str, Any]:
        """The parameters of our policy."""
        source = self.source
        match use:
            case "serial":
                if "policies" not in params:
                    source.refuse(f"{place}.policies", "missing; it has to be a list of policies")
                inner = source.items(params.get("policies"), f"{place}.policies")
                return {"policies": [self.policy(one, f"{place}.policies[{at}]") for at, one in enumerate(inner)]}
            case "branching":
                return self.branches(params, place)
            case "set_backend":
                url = params.get("backend_url")
                if url is None:
                    source.refuse(
                        f"{place}.backend_url", "missing; there it took BACKEND_URL of its environment, so write the URL"
                    )
                    return {}
                name = source.text(url, f"{place}.backend_url")
                upstream = source.upstream(name, "openai", f"{place}.backend_url") if name else "openai"
                if upstream != "openai":
                    source.note(
                        f"the client's own key goes to no other upstream than the client asked for; where no policy adds one, "
                        f"write it into upstreams.{upstream}.api_key"
                    )
                return {"upstream": upstream}
            case "leaked_api_key_detection":
                patterns = source.items(params.get("patterns"), f"{place}.patterns")
                return {"patterns": literal(patterns)} if patterns else {}
            case "client_api_key_auth":
                source.note("its client keys were in its database; write them into the section `keys`")
                return {}
            case "backend_call":
                return self.backend_call(params.get("backend_call_spec"), f"{place}.backend_call_spec")
        made: dict[str, Any] = literal({key: value for key, value in params.items() if value is not None})
        return made

    def backend_call(self, value: Any, place: str) -> dict[str, Any]:
        spec = self.source.section(value, place, (*CALL_DEFAULTS, "type"))
        made = {key: spec[key] if spec.get(key) is not None else usual for key, usual in CALL_DEFAULTS.items()}
        url = self.source.text(made["api_endpoint"], f"{place}.api_endpoint")
        variable = self.source.text(made["api_key_env_var"], f"{place}.api_key_env_var")
        if variable and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) is None:
            self.source.refuse(f"{place}.api_key_env_var", "has to be the name of an environment variable")
        elif url:
            here = f"{place}.api_endpoint"
            made["api_endpoint"] = self.source.upstream(url, "openai", here, api_key=f"${{{variable}}}")
        return {"backend_call_spec": {key: one if key == "api_endpoint" else literal(one) for key, one in made.items()}}

    def branches(self, params: dict[str, Any], place: str) -> dict[str, Any]:
        source = self.source
        mapping = params.get("cond_to_policy_map")
        here = f"{place}.cond_to_policy_map"
        if not isinstance(mapping, dict):
            source.refuse(here, "missing; it has to be an object of conditions and policies")
            mapping = {}
        branches = []
        for at, (text, policy) in enumerate(mapping.items()):
            condition = self.condition(text, f"{here}[{at}]")
            branches.append({"if": condition, "then": self.policy(policy, f"{here}[{at}]")})
        made: dict[str, Any] = {"branches": branches}
        if params.get("default_policy") is not None:
            made["default"] = self.policy(params["default_policy"], f"{place}.default_policy")
        return made

    def condition(self, text: str, place: str) -> dict[str, Any]:
        """A condition that is written as JSON text."""
        try:
            condition = _Holder.model_validate({"condition": json.loads(text)}).condition
        except ValidationError as fault:
            for line in fault_lines(_Holder, fault, place):
                self.source.faults.append(line.replace(f"{place}.condition", f"{place} (key)", 1))
            return {}
        except (ValueError, RecursionError):
            self.source.refuse(place, f"the key {text[:60]!r} is no condition as JSON text")
            return {}
        made: dict[str, Any] = literal(short(condition.model_dump(mode="json")))
        return made


def short(condition: Any) -> Any:
    """A condition as a person would write it: operands in their short forms."""
    if isinstance(condition, list):
        return [short(one) for one in condition]
    if not isinstance(condition, dict):
        return condition
    if condition.get("type") == "static":
        value = condition["value"]
        return {"value": value} if isinstance(value, list | dict) else value
    if condition.get("type") == "transaction_path":
        plain = condition["transform"] == "none"
        return {"path": condition["path"]} if plain else {"path": condition["path"], "transform": condition["transform"]}
    order = ("type", *(key for key in condition if key != "type"))
    return {key: short(condition[key]) for key in order}


# -- sends ------------------------------------------------------------------------------------------------------------


def _chain(policies: list[dict[str, Any]], source: Source) -> list[dict[str, Any]]:
    """Policies in a row, as entries of a chain."""
    found: list[dict[str, Any]] = []
    for one in policies:
        if one.get("use") == "serial":
            found += _chain(one["params"]["policies"], source)
        elif one.get("use") == "branching" and _sends(one):
            found += _branches_that_send(one, source)
        elif one:
            found.append(one)
    return found


def _sends(policy: dict[str, Any]) -> bool:
    params = policy.get("params", {})
    inside = [*params.get("policies", ()), *(branch["then"] for branch in params.get("branches", ()))]
    if "default" in params:
        inside.append(params["default"])
    return policy.get("use") in (SEND, "backend_call") or any(_sends(one) for one in inside)


def _branches_that_send(one: dict[str, Any], source: Source) -> list[dict[str, Any]]:
    params = one["params"]
    ways = [branch["then"] for branch in params["branches"]]
    if "default" not in params:
        message = "where no condition of the BranchingPolicy held nothing was sent, and here it would be; add a default_policy"
        source.refuse("$", message)
        return []
    ways.append(params["default"])
    if not all(map(_sends, ways)):
        source.refuse("$", "one branch of the BranchingPolicy sends and another does not; put SendBackendRequest behind it")
        return []
    rows = [_chain([way], source) for way in ways]
    if not all(row and row[-1] == {"use": SEND} and not any(map(_sends, row[:-1])) for row in rows):
        source.note("a branch gets its answer itself, so streams are held back whole")
        return [one]
    made: dict[str, Any] = {"branches": []}
    for branch, row in zip(params["branches"], rows, strict=False):
        made["branches"].append({"if": branch["if"], "then": _as_one(row[:-1])})
    if len(rows[-1]) > 1:
        made["default"] = _as_one(rows[-1][:-1])
    return [{**one, "params": made}, {"use": SEND}]


def _as_one(policies: list[dict[str, Any]]) -> dict[str, Any]:
    if not policies:
        return {"use": "noop"}
    return policies[0] if len(policies) == 1 else {"use": "serial", "params": {"policies": policies}}


def named_apart(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries, each with a name of its own: names stand for policies in records and live changes."""
    taken: set[str] = set()
    found = []
    for entry in entries:
        wanted = entry.get("name") or entry["use"]
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}-{count}"
        taken.add(name)
        named = {"name": name} if name != entry["use"] else {}
        found.append({"use": entry["use"], **named, **{key: entry[key] for key in entry if key not in ("use", "name")}})
    return found
