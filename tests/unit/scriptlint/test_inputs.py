"""Files that a script reads by itself, found in its text."""

from __future__ import annotations

from builda.scriptlint.inputs import inputs_of

SCRIPT = b"""
version=$(cat VERSION)
. ./env.sh
source "more.sh"
while read -r line; do echo "$line"; done < list
if [ -e flag ]; then builda run "$c" make; fi
[[ -f 'other flag' ]] && true
c=$(builda from debian)
m=$(builda mount "$c")
cp app "$m/usr/bin/"
cp app backup
builda copy "$c" data /data
echo VERSION > out
grep x VERSION
"""


def test_what_a_script_reads_is_told_once_with_its_place() -> None:
    files = {"VERSION", "./env.sh", "more.sh", "list", "flag", "other flag", "app", "data", "out", "backup"}
    found = [(one.path, one.at.line, one.by) for one in inputs_of(SCRIPT, files.__contains__)]
    assert found == [
        ("VERSION", 2, "cat"),
        ("./env.sh", 3, "."),
        ("more.sh", 4, "source"),
        ("list", 5, "<"),
        ("flag", 6, "a test"),
        ("other flag", 7, "a test"),
        ("app", 11, "cp"),
    ]


def test_what_is_no_file_is_not_told() -> None:
    assert list(inputs_of(SCRIPT, lambda path: False)) == []
