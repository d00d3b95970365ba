"""Writes counts, sizes and durations for people, in the same way in command line, web pages and messages.

JSON documents have plain numbers instead. `pages/static/quantities.js` of the service writes counts and sizes as this
module does.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def count_text(count: int) -> str:
    """Write a whole number with commas between thousands: `1,048,576`."""
    return f"{count:,}"


def size_text(size_bytes: float) -> str:
    """Write a number of bytes in binary units: `512 B`, `1.5 KiB`, `64 MiB`."""
    value, power = float(size_bytes), 0
    while round(value) >= 1024 and power < len(_SIZE_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{_decimal(value)} {_SIZE_UNITS[power]}"


def duration_text(duration_s: float) -> str:
    """Write a number of seconds: `0 s`, `< 1 ms`, `250 ms`, `4.6 s`, `12 s`, `1 min 40 s`, `3 h 5 min`."""
    if duration_s < 0.001:
        return "< 1 ms" if duration_s else "0 s"
    if duration_s < 0.9995:
        return f"{1000 * duration_s:.0f} ms"
    if duration_s < 99.5:
        return f"{_decimal(duration_s)} s"
    minutes, seconds = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{count_text(hours)} h {minutes} min" if minutes else f"{count_text(hours)} h"


def _decimal(value: float) -> str:
    """Write a number with one decimal place, halves rounded up; whole numbers, and all from 99.95 on, with none."""
    places = "1" if value == int(value) or value >= 99.95 else "0.1"
    return f"{Decimal(value).quantize(Decimal(places), ROUND_HALF_UP):,}"
