"""A control port for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.luthien_tui.fake_plane import FakePlane, make_hold, make_policy, make_row, sample_detail
from tests.proxy_core.api.control_port import ControlPort, control_port


@pytest.fixture
def plane() -> FakePlane:
    plane = FakePlane()
    plane.policy_infos = [make_policy("strip_secrets"), make_policy("tool_call_judge", position=2)]
    plane.hold_infos = [make_hold(1), make_hold(2), make_hold(3, status="denied")]
    plane.past = [make_row(number) for number in range(30, 0, -1)]
    for row in plane.past:
        row.transaction_id = f"01J9ZK{row.transaction_id[6:]:>020}"
        plane.details[row.transaction_id] = sample_detail(row)
    return plane


@pytest.fixture
async def control(plane: FakePlane) -> AsyncIterator[ControlPort]:
    async with control_port(plane) as port:
        yield port
