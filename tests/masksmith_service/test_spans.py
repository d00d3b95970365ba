"""OpenTelemetry spans, received by a collector that listens on a real port."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.testclient import TestClient

from masksmith_service.app import create_app
from masksmith_state.telemetry import tracing
from masksmith_worker.tracing import Spans


class Collector(HTTPServer):
    """Takes OTLP over HTTP, and gives every span as service, name, attributes and trace."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.taken = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    told = {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}
                    self.server.taken.append((service, span.name, told, span.trace_id))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    collector = Collector()
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    yield collector
    collector.shutdown()
    thread.join()
    collector.server_close()


def test_requests_have_spans(settings, collector):
    with TestClient(create_app(settings.model_copy(update={"otlp_url": collector.url}))) as client:
        client.get("/v1/jobs/nope")
    [(service, name, told, _)] = collector.taken
    assert (service, name) == ("masksmith-service", "GET /v1/jobs/{job}")
    assert told["http.response.status_code"] == 404


def test_shards_of_a_job_make_one_trace(collector):
    for process in range(2):
        told = Spans(collector.url + "/")
        with told.record_shard("job-a", process) as found:
            found["outcome"] = "completed"
        told.stop()
    told = Spans(collector.url)
    with pytest.raises(ZeroDivisionError), told.record_shard("job-b", 0):
        raise ZeroDivisionError
    told.stop()
    assert [(service, name) for service, name, *_ in collector.taken] == [("masksmith-worker", "shard")] * 3
    a, b, other = (trace for *_, trace in collector.taken)
    assert a == b != other
    assert [attributes.get("masksmith.shard") for _, _, attributes, _ in collector.taken] == [0, 1, 0]
    assert [attributes["masksmith.job"] for _, _, attributes, _ in collector.taken] == ["job-a", "job-a", "job-b"]
    assert collector.taken[0][2]["masksmith.outcome"] == "completed"


def test_without_a_collector_no_span_is_sent_and_nothing_imported():
    code = (
        "import sys; from masksmith_worker.tracing import Spans\n"
        "with Spans('').record_shard('j', 0) as found: found['outcome'] = 'completed'\n"
        "import masksmith_service.app\n"
        "heavy = ('opentelemetry.sdk.trace', 'opentelemetry.exporter')\n"
        "print(*[name for name in sys.modules if name.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(tracing.TelemetryError, match=r"pip install 'masksmith\[telemetry\]'"):
        tracing.make_tracer_provider("http://127.0.0.1:1", "x")
