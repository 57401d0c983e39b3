"""Commands of a plain user without a range of ids, in mode `single`: what they see, and the same layers as root's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support.rootless import LONELY, rootless

pytestmark = pytest.mark.root

EPOCH = "1600000000"
GAMES = {
    "users": """
        useradd -m x; passwd -d x; groupadd -g 777 gg; usermod -aG gg x; id x; su x -c id
        su x -c 'touch ~/mine; mkdir ~/d; ln -s a ~/l; mkfifo ~/f; umask 077; mkdir -p /tmp/a/b; touch /tmp/a/b/c'
        find /home/x /tmp -printf '%p %M %U:%G %l\\n' | sort
    """,
    "denials": """
        touch /f; chown 1:2 /f
        as() { setpriv --reuid 33 --regid 33 --groups 4,5 "$@" || echo "status $?"; }
        as chown 33 /f; as chgrp 4 /f; as touch /nope; as mkdir /nope; as bash -c 'echo x >> /etc/passwd'
        as test -w /etc/passwd; as test -r /etc/shadow; as test -w /tmp; as mknod /tmp/null c 1 3
        as bash -c 'touch /tmp/w && chgrp 4 /tmp/w && chgrp 6 /tmp/w; stat -c "%u %g" /tmp/w'
        as setpriv --reuid 0 true; as setpriv --clear-groups true
    """,
    "owners": """
        install -o 33 -g 42 -m 4755 /bin/true /t; cp -a /t /t2; stat -c '%u %g %a' /t2
        chown 5 /t; stat -c '%u %g %a' /t; chmod 2755 /t2; chgrp 9 /t2; stat -c '%u %g %a' /t2
        ln -s foo /lnk; chown -h 7:8 /lnk; mv /lnk /lnk2; stat -c '%u %g' /lnk2; ln -sf bar /lnk2; stat -c '%u %g' /lnk2
        mkfifo /fifo; chown 3:4 /fifo; mv /fifo /moved; stat -c '%u %g' /moved; rm /moved; mkfifo /moved
        ln /t /hard; stat -c '%u %g' /hard; chown -R 1000:1000 /srv /opt; find /srv /opt -printf '%p %U %G\\n'
        find / -xdev \\( -user 5 -o -group 42 \\) -printf '%p %u %g %m\\n' | sort
        perl -e 'print join(" ", (stat "/etc/shadow")[4, 5], (lstat "/lnk2")[4, 5]), "\\n"'
    """,
    "directories with the group's bit": """
        mkdir /var/local/sub; touch /var/local/sub/f /var/local/g; echo x > /var/mail/root; ln -s a /var/local/l
        setpriv --reuid 33 --regid 50 --clear-groups touch /var/local/h
        find /var/local /var/mail -printf '%p %M %U:%G\\n' | sort
    """,
    "devices": """
        mknod /c c 1 9; mknod -m 600 /b b 259 70000; chown 0:6 /b; stat -c '%F %t %T %u %g %a' /c /b
        cp -a /b /b2; stat -c '%F %t %T %u %g %a' /b2; test -b /b2 && test -c /c && echo nodes
    """,
    "archives": """
        useradd -m x; su x -c 'ln -s a ~/l; mkdir ~/d'; chown 33:33 /home/x/d
        tar -C / -cpf /h.tar home; mkdir /r; tar -C /r -xpf /h.tar; rm /h.tar; find /r -printf '%p %U %G %m\\n' | sort
        cp -a /home/x /home/y; find /home/y -printf '%p %U %G %m\\n' | sort; cp /home/x/.profile /copied
        cd /home && find x | cpio -pdm /c 2> /dev/null || true; mv /r/home/x/d /moved; stat -c '%u %g' /moved
    """,
    "credentials": """
        setpriv --dump; setpriv --reuid 1000 --regid 1000 --groups 5,4 setpriv --dump
        setpriv --bounding-set -chown bash -c 'touch /n; chown 5 /n || stat -c %u /n'
        setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps +chown --ambient-caps +chown bash -c '
            touch /tmp/m; chown 5 /tmp/m && stat -c %u /tmp/m'
        perl -e 'print "$< $>"; $> = 33; print " $< $>"; open F, ">/tmp/p"; close F; $> = 0; print " $< $>\\n";
            $( = 5; $) = "6 7 8"; print "$( $)\\n"'
        stat -c '%u %g' /tmp/p; setpriv --no-new-privs grep NoNewPrivs /proc/self/status
        chmod u+s /usr/bin/id; setpriv --reuid 33 --regid 33 --clear-groups id; chmod u-s /usr/bin/id
        cp /usr/bin/id /tmp/id; chown 1:2 /tmp/id; chmod 6755 /tmp/id; /tmp/id; /tmp/../tmp/id -u; cd /tmp; ./id -g
        cp -p /tmp/id /dev/shm/id; stat -c '%u %g %a' /dev/shm/id; /dev/shm/id -u; rm /dev/shm/id
        mkfifo -m 666 /tmp/go; setpriv --reuid 33 --regid 33 --clear-groups bash -c '(id -u > /tmp/go) & exit 0' &
        cat /tmp/go; rm /tmp/go
    """,
    "peers of sockets": r"""
        perl -e 'use Socket; $| = 1; sub peer { join " ", (unpack "iII", getsockopt $_[0], 1, 17)[1, 2] }
            socket S, AF_UNIX, SOCK_STREAM, 0; bind S, sockaddr_un "/s"; chmod 0666, "/s"; listen S, 1;
            if (!fork) { $) = "6 6"; $> = 33; socket C, AF_UNIX, SOCK_STREAM, 0; connect C, sockaddr_un "/s";
                print "of the listener: ", peer(*C), "\n"; syswrite C, "x"; sysread C, $x, 1; exit }
            accept C, S; sysread C, $x, 1; print "of the client: ", peer(*C), "\n"; syswrite C, "x"; wait;
            print defined getsockopt(STDIN, 1, 17) ? "a socket" : $!, "\n"' < /dev/null > /peers; rm /s; cat /peers
    """,
    "peers of sockets that have ended": r"""
        perl -e 'use Socket; socket S, AF_UNIX, SOCK_STREAM, 0; bind S, sockaddr_un "/s"; listen S, 1; exit if fork;
            accept C, S; sysread C, $x, 1'; setpriv --reuid 33 --regid 33 --clear-groups true
        perl -e 'use Socket; socket C, AF_UNIX, SOCK_STREAM, 0; connect C, sockaddr_un "/s";
            print join " ", (unpack "iII", getsockopt C, 1, 17)[1, 2]; syswrite C, "x"' > /peers; rm /s; cat /peers
    """,
    "ids in messages": r"""
        cat > /m.pl <<'PERL'
        use Socket; use POSIX; socketpair A, B, AF_UNIX, SOCK_STREAM, 0; open F, "</etc/hostname";
        sub message { my $control = shift; my $x = "x"; my $vector = pack "PQ", $x, 1;
            my $message = pack "QIx4PQPQix4", 0, 0, $vector, 1, $control, length $control, 0;
            print "@_: ", (syscall(46, fileno A, $message, 0) < 0 ? $! : "sent"), "\n" }
        sub claim { my ($pid, $uid, $gid) = @_; pack "QiiiIIx4", 28, 1, 2, $pid, $uid, $gid }
        sub claims { my ($uid, $gid) = @_; message claim($$, $uid, $gid), $uid, $gid }
        claims 0, 0; claims 33, 4; claims 4294967295, 0; claims 0, 4294967295;
        message claim(1 << 22, 5, 5), "another process"; message "x" x 30, "nonsense";
        message pack("Qii", 99, 1, 2), "long";
        message pack("Qiii", 20, 1, 1, fileno F) . "\0" x 4 . claim($$, 33, 6), "a descriptor, and user 33";
        $) = "6 6"; $> = 33; claims 33, 6; claims 33, 0; claims 5, 6; claims 33, 7;
        setgid(6); $> = 0; setgid(6); setuid(33); claims 33, 6 for 1 .. 2; claims 33, 7; claims 7, 6;
