# SPDX-License-Identifier: Apache-2.0
"""symbols.py <nm> <object>...: objects of files that only include and use lora. No static initialiser, no strong definition of the
library's, and no writable data of the library's, of the program or of a thread, but the dispatch cache of simd/ (and its guard): which must be
there, or else nothing was looked at."""
import re
import subprocess
import sys

CACHE = re.compile(r"(guard variable for )?lora::v0::simd::\w+::detail::this_machine\(\)::found$")
WRITABLE = re.compile(r"\.(t?data|t?bss)(?!\.rel\.ro)")
bad = []
for path in sys.argv[2:]:
    listing = subprocess.run([sys.argv[1], "-C", "--defined-only", "--format=sysv", path], capture_output=True, text=True, check=True).stdout
    caches = 0
    for line in listing.splitlines():
        if line.count("|") < 6:
            continue
        name, _, kind, _, _, _, section = (field.strip() for field in line.rsplit("|", 6))
        ours = "lora::" in name and "odr_two_tu" not in name
        if re.search(r"_GLOBAL__(sub_)?I|__static_initialization", name):
            bad.append(f"{path}: static initialiser: {name}")
        elif ours and kind in "TDBRGS":
            bad.append(f"{path}: not inline: {name}")
        elif ours and WRITABLE.match(section):
            caches += bool(CACHE.match(name))
            if not CACHE.match(name):
                bad.append(f"{path}: state: {name} ({section})")
    if caches == 0:
        bad.append(f"{path}: the dispatch cache was not found: is the library's state spelt otherwise now?")
print("\n".join(bad) or "no initialisers, no strong definitions, no state but the dispatch cache")
sys.exit(bool(bad))
