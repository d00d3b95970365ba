"""Forged safetensors files: valid ones, changed where a parser may rely on what it reads."""

import copy
import json
import math
import struct

from masksmith_wire.headers import DTYPE_BITS

HUGE = [2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 2**200, -1, -(2**63)]
STRANGE = [None, True, False, "", "4", "F32", 0.5, 1e308, [], [[]], {}, {"dtype": "F32"}, [None], ["4"], 2**100]
NAMES = [
    "", "a", "__metadata__", "../../../etc/passwd", "/dev/null", "a\x00b", "\ud800", "\u202e", "x" * 5000, "🦊", "a\nb",
    "%2e%2e%2f", "$(reboot)", "<script>", "../" * 300, "__proto__", "w" * 513, "\ufeff", "é", "e\u0301",
]  # fmt: skip
TEXTS = [b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b"\xff\xfe", b"\x00",
         b"\xef\xbb\xbf", b'"\\ud800"', b"//", b",", b"}", b"{", b'"', b" " * 100, b"\\u0000", b"-0", b"0x10", b"1.0",
         b"true"]  # fmt: skip


class Forger:
    """Makes files from a random generator: the same seed gives the same files.

    Args:
        rng: A `random.Random`.
    """

    def __init__(self, rng):
        self._rng = rng

    def file(self):
        """One file, and whether nothing about it was forged."""
        document = self._document()
        forgeries = self._rng.choice([0, 0, 1, 1, 1, 2, 3])
        forge = self._rng.choice([self._forge_document, self._forge_text, self._forge_frame])
        data_bytes = max((entry["data_offsets"][1] for entry in document.values()), default=0)
        for _ in range(forgeries):
            if forge == self._forge_document:
                self._forge_document(document)
        if self._rng.random() < 0.3 and not forgeries:
            document["__metadata__"] = {"format": "pt", "note": self._rng.choice(NAMES[:4])}
        text = json.dumps(document).encode()
        if forge == self._forge_text:
            for _ in range(forgeries):
                text = self._forge_text(text)
        data = struct.pack("<Q", len(text)) + text + self._rng.randbytes(data_bytes)
        if forge == self._forge_frame:
            for _ in range(forgeries):
                data = self._forge_frame(data)
        return data, forgeries == 0

    def _strange(self):
        return copy.deepcopy(self._rng.choice(STRANGE))

    def _document(self):
        document, at = {}, 0
        for number in range(self._rng.randrange(6)):
            dtype = self._rng.choice(list(DTYPE_BITS))
            shape = [self._rng.choice([0, 1, 2, 3, 4, 5]) for _ in range(self._rng.randrange(5))]
            size = -(-math.prod(shape) * DTYPE_BITS[dtype] // 8)
            document[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        return document

    def _forge_document(self, document):
        name = self._rng.choice([*document, "new"])
        entry = document.get(name)
        kind = self._rng.randrange(7)
        if kind == 0 or not isinstance(entry, dict):
            document[self._rng.choice(NAMES)] = copy.deepcopy(entry) if entry is not None else self._strange()
        elif kind == 1:
            document[name] = self._strange()
        elif kind == 2:
            entry.pop(self._rng.choice(list(entry)), None) if entry else None
        elif kind == 3:
            entry[self._rng.choice(["dtype", "shape", "data_offsets", "more"])] = self._strange()
        elif kind == 4:
            document["__metadata__"] = self._rng.choice(
                [self._strange(), {"a": 1}, {"a": "b"}, {"": ""}, {"\ud800": "x"}]
            )
        else:
            self._forge_numbers(entry)

    def _forge_numbers(self, entry):
        numbers = entry.get(self._rng.choice(["shape", "data_offsets"]))
        if not isinstance(numbers, list) or not numbers:
            return
        at = self._rng.randrange(len(numbers))
        if isinstance(numbers[at], int) and self._rng.random() < 0.5:
            numbers[at] += self._rng.choice([-1, 1, 8, -8, 4096])
        else:
            numbers[at] = self._rng.choice([*HUGE, self._strange(), self._strange()])

    def _forge_text(self, text):
        at = self._rng.randrange(len(text) + 1)
        kind = self._rng.randrange(5)
        if kind == 0:
            return text[:at]
        if kind == 1:
            return text[:at] + self._rng.choice(TEXTS) + text[at:]
        if kind == 2:
            return text[:at] + self._rng.randbytes(1) + text[at + 1 :]
        if kind == 3 and len(text) > 2:
            # Every member once more: names that come twice.
            return text[:-1] + b"," + text[1:]
        other = self._rng.randrange(len(text) + 1)
        return text[: min(at, other)] + text[max(at, other) :]

    def _forge_frame(self, data):
        kind = self._rng.randrange(5)
        if kind == 0:
            return data[: self._rng.randrange(len(data) + 1)]
        if kind == 1:
            return data + self._rng.randbytes(self._rng.choice([1, 8, 300]))
        if kind == 2:
            claimed = struct.unpack("<Q", data[:8].ljust(8, b"\0"))[0]
            lie = self._rng.choice([0, 1, 2, claimed + 1, max(0, claimed - 1), 2**24, 2**24 + 1, 2**63, 2**64 - 1])
            return struct.pack("<Q", min(lie, 2**64 - 1)) + data[8:]
        if kind == 3:
            return self._rng.randbytes(self._rng.randrange(64))
        at = self._rng.randrange(len(data) + 1)
        return data[:at] + self._rng.randbytes(1) + data[at + 1 :]
