"""The paths of this user's and this machine's configuration files, computed from a given environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


class Places(NamedTuple):
    """Paths that follow from the environment; `top` stands for the root of the file system."""

    environ: Mapping[str, str]
    uid: int
    top: Path | str = "/"

    @property
    def system(self) -> Path:
        """The root of the file system."""
        from pathlib import Path

        return Path(self.top)

    def path(self, variable: str) -> Path | None:
        """The path in an environment variable; None when it is unset or empty."""
        from pathlib import Path

        value = self.environ.get(variable)
        return Path(value) if value else None

    def home(self) -> Path:
        """The home directory: $HOME, or what the user database says."""
        from pathlib import Path

        return Path(self._home())

    def user_configuration(self) -> Path:
        """This user's directory of container configuration."""
        return self.configuration()[0]

    def configuration(self) -> tuple[Path, ...]:
        """The directories that may hold a configuration file, the one that wins first."""
        from pathlib import Path

        return tuple(map(Path, self.directories()))

    def directories(self) -> tuple[str, str, str]:
        """The same as texts."""
        user = self.environ.get("XDG_CONFIG_HOME") or os.path.join(self._home(), ".config")
        etc, usr = (os.path.join(self.top, name) for name in ("etc/containers", "usr/share/containers"))
        return os.path.join(user, "containers"), etc, usr

    def _home(self) -> str:
        value = self.environ.get("HOME")
        if value:
            return value
        import pwd

        try:
            return pwd.getpwuid(self.uid).pw_dir
        except KeyError:  # a container's arbitrary uid has no entry
            return "/"

    def says_how_to_run(self) -> bool:
        """Whether there is any containers.conf or mounts.conf; most machines have none, and nothing need be read."""
        if self.environ.get("CONTAINERS_CONF") or self.environ.get("CONTAINERS_CONF_OVERRIDE"):
            return True
        user, machine, distribution = self.directories()
        names = ("containers.conf", "containers.conf.d", "mounts.conf")
        files = [f"{directory}/{name}" for directory in (user, machine) for name in names]
        return any(map(os.path.lexists, [*files, f"{distribution}/mounts.conf"]))

    def short_name_aliases(self) -> str:
        """The file in which container tools keep the short names that a user once chose."""
        if self.uid == 0:
            return os.path.join(self.top, "var/cache/containers/short-name-aliases.conf")
        cache = self.environ.get("XDG_CACHE_HOME") or os.path.join(self._home(), ".cache")
        return os.path.join(cache, "containers/short-name-aliases.conf")

    def certificates(self) -> tuple[Path, ...]:
        """The directories like /etc/containers/certs.d, which hold one directory of certificates for each host."""
        return (
            self.user_configuration() / "certs.d",
            self.system / "etc/containers/certs.d",
            self.system / "etc/docker/certs.d",
        )

    def auth_file(self) -> Path:
        """The file that a login is written to when none is named."""
        named = self.path("REGISTRY_AUTH_FILE")
        if named is not None:
            return named
        runtime = self.path("XDG_RUNTIME_DIR")
        if runtime is not None:
            return runtime / "containers/auth.json"
        return self.system / f"run/containers/{self.uid}/auth.json"

    def auth_files(self) -> tuple[Path, ...]:
        """The files that may hold a login, the one that wins first; one that the user named stands alone."""
        named = self.path("REGISTRY_AUTH_FILE")
        if named is not None:
            return (named,)
        docker = self.path("DOCKER_CONFIG") or self.home() / ".docker"
        return self.auth_file(), self.user_configuration() / "auth.json", docker / "config.json"
