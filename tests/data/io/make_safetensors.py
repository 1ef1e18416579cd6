# SPDX-License-Identifier: Apache-2.0
"""Small safetensors files, right and wrong, with the verdict of the reference implementation.

    pip install safetensors==0.8.0
    python make_safetensors.py [outdir]        (default: the folder of this file)

Writes safetensors_cases.txt: one file a line, tab-separated:

    name  accept|refuse  the file's bytes in hex  tensors of an accepted file

where the tensors are `name:dtype:shape:data` joined by ';', name and data in
hex, the shape joined by ',', sorted. tests/io/safetensors_test.cpp demands the
same verdicts of our reader, save for the differences it lists by name.
The mutations are drawn from a fixed seed: two runs write the same bytes.
"""

import random
import struct
import sys
from pathlib import Path

import safetensors
from safetensors import deserialize


def file(header, data=b"", length=None):
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(name="a", dtype='"U8"', shape="[4]", offsets="[0,4]", more=""):
    return f'"{name}":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}'


def one(data=b"1234", **fields):
    return file("{" + entry(**fields) + "}", data)


BIG = 2**64 - 1
GOOD = "{" + entry() + "}"
DTYPES = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
          "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
          "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}


def nested(depth):
    """An unknown field whose value makes the whole header `depth` levels deep."""
    return ',"x":' + "[" * (depth - 2) + "]" * (depth - 2)


