"""The one error that means the user can put things right."""


class UserError(Exception):
    """A mistake that a user can make and mend: one line with what is wrong, where, and what to do.

    The command line prints the line alone and exits with code 2; everything else is a defect of the
    program and keeps its traceback.
    """
