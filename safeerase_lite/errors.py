"""The one exception for everything a user can mend."""


class UserError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and what to do."""
