"""These tests need a process with Triton's interpreter from its start: ../test_interpreter.py runs them in one."""

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["*.py"]
