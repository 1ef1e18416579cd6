#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the headers against the level table (docs/architecture.md): who may include whom, what stands where, how a header
begins and how long it is. Prints one line a violation; exit code 1 when there is any. --self-test plants violations and looks."""
import pathlib
import re
import sys
import tempfile

LEVEL = {"": 0, "core": 1, "nd": 2, "simd": 2, "parallel": 2, "ops": 3, "linalg": 3, "adapter": 4, "snapshot": 4, "io": 5, "interop": 6}
UMBRELLA = "lora.hpp"  # may include levels 0-4, must include all of them but OPT_IN, and no header includes it
OPT_IN = {"parallel/thread_pool.hpp",  # who starts threads says so; <thread> costs as much as all of nd/
          "nd/ostream.hpp", "nd/format.hpp", "nd/mdspan.hpp",
          "nd/print.hpp", "nd/print_element.hpp", "nd/digits.hpp",  # <ostream>, <format> and <mdspan>: for those who use them anyway
          "linalg/low_rank_norm.hpp", "linalg/merge_report.hpp", "adapter/compose.hpp",  # for tools: a program that serves needs none of them
          "simd/instantiate.hpp",  # for one file of a program
          "adapter/fused.hpp", "linalg/patches.hpp", "linalg/conv2d.hpp",  # for models that have such layers
          # versions beyond the current one: <chrono>, <map>, <functional>, for programs that load while they serve
          "snapshot/history.hpp", "snapshot/detail/history_store.hpp", "snapshot/named_pin.hpp", "snapshot/version_record.hpp",
          "snapshot/validated.hpp", "snapshot/metrics.hpp", "snapshot/routes.hpp", "snapshot/stable_hash.hpp", "snapshot/canary.hpp",
          "snapshot/patience.hpp"}  # <thread>
NOWHERE = {"iostream", "ranges", "format", "source_location", "expected", "regex"}
BUT = {("nd/format.hpp", "format")}  # the header exists to serve it, and includes it only where there is one
ONLY_IN = [  # includes matching the pattern are allowed in these rooms only
    (re.compile(r"xsimd/|\w*intrin\.h$|cpuid\.h$|arm_\w+\.h$"), {"simd"}),
    (re.compile(r"nlohmann/|zlib\.h$"), {"io"}),
    (re.compile(r"(sys/(mman|stat|file)|unistd|fcntl|dirent)\.h$"), {"io", "interop"}),
    (re.compile(r"Eigen/|openssl/|tbb/|omp\.h$|dlfcn\.h$"), {"interop"}),
]
BANNED = {"std::regex": "overflows its stack", "atomic_thread_fence": "TSan does not see fences", "#pragma once": "guards are used"}
OPEN_ENDS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
LONG, TOO_LONG = 400, 800


def room_of(name):
    return name.split("/")[0] if "/" in name else ""


def check_header(name, text, say):
    room, lines = room_of(name), text.splitlines()
    if room not in LEVEL:
        return say(1, f"'{room}' is not a room of the level table")
    guard = "LORA_" + re.sub(r"\W", "_", name.upper())
    if lines[:1] != ["// SPDX-License-Identifier: Apache-2.0"]:
        say(1, "the first line must be // SPDX-License-Identifier: Apache-2.0")
    directives = [line for line in lines if line.startswith("#")]
    if name.endswith(".hpp") and directives[:2] != [f"#ifndef {guard}", f"#define {guard}"]:
        say(1, f"the first directives must be #ifndef {guard} and #define {guard}")
    if len(lines) > TOO_LONG:
        say(len(lines), f"longer than {TOO_LONG} lines")
    elif len(lines) > LONG:
        print(f"include/lora/{name}: warning: longer than {LONG} lines ({len(lines)})")
    for number, line in enumerate(lines, 1):
        if OPEN_ENDS.search(line):
            say(number, "an open end: finish it, or open an issue")
        code = line.split("//")[0]
        for word, reason in BANNED.items():
            if word in code and not code.lstrip().startswith("*"):
                say(number, f"{word}: {reason}")
        include = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', code)
        if not include:
            continue
        quote, target = include.groups()
        if quote == '"':
            say(number, f'"{target}": includes are <...> from the root')
        if target in NOWHERE and (name, target) not in BUT:
            say(number, f"<{target}> is used nowhere in the headers")
        for pattern, rooms in ONLY_IN:
            if pattern.match(target) and room not in rooms:
                say(number, f"<{target}> only in {', '.join(sorted(rooms))}/")
        if target.startswith("lora/"):
            other = room_of(target[5:])
            above = LEVEL.get(other, 99) >= LEVEL[room] and other != room
            if target == "lora/" + UMBRELLA or (LEVEL.get(other, 99) > 4 if name == UMBRELLA else above):
                say(number, f"<{target}> is on level {LEVEL.get(other, '?')}; this header, on level {LEVEL[room]}, may not include it")


def check(root):
    found = []
    folder = root / "include" / "lora"
    texts = {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.[hi][pn][pl]"))}
    for name, text in texts.items():
        check_header(name, text, lambda number, what, name=name: found.append(f"include/lora/{name}:{number}: {what}"))
    for name in texts:
        if LEVEL.get(room_of(name), 9) <= 4 and name not in {UMBRELLA, *OPT_IN} and name.endswith(".hpp") and f"#include <lora/{name}>" not in texts.get(UMBRELLA, ""):
            found.append(f"include/lora/{UMBRELLA}:1: does not include <lora/{name}>")
    sources = [p for d in ("tests", "bench", "examples", "tools", "cmake") for p in (root / d).rglob("*") if p.suffix in (".cpp", ".hpp", ".py", ".cmake")]
    for path in sources:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if OPEN_ENDS.search(line):
                found.append(f"{path.relative_to(root)}:{number}: an open end: finish it, or open an issue")
    return found


def self_test():
    head = "// SPDX-License-Identifier: Apache-2.0\n#ifndef LORA_{0}_HPP\n#define LORA_{0}_HPP\n{1}\n#endif\n"
    umbrella = "".join(f"#include <lora/{n}.hpp>\n" for n in ("core/a", "nd/b", "simd/c", "ops/d"))
    good = {"core/a": "#include <cstddef>", "nd/b": "#include <lora/core/a.hpp>", "simd/c": "#include <xsimd/xsimd.hpp>",
            "ops/d": "#include <lora/nd/b.hpp>  // iostream, std::regex: not here", "io/e": "#include <nlohmann/json.hpp>", "lora": umbrella}
    planted = [  # (header, what is put into it; after "!" the whole file)
               ("nd/b", "#include <lora/ops/d.hpp>"), ("nd/b", "#include <lora/simd/c.hpp>"), ("core/a", '#include "b.hpp"'),
               ("ops/d", "#include <immintrin.h>"), ("ops/d", "#include <lora/lora.hpp>"), ("core/a", "#include <ranges>"),
               ("io/e", "std::regex r;"), ("core/a", "// TO" + "DO: later"), ("lora", umbrella + "#include <lora/io/e.hpp>"),
               ("lora", umbrella.replace("#include <lora/simd/c.hpp>\n", "")), ("core/a", "\n" * 801),
               ("ops/d", "std::atomic_thread_fence(std::memory_order_seq_cst);"), ("core/a", "!" + head.format("CORE_B", "")), ("core/a", "!" + head.format("CORE_A", "")[3:]), ("junk/f", "")]
    for name, body in [(None, None)] + planted:
        with tempfile.TemporaryDirectory() as scratch:
            for header, text in {**good, **({name: body} if name else {})}.items():
                path = pathlib.Path(scratch, "include/lora", header + ".hpp")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text[1:] if text.startswith("!") else head.format(re.sub(r"\W", "_", header.upper()), text))
            found = check(pathlib.Path(scratch))
        if (len(found) == 0) != (name is None):
            sys.exit(f"self-test: {name}: {body!r}: {found or 'not found'}")
    print(f"self-test: {len(planted)} planted violations found, none in a clean tree")


if __name__ == "__main__":
    if "--self-test" in sys.argv:
        self_test()
    else:
        violations = check(pathlib.Path(__file__).resolve().parent.parent)
        print("\n".join(violations) or "layers: no violation")
        sys.exit(bool(violations))
