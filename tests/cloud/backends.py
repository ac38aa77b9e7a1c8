"""What a cloud may stand on, for tests that must hold on each: files in its folder, or PostgreSQL and an S3 server."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:  # nothing heavy: every test of the project comes by here
    from cloud_aug.cloud import Stores
    from tests.cloud.postgres_server import PostgresServer

# For a test that looks at the files themselves.
files_only = pytest.mark.parametrize("backend", ["files"], indirect=True)

BUCKET = "blobs"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester", "AWS_EC2_METADATA_DISABLED": "true"}


class Backend(Protocol):
    """Makes places for new clouds, and copies of clouds that nobody has open."""

    def stores(self) -> Stores: ...

    def copied(self, cloud: Path, target: Path) -> AbstractContextManager[Path]:
        """A copy for one test."""
        ...


class Files:
    """SQLite and a folder, inside the data folder."""

    def stores(self) -> Stores:
        from cloud_aug.cloud import Stores

        return Stores()

    @contextlib.contextmanager
    def copied(self, cloud: Path, target: Path) -> Iterator[Path]:
        yield Path(shutil.copytree(cloud, target))


@dataclass
class Services:
    """A database per cloud on one PostgreSQL, a prefix per cloud in one bucket."""

    postgres: PostgresServer
    endpoint: str
    _number: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._run = secrets.token_hex(3)  # clouds of an earlier run may stand on the same server

    def stores(self) -> Stores:
        from cloud_aug.cloud import Stores

        name = self._name()
        return Stores(self.postgres.create(name), f"s3://{BUCKET}/{name}", self.endpoint)

    @contextlib.contextmanager
    def copied(self, cloud: Path, target: Path) -> Iterator[Path]:
        from cloud_aug import settings

        name, folder = self._name(), Path(shutil.copytree(cloud, target, ignore=shutil.ignore_patterns("cache")))
        before = settings.load(cloud).object_store.rpartition("/")[2]
        self.postgres.create(name, copy_of=before)
        bucket = self.bucket
        for entry in bucket.objects.filter(Prefix=f"{before}/"):
            source = {"Bucket": BUCKET, "Key": entry.key}
            bucket.Object(entry.key.replace(before, name, 1)).copy_from(CopySource=source)
        file = folder / settings.FILE_NAME
        file.write_text(re.sub(rf"\b{before}\b", name, file.read_text()))
        yield folder
        self.postgres.drop(name)  # hundreds of them would keep the server busy with cleaning
        bucket.objects.filter(Prefix=f"{name}/").delete()

    @functools.cached_property
    def bucket(self) -> Any:
        """The bucket, as an administrator has it."""
        import boto3

        return boto3.resource("s3", endpoint_url=self.endpoint, region_name="us-east-1").Bucket(BUCKET)

    def _name(self) -> str:
        return f"cloud_{self._run}_{next(self._number)}"


class ObjectStore:
    """A real S3 server on loopback, in a thread of this process, with one bucket."""

    def __init__(self) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        os.environ.update(CREDENTIALS)  # also for the commands that tests start
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        self._server.stop()
