"""Encrypted packs: golden bytes, and everything that is not the pack is refused."""

from __future__ import annotations

import pytest

from edgewire.decoding import convert, encode, plain
from edgewire.encryption import HEAD, OVERHEAD_BYTES, decrypt, encrypt
from edgewire.errors import DigestMismatch, InvalidMessage
from edgewire.files import digest
from edgewire.messages import DirectoryMeta, KeysReply, KeysRequest, PackRef

KEY = bytes(range(32))
PACK = b"samples of others"
NAME = digest(PACK)


def test_a_pack_comes_back_with_its_key_and_is_as_long_as_the_format_says() -> None:
    for data in (b"", b"x", PACK, bytes(100_000)):
        made = encrypt(data, KEY)
        assert decrypt(made, KEY, name=digest(data)) == data
        assert len(made) == len(data) + OVERHEAD_BYTES


def test_the_bytes_of_an_encrypted_pack_are_golden() -> None:
    # encrypted/1: a change here is a change of the wire
    assert encrypt(PACK, KEY).hex() == GOLDEN


def test_nothing_of_a_pack_shows_and_another_key_gives_other_bytes() -> None:
    made = encrypt(PACK, KEY)
    assert made.startswith(HEAD)
    assert PACK[:5] not in made
    assert made != encrypt(PACK, KEY[::-1])


@pytest.mark.parametrize("at", range(0, len(PACK) + OVERHEAD_BYTES, 3))
def test_a_changed_or_truncated_pack_is_refused(at: int) -> None:
    made = bytearray(encrypt(PACK, KEY))
    made[at] ^= 1
    for bad in (bytes(made), bytes(made[:at])):
        with pytest.raises(DigestMismatch):
            decrypt(bad, KEY, name=NAME)


@pytest.mark.parametrize("key", [bytes(32), b"", KEY[:16], KEY + b"\0"])
def test_a_wrong_key_is_refused(key: bytes) -> None:
    with pytest.raises(DigestMismatch):
        decrypt(encrypt(PACK, KEY), key, name=NAME)


def test_one_pack_does_not_pass_for_another_under_the_same_key() -> None:
    with pytest.raises(DigestMismatch):
        decrypt(encrypt(b"another", KEY), KEY, name=NAME)


def test_a_directory_of_packs_that_are_not_encrypted_has_the_bytes_that_it_always_had() -> None:
    old = PackRef("a" * 64, 9, 0, 3, 2)
    golden = b'{"cohort":0,"contributors":2,"digest":"' + b"a" * 64 + b'","samples":3,"size":9}'
    assert encode(old) == golden
    new = PackRef("a" * 64, 9, 0, 3, 2, "b" * 64)
    assert encode(new) == golden.replace(b'"cohort"', b'"ciphertext":"' + b"b" * 64 + b'","cohort"')
    for ref in (old, new):
        meta = DirectoryMeta("toy", "c" * 64, (ref,), ())
        assert convert(DirectoryMeta, plain(meta), what="directory") == meta


def test_the_json_of_keys_is_golden() -> None:
    assert encode(KeysRequest(("a" * 64,))) == b'{"packs":["' + b"a" * 64 + b'"]}'
    assert encode(KeysReply((None, "k" * 44))) == b'{"keys":[null,"' + b"k" * 44 + b'"]}'


@pytest.mark.parametrize("packs", [[], ["a" * 63], ["a" * 64] * 1001])
def test_a_request_for_no_keys_or_too_many_is_refused(packs: list[str]) -> None:
    with pytest.raises(InvalidMessage):
        convert(KeysRequest, {"packs": packs}, what="request for keys")


GOLDEN = "656467652d656e637279707465642f315bdc9814e03ea72e76a3969f2f69e2773b6ce2c7bbdfdafbe72010ceccf32c227e"
