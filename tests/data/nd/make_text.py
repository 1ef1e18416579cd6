# SPDX-License-Identifier: Apache-2.0
"""Make text_cases.inc and literals.inc: what NumPy answers to slices given as text.

    pip install numpy==2.4.6
    python make_text.py [outdir]        (default: the folder of this file)

Whether a text is a slice is decided by Python's own parser: a[text] must parse, and its syntax tree must hold nothing but integers
with signs, ranges of them, None (under any of its names) and Ellipsis. What it means is decided by NumPy.

text_cases.inc, read by tests/nd/text_cases.hpp, fields parted by tabs, numbers by commas, `-` an empty list:

    A shape strides origin           an array of int32 in a buffer that counts 0, 1, 2, ...; a[0, ..., 0] is at `origin`
    text shape strides offset        a slice of it
    text !shape strides offset       the same by Python's rule; refused by the strict one, because a bound is outside [-n, n]
    text =values                     after a slice of few elements: these, in C order
    text E                           not a slice
    text Z                           a step of 0
    text I axis index                an index outside its axis
    text M                           more indices than axes
    text L                           a number beyond 64 bits; Python would cut it where it is a bound

Tabs, line ends and backslashes in the text are written as in C. literals.inc is C++: a sample of the same cases as literals.
"""

import ast
import re
import sys
import warnings
from pathlib import Path

sys.dont_write_bytecode = True
import make
import numpy as np

ARRAYS, TEXTS = 540, 12
LIMIT = 2**63
TOO_LARGE = object()


class NotBasic(Exception):
    pass


def number(node):
    """The integer of a node, or None when it is not one."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        inner = number(node.operand)
        return None if inner is None else (-inner if isinstance(node.op, ast.USub) else inner)
    return None


def is_none(node):
    if isinstance(node, ast.Constant):
        return node.value is None
    if isinstance(node, ast.Name):
        return node.id == "newaxis"
    return isinstance(node, ast.Attribute) and node.attr == "newaxis" and isinstance(node.value, ast.Name) and node.value.id in ("np", "numpy")


def bound(node):
    if node is None or is_none(node):
        return None
    value = number(node)
    if value is None:
        raise NotBasic
    return value


def item(node):
    if isinstance(node, ast.Slice):
        return slice(bound(node.lower), bound(node.upper), bound(node.step))
    if is_none(node):
        return None
    if (isinstance(node, ast.Constant) and node.value is Ellipsis) or (isinstance(node, ast.Name) and node.id == "Ellipsis"):
        return Ellipsis
    value = number(node)
    if value is None:
        raise NotBasic
    return value


def index_of(text):
    """The index that a[text] means; NotBasic when it does not parse or is not a basic index."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(f"a[{text}]", mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise NotBasic from None
    if not isinstance(tree, ast.Subscript) or not isinstance(tree.value, ast.Name):
        raise NotBasic
    inner = tree.slice
    index = tuple(item(e) for e in inner.elts) if isinstance(inner, ast.Tuple) else (item(inner),)
    if sum(1 for e in index if e is Ellipsis) > 1:
        raise NotBasic
    return index


def numbers_of(index):
    for e in index:
        for n in (e.start, e.stop, e.step) if isinstance(e, slice) else (e,):
            if type(n) is int:
                yield n


def outside(a, index):
    """Whether a bound of a range lies outside [-n, n]."""
    consuming = sum(1 for e in index if e is not None and e is not Ellipsis)
    axis = 0
    for e in index:
        if e is Ellipsis:
            axis += a.ndim - consuming
        elif e is not None:
            if isinstance(e, slice) and any(b is not None and abs(b) > a.shape[axis] for b in (e.start, e.stop)):
                return True
            axis += 1
    return False


