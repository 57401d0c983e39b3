"""The script that builda executes to enter a sandbox: `python -IS start.py`.

Its path holds neither site-packages nor builda. It registers the packages whose modules the child needs, without
running their `__init__`. All else is in modules, which have cached bytecode: a script has none, and every RUN waits.
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
for _name in ("child", "emulated", "traced"):
    _package(f"builda.isolation.{_name}", f"{_builda}/isolation/{_name}")

from builda.isolation.child import enter  # noqa: E402

enter.main()
