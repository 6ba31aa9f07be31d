"""Sphinx settings; the version comes from pyproject.toml, so that it is said once."""

import tomllib
from pathlib import Path

_pyproject = Path(__file__).parent.parent / "pyproject.toml"

project = "lmtp-proto"
author = "the lmtp-proto authors"
copyright = f"2026, {author}"
release = tomllib.loads(_pyproject.read_text(encoding="utf-8"))["project"]["version"]
version = release

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"lmtp-proto {release}"