def answer(a, text):
    """Fields of the answer, as text; and the sliced array, when there is one."""
    try:
        index = index_of(text)
    except NotBasic:
        return "E", None
    if any(not -LIMIT <= n < LIMIT for n in numbers_of(index)):
        return "L", None
    if any(isinstance(e, slice) and e.step == 0 for e in index):
        return "Z", None
    try:
        b = a[index if Ellipsis in index else (*index, Ellipsis)]  # the ellipsis makes NumPy give a view of rank 0, not a number
    except IndexError as e:
        if "too many indices" in str(e):
            return "M", None
        found = re.match(r"index (-?\d+) is out of bounds for axis (\d+)", str(e))
        return f"I\t{found[2]}\t{found[1]}", None
    offset = make.address(b) - make.address(a) if b.size else 0
    strict = "!" if outside(a, index) else ""
    return f"{strict}{make.joined(b.shape)}\t{make.joined(make.element_strides(b))}\t{offset}", b


def spelled_number(draw, n, plain):
    if plain or not draw.chance(25):
        return str(n)
    magnitude = draw.one_of([f"{abs(n)}", hex(abs(n)), oct(abs(n)), bin(abs(n)), f"{abs(n):#X}", f"0x_{abs(n):x}", f"({abs(n)})"])
    sign = "-" if n < 0 else draw.one_of(["", "+", "--", "- -"])
    text = sign + draw.one_of(["", "", " "]) + magnitude
    return f"({text})" if draw.chance(20) else text


def drawn_text(draw, a):
    """A text that is mostly a slice of `a`."""
    plain = draw.chance(50)
    blank = (lambda: "") if plain else (lambda: draw.one_of(["", "", "", " ", "  ", "\t", "\n"]))
    consuming = a.ndim - draw.one_of([0, 0, 0, 1, 1, a.ndim]) + (1 if draw.chance(3) else 0)
    consuming = max(consuming, 0)
    kinds = ["axis"] * consuming
    for word in ("n", "n", "e"):
        if draw.chance(15):
            kinds.insert(draw.below(len(kinds) + 1), word)
    parts = []
    axis = 0
    ranges = False
    for kind in kinds:
        if kind == "n":
            parts.append("None" if plain else draw.one_of(["None", "newaxis", "np.newaxis", "numpy . newaxis", "(None)"]))
            continue
        if kind == "e":
            parts.append("..." if plain else draw.one_of(["...", "Ellipsis", "(...)"]))
            axis += max(0, a.ndim - consuming)
            continue
        n = a.shape[axis] if axis < a.ndim else 3
        axis += 1
        if draw.chance(30):
            parts.append(spelled_number(draw, draw.between(-n - (1 if draw.chance(8) else 0), max(n - (0 if draw.chance(8) else 1), -n)), plain))
            continue
        ranges = True
        margin = draw.one_of([0, 0, 0, 0, 0, 1, 3])
        texts = ["" if draw.chance(40) else ("None" if draw.chance(3) else spelled_number(draw, draw.between(-n - margin, n + margin), plain)) for _ in range(2)]
        text = blank() + texts[0] + blank() + ":" + blank() + texts[1]
        if draw.chance(50):
            text += blank() + ":" + blank() + ("" if draw.chance(15) else spelled_number(draw, draw.one_of([1, 1, 2, 3, -1, -1, -2, -3, 7, -7, 0 if draw.chance(10) else 1]), plain))
        parts.append(text)
    if not parts:
        return draw.one_of(["()", "...", "( )", "(())"])
    text = (draw.one_of([", ", ","]) if plain else "@").join(parts)
    while "@" in text:
        text = text.replace("@", blank() + "," + blank(), 1)
    if draw.chance(6 if plain else 15):
        text += blank() + ","
    if not plain and not ranges and draw.chance(30):
        text = "(" + text + ")"
    return blank() + text + blank()


ALPHABET = "0123456789::,,..()[]+-_ xobNne\t\n*~'\"$#\\LjTé"


def mutated(draw, text):
    for _ in range(draw.between(1, 2)):
        at = draw.below(len(text) + 1)
        kind = draw.below(4)
        if kind == 0 or at == len(text):
            text = text[:at] + draw.one_of(ALPHABET) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + 1 :]
        elif kind == 2:
            text = text[:at] + draw.one_of(ALPHABET) + text[at + 1 :]
        else:
            other = draw.below(len(text))
            text = text[:at] + text[other] + text[at + 1 :]
    return text


