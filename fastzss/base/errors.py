"""Errors a user can mend: what was found, where, what was expected, what to do."""

import difflib


class UserError(Exception):
    """A mistake of the user or of the machine: a door prints its sentence and exits with `code`, no traceback."""

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code


class Incomplete(UserError):
    """A command did most of its work: its result is printed, then what is missing is said."""

    def __init__(self, message, result):
        super().__init__(message)
        self.result = result


def nearest(name, names):
    """' (did you mean "x"?)' when one of `names` is close to `name`, else ''."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""
