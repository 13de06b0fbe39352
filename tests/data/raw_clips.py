"""Raw clips for tests: records of pictures that are made by hand."""

import io

import numpy as np
import tensorflow as tf
from handmade_records import bytes_feature, ints_feature, sequence_example

RAMP = np.stack(np.broadcast_arrays(np.arange(0, 128, 2)[None], np.arange(48)[:, None], 9), -1)
"""A picture [48, 64, 3]: twice the column, the row, and 9."""


def png(image):
    """A file that the decoder reads as it is written, unlike a JPEG file."""
    return tf.io.encode_png(np.asarray(image, np.uint8)).numpy()


def flat(value, height=12, width=16):
    """A picture of one color, as a file."""
    return png(np.full((height, width, 3), value))


def jpeg(image, mode="RGB", form="JPEG", **options):
    """A JPEG file of another color space, or a file of another form, by Pillow."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).convert(mode).save(file, form, **options)
    return file.getvalue()


def record(video_id, frames, labels=(0,)):
    """A record of MediaSequence; `frames` are files, or whole features."""
    context = {"clip/media_id": bytes_feature(video_id.encode())}
    if labels:
        context["clip/label/index"] = ints_feature(*labels)
    return sequence_example(context, **{"image/encoded": frames})
