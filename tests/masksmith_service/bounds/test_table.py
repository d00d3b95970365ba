"""The table of bounds: what settings, documentation and the compose file say of it, and that costs are not too low."""

import json
import tracemalloc
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from support.pages import tables

from masksmith_service.bounds.middleware import memory_of
from masksmith_service.bounds.table import BOUNDS, COSTS, GIB, KIB, MIB, cost, limit
from masksmith_service.bounds.totals import max_memory_bytes, max_open_files
from masksmith_service.errors import STATUS
from masksmith_service.settings import Settings
from masksmith_wire.headers import HeaderError, HeaderTooLargeError, check_members, parse_header

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
UNITS = {"k": KIB, "m": MIB, "g": GIB}
RETRIED = (429, 503, 507)


def in_bytes(text):
    return int(text[:-1]) * UNITS[text[-1]]


def shown(number):
    for size, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if number >= size and number % size == 0:
            return f"{int(number) // size} {unit}"
    return f"{number:,}"


def bound_rows():
    for bound in BOUNDS:
        if isinstance(bound.beyond, str):
            beyond = bound.beyond
        else:
            # 503 is for what all keys share; a key that has used up its own gets 429.
            beyond = ", ".join(f"{429 if bound.per == 'key' else STATUS[code]} `{code}`" for code in bound.beyond)
        name = f"`{bound.name}`" if bound.is_setting else bound.name.replace("_", " ")
        value = shown(bound.limit) if "bytes" in bound.meaning else f"{bound.limit:,}"
        yield [name, value, bound.meaning, bound.per, beyond]


def cost_rows():
    return [[item.meaning, shown(item.bytes)] for item in COSTS]


@pytest.mark.parametrize(("head", "rows"), [("bound", [*bound_rows()]), ("counted", cost_rows())])
def test_the_page_has_the_table(head, rows):
    wanted = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    assert [*tables(ROOT / "docs" / "security.md", head)] == [rows], f"the table should be\n{wanted}"


def test_settings_have_the_limits_of_the_table():
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    assert {bound.name: bound.limit for bound in BOUNDS if bound.is_setting}.items() <= settings.items()
    limits = {
        name
        for name in settings
        if name.startswith(("max_", "key_", "min_")) or name.endswith(("_stall_s", "_memory_bytes"))
    }
    assert limits <= {bound.name for bound in BOUNDS}


def test_every_rejection_for_lack_of_room_has_retry_after():
    lacking = {"process", "installation", "key"}
    for bound in BOUNDS:
        if bound.per in lacking and not isinstance(bound.beyond, str):
            assert all(STATUS[code] in RETRIED for code in bound.beyond), bound


def test_the_worst_total_fits_the_container():
    service = COMPOSE["service"]
    variables = {name.removeprefix("MASKSMITH_").lower(): value for name, value in service["environment"].items()}
    settings = Settings(**{name: value for name, value in variables.items() if name in Settings.model_fields})
    memory = in_bytes(service["deploy"]["resources"]["limits"]["memory"])
    assert max_memory_bytes(settings) <= memory
    assert max_memory_bytes(settings.model_copy(update={"processes": 2})) > memory, "the bounds are not used"
    assert max_open_files(settings) <= 4096


def test_files_are_counted_for_as_many_small_uploads_as_there_are_connections():
    settings = Settings()
    small_uploads = settings.request_memory_bytes // memory_of("PUT", f"/v1/tensors/{'0' * 64}", 1, settings)
    assert small_uploads >= settings.max_connections, "memory is the smaller limit"
    # Each has a connection, its blob and the blob's list.
    assert max_open_files(settings) >= 3 * settings.max_connections + settings.max_streams


def test_the_broker_refuses_before_its_container_is_full():
    redis = COMPOSE["redis"]
    command = redis["command"]
    broker = in_bytes(command[command.index("--maxmemory") + 1].removesuffix("b"))
    # A rewrite of the append-only file may copy what changes meanwhile.
    assert broker <= 0.75 * in_bytes(redis["deploy"]["resources"]["limits"]["memory"])
    assert 2 * limit("key_broker_bytes") <= broker


@pytest.mark.parametrize("name", ["max_document_bytes", "max_header_bytes", "max_shards"])
def test_settings_that_memory_does_not_allow_are_refused(name):
    with pytest.raises(ValidationError, match=rf"request_memory_bytes must be at least \d+ for {name}"):
        Settings(**{name: 2**30})


def peak_bytes(run):
    tracemalloc.start()
    result = run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del result
    return peak


@pytest.mark.parametrize("item", [b"{},", b"[],", b"[0],", b'"a",', b"1.5,", b"0,", b'{"a":0},'])
def test_documents_take_no_more_memory_than_they_are_counted_as(item):
    document = b"[" + item * (2**18 // len(item)) + b"0]"
    assert peak_bytes(lambda: json.loads(document)) <= cost("document") * len(document)


@pytest.mark.parametrize("length", [1, 40, 512])
def test_headers_take_no_more_memory_than_they_are_counted_as(length):
    entries = {
        f"{number:0{length}d}": {"dtype": "U8", "shape": [1], "data_offsets": [number, number + 1]}
        for number in range(5000)
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    check_members(text, 5000)
    assert peak_bytes(lambda: parse_header(text)) <= cost("header") * len(text)


@pytest.mark.parametrize("item", [b"-9,", b"257,", b"1.5,"])
@pytest.mark.parametrize("name", ["a", "\N{GRINNING FACE}"])
def test_headers_of_numbers_take_no_more_memory_than_they_are_counted_as(item, name):
    # One character beyond 16 bits makes each character of the decoded text take four bytes.
    numbers = item * (2**19 // len(item)) + b"0"
    text = b'{"%s":{"dtype":"U8","shape":[%s],"data_offsets":[0,1]}}' % (name.encode(), numbers)
    check_members(text, 1)

    def parse():
        with pytest.raises(HeaderError, match="malformed shape"):
            parse_header(text)

    # An upload's header is in memory twice: as received, and as the text that is parsed.
    assert 2 * len(text) + peak_bytes(parse) <= cost("header") * len(text)


@pytest.mark.parametrize("name", ["a", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("shape", [[0], [257] * 15 + [0], [300] * 8 + [0]])
def test_valid_headers_of_any_text_and_shape_take_no_more_memory_than_they_are_counted_as(name, shape):
    entries = {f"{name}{number}": {"dtype": "U8", "shape": shape, "data_offsets": [0, 0]} for number in range(5000)}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    assert 2 * len(text) + peak_bytes(lambda: parse_header(text)) <= cost("header") * len(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"__metadata__":{' + b",".join(b'"%x":""' % number for number in range(70_000)) + b"}}",
        b'{"w":{"dtype":"U8","shape":[' + b"[]," * 90_000 + b'0],"data_offsets":[0,1]}}',
        b"{" + b'"a":{},' * 90_000 + b'"b":{}}',
    ],
)
def test_a_header_of_more_members_than_its_tensors_need_is_refused(text):
    with pytest.raises(HeaderTooLargeError, match="max_tensors"):
        check_members(text, 10_000)
    for escaped in (b'{"__metadata__":{"a":"' + b'\\"' * 100_000 + b'"}}', b'{"a\\\\":{}}'):
        check_members(escaped, 1)
