"""The home of faiss: k-means, and a flat index per class over residual embeddings, searched by cosine.

A residual is an embedding minus the pool's mean embedding of its class: the class falls out, the style stays. A query's
class is not asked for; the nearest class mean stands in for it, which finds as many samples of the right style as the
true class does, and more than comparing embeddings themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import faiss
import numpy as np

from edgewire import tensors
from edgewire.errors import CorruptFile

INDEX_LIMIT_BYTES = 4 << 30

# below 128000 distances faiss does not use BLAS unless told, and is then 15 times slower for a batch of queries
faiss.cvar.distance_compute_blas_threshold = 20


def kmeans(features: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """Assign each row of features, float32 (n, dim), to one of k <= n clusters, int64 (n,), reproducibly."""
    faiss.omp_set_num_threads(1)  # of this thread: sums in one order
    if k < 2:
        return np.zeros(len(features), np.int64)
    means = faiss.Kmeans(features.shape[1], k, niter=25, seed=seed, min_points_per_centroid=1, gpu=False)
    means.train(features)
    return np.asarray(means.assign(features)[1], np.int64)


class SearchIndex:
    """Flat indexes, one per class, over unit residuals. Immutable once built; replaced whole."""

    def __init__(self, classes: Sequence[faiss.Index], means: np.ndarray) -> None:
        self._classes = list(classes)
        self._means = means
        self.dim = means.shape[1]
        self._lock = threading.Lock()  # searches only read, but deserialized indexes give no promise: one at a time

    @classmethod
    def build(cls, embeddings: np.ndarray, y: np.ndarray, ids: np.ndarray, means: np.ndarray) -> SearchIndex:
        """embeddings: float32 (n, dim); y: (n,); ids: int64 (n,), unique; means: float32 (classes, dim), per class.

        A sample exactly at its class mean has no direction and is left out.
        """
        faiss.omp_set_num_threads(1)
        vectors, kept = unit(embeddings - means[y])
        classes = []
        for label in range(len(means)):
            rows = kept & (y == label)
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(means.shape[1]))
            index.add_with_ids(np.ascontiguousarray(vectors[rows]), np.ascontiguousarray(ids[rows]))
            classes.append(index)
        return cls(classes, means)

    def __len__(self) -> int:
        return sum(int(index.ntotal) for index in self._classes)

    def to_bytes(self) -> bytes:
        """All classes as one blob."""
        arrays = {f"class-{i}": faiss.serialize_index(index) for i, index in enumerate(self._classes)}
        return tensors.pack({**arrays, "means": self._means}, {"format": "search/1"})

    @classmethod
    def from_bytes(cls, data: bytes) -> SearchIndex:
        """Only for our own blobs, checked against their digest: faiss trusts what it reads. Raises CorruptFile."""
        arrays, _ = tensors.unpack(data, what="search index", limit_bytes=INDEX_LIMIT_BYTES)
        try:
            means = arrays["means"]
            return cls([faiss.deserialize_index(arrays[f"class-{i}"]) for i in range(len(means))], means)
        except (KeyError, RuntimeError) as error:
            raise CorruptFile(f"the search index cannot be read: {error}", hint="build the index again") from None

    def search(self, queries: np.ndarray, k: int, *, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The k most alike of each class for each query. queries: embeddings, float32 (n, dim); exclude: unwanted ids.

        Returns cosines (n, classes, k) and ids (n, classes, k), -1 where a class has fewer.
        """
        styles, _ = unit(queries - self._means[_nearest(queries, self._means)])
        excluded = faiss.IDSelectorBatch(np.ascontiguousarray(exclude, np.int64))
        selector = faiss.IDSelectorNot(excluded)
        found = []
        with self._lock:
            faiss.omp_set_num_threads(1)  # of this thread: requests share the cores
            for index in self._classes:
                parameters = faiss.SearchParameters(sel=selector) if len(exclude) else None  # type: ignore[call-arg]
                found.append(index.search(styles, k, params=parameters))
        return np.stack([scores for scores, _ in found], axis=1), np.stack([ids for _, ids in found], axis=1)


def _nearest(queries: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The class whose mean is nearest to each query, int (n,)."""
    # |q - m|² without |q|², which is the same for all classes
    return np.asarray(((means**2).sum(axis=1) - 2 * queries @ means.T).argmin(axis=1))


def unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled to length one, float32 (n, dim), and which rows had a direction at all, bool (n,)."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    kept = lengths > 1e-12
    return (vectors / np.where(kept, lengths, 1.0)[:, None]).astype(np.float32), kept
