"""Write ``keisei_lightning/games/glyphs.json``: the outlines of the letters in pictures of boards.

They come from the fonts of Debian's package fonts-noto-cjk (SIL Open Font License 1.1), which need not be installed:

    apt-get download fonts-noto-cjk && dpkg -x fonts-noto-cjk_*.deb fonts
    python tests/tools/extract_glyphs.py fonts/usr/share/fonts/opentype/noto

It needs fontTools (``pip install fonttools``).
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.pens.transformPen import TransformPen
from fontTools.ttLib import TTCollection, TTFont

PACKAGE = Path(__file__).parents[2] / "keisei_lightning" / "games"
SETS = {
    "NotoSerifCJK-Bold.ttc": ("Noto Serif CJK JP", "王玉飛角金銀桂香歩龍馬全圭杏と一二三四五六七八九"),
    "NotoSansCJK-Regular.ttc": ("Noto Sans CJK JP", string.digits + string.ascii_letters + "+-,()*"),
}
UNITS_PER_EM = 1000
IDEOGRAPH_MIDDLE = 380  # of the em box, from -120 to 880


def outlines(font: TTFont, letters: str) -> dict[str, list[object]]:
    """Width and path of each letter; the path's origin is the middle of the letter, and y grows downwards."""
    glyphs, names, metrics = font.getGlyphSet(), font.getBestCmap(), font["hmtx"]
    capital_middle = font["OS/2"].sCapHeight // 2
    found: dict[str, list[object]] = {}
    for letter in letters:
        name = names[ord(letter)]
        width = metrics[name][0]
        middle = capital_middle if letter.isascii() else IDEOGRAPH_MIDDLE
        pen = SVGPathPen(glyphs, ntos=lambda number: str(round(number)))
        glyphs[name].draw(TransformPen(pen, (1, 0, 0, -1, -width / 2, middle)))
        found[letter] = [width, pen.getCommands()]
    return found


def main() -> None:
    """Write the file."""
    glyphs: dict[str, list[object]] = {}
    sources = []
    for file, (family, letters) in SETS.items():
        fonts = TTCollection(str(Path(sys.argv[1], file))).fonts
        font = next(
            font
            for font in fonts
            if font["name"].getDebugName(16) == family or (font["name"].getDebugName(1) or "").startswith(family)
        )
        assert font["head"].unitsPerEm == UNITS_PER_EM
        sources.append(f"{font['name'].getDebugName(4)} {font['name'].getDebugName(5)}: {font['name'].getDebugName(0)}")
        glyphs |= outlines(font, letters)
    data = {
        "sources": sources,
        "license": "SIL Open Font License 1.1, in glyphs.OFL.txt",
        "made_by": "tests/tools/extract_glyphs.py, Debian's fonts-noto-cjk 1:20220127+repack1-1",
        "units_per_em": UNITS_PER_EM,
        "glyphs": glyphs,
    }
    (PACKAGE / "glyphs.json").write_text(json.dumps(data, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
