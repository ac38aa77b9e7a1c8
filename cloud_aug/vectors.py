"""The home of faiss: k-means, and an index per class over residual embeddings, searched by cosine or by sign bits.

A residual is an embedding minus the pool's mean embedding of its class: the class falls out, the style stays. A query's
class is not asked for; the nearest class mean stands in for it, which finds as many samples of the right style as the
true class does, and more than comparing embeddings themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from edgewire.errors import CorruptFile, EdgeError, TooLarge

# below 128000 distances faiss does not use BLAS unless told, and is then 15 times slower for a batch of queries
faiss.cvar.distance_compute_blas_threshold = 20

NEIGHBOURS = 100  # of which recall is stated
RECALL = 0.95
FLAT_BELOW = 50_000  # vectors: all of them are compared in a few milliseconds
_ID_BYTES = 8  # in a list; where all vectors are compared, a vector's place is its number
_TRAINED_PER_LIST = 40
_LEARNT_FROM = 256  # vectors at least, by product codes, whose book takes as much memory as so many do
_RANKED_AT_ONCE = 1 << 20  # neighbours that a search by bits has in memory
_SPARE = 0.01  # above RECALL: the live figure must not fall below
_NEARLY = 0.002  # below what all lists together find: not worth looking into several times as many

Vectors = Callable[[], Iterator[np.ndarray]]  # float32 (n, dim), in the order of their numbers, again and again
Excluded = Sequence[np.ndarray]  # for each class, numbers that must not be found


@dataclass(frozen=True)
class Built:
    """An index of one class. kind: as faiss names it; probes: lists to look into, 0 where there are none; recall: of
    the nearest NEIGHBOURS on held-out queries, against exact search; memory_bytes: what it takes when loaded."""

    kind: str
    vectors: int
    probes: int
    recall: float
    memory_bytes: int
    data: bytes


def kmeans(features: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """Assign each row of features, float32 (n, dim), to one of k <= n clusters, int64 (n,), reproducibly."""
    return nearest_centre(features, centres(features, k, seed=seed))


def centres(features: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """The centres of k <= n clusters of the rows of features, float32 (n, dim), reproducibly. Returns (k, dim)."""
    faiss.omp_set_num_threads(1)  # of this thread: sums in one order
    if k < 2:
        return np.asarray(features.mean(axis=0, keepdims=True), np.float32)
    means = faiss.Kmeans(features.shape[1], k, niter=25, seed=seed, min_points_per_centroid=1, gpu=False)
    means.train(features)
    return np.asarray(means.centroids, np.float32)


def nearest_centre(features: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """The cluster of each row of features, float32 (n, dim), by their `centres`, int64 (n,)."""
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(middles.shape[1])
    index.add(np.ascontiguousarray(middles))
    return np.asarray(index.search(np.ascontiguousarray(features), 1)[1][:, 0], np.int64)


def choose_kind(n: int, dim: int, budget_bytes: int) -> str:
    """The most exact kind that fits: all vectors as they are where there are few, else lists of them (IVF), whole, in 8
    bits a value (SQ8), or as product codes (PQ); so few that codes save nothing stay as they are. Raises TooLarge if
    none fits."""
    if n <= FLAT_BELOW and n * 4 * dim <= budget_bytes:
        return "Flat"
    lists = max(1, min(int(2 * math.sqrt(n)), n // _TRAINED_PER_LIST))
    beside = 4 * dim * lists
    codes = [("Flat", 4 * dim), ("SQ8", dim)]
    codes += [(f"PQ{m}", m) for m in (dim // 2, dim // 4) if m and dim % m == 0 and n >= _LEARNT_FROM]
    for name, code_bytes in codes:
        if n * (code_bytes + _ID_BYTES) + beside <= budget_bytes:
            return f"IVF{lists},{name}"
    if n < _LEARNT_FROM:
        return "Flat"
    least = n * (codes[-1][1] + _ID_BYTES) + beside
    raise TooLarge(
        f"an index of {n} vectors needs {least >> 20} MiB at least, it may take {budget_bytes >> 20}",
        hint="raise limits.index_mib in settings.toml",
    )


def build(vectors: Vectors, n: int, dim: int, *, budget_bytes: int, queries: np.ndarray, held_out: np.ndarray) -> Built:
    """An index over n unit vectors, proved on queries, float32 (q, dim), whose own places (held_out) do not count.

    Raises TooLarge, or EdgeError if it finds less than RECALL of what exact search finds.
    """
    faiss.omp_set_num_threads(1)
    kind = choose_kind(n, dim, budget_bytes)
    index = _trained(kind, vectors, n, dim)
    for rows in vectors():
        index.add(np.ascontiguousarray(rows))
    probes, recall = _prove(index, vectors, queries, held_out)
    data = faiss.serialize_index(index).tobytes()
    return Built(kind, n, probes, recall, len(data), data)


def _trained(kind: str, vectors: Vectors, n: int, dim: int) -> Any:
    if kind == "Flat":
        return faiss.IndexFlatIP(dim)
    index: Any = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 10
    wanted = _TRAINED_PER_LIST * index.nlist
    step = max(1, n // wanted)  # spread over all, so that no contributor rules
    seen, parts = 0, []
    for rows in vectors():
        parts.append(rows[(-seen) % step :: step])
        seen += len(rows)
    index.train(np.ascontiguousarray(np.concatenate(parts)))
    return index


def _prove(index: Any, vectors: Vectors, queries: np.ndarray, held_out: np.ndarray) -> tuple[int, float]:
    """The fewest probes that find enough of the nearest, and how much they find. Raises EdgeError below RECALL."""
    if not hasattr(index, "nlist") or len(queries) == 0 or index.ntotal == 0:
        return 0, 1.0
    exact = _exactly(vectors, queries, held_out)

    def recall(probes: int) -> float:
        return recall_of(_search(index, queries, NEIGHBOURS, exclude=held_out, probes=probes)[1], exact)

    most = recall(index.nlist)  # what codes lose is lost, however many lists are looked into
    if most < RECALL:
        raise EdgeError(
            f"the index finds {most:.0%} of the nearest samples, not {RECALL:.0%}; the old one goes on serving",
            hint="raise limits.index_mib in settings.toml, then build again",
        )
    enough = max(RECALL, min(RECALL + _SPARE, most - _NEARLY))
    fewer = (2**power for power in range(index.nlist.bit_length()))
    proved = ((probes, found) for probes in fewer if (found := recall(probes)) >= enough)
    return next(proved, (index.nlist, most))


def recall_of(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact neighbours, numbers (q, k) with -1 for none, that were found."""
    pairs = [(len(np.intersect1d(a[a >= 0], b)), int((a >= 0).sum())) for a, b in zip(exact, found, strict=True)]
    wanted = sum(count for _, count in pairs)
    return sum(hits for hits, _ in pairs) / wanted if wanted else 1.0


