"""The error that means the user can put things right, and two kinds of it that a caller may want to tell apart."""


class UserError(Exception):
    """A mistake that a user can make and mend: one line with what is wrong, where, and what to do.

    The command line prints the line alone and exits with code 2; everything else is a defect of the
    program and keeps its traceback.
    """


class StoppedError(UserError):
    """The user stopped a run, which can be resumed."""


class InUseError(UserError):
    """Another process has the run folder."""
