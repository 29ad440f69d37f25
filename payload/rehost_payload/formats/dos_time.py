"""Times of FAT and exFAT directories as FILETIME."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)


def dos_filetime(date: int, time: int, hundredths: int = 0, offset: int = 0) -> int:
    """FILETIME of a date and time in MS-DOS form; 0 where they are none.

    ``hundredths`` (0-199) are added; ``offset`` is exFAT's: quarters of an hour from UTC in its low seven bits, valid
    with bit 7. Without it the time is taken as UTC.
    """
    try:
        moment = datetime(
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            (time & 31) * 2,
            tzinfo=UTC,
        )
    except ValueError:
        return 0
    quarters = ((offset & 0x7F) ^ 0x40) - 0x40 if offset & 0x80 else 0
    moment += timedelta(milliseconds=10 * min(hundredths, 199)) - timedelta(minutes=15 * quarters)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 10
