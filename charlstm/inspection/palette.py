"""Colors for values: a diverging palette, and black or white text on it."""

from __future__ import annotations

Color = tuple[int, int, int]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

Palette = tuple[Color, Color, Color]

PALETTES: dict[str, Palette] = {
    "light": ((33, 102, 172), (247, 247, 247), (200, 80, 0)),
    "dark": ((92, 165, 235), (22, 24, 26), (245, 140, 50)),
}
"""Blue, the color of the paper and orange: color-blind readers can tell them apart."""


def mix_palette(palette: Palette, level: float) -> Color:
    """Return the color of a level from -1 to 1."""
    low, center, high = palette
    end, share = (high if level > 0 else low), abs(level)
    red, green, blue = (round(m + share * (e - m)) for m, e in zip(center, end, strict=True))
    return red, green, blue


def contrast(first: Color, second: Color) -> float:
    """Return the contrast ratio of two colors (WCAG 2.2)."""
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: Color) -> float:
    """Return the relative luminance of an sRGB color (WCAG 2.2)."""
    shares = (value / 255 for value in color)
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