PERL
        perl /m.pl > /claims; cat /claims
    """,
    "modes of what has no attributes": r"""
        mkdir -m 1777 /own
        perl -e 'use Socket; use POSIX; $) = "6 6"; $> = 33; mkfifo "/own/f", 0600; socket S, AF_UNIX, SOCK_STREAM, 0;
            bind S, sockaddr_un "/own/s"; for (qw(f s)) { print chmod(02777, "/own/$_") ? "" : "$_: $!\n";
            print utime(1, 1, "/own/$_") ? "" : "$_: $!\n"; print access("/own/$_", 2) ? "" : "$_: $!\n" }
            $> = 0; $) = "0 0"; chown 7, 8, "/own/f"; $> = 7; print chmod(0640, "/own/f") ? "" : "$!\n"' > /own/said
        cat /own/said; stat -c '%n %a %u %g' /own/*; rm /own/s
    """,
    "owners of sockets": r"""
        mkdir -m 1777 /open; mkdir -m 2777 /group; chown 3:4 /group; mkdir /closed; mkdir -m 1777 -p /in/o
        cat > /tmp/sockets <<'PERL'
        use Socket; sub made { my ($path) = @_; socket my $s, AF_UNIX, SOCK_STREAM, 0; my $address = sockaddr_un $path;
            print bind($s, $address) ? (unpack_sockaddr_un getsockname $s)[0] : "$path: $!", "\n" }
        $) = "6 6"; $> = 33; chdir "/open"; umask 027;
        made $_ for "/open/s", "rel", "/open/s", "/closed/s", "/missing/s", "/open/s/s", "/group/s", "x/", ".", "\0abs";
        made "/open/" . "l" x 102; made "/open/gone"; unlink "/open/gone"; $> = 0; $) = "0 0"; made "/open/gone";
        made "/closed/r"; made "/group/r"; chroot "/in" or exit;
        chdir "/"; $) = "6 6"; $> = 33; made $_ for "/o/in", "o/r";
        socket T, AF_INET, SOCK_STREAM, 0; print bind(T, sockaddr_in 0, INADDR_LOOPBACK) ? "a port\n" : "$!\n";
        print bind(T, sockaddr_un "/open/t") ? "" : "$!\n"; $> = 0; $) = "0 0"; symlink "x", "/open/t"
PERL
        perl /tmp/sockets > /said; cat -v /said; rm /tmp/sockets /said
        find /open /group /closed /in -printf '%p %M %U:%G
' | sort; find / -xdev -type s -delete
    """,
    "roots inside": """
        mkdir -p /in/etc; cp -a /usr/lib* /usr/bin /in/
        chroot /in sh -c 'touch /etc/f; chown 7:8 /etc/f; stat -c "%u %g" etc/f; cd etc; chown 9 f'
        stat -c '%u %g' /in/etc/f; test -e /etc/f; rm -rf /in
    """,
    "access control lists": r"""
        cat > /tmp/acls <<'PERL'
        use strict; my ($no, $name) = (0xffffffff, "system.posix_acl_access");
        sub acl { my ($user, $mask) = @_;
            pack "V(vvV)*", 2, 1, $user, $no, 2, 6, 33, 4, 4, $no, 16, $mask, $no, 32, 1, $no }
        sub set { my ($path, $value) = @_; syscall(188, $path, $name, $value, length $value, 0) and print "$path $!\n" }
        sub get { my ($path) = @_; my $value = "\0" x 64; my $size = syscall(191, $path, $name, $value, 64);
            printf "%s %o %s\n", $path, (stat $path)[2], $size < 0 ? $! : unpack "H*", substr $value, 0, $size;
            substr $value, 0, $size }
        sub names { my ($path) = @_; my $value = "\0" x 256; my $size = syscall(194, $path, $value, 256);
            print join(" ", sort split /\0/, substr $value, 0, $size), "\n" }
        for (["/f", 6, 6], ["/none", 0, 0], ["/d", 5, 7]) {
            my ($path, $user, $mask) = @$_;
            set $path, acl $user, $mask; get $path; names $path; set "$path.copy", get $path }
        chmod 0640, "/f"; get "/f"; chmod 0, "/d"; get "/d"; chown 5, 6, "/f.copy"; get "/f.copy";
        set "/g", acl 6, 6; my $gone = "/g"; syscall 197, $gone, $name; get "/g"; names "/g";
        set "/h", pack "V(vvV)*", 2, 1, 4, $no, 4, 0, $no, 32, 4, $no; get "/h"; set "/h", "no ACL"; set "/l", acl 6, 6;
        $> = 33; set "/h", acl 7, 7; my $file = "/f"; syscall(197, $file, $name) and print "$!\n"
PERL
        touch /f /f.copy /none /none.copy /g /h; mkdir -m 700 /d /d.copy; ln -s h /l; perl /tmp/acls; rm /tmp/acls
        cat /none; ls /d; stat -c '%n %a %u' /f* /d* /g /h /none*
    """,
    "capabilities for other namespaces": r"""
        cat > /tmp/set <<'PERL'
        my ($path, $root, $effective) = @ARGV; my $name = "security.capability";
        my $value = pack "V6", 3 << 24 | $effective, 1 << 13, 0, 1 << 6, 0, $root;
        syscall(188, $path, $name, $value, 24, 0) and print "$path $!\n"; $value = "\0" x 30;
        my $size = syscall 191, $path, $name, $value, 30; print "$path ", unpack("H*", substr $value, 0, $size), "\n"
PERL
        mkdir /capable; cd /capable; for file in a b c d; do cp /bin/true $file; done; mkdir e
        perl /tmp/set a 1000 1; perl /tmp/set b 100000 0; perl /tmp/set c 0 1; perl /tmp/set d 7 0; perl /tmp/set e 7 0
        cp -a a copied; echo x >> d; mv b moved; rm /tmp/set; chown 5 e
    """,
    "default access control lists": r"""
        cat > /tmp/acls <<'PERL'
        use strict; use POSIX; use Socket; my $no = 0xffffffff;
        sub acl { my ($owner, @named) = @_; my @users = map { (2, $$_[1], $$_[0]) } grep { $$_[2] eq "u" } @named;
            my @groups = map { (8, $$_[1], $$_[0]) } grep { $$_[2] eq "g" } @named;
            pack "V(vvV)*", 2, 1, $owner, $no, @users, 4, 5, $no, @groups, 16, 7, $no, 32, 1, $no }
        sub set { my ($path, $value, $name) = @_; $name = "system.posix_acl_" . ($name || "default");
            syscall(188, $path, $name, $value, length $value, 0) and print "$path $!\n" }
        sub show { for my $path (@_) { printf "%s %o", $path, (lstat $path)[2];
            for my $kind ("access", "default") { my ($name, $value) = ("system.posix_acl_$kind", "\0" x 999);
                my $size = syscall 191, $path, $name, $value, 999;
                print " $kind ", unpack "H*", substr $value, 0, $size if $size > 0 } print "\n" } }
        my %acls = (plain => acl(7), user => acl(6, [33, 7, "u"]), closed => acl(0, [5, 1, "u"]),
            many => acl(7, [0, 7, "u"], [33, 6, "u"], [65533, 5, "u"], [0, 1, "g"], [4, 2, "g"], [1000, 3, "g"]));
        for my $top (sort keys %acls) { mkdir "/$top"; set "/$top", $acls{$top};
            for my $mask (022, 077, 0) { umask $mask; my $at = "/$top/$mask"; mkdir $at; mkdir "$at/d", 0750;
                open my $f, ">", "$at/f"; sysopen $f, "$at/x", O_CREAT | O_WRONLY, 0751; mkfifo "$at/p", 0660;
                my $device = "$at/c"; syscall 133, $device, 020640, 0x103;
                socket my $s, AF_UNIX, SOCK_STREAM, 0; bind $s, sockaddr_un "$at/s"; symlink "f", "$at/l";
                chown 33, 4, "$at/x", "$at/p"; chmod 0600, "$at/f" if $mask == 077; chmod 02711, "$at/d";
                set "$at/p", acl(5, [7, 5, "g"]), "access" }
            show "/$top", glob "/$top/* /$top/*/*" }
        set "/user", pack "V", 2; open my $f, ">", "/user/after"; show "/user", "/user/after";
        my ($path, $name) = ("/many", "system.posix_acl_default"); syscall 197, $path, $name; mkdir "/many/after";
        show "/many", "/many/after"
