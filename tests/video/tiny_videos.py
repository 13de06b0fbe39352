"""Writes tiny videos with PyAV for tests; each frame's number can be read off its pixels."""

from fractions import Fraction

import av
import numpy as np

STEP = 6
"""Gray levels from one frame to the next."""


def numbered(count, height=48, width=64):
    """Flat gray images; see `numbers_of`."""
    return [np.full((height, width, 3), 20 + STEP * k, np.uint8) for k in range(count)]


def numbers_of(frames):
    """The numbers of decoded `numbered` images."""
    return [round((float(frame.image.mean()) - 20) / STEP) for frame in frames]


def write(
    path,
    images=(),
    times=None,
    fps=10,
    codec="libx264",
    sound=None,
    sound_rate=16_000,
    layout="mono",
    sound_codec="aac",
    sound_start=0.0,
    prepare=lambda stream: None,
    sounds_first=False,
    container_options=None,
    **options,
):
    """Writes a file.

    Args:
        path: Its name; the ending chooses the container.
        images: uint8 [H, W, 3].
        times: Presentation times in milliseconds; None: `fps` a second.
        fps: See `times`.
        codec: Codec of the picture.
        sound: int16 [channels, N], or None.
        sound_rate: Samples a second.
        layout: Of the channels.
        sound_codec: Codec of the sound.
        sound_start: Seconds at which the sound begins.
        prepare: Called with the stream of the picture before it is written.
        sounds_first: Whether the stream of the sound comes first.
        container_options: Of the container.
        **options: Of the encoder of the picture, such as `g="12"`.
    """
    options = {"crf": "10", "preset": "ultrafast", **options} if codec == "libx264" else options
    with av.open(str(path), "w", options=container_options) as container:
        streams = {}
        kinds = (["picture"] if len(images) else []) + (["sound"] if sound is not None else [])
        for kind in reversed(kinds) if sounds_first else kinds:
            if kind == "picture":
                stream = container.add_stream(codec, rate=fps, options=options)
                stream.height, stream.width = images[0].shape[:2]
                stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                prepare(stream)
            else:
                stream = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
            streams[kind] = stream
        packets = []
        if len(images):
            packets += _picture(streams["picture"], images, times, fps)
        if sound is not None:
            packets += _sound(streams["sound"], sound, sound_rate, layout, sound_start)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            container.mux(packet)
    return str(path)


def _picture(stream, images, times, fps):
    packets = []
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=stream.pix_fmt)
        frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
        frame.pts = number if times is None else times[number]
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _sound(stream, sound, rate, layout, start):
    packets = []
    frame_type = stream.codec_context.format.name
    resampler = av.AudioResampler(frame_type, layout, rate)
    fifo = av.AudioFifo()
    size = stream.codec_context.frame_size or 1024
    whole = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(np.asarray(sound, np.int16).T.reshape(1, -1)), "s16", layout
    )
    whole.sample_rate = rate
    for part in resampler.resample(whole):
        part.pts = None
        fifo.write(part)
    position = round(start * rate)
    while (frame := fifo.read(size, partial=True)) is not None and frame.samples:
        frame.pts, frame.time_base = position, Fraction(1, rate)
        position += frame.samples
        packets += stream.encode(frame)
    return packets + stream.encode(None)
