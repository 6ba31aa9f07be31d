"""Which version of the distribution runs."""


def own_version() -> str:
    """The version, as pip tells it; "unknown" where the distribution is not installed, or its
    metadata cannot be read."""
    try:
        # It brings half a megabyte along, for what few processes tell.
        from importlib.metadata import PackageNotFoundError, version
    except ImportError:
        return "unknown"
    try:
        return version("lmtp-proto")
    except PackageNotFoundError:
        return "unknown"
