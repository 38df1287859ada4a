"""What tests of the gateway share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT
from tests.gateway_fixtures import RunningGateway


@pytest.fixture
async def guarded(gateway: RunningGateway, upstream: FaultUpstream) -> AsyncIterator[RunningGateway]:
    """A gateway that must have let nothing through, and must serve the next client as if nothing had been."""
    yield gateway
    assert not upstream.exchanges
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes())).status == 200