def _exactly(vectors: Vectors, queries: np.ndarray, exclude: np.ndarray) -> np.ndarray:
    """The numbers of the nearest vectors to each query, (q, NEIGHBOURS), -1 where there are fewer."""
    best = np.full((len(queries), NEIGHBOURS), -np.inf, np.float32)
    found, start = np.full((len(queries), NEIGHBOURS), -1, np.int64), 0
    for rows in vectors():
        scores, numbers = queries @ rows.T, np.arange(start, start + len(rows))
        scores[:, np.isin(numbers, exclude)] = -np.inf
        best = np.concatenate([best, scores], axis=1)
        found = np.concatenate([found, np.broadcast_to(numbers, scores.shape)], axis=1)
        order = np.argpartition(-best, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        best, found = np.take_along_axis(best, order, 1), np.take_along_axis(found, order, 1)
        start += len(rows)
    return np.where(np.isfinite(best), found, -1)


def _search(
    index: Any, queries: np.ndarray, k: int, *, exclude: np.ndarray, probes: int
) -> tuple[np.ndarray, np.ndarray]:
    faiss.omp_set_num_threads(1)  # of this thread: requests share the cores
    selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(np.ascontiguousarray(exclude, np.int64)))
    chosen: dict[str, Any] = {"sel": selector} if len(exclude) else {}
    parameters: Any = faiss.SearchParameters(**chosen)
    if probes:
        parameters = faiss.SearchParametersIVF(nprobe=probes, **chosen)  # type: ignore[call-arg]
    scores, ids = index.search(np.ascontiguousarray(queries), k, params=parameters)
    return np.asarray(scores), np.asarray(ids)


def build_bits(vectors: Vectors, dim: int) -> bytes:
    """An index over the sign bits of unit vectors, compared by Hamming distance."""
    index = faiss.IndexBinaryFlat(8 * bits_bytes(dim))
    for rows in vectors():
        index.add(sign_bits(rows))
    return bytes(faiss.serialize_index_binary(index).tobytes())


