"""The first instructions of the process that builda execs to enter a sandbox: `python -IS start.py`.

It has neither site-packages nor builda on its path, and runs for every RUN step: so it makes importable, without
running any package's `__init__`, the few modules that the child needs. They have cached bytecode; a script has none.
"""

import sys

_builda = __file__.rpartition("/isolation/")[0]


def _package(name: str, path: str) -> None:
    module = type(sys)(name)
    module.__path__ = [path]
    sys.modules[name] = module


_package("builda", _builda)
_package("builda.linux", _builda + "/linux")
_package("builda.isolation", _builda + "/isolation")
_package("builda.isolation.child", _builda + "/isolation/child")

from builda.isolation.child import enter  # noqa: E402

enter.main()
