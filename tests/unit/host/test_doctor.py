"""What doctor says: pure, from facts to sentences."""

from __future__ import annotations

import pytest

from builda.errors import BuildaError
from builda.host.doctor import Facts, findings
from builda.host.probe import Abilities, Mode

DEFAULT = 0xA80425FB  # the capabilities of a container's root
DENIED = "Operation not permitted"
NO_NAMESPACE = Abilities(DENIED, DENIED, "no user namespace", "no user namespace", "no user namespace", None)
ONE_ID = Abilities(DENIED, None, "CAP_SETUID or CAP_SETGID is missing", DENIED, None, DENIED)
NOT_MAPPED = ONE_ID._replace(single_map=DENIED)
FACTS = Facts(
    mode=Mode.DIRECT,
    abilities=Abilities(None),
    uid=0,
    effective=(1 << 41) - 1,
    bounding=(1 << 41) - 1,
    no_new_privileges=False,
    seccomp=False,
    user_namespace=False,
    namespaces_limit=10000,
    apparmor_restricts=False,
    unprivileged_allowed=True,
    helpers="file capabilities",
    ranges=(),
    fresh_proc=None,
    overlay=None,
    records=True,
    store="/var/lib/builda",
    store_problem=None,
    file_system="ext4",
    mount_flags=frozenset({"rw", "relatime"}),
    free_bytes=1 << 40,
    free_inodes=1 << 20,
    libseccomp=None,
    tun=None,
    private_network="a bridge",
)
ROOT_POD = FACTS._replace(
    mode=Mode.CHROOT,
    abilities=NO_NAMESPACE,
    effective=DEFAULT,
    bounding=DEFAULT,
    seccomp=True,
    overlay="this mode has none",
    private_network=None,
)
USER = FACTS._replace(mode=Mode.SINGLE, abilities=ONE_ID, uid=1000, effective=0, bounding=DEFAULT, private_network=None)
RESTRICTED = USER._replace(
    mode=Mode.TRACED, abilities=NO_NAMESPACE, bounding=0, no_new_privileges=True, seccomp=True, user_namespace=False
)


def test_nothing_is_wanting_for_root() -> None:
    assert {finding.kind for finding in findings(FACTS)} == {"good"}


@pytest.mark.parametrize(
    ("facts", "cause", "change", "gives"),
    [
        (ROOT_POD, "seccomp profile", "hostUsers: false", "direct"),
        (ROOT_POD._replace(user_namespace=True), "seccomp profile", "add: [SYS_ADMIN]", "direct"),
        (ROOT_POD._replace(namespaces_limit=0), "max_user_namespaces is 0", "user.max_user_namespaces=", "userns"),
        (RESTRICTED, "seccomp profile", "type: Unconfined", "subid"),
        (RESTRICTED._replace(apparmor_restricts=True), "AppArmor", "apparmor_restrict", "subid"),
        (RESTRICTED._replace(unprivileged_allowed=False), "userns_clone is 0", "userns_clone=1", "subid"),
        (USER._replace(helpers="missing"), "not installed", "apt-get install uidmap", "subid"),
        (USER._replace(ranges=(("no range for user x", ("add x",)),)), "no range for user x", "add x", "subid"),
        (USER._replace(no_new_privileges=True), "no_new_privs", "allowPrivilegeEscalation: true", "subid"),
        (USER._replace(bounding=0), "bounding set", "add: [SETUID, SETGID]", "subid"),
        (USER._replace(helpers="plain"), "a copied image may lose them", "setcap cap_setuid+ep", "subid"),
        (USER._replace(helpers="set-uid"), "CAP_SYS_ADMIN in the bounding set", "setcap cap_setgid+ep", "subid"),
    ],
)
def test_the_cause_and_the_change_are_named(facts: Facts, cause: str, change: str, gives: str) -> None:
    lacks = [finding for finding in findings(facts) if finding.kind == "lack"]
    assert cause in lacks[0].cause
    assert change in "\n".join(lacks[0].change)
    assert lacks[0].gives == gives


def test_all_that_a_mode_needs_is_named_at_once() -> None:
    bare = RESTRICTED._replace(helpers="missing", ranges=(("no range of uids", ("a line",)), ("no gids", ("another",))))
    (lack, *_) = [finding for finding in findings(bare) if finding.kind == "lack"]
    assert lack.cause.count(";") == 4
    lines = "\n".join(lack.change)
    for part in ("type: Unconfined", "apt-get install uidmap libcap2-bin", "setcap cap_setuid+ep", "a line\nanother"):
        assert lines.count(part) == 1


@pytest.mark.parametrize("missing", [6, 7, 31])
def test_a_root_that_lacks_one_capability_is_told(missing: int) -> None:
    root = FACTS._replace(mode=Mode.SINGLE, abilities=ONE_ID, effective=DEFAULT & ~(1 << missing))
    assert any(finding.gives == "userns" and "SETFCAP" in finding.change[-1] for finding in findings(root))


