"""Serve the built site on this machine only, until Ctrl-C."""
import argparse
import errno
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line of log for each of them."""

    def log_message(self, format, *args):
        pass


def make_server(folder, port):
    """Return a server of `folder` on 127.0.0.1; port 0 takes any free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(QuietHandler, directory=str(folder)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    if not 0 <= port <= 65535:
        sys.exit(f"error: port {port} is not between 0 and 65535")
    try:
        server = make_server(SITE, port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "in use" if error.errno == errno.EADDRINUSE else "reserved"
        sys.exit(f"error: port {port} is {why}: choose another one, for example make course PORT={port + 1}")
    print(f"The course is at http://127.0.0.1:{server.server_port} (Ctrl-C stops it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
