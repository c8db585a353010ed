"""What exit thresholds are chosen for, as people write it: `accuracy`, `bytes=18`, ..."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ddnn.errors import ConfigError


class GoalError(ConfigError):
    """A goal that no thresholds reach; the message says what they do reach."""


@dataclass(frozen=True)
class Goal:
    """What thresholds are chosen for.

    Attributes:
        kind: `accuracy`: the highest, then the least traffic; `bytes`: the highest accuracy at
            a mean of at most `value` payload bytes per camera and frame; `accuracy>`: the least
            traffic at an accuracy of `value` or more.
        value: the bound, bytes or a share 0..1.
    """

    kind: Literal["accuracy", "bytes", "accuracy>"] = "accuracy"
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Goal:
        """`accuracy`, `bytes=18` or `accuracy>=0.98` -> Goal.

        Raises:
            ConfigError: it is none of these, or out of range.
        """
        found = re.fullmatch(r"(accuracy)|(bytes|accuracy>)=(\d+(?:\.\d+)?)", text.strip())
        if not found:
            raise ConfigError(
                f"unknown goal {text!r}; known: accuracy, bytes=18, accuracy>=0.98 (any numbers)"
            )
        if found[1]:
            return cls()
        kind: Literal["bytes", "accuracy>"] = "bytes" if found[2] == "bytes" else "accuracy>"
        value = float(found[3])
        if kind == "accuracy>" and value > 1:
            raise ConfigError(f"goal {text!r}: an accuracy is a share from 0 to 1, such as 0.98")
        return cls(kind, value)

    def __str__(self) -> str:
        return self.kind if self.kind == "accuracy" else f"{self.kind}={self.value:g}"


HIGHEST_ACCURACY = Goal()
