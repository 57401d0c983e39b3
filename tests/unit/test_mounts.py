"""`--mount` texts: any text gives a mount or an error of builda's."""

from __future__ import annotations

import pytest

from builda.errors import InvalidValue
from builda.mounts import mount_text, parse_mount
from builda.plan import FromImage


@pytest.mark.parametrize(
    "text",
    [
        "type=secret",
        "type=bind,target=/",
        "type=tmpfs,target=..",
        "type=cache",
        "type=cache,target=/x,mode=8",
        "type=cache,target=/x,uid=-1",
        "type=cache,target=/x,uid=99999999999",
        "type=tmpfs,target=/x,uid=1",
        "type=tmpfs,target=/x,source=y",
        "type=bind,target=/x,required",
        "type=bind,target=/x,id",
    ],
)
def test_what_is_no_mount_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_mount(text, FromImage)


@pytest.mark.parametrize("word", ["suid", "rw", "", "Private", "rshared,dev"])
def test_a_propagation_is_one_that_mounts_have(word: str) -> None:
    with pytest.raises(InvalidValue, match=r"unsupported bind-propagation|field has no value"):
        parse_mount(f"type=bind,target=/x,bind-propagation={word}", FromImage)
    assert parse_mount("type=bind,target=/x,bind-propagation=rslave", FromImage).options == ("rslave",)


@pytest.mark.parametrize(
    "text",
    [
        "type=bind,target=/x",
        "type=bind,target=/x,source=a b,ro=false,bind-propagation=rslave,z=true,from=image",
        'type=bind,"target=/a,b","source=c""d"',
        "type=cache,target=/x,id=i,sharing=locked,mode=0700,uid=1,gid=2,from=image,source=/s",
        "type=tmpfs,target=/x,size=64m,mode=1777",
        "type=secret,id=s",
        "type=secret,id=s,env=S",
        "type=secret,id=s,env=S,target=/t,required=true,mode=0444",
        "type=ssh",
        "type=ssh,id=a,target=/s,uid=3",
    ],
)
def test_the_text_of_a_mount_means_the_same(text: str) -> None:
    mount = parse_mount(text, FromImage)
    source = mount.from_.name if isinstance(mount.from_, FromImage) else None
    assert parse_mount(mount_text(mount, source), FromImage) == mount
