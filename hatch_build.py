"""Compiles the protocol to C for a wheel of one platform; pure Python is what is built otherwise.

Compiled is what every octet and every command goes through. What embedders inherit from is not, for
an interpreted class cannot inherit from a compiled one; nor is what runs once a connection. Each
module is in the wheel as Python too.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULES: Final = (
    *("_address", "_attributes", "_buffer", "_client", "_command", "_content", "_conversation"),
    *("_effects", "_errors", "_events", "_extensions", "_limits", "_observation", "_parameters"),
    *("_policy", "_quota", "_reply", "_server", "_state", "_xtext"),
)
# In a process of its own, for mypy and setuptools look at where they are and what they are told.
# The linters' configuration has plugins that are not there when a wheel is built.
_COMPILE: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
files = sys.argv[1:]
sys.argv[1:] = ["build_ext", "--inplace"]
setup(ext_modules=mypycify(["--config-file=", "--strict", *files], opt_level="3"))
"""


class CompiledProtocol(BuildHookInterface[Any]):
    """The build hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in a copy, below build/, and have the outcome put into the wheel."""
        if version == "editable":
            return
        folder = Path(self.root, "build", "mypyc")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(self.root, "lmtp_proto"), folder / "lmtp_proto")
        files = [os.path.join("lmtp_proto", f"{module}.py") for module in _MODULES]
        subprocess.run([sys.executable, "-c", _COMPILE, *files], cwd=folder, check=True)
        for extension in (*folder.glob("*.so"), *folder.glob("lmtp_proto/*.so")):
            build_data["force_include"][str(extension)] = str(extension.relative_to(folder))
        build_data["infer_tag"] = True
        build_data["pure_python"] = False
