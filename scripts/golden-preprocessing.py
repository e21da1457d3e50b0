"""Writes test/golden/preprocessing.json: what Pillow makes of the pictures that test/models/preprocessing.test.ts draws.

    python scripts/golden-preprocessing.py      (Pillow, numpy)
"""
import base64
import json
import math
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

# width, height, side of the result
CROPPED = [
    (28, 28, 96), (28, 28, 32), (32, 32, 32), (33, 47, 32), (47, 33, 32), (640, 480, 32), (480, 640, 64), (1, 500, 32),
    (500, 1, 32), (1, 1, 32), (3, 7, 32), (1000, 37, 32), (1023, 767, 64), (65, 64, 64), (1600, 1200, 32),
]
WHOLE = [(28, 28, 32), (33, 47, 32), (640, 480, 32), (480, 641, 32), (1, 500, 32), (500, 1, 32), (1, 1, 32), (3, 7, 32), (1000, 37, 32), (20, 90, 32)]
CASES = [("crop", *c) for c in CROPPED] + [("squash", *c) for c in WHOLE] + [("letterbox", *c) for c in WHOLE]


def noise(width, height):
    """The same picture as `noise` in test/models/tiny-model.ts."""
    state = width * 7919 + height
    data = np.zeros(width * height * 3, np.uint8)
    for i in range(data.size):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        x, y = i // 3 % width, i // 3 // width
        data[i] = int(max(0, min(255, 128 + 80 * math.sin(x / 7 + y / 11) + (state / 2**32 - 0.5) * 64)))
    return Image.fromarray(data.reshape(height, width, 3))


def expected(fit, width, height, side):
    picture = noise(width, height)
    if fit == "letterbox":
        long = max(width, height)
        w, h = (max(1, math.floor(n * side / long + 0.5)) for n in (width, height))
        square = Image.new("RGB", (side, side), (127, 127, 127))
        square.paste(picture.resize((w, h), Image.BILINEAR), ((side - w) // 2, (side - h) // 2))
    else:
        if fit == "crop":
            short = min(width, height)
            left, top = (width - short) // 2, (height - short) // 2
            picture = picture.crop((left, top, left + short, top + short))
        square = picture.resize((side, side), Image.BILINEAR)
    return np.asarray(square).transpose(2, 0, 1)


cases = [
    {"fit": f, "width": w, "height": h, "side": s, "planes": base64.b64encode(expected(f, w, h, s).tobytes()).decode()}
    for f, w, h, s in CASES
]
path = Path(__file__).parent.parent / "test" / "golden" / "preprocessing.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"made with": "Pillow {PIL.__version__}", "cases": [\n{lines}\n]}}\n')
