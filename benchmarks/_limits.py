"""The limit on open files, which thousands of connections need higher than most shells set it."""

import resource


def raise_file_limit() -> None:
    """Raise the limit of this process, and of those it starts, to the highest allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
