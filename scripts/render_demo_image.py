"""Draws ``docs/images/demo.svg`` from what ``tinydancer demo`` finds: the tables as the terminal shows them.

In: nothing; the demonstration is run. Out: the picture, or with ``--check`` an exit code that says whether the one in
the repository still shows these figures. The timing is left out, so that the same code gives the same picture.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich.console import Console

from tinydancer import TinyDancer
from tinydancer.cli.demo import parts_table, run_demo, totals_table

IMAGE = Path(__file__).resolve().parent.parent / "docs" / "images" / "demo.svg"
COLUMNS = 92
FRAME = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""
"""Rich's own frame fetches a font from the network; this one takes the reader's."""


def render() -> str:
    """The picture as SVG."""
    with TinyDancer() as dancer:
        report = run_demo(dancer)
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        console = Console(
            record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor", highlight=False
        )
        console.print(totals_table(report))
        console.print()
        console.print(parts_table(report))
        svg = console.export_svg(title="tinydancer demo", code_format=FRAME, unique_id="demo")
    # The title is drawn in a font of its own.
    return re.sub(r"\n\s*\n", "\n", svg.replace("font-family: arial", "font-family: system-ui"))


def figures(svg: str) -> str:
    """What the picture says, without how it is drawn."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", svg, flags=re.DOTALL).split())


def main() -> int:
    """Write the picture, or compare it."""
    svg = render()
    if "--check" in sys.argv[1:]:
        if IMAGE.exists() and figures(IMAGE.read_text(encoding="utf-8")) == figures(svg):
            return 0
        print(f"{IMAGE.name} does not show what the demonstration finds; run scripts/render_demo_image.py.")
        return 1
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    IMAGE.write_text(svg, encoding="utf-8")
    print(f"wrote {IMAGE.name}, {IMAGE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
