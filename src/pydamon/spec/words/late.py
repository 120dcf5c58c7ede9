"""Samples that came later than asked for, in words: whoever asks for more than the machine can do is to know it."""

from __future__ import annotations

from pydamon.spec.units import format_duration_ns

LATE = 1.5  # from so many times the interval asked for on, it is said
REMEDY = "use a longer sampling interval, fewer targets, or intervals that are tuned"


def late_by(asked_ns: int, sampled_ns: int) -> float | None:
    """How many times as long as asked for the samples have taken; None without any."""
    return sampled_ns / asked_ns if asked_ns > 0 else None


def late_words(samples: int, asked_ns: int, sampled_ns: int) -> str | None:
    """A line for people if so many samples were `LATE`, taken together; what to do about it is `REMEDY`."""
    factor = late_by(asked_ns, sampled_ns)
    if factor is None or factor <= LATE or samples <= 0:
        return None
    times = f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"
    found, asked = (format_duration_ns(round(total / samples)) for total in (sampled_ns, asked_ns))
    return f"samples came {times} × later than asked for: every {found}, not every {asked}"
