# SPDX-License-Identifier: Apache-2.0
"""Compiles a file to assembly and holds what its functions call against the comment "// calls: ..." above each.

  codegen.py <file.cpp> -- <compiler> <flags>...

`nothing`, or a regular expression that each called name must match somewhere; MUST in front: and there must be one. Code that the
compiler split off as cold counts as its function's.
"""
import pathlib
import re
import subprocess
import sys

CALL = re.compile(r"^\s+(?:call[ql]?|bl|jmp|b)\s+\*?([A-Za-z_][\w.]*)")


def claims(text):
    return {name: claim for claim, name in re.findall(r"^// calls: (.+)\n(?:\[\[.*\]\] )?\w[\w:<>, ]*? (\w+)\(", text, re.MULTILINE)}


def calls_of_functions(assembly):
    """{mangled name: set of names called}; local labels are not calls."""
    found = {}
    current = None
    for line in assembly.splitlines():
        label = re.match(r"(_Z\w+)(\.cold[.\d]*)?:", line)
        if label:
            current = found.setdefault(label[1], set())
            continue
        if re.match(r"[A-Za-z_]\w*:", line):
            current = None
        call = CALL.match(line)
        if call and current is not None and not call[1].endswith(".cold") and not re.match(r"(_Z\w+)\.cold", call[1]):
            current.add(call[1].split("@")[0])
    return found


def main():
    source = pathlib.Path(sys.argv[1])
    compiler = sys.argv[sys.argv.index("--") + 1:]
    assembly = subprocess.run([*compiler, "-S", "-o", "-", str(source)], check=True, capture_output=True, text=True).stdout
    called = calls_of_functions(assembly)
    wanted = claims(source.read_text(encoding="utf-8"))
    wrong = [] if len(wanted) >= 10 else [f"only {len(wanted)} claims were read"]
    for name, claim in wanted.items():
        mangled = [m for m in called if re.match(rf"_Z{len(name)}{name}", m)]
        if len(mangled) != 1:
            wrong.append(f"{name}: {len(mangled)} functions of this name in the assembly")
            continue
        names = called[mangled[0]]
        must = claim.startswith("MUST ")
        allowed = re.compile("(?!)" if claim == "nothing" else claim.removeprefix("MUST "))
        surplus = sorted(n for n in names if not allowed.search(n))
        if surplus:
            wrong.append(f"{name}: calls {', '.join(surplus)}; may call: {claim}")
        if must and not names:
            wrong.append(f"{name}: calls nothing, and must")
    print("\n".join(wrong) or f"codegen: {len(wanted)} functions call what they may")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
