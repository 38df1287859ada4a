"""Blocks tool calls that would run a command which destroys data, stops what runs, or opens the machine to others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from proxy_core.detectors.commands import UNREADABLE, Finding, findings, read_command
from proxy_core.policies.command_policy import CommandPolicy
from proxy_core.routing.reasons import Reason


class BlockDangerousCommandsPolicy(CommandPolicy):
    """Blocks commands that destroy data, stop services or open the machine to others; no model is asked."""

    reason: ClassVar[Reason] = Reason.DANGEROUS_COMMAND

    def findings(self, name: str, arguments: str) -> Iterator[Finding]:
        read = read_command(name, arguments)
        if read.problem is not None:
            yield Finding("unreadable", UNREADABLE, (0, len(arguments)), read.problem)
        for command in read.commands:
            yield from findings(command)
