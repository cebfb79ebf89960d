"""A port, a model, and an orderly end: what runs is finished, what waits is refused."""

import errno
import logging
import secrets
import signal
import socket
import time
from dataclasses import replace

import psutil

from fastzss.base.errors import UserError
from fastzss.methods.registry import load

PATIENCE = 60  # seconds that a stopping server gives to what runs


def serve(config, ready):
    """Answer until somebody stops it; `ready` is called with what there is to say once it answers."""
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as problem:
        raise UserError(f'the page needs {problem.name}: `pip install "fastzss[serve]"`', code=2) from None
    from fastzss.pages.serve.app import application

    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # whoever sent a broken form is told, not we
    began = time.perf_counter()
    if not config.local and config.token is None:
        config = replace(config, token=secrets.token_hex(16))
    with listening(config.host, config.port) as door:  # whoever comes while the model is loaded waits
        model = load(config.run, config.device, config.weights, config.checkpoint)
        app = application(model, config, str(config.run))

        class Server(uvicorn.Server):
            def handle_exit(self, number, frame):
                app.state.turns.stop()
                super().handle_exit(number, frame)

            async def startup(self, sockets=None):
                await super().startup(sockets)
                ready(about(config, door, time.perf_counter() - began))

        settings = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=PATIENCE,
        )
        # uvicorn hands the signal on when all is done; a server that was told to stop has done what it was told
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            Server(settings).run([door])
        finally:
            signal.signal(signal.SIGTERM, before)


def about(config, door, seconds):
    port = door.getsockname()[1]
    host = f"[{config.host}]" if ":" in config.host else config.host
    token = f"/?token={config.token}" if config.token else ""
    return {"address": f"http://{host}:{port}{token}", "run": str(config.run), "seconds": round(seconds, 1)}


def listening(host, port):
    """A socket that listens; a port that is taken is said, and no other is tried."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as problem:
        raise UserError(f"--host {host}: is no address of this machine ({problem})", code=2) from None
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen(256)
    except OSError as problem:
        door.close()
        if problem.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken {taken_by(port)}, or give another --port") from None
        if problem.errno == errno.EACCES:
            raise UserError(f"--port {port}: this system keeps it for the administrator; give one above 1023") from None
        raise UserError(f"--host {host}: cannot be listened at ({problem.strerror})", code=2) from None
    return door


def taken_by(port):
    """Who holds a port, and how it is freed."""
    try:
        doors = [door for door in psutil.net_connections("tcp") if door.status == psutil.CONN_LISTEN]
        process = psutil.Process(next(door.pid for door in doors if door.laddr.port == port and door.pid))
        command = " ".join(process.cmdline())[:120]
        return f"by process {process.pid} (`{command}`); end it with `kill {process.pid}`"
    except (psutil.Error, StopIteration, OSError):
        return f"by a process of somebody else; `ss -ltnp 'sport = :{port}'` as administrator says by which"
