"""Write the pictures of the documentation to `screenshots/`: SVG, and some as PNG where resvg and DejaVu fonts are at hand.

They come from the same fixed traffic as the tests of the screen, so they are the same on every machine.
Run as `python -m scripts.screenshots`, or with the names of some pictures to take only those.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "screenshots"
AS_PNG = ("live-paused", "detail", "holds", "sessions", "session", "policies")
"""Pictures that are also wanted where no SVG is shown."""
FONTS = Path("/usr/share/fonts/truetype/dejavu")


async def main(*wanted: str) -> int:
    """Draw every state, or those that are wanted, and write it."""
    sys.path.insert(0, str(ROOT))
    os.environ["TZ"] = "UTC"
    time.tzset()
    from tests.luthien_tui.fake_plane import FakePlane, held_plane, make_row, routed_plane, sample_plane
    from tests.luthien_tui.fake_sessions import sessions_plane
    from tests.luthien_tui.screen.console import NORMAL, SMALL, WIDE, Console, console

    async def stay(shown: Console) -> None:
        await shown.frame()

    async def paused(shown: Console) -> None:
        await shown.press("k", "k", "k")
        for number in range(40, 77):
            shown.plane.add(make_row(number))
        await shown.frame()

    def step(*keys: str) -> Callable[[Console], Awaitable[None]]:
        async def press(shown: Console) -> None:
            await shown.press(*keys)

        return press

    def opened(tab: str) -> Callable[[Console], Awaitable[None]]:
        async def open_tab(shown: Console) -> None:
            await shown.open("01J9ZK000002", tab)

        return open_tab

    async def holds(shown: Console) -> None:
        await shown.press("2")
        await settled(shown)

    async def hold_at_80(shown: Console) -> None:
        await shown.press("2", "enter")
        await settled(shown)

    async def policies(shown: Console) -> None:
        await shown.press("4", "j", "j", "right", "right")
        shown.app.clear_notifications()
        await shown.frame()

    async def routing(shown: Console) -> None:
        await shown.press("5", "right", "right")
        await shown.see("would move")

    async def sessions(shown: Console) -> None:
        await shown.press("3")
        await shown.see("7 sessions")

    async def session(shown: Console) -> None:
        await sessions(shown)
        await shown.press("enter")
        await shown.see("40 GB again")
        await shown.press("g", "right", "right", "right")

    async def settled(shown: Console) -> None:
        shown.plane.clock.now += 1
        await shown.frame()

    async def filtered(shown: Console) -> None:
        await shown.press("f")
        await shown.type("model:gpt* latenzy>800")

    def busy() -> FakePlane:
        plane = sample_plane()
        for number in range(11, 36):
            plane.add(make_row(number, session_id=f"batch-{number % 4}", model=("gpt-5.4-mini", "claude-haiku-4-5")[number % 2]))
        return plane

    pictures: list[tuple[str, FakePlane, tuple[int, int], Callable[[Console], Awaitable[None]]]] = [
        ("live", sample_plane(), NORMAL, stay),
        ("live-80x24", sample_plane(), SMALL, stay),
        ("live-paused", busy(), NORMAL, paused),
        ("detail", sample_plane(), NORMAL, opened("Summary")),
        ("detail-80x24", sample_plane(), SMALL, opened("Summary")),
        ("detail-wide", sample_plane(), WIDE, opened("Request")),
        ("timing", sample_plane(), NORMAL, opened("Timing")),
        ("holds", held_plane(), NORMAL, holds),
        ("holds-80x24", held_plane(), SMALL, hold_at_80),
        ("sessions", sessions_plane(), NORMAL, sessions),
        ("sessions-wide", sessions_plane(), WIDE, session),
        ("session", sessions_plane(), NORMAL, session),
        ("policies", held_plane(), NORMAL, policies),
        ("routing", routed_plane(), NORMAL, routing),
        ("decisions", sample_plane(), NORMAL, opened("Policies")),
        ("filter", sample_plane(), NORMAL, filtered),
        ("empty", FakePlane(), NORMAL, stay),
        ("help", sample_plane(), NORMAL, step("question_mark")),
        ("log", sample_plane(), NORMAL, step("8")),
    ]
    FOLDER.mkdir(exist_ok=True)
    for name, plane, size, act in pictures:
        if wanted and name not in wanted:
            continue
        async with console(plane, size) as shown:
            await act(shown)
            svg = shown.app.export_screenshot(title="luthien")
        svg = portable(svg)
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
        if name in AS_PNG and (png := rendered(svg)) is not None:
            (FOLDER / f"{name}.png").write_bytes(png)
        sys.stdout.write(f"screenshots/{name}\n")
    return 0


def portable(svg: str) -> str:
    """Without fonts from the network, and with the same ids on every run."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "'DejaVu Sans Mono', Menlo, Consolas, monospace")
    return re.sub(r"terminal-\d+-", "terminal-", svg)


def rendered(svg: str) -> bytes | None:
    """The picture as PNG, or None where the means are missing."""
    try:
        import resvg_py
    except ImportError:
        return None
    fonts = [str(FONTS / f"DejaVuSansMono{style}.ttf") for style in ("", "-Bold", "-Oblique")]
    if not all(Path(font).exists() for font in fonts):
        return None
    svg = re.sub(r"font-family: [^;]+;", "font-family: DejaVu Sans Mono;", svg)
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg,
            font_files=fonts,
            monospace_family="DejaVu Sans Mono",
            font_family="DejaVu Sans Mono",
            skip_system_fonts=True,
        )
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
