"""Signatures say what they sign, and trust can be handed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewire.errors import Busy, CorruptFile, Expired, Forged, Outdated, WrongClock
from edgewire.files import exclusive, write_atomic
from edgewire.signing import SigningKey, Statement, open_sealed, seal
from edgewire.trust import Trust, public_text, seal_trust, walk

KEY = SigningKey.generate()
KEYS = {KEY.id: KEY.public}


def sealed(**changes: object) -> bytes:
    fields = {
        "type": "manifest",
        "task": "t",
        "epoch": 2,
        "version": 5,
        "issued_at": 100.0,
        "expires_at": 200.0,
        "body": {},
    }
    return seal(KEY, Statement(**{**fields, **changes}))  # type: ignore[arg-type]


def opened(raw: bytes, **changes: object) -> Statement:
    wanted = {"type": "manifest", "task": "t", "now": 150.0, **changes}
    return open_sealed(raw, KEYS, **wanted)  # type: ignore[arg-type]


def test_a_signed_statement_opens() -> None:
    assert opened(sealed(body={"a": 1})).body == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "wanted", "error"),
    [
        (sealed(type="access"), {}, Forged),
        (sealed(task="other"), {}, Forged),
        (sealed(), {"now": 201.0}, Expired),
        (sealed(), {"now": -300.0}, WrongClock),
        (sealed(epoch=1, version=9), {"at_least": (2, 5)}, Outdated),
        (sealed(version=4), {"at_least": (2, 5)}, Outdated),
        (sealed().replace(b'"signature":"', b'"signature":"AAAA'), {}, Forged),
        (sealed().replace(KEY.id.encode(), b"0" * 16), {}, Forged),
        (sealed().replace(b'"payload":"', b'"payload":"!'), {}, Forged),
    ],
)
def test_a_statement_for_another_purpose_time_or_by_another_hand_is_refused(
    raw: bytes, wanted: dict, error: type[Exception]
) -> None:
    with pytest.raises(error):
        opened(raw, **wanted)


def test_a_newer_epoch_counts_more_than_a_higher_version() -> None:
    assert opened(sealed(epoch=3, version=1), at_least=(2, 5)).version == 1


def link(root: SigningKey, version: int, *roots: SigningKey) -> bytes:
    listed = tuple(public_text(key.public) for key in roots)
    return seal_trust(root, Trust(version, listed, (public_text(KEY.public),), ("pem",)), now=100.0)


def test_a_chain_hands_trust_from_one_root_to_the_next() -> None:
    old, new = SigningKey.generate(), SigningKey.generate()
    chain = [link(old, 1, old), link(old, 2, new), link(new, 3, new)]
    assert walk([public_text(old.public)], chain, now=150.0).version == 3


def test_a_root_that_was_replaced_cannot_sign_any_more() -> None:
    old, new = SigningKey.generate(), SigningKey.generate()
    chain = [link(old, 1, old), link(old, 2, new), link(old, 3, old)]
    with pytest.raises(Forged):
        walk([public_text(old.public)], chain, now=150.0)


def test_a_missing_link_is_noticed() -> None:
    root = SigningKey.generate()
    known = walk([public_text(root.public)], [link(root, 1, root)], now=150.0)
    with pytest.raises(Outdated, match="version 2 is missing"):
        walk([public_text(root.public)], [link(root, 3, root)], now=150.0, known=known)


def test_a_stranger_s_chain_is_refused() -> None:
    root, stranger = SigningKey.generate(), SigningKey.generate()
    with pytest.raises(Forged):
        walk([public_text(root.public)], [link(stranger, 1, stranger)], now=150.0)


def test_a_key_file_is_for_its_owner_only(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(tmp_path / "key").public == KEY.public
    (tmp_path / "key").write_text("nonsense")
    with pytest.raises(CorruptFile):
        SigningKey.load(tmp_path / "key")


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, b"old")
    with pytest.raises(TypeError):
        write_atomic(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with exclusive(lock, doing="x"), pytest.raises(Busy), exclusive(lock, doing="x"):
        pass
    with exclusive(lock, doing="x"):
        pass