PERL
        perl /tmp/acls > /said; cat /said; rm /tmp/acls; find / -xdev -type s -delete; cp -a /many /copied
        umask 027; touch /closed/later; mkdir -m 700 /closed/mkdir; install -d -m 2775 /user/installed
        mkdir -p /plain/a/b
    """,
    "names that come and go": r"""
        install -d -o 33 -g 33 /w; cat > /tmp/meanwhile <<'PERL'
        use strict; use POSIX; $) = "33 33"; $> = 33; my %other;
        my @make = (sub { mkdir $_[0] }, sub { symlink "a", $_[0] }, sub { mkfifo $_[0], 0600 },
            sub { sysopen my $file, $_[0], O_CREAT | O_WRONLY }, sub { sysopen my $file, $_[0], O_CREAT | O_EXCL });
        pipe my $in, my $out; my $child = fork; if (!$child) { for my $n (1 .. 200) { my $made = $make[$n % @make];
            $made->("/w/$n/x"); syswrite $out, "x"; 1 until $made->("/w/$n/x") or $! != ENOENT } POSIX::_exit 0 }
        for my $n (1 .. 200) { sysread $in, my $go, 1; mkdir "/w/$n" } waitpid $child, 0;
        $child = fork; if (!$child) { while (1) { unlink "/w/f" } }
        for my $how (0, O_EXCL, O_TRUNC) { for (1 .. 300) {
            my $file; sysopen $file, "/w/f", O_CREAT | O_WRONLY | $how and (stat $file)[4] != 33 and $other{$how}++ } }
        kill 9, $child; waitpid $child, 0; unlink "/w/f"; print join(" ", %other), "\n";
        for ("here", "../w/1/there", "/w/2/there") { symlink $_, "/w/l"; my $file; sysopen $file, "/w/l", O_CREAT;
            print sysopen($file, "/w/l", O_CREAT | O_EXCL) ? "made" : "$!", "\n"; unlink "/w/l" }
        print sysopen(my $loop, "/w/loop", O_CREAT) ? "made" : "$!", "\n" if symlink "loop", "/w/loop";
        print sysopen(my $directory, $_, O_CREAT) ? "made" : "$!", "\n" for "/w/.", "/w/1/..", "/w/3/x/n", "/w/no/n";
