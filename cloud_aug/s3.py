"""Blobs in a bucket, for several services at once: S3, or what speaks its protocol.

A blob that is asked for comes into a bounded folder on this machine, checked against its name, and is served from
there: boards trust this service's certificate and no other, and an index is mapped from a file. Credentials come from
where AWS's own tools look (AWS_ACCESS_KEY_ID ..., a role), never from settings.toml.
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cloud_aug.blobs import PIECE_BYTES, Blobs, Stored
from edgewire.errors import CorruptFile, EdgeError, NotFound, RetryLater, UsageError
from edgewire.files import digest as digest_of
from edgewire.files import digest_of_file
from edgewire.messages import BlobRef

CONNECT_S, READ_S, ATTEMPTS = 3.0, 10.0, 3
PAUSE_S = 5.0  # after a failure, requests are sent away at once: waiting ones would take every place
IN_USE_S = 300.0  # a file in the cache that was asked for so recently is not dropped
PRESIGNED_S = 300

_MISSING = ("404", "NoSuchKey", "NotFound")
_THERE = ("412", "PreconditionFailed")
_LATER = ("500", "502", "503", "504", "429", "409", "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout")


class S3Blobs:
    """A bucket of blobs with a cache in front. address: s3://BUCKET/PREFIX; endpoint: '' is AWS."""

    def __init__(self, address: str, *, endpoint: str, cache: Path, cache_bytes: int) -> None:
        parts = urlsplit(address)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise UsageError(f"object_store '{address}' cannot be used", hint="write s3://BUCKET or s3://BUCKET/PREFIX")
        self._bucket, self._prefix = parts.netloc, f"{parts.path.strip('/')}/".lstrip("/")
        self._client = _client(endpoint)
        self._cache, self._cache_bytes = Blobs(cache), cache_bytes
        self._fetching: weakref.WeakValueDictionary[str, _Lock] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._down_until = 0.0

    def put(self, data: bytes) -> BlobRef:
        """See BlobStore."""
        ref = BlobRef(digest_of(data), len(data))
        self._put(ref, data)
        return ref

    def put_file(self, path: Path) -> BlobRef:
        """See BlobStore."""
        ref = BlobRef(digest_of_file(path), path.stat().st_size)
        with path.open("rb") as file:
            self._put(ref, file)
        return ref

    def path(self, digest: str) -> Path:
        """See BlobStore. From the cache, where it comes first."""
        with self._one_at_a_time(digest):
            try:
                found = self._cache.path(digest)
                os.utime(found)  # the least recently used are dropped first
            except (NotFound, FileNotFoundError):
                found = self._fetch(digest)
                self._trim()
        return found

    def read(self, digest: str, *, verify: bool = True) -> bytes:
        """See BlobStore. A copy in the cache that was damaged is fetched again."""
        data = self.path(digest).read_bytes()
        if verify and digest_of(data) != digest:
            self._cache.remove(digest)
            data = self.path(digest).read_bytes()
        return data

    def check(self, digest: str) -> None:
        """See BlobStore."""
        if digest_of_file(self.path(digest)) != digest:
            self._cache.remove(digest)
            self.path(digest)

    def sweep(self, *, now: float | None = None) -> int:
        """See BlobStore. In a bucket an object is there whole or not at all; the cache may hold halves, and copies of
        what was removed on another machine."""
        there, recently = {blob.digest for blob in self.stored()}, time.time() - IN_USE_S
        gone = [blob.digest for blob in self._cache.stored() if blob.digest not in there and blob.at < recently]
        for digest in gone:
            self._cache.remove(digest)
        return self._cache.sweep(now=now) + len(gone)

    def stored(self) -> Iterator[Stored]:
        """See BlobStore."""
        with self._asking():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    name = entry["Key"].rsplit("/", 1)[-1]
                    if entry["Key"] == self._key(name):  # not another store's, below this one
                        yield Stored(name, entry["Size"], entry["LastModified"].timestamp())

    def remove(self, digest: str) -> None:
        """See BlobStore."""
        with self._asking():
            self._client.delete_object(Bucket=self._bucket, Key=self._key(digest))
        self._cache.remove(digest)

    def clear(self) -> None:
        """See BlobStore."""
        for blob in list(self.stored()):
            self.remove(blob.digest)

    def internal_address(self, digest: str) -> str:
        """See BlobStore. A path with a signature that works for minutes."""
        named = {"Bucket": self._bucket, "Key": self._key(digest)}
        made = urlsplit(self._client.generate_presigned_url("get_object", Params=named, ExpiresIn=PRESIGNED_S))
        return f"{made.path.lstrip('/')}?{made.query}"

    def _put(self, ref: BlobRef, body: Any) -> None:
        """The store checks the bytes against their digest, and of two writers at once it takes one."""
        there = self._head(ref)
        if there is True:
            return
        checksum = base64.b64encode(bytes.fromhex(ref.digest)).decode()
        condition = {"IfNoneMatch": "*"} if there is None else {}  # a damaged copy is replaced
        with contextlib.suppress(_There), self._asking():
            self._client.put_object(
                Bucket=self._bucket, Key=self._key(ref.digest), Body=body, ChecksumSHA256=checksum, **condition
            )

    def _head(self, ref: BlobRef) -> bool | None:
        """Whether the stored copy is whole, as far as the store can tell; None if there is none."""
        try:
            with self._asking():
                found = self._client.head_object(Bucket=self._bucket, Key=self._key(ref.digest), ChecksumMode="ENABLED")
        except NotFound:
            return None
        return base64.b64decode(found.get("ChecksumSHA256", "")).hex() == ref.digest

    def _fetch(self, digest: str) -> Path:
        try:
            with self._asking(), contextlib.closing(self._get(digest)) as body:
                return self._cache.receive(digest, body.iter_chunks(PIECE_BYTES))
        except NotFound:
            raise NotFound(f"there is no blob {digest[:12]}…") from None

    def _get(self, digest: str) -> Any:
        return self._client.get_object(Bucket=self._bucket, Key=self._key(digest))["Body"]

    def _trim(self) -> None:
        """Drop what was not asked for the longest until the cache fits again."""
        found = sorted(self._cache.stored(), key=lambda blob: blob.at)
        over, recently = sum(blob.size for blob in found) - self._cache_bytes, time.time() - IN_USE_S
        for blob in found:
            if over <= 0 or blob.at > recently:
                return
            self._cache.remove(blob.digest)
            over -= blob.size

    @contextlib.contextmanager
    def _one_at_a_time(self, digest: str) -> Iterator[None]:
        """Of requests for the same blob, one brings it."""
        with self._lock:
            lock = self._fetching.setdefault(digest, _Lock())
        with lock.held:
            yield

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what the store and the way to it can refuse into our errors."""
        import botocore.exceptions as store

        if time.monotonic() < self._down_until:
            raise RetryLater("the object store does not answer", retry_after_s=PAUSE_S)
        try:
            yield
        except store.ClientError as error:
            raise self._refusal(error) from None
        except store.NoCredentialsError:
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
            raise EdgeError("there are no credentials for the object store", hint=hint) from None
        except (store.BotoCoreError, ConnectionError, TimeoutError) as error:  # any other OSError is our own disk's
            self._down_until = time.monotonic() + PAUSE_S
            raise RetryLater("the object store does not answer", retry_after_s=PAUSE_S) from error

    def _refusal(self, error: Any) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        if code in _THERE or status == "412":
            return _There()
        if code == "NoSuchBucket":
            return EdgeError("the object store has no such bucket", hint="make it, or mend object_store")
        if code in _MISSING:
            return NotFound("there is no such object")
        if code in _LATER or status in _LATER:
            self._down_until = time.monotonic() + PAUSE_S
            return RetryLater("the object store is busy", retry_after_s=PAUSE_S)
        if code in ("BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"):
            return CorruptFile("what the object store received is not what was sent", hint="do the same again")
        return EdgeError(f"the object store refuses: {code or status}", hint="check its credentials and policy")

    def _key(self, digest: str) -> str:
        return f"{self._prefix}{digest[:2]}/{digest}"


class S3Work(S3Blobs):
    """The same without copies on this machine: what a build keeps between its steps is nobody's business after it."""

    def read(self, digest: str, *, verify: bool = True) -> bytes:
        """See BlobStore."""
        with self._asking(), contextlib.closing(self._get(digest)) as body:
            data: bytes = body.read()
        if verify and digest_of(data) != digest:
            raise CorruptFile(f"blob {digest[:12]}… does not match its name", hint="build again")
        return data


class _There(Exception):
    """Another writer was first; the same name is the same bytes."""


class _Lock:
    """A lock that can be referred to weakly."""

    def __init__(self) -> None:
        self.held = threading.Lock()


def _client(endpoint: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise UsageError("object_store needs boto3", hint="pip install 'edgectl[s3]'") from None
    patience = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    style = {"addressing_style": "path" if endpoint else "auto"}
    config = Config(
        connect_timeout=CONNECT_S, read_timeout=READ_S, retries=patience, s3=style, signature_version="s3v4"
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        return boto3.client("s3", endpoint_url=endpoint or None, config=config, region_name=region)
    except ValueError as error:
        raise UsageError(f"object_store_endpoint cannot be used: {error}", hint="write https://HOST:PORT") from None
