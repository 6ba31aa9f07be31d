"""The command `python -m benchmarks`: one subcommand per module that measures something.

A measuring module offers `SUMMARY` (one line of help), `configure(parser)` and `run(arguments) ->
exit status`, and imports what is heavy or optional only inside `run`, so that `--help` works
without it.
"""

import argparse
import importlib
import sys

# Names of modules in this package, in the order of the help text.
COMMANDS = ("throughput", "adapters", "store", "memory", "start", "protocol")


def main() -> int:
    """Run the subcommand that the command line names; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the servers of this project and their peers.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"benchmarks.{name}")
        command = commands.add_parser(name, help=module.SUMMARY, description=module.__doc__)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        module.configure(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
