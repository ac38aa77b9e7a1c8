"""What the enrolment and the manifests say, for showing only: nothing is verified, and nothing but JSON is imported, so
that `edgectl status` starts fast. `edgectl.enrolment` and `edgectl.tasks` own the files and read them for everything
else."""

from __future__ import annotations

import base64
import json
from typing import Any

from edgectl.home import Home
from edgewire.errors import CorruptFile


def glance(home: Home) -> dict[str, Any] | None:
    """{url, board, granted} or None: not enrolled. Raises CorruptFile."""
    try:
        record = json.loads(home.enrolment.read_bytes())
        return {"url": str(record["url"]), "board": str(record["board"]), "granted": [str(t) for t in record["tasks"]]}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise CorruptFile(f"{home.enrolment} is damaged", hint="enroll again with --force and a new token") from None


def metric(home: Home, task_id: str) -> str:
    """What the task is measured by; 'accuracy' where nothing readable says otherwise."""
    try:
        statement = json.loads(base64.b64decode(json.loads(home.manifest(task_id).read_bytes())["payload"]))
        return str(statement["body"]["task"]["metric"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "accuracy"
