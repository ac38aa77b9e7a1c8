"""Online search, for modes 'embedding' and 'bits': queries come up, other people's samples go down."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass

import numpy as np

from cloud_aug import keys, pool, publications, replays, searchable, tasks
from cloud_aug.batches import Held
from cloud_aug.cloud import Cloud
from cloud_aug.pseudonyms import pseudonyms
from cloud_aug.publications import Publication
from cloud_aug.vectors import NEIGHBOURS, SearchIndex, bits_bytes
from edgewire import tensors
from edgewire.decoding import convert
from edgewire.errors import Conflict, CorruptFile, InvalidMessage, NotFound, NotGranted, NotReady, TooLarge
from edgewire.messages import MAX_SEARCH_CELLS, MAX_SEARCH_RESULTS, QUERIES_LIMIT_BYTES, SAMPLES_LIMIT_BYTES, SearchMeta
from edgewire.samples import to_bytes
from edgewire.tasks import Mode, Task

BYTES_BESIDE_VALUES = 64  # per sample: label, codes, names
LARGEST_SHARE = 0.2  # of an answer that one contributor may have
REPLAYED = 0.01  # of queries

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Question:
    """values: embeddings, float32 (n, dim), or sign bits, uint8 (n, bytes)."""

    mode: Mode
    values: np.ndarray
    k: int


class Searcher:
    """Holds the search indexes of each task: of what the manifest names, and of bases under release. A new publication
    replaces that of its base at the next search.

    replayed: the share of queries that are answered again exactly, aside, for the live figure of recall.
    """

    def __init__(self, cloud: Cloud, *, replayed: float = REPLAYED) -> None:
        self._cloud, self._replayed = cloud, replayed
        self._loaded: dict[tuple[str, str], tuple[int, SearchIndex]] = {}  # by task and base
        self._lock, self._replaying = threading.Lock(), threading.Lock()

    def search(self, board: str, task_id: str, body: bytes, *, now: float) -> bytes:
        """Samples like the queries, of every class, as bytes. The board's own contributions are never among them, nor
        what was withdrawn or has no consent any more; no contributor has more than a fifth.

        Raises NotGranted (the task does not allow this mode), InvalidMessage, TooLarge, Conflict (queries made with
        another base), NotReady.
        """
        task = tasks.load(self._cloud, task_id)
        if set(task.privacy.modes) == {"directory"}:
            raise NotGranted(f"task '{task_id}' does not allow searches", hint="use mode 'directory'")
        arrays, wanted = _unpacked(body, task_id)
        publication, index = self._current(task_id, wanted.base)
        question = _read_queries(arrays, wanted, index.dim)
        _check_allowed(task, question)
        own = pool.ids_of(self._cloud, task_id, board)
        scores, ids = self._find(publication, index, question, own)
        found = pool.by_ids(self._cloud, task, _best(scores, ids, _most(task)), now=now)
        samples = found.take(_fair(found)).samples
        scope = f"{publication.directory.digest}\0{board}"
        names = pseudonyms(keys.pseudonym_secret(self._cloud.keys), scope, samples.user)
        return to_bytes(samples.without_metadata(names), task_id)

    def _find(
        self, publication: Publication, index: SearchIndex, question: _Question, own: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if question.mode == "bits":
            if not index.knows_bits:
                hint = "the administrator has to run 'cloud-aug index build'"
                raise NotReady("the index was built before mode 'bits' was allowed", hint=hint, retry_after_s=60.0)
            return index.search_bits(question.values, question.k, exclude=own)
        styles = index.styles(question.values)
        self._replay(publication, index, styles)
        return index.search(styles, question.k, exclude=own)

    def _replay(self, publication: Publication, index: SearchIndex, styles: np.ndarray) -> None:
        """Some of the queries once more, exactly; one replay at a time, and never in the way of the answer."""
        chosen = styles[[random.random() < self._replayed for _ in styles]]  # noqa: S311 -- a sample, no secret
        if not index.approximate or len(chosen) == 0 or not self._replaying.acquire(blocking=False):
            return

        def run() -> None:
            try:
                replays.record(self._cloud, publication, index, chosen, NEIGHBOURS)
            except Exception as error:  # a figure is not worth a request
                _log.warning("a replay of queries failed: %s", type(error).__name__)
            finally:
                self._replaying.release()

        threading.Thread(target=run, daemon=True).start()

    def _current(self, task_id: str, base: str) -> tuple[Publication, SearchIndex]:
        """The newest publication of a base with its index. One request loads a new index, the others search the old one
        meanwhile. A new one that cannot be read leaves the old one serving."""
        publication = publications.require(self._cloud, task_id, base=base)
        if publication.base.onnx.digest != base:
            raise Conflict(
                "the queries were made with another base model than the current one", hint="sync, then search again"
            )
        version, old = self._loaded.get((task_id, base), (0, None))
        if old is not None and version == publication.version:
            return publication, old
        if not self._lock.acquire(blocking=old is None):
            return publication, self._loaded[task_id, base][1]
        try:
            return self._load(publication)
        finally:
            self._lock.release()

    def _load(self, publication: Publication) -> tuple[Publication, SearchIndex]:
        task_id, base = publication.task, publication.base.onnx.digest
        version, old = self._loaded.get((task_id, base), (0, None))
        if old is not None and version == publication.version:  # by the request before
            return publication, old
        try:
            index = searchable.load(self._cloud, publication.search.digest)
        except NotFound:  # replaced and removed since its row was read
            publication = publications.require(self._cloud, task_id, base=base)
            index = searchable.load(self._cloud, publication.search.digest)
        except (CorruptFile, NotReady) as error:
            if old is None:
                raise
            _log.error("publication %d of '%s' cannot be searched: %s", publication.version, task_id, error)
            index = old
        self._loaded[task_id, publication.base.onnx.digest] = (publication.version, index)
        self._forget_unused(task_id)
        return publication, index

    def _forget_unused(self, task_id: str) -> None:
        """Let go of the indexes of bases that no board is at any more."""
        with self._cloud.database.reading() as connection:
            served = {one.base.onnx.digest for one in publications.served(connection, task_id)}
        for task, base in [*self._loaded]:
            if task == task_id and base not in served:
                self._loaded.pop((task, base), None)


def _unpacked(body: bytes, task_id: str) -> tuple[tensors.Arrays, SearchMeta]:
    arrays, meta = tensors.unpack(body, what="queries", limit_bytes=QUERIES_LIMIT_BYTES)
    wanted = convert(SearchMeta, meta, what="queries")
    if wanted.task != task_id:
        raise InvalidMessage("the queries are for another task than their address")
    return arrays, wanted


def _read_queries(arrays: tensors.Arrays, wanted: SearchMeta, dim: int) -> _Question:
    if "bits" in arrays:
        shape = (None, bits_bytes(dim))
        mode: Mode = "bits"
        queries = tensors.require(arrays, "bits", dtype="uint8", shape=shape, what="queries")
    else:
        mode = "embedding"
        queries = tensors.require(arrays, "queries", dtype="float32", shape=(None, dim), what="queries")
    if len(queries) == 0:
        raise InvalidMessage("there are no queries")
    return _Question(mode, queries, wanted.k)


def _check_allowed(task: Task, question: _Question) -> None:
    if question.mode not in task.privacy.modes:
        raise NotGranted(
            f"task '{task.id}' does not allow mode '{question.mode}'",
            hint=f"it allows: {', '.join(task.privacy.modes)}",
        )
    if len(question.values) * len(task.labels) * question.k > MAX_SEARCH_CELLS:
        raise TooLarge(
            f"{len(question.values)} queries for {question.k} samples of each of {len(task.labels)} classes are too"
            " many at once",
            hint=f"their product may be {MAX_SEARCH_CELLS}; send fewer queries",
        )


def _best(scores: np.ndarray, ids: np.ndarray, most: int) -> list[int]:
    """Unique ids, best ranks first, so that a cut is fair to every query and class. scores, ids: (n, classes, k)."""
    rank = np.broadcast_to(np.arange(ids.shape[2]), ids.shape)
    order = np.lexsort((ids.reshape(-1), -scores.reshape(-1), rank.reshape(-1)))
    ranked = ids.reshape(-1)[order]
    ranked = ranked[ranked >= 0]
    _, first = np.unique(ranked, return_index=True)
    return [int(i) for i in ranked[np.sort(first)][:most]]


def _fair(found: Held) -> np.ndarray:
    """Which rows to answer with, best first: each sample once, whoever shared it, and of no contributor more than a
    fifth (an equal share where there are fewer than five)."""
    _, first = np.unique(np.asarray(found.digests, np.str_), return_index=True)
    rows = np.sort(first)
    names, person = np.unique(found.samples.user[rows], return_inverse=True)
    place = _place_within(person.reshape(-1))
    share = max(LARGEST_SHARE, 1 / max(1, len(names)))
    allowed = max(1, int(len(rows) * share))
    while (kept := int((place < allowed).sum())) and allowed > 1 and allowed > kept * share:
        allowed -= 1
    return np.asarray(rows[place < allowed])


def _place_within(person: np.ndarray) -> np.ndarray:
    """How many rows of the same person come before each, int (n,)."""
    order = np.argsort(person, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(person[order])) + 1]
    sizes = np.diff(np.r_[starts, len(person)])
    place = np.empty(len(person), np.int64)
    place[order] = np.arange(len(person)) - np.repeat(starts, sizes)
    return place


def _most(task: Task) -> int:
    values_bytes = task.input.values * np.dtype(task.input.dtype).itemsize
    return max(1, min(MAX_SEARCH_RESULTS, SAMPLES_LIMIT_BYTES // (values_bytes + BYTES_BESIDE_VALUES)))