def cases():
    # the frame
    yield "empty file", b""
    yield "7 bytes", b"\2\0\0\0\0\0\0"
    yield "8 bytes of zero", bytes(8)
    yield "header longer than the file", file(GOOD, b"", length=1000)
    yield "header length 2^64-1", file(GOOD, b"1234", length=BIG)
    yield "header length above the limit", file(GOOD, b"1234", length=100_000_001)
    yield "header one too long", file(GOOD, b"1234", length=len(GOOD) + 1)
    yield "header one too short", file(GOOD, b"1234", length=len(GOOD) - 1)
    yield "plain", file(GOOD, b"1234")
    yield "no tensors", file("{}")
    yield "no tensors but data", file("{}", b"1")
    yield "one byte missing", file(GOOD, b"123")
    yield "one byte more", file(GOOD, b"12345")
    # around the JSON
    yield "leading space", file(" " + GOOD, b"1234")
    yield "leading newline", file("\n" + GOOD, b"1234")
    yield "trailing spaces", file(GOOD + "   ", b"1234")
    yield "trailing JSON whitespace", file(GOOD + " \t\r\n", b"1234")
    yield "trailing NUL", file(GOOD + "\0", b"1234")
    yield "trailing form feed", file(GOOD + "\f", b"1234")
    yield "trailing object", file(GOOD + "{}", b"1234")
    yield "trailing comma", file(GOOD + ",", b"1234")
    yield "comment behind", file(GOOD + "//", b"1234")
    yield "byte-order mark", file("\ufeff" + GOOD, b"1234")
    yield "whitespace between all tokens", file("{ \n\"a\" : { \"dtype\" :\t\"U8\" , \"shape\" : [ 4 ] , \"data_offsets\" : [ 0 , 4 ] } }", b"1234")
    yield "comma behind the last entry", file("{" + entry() + ",}", b"1234")
    yield "single quotes", file(GOOD.replace('"', "'"), b"1234")
    yield "array at the top", file("[]")
    yield "string at the top", file('"a"')
    yield "number at the top", file("1")
    yield "null at the top", file("null")
    yield "only whitespace", file("    ")
    # names
    yield "empty name", one(name="")
    yield "UTF-8 name", one(name="fc1.größe.重み.\U0001f600")
    yield "escaped name", one(name="a\\u00e9\\n\\\"\\\\\\/\\ud83d\\ude00")
    yield "NUL in a name", one(name="a\\u0000b")
    yield "control character in a name", one(name="a\x01b")
    yield "lone surrogate", one(name="a\\ud800")
    yield "two high surrogates", one(name="\\ud800\\ud800")
    yield "invalid UTF-8 in a name", file(GOOD.encode().replace(b'"a"', b'"\xff"'), b"1234")
    yield "overlong UTF-8", file(GOOD.encode().replace(b'"a"', b'"\xc0\xaf"'), b"1234")
    yield "encoded surrogate", file(GOOD.encode().replace(b'"a"', b'"\xed\xa0\x80"'), b"1234")
    yield "code point above the last", file(GOOD.encode().replace(b'"a"', b'"\xf4\x90\x80\x80"'), b"1234")
    yield "unknown escape in a name", one(name="a\\x41")
    # duplicates
    yield "duplicate tensor", file("{" + entry() + "," + entry() + "}", b"1234")
    yield "duplicate tensor of another type", file("{" + entry() + "," + entry(dtype='"F32"', shape="[1]") + "}", b"1234")
    yield "duplicate tensor, escaped", file("{" + entry() + "," + entry(name="\\u0061") + "}", b"1234")
    yield "duplicate tensor that leaves a hole", file("{" + entry(offsets="[0,4]") + "," + entry(offsets="[4,8]") + "}", b"12345678")
    yield "duplicate dtype", one(more=',"dtype":"U8"')
    yield "duplicate shape", one(more=',"shape":[4]')
    yield "duplicate data_offsets", one(more=',"data_offsets":[0,4]')
    yield "duplicate dtype, escaped", one(more=',"d\\u0074ype":"U8"')
    yield "duplicate unknown field", one(more=',"x":1,"x":2')
    # metadata
    yield "metadata", file('{"__metadata__":{"format":"pt","":""},' + entry() + "}", b"1234")
    yield "metadata last", file("{" + entry() + ',"__metadata__":{"format":"pt"}}', b"1234")
    yield "metadata alone", file('{"__metadata__":{}}')
    yield "metadata null", file('{"__metadata__":null}')
    yield "metadata number", file('{"__metadata__":1}')
    yield "metadata array", file('{"__metadata__":[]}')
    yield "metadata string", file('{"__metadata__":"a"}')
    yield "metadata with a number", file('{"__metadata__":{"a":1}}')
    yield "metadata with null", file('{"__metadata__":{"a":null}}')
    yield "metadata with an object", file('{"__metadata__":{"a":{}}}')
    yield "metadata with NUL", file('{"__metadata__":{"a\\u0000":"\\u0000"}}')
    yield "metadata with a duplicate key", file('{"__metadata__":{"a":"1","a":"2"}}')
    yield "metadata with an escaped duplicate", file('{"__metadata__":{"a":"1","\\u0061":"2"}}')
    yield "metadata twice", file('{"__metadata__":{},"__metadata__":{}}')
    yield "metadata twice, escaped", file('{"__metadata__":{},"\\u005f_metadata__":{}}')
    yield "metadata, escaped", file('{"\\u005f_metadata__":{"a":"b"}}')
    yield "tensor named __metadata__", one(name="__metadata__")
    yield "metadata and a tensor named so", file('{"__metadata__":{},' + entry(name="__metadata__") + "}", b"1234")
    # dtypes
    for name, bits in DTYPES.items():
        yield f"dtype {name}", one(dtype=f'"{name}"', shape="[4]", offsets=f"[0,{bits * 4 // 8}]", data=b"\1" * (bits * 4 // 8))
    for name in ("F4", "F6_E2M3", "F6_E3M2"):
        yield f"dtype {name} within a byte", one(dtype=f'"{name}"', shape="[3]", offsets="[0,2]", data=b"12")
    yield "F4 pair", one(dtype='"F4"', shape="[2]", offsets="[0,1]", data=b"1")
    for bad in ("f32", "F128", "U4", "BF", "", "F32 ", "float32", "F8_E4M3FN"):
        yield f"dtype {bad!r}", one(dtype=f'"{bad}"')
    yield "dtype, escaped", one(dtype='"\\u00558"')
    for bad in ("3", "null", "true", "[]", '["U8"]', "{}"):
        yield f"dtype is {bad}", one(dtype=bad)
    yield "dtype as an object", one(dtype='{"U8":null}')
    yield "BOOL bytes 0 and 1", one(dtype='"BOOL"', data=b"\0\1\1\0")
    yield "BOOL byte 2", one(dtype='"BOOL"', data=b"\0\1\2\0")
    # shapes
    yield "scalar", one(shape="[]", offsets="[0,1]", data=b"1")
    yield "empty", one(shape="[2,0]", offsets="[0,0]", data=b"")
    yield "rank 8", one(shape="[1,1,2,1,1,2,1,1]")
    yield "rank 9", one(shape="[1,1,2,1,1,2,1,1,1]")
    yield "rank 9 with a zero", one(shape="[1,1,2,1,1,2,1,1,0]", offsets="[0,0]", data=b"")
    for bad in ("[4.0]", "[1.9]", "[4e0]", "[-4]", "[-0]", "[04]", "[+4]", "[0x4]", '["4"]', "[true]", "[null]", "[[4]]", "[{}]", "4", '"4"', "null", "{}", "[4,]", "[,4]"):
        yield f"shape {bad}", one(shape=bad)
    yield "shape -0 of nothing", one(shape="[-0]", offsets="[0,0]", data=b"")
    yield "shape 2^64", one(shape=f"[{2**64}]")
    yield "shape 2^64-1, 2^64-1, 0", one(shape=f"[{BIG},{BIG},0]", offsets="[0,0]", data=b"")
    yield "shape 0, 2^64-1", one(shape=f"[0,{BIG}]", offsets="[0,0]", data=b"")
    yield "shape 0, 2^40, 2^40", one(shape=f"[0,{2**40},{2**40}]", offsets="[0,0]", data=b"")
    yield "shape 2^40, 2^40, 0", one(shape=f"[{2**40},{2**40},0]", offsets="[0,0]", data=b"")
    yield "shape 0, 2^62", one(shape=f"[0,{2**62}]", offsets="[0,0]", data=b"")
    yield "product wraps to 0", one(shape=f"[{2**32},{2**32}]", offsets="[0,0]", data=b"")
    yield "product wraps to 4", one(shape=f"[{2**62 + 1},4]")
    yield "bytes wrap", one(dtype='"F32"', shape=f"[{2**62}]", offsets="[0,0]", data=b"")
    yield "bits wrap", one(shape=f"[{2**61}]", offsets="[0,0]", data=b"")
    yield "rank 8 beyond the body", one(dtype='"F32"', shape="[1,1,1,1,1,1,1,1000000000]", offsets="[0,4000000000]")
    # offsets
    for bad in ("[0]", "[]", "[0,4,4]", "[0,4.0]", "[0.0,4]", "[-0,4]", "[0,-4]", '["0","4"]', "[0,null]", "[0,4", "4", "null", "{}", "[4,0]", "[0,3]", "[0,5]", "[1,5]"):
        yield f"offsets {bad}", one(offsets=bad)
    yield "offsets longer than the shape", one(offsets="[0,5]", data=b"12345")
    yield "offsets [0,2^64-1]", one(shape=f"[{BIG}]", offsets=f"[0,{BIG}]")
    yield "offsets [2^64-1,3]", one(offsets=f"[{BIG},3]")
    yield "offsets [0,2^64]", one(offsets=f"[0,{2**64}]")
    two = lambda a, b, data=b"12345678", sa="[4]", sb="[4]": file("{" + entry(shape=sa, offsets=a) + "," + entry(name="b", shape=sb, offsets=b) + "}", data)
    yield "two", two("[0,4]", "[4,8]")
    yield "two in reverse order", two("[4,8]", "[0,4]")
    yield "hole", two("[0,4]", "[5,9]", b"123456789")
    yield "hole in front", two("[1,5]", "[5,9]", b"123456789")
    yield "overlap by one", two("[0,4]", "[3,7]", b"1234567")
    yield "the same bytes twice", two("[0,4]", "[0,4]", b"1234")
    yield "one inside the other", two("[0,8]", "[2,6]", sa="[8]")
    yield "second beyond the end", two("[0,4]", "[4,8]", b"1234567")
    yield "data behind", two("[0,4]", "[4,8]", b"123456789")
    yield "empty at the start", two("[0,8]", "[0,0]", sa="[8]", sb="[0]")
    yield "empty at the end", two("[0,8]", "[8,8]", sa="[8]", sb="[0]")
    yield "empty in the middle of another", two("[0,8]", "[4,4]", sa="[8]", sb="[0]")
    yield "empty beyond the end", two("[0,8]", "[9,9]", sa="[8]", sb="[0]")
    yield "F32 at an odd offset", file("{" + entry(shape="[1]", offsets="[0,1]") + "," + entry(name="b", dtype='"F32"', shape="[1]", offsets="[1,5]") + "}", b"12345")
    # entries
    for missing in ("dtype", "shape", "data_offsets"):
        fields = {"dtype": '"U8"', "shape": "[4]", "data_offsets": "[0,4]"}
        del fields[missing]
        yield f"no {missing}", file('{"a":{' + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}}", b"1234")
    yield "fields in another order", file('{"a":{"data_offsets":[0,4],"shape":[4],"dtype":"U8"}}', b"1234")
    for bad in ("null", "1", '"U8"', "[]", "{}", "true"):
        yield f"entry is {bad}", file(f'{{"a":{bad}}}', b"1234")
    yield "entry as an array", file('{"a":["U8",[4],[0,4]]}', b"1234")
    yield "unknown fields", one(more=',"x":null,"y":[1,{"dtype":"F32","shape":[]}],"z":-1.5e3,"w":"\\u0000"')
    yield "unknown field 1e999", one(more=',"x":1e999')
    yield "unknown field of 400 digits", one(more=',"x":' + "9" * 400)
    yield "unknown field NaN", one(more=',"x":NaN')
    yield "nested 127 deep", one(more=nested(127))
    yield "nested 128 deep", one(more=nested(128))
    # mutations of a file with everything in it: mostly wrong, each in a way nobody thought of
    rng = random.Random(20240607)
    base = file('{"__metadata__":{"k":"v"},' + entry(shape="[2,2]") + "," + entry(name="b", dtype='"F16"', shape="[1]", offsets="[4,6]") + "}  ", b"123456")
    alphabet = b'{}[],:"0123456789-.eE \\tU8F16ab\0\xff'
    seen = set()
    while len(seen) < 60:
        m = bytearray(base)
        for _ in range(rng.choice((1, 1, 2))):
            where = rng.randrange(8, len(m))
            kind = rng.randrange(3)
            if kind == 0:
                m[where] = rng.choice(alphabet)
            elif kind == 1:
                m.insert(where, rng.choice(alphabet))
                m[0] = (m[0] + 1) % 256
            else:
                del m[where]
                m[0] = (m[0] - 1) % 256
        if bytes(m) != base and bytes(m) not in seen:
            seen.add(bytes(m))
            yield f"mutation {len(seen)}", bytes(m)


def verdict(data):
    try:
        found = deserialize(data)
    except safetensors.SafetensorError:
        return "refuse", ""
    rows = [f"{n.encode().hex()}:{t['dtype']}:{','.join(map(str, t['shape']))}:{bytes(t['data']).hex()}" for n, t in found]
    return "accept", ";".join(sorted(rows))


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    assert safetensors.__version__ == "0.8.0", safetensors.__version__
    lines, names = [], set()
    for name, data in cases():
        assert name not in names and "\t" not in name, name
        names.add(name)
        lines.append("\t".join((name, verdict(data)[0], data.hex(), verdict(data)[1])))
    (out / "safetensors_cases.txt").write_text("\n".join(lines) + "\n")
    print(len(lines), "cases,", sum("\taccept\t" in line for line in lines), "accepted")


if __name__ == "__main__":
    main()
