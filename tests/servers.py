"""Private servers for tests, end-to-end scripts and benchmarks: own ports, own folders, gone when we are.

    with RabbitMQ.start() as broker:
        broker.url, broker.kill(), broker.start_again(), broker.pause(), broker.resume(), broker.ctl("status")
    with PostgreSQL.start() as server:
        server.url, server.create_database()

Nothing here touches a server that runs already, and several test runs may go on at once on one machine.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

START_SECONDS = 60
_BLOCK = 50
"""Ports that one process may hand out before it begins anew."""
_FIRST, _LAST = 12_000, 32_000
"""Below the range that outgoing connections take theirs from, where a client that keeps calling a dead server's port
ends up connected to itself."""


class ServerMissing(RuntimeError):
    """A server is not installed. A test that needs it fails; it is never skipped."""


class ServerFailed(RuntimeError):
    """A server did not start; the end of its log is part of the message."""


class _Ports:
    """Ports of this process. Blocks are claimed by file locks, so that concurrent test runs never meet."""

    def __init__(self) -> None:
        self._first = 0
        self._given = 0

    def next(self) -> int:
        if not self._first:
            self._first = self._claim()
        for _ in range(_BLOCK):
            port = self._first + self._given % _BLOCK
            self._given += 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError):
                    probe.bind(("127.0.0.1", port))
                    return port
        raise RuntimeError(f"all ports from {self._first} to {self._first + _BLOCK - 1} are in use")

    @staticmethod
    def _claim() -> int:
        for first in range(_FIRST, _LAST, _BLOCK):
            with suppress(OSError):
                # Never closed: the lock is ours until the process ends, however it ends.
                lock = os.open(f"{tempfile.gettempdir()}/decorum-ports-{first}.lock", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(lock)
                    continue
                return first
        raise RuntimeError("no block of ports is left: are hundreds of test runs under way?")


_ports = _Ports()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, and that no other test run will be given."""
    return _ports.next()


async def wait_until(
    predicate: Callable[[], Any],
    timeout: float = 10,  # noqa: ASYNC109 - what a caller of a poll expects to give
    message: str | None = None,
) -> Any:
    """Ask every 20 ms until the answer is true, and return it. The predicate may be a coroutine function."""
    end = time.monotonic() + timeout
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {message or inspect.getsource(predicate).strip()}")
        await asyncio.sleep(0.02)


class Child:
    """A process of ours with all that it started. It does not outlive us, even when we are killed."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        self.log = log
        self._paused = False
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
                start_new_session=True,
            )
        # The keeper reads a pipe that only we can write. It ends when told so; the end of the pipe means that we died.
        self._keeper = subprocess.Popen(
            ["sh", "-c", 'read line || kill -9 "-$1"', "keeper", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """To it alone."""
        self._process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        """Its exit status, once it has ended by itself or by a signal."""
        status = self._process.wait(timeout)
        self._release()
        return status

    def kill(self) -> None:
        """The whole tree at once, as a power cut would. Does nothing if it has ended."""
        tree = self._tree()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(10)
        _wait_gone(tree)
        self._release()

    def pause(self) -> None:
        """Freeze the whole tree: connections stay open, and nothing answers."""
        if self._paused:
            return
        self._paused = True
        tree = self._tree()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        if tree and hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)  # returns when the last of its threads stands still

    def resume(self) -> None:
        """End a pause."""
        self._paused = False
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _tree(self) -> list[psutil.Process]:
        if not self.running:
            return []
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.pid)
            return [top, *top.children(recursive=True)]
        return []

    def _release(self) -> None:
        if self._keeper.returncode is None:
            self._keeper.communicate(b"done\n")


def _wait_gone(processes: Sequence[psutil.Process]) -> None:
    # Orphans are reaped by process 1, which in a container may take its time: a zombie is gone enough.
    end = time.monotonic() + 10
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > end:
                    raise RuntimeError(f"process {process.pid} outlives its kill")
                time.sleep(0.01)


def spawn(
    command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Child:
    """Start a program with its output in a file."""
    return Child(command, log, env=env, cwd=cwd)


class _Server:
    """What the servers have in common: a folder, a child, and the ways to hurt it."""

    _child: Child | None = None

    def __init__(self, folder: Path | None) -> None:
        self._ours = folder is None
        self.folder = (
            Path(tempfile.mkdtemp(prefix=f"decorum-{type(self).__name__.lower()}-")) if folder is None else folder
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log"

    def start_again(self) -> None:
        """On the same port, with what is on its disk."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it can be used."""
        raise NotImplementedError

    def kill(self) -> None:
        """Like ``kill -9`` of all its processes."""
        if self._child:
            self._child.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, and nothing answers."""
        if self._child:
            self._child.pause()

    def resume(self) -> None:
        """End a pause (SIGCONT)."""
        if self._child:
            self._child.resume()

    def stop(self) -> None:
        """For good; a folder that we made is removed."""
        self.kill()
        if self._ours:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_ready(self, child: Child) -> None:
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if not child.running or time.monotonic() > end:
                child.kill()
                raise ServerFailed(f"{type(self).__name__} did not start:\n{child.text[-4000:]}")
            time.sleep(0.05)


class RabbitMQ(_Server):
    """A broker of one node, without plugins, on 127.0.0.1 only. Starting takes 4 to 8 s."""

    def __init__(self, folder: Path | None = None) -> None:
        self._programs = _rabbitmq_programs()
        super().__init__(folder)
        self.port, epmd, dist = free_port(), free_port(), free_port()
        self.node = f"decorum-{self.port}@localhost"
        config = self.folder / "rabbitmq.conf"
        config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 50MB\n"
            "vm_memory_high_watermark.relative = 0.4\n"
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "env.conf").touch()
        self._env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),  # of the Erlang cookie
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(config.with_suffix("")),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "detached": "1",  # its start script becomes the node, rather than waiting for it
        }
        # Started here, because the node would start one that outlives it.
        self._names = Child([_program("epmd", "erlang-base"), "-port", str(epmd)], self.log, env=self._env)
        self._vhosts: list[str] = []
        self._vhosts_made = 0

    @classmethod
    def start(cls, folder: Path | None = None) -> Self:
        """A new broker, ready for use. Without a folder, one is made and removed."""
        broker = cls(folder)
        try:
            broker.start_again()
        except BaseException:
            broker.stop()
            raise
        return broker

    @property
    def url(self) -> str:
        """Of its default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def create_vhost(self) -> str:
        """The URL of a fresh virtual host. Made twenty at a time, so that one costs about 40 ms."""
        if not self._vhosts:
            first, self._vhosts_made = self._vhosts_made + 1, self._vhosts_made + 20
            self.ctl(
                "eval",
                "[begin V = integer_to_binary(N), rabbit_vhost:add(V, <<>>), "
                'rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<>>) end '
                f"|| N <- lists:seq({first}, {self._vhosts_made})].",
            )
            self._vhosts = [str(number) for number in range(self._vhosts_made, first - 1, -1)]
        return self.url.replace("%2F", self._vhosts.pop())

    def settle(self) -> None:
        """Have it write down which queues there are. Call it between declaring queues and ``kill``.

        3.10 writes them with a delay of half a second. A quorum queue that was made right before a kill -9 is there
        afterwards, but can be neither consumed nor published to, for ever.
        """
        self.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def ctl(self, *arguments: str) -> str:
        """What ``rabbitmqctl --quiet`` prints; an error if it fails. Takes half a second."""
        command = [self._programs / "rabbitmqctl", "--quiet", *arguments]
        run = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=60, check=False)
        if run.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments[0]}: {run.stdout}{run.stderr}")
        return run.stdout

    def start_again(self) -> None:
        self._child = Child([self._programs / "rabbitmq-server"], self.log, env=self._env, cwd=self.folder)
        self._wait_ready(self._child)

    def stop(self) -> None:
        self.kill()  # first, or it starts another epmd
        self._names.kill()
        super().stop()

    def answers(self) -> bool:
        # The listener opens last of all.
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as caller:
            caller.sendall(b"AMQP\x00\x00\x09\x01")
            return caller.recv(1) == b"\x01"
        return False


