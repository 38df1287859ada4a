"""A change of the control settings that is done whole, whoever asked for it and left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from proxy_core.control.plane import ControlInvalid, ControlNotFound
from proxy_core.errors import LuthienError
from proxy_core.tasks import spawn

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` whole, even if whoever asked for it is gone: what was recorded must come into force."""

    async def done() -> T | LuthienError | ControlInvalid | ControlNotFound:
        try:
            return await work
        except (LuthienError, ControlInvalid, ControlNotFound) as refusal:
            return refusal

    result = await asyncio.shield(spawn(done(), name="change the control settings"))
    if isinstance(result, LuthienError | ControlInvalid | ControlNotFound):
        raise result
    return result