CURATED = """
: :: ::: :,: :,:, :,,: , ,, ,: 0 -0 +0 00 0_0 000 01 0_1 -01 1_ _1 1__0 0x 0x1 0X1 0x_1 0x1_ 0x__1 0b1 0B1 0b2 0b_1 0o1 0O1 0o8 0o_1 0b 0o
0xg 1L 1l 1j 1. .1 1.0 1e0 1e 1_0_ 0x1.0 0.0 00. ... Ellipsis (...) ((...)) .... .. . ...,... ...,:,... ..., ...... Ellipsis,...
None newaxis np.newaxis numpy.newaxis np.None np newaxis.np np.newaxis.x None.x none NONE Nones xNone None1 None,None None:None 1:None None:1
::None None:None:None np.newaxis:1 1:newaxis Ellipsis:1 1:Ellipsis ...:1 1:... ::... True False True: :True (True) 1,True (1) (1,) (1),(1) (1,2)
(1,2,) ((1,2)) ((1),(2)) (((1))) ((1,),) (1,2),0 0,(1,2) (1,2), (),0 () (()) ((),) (,) (:) (1:2) (1:2,3) 1,(2:3) (1):2 1:(2) (1):(2):(1) (1,2):1
1:(1,2) ((1):2) (1 1) 1) (1 1)( )1( )( (( )) ((1) (1)) 1]( [1] [1,2] [:] [] ] [ 1] 1][0 [1:2] 1,[2] - + -- -: :- 1- +1 -+1 --1 +-1 ---1 - - -1 -(1)
-(-1) (-(1)) -(-(1)):2 -None -... -: +() ~1 1+1 1-1 1*1 -1-1 2//2 1==1 1<2 a a: :a slice(1) slice(1,2) 1if lambda 1or 1 x=1 :=1 1:=2 *a *1 **
1:2:1:1 1:2:1: :::1 ::0 ::-0 ::00 0:0:0 ::0x0 ::1 ::-1 1:2: :2:1 1::2 9223372036854775807 9223372036854775808 -9223372036854775808
-9223372036854775809 9223372036854775808: :9223372036854775808 -9223372036854775809:  ::9223372036854775808 ::9223372036854775807
::-9223372036854775808 ::-9223372036854775809 99999999999999999999999999 0xffffffffffffffff 0x7fffffffffffffff --9223372036854775808
-(9223372036854775808) 9223372036854775807: :9223372036854775807 -9223372036854775808: :-9223372036854775808 :-9223372036854775808:-1
18446744073709551617 18446744073709551616: 1,2,3,4 1,2,3 1,2,3,... ...,1,2,3 1,...,2,3 :,:,:,: :,:,:,... None,:,:,:,None 0;1 0? '0' "0" `0` $ @ ! % & | ^ < > = { } {0}
1e3: 1:1e3 0xg: :0b3 é 1é
""".split()
SPACED = [
    "", " ", "\n", "\t \f", "( )", "(\n)", " 1 ", "\t1", "1\n", "\r\n1\r\n", "1 :2", "1: 2", " 1 : 2 : 1 ", "1\f:\f2", "1 ,2", "1 , 2 ,", "- 1", "-\n1", "+ 1", "- - 1",
    "1 2", "1 :2 3", "1: 2 3", ": :", ": : :", ": : : :", ". . .", ".. .", "... ...", "...1", "1...", "... 1", "None None", "None 1", "1 None", "np .newaxis", "np. newaxis",
    "np . newaxis", "np\n.\nnewaxis", "np newaxis", "new axis", "No ne", "0 x1", "0x 1", "1 _0", "1_ 0", "( 1 )", "( 1 , 2 )", "(\n1,\n2\n)", "( 1 ) : ( 2 )", "1\v", "\v", "1\x00", "\xa01", "1\xa0",
    "1, 2, 3, 4, 5, 6, 7, 8, 9", ":, :, :, :, :, :, :, :, :", "1\\", "1 \\ 2", "1 #", "# 1", "1 if 1 else 2", "1 or 2", "not 1", "1 in x", "1, *x", "1,\n\n2", "1;", "1\n:\n2\n:\n1", "  ,1", "(1)2", "2(1)",
    "(1) (2)", "1()", "()1", "1,()", "1, (), 2", "None ()", "(None)(1)", "(1,2) 3", "-(1, 2)", "-(:)", "-()", "(-)1", "(+)", "(((((((((1)))))))))", "(" * 50 + "1" + ")" * 50,
    "(" * 50 + "1, 2" + ")" * 50, "(" * 50 + "1" + ")" * 49, "(" * 49 + "1" + ")" * 50, "(" * 250 + "1" + ")" * 250,
]


