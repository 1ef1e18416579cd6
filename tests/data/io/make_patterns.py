# SPDX-License-Identifier: Apache-2.0
"""Patterns, texts and the answers of Python's re, for the differential test of io/pattern.hpp.

    python make_patterns.py [outdir]        (default: the folder of this file)

Writes patterns.txt, tab-separated, with backslash, tab and newline written as
\\\\ \\t \\n. A line `full P` or `peft P` begins a pattern under one of the two rules

    full   re.fullmatch(P, text)
    peft   re.match(r"(.*\\.)?(P)$", text)        how PEFT reads rank_pattern

and is followed by lines `y TEXT` or `n TEXT`. A line `error P` is a pattern that
Python refuses, alone and in PEFT's form. All patterns lie in the subset of
io/pattern.hpp or are errors. Random ones come from a fixed seed.
"""

import random
import re
import signal
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore", FutureWarning)  # "possible nested set": the meaning is still the old one

MODULES = [
    "q_proj", "v_proj", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj",
    "model.layers.10.self_attn.q_proj", "model.layers.10.mlp.up_proj", "model.layersx10.mlp.up_proj", "model.decoder.layers.0.encoder_attn.k_proj",
    "lm_head", "lm.head", "xlm.head", "transformer.h.3.attn.c_attn", "h.3.attn.c_attn", "qkv", "model.q_projx", "xq_proj", "", ".", ".q_proj",
    "q_proj.", "model..q_proj", "q_proj\n", "a.q_proj\n", "a\n.q_proj", "model.layers.0.self_attn.q_proj\n\n",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", "fc1", "fc2", "fc3", "encoder.fc1", "größe.fc1", "é.fc1", "fc1é",
]

KEYS = [
    "q_proj", "v_proj", r"q_proj|v_proj", r"(q|v)_proj", r"(?:q|v)_proj", ".*q_proj", r".*\.q_proj", r"self_attn\.q_proj", "self_attn.q_proj",
    r"layers\.0\..*", r"layers\.[0-9]+\..*_proj", r"layers\.\d+\.self_attn\.(q|k|v|o)_proj", r"model\.layers\.(0|10)\..*", r"^q_proj", "^model.*",
    r"^model\.layers\.0\.self_attn\.q_proj", "^model.decoder.layers.0.encoder_attn.k_proj", "q_proj$", "^q_proj$", "^$", "$", "^", "",
    r"model.layers.10.self_attn.q_proj", r"layers.10.mlp.up_proj", r"fc[12]", r"fc[^12]", r"fc\d", r"fc\D", r"\w+", r"\w+\.\w+", r"[\w.]+", r"\S+", r"\s*",
    r"h\.\d\.attn\.c_attn", r"(h|layers)\.\d+\..*", r"lm.head", r"lm\.head", r"lm_head", r"l?m.head", r".*head", r"(lm_)?head", r"(lm.)?head",
    r"down_blocks\.\d\.attentions\.\d\.transformer_blocks\.\d\.attn[12]\.to_(q|k|v)", r".+", ".", "..", "...", r"\.", r"[.]", r".{6}", r"[a-z_]{6}",
    r"[a-z]{1,3}\d", r"[a-z]{2}\d{1}", r"q{0}_proj", r"q{1}_proj", r"q{1,}_proj", r"q{,1}_proj", r"q{,}_proj", "é.fc1", "gr..e.fc1", "[ß-é]+", "fc1.", "fc1[^a]",
    "[^.]*", "[^.]*proj", "(.*)", "(.*)*", "(.*)+", "(.*)?", "(?:)", "()", "()*", "(|q_proj)", "|q_proj", "q_proj|", "(^|x)q_proj", "q_proj($|x)",
    "(^)*q_proj", "(?:^)?q_proj", "($)?q_proj", "q_proj($)*", "a^b", "a$b", "^^q_proj", "q_proj$$", "[]a]", "[^]a]", "[a-]", "[-a]", "[a^]", r"[\]a]", r"[\-a]",
    "[[]", "[--a]", "[.-9]+", "q_proj{", "q_proj{}", "q_proj{x}", "q_proj{1", "q_proj{1,2", "{", "}", "]", "a{1}{", r"\{1\}", r"\-\_\!\/\ ", r"\é",
    "q??_proj", "(q|v)*?_proj", "q+?_proj", "q{1,2}?_proj", "x*", "x*?", "#", " ", "(a|ab)(c|bcd)", "(a*)(b|abc)(c*)", "((a)|b)*",
]

ERRORS = [
    "(", ")", "a)", "(a", "(a))", "[", "[a", "[]", "[^]", "[z-a]", "[é-ß]", r"[\d-z]", r"[a-\d]", "*", "+", "?", "*a", "a|*", "(*)", "(|+a)", "^*", "$+", "^{2}",
    "a**", "a*??", "a{2}{3}", "a{2}*", "a?{2}", "a{3,2}", "{2}", "{1}", "(?", "(?q)", "(?P", "(?:a", r"\q", r"[\q]", "a???",
]

