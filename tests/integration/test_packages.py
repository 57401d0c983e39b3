"""What commands leave that install packages, become users and give files away: with one id, and without rights.

Packages come from this machine's sources, once for all modes: each group is a repository of its own in a base image.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda
from tests.integration.test_one_id import GAMES
from tests.support import needs
from tests.support.layerlists import differences
from tests.support.pods import in_pod, sampled

pytestmark = [pytest.mark.root, needs.program("crun", "runc")]
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
PODS = {"single": "rootless-nosetuid", "traced": "restricted"}
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
GROUPS = {
    "compilers": "gcc libc6-dev make python3-dev python3-venv python3-pip git man-db autoconf automake libcap2-bin",
    "servers": "nginx postgresql openssh-server sudo cron dbus exim4-daemon-light",
    "web": "apache2 redis-server php-fpm libgdk-pixbuf2.0-bin shared-mime-info ruby",
    "node": "nodejs npm",
    "java": "default-jre-headless ca-certificates-java fontconfig fonts-dejavu-core xfonts-base",
    "system": "systemd udev polkitd console-setup initramfs-tools unattended-upgrades locales tzdata chrony rsyslog "
    "uuid-runtime at screen iputils-ping libcap2-bin acl rsync cpio sudo gosu wireshark-common",
    "databases": "mariadb-server slapd rabbitmq-server krb5-kdc",
    "network": "bind9 bind9-dnsutils dovecot-core samba smbclient snmpd snmp tftpd-hpa curl squid haproxy mosquitto "
    "mosquitto-clients avahi-daemon cups-daemon cups-client colord memcached",
    "text": "emacs-nox texinfo sgml-base xml-core docbook-xml dictionaries-common wamerican tex-common gnupg curl",
}
"""Packages whose maintainer scripts do the most, in groups that one image holds."""
AFTERWARDS = {
    "compilers": r"""
        cd /usr/src; python3 -m venv --system-site-packages /opt/venv; useradd -m builder
        pip() { /opt/venv/bin/pip "$@" --no-index --no-cache-dir; }; export SOURCE_DATE_EPOCH=1000000000
        pip install -q --no-build-isolation ./fast; pip wheel -q --no-build-isolation -w /srv/wheels ./pure
        pip install -q /srv/wheels/*; chown -R builder fast pure project
        su builder -c "pip install -q --user --break-system-packages --no-index --no-build-isolation ./pure"
        rm -rf */build */*.egg-info; /opt/venv/bin/python -c 'import fast, pure'; su builder -c 'python3 -m pure'
        cd project; su builder -c 'autoreconf -i > /dev/null && ./configure -q && make -s'; make -s install; hi
        getcap /usr/local/bin/hi; su builder -c 'make -s distclean'; rm -r autom4te.cache
        git init -q /srv/r; cd /srv/r; git config user.email a@b; git config user.name n; echo 1 > f; git add f
        GIT_AUTHOR_DATE=@1000000000 GIT_COMMITTER_DATE=@1000000000 git commit -qm 1; rm -rf .git/index .git/logs
    """,
    "servers": r"""
        exec > /srv/said
        sed -i 's/80 default_server/47181 default_server/' /etc/nginx/sites-available/default; nginx -t
        mkdir -p /run/sshd; /usr/sbin/sshd -t; echo '0 5 * * * true' | crontab -u games -; crontab -u games -l
        cron -f & wait_for -e /run/crond.reboot; kill $!; rm -f /run/crond.*
        install -d -o messagebus /run/dbus; bus=$(dbus-daemon --system --fork --print-pid)
        sudo -u games dbus-send --system --print-reply --dest=org.freedesktop.DBus /org/freedesktop/DBus \
            org.freedesktop.DBus.GetConnectionUnixUser string:org.freedesktop.DBus | tail -n 1
        kill $bus; rm -rf /run/dbus
        sudo -u postgres id -u; echo 'games ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/g
        chmod 0440 /etc/sudoers.d/g; su games -s /bin/sh -c 'sudo id -u'; chmod 666 /etc/sudoers.d/g
        su games -s /bin/sh -c 'sudo -n id -u' 2>&1 || echo refused; rm /etc/sudoers.d/g
        # sudo reports that by a mail, which exim delivers: its times and number are left out, with the owners kept
        timeout 60 bash -c 'until grep -q Completed /var/log/exim4/mainlog; do sleep 0.1; done'
        grep -q 'is world writable' /var/mail/mail; truncate -s 0 /var/mail/mail /var/log/exim4/mainlog
        install -d -o postgres /srv/db; cd /srv; export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
        export PGDATA=/srv/db PGHOST=/srv/db; su postgres -c 'initdb > /dev/null
            pg_ctl -s -w -o "-h \"\" -k /srv/db" -l /dev/null start
            psql -Atc "create table t (n int); select current_user, count(*) from t"'
        stat -c '%a %U' /srv/db/base /srv/db/PG_VERSION /srv/db/.s.PGSQL.5432
        su postgres -c 'pg_ctl -s -w stop'; rm -rf /srv/db
    """,
    "system": r"""
        exec > /srv/said
        mkdir -p /srv/a/b; cd /srv/a; touch f 0440 none; chmod 0440 0440; chmod 000 none; cp /bin/true cap; chown 33:4 f
        setcap cap_net_raw+ep cap; mknod dev c 1 9; mknod -m 660 blk b 8 1; chgrp disk blk; ln f hard; ln -s f soft
        chown -h 5:60 soft; mkfifo -m 640 fifo; chown 7 fifo; setfacl -m u:33:rw,g:4:r f; setfacl -m u::rwx b
        cp -a /srv/a /srv/cp; rsync -aHX /srv/a/ /srv/rsync; tar --xattrs -C /srv -cpf /t.tar a; mkdir /srv/tar
        tar --xattrs --xattrs-include='*' -C /srv/tar -xpf /t.tar; find /srv/a | cpio -pdm /srv/cpio 2> /dev/null
        getcap -r /srv; getfacl -R /srv/a 2> /dev/null | grep -c '^user:33\|^user:www-data' || true
        find /srv -printf '%p %M %U:%G %l\n' | sort; rm /t.tar; setpriv --reuid 33 --clear-groups id
        useradd -mU -G disk app; install -d -o app -g adm -m 2775 /srv/shared; gosu app mkdir -p /srv/shared/a
        gosu app id; sudo -u app touch /srv/shared/a/f; su app -c 'cp -a /srv/shared/a ~/a; umask 077; touch ~/private'
        cp -a /home/app /home/copy; chown -R games:mail /home/copy; rsync -a --chown=app:adm /home/copy/ /home/synced
        systemd-tmpfiles --create; systemd-sysusers
    """,
    "web": r"""
        exec > /srv/said
        sed -i 's/^Listen 80$/Listen 127.0.0.1:47180/' /etc/apache2/ports.conf; apachectl -t; mkdir -p /run/apache2
        (. /etc/apache2/envvars; exec apache2 -D FOREGROUND) & wait_for -s /run/apache2/apache2.pid
        kill $!; wait $! || true; rm -rf /run/apache2; a2dismod status; a2enmod rewrite
        install -d -o redis /srv/r; su redis -s /bin/sh -c 'redis-server --dir /srv/r --daemonize yes --save "" \
            --port 0 --unixsocket /srv/r/s --unixsocketperm 770 > /dev/null'
        timeout 60 bash -c 'until redis-cli -s /srv/r/s ping 2> /dev/null; do sleep 0.1; done'
        stat -c '%A %U' /srv/r/s; redis-cli -s /srv/r/s shutdown nosave; php-fpm8.2 -t
    """,
    "databases": r"""
        install -d -o mysql /run/mysqld; su mysql -s /bin/sh -c 'mariadbd --skip-networking' 2> /dev/null &
        exec > /srv/said; timeout 60 bash -c 'until mariadb-admin ping 2> /dev/null; do sleep 0.1; done'
        mariadb -Ne 'create user games@localhost identified via unix_socket; select current_user()'
        su games -s /bin/sh -c 'mariadb -Ne "select current_user()"; mariadb -u root -e "select 1" 2>&1 || echo refused'
        mariadb -Ne 'create database d; create table d.t (n int); insert d.t values (1); select n from d.t'
        mariadb-admin shutdown; wait; stat -c '%n %a %U:%G' /var/lib/mysql/* /var/lib/mysql/d; rm -r /run/mysqld
        mkdir -p /run/slapd; slapd -u openldap -g openldap -h ldapi:///; wait_for -S /run/slapd/ldapi
        stat -c '%n %a %U:%G' /run/slapd/ldapi; kill $(cat /run/slapd/slapd.pid); wait_for ! -e /run/slapd/slapd.pid
        su openldap -s /bin/sh -c 'slapcat | grep ^dn:'; rm -rf /run/slapd
        kdb5_util -r EXAMPLE.ORG create -s -P secret; kdb5_util -r EXAMPLE.ORG dump /tmp/d; cut -f 7 /tmp/d; rm /tmp/d*
        cd /var/lib/krb5kdc; stat -c '%n %a %U:%G' * /etc/krb5kdc/.k5*
        truncate -s 0 * /etc/krb5kdc/.k5* # keys that are made at random
        rabbitmq-plugins enable --offline rabbitmq_shovel; stat -c '%n %a %U:%G' /etc/rabbitmq/* /var/lib/rabbitmq/.erl*
    """,
    "network": r"""
        exec > /srv/said
        until_it_works() { timeout 60 bash -c 'until "$@" > /dev/null 2>&1; do sleep 0.1; done' - "$@"; }
        owners() { find "$@" -printf '%p %M %u:%g\n' | sort; }; stop() { kill $1; wait_for ! -d /proc/$1; }
        empty() { find "$@" -type f -exec truncate -s 0 {} +; }
        install -d -o bind /run/named; cd /var/lib/bind
        printf '%s\n' '$TTL 60' '@ SOA ns root 1 60 60 60 60' ' NS ns' \
            'ns A 127.0.0.1' 'www CNAME ns' > zone; chown bind zone; cat > /etc/bind/named.conf <<'C'
            include "/etc/bind/rndc.key";
            controls { inet 127.0.0.1 port 47190 allow { localhost; } keys { rndc-key; }; };
            options { listen-on port 47191 { 127.0.0.1; }; listen-on-v6 { none; };
                directory "/var/cache/bind"; recursion no; };
            zone example.org { type primary; file "/var/lib/bind/zone"; allow-update { key rndc-key; }; };
        C
        named-checkconf -z; named -4 -u bind -n 1; wait_for -s /run/named/named.pid; owners /run/named
        dns() { dig +short +tries=30 +time=2 -p 47191 @127.0.0.1 "$@"; }; dns www.example.org
        printf '%s\n' 'server 127.0.0.1 47191' 'update add new.example.org 60 TXT hello' send |
            nsupdate -k /etc/bind/rndc.key
        dns new.example.org TXT; owners .; rndc -p 47190 sync -clean; until_it_works grep hello zone; rndc -p 47190 stop
        wait_for ! -e /run/named/named.pid; owners . /var/cache/bind; rm -rf zone.jnl /var/cache/bind/* /run/named
        useradd -m reader; cat > /etc/dovecot/dovecot.conf <<'C'
            mail_location = maildir:~/mail
            userdb {
              driver = passwd
            }
            passdb {
              driver = pam
            }
            ssl = no
            log_path = /srv/dovecot
            service anvil {
              chroot =
            }
            service stats {
              chroot =
            }
        C
        dovecot; printf 'Subject: x\n\nhello\n' | doveadm save -u reader; doveadm mailbox create -u reader Old
        doveadm fetch -u reader body mailbox INBOX; doveadm move -u reader Old mailbox INBOX all
        doveadm mailbox status -u reader messages '*' | sort; owners /home/reader -type d
        owners /run/dovecot ! -type f; doveadm stop; wait_for ! -e /run/dovecot/master.pid
        rm -rf /home/reader/mail /run/dovecot /srv/dovecot
        install -d -o games -m 2775 /srv/share; cat > /etc/samba/smb.conf <<'C'
            [global]
            interfaces = lo
            bind interfaces only = yes
            smb ports = 47192
            disable netbios = yes
            load printers = no
            [share]
            path = /srv/share
            read only = no
            create mask = 0640
        C
        testparm -s 2> /dev/null; printf 'secret\nsecret\n' | pdbedit -a -t games > /dev/null; pdbedit -L; smbd -D
        export PASSWD=secret; smb() { smbclient -p 47192 -U games //127.0.0.1/share -c "$1"; }
        until_it_works smbclient -p 47192 -U games //127.0.0.1/share -c ls; cd /etc; touch /srv/share/roots
        chmod 600 /srv/share/roots
        smb 'put hostname a; mkdir made; cd made; put passwd b; rename b other' > /dev/null 2>&1
        smb 'get roots /srv/roots' 2>&1 || echo refused; stop $(cat /run/samba/smbd.pid)
        owners /srv/share /var/lib/samba /var/cache/samba; rm -rf /run/samba; empty /var/*/samba
        sed -i 's/^agentaddress.*//' /etc/snmp/snmpd.conf
        snmpd -Ln -C -c /etc/snmp/snmpd.conf -p /run/snmpd.pid -u Debian-snmp udp:127.0.0.1:47193 2> /srv/snmpd
        until_it_works snmpget -v2c -c public 127.0.0.1:47193 1.3.6.1.2.1.1.7.0; stop $(cat /run/snmpd.pid)
        owners /var/lib/snmp /var/agentx; empty /var/lib/snmp; rm -rf /srv/snmpd /run/snmpd.pid /var/agentx
        install -d -o tftp /srv/tftp; in.tftpd -l -4 -a 127.0.0.1:47194 -u tftp -c -P /run/tftpd.pid /srv/tftp
        tftp() { curl -sS --tftp-no-options "$@" tftp://127.0.0.1:47194//srv/tftp/f; }; wait_for -s /run/tftpd.pid
        tftp -T /etc/debian_version; tftp
        chmod 600 /srv/tftp/f; chown games /srv/tftp/f; tftp 2> /dev/null || echo refused
        stop $(cat /run/tftpd.pid); rm -f /run/tftpd.pid; owners /srv/tftp
        sed -i /chroot/d /etc/haproxy/haproxy.cfg; mkdir -p /run/haproxy; cat >> /etc/haproxy/haproxy.cfg <<'C'
        listen hello
            bind unix@/run/haproxy/hello user games group mail mode 660
            bind 127.0.0.1:47195
            http-request return status 200 content-type text/plain string hi
        C
        haproxy -c -f /etc/haproxy/haproxy.cfg; haproxy -D -p /run/haproxy.pid -f /etc/haproxy/haproxy.cfg
        curl -sS --unix-socket /run/haproxy/hello http://x/; owners /run/haproxy
        printf '%s\n' 'http_port 127.0.0.1:47196' 'cache_dir ufs /var/spool/squid 10 2 2' 'http_access allow all' \
            'pinger_enable off' 'shutdown_lifetime 0' > /etc/squid/squid.conf
        squid -k parse 2>&1 | grep -ci 'error\|fatal' || true; squid -N -z 2> /dev/null; squid 2> /dev/null
        until_it_works curl -f -x 127.0.0.1:47196 http://127.0.0.1:47195/
        curl -sS -x 127.0.0.1:47196 http://127.0.0.1:47195/
        squid -k shutdown 2> /dev/null; wait_for ! -e /run/squid.pid; stop $(cat /run/haproxy.pid); rm -rf /run/haproxy*
        owners /var/log/squid /var/spool/squid; empty /var/log/squid /var/spool/squid
        cd /etc/mosquitto; mosquitto_passwd -c -b passwd a secret; chown mosquitto passwd
        install -d -o mosquitto /run/mosquitto
        printf '%s\n' 'listener 0 /run/mosquitto/s' 'password_file /etc/mosquitto/passwd' > conf.d/local.conf
        mosquitto -d -c mosquitto.conf 2> /dev/null; at="--unix /run/mosquitto/s -u a -t t"
        until_it_works mosquitto_pub $at -P secret -m hello -r -q 1
        mosquitto_pub $at -P wrong -m hello 2>&1 || echo refused
        mosquitto_sub $at -P secret -C 1; owners /run/mosquitto; stop $(cat /run/mosquitto/mosquitto.pid)
        owners /var/lib/mosquitto /var/log/mosquitto; rm -rf /run/mosquitto /var/lib/mosquitto/* passwd
        install -d -o memcache /run/memcached; at=/run/memcached
        memcached -d -u memcache -s $at/s -a 770 -P $at/pid; wait_for -S $at/s; owners $at; stop $(cat $at/pid)
        memcached -d -u memcache -l 127.0.0.1 -p 47197 -U 0 -P $at/pid
        until_it_works bash -c ': < /dev/tcp/127.0.0.1/47197'
        exec 3<> /dev/tcp/127.0.0.1/47197; printf 'set a 0 0 1\r\n1\r\nget a\r\nquit\r\n' >&3; cat <&3; exec 3>&-
        stop $(cat $at/pid); rm -r $at
        install -d -o messagebus /run/dbus; bus=$(dbus-daemon --system --fork --print-pid)
        sed -i 's/^#\?allow-interfaces.*/allow-interfaces=lo/' /etc/avahi/avahi-daemon.conf
        avahi-daemon --no-chroot -D; owners /run/avahi-daemon; avahi-daemon -k; wait_for ! -e /run/avahi-daemon/pid
        colormgr create-device dev normal printer | grep -c dev; owners /var/lib/colord
        su games -s /bin/sh -c 'colormgr get-devices' | grep -c dev; stop $bus
        cupsd -t; cupsd; lpadmin -p q -E -v file:/dev/null; lpstat -v
        echo hello | su games -s /bin/sh -c 'lp -d q -H hold'
        cancel -a q; owners /etc/cups /var/spool/cups /var/cache/cups /run/cups; stop $(cat /run/cups/cupsd.pid)
        empty /etc/cups /var/spool/cups /var/cache/cups -newer /etc/avahi/avahi-daemon.conf
        rm -rf /run/cups /run/dbus /run/avahi-daemon
    """,
    "java": r"""
        exec > /srv/said; su games -s /bin/sh -c 'java -XshowSettings:properties -version 2>&1 | grep user.name'
        su games -s /bin/sh -c 'keytool -genkeypair -keystore /tmp/k -storepass secret -dname cn=x -keyalg EC -alias a'
        stat -c '%n %a %U:%G' /tmp/k; rm /tmp/k; rm -rf /tmp/hsperfdata_*
        keytool -list -cacerts -storepass changeit | grep -c trustedCertEntry; fc-list | sort; fc-match sans
        update-ca-certificates --fresh > /dev/null
    """,
    "node": r"""
        useradd -m app; cp -r /npm/cache /tmp/cache; for user in root app; do
            install -d -o $user /srv/$user; cd /srv/$user; cp /npm/package*.json /npm/*.tgz .
            chown -R $user . /tmp/cache
            su $user -c 'npm ci --offline --cache /tmp/cache && node -e "console.log(require(\"once\").name)"'
            cat node_modules/hooked/made
        done; npm install --global --offline --cache /tmp/cache /npm/*.tgz; hooked; rm -rf /tmp/cache
        chown -R app /srv/root; su app -c 'touch /srv/root/mine'
    """,
}
"""What is run in the image with the group's packages. /srv/said, what it prints, is compared as all files are."""
WAITING = 'wait_for() { timeout 60 bash -c \'until [ "$@" ]; do sleep 0.1; done\' - "$@"; }'
"""A function of the shell: wait until a file is what an option of test says."""
SOURCES = {
    "fast/fast.c": """#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "fast"};
PyMODINIT_FUNC PyInit_fast(void) { return PyModule_Create(&definition); }
""",
    "fast/setup.py": "from setuptools import setup, Extension\n"
    "setup(name='fast', version='1', ext_modules=[Extension('fast', ['fast.c'])])\n",
    "pure/pure.py": "print('pure')\n",
    "pure/setup.py": "from setuptools import setup\nsetup(name='pure', version='1', py_modules=['pure'])\n",
    "project/hi.c": '#include "config.h"\nint main(void) { return 0; }\n',
    "project/configure.ac": "AC_INIT([hi], [1])\nAM_INIT_AUTOMAKE([foreign])\nAC_CONFIG_HEADERS([config.h])\n"
    "AC_PROG_CC\nAC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n",
    "project/Makefile.am": """bin_PROGRAMS = hi
hi_SOURCES = hi.c
install-exec-hook:
\tchown builder:games $(DESTDIR)$(bindir)/hi
\tchmod 4750 $(DESTDIR)$(bindir)/hi
\tsetcap cap_net_bind_service+ep $(DESTDIR)$(bindir)/hi
\tinstall -D -o builder -g games -m 0640 config.h $(DESTDIR)$(sysconfdir)/hi/config.h
\tinstall -d -o builder -m 2770 $(DESTDIR)$(localstatedir)/hi
\tmknod -m 660 $(DESTDIR)$(localstatedir)/hi/null c 1 3
\tln -f $(DESTDIR)$(bindir)/hi $(DESTDIR)$(bindir)/hello
""",
}
"""What is built in the image with compilers."""
BUILD = """
builda pull -q oci-archive:/given/{group}.tar:{group} >&2
builda bud -q -f /given/{group}.df -t built /given >&2
builda push -q built oci-archive:/out/built.tar:built >&2
"""
BUILD_FROM = """
builda pull -q oci-archive:/given/{base}.tar:{base} >&2
builda bud -q -f /given/{name}.df -t built /given >&2
builda push -q built oci-archive:/out/built.tar:{name} >&2
"""
COPIES = "COPY base.df /plain/copied/\n"
INTO_ACLS = """
COPY tree /{top}/tree/
COPY --chown=33:4 --chmod=640 tree/f base.df /{top}/copied/
ADD --chown=7 base.df /{top}/added
ADD acls.tar /{top}/
ADD acls.tar /{top}/unpacked/
WORKDIR /{top}/work/deep
RUN mkdir /{top}/tree/d/made; touch /{top}/copied/new /{top}/denied/new /{top}/unpacked/denied/new new; \\
    find /{top} -printf '%p %M %U:%G\\n' \
    | sort > /root/into-{top}; touch -d @0 /root/*
COPY tree/d /{top}/denied/again/
"""
"""Copies and archives in a directory with a default ACL."""
UPON_ACLS = r"""
    umask 077; for top in many user closed plain; do
        cd /$top; touch new 0/new 0/d/new; mkdir made 0/d/made; mkdir -m 711 m; mkfifo made/p; mknod -m 660 made/c c 1 3
        cp /etc/hostname made/; cp -a 0 made/again; cp -r 18 made/other; mkdir t; chmod 755 63/d; mv 63/f moved
        tar -C 0 --acls --xattrs -cpf /t.tar .; tar -C t --acls --xattrs -xpf /t.tar; install -D -m 640 new i/j/k
        install -d -o 33 -g 4 -m 2750 i/l; setpriv --reuid 33 --clear-groups sh -c 'mkdir own; touch own/f'
        find . -printf '%p %M %U:%G\n' | sort > /root/$top; done
    rm /t.tar; touch -d @0 /root/*
"""
"""Makes files in the directories that the game about default ACLs has left."""
GAMES_OF_ALL = """
builda pull -q oci-archive:/given/debian.tar:debian >&2
builda bud -q -f /given/games.df -t built /given >&2
builda push -q built oci-archive:/out/built.tar:built >&2
"""


def acl_of(owner: int, *users: tuple[int, int]) -> str:
    """An ACL that gives `owner` to a file's owner, and to the users (id, permissions) theirs."""
    entries = [(1, owner, -1), *((2, bits, number) for number, bits in users), (4, 5, -1), (16, 7, -1), (32, 1, -1)]
    value = struct.pack("=I", 2) + b"".join(struct.pack("=HHi", *entry) for entry in entries)
    return value.decode("utf-8", "surrogateescape")


def make_archive_with_acls(path: Path) -> None:
    """An archive whose directories have default ACLs, which deny some owners; files in them have ACLs or none."""
    access, default = ("SCHILY.xattr.system.posix_acl_" + kind for kind in ("access", "default"))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int, owner: int = 0, **more: Any) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid, entry.mtime = kind, mode, owner, owner, 1_600_000_000
            for key, value in more.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))

        for name, owner_may in (("denied", 0), ("allowed", 7), ("some", 5)):
            acl = acl_of(owner_may, (33, 7), (1000, 3))
            add(name, tarfile.DIRTYPE, 0o750, pax_headers={default: acl})
            add(f"{name}/f", tarfile.REGTYPE, 0o644, size=5)
            add(f"{name}/owned", tarfile.REGTYPE, 0o4711, 33, size=5, pax_headers={access: acl_of(7, (5, 4))})
            add(f"{name}/secret", tarfile.REGTYPE, 0, 33, size=5, pax_headers={access: acl_of(0, (5, 4))})
            add(f"{name}/d", tarfile.DIRTYPE, 0o2770, 33)
            add(f"{name}/d/f", tarfile.REGTYPE, 0o600, size=3)
            add(f"{name}/none", tarfile.DIRTYPE, 0, 5, pax_headers={access: acl_of(0, (5, 4)), default: acl})
            add(f"{name}/none/f", tarfile.REGTYPE, 0o600, size=3)
            add(f"{name}/implied/deep/f", tarfile.REGTYPE, 0o640, size=3)
            add(f"{name}/l", tarfile.SYMTYPE, 0o777, 33, linkname="f")
            add(f"{name}/h", tarfile.LNKTYPE, 0o644, linkname=f"{name}/f")
            add(f"{name}/p", tarfile.FIFOTYPE, 0o640, 33, pax_headers={access: acl_of(6, (5, 4))})
            add(f"{name}/c", tarfile.CHRTYPE, 0o640, 33, devmajor=1, devminor=3)


def built(pod: str, script: str, given: Path, out: Path) -> Path:
    """The archive that a script in a pod has written."""
    out.mkdir()
    out.chmod(0o777)
    done = in_pod(pod, script, "--bind", f"{out}:/out", given=given, environ=EPOCH, patience=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "built.tar"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Path:
    """What pods are given: base images and Containerfiles."""
    path = tmp_path_factory.mktemp("given")
    path.chmod(0o755)
    shutil.copy(debian, path)
    steps = [f"RUN bash <<'END'\nset +e\n{game}\ntrue\nEND\n" for game in GAMES.values()]
    (path / "games.df").write_text("FROM localhost/debian:debian\n" + "".join(steps))
    return path


@pytest.fixture(scope="module")
def games_by_root(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("privileged-root", GAMES_OF_ALL, given, tmp_path_factory.mktemp("games") / "root")


@pytest.mark.parametrize("mode", sampled(PODS, ["traced"]))
def test_users_and_owners_are_those_of_root(mode: str, given: Path, games_by_root: Path, tmp_path: Path) -> None:
    found = built(PODS[mode], GAMES_OF_ALL, given, tmp_path / "out")
    assert differences(games_by_root, found) == []


@pytest.mark.parametrize("mode", PODS)
def test_default_acls_of_a_base_image_count(mode: str, given: Path, tmp_path: Path) -> None:
    steps = {"base": ("debian:debian", GAMES["default access control lists"]), "acls": ("base:base", UPON_ACLS)}
    for name, (below, script) in steps.items():
        (given / f"{name}.df").write_text(f"FROM localhost/{below}\nRUN bash <<'END'\n{script}\nEND\n{COPIES}")
    base = built("privileged-root", BUILD_FROM.format(base="debian", name="base"), given, tmp_path / "base")
    base.rename(given / "base.tar")
    script = BUILD_FROM.format(base="base", name="acls")
    wanted = built("privileged-root", script, given, tmp_path / "root")
    assert differences(wanted, built(PODS[mode], script, given, tmp_path / "out")) == []


@pytest.mark.long  # tests/unit/fs/test_default_acls.py is the sample of it
@pytest.mark.parametrize("mode", [*PODS, "stops"])
def test_copies_and_archives_get_acls(mode: str, given: Path, tmp_path: Path) -> None:
    make_archive_with_acls(given / "acls.tar")
    (given / "tree/d/e").mkdir(parents=True, exist_ok=True)
    for name in ("f", "d/f", "d/e/f"):
        (given / "tree" / name).write_text(name)
    base = "FROM localhost/debian:debian\nRUN bash <<'END'\n" + GAMES["default access control lists"] + "\nEND\n"
    (given / "base.df").write_text(base)
    copies = "".join(INTO_ACLS.format(top=top) for top in ("many", "user", "closed", "plain"))
    (given / "copies.df").write_text("FROM localhost/base:base\n" + copies)
    made = built("privileged-root", BUILD_FROM.format(base="debian", name="base"), given, tmp_path / "base")
    made.rename(given / "base.tar")
    script = BUILD_FROM.format(base="base", name="copies")
    wanted = built("privileged-root", script, given, tmp_path / "root")
    pod = PODS.get(mode, "gvisor-restricted")
    assert differences(wanted, built(pod, script, given, tmp_path / "out")) == []


@pytest.mark.long
@pytest.mark.timeout(4800)
@pytest.mark.parametrize("group", GROUPS)
def test_packages_are_installed_as_root_installs_them(group: str, given: Path, tmp_path: Path, debian: Path) -> None:
    repository(group, given, tmp_path, debian)
    script = BUILD.format(group=group)
    wanted = built("privileged-root", script, given, tmp_path / "root")
    for mode, pod in PODS.items():
        found = built(pod, script, given, tmp_path / mode)
        assert differences(wanted, found) == [], mode
        found.unlink()
    wanted.unlink()
    (given / f"{group}.tar").unlink()


def repository(group: str, given: Path, work: Path, debian: Path) -> None:
    """Make the base image that has the group's packages as a repository, and what builds upon it."""
    builda = Builda(work / "store", work / "run")
    builda("pull", "-q", f"oci-archive:{debian}:debian")
    container = builda("from", "localhost/debian:debian")
    archives = work / "archives"
    archives.mkdir()
    keep = "-o APT::Keep-Downloaded-Packages=true -o Dir::Cache::archives=/archives"
    fetch = f"mkdir /archives/partial; apt-get update; {INSTALL} -d {keep} {GROUPS[group]}"
    builda("run", "-v", f"{archives}:/archives", container, "sh", "-ec", fetch)
    builda("rm", container)
    shutil.rmtree(archives / "partial")
    (archives / "lock").unlink(missing_ok=True)
    index = subprocess.run(["dpkg-scanpackages", "-m", "."], cwd=archives, check=True, capture_output=True).stdout
    (archives / "Packages").write_bytes(index)
    container = builda("from", "localhost/debian:debian")
    builda("copy", "-q", container, archives, "/repository")
    if "npm" in GROUPS[group].split():
        builda("copy", "-q", container, npm(work / "npm"), "/npm")
    only = "rm -f /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list"
    builda("run", container, "sh", "-ec", f"{only}; apt-get update")
    builda("commit", "-q", "--rm", container, f"oci-archive:{given}/{group}.tar:{group}")
    shutil.rmtree(builda.root)
    containerfile(group, given)


def containerfile(group: str, given: Path) -> None:
    """Write what installs the group's packages and tries them, and the sources that it builds."""
    for name, text in SOURCES.items():
        (given / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (given / "src" / name).write_text(text)
    install = f"mkdir -p /usr/share/man/man1 && {INSTALL} {GROUPS[group]}"
    steps = f"FROM localhost/{group}:{group}\nRUN {install}\nCOPY src /usr/src/\n"
    if group in AFTERWARDS:
        steps += f"RUN bash <<'END'\nset -e\n{WAITING}\n{AFTERWARDS[group]}\nEND\n"
    (given / f"{group}.df").write_text(steps)


def npm(directory: Path) -> Path:
    """A package with a lock file, a cache with what it needs, and a dependency that a script of its own completes."""
    hooked = directory / "hooked"
    hooked.mkdir(parents=True)
    scripts = {"install": "id -un > made; ln -s made link; chmod 4711 run.js"}
    about = {"name": "hooked", "version": "1.0.0", "bin": "run.js", "scripts": scripts}
    (hooked / "package.json").write_text(json.dumps(about))
    (hooked / "run.js").write_text("#!/usr/bin/env node\nconsole.log(process.getuid())\n")
    subprocess.run(["npm", "pack", "./hooked"], cwd=directory, check=True, capture_output=True)
    shutil.rmtree(hooked)
    needed = {"once": "1.4.0", "hooked": "file:hooked-1.0.0.tgz"}
    (directory / "package.json").write_text(json.dumps({"name": "app", "version": "1.0.0", "dependencies": needed}))
    command = ["npm", "install", "--cache", str(directory / "cache"), "--no-fund", "--no-audit"]
    command.append("--omit-lockfile-registry-resolved=false")
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    shutil.rmtree(directory / "node_modules")
    return directory
