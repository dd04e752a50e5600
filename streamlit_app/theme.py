"""Colours of the light and dark theme, and CSS rules for what Streamlit's theme has no setting for."""

from __future__ import annotations

__all__ = ["ACCENT", "CURVES", "RULES", "THEME"]

ACCENT = {"light": "#b4420f", "dark": "#e0701f"}  # colour of results
CURVES = ("#d9622b", "#3b7dd8", "#2a9d6f", "#9b5fc0", "#b8860b", "#d0527f")  # visible on light and dark backgrounds

_SHARED = {"baseRadius": "0.6rem", "showWidgetBorder": True}
_LIGHT = {
    "primaryColor": ACCENT["light"],
    "backgroundColor": "#fdfcfa",
    "secondaryBackgroundColor": "#f2efe9",
    "textColor": "#201d1a",
    "borderColor": "#ded8ce",
    "linkColor": ACCENT["light"],
}
_DARK = {
    "primaryColor": ACCENT["dark"],
    "backgroundColor": "#161412",
    "secondaryBackgroundColor": "#23201c",
    "textColor": "#efebe4",
    "borderColor": "#3b352e",
    "linkColor": ACCENT["dark"],
}
THEME = {
    **{f"theme.{name}": value for name, value in _SHARED.items()},
    **{f"theme.light.{name}": value for name, value in _LIGHT.items()},
    **{f"theme.dark.{name}": value for name, value in _DARK.items()},
}

# The only raw HTML on the page; it contains no input of visitors.
RULES = """
<style>
.stMainBlockContainer { max-width: 76rem; padding-block: 3.5rem 4rem; }
@media (max-width: 40rem) { .stMainBlockContainer { padding-inline: 1rem; padding-block-start: 3.25rem; } }
.st-key-pages { position: fixed; inset: 1.1rem auto auto 1rem; z-index: 1000000; width: auto; gap: 0.25rem; }
.st-key-pages a { padding-inline: 0.5rem; }
.st-key-pages a[disabled] { background: rgba(139, 131, 120, 0.16); pointer-events: none; } /* where one is */
.st-key-pages a[disabled], .st-key-pages a[disabled] * { color: inherit !important; }
@media (max-width: 40rem) { .st-key-pages { inset-inline-start: 0.5rem; gap: 0; } }
.st-key-reconnect { display: none; } /* a component that shows nothing */
.st-key-ask input { font-size: 1.15rem; padding-block: 0.8rem; }
.st-key-empty { text-align: center; padding-block: 2.5rem; }
.st-key-empty p, .st-key-empty h2, .st-key-empty h3 { text-align: center; }
.stStatusWidget { display: none; } /* long operations show their own progress */
/* Answers to an earlier question fade at once: Streamlit takes a second, in which the page is painted sixty times. */
.stElementContainer[data-stale="true"] { transition: opacity 0.15s steps(3) 0.5s; }
h1 { letter-spacing: -0.015em; }
</style>
"""
