"""Radiometric JPEGs as FLIR's cameras write them, with counts of the sensor that a test chooses."""

import io
import struct

from PIL import Image

# Of the camera, by their place in its record: from temperatures to counts, and what lies between object and sensor.
_CAMERA = {32: 1.0, 36: 0.0, 40: 293.15, 44: 293.15, 48: 293.15, 52: 1.0, 60: 0.5, 88: 14000.0, 92: 1385.0, 96: 1.0}
_CAMERA |= {112: 0.006569, 116: 0.01262, 120: -0.002276, 124: -0.00667, 128: 1.9, 132: 423.15, 136: 233.15}
_CAMERA |= {780: 0.011}


def radiometric_jpeg(counts, picture):
    """Return the bytes of a JPEG of a picture with the counts, (H, W) uint16, as FLIR's cameras store them."""
    height, width = counts.shape
    raw = struct.pack("<HHH", 2, width, height).ljust(32, b"\0") + counts.astype("<u2").tobytes()
    camera = bytearray(900)
    for place, value in _CAMERA.items():
        struct.pack_into("<f", camera, place, value)
    struct.pack_into("<i", camera, 776, -7000)
    start = 64 + 2 * 32
    directory = b"".join(
        struct.pack(">HHIIII12x", kind, 1, 100, 1, offset, size)
        for kind, offset, size in ((1, start, len(raw)), (32, start + len(raw), len(camera)))
    )
    # The count covers the two halves of the header, too, where flyr begins to look.
    header = (b"FFF\0" + bytes(16) + struct.pack(">III", 100, 64, 4)).ljust(64, b"\0")
    records = header + directory + raw + bytes(camera)
    segment = b"FLIR\0\x01\0\0" + records
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG")
    content = file.getvalue()
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
