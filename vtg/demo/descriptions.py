"""Parts of a sentence about the demo world: descriptions of things, and the order of windows."""

from __future__ import annotations

from dataclasses import dataclass

from vtg.demo.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES

__all__ = ["Description", "Order"]

_COLOUR_NAMES = tuple(COLOURS)
_SIZE_NAMES = tuple(SIZES)


@dataclass(frozen=True)
class Description:
    """Attributes of one thing; None for any value.

    Attributes:
        shape: one of SHAPES.
        colour: one of COLOURS; with an action, the colour before it.
        size: one of SIZES.
        place: one of PLACES.
        action: one of ACTIONS.
    """

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    place: str | None = None
    action: str | None = None

    @property
    def codes(self) -> tuple[int, int, int, int, int, int]:
        """The description as codes like those of `States.codes`; −1 for any value."""
        colour = -1 if self.colour is None else _COLOUR_NAMES.index(self.colour)
        return (
            -1 if self.shape is None else SHAPES.index(self.shape),
            colour if self.action is None else -1,
            -1 if self.size is None else _SIZE_NAMES.index(self.size),
            -1 if self.place is None else PLACES.index(self.place),
            -1 if self.action is None else ACTIONS.index(self.action),
            colour if self.action is not None else -1,
        )


@dataclass(frozen=True)
class Order:
    """Which of the windows that match a description are meant.

    Attributes:
        relation: one of RELATIONS.
        landmark: the thing before or after which the windows are; None for the first and the last window.
    """

    relation: str
    landmark: Description | None = None
