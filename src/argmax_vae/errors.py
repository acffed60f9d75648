"""The one exception that the command line turns into a single line and exit code 2."""


class UsageError(ValueError):
    """A wrong key, value or file, named in one line together with what is allowed or what to do."""
