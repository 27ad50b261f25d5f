"""Start the real Node worker and talk to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from support.pg import NODE, SERVERS, Database, run
from support.ran import TABLE

VERSIONS = ("018", "017")
HERE = Path(__file__).parent


def url(db: Database) -> str:
    info = db.connect().info
    return f"postgres://postgres@{info.host}:{info.port}/{db.name}"


def node_script(db: Database, version: str, code: str) -> Any:
    """Run async JavaScript with a WorkerUtils called utils; return what it returns."""
    source = f"""
        const {{ makeWorkerUtils }} = require('graphile-worker-{version}');
        (async () => {{
            const utils = await makeWorkerUtils({{ connectionString: {json.dumps(url(db))} }});
            try {{
                const answer = await (async () => {{ {code} }})();
                console.log('\\nANSWER ' + JSON.stringify(answer === undefined ? null : answer));
            }} finally {{ await utils.release(); }}
        }})().catch((error) => {{ console.error(error); process.exit(1); }});
    """
    printed = run([NODE, "-e", source], cwd=SERVERS.parent)
    return json.loads(printed.rsplit("ANSWER ", 1)[1])


class NodeWorker:
    """A Node worker process with the tasks of worker.js; each run of a task leaves a row in ran."""

    def __init__(self, db: Database, version: str, **options: Any) -> None:
        self.db = db
        db.rows(TABLE)
        env = {
            **os.environ,
            "GW_MODULE": f"graphile-worker-{version}",
            "GW_URL": url(db),
            "GW_OPTIONS": json.dumps(options),
            "NODE_PATH": str(SERVERS),
        }
        self.process = subprocess.Popen(
            [NODE, str(HERE / "worker.js")],
            cwd=SERVERS.parent,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def stop(self) -> str:
        """Ask the worker to shut down; return what it printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.output, _ = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
        return self.output

    def __enter__(self) -> NodeWorker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
