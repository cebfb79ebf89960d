"""What every command shares: exit codes, one sentence for a mistake, logs on stderr, results on stdout.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import atexit
import errno
import json
import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager

from fastzss.base.errors import UserError

RESUMED = "interrupted; the same command goes on from here"
ANEW = "interrupted; the same command starts anew"


def guarded(program, work, interrupted=RESUMED):
    """Run a command; what the user can mend becomes a sentence and an exit code, what is our mistake a traceback.

    `work` may return an exit code, and its KeyboardInterrupt may have words of its own.
    """
    quiet_logs()
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # what is done stays done while Python tidies up
    try:
        with interruptible():
            code = work()
            part_from_others()
        sys.stdout.flush()
        return code or 0
    except UserError as problem:
        return complain(program, str(problem), problem.code)
    except KeyboardInterrupt as stop:
        return complain(program, str(stop) or interrupted, 130)
    except BrokenPipeError:  # the reader of our output has left, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            return complain(
                program, f"the disk is full ({problem.filename or 'while writing'}); make room and repeat", 1
            )
        if isinstance(problem, PermissionError) or problem.errno == errno.EROFS:
            return complain(program, f"{problem.filename}: permission denied; choose a place you may use", 1)
        raise


@contextmanager
def interruptible():
    """Ctrl-C raises KeyboardInterrupt, and again half a second later should it get lost.

    Python drops an exception that happens to rise inside a finaliser; the user would have to press Ctrl-C twice.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(*_):
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGALRM)}
    report = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else report(lost)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def part_from_others():
    """Where several processes worked together, end that while Python is whole: what gloo's threads still hold of it
    would abort a process that has done all its work."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def complain(program, message, code):
    print(f"{program}: {message}", file=sys.stderr)
    return code


def quiet_logs():
    """Our own log on stderr, one line an event; other packages only from errors on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("fastzss")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False
    warnings.filterwarnings("ignore", module=r"(?!fastzss).*")


def say(result, as_json=False):
    """The result of a command on stdout: `key  value` lines, of a list of dicts a table; or JSON."""
    if as_json:
        print(json.dumps(result, default=str))
        return
    if isinstance(result, list):
        rows = [list(result[0]), *([_plain(value) for value in row.values()] for row in result)] if result else []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    width = max((len(key) for key in result), default=0)
    for key, value in result.items():
        print(f"{key:<{width}}  {_plain(value)}")


def _plain(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_plain(v) for v in value) or "none"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)
