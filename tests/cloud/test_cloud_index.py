"""Building and publishing: reproducible, whole, and fair to contributors."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import time
from collections import Counter

import faiss
import numpy as np
import pytest

from cloud_aug import (
    backups,
    bases,
    cloud,
    directory,
    index,
    packs,
    pool,
    pretrain,
    publications,
    replays,
    searchable,
    tasks,
    vectors,
)
from cloud_aug.cloud import Cloud
from cloud_aug.pretrain import TrainSettings
from cloud_aug.pseudonyms import pseudonyms
from cloud_aug.publications import Publication
from cloud_aug.search import Searcher
from cloud_aug.settings import Limits
from cloud_aug.vectors import SearchIndex, kmeans
from edgewire.errors import Busy, CorruptFile, EdgeError, NotFound, NotReady, TooLarge, UsageError
from edgewire.messages import BlobRef
from edgewire.samples import from_bytes
from tests.cloud import toys
from tests.cloud.backends import files_only
from tests.cloud.test_cloud_exchange import queries
from tests.cloud.toys import FAR, TASK

NOW = time.time()
CONSENT = pool.Consent("packs", FAR)


@pytest.fixture
def made(data) -> Cloud:
    return cloud.open_cloud(data)


def build(made: Cloud, *, seed: int = 0) -> index.Built:
    return index.build(made, "toy", seed=seed, now=NOW, on_progress=toys.quiet)


def contents(made: Cloud, publication: Publication) -> tuple[str, ...]:
    return (publication.directory.digest, *sorted(publication.pack_names))


def test_building_again_changes_nothing(made):
    before = publications.require(made, "toy")
    assert build(made) == index.Built(before, changed=False, good_until=FAR)


@files_only
def test_the_same_pool_seed_and_base_give_the_same_bytes_on_another_machine(made, tmp_path):
    other = cloud.open_cloud(shutil.copytree(made.settings.data, tmp_path / "other"))
    with other.database.writing() as connection:
        for table in ("manifests", "published_blobs", "publications", "batches"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    shutil.rmtree(tmp_path / "other" / "blobs")
    base = bases.newest(made, "toy").base
    for name in (base.onnx.digest, base.weights.digest):
        other.blobs._path(name).parent.mkdir(parents=True, exist_ok=True)
        other.blobs.put(made.blobs.read(name))
    columns = {name: column[::-1] for name, column in toys.people().items()}
    pool.ingest(other, toys.data_file(tmp_path / "again.npz", columns), "toy", pool.Consent("packs", FAR), now=NOW)
    assert contents(other, build(other).publication) == contents(made, publications.require(made, "toy"))


def test_training_the_base_twice_with_one_seed_keeps_the_first(made):
    settings = TrainSettings(epochs=60, rehearse=False)
    again = pretrain.train(made, "toy", settings, now=NOW, on_progress=toys.quiet)
    assert not again.changed
    other = pretrain.train(
        made, "toy", TrainSettings(seed=1, epochs=1, rehearse=False), now=NOW, on_progress=toys.quiet
    )
    assert (other.changed, other.record.base.version) == (True, 2)


def test_a_base_without_augmentation_is_another_base(made):
    settings = TrainSettings(epochs=2, rehearse=False)
    with_copies = pretrain.train(made, "toy", settings, now=NOW, on_progress=toys.quiet).record
    without = pretrain.train(
        made, "toy", dataclasses.replace(settings, augment=False), now=NOW, on_progress=toys.quiet
    ).record
    assert without.base.version == with_copies.base.version + 1
    assert without.base.weights.digest != with_copies.base.weights.digest


def test_cohorts_have_at_least_as_many_contributors_as_the_task_demands(made):
    publication = publications.require(made, "toy")
    assert all(pack.contributors >= TASK.privacy.min_cohort for pack in publication.packs)
    assert sum(pack.samples for pack in publication.packs) == publication.samples == 108


def test_contributors_of_one_style_share_a_cohort():
    cohort = [place.cohort for place in arranged(styles(8), minimum=4).places.values()]
    assert len(set(cohort[::2])) == len(set(cohort[1::2])) == 1
    assert cohort[0] != cohort[1]


def styles(people: int) -> np.ndarray:
    """Prototypes of people of two styles, in turn."""
    rng = np.random.default_rng(0)
    return (rng.normal(0, 0.1, (people, 4)) + np.where(np.arange(people) % 2, 1, -1)[:, None]).astype(np.float32)


def arranged(features: np.ndarray, before: directory.Layout | None = None, **changes: object) -> directory.Layout:
    """The layout of people called p000, p001 ..., with 10 samples each."""
    rows = {f"p{i:03}": 10 for i in range(len(features))}
    options = {"made_from": "base", "minimum": 2, "rows_per_pack": 40, **changes}
    return directory.arrange(features, rows, before, cluster=lambda k: kmeans(features, k, seed=0), **options)


def test_everybody_who_has_a_place_keeps_it_when_others_come():
    before = arranged(styles(100))
    after = arranged(styles(101), before)
    assert {name: after.places[name] for name in before.places} == before.places
    cohort = after.places["p100"].cohort
    theirs = [int(name[1:]) for name, place in before.places.items() if place.cohort == cohort]
    assert all(number % 2 == 0 for number in theirs), "newcomers join those of their style"


def test_everything_is_arranged_anew_with_another_base_or_when_the_pool_has_doubled():
    before = arranged(styles(30))
    assert arranged(styles(30), before, made_from="other").grouped == 30
    assert arranged(styles(60), before).grouped == 30
    assert arranged(styles(61), before).grouped == 61


def test_packs_and_cohorts_keep_enough_contributors_when_many_leave():
    before = arranged(styles(40), minimum=4)
    rows, features = dict.fromkeys(list(before.places)[::2], 10), styles(40)[::2]
    options = {"made_from": "base", "minimum": 4, "rows_per_pack": 40, "cluster": lambda k: kmeans(features, k, seed=0)}
    after = directory.arrange(features, rows, before, **options)
    sizes = Counter(place.pack for place in after.places.values())
    assert min(sizes.values()) >= 4
    assert len({place.cohort for place in after.places.values()}) == max(p.cohort for p in after.places.values()) + 1


def test_a_pack_is_filled_up_to_its_size():
    sizes = Counter(place.pack for place in arranged(styles(64)).places.values())
    assert Counter(sizes.values())[4] >= 10
    assert set(sizes.values()) <= {2, 3, 4, 5}, "one too many only where the last would be alone"


def test_too_few_contributors_for_a_cohort_are_refused(made):
    toys.publish_changed(made, min_cohort=7)
    with pytest.raises(UsageError, match="6 usable contributors, a cohort needs 7"):
        build(made)


def test_samples_whose_consent_ended_leave_the_next_publication(made, tmp_path):
    file = toys.data_file(tmp_path / "short.npz", {**toys.people(2, seed=5), "user": np.repeat(["p8", "p9"], 18)})
    pool.ingest(made, file, "toy", pool.Consent("packs", NOW + 100), now=NOW)
    assert build(made).publication.contributors == 8
    later = index.build(made, "toy", seed=0, now=NOW + 200, on_progress=toys.quiet)
    assert (later.changed, later.publication.contributors) == (True, 6)


def test_no_contributor_has_more_of_a_pack_than_the_cap(made):
    built = build(with_limits(made, pack_samples_per_contributor=5), seed=1).publication
    assert built.samples == 30
    for ref in built.packs:
        samples = from_bytes(packs.read(made, "toy", ref), TASK, what="pack", limit_bytes=1 << 20)
        assert set(Counter(samples.user.tolist()).values()) == {5}


def with_limits(made: Cloud, **limits: int) -> Cloud:
    changed = dataclasses.replace(made.settings, limits=Limits(**limits))
    return dataclasses.replace(made, settings=changed)


def test_few_packs_change_when_a_contributor_joins(made, tmp_path):
    made = with_limits(made, pack_bytes=40 * (8 + 64))
    names = np.repeat([f"q{i:02}" for i in range(24)], 18)
    pool.ingest(made, toys.data_file(tmp_path / "a.npz", {**toys.people(24), "user": names}), "toy", CONSENT, now=NOW)
    before = {pack.digest for pack in build(made).publication.packs}
    one = toys.data_file(tmp_path / "b.npz", {**toys.people(1, seed=4), "user": np.repeat("r", 18)})
    pool.ingest(made, one, "toy", CONSENT, now=NOW)
    after = {pack.digest for pack in build(made).publication.packs}
    assert len(before) >= 14
    assert len(after - before) <= 2


def test_pseudonyms_are_stable_in_a_pack_and_unrelated_between_packs():
    names = np.asarray(["ann", "bob", "ann"])
    one, two = pseudonyms(b"s", "pack-1", names), pseudonyms(b"s", "pack-2", names)
    assert one[0] == one[2] != one[1]
    assert not set(one) & set(two)
    assert not set(one) & set(pseudonyms(b"t", "pack-1", names))


def test_rows_of_a_pack_do_not_show_the_order_of_names(made):
    publication = publications.require(made, "toy")
    for ref in publication.packs:
        samples = from_bytes(packs.read(made, "toy", ref), TASK, what="pack", limit_bytes=1 << 20)
        assert samples.user.tolist() == sorted(samples.user.tolist())


def test_without_a_base_there_is_nothing_to_build(tmp_path):
    made = toys.filled(tmp_path / "cloud")
    with pytest.raises(NotReady, match="no base model"):
        build(made)


def test_an_empty_pool_trains_no_base(tmp_path):
    from cloud_aug import tasks

    made = toys.empty(tmp_path / "cloud")
    tasks.publish(made, TASK, now=NOW)
    with pytest.raises(UsageError, match="empty"):
        pretrain.train(made, "toy", TrainSettings(), now=NOW, on_progress=toys.quiet)


def test_two_builds_at_once_are_busy(made):
    with made.locked("index-toy", doing="building"), pytest.raises(Busy):
        build(made)


@files_only
def test_a_damaged_base_is_noticed_and_the_old_publication_stays(made, tmp_path):
    before = publications.require(made, "toy")
    path = made.blobs.path(before.base.onnx.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptFile):
        build(made)
    assert publications.require(made, "toy") == before


@files_only
def test_a_damaged_base_is_mended_by_training_it_again(made):
    before = bases.newest(made, "toy").base
    path = made.blobs.path(before.onnx.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    settings = TrainSettings(epochs=60, rehearse=False)
    assert pretrain.train(made, "toy", settings, now=NOW, on_progress=toys.quiet).changed
    assert bases.newest(made, "toy").base.onnx == before.onnx
    made.blobs.check(before.onnx.digest)
    assert not build(made).changed


@files_only
def test_a_damaged_base_of_elsewhere_is_mended_by_taking_it_again(made):
    raw = made.blobs.read(bases.newest(made, "toy").base.weights.digest)
    taken = pretrain.take(made, "toy", raw, now=NOW).record
    for ref in (taken.base.weights, taken.base.onnx):
        made.blobs.path(ref.digest).write_bytes(b"damaged")
    again = pretrain.take(made, "toy", raw, now=NOW)
    assert (again.changed, again.record) == (False, taken)
    for ref in (taken.base.weights, taken.base.onnx):
        made.blobs.check(ref.digest)


def test_a_rehearsal_ends_up_in_the_directory(made):
    from edgewire import tensors

    settings = TrainSettings(epochs=2, shots=(2,), boards=2)
    record = pretrain.train(made, "toy", settings, now=NOW, on_progress=toys.quiet).record
    assert {figure.shots for figure in record.figures} == {2}
    blob = made.blobs.read(build(made).publication.directory.digest)
    _, meta = tensors.unpack(blob, what="directory", limit_bytes=1 << 20)
    assert len(meta["prior"]) == len(record.figures) > 0


def test_kmeans_is_reproducible():
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    assert np.array_equal(kmeans(features, 4, seed=7), kmeans(features, 4, seed=7))
    assert set(kmeans(features, 1, seed=7)) == {0}


def test_search_finds_the_nearest_style_of_each_class_and_survives_a_round_trip(tmp_path):
    means = np.asarray([[0, 0], [10, 0]], np.float32)
    residuals, nobody = np.asarray([[1, 0], [0, 1]], np.float32), np.zeros(0, np.int64)
    files = []
    for label in range(2):
        held = vectors.build(lambda: iter([residuals]), 2, 2, budget_bytes=1 << 20, queries=residuals, held_out=nobody)
        files.append(tmp_path / str(label))
        files[-1].write_bytes(held.data)
    index = SearchIndex("base", files, [0, 0], means, [])
    style = index.styles(np.asarray([[9.9, 3]], np.float32))
    assert index.search(style, 1)[1].tolist() == [[[1], [1]]]
    assert index.search(style, 2, exclude=[np.asarray([1]), nobody])[1].tolist() == [[[0, -1], [1, 0]]]


def blobs_of_vectors(n: int, *, dim: int = 16, seed: int = 0) -> vectors.Vectors:
    """Unit vectors in clusters, in pieces."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dim))
    rows = vectors.unit((centres[rng.integers(40, size=n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32))[0]
    return lambda: iter([rows[: n // 2], rows[n // 2 :]])


@pytest.mark.parametrize(
    ("n", "mib", "kind"),
    [(1000, 64, "Flat"), (60_000, 64, "IVF489,Flat"), (60_000, 2, "IVF489,SQ8"), (60_000, 1, "IVF489,PQ8")],
)
def test_the_most_exact_kind_that_fits_is_chosen(n, mib, kind):
    assert vectors.choose_kind(n, 16, mib << 20) == kind


@pytest.mark.parametrize("n", [1, 30, 255, 256])
def test_a_small_class_beside_large_ones_has_an_index_however_small_its_share(n):
    found = np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32)
    built = vectors.build(
        lambda: iter([found]), n, 64, budget_bytes=48 * n, queries=found[:1], held_out=np.zeros(1, int)
    )
    assert (built.kind, built.vectors) == ("Flat" if n < 256 else "IVF6,PQ32", n)
    assert built.recall >= vectors.RECALL


def test_an_index_that_cannot_fit_is_refused_before_anything_is_built():
    with pytest.raises(TooLarge, match="index_mib"):
        vectors.choose_kind(10_000_000, 64, 1 << 20)


class Counting:
    """A binary index that notes how many neighbours it was asked for at once."""

    def __init__(self, index):
        self.index, self.ntotal, self.asked = index, index.ntotal, []

    def search(self, bits, k):
        self.asked.append(len(bits) * k)
        return self.index.search(bits, k)


def test_a_search_by_bits_has_few_neighbours_in_memory_however_many_of_them_are_left_out(monkeypatch):
    rng = np.random.default_rng(0)
    held, bits = rng.normal(size=(300, 64)).astype(np.float32), rng.integers(0, 256, (50, 8), np.uint8)
    index = Counting(faiss.deserialize_index_binary(np.frombuffer(vectors.build_bits(lambda: [held], 64), np.uint8)))
    apart = np.unpackbits(bits[:, None] ^ vectors.sign_bits(held)[None], axis=2).sum(axis=2)
    exclude = np.argsort(apart.sum(axis=0))[:290]
    apart[:, exclude] = 99
    monkeypatch.setattr(vectors, "_RANKED_AT_ONCE", 1000)
    for k in (1, 4, 12):
        scores, ids = vectors._search_bits(index, bits, k, exclude=exclude)
        best = np.sort(apart, axis=1)[:, : min(k, 10)]
        assert np.allclose(scores[:, :10], np.where(best < 99, 1 - best / 64, 0))
        assert (np.take_along_axis(apart, ids[:, :10], 1) == best).all()
        assert (ids.shape, (ids[:, 10:] == -1).all()) == ((50, k), True)
    assert max(index.asked) <= 1000


def test_lists_are_searched_as_deep_as_recall_needs_and_depth_travels_with_the_call(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "FLAT_BELOW", 100)
    rows = blobs_of_vectors(4000)
    queries = next(rows())[:50]
    built = vectors.build(rows, 4000, 16, budget_bytes=1 << 20, queries=queries, held_out=np.arange(50))
    assert built.kind == "IVF100,Flat"
    assert built.recall >= vectors.RECALL
    assert 0 < built.probes < 100
    (tmp_path / "index").write_bytes(built.data)
    index = SearchIndex("base", [tmp_path / "index"], [1], np.zeros((1, 16), np.float32), [])
    shallow = index.search(queries, 100)[1][:, 0]
    deep = index.search(queries, 100, exhaustive=True)[1][:, 0]
    again = index.search(queries, 100)[1][:, 0]
    assert vectors.recall_of(shallow, deep) < vectors.RECALL
    assert np.array_equal(shallow, again)


def test_what_codes_lose_is_not_looked_for_in_every_list(monkeypatch):
    monkeypatch.setattr(vectors, "FLAT_BELOW", 100)
    monkeypatch.setattr(vectors, "RECALL", 0.5)
    rows = blobs_of_vectors(4000)
    index = vectors._trained("IVF100,SQ4", rows, 4000, 16)
    for part in rows():
        index.add(part)
    proof = index, rows, next(rows())[:50], np.arange(50)
    monkeypatch.setattr(vectors, "_SPARE", 1.0)
    probes, recall = vectors._prove(*proof)
    assert 0.5 < recall < 0.99
    assert probes <= 32
    monkeypatch.setattr(vectors, "RECALL", recall + 0.01)
    with pytest.raises(EdgeError, match="the old one goes on"):
        vectors._prove(*proof)


def test_an_index_that_finds_too_little_is_not_published(made, monkeypatch):
    before = publications.require(made, "toy")
    monkeypatch.setattr(vectors, "_prove", lambda *_: (_ for _ in ()).throw(EdgeError("finds 80 %")))
    with pytest.raises(EdgeError, match="80 %"):
        build(made, seed=3)
    assert publications.require(made, "toy") == before


@pytest.mark.parametrize("written", [0, 1, 3, 5])
def test_a_full_disk_in_the_middle_of_a_build_leaves_the_old_one_serving(made, tmp_path, monkeypatch, written):
    one = toys.data_file(tmp_path / "b.npz", {**toys.people(2, seed=4), "user": np.repeat(["r", "s"], 18)})
    pool.ingest(made, one, "toy", CONSENT, now=NOW)
    before, left, put = publications.require(made, "toy"), [written], made.blobs.put

    def full_soon(data: bytes) -> BlobRef:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "no space left")
        return put(data)

    with monkeypatch.context() as patch:
        patch.setattr(made.blobs, "put", full_soon)
        with pytest.raises(OSError, match="no space"):
            build(made)
    assert publications.require(made, "toy") == before
    assert list(made.work("index-toy").stored()) == []
    assert Searcher(made).search("b" + "0" * 16, "toy", queries(made), now=NOW)
    assert build(made).publication.version == 2


@files_only
def test_a_truncated_index_is_named_at_start_and_the_old_one_goes_on_serving(made, tmp_path):
    searcher = Searcher(made)
    body = queries(made)
    first = searcher.search("b" + "0" * 16, "toy", body, now=NOW)
    one = toys.data_file(tmp_path / "b.npz", {**toys.people(2, seed=4), "user": np.repeat(["r", "s"], 18)})
    pool.ingest(made, one, "toy", CONSENT, now=NOW)
    after = build(made).publication
    path = made.blobs.path(searchable.read(made, after.search.digest)[0].classes[0].digest)
    path.write_bytes(path.read_bytes()[:-20])
    assert len(searcher.search("b" + "0" * 16, "toy", body, now=NOW)) >= len(first) // 2
    with pytest.raises(CorruptFile, match="build again"):
        Searcher(made).search("b" + "0" * 16, "toy", body, now=NOW)


def test_an_index_whose_files_a_build_removes_while_they_are_read_is_not_called_damaged(made, tmp_path, monkeypatch):
    def roster_of(names, files):
        monkeypatch.setattr(searchable, "Roster", real)
        build(made)
        return real(names, files)

    one = toys.data_file(tmp_path / "b.npz", {**toys.people(2, seed=4), "user": np.repeat(["r", "s"], 18)})
    pool.ingest(made, one, "toy", CONSENT, now=NOW)
    real, body = searchable.Roster, queries(made, k=100)
    monkeypatch.setattr(searchable, "Roster", roster_of)
    found = Searcher(made).search("b" + "0" * 16, "toy", body, now=NOW)
    assert found == Searcher(made).search("b" + "0" * 16, "toy", body, now=NOW)


def test_queries_are_replayed_for_a_live_figure_of_recall(made, monkeypatch):
    publication = publications.require(made, "toy")
    index = searchable.load(made, publication.search.digest).index
    replays.record(made, publication, index, np.eye(8, dtype=np.float32), 5)
    replays.record(made, publication, index, np.eye(8, dtype=np.float32), 5)
    assert replays.recall(made, publication) == replays.Recall("toy", 1, 16, 1.0)


def test_while_one_request_loads_a_new_index_the_others_search_the_old_one(made, tmp_path):
    searcher = Searcher(made)
    first = searcher.search("b" + "0" * 16, "toy", queries(made), now=NOW)
    one = toys.data_file(tmp_path / "b.npz", {**toys.people(2, seed=4), "user": np.repeat(["r", "s"], 18)})
    pool.ingest(made, one, "toy", CONSENT, now=NOW)
    build(made)
    with searcher._lock:  # as the request that loads holds it
        meanwhile = searcher.search("b" + "0" * 16, "toy", queries(made), now=NOW)
    assert first == meanwhile


def test_a_version_that_is_made_again_after_a_restore_is_not_taken_for_the_one_before(made, tmp_path):
    def grown(name: str) -> bytes:
        theirs = {**toys.people(1, seed=ord(name)), "user": np.repeat([name], 18)}
        pool.ingest(made, toys.data_file(tmp_path / f"{name}.npz", theirs), "toy", CONSENT, now=time.time())
        assert build(made).publication.version == 2
        return searcher.search("b" + "0" * 16, "toy", queries(made, k=100), now=NOW)

    searcher, source = Searcher(made), tmp_path / "backup"
    backups.back_up(made, source, with_blobs=True, now=time.time(), on_progress=toys.quiet)
    before = grown("r")
    backups.restore(made.settings.data, source, now=time.time(), on_progress=toys.quiet)
    after = grown("s")
    assert after == Searcher(made).search("b" + "0" * 16, "toy", queries(made, k=100), now=NOW) != before


def test_before_any_replay_there_is_no_live_figure(made):
    assert replays.recall(made, publications.require(made, "toy")).recall_at_100 is None


def test_a_build_leaves_the_files_of_other_tasks_with_the_same_contributors_alone(made, tmp_path):
    tasks.publish(made, dataclasses.replace(TASK, id="other"), now=NOW)
    pool.ingest(made, toys.data_file(tmp_path / "same.npz"), "other", CONSENT, now=NOW)
    pretrain.take(made, "other", made.blobs.read(bases.newest(made, "toy").base.weights.digest), now=NOW)
    other = index.build(made, "other", seed=0, now=NOW, on_progress=toys.quiet).publication
    one = toys.data_file(tmp_path / "b.npz", {**toys.people(1, seed=4), "user": np.repeat("r", 18)})
    pool.ingest(made, one, "toy", CONSENT, now=NOW)
    before = publications.require(made, "toy")
    assert build(made).changed
    with pytest.raises(NotFound):
        made.blobs.read(before.search.digest)
    for name in searchable.read(made, other.search.digest)[0].files:
        made.blobs.read(name)


def test_near_duplicates_of_one_contributor_are_indexed_once(made, tmp_path):
    columns = toys.people(1, 1, seed=9)
    many = {name: np.repeat(column, 20, axis=0) for name, column in columns.items()}
    many["x"] = many["x"] + np.random.default_rng(0).normal(0, 1e-5, many["x"].shape).astype(np.float32)
    many["user"] = np.full(60, "still")
    pool.ingest(made, toys.data_file(tmp_path / "still.npz", many), "toy", CONSENT, now=NOW)
    document, _ = searchable.read(made, build(made).publication.search.digest)
    assert 108 + 3 <= sum(one.vectors for one in document.classes) <= 108 + 9


def test_index_show_states_kind_and_recall(data):
    report = toys.report("index", "show", "--task", "toy", data=data)
    assert [one["kind"] for one in report["index"]["classes"]] == ["Flat"] * 3
    assert report["live"]["recall_at_100"] is None
