"""`AttentionLevel`: which frames a frame may attend to."""

import dataclasses
import re
from typing import Any, Self

import numpy as np

_KINDS = ("global", "bd", "tp", "td")
_FORM = re.compile(r"(?P<kind>bd|tp|td)(?P<window>[0-9]{1,9})(?:x(?P<dilation>[0-9]{1,9}))?")
_VALID_FORMS = (
    "'global', 'bd<W>' (segments of W frames), 'tp<W>' (W frames to each side) or 'td<W>x<L>' "
    "(every L-th frame of W to each side), for example 'bd20', 'tp30', 'td60x4'"
)


@dataclasses.dataclass(frozen=True)
class AttentionLevel:
    """The neighbourhood of a frame at one level of a multi-level attention.

    With `W` the window and `L` the dilation, frame `i` attends to frame `j` where

    | kind   | flag form | rule                                      |
    |--------|-----------|-------------------------------------------|
    | global | `global`  | always                                    |
    | bd     | `bd20`    | `i // W == j // W` (the last segment may be shorter) |
    | tp     | `tp30`    | `abs(i - j) <= W`                         |
    | td     | `td60x4`  | `abs(i - j) <= W` and `L` divides `i - j` |

    Every frame attends to itself at every level.

    Args:
        kind: `"global"`, `"bd"` (block diagonal), `"tp"` (Toeplitz) or `"td"` (dilated Toeplitz).
        window: `W` in frames; `None` for `"global"` only.
        dilation: `L` in frames; only `"td"` has one other than 1.

    Raises:
        ValueError: if the kind is unknown or the window or the dilation does not fit it.

    Reference:
        "Leveraging Local Temporal Information for Multimodal Scene Classification", 2.2 and
        fig. 2; "bd" is also the local level of GAT, section 3.1, with `T_N = W`.

    Examples:
        >>> from yt8m_gat.layers import AttentionLevel
        >>> print(AttentionLevel.parse("bd2").draw(4))
        O#..
        #O..
        ..O#
        ..#O
        >>> print(AttentionLevel("td", window=2, dilation=2).draw(4))
        O.#.
        .O.#
        #.O.
        .#.O
    """

    kind: str
    window: int | None = None
    dilation: int = 1

    def __post_init__(self):
        if self.kind not in _KINDS:
            raise ValueError(f"`kind` must be one of {_KINDS}. Received: kind={self.kind!r}")
        if self.kind == "global":
            if self.window is not None or self.dilation != 1:
                raise ValueError(
                    "A global level has neither window nor dilation. "
                    f"Received: window={self.window}, dilation={self.dilation}"
                )
            return
        if self.window is None or self.window < 1:
            raise ValueError(
                "`window` of a local level must be at least 1 frame. "
                f"Received: window={self.window}"
            )
        if self.kind != "td" and self.dilation != 1:
            raise ValueError(
                "Only kind 'td' has a dilation. "
                f"Received: kind={self.kind!r}, dilation={self.dilation}"
            )
        if not 1 <= self.dilation <= self.window:
            raise ValueError(
                "`dilation` must be at least 1 and at most `window`. "
                f"Received: dilation={self.dilation}, window={self.window}"
            )

    @classmethod
    def parse(cls, form: "str | AttentionLevel") -> Self:
        """Parses the flag form: `"global"`, `"bd20"`, `"tp30"` or `"td60x4"`.

        Args:
            form: the flag form, or a level, which is returned unchanged.

        Raises:
            ValueError: if the text has none of these forms.
        """
        if isinstance(form, cls):
            return form
        if form == "global":
            return cls("global")
        match = _FORM.fullmatch(form) if isinstance(form, str) else None
        if match is None or (match["kind"] == "td") != (match["dilation"] is not None):
            raise ValueError(f"An attention level must be {_VALID_FORMS}. Received: {form!r}")
        return cls(match["kind"], int(match["window"]), int(match["dilation"] or 1))

    def __str__(self) -> str:
        if self.kind == "global":
            return self.kind
        suffix = f"x{self.dilation}" if self.kind == "td" else ""
        return f"{self.kind}{self.window}{suffix}"

    def allows(self, query_frame: Any, key_frame: Any) -> Any:
        """Returns, element by element, whether `query_frame` attends to `key_frame`.

        Args:
            query_frame: integer array or tensor of frame indices.
            key_frame: the same, of a shape that broadcasts with it.

        Returns:
            A boolean array of the broadcast shape.
        """
        difference = query_frame - key_frame
        if self.kind == "global":
            return difference == difference
        if self.kind == "bd":
            return query_frame // self.window == key_frame // self.window
        return (abs(difference) <= self.window) & (difference % self.dilation == 0)

    def dense_mask(self, num_frames: int) -> np.ndarray:
        """Returns the mask of fig. 2: bool [T, T], True where row `i` attends to column `j`."""
        frames = np.arange(num_frames)
        return self.allows(frames[:, np.newaxis], frames[np.newaxis, :])

    def draw(self, num_frames: int) -> str:
        """Draws the mask as text, one line per query frame: `O` itself, `#` attended, `.` not."""
        mask = self.dense_mask(num_frames)
        return "\n".join(
            "".join("O" if i == j else "#" if mask[i, j] else "." for j in range(num_frames))
            for i in range(num_frames)
        )
