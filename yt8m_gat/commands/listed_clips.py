"""The clips of a command line: words, a list, or the lines of a list that the words name."""

import os
from collections.abc import Sequence

from yt8m_gat.config import ConfigError
from yt8m_gat.video.clips import Clip, clips_of, read_clips


def listed_clips(videos: Sequence[str], labels: str | None) -> list[Clip]:
    """Returns the clips of the command line, of the list, or those of the list that are named.

    Args:
        videos: Files, patterns, lists or folders.
        labels: The value of `--labels`.

    Raises:
        ConfigError: Nothing is named, or a named video has no line in the list.
        ClipListError: See `clips_of` and `read_clips`.
    """
    if labels is None:
        if not videos:
            raise ConfigError("name videos: files, patterns, lists or folders; or give --labels")
        return clips_of(videos)
    listed = read_clips(labels)
    if not videos:
        return listed
    named = {os.path.realpath(clip.path): clip.path for clip in clips_of(videos)}
    missing = set(named) - {os.path.realpath(clip.path) for clip in listed}
    if missing:
        raise ConfigError(
            f"--labels={labels} must have a line for each video. None is for "
            f"{named[min(missing)]}; add `path,label`, with the path relative to the list"
        )
    return [clip for clip in listed if os.path.realpath(clip.path) in named]
