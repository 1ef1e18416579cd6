# SPDX-License-Identifier: Apache-2.0
"""peft_fields_test.py: the fields of the LoraConfig of the PEFT that is installed, against tests/data/peft/fields.txt, which the table of
io/peft_config.hpp is held to. Fails when PEFT has a field that the table does not know. 77 (skipped) where PEFT is not there."""
import dataclasses
import pathlib
import sys

try:
    import peft
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

known = set(pathlib.Path("tests/data/peft/fields.txt").read_text().split())
have = {f.name for f in dataclasses.fields(peft.LoraConfig)}
if new := sorted(have - known):
    sys.exit(f"FAILED: PEFT {peft.__version__} has fields that io/peft_config.hpp does not classify: {', '.join(new)}")
if peft.__version__ == "0.21.2" and have != known:
    sys.exit(f"FAILED: fields.txt has fields that PEFT {peft.__version__} does not have: {', '.join(sorted(known - have))}")
print(f"all {len(have)} fields of PEFT {peft.__version__} are classified")
