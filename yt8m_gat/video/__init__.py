"""Video files to frames and sound, and lists of clips; no TensorFlow.

It needs PyAV, the extra `video`, when the first file is opened.
"""

from yt8m_gat.video.clips import Clip, ClipListError, clips_of, read_clips
from yt8m_gat.video.decoding import Frame, Video, VideoError, VideoInfo, probe

__all__ = [
    "Clip",
    "ClipListError",
    "Frame",
    "Video",
    "VideoError",
    "VideoInfo",
    "clips_of",
    "probe",
    "read_clips",
]
