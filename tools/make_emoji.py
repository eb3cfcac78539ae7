"""Make the folder of colour pictures that ships inside the package, from Debian's packages, byte for byte the same each time.

    python tools/make_emoji.py                   # fetches font and list, writes vae_tutorial/samples/emoji.zip
    python tools/make_emoji.py --check           # the same, but compares with what is there and writes nothing

The pictures come from the font in Debian's package `fonts-noto-color-emoji`, their names and groups from Unicode's list
in `unicode-data`. Left out are near copies: variants by skin tone, sequences that only say man or woman, and flags that
look exactly like another. Needs apt-get and dpkg-deb (Debian, Ubuntu and their relatives) and Pillow with raqm, which
joins the letters of a flag to one picture.

The archive holds a folder for each group with one PNG for each emoji, 32 x 32 pixels with 64 colours and transparency.
"""
import argparse
import hashlib
import io
import re
import subprocess
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT, LIST = "fonts-noto-color-emoji", "unicode-data"
TARGET = Path(__file__).resolve().parents[1] / "vae_tutorial" / "samples" / "emoji.zip"
DRAWN, SIDE, COLOURS = 109, 32, 64                  # 109 points is the one size that the font holds
GLYPH, SQUARE = (136, 128), (4, 0, 132, 128)        # its size in pixels, and the part of it that is ever drawn on
LINE = re.compile(r"([0-9A-F ]+?) *; fully-qualified +# \S+ E\S+ (.*)")


def unpack(package, folder):
    """Fetch a Debian package and unpack it in the folder."""
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
    archive, = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "--extract", archive.name, "."], cwd=folder, check=True)


def listed(text):
    """Yield group, name and characters of each emoji on Unicode's list, near copies left out."""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.split()[2].lower()
        elif found := LINE.match(line):
            codes = [int(code, 16) for code in found[1].split()]
            by_tone = any(0x1F3FB <= code <= 0x1F3FF for code in codes)
            by_gender = 0x200D in codes and (codes[0] in (0x1F468, 0x1F469) or not {0x2640, 0x2642}.isdisjoint(codes))
            if not by_tone and not by_gender:
                yield group, found[2], "".join(map(chr, codes))


def file_name(name):
    """Return a name of plain letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", name.replace("#", "hash").replace("*", "asterisk"))
    return "-".join(re.findall("[a-z0-9]+", plain.encode("ascii", "ignore").decode().lower())) + ".png"


def settled(colours):
    """Return colours (..., 4) with what is nearly transparent gone and what is nearly opaque opaque: resizing and few colours blur both."""
    colours = np.array(colours, dtype=np.uint8)
    alpha = colours[..., 3]
    colours[alpha < 16], alpha[alpha > 239] = 0, 255
    return colours


def draw(characters, font):
    """Return the PNG of an emoji."""
    image = Image.new("RGBA", GLYPH)
    if font.getbbox(characters)[2:] != GLYPH:
        raise SystemExit(f"the font has no single picture for {characters!r}; does Pillow have raqm?")
    ImageDraw.Draw(image).text((0, 0), characters, font=font, embedded_color=True)
    small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=SQUARE)
    few, file = Image.fromarray(settled(small)).quantize(COLOURS, Image.Quantize.FASTOCTREE), io.BytesIO()
    palette = np.reshape(few.getpalette("RGBA"), (-1, 4))
    few.putpalette(settled(palette).tobytes(), "RGBA")
    few.save(file, "PNG", optimize=True)
    return file.getvalue()


def pictures(folder):
    """Return the PNG of each emoji by its path in the archive, none twice."""
    for package in (FONT, LIST):
        unpack(package, folder)
    font = ImageFont.truetype(folder / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", DRAWN, layout_engine=ImageFont.Layout.RAQM)
    text = (folder / "usr/share/unicode/emoji/emoji-test.txt").read_text(encoding="utf-8")
    paths = {}
    for group, name, characters in listed(text):
        paths.setdefault(draw(characters, font), f"{group}/{file_name(name)}")
    return {path: content for content, path in paths.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the file in the package, write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as temporary:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path, content in pictures(Path(temporary)).items():
                archive.writestr(zipfile.ZipInfo(path), content)        # ZipInfo gives all the same date
        content = packed.getvalue()
        print(f"{TARGET.name}  {len(archive.namelist()):,} pictures, {len(content):,} bytes  sha256 {hashlib.sha256(content).hexdigest()}")
    if check and content != TARGET.read_bytes():
        raise SystemExit(f"{TARGET.name} differs from the one in the package")
    if not check:
        TARGET.write_bytes(content)


if __name__ == "__main__":
    main()