def escaped(text):
    return "".join({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}.get(c, c if 32 <= ord(c) < 127 else "".join(f"\\x{b:02x}" for b in c.encode())) for c in text)


def text_line(a, text, values=False):
    fields, b = answer(a, text)
    line = f"{escaped(text)}\t{fields}"
    if values and b is not None and b.ndim:
        line += "\t=" + make.joined(b.ravel().tolist())
    return line


def cpp_list(numbers):
    return "{" + ", ".join(str(n) for n in numbers) + "}"


def literal_lines(a, text):
    """C++ for one case; more than one when the strict and the clamped answers differ."""
    fields, b = answer(a, text)
    base = f"{cpp_list(a.shape)}, {cpp_list(make.element_strides(a))}"
    literal = '"' + text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace('"', '\\"') + '"_s'
    if fields[0] == "I":
        return [f"refused<{a.ndim}>({base}, {literal});"]
    shape, strides, offset = fields.lstrip("!").split("\t")
    want = "{" + ", ".join(f"{{{'' if f == '-' else f.replace(',', ', ')}}}" for f in (shape, strides)) + f", {offset}}}"
    lines = [f"refused<{a.ndim}>({base}, {literal});"] if fields[0] == "!" else [f"sliced<{a.ndim}>({base}, {literal}, {want});"]
    if fields[0] == "!":
        lines.append(f"sliced<{a.ndim}>({base}, {literal}.clamp(), {want});")
    return lines


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    out.mkdir(parents=True, exist_ok=True)
    blocks = []
    literals = []
    for i in range(ARRAYS):
        draw = make.Draw(f"text {i}")
        rank = draw.between(0 if i % 20 == 0 else 1, 5 if i % 10 == 0 else 4)
        a = make.base_array(draw, rank, 6) if rank else make.counted([])  # slicing an array of rank 0 would copy
        origin = int(a.ravel()[0]) if a.size else 0
        lines = [f"A {make.joined(a.shape)} {make.joined(make.element_strides(a))} {origin}"]
        for k in range(TEXTS):
            text = drawn_text(draw, a)
            if draw.chance(25):
                text = mutated(draw, text)
            if "#" in text or "\\" in text:  # comments and continued lines are not taken; whether Python would is not the question
                text = text.replace("#", "$").replace("\\", "$")
            lines.append(text_line(a, text, values=k == 0))
            if k in (1, 2) and len(literals) < 330 and a.ndim and answer(a, text)[0][0] not in "EZLM":
                literals += literal_lines(a, text)
        blocks.append(lines)
    a = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
    blocks.append(["A 3,4,5 20,5,1 0"] + [text_line(a, t) for t in (*CURATED, *SPACED)])

    head = "// SPDX-License-Identifier: Apache-2.0\n// Written by make_text.py beside it"
    text = head + "; strings for an array.\n"
    chunk = ""
    for lines in blocks:
        block = "\n".join(lines) + "\n"
        if len(chunk) + len(block) > 60000:  # compilers need not take a literal of more than 65,536 characters
            text += f'R"cases({chunk})cases",\n'
            chunk = ""
        chunk += block
    text += f'R"cases({chunk})cases",\n'
    (out / "text_cases.inc").write_text(text)
    (out / "literals.inc").write_text(head + ".\n" + "\n".join(literals) + "\n")
    answers = [l.split("\t")[1][0] for lines in blocks for l in lines[1:]]
    print({c: answers.count(c) for c in "EZIML!"}, len(answers), "texts,", len(literals), "literals")


if __name__ == "__main__":
    main()
