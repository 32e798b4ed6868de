"""Makes a GIF of screenshots: which of them it shows, and for how long."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

MAX_BYTES: Final = 1_500_000
MAX_SECONDS: Final = 25.0
_INTERVALS: Final = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Least seconds between two frames: the first with which the GIF is small enough."""
_COLOURS: Final = 255
"""Of 256: one stands for what has not changed since the frame before."""
_EXACT: Final = 64
"""Most frequent colours that are kept as they are, so that areas and text have no other shade than on the page."""
_PLACES: Final = np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
"""What red, green and blue stand for in the number of a colour."""

Array = np.ndarray[tuple[int, ...], np.dtype[np.integer[Any]]]


@dataclass(frozen=True)
class Shot:
    """A screenshot."""

    at: float
    """When it was taken, in seconds of any clock."""
    png: bytes


@dataclass(frozen=True)
class Frame:
    """A screenshot, and for how long it is shown."""

    png: bytes
    milliseconds: int


@dataclass(frozen=True)
class Animation:
    """A GIF that repeats forever, and its last frame as a PNG."""

    gif: bytes
    still: bytes


class AnimationError(Exception):
    """The GIF would be too long or too large."""


def animate(shots: Sequence[Shot], *, speed: float, pause: float) -> Animation:
    """Return the GIF of screenshots, `speed` times as fast as they were taken; the last one stays for `pause` seconds.

    Changes that follow each other fast are left out if the GIF is too large otherwise. Raises `AnimationError` if it is
    too large even so, or would play for too long.
    """
    seconds = (shots[-1].at - shots[0].at) / speed + pause
    if seconds > MAX_SECONDS:
        raise AnimationError(f"it would play for {seconds:.1f} s, more than {MAX_SECONDS:.0f}: is the machine busy?")
    pngs = list(dict.fromkeys(shot.png for shot in shots))
    pictures = dict(zip(pngs, _in_shared_colours([_read(png) for png in pngs]), strict=True))
    for interval in _INTERVALS:
        frames = choose_frames(shots, speed=speed, interval=interval, pause=pause)
        gif = _encode([(pictures[frame.png], frame.milliseconds) for frame in frames])
        if len(gif) <= MAX_BYTES:
            still = io.BytesIO()
            pictures[frames[-1].png].save(still, "PNG", optimize=True)
            return Animation(gif, still.getvalue())
    raise AnimationError(f"it would have {len(gif):,} bytes with a frame a second, more than {MAX_BYTES:,}")


def choose_frames(shots: Sequence[Shot], *, speed: float, interval: float, pause: float) -> list[Frame]:
    """Return the frames: the first and the last screenshot, and each change between, `interval` seconds apart or more.

    Seconds are those of the animation, which is `speed` times as fast as the screenshots were taken.
    """
    kept = [shots[0]]
    for shot in shots[1:]:
        if shot.png != kept[-1].png and shot.at - kept[-1].at >= interval * speed:
            kept.append(shot)
    if shots[-1].png != kept[-1].png:
        # In place of one that is too close to it.
        kept[max(1, len(kept) - 1) :] = [shots[-1]]
    # A GIF counts in hundredths of a second: rounding the times, not the durations, adds up to no delay.
    times = [round((shot.at - kept[0].at) / speed * 100) for shot in kept]
    times.append(times[-1] + round(pause * 100))
    return [Frame(shot.png, (times[i + 1] - times[i]) * 10) for i, shot in enumerate(kept)]


def _read(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def _in_shared_colours(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the pictures with the colours of one palette: each pixel with the nearest one."""
    counts: Counter[Any] = Counter()
    for picture in pictures:
        # There are no more colours than pixels, so this is not None.
        for pixels, colour in picture.getcolors(picture.width * picture.height) or ():
            counts[colour] += pixels
    colours = np.array([colour for colour, _ in counts.most_common()], dtype=np.int32)
    palette = _palette(colours)
    # Pillow's own search for the nearest colour is approximate: it changes white.
    index_of = np.zeros(1 << 24, dtype=np.uint8)
    index_of[colours @ _PLACES] = [((palette - colour) ** 2).sum(axis=1).argmin() for colour in colours]
    indexed = [Image.fromarray(index_of[_numbers(picture)]) for picture in pictures]
    for picture in indexed:
        picture.putpalette(palette.astype(np.uint8).tobytes())
    return indexed


def _numbers(picture: Image.Image) -> Array:
    """Return the colour of each pixel as a number below 2**24."""
    return np.asarray(picture, dtype=np.int32) @ _PLACES


def _palette(colours: Array) -> Array:
    """Return a palette of colours that are given by descending frequency.

    It has the most frequent ones, and means of the others.
    """
    exact, others = colours[:_EXACT], colours[_EXACT:]
    if not len(others):
        return exact
    picture = Image.fromarray(others[np.newaxis].astype(np.uint8))
    means = picture.quantize(_COLOURS - _EXACT, Image.Quantize.MEDIANCUT).getpalette()
    return np.concatenate([exact, np.array(means).reshape(-1, 3)])[:_COLOURS]


def _encode(frames: Sequence[tuple[Image.Image, int]]) -> bytes:
    """Return the GIF of pictures with the same palette, each with its milliseconds."""
    (first, _), *others = frames
    encoded = io.BytesIO()
    first.save(
        encoded,
        "GIF",
        save_all=True,
        append_images=[picture for picture, _ in others],
        duration=[milliseconds for _, milliseconds in frames],
        loop=0,
        palette=bytes(first.getpalette() or b"").ljust(3 * (_COLOURS + 1), b"\0"),
        # A frame is transparent where nothing has changed.
        transparency=_COLOURS,
        disposal=1,
        optimize=True,
    )
    return encoded.getvalue()
