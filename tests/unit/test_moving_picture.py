"""The moving picture of the README: what it shows of a recording, for how long, and how large it may be."""

import io
import random
import re

import pytest
from PIL import Image, ImageDraw

from img import animation
from img.animation import AnimationError, Frame, Shot, animate, choose_frames
from local_stack.services import ROOT

WHITE, BLUE, AMBER, GREEN = (255, 255, 255), (31, 106, 165), (240, 180, 41), (20, 98, 47)


def _shots(pictures: str, seconds: float = 1.0) -> list[Shot]:
    """Return screenshots at equal distances; each letter stands for what one of them shows."""
    return [Shot(1_000 + i * seconds, letter.encode()) for i, letter in enumerate(pictures)]


def _choose(pictures: str, *, speed: float = 1.0, interval: float = 0.0, pause: float = 3.0) -> list[tuple[str, int]]:
    frames = choose_frames(_shots(pictures), speed=speed, interval=interval, pause=pause)
    return [(frame.png.decode(), frame.milliseconds) for frame in frames]


def _png(draw: str, size: tuple[int, int] = (64, 32)) -> bytes:
    """Return a white picture with a bar of a colour, or one of noise."""
    picture = Image.new("RGB", size, WHITE)
    if draw == "noise":
        picture.putdata([(random.randrange(20), 0, 0) for _ in range(size[0] * size[1])])
    else:
        ImageDraw.Draw(picture).rectangle((0, 8, size[0], 16), fill=draw)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def _frames(gif: bytes) -> list[tuple[tuple[int, int, int], tuple[int, int, int], int]]:
    """Return of each frame a pixel above the bar, one of the bar, and the milliseconds."""
    found = []
    with Image.open(io.BytesIO(gif)) as picture:
        for number in range(picture.n_frames):  # type: ignore[attr-defined]
            picture.seek(number)
            shown = picture.convert("RGB")
            found.append((shown.getpixel((5, 2)), shown.getpixel((5, 12)), picture.info["duration"]))
    return found  # type: ignore[return-value]


def test_what_does_not_change_is_one_frame_that_stays_and_the_last_one_stays_for_the_pause() -> None:
    assert _choose("aaabbc") == [("a", 3_000), ("b", 2_000), ("c", 3_000)]
    assert _choose("abbb") == [("a", 1_000), ("b", 3_000)]
    assert _choose("aba") == [("a", 1_000), ("b", 1_000), ("a", 3_000)]
    assert _choose("a") == [("a", 3_000)]


def test_twice_the_speed_takes_half_the_time_but_the_pause() -> None:
    assert _choose("aaabbc", speed=2) == [("a", 1_500), ("b", 1_000), ("c", 3_000)]


def test_a_change_that_follows_too_fast_is_shown_later_and_the_last_one_in_place_of_the_one_before() -> None:
    assert _choose("abccc", interval=2) == [("a", 2_000), ("c", 3_000)]
    assert _choose("abcde", interval=2) == [("a", 2_000), ("c", 2_000), ("e", 3_000)]
    assert _choose("abcd", interval=2) == [("a", 3_000), ("d", 3_000)]
    assert _choose("ab", interval=2) == [("a", 1_000), ("b", 3_000)]
    # The interval is one of the animation.
    assert _choose("abcde", interval=1, speed=2) == [("a", 1_000), ("c", 1_000), ("e", 3_000)]


def test_rounding_to_hundredths_of_a_second_adds_up_to_no_delay() -> None:
    shots = [Shot(i / 3, str(i).encode()) for i in range(31)]
    frames = choose_frames(shots, speed=2, interval=0, pause=1)
    assert sum(frame.milliseconds for frame in frames) == 5_000 + 1_000
    assert {frame.milliseconds for frame in frames[:-1]} == {160, 170}
    assert frames[-1] == Frame(b"30", 1_000)


def test_the_gif_has_the_colours_of_the_page_and_the_durations_and_its_still_is_the_last_frame() -> None:
    pngs = [_png(f"rgb{colour}") for colour in (GREEN, AMBER, AMBER, BLUE)]
    made = animate([Shot(i, png) for i, png in enumerate(pngs)], speed=2, pause=4)
    assert _frames(made.gif) == [(WHITE, GREEN, 500), (WHITE, AMBER, 1_000), (WHITE, BLUE, 4_000)]
    with Image.open(io.BytesIO(made.gif)) as picture:
        assert picture.info["loop"] == 0
    with Image.open(io.BytesIO(made.still)) as still:
        shown = still.convert("RGB")
        assert (shown.getpixel((5, 2)), shown.getpixel((5, 12))) == (WHITE, BLUE)


def test_of_more_colours_than_a_gif_has_the_most_frequent_are_exact() -> None:
    picture = Image.frombytes("RGB", (64, 64), random.randbytes(3 * 64 * 64))
    ImageDraw.Draw(picture).rectangle((0, 0, 64, 8), fill=WHITE)
    ImageDraw.Draw(picture).rectangle((0, 9, 64, 16), fill=AMBER)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    made = animate([Shot(0, encoded.getvalue()), Shot(1, _png("blue", (64, 64)))], speed=1, pause=1)
    assert _frames(made.gif)[0] == (WHITE, AMBER, 1_000)


def test_a_gif_that_is_too_large_leaves_out_changes_and_one_that_is_still_too_large_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shots = [Shot(i / 5, _png("noise")) for i in range(16)]
    every_change = animate(shots, speed=1, pause=1).gif
    monkeypatch.setattr(animation, "MAX_BYTES", len(every_change) - 1)
    fewer = animate(shots, speed=1, pause=1).gif
    assert len(fewer) < len(every_change)
    assert 2 < len(_frames(fewer)) < len(_frames(every_change))
    assert sum(frame[2] for frame in _frames(fewer)) == sum(frame[2] for frame in _frames(every_change)) == 4_000
    monkeypatch.setattr(animation, "MAX_BYTES", 1_000)
    with pytest.raises(AnimationError, match=r"it would have [\d,]+ bytes with a frame a second, more than 1,000"):
        animate(shots, speed=1, pause=1)


def test_a_recording_that_would_play_for_too_long_is_refused() -> None:
    with pytest.raises(AnimationError, match=r"it would play for 34\.0 s, more than 25: is the machine busy\?"):
        animate([Shot(0, _png("green")), Shot(60, _png("blue"))], speed=2, pause=4)


def test_the_readme_begins_with_it_and_with_its_last_frame_for_those_who_want_no_motion() -> None:
    first_screen = (ROOT / "README.md").read_text().partition("\n## ")[0]
    still, moving = re.findall(r'(?:srcset|src)="(img/kill\.\w+)"', first_screen)
    assert "prefers-reduced-motion: reduce" in first_screen
    assert re.search(r'alt="[^"]{40,}"', first_screen)
    assert (ROOT / moving).stat().st_size <= animation.MAX_BYTES
    with Image.open(ROOT / moving) as picture, Image.open(ROOT / still) as last:
        durations = []
        for number in range(picture.n_frames):  # type: ignore[attr-defined]
            picture.seek(number)
            durations.append(picture.info["duration"])
        assert picture.info["loop"] == 0
        assert len(durations) > 10
        assert sum(durations) <= animation.MAX_SECONDS * 1_000
        assert picture.convert("RGB").tobytes() == last.convert("RGB").tobytes()
