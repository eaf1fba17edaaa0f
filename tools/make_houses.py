"""Write examples/data/houses.csv: 600 houses that don't exist, with what one would ask of them and a price.

python tools/make_houses.py [FILE]

The same file every time: Python's own generator, seeded. Some cells are empty, as in life.
"""

from __future__ import annotations

import csv
import io
import random
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "examples" / "data" / "houses.csv"
ROW_COUNT = 600
# What a square metre costs there, in thousands.
QUARTERS = {"harbour": 7.5, "hill": 9.0, "mill": 5.0, "old town": 8.0, "station": 4.5}


def houses() -> str:
    """The file's text."""
    draw = random.Random(20)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["area_m2", "rooms", "built", "quarter", "garden", "walk_min", "price"])
    for _ in range(ROW_COUNT):
        area = 40 + 160 * draw.random() ** 1.5
        rooms = max(1, round(area / 28 + 2 * draw.random() - 1))
        built = 1880 + int(140 * draw.random())
        quarter = draw.choice(sorted(QUARTERS))
        has_garden = draw.random() < (0.2 if quarter in ("old town", "station") else 0.6)
        walk = 1 + 24 * draw.random()
        # New and very old houses are dear, and a garden is worth more where there is much of everything else.
        worth = area * QUARTERS[quarter] * (1 + ((built - 1950) / 140) ** 2)
        worth *= (1.12 if has_garden else 1.0) * (1 - 0.008 * walk) * (0.92 + 0.16 * draw.random())
        row = [f"{area:.1f}", rooms, built, quarter, "true" if has_garden else "false", f"{walk:.1f}"]
        # The price is always known.
        row = ["" if place > 1 and draw.random() < 0.04 else cell for place, cell in enumerate(row)]
        writer.writerow([*row, f"{worth:.0f}"])
    return text.getvalue()


def main() -> int:
    """Write the file; return the exit code."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    path.write_text(houses())
    return 0


if __name__ == "__main__":
    sys.exit(main())
