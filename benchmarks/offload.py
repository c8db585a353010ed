"""Sending the pictures themselves, raw, as JPEG or WebP; or, as the least there can be, nothing."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddnn import topics, wire
from ddnn.evaluate import Evaluator
from ddnn.mqtt import Client
from ddnn.wire import Kind
from training.datasets.base import MultiCameraSet

QUALITIES = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95)


#: A message without a payload: what it costs is what any message costs.
NOTHING = "nothing"


class Offload(NamedTuple):
    """A way to send pictures.

    Attributes:
        quality: of the encoder; None: it has none.
    """

    name: str
    quality: int | None

    def encode(self, image: NDArray[np.uint8]) -> bytes:
        """What is sent of a picture (H, W, C)."""
        if self.name == NOTHING:
            return b""
        if self.quality is None:
            return image.tobytes()
        buffer = io.BytesIO()
        picture = Image.fromarray(image.squeeze())
        if self.name == "JPEG":
            picture.save(buffer, "JPEG", quality=self.quality, optimize=True)
        else:
            picture.save(buffer, "WebP", quality=self.quality, method=6)
        return buffer.getvalue()

    def decode(self, data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The picture that arrives."""
        if self.quality is None:
            return np.frombuffer(data, np.uint8).reshape(shape)
        mode = "RGB" if shape[2] == 3 else "L"
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert(mode)).reshape(shape)


def accuracy(evaluator: Evaluator, data: MultiCameraSet, **options: Any) -> float:
    """Share of right decisions."""
    present = options.pop("present", data.present)
    result = evaluator.evaluate(data.images, present, **options)
    return float(np.mean(result.label == data.labels))


def through(offload: Offload, data: MultiCameraSet) -> MultiCameraSet:
    """The data set as it arrives."""
    images = data.images.copy()
    for n, d in zip(*np.nonzero(data.present), strict=True):
        images[n, d] = offload.decode(offload.encode(images[n, d]), images[n, d].shape)
    return replace(data, images=images)


def choose_quality(name: str, evaluator: Evaluator, validation: MultiCameraSet) -> Offload:
    """The lowest quality that costs no accuracy on validation samples."""
    wanted = accuracy(evaluator, validation)
    for quality in QUALITIES:
        offload = Offload(name, quality)
        if accuracy(evaluator, through(offload, validation)) >= wanted:
            return offload
    return Offload(name, QUALITIES[-1])


class Sender(threading.Thread):
    """Sends every camera's pictures in their slots, each on a connection of its own.

    Args:
        encoded: by sample and camera; None: it has no view and sends no message.
    """

    def __init__(
        self,
        site: str,
        period_s: float,
        clients: list[Client],
        encoded: list[list[bytes | None]],
        first_slot: int,
        numbers: list[int],
    ) -> None:
        super().__init__(name="sender")
        self._period_s = period_s
        self._clients = clients
        self.encoded = encoded
        self._first_slot = first_slot
        self._topics = [topics.summary(site, number) for number in numbers]

    def run(self) -> None:
        for index, row in enumerate(self.encoded):
            slot = self._first_slot + index
            time.sleep(max(0.0, slot * self._period_s - time.time()))
            for client, topic, data in zip(self._clients, self._topics, row, strict=True):
                if data is not None:
                    client.publish(topic, payload(data, slot))


def payload(data: bytes, slot: int) -> bytes:
    """Of the message that carries a picture: with a header as ours, but nothing for nothing."""
    return wire.encode(Kind.FEATURES, tag=0, boot=0, slot=slot, body=data) if data else b""
