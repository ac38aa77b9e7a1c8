"""`cloud-aug keys`: see and replace the service's keys."""

from __future__ import annotations

import time
from enum import Enum
from typing import Annotated

import typer

from cloud_aug.commands.options import Data, Json, Offline, moment, opened
from cloud_aug.output import show

app = typer.Typer(no_args_is_help=True, help="The service's keys.")


class Kind(str, Enum):
    """What can be replaced."""

    signing = "signing"
    tls = "tls"
    ca = "ca"
    root = "root"
    packs = "packs"


Finish = Annotated[bool, typer.Option("--finish", help="Stop believing the old key.")]


@app.command()
def rotate(
    kind: Annotated[Kind, typer.Argument(help="Which key.")],
    finish: Finish = False,
    offline: Offline = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Replace a key: first both are believed; when boards have synced, --finish. The TLS key is replaced at once; what
    the keys of packs follow from, for every task with its next index build."""
    from cloud_aug import rotation

    cloud = opened(data, offline=offline)
    with cloud.locked("keys", doing="replacing keys"):
        if kind is Kind.packs:
            done = rotation.rotate_packs(cloud, now=time.time())
        else:
            now, hosts = time.time(), cloud.settings.hosts
            done = rotation.rotate(kind.value, cloud.database, cloud.keys, hosts, finish=finish, now=now)
    words = f"{'rotated' if done.changed else 'nothing changed for'} '{kind.value}', trust version {done.trust_version}"
    show(done, f"{words}; {done.next_step}", as_json=as_json)


@app.command("show")
def show_keys(data: Data = None, as_json: Json = False) -> None:
    """Show which keys boards believe, by key id; and until when the certificates hold."""
    from cloud_aug import certificates, keys
    from edgewire.trust import keyring

    cloud = opened(data)
    trust, certificate = cloud.trust(), keys.server_certificate_pem(cloud.keys)
    authorities = [
        {"id": certificates.fingerprint(pem), "expires_at": certificates.expires_at(pem)} for pem in trust.authorities
    ]
    tls = {"hosts": certificates.hosts_of(certificate), "expires_at": certificates.expires_at(certificate)}
    result = {
        "trust_version": trust.version,
        "roots": list(keyring(trust.roots)),
        "signing": list(keyring(trust.signing)),
        "authorities": authorities,
        "tls": tls,
    }
    lines = [
        f"trust version {trust.version}",
        f"root     {' '.join(keyring(trust.roots))}",
        f"signing  {' '.join(keyring(trust.signing))}",
        *[
            f"ca       {certificates.fingerprint(p)} until {moment(certificates.expires_at(p))}"
            for p in trust.authorities
        ],
        f"tls      {' '.join(certificates.hosts_of(certificate))} until {moment(certificates.expires_at(certificate))}",
    ]
    show(result, "\n".join(lines), as_json=as_json)
