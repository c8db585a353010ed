"""Makes the real picamera2 open libcamera's virtual camera. Python imports this by itself.

What of picamera2 is real: finding, opening, configuring, starting and closing the camera, requests
in their order, timeouts, metadata. What is not: buffers are memory (`fake_dma.c`); the virtual
camera knows one format only (NV12, which it wants in two planes) and few sizes, so it is asked for
these, and what the program asked for is made of it here; and three modules that only previews and
raw files need are empty.
"""

import mmap
import os
import sys
from unittest.mock import MagicMock

for name in ("pykms", "pidng", "pidng.core", "pidng.camdefs", "OpenEXR"):
    sys.modules[name] = MagicMock()

import libcamera  # noqa: E402
import numpy as np  # noqa: E402
import picamera2.picamera2  # noqa: E402
from picamera2 import CompletedRequest, Picamera2  # noqa: E402
from picamera2.allocators import DmaAllocator  # noqa: E402
from PIL import Image  # noqa: E402

SIZE = (640, 480)


class TwoPlanes(DmaAllocator):
    """One plane of brightness and one of colour, where `DmaAllocator` makes a single one."""

    def allocate(self, libcamera_config, _use_case):
        self.libcamera_fds = []
        self.cleanup()
        for fd in self.open_fds:
            os.close(fd)
        self.open_fds, self.frame_buffers = [], {}
        for stream in libcamera_config:
            assert str(stream.pixel_format) == "NV12"
            split = stream.stride * stream.size.height
            made = self.frame_buffers[stream.stream] = []
            for number in range(stream.buffer_count):
                fd = self.dmaHeap.alloc(f"picamera2-{number}", stream.frame_size).get()
                self.open_fds.append(fd)
                planes = []
                for offset, length in ((0, split), (split, stream.frame_size - split)):
                    plane = libcamera.FrameBuffer.Plane()
                    plane.fd, plane.offset, plane.length = fd, offset, length
                    planes.append(plane)
                self.libcamera_fds.append(planes[0].fd)
                self.mapped_buffers_used[planes[0].fd] = False
                buffer = libcamera.FrameBuffer(planes)
                made.append(buffer)
                self.mapped_buffers[buffer] = mmap.mmap(
                    planes[0].fd, stream.frame_size, mmap.MAP_SHARED, mmap.PROT_READ
                )


def raw_modes(camera):
    """The virtual camera has no sensor modes."""
    found = camera.camera.generate_configuration([libcamera.StreamRole.Viewfinder]).at(0)
    return [{"format": str(found.pixel_format), "size": (found.size.width, found.size.height)}]


def video_configuration(camera, main=None, **options):
    """What the program asks for is remembered; the camera is asked for what it has."""
    camera.asked = main
    known = set(camera.camera_controls)
    controls = {k: v for k, v in options.pop("controls", {}).items() if k in known}
    return ask(camera, {"format": "NV12", "size": SIZE}, controls=controls, **options)


def make_array(request, name):
    """The picture in the format and size that the program asked for."""
    asked = request.picam2.asked
    # picamera2 names formats from the last byte on: BGR888 is red, green, blue in an array.
    assert (name, asked["format"]) == ("main", "BGR888")
    data = np.frombuffer(request.make_buffer(name), np.uint8)
    width, height = SIZE
    light = data[: width * height].reshape(height, width)
    colour = data[width * height :].reshape(height // 2, width // 2, 2).repeat(2, 0).repeat(2, 1)
    whole = np.dstack([light, colour])
    return np.array(Image.fromarray(whole, "YCbCr").convert("RGB").resize(asked["size"]))


ask = Picamera2.create_video_configuration
Picamera2.create_video_configuration = video_configuration
Picamera2._get_raw_modes = raw_modes
CompletedRequest.make_array = make_array
picamera2.picamera2.DmaAllocator = TwoPlanes
