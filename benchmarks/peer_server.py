"""A peer behind HTTP, as people put one there: FastAPI around its recogniser, one request at a time."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

import uvicorn
from fastapi import Body, FastAPI

from benchmarks.peers import PEERS, open_peer
from robustscanner.program import exit_status, whole_number
from robustscanner.serve import listen


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is stopped; exit status 1, with one line, where the peer cannot be opened."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--threads", type=whole_number, required=True, metavar="N", help="CPU threads of the peer")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: serve(parsed.peer, parsed.threads))


def serve(name: str, threads: int) -> None:
    """Listens on a free port of this machine, and says which in a line that ends with it."""
    peer, busy, app = open_peer(name, threads), Lock(), FastAPI()

    @app.post("/v1/read")
    def read(data: bytes = Body(media_type="image/jpeg")) -> dict[str, str]:
        with busy:  # its pre- and postprocessing keeps state
            return {"text": peer.read([data])[0]}

    with listen("127.0.0.1", 0) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    sys.exit(main())
