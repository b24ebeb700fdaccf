"""Reads words over HTTP; many requests become few runs."""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustscanner.errors import EngineError, MissingPackageError, RobustScannerError
from robustscanner.program import add_sessions, exit_status, whole_number
from robustscanner.serving.settings import BatchOptions, Limits

if TYPE_CHECKING:
    from robustscanner.recognizer import Recognizer
    from robustscanner.serving.app import Server

EXAMPLES = """\
examples:
  %(prog)s --engine build/small-int8.engine           on this machine only, port 8000
  curl --data-binary @sign.png -H 'Content-Type: image/png' localhost:8000/v1/read
  curl -F images=@a.png -F images=@b.png -F pattern='[A-Z]{2}[0-9]+' localhost:8000/v1/read
  TOKEN=… %(prog)s --host 0.0.0.0 --token-from TOKEN  for others, who have to bear that token

SIGTERM: answers what was accepted, then ends. SIGHUP: opens the engine again and goes on with it.
"""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Runs the server until it is told to stop; returns its exit status."""
    options = parse(arguments, prog=prog)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    return exit_status(lambda: _serve(options))


def parse(arguments: Sequence[str] | None, *, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--engine", type=Path, metavar="PATH", help="NAME.engine or NAME.onnx (default: the shipped model)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free (default: %(default)s)")
    parser.add_argument(
        "--token-from", metavar="VARIABLE", help="environment variable with the token that requests need"
    )
    usual, default = BatchOptions(), "(default: %(default)g)"
    batches = parser.add_argument_group("batches")
    batches.add_argument(
        "--max-batch", type=whole_number, default=usual.max_batch, metavar="N", help=f"pictures of a run {default}"
    )
    wait_ms = 1e3 * usual.max_wait_s
    batches.add_argument(
        "--max-wait-ms", type=float, default=wait_ms, metavar="MS", help=f"that a picture waits for others {default}"
    )
    batches.add_argument(
        "--queue", type=whole_number, default=usual.max_queue, metavar="N", help=f"pictures that may wait {default}"
    )
    add_sessions(batches, "--workers")
    limits = parser.add_argument_group("limits of a request")
    most = Limits()
    mib = most.body_bytes / 1024**2
    limits.add_argument("--max-mib", type=float, default=mib, metavar="MIB", help=f"its size {default}")
    limits.add_argument(
        "--max-pictures", type=whole_number, default=most.pictures, metavar="N", help=f"or boxes {default}"
    )
    limits.add_argument(
        "--max-seconds", type=float, default=most.seconds, metavar="S", help=f"until its answer {default}"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log every request")
    return parser.parse_args(arguments)


def _serve(options: argparse.Namespace) -> None:
    try:
        import uvicorn
    except ImportError as error:
        raise MissingPackageError(f"the server needs {error.name}; pip install 'robustscanner[serve]'") from None
    options.workers, options.threads = side_by_side(options)
    server = _make_server(options)
    signal.signal(signal.SIGHUP, lambda *_: _reload(server, options))
    config = uvicorn.Config(
        server.app(),
        log_level="info" if options.verbose else "warning",
        access_log=options.verbose,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(options.max_seconds)),
    )
    with listen(options.host, options.port) as listener:
        print("http://{}:{}".format(*listener.getsockname()), flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Whose connections send at once what they are given.

    asyncio sees to that only for sockets that say they are TCP's, which these do not. Without it, the second part of
    an answer waits until the client has acknowledged the first: 40 ms.

    Raises:
        RobustScannerError: the address is taken, or not of this machine.
    """
    try:
        listener = socket.create_server((host, port), backlog=1024)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RobustScannerError(f"cannot listen at {host}:{port}: {reason}; choose another --host or --port") from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those that it accepts inherit it
    return listener


def _make_server(options: argparse.Namespace) -> "Server":
    from robustscanner.serving.app import Server

    token = None
    if options.token_from and not (token := os.environ.get(options.token_from)):
        raise RobustScannerError(
            f"--token-from: the environment has no {options.token_from}; set it, or leave this out"
        )
    batches = BatchOptions(options.max_batch, options.max_wait_ms / 1e3, options.queue, options.workers)
    limits = Limits(int(options.max_mib * 1024**2), options.max_pictures, options.max_seconds)
    return Server(_opener(options), batches, limits, token)


def side_by_side(options: argparse.Namespace) -> tuple[int, int]:
    """How many sessions, and threads of each."""
    from robustscanner.cpu import share_cores
    from robustscanner.engine import runs_on_gpu

    on_gpu = options.engine and runs_on_gpu(options.engine)
    return share_cores(options.workers or (1 if on_gpu else None), options.threads)


def _opener(options: argparse.Namespace) -> "Callable[[], Recognizer]":
    from robustscanner.recognizer import Recognizer
    from robustscanner.session import SessionOptions

    # Between requests, others may have the cores.
    session = SessionOptions(threads=options.threads, spinning=False)
    return lambda: Recognizer(options.engine, batch_size=options.max_batch, options=session)


def _reload(server: "Server", options: argparse.Namespace) -> None:
    import threading

    def work() -> None:
        try:
            server.batcher.reload(_opener(options))
        except EngineError as error:
            logging.getLogger(__name__).error("not reloaded, the old engine goes on: %s", error)

    threading.Thread(target=work, daemon=True).start()  # requests go on meanwhile


if __name__ == "__main__":
    sys.exit(main())
