"""The pictures that a command is given, one by one, and names for what is made of them."""

import importlib.util
import logging
import re
from pathlib import Path

from fastzss.base.errors import Incomplete, UserError

FPS = 2.0  # frames a second that are taken of a video
# what is made of pictures is no picture to look at
OURS = re.compile(r"\.(segmented|named|watch-[^.]*)(\.mask)?\.png$")

log = logging.getLogger("fastzss")


class Pictures:
    """Files, and those in folders and below; animations and videos are read frame by frame.

    Iterated, it gives (what to call the picture, its RGB image, the path of what is made of it, without an ending);
    one that cannot be read is said and left out.
    """

    def __init__(self, paths, out, fps=FPS):
        from fastzss.base.files import make_folder
        from fastzss.sources.video import VIDEOS

        self.files, self.out, self.fps, self.bad, self.read, self._used = [], out, fps, [], 0, set()
        if not fps > 0:
            raise UserError(f"--fps {fps:g}: expected a number of frames above 0", code=2)
        for path in paths:
            if path.is_dir():
                self.files += in_folder(path)
            elif not path.is_file():
                raise UserError(f"{path}: no such image; expected an image file or a folder")
            elif path.suffix.lower() in VIDEOS and importlib.util.find_spec("av") is None:
                raise UserError(
                    f"{path}: is a video, and nothing here reads one: `pip install 'fastzss[video]'`, or make frames "
                    f"of it: `mkdir frames && ffmpeg -i {path} -vf fps={fps:g} frames/%05d.png`, and give the folder"
                )
            else:
                self.files.append((path, Path(path.stem)))
        make_folder(out)

    def __iter__(self):
        from tqdm import tqdm

        from fastzss.sources.images import ImageUnreadable, frames
        from fastzss.sources.video import VIDEOS, video_frames

        for path, place in tqdm(self.files, unit="img", disable=None if len(self.files) > 1 else True):
            try:
                video = path.suffix.lower() in VIDEOS
                for number, image in video_frames(path, self.fps) if video else frames(path):
                    self.read += 1
                    frame = number is not None
                    name = f"{path}#{number}" if frame else str(path)
                    yield name, image, self.place(f"{place}.{number:04d}" if frame else place)
            except ImageUnreadable as problem:
                self.bad.append(str(problem))
                log.warning("%s", problem)

    def place(self, wanted):
        """The path of what is made of a picture: no two are alike, on systems that take A for a too."""
        place, count = str(wanted), 1
        while place.casefold() in self._used:
            count += 1
            place = f"{wanted}-{count}"
        self._used.add(place.casefold())
        return self.out / place

    def whole(self, result):
        """The result, unless pictures could not be read."""
        if self.bad:
            several = f"{len(self.bad)} of {len(self.files)} pictures could not be read, the first is "
            raise Incomplete(f"{several if len(self.files) > 1 else ''}{self.bad[0]}", result)
        return result


def in_folder(folder):
    """[(file, its path below the folder, without an ending)] of the images there."""
    from fastzss.sources.images import SUFFIXES, files_below

    try:
        files = [path for path in files_below(folder) if not OURS.search(path.name)]
    except OSError as problem:
        raise UserError(f"{folder}: cannot be listed ({problem})") from None
    if not files:
        endings = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{folder}: no images there or below; expected files ending in {endings}")
    return [(path, path.relative_to(folder).with_suffix("")) for path in files]
