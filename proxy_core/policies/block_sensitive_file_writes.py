"""Blocks tool calls that would write files which hold credentials, start programs, or configure the machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from proxy_core.detectors.commands import Finding
from proxy_core.detectors.file_writes import writes_sensitive_file
from proxy_core.policies.command_policy import CommandPolicy
from proxy_core.routing.reasons import Reason


class BlockSensitiveFileWritesPolicy(CommandPolicy):
    """Blocks writes to keys, credentials, shell start-up files, /etc, scheduled tasks and pipelines; no model is asked."""

    reason: ClassVar[Reason] = Reason.SENSITIVE_FILE_WRITE

    def findings(self, name: str, arguments: str) -> Iterable[Finding]:
        return writes_sensitive_file(name, arguments)
