"""How board-store-v1.db was made. Not run by tests: a golden file is what an old program left behind."""

from pathlib import Path

from edgectl.store import Store
from tests.board.conftest import GESTURES
from tests.board.test_store import samples

if __name__ == "__main__":
    path = Path(__file__).with_name("board-store-v1.db")
    with Store.open(path) as store:
        store.add_samples(GESTURES, samples(3), now=1_767_225_600.0)
        store.queue("a" * 32, "report", "gestures", b"{}", {}, 1.0)
        store.sent("a" * 32, 2.0)
        store.queue("b" * 32, "contribution", "gestures", b"xyz", {"consent": "packs", "until": 9.0}, 2.0)
        store.finish_run(store.start_run("gestures", "train", 1.0), "local", {"gain": 0.5}, 3.0)
        store.spend("gestures", "cohort", 8.0, 3, 16.0, 1.0)
        store._connection.execute("PRAGMA journal_mode = DELETE")
