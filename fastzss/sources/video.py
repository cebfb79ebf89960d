"""Frames of videos, by PyAV (extra [video])."""

from fastzss.sources.images import ImageUnreadable

VIDEOS = frozenset((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"))


def video_frames(path, fps):
    """(number, upright RGB) of so many frames a second, or of all where there are fewer; from 0."""
    import av

    number = 0
    try:
        with av.open(str(path)) as video:
            if not video.streams.video:
                raise ImageUnreadable(f"{path}: has no pictures")
            for frame in video.decode(video=0):
                if (frame.time or 0.0) + 1e-6 >= number / fps:
                    yield number, frame.to_image().rotate(frame.rotation, expand=True)
                    number += 1
    except av.error.FFmpegError as problem:
        raise ImageUnreadable(f"{path}: not a readable video ({problem})") from None
    if not number:
        raise ImageUnreadable(f"{path}: has no pictures")
