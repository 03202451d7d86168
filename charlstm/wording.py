"""Numbers in sentences."""


def quantity(count: int, noun: str) -> str:
    """Return a number with its noun: "1 trial", "2,000 trials"."""
    return f"{count:,} {noun}" + ("s" if count != 1 else "")
