"""A real S3 server (moto) with one bucket, which tests may stop and start again."""

import contextlib
import http.client
import http.server
import socket
import subprocess
import sys
import threading
import urllib.request

from support.processes import free_port, poll

BUCKET = "models"


class Bucket:
    """An S3 server on a port of its own; its data is lost when it is stopped."""

    def __init__(self):
        self.port = free_port()
        self._process = None

    @property
    def environment(self):
        """Variables with which obstore finds the server."""
        return self.environment_at(self.port)

    def environment_at(self, port):
        """The same, through another port."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.stop()

    def start(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        poll(self._made_bucket)

    def _made_bucket(self):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{BUCKET}", method="PUT")
        try:
            return urllib.request.urlopen(request, timeout=5).status == 200
        except OSError:
            return False

    def stop(self):
        self._process.kill()
        self._process.wait()


class WeakeningProxy:
    """A reverse proxy that marks the ETags of responses as weak, as one that may compress them does.

    Args:
        target: Port of the server.
        methods: Methods whose responses are changed.
    """

    def __init__(self, target, methods):
        self._target, self._methods = target, methods
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def _handler(self):
        target, methods = self._target, self._methods

        class Handler(http.server.BaseHTTPRequestHandler):
            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server = http.client.HTTPConnection("127.0.0.1", target)
                server.request(self.command, self.path, body, dict(self.headers))
                response = server.getresponse()
                data = response.read()
                self.send_response(response.status)
                for name, value in response.getheaders():
                    is_weak = name.lower() == "etag" and self.command in methods
                    if name.lower() != "transfer-encoding":
                        self.send_header(name, f"W/{value}" if is_weak else value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = forward

            def log_message(self, *arguments):
                pass

        return Handler


class Cable:
    """Forwards connections to a port, until it is cut; then they are refused until it is mended."""

    def __init__(self, target):
        self.port, self._target = free_port(), target
        self._ends = []
        self.mend()

    def mend(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in [self._listener, *self._ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
