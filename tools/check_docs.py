#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles and runs the programs in README.md and docs/*.md, and compares what they print.

A program is a ```cpp block with a main(). It is compiled as it stands, runs in the source directory and must exit with 0. When
the next fenced block is ```text, the program must print exactly that; "..." in it stands for any text within a line.
Other blocks are ignored.

A link to a test, [word](../tests/FILE "NAME"), must name a file and, in it, a test case (or a text) that begins so. In docs/compatibility.md every
Y of the table under "Features" must be such a link.

  check_docs.py [--work DIR] [--jobs N] -- <compiler> <flags>...     exit code 1 when a program fails
  check_docs.py --self-test
"""
import argparse
import concurrent.futures
import difflib
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*?$", re.MULTILINE | re.DOTALL)


TEST_LINK = re.compile(r'\]\((?:\.\./)?(tests/[^\s)"]+)(?:\s+"([^"]+)")?\)')


def test_links(text, read):
    """Yields what is wrong with the links to tests; read(path) gives a file's text, or None."""
    for link in TEST_LINK.finditer(text):
        line = text.count("\n", 0, link.start()) + 1
        content = read(link[1])
        if content is None:
            yield line, f"there is no {link[1]}"
        elif link[2] is not None and '"' + link[2] not in content:
            yield line, f"{link[1]} has no test that begins with {link[2]!r}"
    in_table = False
    for line, words in enumerate(text.splitlines(), 1):
        if words.startswith("#"):
            in_table = words == "## Features"
        cells = words.split(" | ")
        if in_table and words.startswith("| ") and len(cells) > 1 and cells[1] != "lora" and not cells[1].startswith(("[Y](", "[p](", "–")):
            yield line, f"a feature without a link to its test: {cells[0][2:]}"


def programs(text):
    """Yields (line number, code, expected output or None)."""
    blocks = list(FENCE.finditer(text))
    for block, following in zip(blocks, blocks[1:] + [None]):
        if block[1] == "cpp" and re.search(r"\bint\s+main\s*\(", block[2]):
            expected = following[2] if following and following[1] == "text" else None
            yield text.count("\n", 0, block.start()) + 2, block[2], expected


def difference(expected, printed):
    """None when the output is as expected, else a diff to show."""
    want, got = ([line.rstrip() for line in text.rstrip().splitlines()] for text in (expected, printed))
    patterns = [".*?".join(map(re.escape, line.split("..."))) for line in want]
    if len(want) == len(got) and all(map(re.fullmatch, patterns, got)):
        return None
    return "\n".join(difflib.unified_diff(want, got, "the document", "the program", lineterm=""))


def run(compiler, work, place, number, code, expected):
    stem = re.sub(r"\W", "_", f"{place}_{number}")
    source, program = work / (stem + ".cpp"), work / stem
    source.write_text(f'#line {number} "{place}"\n{code}', encoding="utf-8")
    libraries = [flag for flag in compiler if flag.startswith("-l")]  # the linker wants them behind what uses them
    compiled = subprocess.run([*compiler, str(source), "-o", str(program), *libraries], capture_output=True, text=True)
    if compiled.returncode:
        return "does not compile:\n" + compiled.stderr
    try:
        ran = subprocess.run([str(program)], cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return "still runs after 60 s"
    if ran.returncode:
        return f"exit code {ran.returncode}:\n{ran.stdout}{ran.stderr}"
    different = difference(expected, ran.stdout) if expected is not None else None
    return different and "prints something else:\n" + different


def self_test():
    text = "```sh\nls\n```\n\n```cpp\nint main() {}\n```\nIt prints\n```text\nx = ... ms\n```\n```cpp\nint f();\n```\n```cpp\nint main() {}\n```\n"
    assert list(programs(text)) == [(6, "int main() {}\n", "x = ... ms\n"), (16, "int main() {}\n", None)], list(programs(text))
    assert difference("x = ... ms\ny", "x = 1.5 ms\ny\n") is None
    for printed in ("x = 1.5 s\ny\n", "x = 1.5 ms\n", "x = 1.5 ms\ny\nz\n", ""):
        assert difference("x = ... ms\ny", printed), printed
    files = {"tests/a_test.cpp": 'TEST_CASE("a: works")'}
    row = '## Features\n| feature | lora | PEFT |\n|---|---|\n| x | {} | Y |\n'
    assert list(test_links(row.format('[Y](../tests/a_test.cpp "a: wor")'), files.get)) == []
    for wrong in ('[Y](../tests/b_test.cpp "a: wor")', '[Y](../tests/a_test.cpp "orks")', "Y"):
        assert len(list(test_links(row.format(wrong), files.get))) == 1, wrong
    print("self-test: blocks are found, differences and broken links are seen")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "docs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("compiler", nargs="*", default=["g++", "-std=c++20", "-O1", f"-I{ROOT}/include"])
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    options.work.mkdir(parents=True, exist_ok=True)
    found = [(str(path.relative_to(ROOT)), *program) for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
             if path.exists() for program in programs(path.read_text(encoding="utf-8"))]
    failed = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for line, problem in test_links(path.read_text(encoding="utf-8"), lambda f: (ROOT / f).read_text(encoding="utf-8") if (ROOT / f).is_file() else None):
            print(f"{path.relative_to(ROOT)}:{line}: {problem}", flush=True)
            failed += 1
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda program: run(options.compiler, options.work, *program), found)
        for (place, number, _, expected), problem in zip(found, results):
            print(f"{place}:{number}: {problem or ('output as shown' if expected is not None else 'runs')}", flush=True)
            failed += bool(problem)
    print(f"docs: {len(found)} programs, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
