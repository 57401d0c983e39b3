"""Programs in pods without rights that wait for each other, are killed, or look for processes and terminals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.pods import in_pod

pytestmark = [pytest.mark.root, needs.program("crun", "runc")]
ROOT = pytest.param("privileged-root", marks=pytest.mark.long)
KINDS = [ROOT, "rootless-nosetuid", "restricted", "gvisor-restricted"]
CONTAINER = "builda pull -q oci-archive:/given/debian.tar:debian > /dev/null; c=$(builda from localhost/debian:debian)"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Path:
    path = tmp_path_factory.mktemp("given")
    path.chmod(0o755)
    shutil.copy(debian, path)
    return path


def said(profile: str, script: str, given: Path) -> list[str]:
    """What a script prints in a container in a pod."""
    (given / "script").write_text(script)
    done = in_pod(profile, f"{CONTAINER}; builda run -v /given:/given:ro $c bash /given/script", given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


FIFOS = r"""
cd /tmp; mkfifo f g; trap '' PIPE
for i in {1..60}; do cat f > read & echo "to a reader" > f || echo "failed: $i"; wait; cat read; done | uniq
for i in {1..60}; do echo "from a writer" > f & read -r line < f; wait; echo "$line"; done | uniq
timeout 0.3 cat f; echo $?; timeout 0.3 bash -c 'echo > f'; echo $?; timeout -s KILL 0.3 cat f 2> /dev/null; echo $?
sleep 0.5; timeout 0.3 bash -c 'echo > f'; echo $?
exec 3<> g; exec 4< g; exec 3>&-; timeout 0.3 cat /dev/fd/4; echo $?
cat f & p=$!; sleep 0.2; kill -STOP $p; sleep 0.1; echo stopped > f & sleep 0.1; kill -CONT $p; wait
cat > handlers <<'PERL'
use POSIX; $| = 1;
sub handled { print "$_[0]\n"; if (!fork) { open G, ">", "f"; print G "written\n"; close G; POSIX::_exit 0 } }
for my $flags (0, SA_RESTART) { sigaction(SIGALRM, POSIX::SigAction->new(\&handled, POSIX::SigSet->new, $flags));
    alarm 1; print open(F, "<", "f") ? <F> : "$!\n"; if (!$flags) { open F, "<", "f"; print <F> } }
PERL
perl handlers
"""
FIFOS_SAID = """to a reader
from a writer
124
124
137
124
124
stopped
ALRM
Interrupted system call
written
ALRM
written
"""


@pytest.mark.parametrize("profile", KINDS)
def test_a_fifo_joins_a_reader_and_a_writer_and_signals_interrupt_who_waits(profile: str, given: Path) -> None:
    assert said(profile, FIFOS, given) == FIFOS_SAID.splitlines()


@pytest.mark.parametrize("profile", KINDS)
def test_a_container_goes_on_after_all_was_killed(profile: str, given: Path) -> None:
    script = f"""{CONTAINER}
    builda run $c sh -c 'echo kept > /kept; echo ready; sleep 100' > /vol/out &
    until grep -q ready /vol/out; do sleep 0.1; done
    kill -9 -1; wait; builda run $c sh -c 'cat /kept; ls -d /proc/self'; builda rm $c > /dev/null
    """
    done = in_pod(profile, script, given=given)
    assert (done.returncode, done.stdout) == (0, "kept\n/proc/self\n"), done.stderr


@pytest.mark.parametrize("profile", KINDS)
def test_a_terminal_is_given_to_a_user(profile: str, given: Path) -> None:
    script = "script -qec 'chown games:tty $(tty) && chmod 620 $(tty) && echo given' /dev/null"
    assert said(profile, script, given) == ["given"]


@pytest.mark.parametrize("profile", KINDS)
def test_users_with_the_id_of_the_pods_user_are_changed_and_removed(profile: str, given: Path) -> None:
    """userdel and usermod refuse if a process of that user runs, and the pod's processes have its user's id."""
    script = (
        "useradd -mu 1000 a; su a -c id; usermod -u 1500 a; usermod -u 1000 a; userdel -r a; grep Uid /proc/1/status"
    )
    user = "uid=1000(a) gid=1000(a) groups=1000(a)"
    assert said(profile, script, given) == [user, "Uid:\t0\t0\t0\t0"]


@pytest.mark.parametrize("profile", [*KINDS, pytest.param("root-default", marks=pytest.mark.long)])
def test_messages_go_through_queues(profile: str, given: Path) -> None:
    script = r"""perl -e '$name = "builda-$$"; $queue = syscall 240, $name, 0102, 0600, 0; $queue < 0 and die $!;
        $hello = "hello"; syscall 242, $queue, $hello, 5, 0, 0; $text = " " x 8192;
        print substr($text, 0, syscall 243, $queue, $text, 8192, 0, 0), "\n"; syscall 241, $name'"""
    assert said(profile, script, given) == ["hello"]
