"""Why a command cannot start or go on, in one line a person can act on."""


class Unusable(Exception):  # noqa: N818  names the state of what was given
    """Something the operator gave or owns cannot be used; the text says what to do. Exit code 2."""
