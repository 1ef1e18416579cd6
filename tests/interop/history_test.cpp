// SPDX-License-Identifier: Apache-2.0
//
// The writers of JSON and SVG: well formed whatever the texts hold, the same bytes for the same picture. The oracle for both grammars is
// Python's (json, xml.etree): what it reads back must be what was put in.
#include "io/files.hpp"

#include <lora/interop/history_json.hpp>
#include <lora/interop/history_svg.hpp>
#include <lora/snapshot/history.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace {

/** Hostile on purpose: quotes, markup, control characters, a byte that is no UTF-8, an overlong slash, a surrogate, 4-byte characters. */
const std::string nasty = "a\"b\\c<d>&'\n\t\x01\x7f|\xff|\xc0\xaf|\xed\xa0\x80|\xf0\x9f\x98\x80|\xc3";

lora::history_picture picture() {
  lora::history<int> h(
      lora::validator<int>::proven_by_type(),
      {.keep_last = 2, .byte_budget = 5000, .now = [t = lora::wall_time(std::chrono::milliseconds(951782400123))]() mutable {
         return t += std::chrono::hours(25);
       }});
  h.load({.source = nasty, .bytes = 1536, .note = nasty}, [](auto&) { return 1; });
  h.set_health(lora::stamp{1}, 0.1);
  lora::content_hash hash;
  hash.bytes.fill(0xa5);
  h.load({.source = "two", .bytes = 2, .hash = hash}, [](auto&) { return 2; });
  h.load({.source = nasty, .bytes = 9999}, [](auto&) { return 3; });
  h.load({.source = "three", .bytes = 3}, [](auto&) { return 4; }, {.parent = lora::stamp{1}});
  h.rollback(lora::stamp{2});
  h.set_standby(h.validate(lora::make_payload<int>(5), {.source = "ready"}));
  const auto pin = h.pin(nasty);
  return h.picture();
}

std::string python(const std::string& script, const std::string& text, const char* file) {
  const test::temporary_folder folder;
  const std::string data = folder.path() + "/" + file;
  const std::string code = data + ".py";
  std::ofstream(data, std::ios::binary) << text;
  std::ofstream(code) << script;
  std::string out;
  std::FILE* p = popen(("python3 " + code + " " + data + " 2>&1").c_str(), "r");
  REQUIRE(p != nullptr);
  for (int c = std::fgetc(p); c != EOF; c = std::fgetc(p)) out += static_cast<char>(c);
  pclose(p);
  return out;
}

}  // namespace

TEST_CASE("interop/history_json: another reader finds what was written") {
  const std::string text = lora::history_json(picture());
  CHECK(text == lora::history_json(picture()));  // two histories with the same past
  const std::string said = python(
      R"(import json, sys
d = json.load(open(sys.argv[1], encoding="utf-8"))
nasty = 'a"b\\c<d>&\'\n\t\x01\x7f|\ufffd|\ufffd\ufffd|\ufffd\ufffd\ufffd|\U0001f600|\ufffd'
v = d["versions"]
assert [x["stamp"] for x in v] == [1, 2, 3, 4], v
assert v[0]["source"] == nasty and v[0]["note"] == nasty and v[0]["health"] == 0.1 and v[0]["status"] == "dropped", v[0]
assert [x["parent"] for x in v] == [None, 1, 1, 2] and [x["replaced"] for x in v] == [None, 1, 2, 3]
assert v[1]["hash"] == "a5" * 32 and v[0]["hash"] is None and v[1]["health"] is None
assert v[3]["rolled_back_to"] == 2 and v[3]["status"] == "current" and v[3]["named_pins"] == 1
assert v[0]["created"] == "2000-03-01T01:00:00.123Z", v[0]["created"]
assert d["current"] == 4 and d["budget_bytes"] == 5000 and d["standby"]["source"] == "ready" and d["held_bytes"] == 5, d
assert d["pins"][0]["who"] == nasty
assert [e["number"] for e in d["events"]] == list(range(1, len(d["events"]) + 1))
assert [e["kind"] for e in d["events"]] == ["published", "judged", "published", "load_failed", "published", "dropped", "rolled_back"]
print("as written", end=""))",
      text, "history_test.json");
  CHECK(said == "as written");
  const std::string nothing = lora::history_json({});
  CHECK(nothing.find("\"versions\": []") != std::string::npos);
  CHECK(nothing.find("\"current\": null") != std::string::npos);
}

TEST_CASE("interop/history_svg: well-formed, every version once, the way to the current one bold") {
  const std::string text = lora::history_svg(picture());
  CHECK(text == lora::history_svg(picture()));
  const std::string said = python(
      R"(import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
ns = "{http://www.w3.org/2000/svg}"
words = [t.text for t in root.iter(ns + "text")]
heads = [w for w in words if w.startswith("v") and w[1:2].isdigit()]
assert heads == ["v1", "v2", "v3", "v4 = v2 again"], heads
assert words.count("load failed") == 1 and words.count("dropped") == 1
bold = [r for r in root.iter(ns + "rect") if r.get("stroke") == "#0969da"]
assert len(bold) == 3 and len({r.get("y") for r in bold}) == 1, bold
boxes = [(int(r.get("x")), int(r.get("y"))) for r in root.iter(ns + "rect") if r.get("rx") == "6"]
assert len(boxes) == len(set(boxes)) == 5, boxes
width, height = int(root.get("width")), int(root.get("height"))
assert all(0 <= x and x + 146 <= width and 0 <= y and y + 58 <= height for x, y in boxes)
print("as drawn", end=""))",
      text, "history_test.svg");
  CHECK(said == "as drawn");
  CHECK(lora::history_svg({}).find("nothing published") != std::string::npos);
}

TEST_CASE("interop/history_svg: the last decision about a version stands under its box, all of them in its tooltip") {
  lora::history<int> h(lora::validator<int>::proven_by_type());
  h.load({.source = "v1"}, [](auto&) { return 1; });
  h.load({.source = "v2"}, [](auto&) { return 2; });
  h.record_decision(lora::stamp{2}, "canary: promote, share 25.0 %; " + nasty);
  h.record_decision(lora::stamp{2}, "canary: roll back, share 0.0 %; the rest");
  h.record_decision(lora::stamp{1}, "");
  const std::string said = python(
      R"(import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
ns = "{http://www.w3.org/2000/svg}"
words = [t.text for t in root.iter(ns + "text")]
assert words.count("canary: roll back, share 0.0 %") == 1 and not any("promote" in (w or "") for w in words), words
titles = [t.text for t in root.iter(ns + "title")]
assert len(titles) == 2 and titles[1].startswith("canary: promote, share 25.0 %; a\"b"), titles
assert titles[1].endswith("\ncanary: roll back, share 0.0 %; the rest"), titles
print("as drawn", end=""))",
      lora::history_svg(h.picture()), "history_test.svg");
  CHECK(said == "as drawn");
  h.record_decision(lora::stamp{1}, std::string(30, 'x') + "\xc3\xa4\xc3\xa4");  // cut between characters
  CHECK(lora::history_svg(h.picture()).find(">" + std::string(30, 'x') + "\xe2\x80\xa6<") != std::string::npos);
}
