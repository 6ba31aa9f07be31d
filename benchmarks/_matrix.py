"""Which servers are measured under which load, and how their figures are kept."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks._cell import Measurement
from benchmarks._load import Load
from benchmarks._report import Results
from benchmarks._servers import Handler, Server


@dataclass(frozen=True)
class Scenario:
    """A load for servers that handle messages as `handler` says. `name` is unique for a handler.

    `warm` is sent before it, where its own warm-up is not what a server shall have seen.
    """

    handler: Handler
    name: str
    load: Load
    warm: Load | None = None


@dataclass(frozen=True)
class Cell:
    """A scenario for one server."""

    scenario: Scenario
    server: Server

    @property
    def name(self) -> str:
        """Return HANDLER/SERVER/SCENARIO."""
        return f"{self.scenario.handler}/{self.server.name}/{self.scenario.name}"


def cells(
    scenarios: Sequence[Scenario],
    servers: Sequence[Server],
    references: Mapping[Handler, Sequence[Server]],
    patterns: Sequence[str] | None,
) -> list[Cell]:
    """Return the cells whose names match a glob of `patterns` (None: all), in the report's order.

    A scenario that is measured at all is measured on the `references` of its handler, too.
    """
    found = []
    for scenario in scenarios:
        every = [Cell(scenario, server) for server in servers]
        chosen = [
            cell
            for cell in every
            if patterns is None or any(fnmatch.fnmatch(cell.name, glob) for glob in patterns)
        ]
        always = references[scenario.handler]
        found += [cell for cell in every if chosen and (cell in chosen or cell.server in always)]
    return found


def scenarios_of(chosen: Sequence[Cell]) -> list[dict[str, object]]:
    """Return what a results file says of the scenarios of `chosen`."""
    return [
        {
            "handler": scenario.handler,
            "name": scenario.name,
            "load": asdict(scenario.load),
            "servers": [cell.server.name for cell in chosen if cell.scenario == scenario],
        }
        for scenario in dict.fromkeys(cell.scenario for cell in chosen)
    ]


def record(results: Results, cell: Cell, number: int, measurement: Measurement) -> str:
    """Add what round `number` showed of `cell`; return it in a few words."""
    if measurement.problem is not None:
        results["failures"][f"{cell.name} round {number + 1}"] = measurement.problem
    results["measurements"].append(
        {
            "handler": cell.scenario.handler,
            "scenario": cell.scenario.name,
            "server": cell.server.name,
            "round": number,
            **asdict(measurement),
        }
    )
    return measurement.problem or f"{measurement.messages_per_second:.0f} msg/s"
