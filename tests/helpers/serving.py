"""`fastzss serve` in a process of its own, and what is sent to it."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from fastzss import world

WORDS = "tree|bush, grass, house, sky"
FASTZSS = Path(sys.executable).parent / "fastzss"


class Server:
    """A server of a run at a port of its own; `folder` is where it works, which stays empty."""

    def __init__(self, run, folder, *flags):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        environment = {**os.environ, "TMPDIR": str(folder)}
        self.process = subprocess.Popen(
            [FASTZSS, "serve", run, "--port", "0", "--json", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.about = json.loads(line)
        self.address, _, token = self.about["address"].partition("/?token=")
        self.token, self.complaints = token, []
        self.listener = threading.Thread(target=lambda: self.complaints.extend(self.process.stderr), daemon=True)
        self.listener.start()

    def client(self, **named):
        return httpx.Client(base_url=self.address, timeout=120, trust_env=False, **named)

    def stop(self, number=signal.SIGTERM):
        """The exit code."""
        self.process.send_signal(number)
        code = self.process.wait(90)
        self.listener.join(10)
        return code


def scene(index=0, split="test", form="PNG"):
    """The bytes of a picture."""
    file = io.BytesIO()
    world.scene(split, index).image.save(file, form)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def segment(client, image=None, **fields):
    files = {"image": ("x.png", image)} if image is not None else {"": ("", b"")}
    if image is None:
        return client.post("/api/segment", data=fields, files={"look": (None, fields.pop("look"))})
    return client.post("/api/segment", data=fields, files=files)


def pixels(address):
    return np.asarray(opened(base64.b64decode(address.partition(",")[2])))


def sentence(answer):
    """What an error says; it must be one, in JSON, and of no inner workings."""
    said = answer.json()["error"]
    assert 20 < len(said) < 400 and "Traceback" not in said and "0x" not in said and "\n" not in said, said
    return said
