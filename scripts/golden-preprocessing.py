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
CASES = [
    (28, 28, 96), (28, 28, 32), (32, 32, 32), (33, 47, 32), (47, 33, 32), (640, 480, 32), (480, 640, 64), (1, 500, 32),
    (500, 1, 32), (1, 1, 32), (3, 7, 32), (1000, 37, 32), (1023, 767, 64), (65, 64, 64), (1600, 1200, 32),
]


def noise(width, height):
    """The same picture as `noise` in test/models/tiny-model.ts."""
    state = width * 7919 + height
    data = np.zeros(width * height * 3, np.uint8)
    for i in range(data.size):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        x, y = i // 3 % width, i // 3 // width
        data[i] = int(max(0, min(255, 128 + 80 * math.sin(x / 7 + y / 11) + (state / 2**32 - 0.5) * 64)))
    return Image.fromarray(data.reshape(height, width, 3))


def expected(width, height, side):
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    square = noise(width, height).crop((left, top, left + short, top + short))
    return np.asarray(square.resize((side, side), Image.BILINEAR)).transpose(2, 0, 1)


cases = [
    {"width": w, "height": h, "side": s, "planes": base64.b64encode(expected(w, h, s).tobytes()).decode()} for w, h, s in CASES
]
path = Path(__file__).parent.parent / "test" / "golden" / "preprocessing.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"made with": "Pillow {PIL.__version__}", "cases": [\n{lines}\n]}}\n')
