"""Photographs of a flat card: rotation, perspective, desk, light, blur, noise, JPEG.

Three levels, as contract 5's goals name them. Nothing here knows what is printed on the card.
"""

from __future__ import annotations

import io
import math
import random

import numpy as np
from PIL import Image, ImageFilter

from bench.ktp_cards import Level


def photograph(card: Image.Image, level: Level, rng: random.Random) -> bytes:
    """Return a JPEG of the card as a telephone would take it at this level."""
    if level == "clean":
        return _jpeg(_placed(card, rng, rng.randint(1000, 1300), turn=1, tilt=0.0, margin=0.03), 90)
    noise = np.random.default_rng(rng.randrange(2**32))
    if level == "mild":
        image = _placed(card, rng, rng.randint(850, 1200), turn=6, tilt=0.03, margin=0.12)
        image = _lit(image, rng, shadow=0.25, glare=0.0)
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9)))
        return _jpeg(_noisy(image, noise, rng.uniform(2, 7)), rng.randint(65, 85))
    image = _placed(card, rng, rng.randint(720, 1000), turn=14, tilt=0.07, margin=0.2)
    image = _lit(image, rng, shadow=0.5, glare=0.75 if rng.random() < 0.6 else 0.0)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.3)))
    image = _noisy(image, noise, rng.uniform(6, 14))
    if rng.random() < 0.3:
        image = image.rotate(rng.choice([90, 180, 270]), expand=True)
    return _jpeg(image, rng.randint(35, 60))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


def _placed(
    card: Image.Image, rng: random.Random, width: int, *, turn: float, tilt: float, margin: float
) -> Image.Image:
    """Put the card on a desk, `width` pixels wide, turned and seen from aside."""
    height = round(width * card.height / card.width)
    side = width * margin
    angle = math.radians(rng.uniform(-turn, turn))
    cos, sin = math.cos(angle), math.sin(angle)
    corners = []
    for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        dx = x * width / 2 * (1 + rng.uniform(-tilt, tilt))
        dy = y * height / 2 * (1 + rng.uniform(-tilt, tilt))
        corners.append((dx * cos - dy * sin, dx * sin + dy * cos))
    left, top = min(x for x, _ in corners) - side, min(y for _, y in corners) - side
    right, bottom = max(x for x, _ in corners) + side, max(y for _, y in corners) + side
    size = round(right - left), round(bottom - top)
    placed = [(x - left, y - top) for x, y in corners]
    source = [(0, 0), (card.width, 0), (card.width, card.height), (0, card.height)]
    matrix = _perspective(placed, source)
    layer = card.convert("RGBA").transform(
        size, Image.Transform.PERSPECTIVE, matrix, Image.Resampling.BICUBIC
    )
    desk = _desk(size, rng)
    desk.paste(layer, (0, 0), layer)
    return desk


def _perspective(to: list[tuple[float, float]], of: list[tuple[float, float]]) -> tuple[float, ...]:
    """Return PIL's eight numbers that lead from the points of the result to those of the source."""
    rows, right = [], []
    for (x, y), (u, v) in zip(to, of, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(right)))


def _desk(size: tuple[int, int], rng: random.Random) -> Image.Image:
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grain = np.sin(y / rng.uniform(4, 9) + np.sin(x / 90) * 3) * rng.uniform(4, 14)
    base = rng.choice([(120, 85, 55), (70, 70, 75), (205, 200, 190), (40, 45, 60), (150, 120, 90)])
    pixels = np.array(base, np.float32)[None, None, :] + grain[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _lit(image: Image.Image, rng: random.Random, *, shadow: float, glare: float) -> Image.Image:
    pixels = np.asarray(image.convert("RGB"), np.float32)
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = (x / width - 0.5) * math.cos(angle) + (y / height - 0.5) * math.sin(angle)
    pixels = pixels * (1 - shadow * rng.random() * (ramp + 0.5).clip(0, 1))[:, :, None]
    if glare:
        cx, cy = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
        far = ((x - cx) / (width * rng.uniform(0.08, 0.2))) ** 2
        far += ((y - cy) / (height * rng.uniform(0.06, 0.15))) ** 2
        spot = (glare * np.exp(-far))[:, :, None]
        pixels = pixels * (1 - spot) + 255 * spot
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _noisy(image: Image.Image, noise: np.random.Generator, sigma: float) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    return Image.fromarray(
        (pixels + noise.normal(0, sigma, pixels.shape)).clip(0, 255).astype(np.uint8)
    )