FULL_TEXTS = [
    "", "a", "b", "c", "ab", "ba", "aa", "bb", "abc", "abcd", "abab", "aab", "abb", "aaa", "aaaa", "aabb", "a.b", ".", "a.", "\n", "a\n", "ab\n", "a\nb", "0", "a0",
    "_", "-", "]", "[", "^", "{", "}", "{1}", "a{", "a{}", "a{1", "a{,", "a{1,", "a{b}", " ", "é", "aé", "ß", "\x1c", "\t", "Z",
]

FULL = [
    "a", "ab", "a*", "a+", "a?", "a*b", "(ab)*", "(a|b)*", "(a|b)+c?", "a{2}", "a{2,}", "a{,2}", "a{1,3}", "a{0}", "a{0,0}b", "(a|ab)(c|bcd)", "(a*)*", "(a*)+b", "((a|b)?)*",
    "(a?){3}", "(a?){2,4}b", "(ab?)*", "(?:a|b|)*", "a|b|", "", "^a$", "^", "$", "a$", "a\n", ".", ".*", ".+", "[ab]*", "[^ab]*", "[^a]", r"\w", r"\W", r"\d", r"\D", r"\s", r"\S",
    r"[\w]", r"[^\w]", r"[\W]", r"[\W\d]", r"[^\W\d]", r"[\s\S]*", r"[\d\s]", r"[^\s]", "[a-c]+", "[]]", "[[]", "[\\]]", "[-]", "[^-]", r"\.", r"\[", r"\{", "{", "a{", "a{}", "a{1", "a{,", "a{1,", "a{b}", "[ß-é]", "é?", "aé*", "[^é]", "a.", "..",
    "(a$)", "(^a)", "(a|^)b?", "a(|b)c?", "(((a)))", "(a(b(c)?)?)?d?", "[a-z]*[^a-z]?", "(a|b){2}", "(a{2}){2}", "(a{1,2}){2}", "(a|(b|c)*)+", "[\x1c]", r"\ ",
]


def random_pattern(rng, depth=0):
    def item():
        kind = rng.randrange(12 if depth < 3 else 8)
        if kind < 5:
            s = rng.choice("abc")
        elif kind == 5:
            s = "."
        elif kind == 6:
            s = rng.choice(["[ab]", "[^a]", "[b-c]", "[^.]", r"\w", r"\.", r"\d", r"\W"])
        elif kind == 7:
            return rng.choice(["^", "$", "a", "b"])
        else:
            s = rng.choice(["(", "(?:"]) + random_pattern(rng, depth + 1) + ")"
        if rng.random() < 0.4:
            s += rng.choice(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "{0,3}"]) + rng.choice(["", "", "?"])
        return s

    branches = ["".join(item() for _ in range(rng.randrange(0 if depth else 1, 4))) for _ in range(rng.choice((1, 1, 2)))]
    return "|".join(branches)


def escape(s):
    return s.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


class TooSlow(Exception):
    pass


def too_slow(*_):
    raise TooSlow


def answer(rule, pattern, text):
    """What re says; None where there is no case: it backtracks for a second, or io/pattern.hpp refuses the text.

    The former is left to pattern_test.cpp, which asks for an answer at once. The latter: beyond ASCII \\d \\w \\s are not known.
    """
    if not text.isascii() and re.search(r"\\[dDwWsS]", pattern):
        return None
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        if rule == "full":
            return re.fullmatch(pattern, text) is not None
        return re.match(rf"(.*\.)?({pattern})$", text) is not None
    except TooSlow:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    lines, cases = [], 0
    signal.signal(signal.SIGALRM, too_slow)

    def block(rule, pattern, texts, most):
        """At most `most` texts that match and as many that do not: most texts match no pattern, or all."""
        nonlocal cases
        answers = {t: answer(rule, pattern, t) for t in texts}
        lines.append(f"{rule}\t{escape(pattern)}")
        for yes in (True, False):
            of_kind = sorted(t for t in texts if answers[t] is yes)
            for t in rng.sample(of_kind, min(len(of_kind), most)):
                lines.append(("y\t" if yes else "n\t") + escape(t))
                cases += 1

    rng = random.Random(20240607)
    for pattern in KEYS:
        block("peft", pattern, MODULES, 8)
    for pattern in FULL:
        block("full", pattern, FULL_TEXTS, 9)
    made = 0
    while made < 240:
        pattern = random_pattern(rng)
        rule = rng.choice(("full", "peft"))
        try:
            re.compile(pattern)
        except re.error:
            continue
        letters = "aabbc.0\n" if rule == "peft" else "aabbc."
        block(rule, pattern, sorted({"".join(rng.choice(letters) for _ in range(rng.randrange(7))) for _ in range(40)}), 6)
        made += 1
    for pattern in ERRORS:
        for form in (pattern, rf"(.*\.)?({pattern})$"):
            try:
                re.compile(form)
            except re.error:
                continue
            # PEFT's brackets can mend a pattern that is broken alone; such keys are refused all the same.
            if form == pattern:
                raise AssertionError(pattern)
        lines.append("error\t" + escape(pattern))
        cases += 1
    (out / "patterns.txt").write_text("\n".join(lines) + "\n", newline="\n")
    print(cases, "cases of", sum(l.split("\t")[0] in ("full", "peft", "error") for l in lines), "patterns; Python", sys.version.split()[0])


if __name__ == "__main__":
    main()