class PostgreSQL(_Server):
    """A server with fsync on, on 127.0.0.1 only, which trusts everybody. Starting takes 1 to 2 s.

    It refuses to run as root, so that it is run as the user ``postgres`` then. That user must be able to reach the
    folder.
    """

    def __init__(self, folder: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._programs = _postgresql_programs()
        super().__init__(folder)
        self._settings = settings or {}
        self._user = "postgres" if os.geteuid() == 0 else None
        self.port = free_port()
        self._databases = 0
        if self._user:
            shutil.chown(self.folder, self._user, pwd.getpwnam(self._user).pw_gid)

    @classmethod
    def start(cls, folder: Path | None = None, settings: Mapping[str, str] | None = None) -> Self:
        """A new server, ready for use. Without a folder, one is made and removed."""
        server = cls(folder, settings)
        try:
            server._create()
            server.start_again()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """Of its database ``postgres``."""
        return self._url("postgres")

    def create_database(self, template: str | None = None) -> str:
        """The URL of a new database, empty or a copy of another (to which nobody may be connected)."""
        self._databases += 1
        name = f"test{self._databases}"
        self.sql(f"create database {name} template {template or 'template1'}")
        return self._url(name)

    def sql(self, statement: str) -> str:
        """What ``psql`` prints of it: rows without headings."""
        command = [self._programs / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if run.returncode:
            raise RuntimeError(f"{statement}: {run.stderr}")
        return run.stdout

    def start_again(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": str(self.port),
            "max_connections": "200",
            **self._settings,
        }
        command = [self._programs / "postgres", "-D", self.folder / "data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._child = Child(command, self.log, cwd=self.folder, user=self._user)
        self._wait_ready(self._child)

    def answers(self) -> bool:
        command = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "5"]
        return subprocess.run(command, check=False).returncode == 0

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _create(self) -> None:
        # What initdb writes need not survive a power cut, so that it does not wait for the disk; the server does.
        command = [self._programs / "initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--no-locale", "--no-sync"]
        with Child(command, self.log, cwd=self.folder, user=self._user) as child:
            if child.wait(START_SECONDS):
                raise ServerFailed(f"initdb failed:\n{child.text[-4000:]}")


def _program(name: str, package: str) -> Path:
    if found := shutil.which(name):
        return Path(found)
    raise ServerMissing(f"{name} is not installed: apt-get install {package}")


def _rabbitmq_programs() -> Path:
    # Debian's programs in /usr/sbin are wrappers that insist on their own user and folders.
    for folder in ("/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"):
        if Path(folder, "rabbitmq-server").exists():
            return Path(folder)
    return _program("rabbitmq-server", "rabbitmq-server").resolve().parent


def _postgresql_programs() -> Path:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    for folder in reversed(folders):
        if (folder / "postgres").exists():
            return folder
    return _program("postgres", "postgresql").resolve().parent