def bits_bytes(dim: int) -> int:
    """How many bytes the sign bits of a vector take."""
    return -(-dim // 8)


def sign_bits(vectors: np.ndarray) -> np.ndarray:
    """Whether each value is positive, uint8 (n, bits_bytes(dim)); bits beyond dim are 0."""
    return np.packbits(vectors > 0, axis=1)


class SearchIndex:
    """Indexes, one per class, mapped from files: several processes share the memory. Immutable; replaced whole.

    Searching changes nothing in it, so that threads need no lock; what a search is to do travels with the call.
    """

    def __init__(self, base: str, files: list[Path], probes: list[int], means: np.ndarray, bits: list[Path]) -> None:
        """base: digest of the encoder; files: an index per class; means: float32 (classes, dim); bits: the same over
        sign bits, or none.

        Only for our own files, checked against their digest: faiss trusts what it reads. Raises CorruptFile."""
        try:
            self._classes: list[Any] = [faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC) for file in files]
            self._bits = [faiss.read_index_binary(str(file)) for file in bits]
        except RuntimeError as error:
            raise CorruptFile(f"the search index cannot be read: {error}", hint="build the index again") from None
        self._probes, self._means, self.dim, self.base = probes, means, means.shape[1], base

    def __len__(self) -> int:
        return sum(int(index.ntotal) for index in self._classes)

    @property
    def approximate(self) -> bool:
        """Whether any class is searched in part only."""
        return any(self._probes)

    @property
    def knows_bits(self) -> bool:
        return bool(self._bits)

    def styles(self, embeddings: np.ndarray) -> np.ndarray:
        """Unit residuals of embeddings, float32 (n, dim)."""
        return unit(embeddings - self._means[nearest(embeddings, self._means)])[0]

    def search(
        self, styles: np.ndarray, k: int, *, exclude: Excluded | None = None, exhaustive: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k most alike of each class for each query. styles: float32 (n, dim); exhaustive: look into every list.

        Returns cosines (n, classes, k) and numbers within the class (n, classes, k), -1 where a class has fewer.
        """
        found = []
        for index, probes, left_out in zip(self._classes, self._probes, self._excluded(exclude), strict=True):
            depth = index.nlist if exhaustive and probes else probes
            found.append(_search(index, styles, k, exclude=left_out, probes=depth))
        return _stacked(found)

    def search_bits(
        self, bits: np.ndarray, k: int, *, exclude: Excluded | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same by sign bits, uint8 (n, bits_bytes(dim)); scores are shares of equal bits."""
        pairs = zip(self._bits, self._excluded(exclude), strict=True)
        return _stacked([_search_bits(index, bits, k, exclude=left_out) for index, left_out in pairs])

    def _excluded(self, exclude: Excluded | None) -> Excluded:
        return [np.zeros(0, np.int64) for _ in self._classes] if exclude is None else exclude


def _stacked(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([scores for scores, _ in found], axis=1), np.stack([numbers for _, numbers in found], axis=1)


def _search_bits(
    index: faiss.IndexBinary, bits: np.ndarray, k: int, *, exclude: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """faiss' binary indexes know no selector: ask for as many more as may have to be left out, of a few queries at a
    time where those are many."""
    most = max(1, min(index.ntotal, k + len(exclude)))
    at_once = max(1, _RANKED_AT_ONCE // most)
    parts = [_bits_of_some(index, bits[i : i + at_once], k, most, exclude) for i in range(0, len(bits), at_once)]
    scores, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    return scores, ids


def _bits_of_some(
    index: faiss.IndexBinary, bits: np.ndarray, k: int, most: int, exclude: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same for so few that memory has `most` neighbours of each: among them are k that are not left out."""
    faiss.omp_set_num_threads(1)
    wanted = min(k, most)
    while True:
        distances, ids = index.search(np.ascontiguousarray(bits), wanted)
        ids = np.where(np.isin(ids, exclude), -1, ids)
        if wanted >= most or ((ids >= 0).sum(axis=1) >= k).all():
            break
        wanted = min(2 * wanted, most)
    scores = 1.0 - distances.astype(np.float32) / (8 * bits.shape[1])
    scores = np.where(ids >= 0, scores, -np.inf).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    short = max(0, k - ids.shape[1])
    return np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf), np.pad(
        ids, ((0, 0), (0, short)), constant_values=-1
    )


def nearest(queries: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The class whose mean is nearest to each query, int (n,)."""
    # |q - m|² without |q|², which is the same for all classes
    return np.asarray(((means**2).sum(axis=1) - 2 * queries @ means.T).argmin(axis=1))


def unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled to length one, float32 (n, dim), and which rows had a direction at all, bool (n,)."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    kept = lengths > 1e-12
    return (vectors / np.where(kept, lengths, 1.0)[:, None]).astype(np.float32), kept
