# SPDX-License-Identifier: Apache-2.0
"""compare.py <program>...: each program prints lines "<variant> <result>"; a variant's lines must be the same in every program."""
import collections
import subprocess
import sys

seen = collections.defaultdict(dict)  # variant -> its lines -> programs
for program in sys.argv[1:]:
    ran = subprocess.run([program], capture_output=True, text=True)
    name = program.rsplit("/", 1)[-1]
    if ran.returncode:
        sys.exit(f"{name}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}")
    lines = collections.defaultdict(list)
    for line in ran.stdout.splitlines():
        variant, result = line.split(" ", 1)
        lines[variant].append(result)
    for variant, results in lines.items():
        seen[variant].setdefault("\n  ".join(results), []).append(name)

failed = False
for variant, results in seen.items():
    skipped = " (skipped: this CPU lacks its instructions)" if "skipped" in results else ""
    count = sum(map(len, results.values()))
    print(f"{variant}: {'the same' if len(results) == 1 else 'DIFFERENT'} in {count} programs{skipped}")
    if len(results) != 1 or count < 2:
        failed = True
        for lines, programs in results.items():
            print(f" {', '.join(programs)}:\n  {lines}")
if not seen:
    sys.exit("no program printed anything")
sys.exit(failed)
