"""What the gateway's rules want done, and in which order it is done.

Pure. Rules say what is to be kept, published and told. Whoever carries it out takes all
that one wake-up brought together, and does it `in_order`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ddnn.message import Publish


class Keep(NamedTuple):
    """Effect: append these bytes to the journal, before anything is published."""

    data: bytes


class Fault(NamedTuple):
    """Effect: tell people of what should not have happened, and what it happened to."""

    what: str
    error: Exception


Effect = Publish | Keep | Fault


def in_order(effects: Iterable[Effect]) -> list[Effect]:
    """The same effects as they are carried out: one write for the journal, then the messages.

    A decision that has left must be known after a crash. That later records are written before
    earlier messages leave does no harm: a crash between them looks like one before the broker had
    the messages, and what the journal says is sent again.
    """
    kept: list[bytes] = []
    messages: list[Effect] = []
    for effect in effects:
        if isinstance(effect, Keep):
            kept.append(effect.data)
        else:
            messages.append(effect)
    return [Keep(b"".join(kept)), *messages] if kept else messages
