"""Numbers as people read them: three significant digits, narrow spaces before units, real minus signs."""

import math

SPACE = "\u202f"  # narrow, and no line breaks at it
DASH = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 3) -> str:
    """A number with some significant digits; a dash for None and for what is not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if -4 <= power <= 5:
        text = f"{float(f'{mantissa}e{power}'):,.{max(0, digits - 1 - power)}f}".replace(",", SPACE)
    else:
        text = f"{mantissa}{SPACE}×{SPACE}10{str(power).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−", 1) if value < 0 else text


def count(value: int) -> str:
    """A whole number, all digits."""
    return f"{value:,}".replace(",", SPACE)


def percent(value: float | None, *, signed: bool = False) -> str:
    """A part of one in per cent."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{100 * value:{'+' if signed else ''}.1f}".replace("-", "−") + f"{SPACE}%"


def duration(seconds: float | None) -> str:
    """Microseconds to hours."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds >= 3600:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours}{SPACE}h {rest}{SPACE}min"
    if seconds >= 100:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}{SPACE}min {rest}{SPACE}s"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size or seconds == 0:
            return f"{number(seconds / size)}{SPACE}{unit}"
    return f"{number(seconds * 1e6)}{SPACE}µs"


def dollars(usd: float) -> str:
    """US dollars, to the cent, or with three digits where that is less."""
    return f"{number(usd) if usd < 1 else f'{usd:,.2f}'.replace(',', SPACE)}{SPACE}USD"


def gibibytes(count: float) -> str:
    """Bytes of memory."""
    return f"{count / 2**30:.1f}{SPACE}GiB"
