"""Blocks tool calls that would send a request to the network: tools that fetch, programs such as curl, and code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from proxy_core.detectors.commands import Finding
from proxy_core.detectors.web_requests import web_request
from proxy_core.policies.command_policy import CommandPolicy
from proxy_core.routing.reasons import Reason


class BlockWebRequestsPolicy(CommandPolicy):
    """Blocks requests to the network, those to this machine left out; no model is asked."""

    reason: ClassVar[Reason] = Reason.WEB_REQUEST

    def findings(self, name: str, arguments: str) -> Iterable[Finding]:
        return web_request(name, arguments)