PERL
        perl /tmp/meanwhile; rm /tmp/meanwhile; find /w ! -user 33; find /w -type f | sort | tail -n 2; find /w | wc -l
    """,
    "many processes": """
        for n in $(seq 300); do (setpriv --reuid $n --regid $n --clear-groups touch /tmp/$n) & done; wait
        find /tmp -type f -printf '%u %g %f\\n' | awk '$1 != $3' | grep -vE '^[a-z_-]+' ; ls /tmp | wc -l; rm -r /tmp/*
    """,
}


@dataclass(frozen=True)
class Both:
    """The same base image in root's store and in that of a user with one id."""

    root: Builda
    single: Builda

    def run(self, script: str, *options: str) -> list[tuple[str, str]]:
        """What the script prints, and the digest of the image that it makes."""
        return [self._run(builda, script, options) for builda in (self.root, self.single)]

    def _run(self, builda: Builda, script: str, options: tuple[str, ...]) -> tuple[str, str]:
        container = builda("from", "localhost/debian:debian")
        done = builda.run(
            "run", *options, container, "--", "bash", "-c", f"exec 2>&1\n{script}", SOURCE_DATE_EPOCH=EPOCH
        )
        builda("commit", "-q", "--rm", container, "made", SOURCE_DATE_EPOCH=EPOCH)
        return done.stdout, json.loads(builda("inspect", "--type", "image", "made"))["FromImageDigest"]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Iterator[Both]:
    work = tmp_path_factory.mktemp("one-id")
    root = Builda(work / "store", work / "run")
    with rootless(LONELY) as single:
        (single.home / "debian.tar").write_bytes(debian.read_bytes())
        root("pull", "-q", f"oci-archive:{debian}:debian")
        single("pull", "-q", f"oci-archive:{single.home}/debian.tar:debian")
        assert '"mode": "single"' in single("info")
        yield Both(root, single)


@pytest.mark.parametrize("game", GAMES)
def test_commands_see_and_leave_what_roots_see_and_leave(game: str, both: Both) -> None:
    by_root, by_one = both.run(GAMES[game])
    assert by_one[0] == by_root[0]
    assert by_one[1] == by_root[1]


def test_a_command_of_another_user_is_that_user(both: Both) -> None:
    script = "id; touch /tmp/f; stat -c '%u %g' /tmp/f; test -w /etc/passwd || mkdir /nope || true"
    by_root, by_one = both.run(script, "--user", "games:mail")
    assert by_one == by_root
    assert by_one[0].startswith("uid=5(games) gid=8(mail)")


HOSTILE = {
    "processes that are killed in the middle of calls": """
        perl -e 'for (1 .. 20) { $p = fork; if (!$p) { while (1) {
                chown 5, 5, "/tmp"; stat "/tmp"; $> = 33; mkdir "/tmp/$$"; rmdir "/tmp/$$"; $> = 0 } } push @k, $p }
            select undef, undef, undef, 0.2; kill 9, @k; waitpid $_, 0 for @k; print "killed\\n"'
        rm -rf /tmp/*; touch /f; chown 3:4 /f; stat -c '%u %g' /f
    """,
    "a path that changes while it is read": """
        mkdir /a /b; touch /a/f /b/f; ln -s a /l
        perl -e 'if (!($p = fork)) { while (1) { unlink "/m"; symlink "/b", "/m"; rename "/m", "/l";
                unlink "/m"; symlink "/a", "/m"; rename "/m", "/l" } }
            for (1 .. 300) { chown 5, 5, "/l/f"; @s = stat "/l/f" } kill 9, $p; waitpid $p, 0'
        rm -f /l /m; chown 5:5 /a/f /b/f; find /a /b -printf '%p %U %G\\n' | sort
    """,
    "addresses that are not the caller's": """
        perl -e '%n = (chown => 92, lstat => 6, getresuid => 118, setgroups => 116, capget => 125);
            for $n (sort keys %n) { syscall($n{$n}, 8, 9, 10); print "$n ", $! + 0, "\\n" }'
    """,
    "a process that executes itself": """
        export S='my $n = shift; $n < 300 ? exec($^X, "-e", $ENV{S}, $n + 1) : print "$n $> $<\\n"'
        setpriv --reuid 33 --regid 33 --clear-groups perl -e "$S" 0
    """,
    "marks that a process moves": """
        setpriv --reuid 33 --regid 33 --clear-groups bash -c 'ulimit -R 1000; id > /dev/null; echo went on' 2> /dev/null
    """,
    "paths that lead to the supervisor": """
        touch /f; chown 7 /f; exec 9< /f; chown 8 /proc/self/fd/9; stat -Lc %u /f /proc/self/fd/9 /dev/fd/9
        chown 9 /proc/self/root/f; stat -c %u /f; chown 1 /proc/1/root 2> /dev/null; echo $?
    """,
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_commands_get_what_root_gets(attack: str, both: Both) -> None:
    by_root, by_one = both.run(HOSTILE[attack])
    assert by_one == by_root