def test_a_root_without_capabilities_is_told_to_be_somebody_else() -> None:
    root = FACTS._replace(mode=Mode.TRACED, abilities=NOT_MAPPED, effective=0, bounding=0)
    lacks = [finding for finding in findings(root) if finding.kind == "lack"]
    assert [finding.gives for finding in lacks] == ["userns", "single", "chroot"]
    assert lacks[1].change == ("securityContext:", "  runAsUser: 1000")
    with_setfcap = root._replace(mode=Mode.SINGLE, abilities=ONE_ID)
    assert all("runAsUser" not in line for finding in findings(with_setfcap) for line in finding.change)


def test_a_root_that_may_chroot_alone_is_told_what_more_it_takes() -> None:
    refused = "CAP_CHOWN and CAP_SETUID are missing"
    root = FACTS._replace(mode=Mode.TRACED, abilities=NOT_MAPPED._replace(change_root=refused), effective=1 << 18)
    (mode, *others) = findings(root)
    assert "no chroot" not in mode.text
    causes = [finding.cause for finding in others if finding.kind == "lack"]
    assert causes[0] == "these capabilities are missing: SETUID, SETGID, SETFCAP"
    (chroot,) = [finding for finding in others if finding.gives == "chroot"]
    assert chroot.change[-1] == "    add: [CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID]"


UNTRACED = RESTRICTED._replace(abilities=NO_NAMESPACE._replace(change_root=DENIED, trace=f"ptrace: {DENIED}"))


@pytest.mark.parametrize(
    ("facts", "cause", "change"),
    [
        (UNTRACED._replace(yama=2), "ptrace_scope is 2", "sysctl -w kernel.yama.ptrace_scope=1"),
        (UNTRACED._replace(yama=3), "ptrace_scope is 3", "sysctl -w kernel.yama.ptrace_scope=1"),
        (UNTRACED._replace(yama=1), f"ptrace: {DENIED}", "type: RuntimeDefault"),
        (
            UNTRACED._replace(abilities=UNTRACED.abilities._replace(trace="seccomp: Invalid argument")),
            "seccomp: Invalid argument",
            "Linux 5.9 or newer",
        ),
    ],
)
def test_what_keeps_commands_from_being_traced_is_named(facts: Facts, cause: str, change: str) -> None:
    (mode, *others) = findings(facts)
    assert mode.kind == "wrong"
    assert cause in mode.cause
    assert change in mode.change[-1]
    (chroot,) = [finding for finding in others if finding.gives == "chroot"]
    assert "  runAsUser: 0" in chroot.change


@pytest.mark.parametrize(
    ("facts", "text"),
    [(ROOT_POD, "commands have no /proc"), (USER, "commands can become no other user and give files to nobody")],
)
def test_a_kernel_that_hands_no_calls_over_is_said_where_it_counts(facts: Facts, text: str) -> None:
    assert text not in [finding.text for finding in findings(facts)]
    refused = facts._replace(notifications="the kernel hands no calls over")
    assert text in [finding.text for finding in findings(refused)]


def test_the_reason_why_the_filter_cannot_be_loaded_is_no_circle() -> None:
    try:
        raise BuildaError("commands cannot be run without libseccomp: too old") from OSError("too old")
    except BuildaError as error:
        facts = FACTS._replace(libseccomp=error)
    (wrong,) = [finding for finding in findings(facts) if finding.kind == "wrong"]
    assert wrong.cause == "libseccomp, which filters their calls, cannot be loaded: too old"


def test_a_set_uid_helper_is_good_outside_of_pods() -> None:
    whole = USER._replace(helpers="set-uid", bounding=(1 << 41) - 1)
    assert all("set-uid" not in finding.cause for finding in findings(whole))


@pytest.mark.parametrize(
    ("facts", "kind", "text"),
    [
        (
            FACTS._replace(overlay="Invalid argument", file_system="overlay"),
            "lack",
            "builds keep their trees in memory",
        ),
        (FACTS._replace(mount_flags=frozenset({"noexec"})), "wrong", "commands cannot be executed"),
        (FACTS._replace(mount_flags=frozenset({"nosuid"})), "note", "set-uid programs have no effect"),
        (FACTS._replace(libseccomp=BuildaError("no libseccomp")), "wrong", "commands cannot be run"),
        (FACTS._replace(store_problem="it is read-only"), "wrong", "the store cannot be written"),
        (FACTS._replace(free_bytes=1 << 20), "note", "1 MiB are free"),
        (FACTS._replace(free_inodes=10), "note", "10 inodes are free"),
        (ROOT_POD, "note", "mode chroot: commands run by chroot"),
        (FACTS._replace(mode=Mode.USERNS, fresh_proc=DENIED), "note", "processes of this pod"),
        (RESTRICTED, "wrong", "mode traced"),
        (FACTS._replace(private_network="pasta"), "good", "--network private gives them their own, by pasta"),
        (FACTS._replace(private_network="pasta", tun="Nothing"), "note", "commands share this process's network"),
    ],
)
def test_what_is_wrong_with_the_place_is_said(facts: Facts, kind: str, text: str) -> None:
    assert any(finding.kind == kind and text in finding.text for finding in findings(facts))
