"""Online search for boards whose task allows mode 'embedding': queries come up, other people's samples go down."""

from __future__ import annotations

import threading

import numpy as np

from cloud_aug import keys, pool, publications, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.pseudonyms import pseudonyms
from cloud_aug.publications import Publication
from cloud_aug.vectors import SearchIndex
from edgewire import tensors
from edgewire.decoding import convert
from edgewire.errors import Conflict, InvalidMessage, NotGranted, TooLarge
from edgewire.messages import MAX_SEARCH_CELLS, MAX_SEARCH_RESULTS, QUERIES_LIMIT_BYTES, SAMPLES_LIMIT_BYTES, SearchMeta
from edgewire.samples import to_bytes
from edgewire.tasks import Task

BYTES_BESIDE_VALUES = 64  # per sample: label, codes, names


class Searcher:
    """Holds the search index of each task's current publication; a new publication replaces it at the next search."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._loaded: dict[str, tuple[int, SearchIndex]] = {}
        self._lock = threading.Lock()

    def search(self, board: str, task_id: str, body: bytes, *, now: float) -> bytes:
        """Samples like the queries, of every class, as bytes. The board's own contributions are never among them.

        Raises NotGranted (the task does not allow this mode), InvalidMessage, TooLarge, Conflict (queries made with
        another base), NotReady.
        """
        task = tasks.load(self._cloud, task_id)
        if "embedding" not in task.privacy.modes:
            raise NotGranted(f"task '{task_id}' does not allow mode 'embedding'", hint="use mode 'directory'")
        publication = publications.require(self._cloud, task_id)
        index = self._index(publication)
        queries, k = _read_queries(body, task_id, publication, index.dim)
        if len(queries) * len(task.labels) * k > MAX_SEARCH_CELLS:
            raise TooLarge(
                f"{len(queries)} queries for {k} samples of each of {len(task.labels)} classes are too many at once",
                hint=f"their product may be {MAX_SEARCH_CELLS}; send fewer queries",
            )
        own = pool.ids_of(self._cloud, task_id, board)
        scores, ids = index.search(queries, k, exclude=own)
        chosen = _best(scores, ids, _most(task))
        samples = pool.by_ids(self._cloud, task, chosen, now=now)
        scope = f"{publication.directory.digest}\0{board}"
        names = pseudonyms(keys.pseudonym_secret(self._cloud.keys), scope, samples.user)
        return to_bytes(samples.without_metadata(names), task_id)

    def _index(self, publication: Publication) -> SearchIndex:
        with self._lock:
            loaded = self._loaded.get(publication.task)
            if loaded is None or loaded[0] != publication.version:
                data = self._cloud.blobs.read(publication.search.digest)
                loaded = (publication.version, SearchIndex.from_bytes(data))
                self._loaded[publication.task] = loaded
        return loaded[1]


def _read_queries(body: bytes, task_id: str, publication: Publication, dim: int) -> tuple[np.ndarray, int]:
    arrays, meta = tensors.unpack(body, what="queries", limit_bytes=QUERIES_LIMIT_BYTES)
    wanted = convert(SearchMeta, meta, what="queries")
    if wanted.task != task_id:
        raise InvalidMessage("the queries are for another task than their address")
    if wanted.base != publication.base.onnx.digest:
        raise Conflict(
            "the queries were made with another base model than the current one", hint="sync, then search again"
        )
    queries = tensors.require(arrays, "queries", dtype="float32", shape=(None, dim), what="queries")
    if len(queries) == 0:
        raise InvalidMessage("there are no queries")
    return queries, wanted.k


def _best(scores: np.ndarray, ids: np.ndarray, most: int) -> list[int]:
    """Unique ids, best ranks first, so that a cut is fair to every query and class. scores, ids: (n, classes, k)."""
    rank = np.broadcast_to(np.arange(ids.shape[2]), ids.shape)
    order = np.lexsort((ids.reshape(-1), -scores.reshape(-1), rank.reshape(-1)))
    ranked = ids.reshape(-1)[order]
    ranked = ranked[ranked >= 0]
    _, first = np.unique(ranked, return_index=True)
    return [int(i) for i in ranked[np.sort(first)][:most]]


def _most(task: Task) -> int:
    values_bytes = task.input.values * np.dtype(task.input.dtype).itemsize
    return max(1, min(MAX_SEARCH_RESULTS, SAMPLES_LIMIT_BYTES // (values_bytes + BYTES_BESIDE_VALUES)))
