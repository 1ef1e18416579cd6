// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"
#include "zip_bytes.hpp"

#include <lora/io/npz_writer.hpp>
#include <lora/nd/array.hpp>

#include <doctest/doctest.h>

namespace {

using lora::io::npz;
using lora::io::npz_options;
using lora::io::npz_writer;
using test::contains;
using test::packed;
using test::stored;
using test::zip_bytes;

/** A .npy file of bytes. */
std::string npy_of(std::string_view content) {
  const auto n = static_cast<lora::index_t>(content.size());
  std::string out;
  lora::detail::npy_layout(lora::any_view(content.data(), lora::dtype::u8, &n, 1), "f").write([&](const void* p, std::size_t size) {
    out.append(static_cast<const char*>(p), size);
  });
  return out;
}

std::string refused(std::string_view bytes, npz_options options = {}) {
  const test::exact_bytes exact(bytes);
  return test::refusal<lora::io_error>([&] { (void)npz::parse(exact.span(), "f", {}, options); });
}

bool inside(const lora::any_view& v, std::span<const std::byte> bytes) {
  const auto* const p = static_cast<const std::byte*>(v.data());
  return p >= bytes.data() && p + v.size_bytes() <= bytes.data() + bytes.size();
}

std::string content_of(const lora::any_view& v) { return std::string(static_cast<const char*>(v.data()), v.size_bytes()); }

/** Names, types, shapes and bytes of everything in the archive. */
std::string fingerprint(const npz& f) {
  std::string out;
  for (const auto& m : f.members()) {
    out += m.name() + '|' + lora::name_of(m.view().type());
    for (std::size_t i = 0; i < m.view().rank(); ++i)
      out += ',' + std::to_string(m.view().extent(i)) + '/' + std::to_string(m.view().stride(i));
    out += ':' + content_of(m.view()) + ';';
  }
  return out;
}

/** A writer whose zip64 fields begin at another size than 4 GiB. */
class early_zip64_writer : public npz_writer {
 public:
  early_zip64_writer(std::string path, std::uint64_t from) : npz_writer(std::move(path), from) {}
};

}  // namespace

TEST_CASE("io/npz: archives that NumPy wrote: stored, deflated, through a pipe; .npy versions 1, 2 and 3") {
  for (const char* name : {"stored", "deflated", "streamed"}) {
    CAPTURE(name);
    const npz f = npz::open(std::string(LORA_TEST_DATA_DIR "/io/npz/") + name + ".npz");
    f.verify();
    REQUIRE(f.members().size() == 6);
    CHECK(f.members()[0].name() == "w");
    CHECK(f.members()[5].name() == "bytes");
    const auto w = f["w"].as<const float, 2>();
    CHECK(w(1, 2) == 5.0f);
    const auto t = f["f"].as<const double, 2>();
    CHECK(t(1, 0) == 3.0);
    CHECK(t.stride(0) == 1);
    CHECK(f["scalar"].as<const std::int64_t, 0>()() == -7);
    CHECK(f["empty"].as<const lora::float16, 2>().extent(0) == 3);
    CHECK(!f["mask"].as<const bool, 1>()[1]);
    const auto b = f["bytes"].as<const std::uint8_t, 1>();
    for (lora::index_t i = 0; i < 1024; ++i) REQUIRE(b[i] == i / 4);
    const bool all_deflated = std::string_view(name) == "deflated";
    CHECK(f.find("bytes")->deflated() == (std::string_view(name) != "stored"));
    CHECK(f.find("w")->deflated() == all_deflated);
    CHECK(f.find("w.npy") == nullptr);
    CHECK(f.find("") == nullptr);
    CHECK(contains(test::refusal<lora::io_error>([&] { (void)f["nothing"]; }), ".npz': has no array 'nothing'"));
  }
}

TEST_CASE("io/npz: big-endian members are refused by name or swapped, objects always refused") {
  const std::string path = LORA_TEST_DATA_DIR "/io/npz/big_endian.npz";
  CHECK(contains(test::refusal<lora::io_error>([&] { (void)npz::open(path); }),
                 "big_endian.npz: member x.npy': dtype '>i4' is big-endian; npy_options{.swap = true} reads it, into a swapped copy"));
  const npz f = npz::open(path, {.swap = true});
  CHECK(f["x"].as<const std::int32_t, 2>()(1, 2) == 5);
  CHECK(f.bytes_copied() == 24 + 8);
  CHECK(f["c"].type() == lora::dtype::c64);
  float c[2];
  std::memcpy(c, f["c"].data(), 8);
  CHECK(c[0] == 1.0f);
  CHECK(c[1] == 2.0f);
  CHECK(contains(test::refusal<lora::io_error>([&] { (void)npz::open(LORA_TEST_DATA_DIR "/io/npz/object.npz", {.swap = true}); }),
                 "pickled Python objects"));
}

TEST_CASE("io/npz: a stored member is a view into the file; unaligned ones are copied and counted; a member's owner keeps it") {
  const auto n = lora::index_t{2};
  const double two[] = {0.5, 7};
  std::string content;
  lora::detail::npy_layout(lora::any_view(two, lora::dtype::f64, &n, 1), "f").write([&](const void* p, std::size_t size) {
    content.append(static_cast<const char*>(p), size);
  });
  for (std::size_t length = 1; length <= 8; ++length) {  // the length of the name moves the data
    CAPTURE(length);
    const std::string name(length, 'n');
    auto exact = std::make_shared<const test::exact_bytes>(zip_bytes({stored(name + ".npy", content)}));
    const auto bytes = exact->span();
    std::weak_ptr<const test::exact_bytes> alive = exact;
    std::shared_ptr<const void> owner;
    lora::any_view v;
    {
      const npz f = npz::parse(bytes, "f", exact);
      exact.reset();
      v = f[name];
      owner = f.find(name)->owner();
      const bool aligned = (30 + length + 4) % 8 == 0;
      CHECK(f.bytes_copied() == (aligned ? 0 : 16));
      CHECK(inside(v, bytes) == aligned);
      f.verify();
    }
    CHECK(v.as<const double, 1>()[1] == 7);
    owner.reset();
    CHECK(alive.expired());
  }
}

TEST_CASE("io/npz: each broken rule is refused with one sentence") {
  const std::string a = npy_of("abcd");
  const auto one = [&](auto&& change) {
    test::zip_entry e = stored("a.npy", a);
    change(e);
    return refused(zip_bytes({e}));
  };
  REQUIRE(one([](auto&) {}) == "");
  REQUIRE(refused(zip_bytes({})) == "");
  const std::string good = zip_bytes({stored("a.npy", a), packed("b.npy", a)});
  REQUIRE(refused(good) == "");
  // the end
  CHECK(contains(refused(""), "'f': is not a ZIP archive: it is shorter than an end record (byte 0)"));
  CHECK(contains(refused(good + '\0'), "does not end in the end record of a ZIP archive"));
  CHECK(contains(refused("x" + good), "the directory is not where the end record says"));
  CHECK(contains(refused(a), "does not end in the end record"));
  const auto with_end = [&](std::size_t at, char value) {
    std::string s = good;
    s[s.size() - 22 + at] = value;
    return refused(s);
  };
  CHECK(contains(with_end(20, 1), "the archive has a comment"));
  CHECK(contains(with_end(4, 1), "several disks"));
  CHECK(contains(with_end(6, 1), "several disks"));
  CHECK(contains(with_end(8, 1), "the two counts of members differ"));
  CHECK(contains(with_end(12, 0), "the directory is not where the end record says"));
  {
    std::string s = good;
    s[s.size() - 22 + 8] = s[s.size() - 22 + 10] = 1;
    CHECK(contains(refused(s), "bytes follow the last entry of the directory"));
    s[s.size() - 22 + 8] = s[s.size() - 22 + 10] = 3;
    CHECK(contains(refused(s), "the directory is too short for the number of members"));
  }
  // members
  CHECK(contains(refused(zip_bytes({stored("a.npy", a), stored("a.npy", a)})), "'f': member 'a.npy': occurs twice"));
  CHECK(contains(one([](auto& e) { e.name = "a.txt"; }), "member 'a.txt': is not a .npy file"));
  CHECK(contains(one([](auto& e) { e.name = "folder/"; }), "is not a .npy file"));
  CHECK(contains(one([](auto& e) { e.name = std::string("a\0.npy", 6); }), "a member's name contains a NUL byte"));
  CHECK(contains(one([](auto& e) { e.name = "\xc3\xbc.npy"; }), "its name is neither ASCII nor marked as UTF-8"));
  CHECK(one([](auto& e) { e.name = "\xc3\xbc.npy", e.flags = 0x0800; }) == "");
  for (const char* wrong :
       {"\xfc.npy", "\xc3.npy", "\xc0\x80.npy", "\xed\xa0\x80.npy", "\xf4\x90\x80\x80.npy", "\xe0\x80\x80.npy", "\xf0\x80\x80\x80.npy"})
    CHECK(contains(one([&](auto& e) { e.name = wrong, e.flags = 0x0800; }), "its name is not valid UTF-8"));
  CHECK(contains(one([](auto& e) { e.flags = 1; }), "is encrypted"));
  CHECK(contains(one([](auto& e) { e.flags = 0x2000; }), "is encrypted"));
  CHECK(contains(one([](auto& e) { e.flags = 0x0020; }), "has flags that are not supported"));
  CHECK(contains(one([](auto& e) { e.version = 46; }), "needs a newer version of the ZIP format"));
  CHECK(contains(one([](auto& e) { e.method = 12; }), "is neither stored nor deflated"));
  CHECK(contains(one([](auto& e) { e.comment = "hello"; }), "has a comment"));
  CHECK(contains(one([](auto& e) { e.size += 1; }), "is stored, but its two sizes differ"));
  CHECK(contains(one([](auto& e) { e.behind = "x"; }), "bytes that belong to no member lie before the directory"));
  CHECK(contains(one([](auto& e) { e.at_xor = 1; }), "bytes that belong to no member lie before it"));
  CHECK(contains(one([](auto& e) { e.at_xor = 0xffff0000; }), "bytes that belong to no member lie before it"));
  CHECK(contains(refused(zip_bytes({stored("a.npy", a),
                                    [&] {
                                      auto e = stored("b.npy", a);
                                      e.behind = "x";
                                      return e;
                                    }(),
                                    stored("c.npy", a)})),
                 "bytes that belong to no member lie before it"));
  // overlapping: the second member is inside the first one's data
  {
    const std::string inner = zip_bytes({stored("b.npy", a)});
    auto outer = stored("a.npy", inner.substr(0, 30 + 5 + a.size()));
    auto second = stored("b.npy", a);
    second.at_xor = static_cast<std::uint32_t>((35 + outer.data.size()) ^ 35);
    std::string s = zip_bytes({outer, second});
    CHECK(contains(refused(s), "'f': member 'a.npy': its data reach beyond its place"));
    second.at_xor = static_cast<std::uint32_t>(35 + outer.data.size());
    CHECK(contains(refused(zip_bytes({outer, second})), "its local header is not where the directory says"));
  }
  // the two descriptions
  CHECK(contains(one([](auto& e) { e.local_name = "b.npy"; }), "its local header has another name"));
  CHECK(contains(one([](auto& e) { e.local_sizes_xor = 1; }), "its local header has other sizes"));
  CHECK(contains(one([](auto& e) { e.local_crc_xor = 1; }), "its local header has another checksum"));
  CHECK(contains(one([](auto& e) { e.local_flags_xor = 2; }), "its local header has other flags or another method"));
  CHECK(contains(one([](auto& e) { e.local_sizes_xor = e.size; }), "its local header has other sizes"));   // 0, but nothing behind
  CHECK(contains(one([](auto& e) { e.local_sizes_xor = ~e.size; }), "its local header has other sizes"));  // "in zip64", without it
  // extra fields
  CHECK(one([](auto& e) { e.central_extra = e.local_extra = std::string("\x55\x54\2\0ab", 6); }) == "");
  CHECK(contains(one([](auto& e) { e.central_extra = "\x55\x54\1"; }), "an extra field is cut off"));
  CHECK(contains(one([](auto& e) { e.local_extra = std::string("\x55\x54\2\0a", 5); }), "an extra field is cut off"));
  CHECK(contains(one([](auto& e) { e.central_extra = std::string("\1\0\x8\0", 4) + std::string(8, '\0'); }),
                 "its zip64 field does not hold what the entry leaves to it"));
  CHECK(contains(one([](auto& e) { e.local_extra = std::string("\1\0\x8\0", 4) + std::string(8, '\0'); }), "is not 16 bytes long"));
  CHECK(contains(one([](auto& e) { e.local_extra = std::string("\1\0\0\0\1\0\0\0", 8); }), "has two zip64 fields"));
  CHECK(contains(one([](auto& e) { e.local_extra = std::string("\1\0\x10\0", 4) + std::string(16, '\1'); }), "has other sizes"));
  // the data descriptor
  const auto described = [&](std::string behind) {
    return one([&](auto& e) {
      e.flags = 8;
      e.behind = std::move(behind);
      for (std::size_t at; (at = e.behind.find("CRCC")) != std::string::npos;) std::memcpy(e.behind.data() + at, &e.crc, 4);
    });
  };
  const auto number = [](auto n) {
    std::string s;
    test::put(s, n);
    return s;
  };
  const auto n = static_cast<std::uint32_t>(a.size());
  const std::uint64_t wide = n;
  CHECK(described("CRCC" + number(n) + number(n)) == "");
  CHECK(described("PK\7\x8"
                  "CRCC" +
                  number(n) + number(n)) == "");
  CHECK(described("CRCC" + number(wide) + number(wide)) == "");
  CHECK(described("PK\7\x8"
                  "CRCC" +
                  number(wide) + number(wide)) == "");
  CHECK(contains(described(""), "a data descriptor was expected behind it"));
  CHECK(contains(described("CRCC" + number(n)), "a data descriptor was expected behind it"));
  CHECK(contains(described("CRCC" + number(n) + number(n + 1)), "its data descriptor differs from the directory"));
  CHECK(contains(described("CRCX" + number(n) + number(n)), "its data descriptor differs from the directory"));
  CHECK(contains(described("PK\7\7"
                           "CRCC" +
                           number(n) + number(n)),
                 "its data descriptor differs from the directory"));
  // what is inside
  CHECK(contains(refused(zip_bytes({stored("a.npy", "hello")})), "'f: member a.npy': is not a .npy file: it does not begin with"));
}

TEST_CASE("io/npz: deflated members inflate to exactly what the directory says, within the limit, with the right checksum") {
  const std::string a = npy_of(std::string(100000, 'x'));
  const auto one = [&](auto&& change, npz_options options = {}) {
    test::zip_entry e = packed("a.npy", a);
    change(e);
    return refused(zip_bytes({e}), options);
  };
  REQUIRE(one([](auto&) {}) == "");
  const test::exact_bytes exact(zip_bytes({packed("a.npy", a)}));
  const npz f = npz::parse(exact.span(), "f");
  CHECK(f["a"].extent(0) == 100000);
  CHECK(reinterpret_cast<std::uintptr_t>(f["a"].data()) % 64 == 0);
  CHECK(f.bytes_copied() == 0);
  CHECK(contains(one([](auto& e) { e.crc ^= 1; }), "member 'a.npy': its checksum differs"));
  CHECK(contains(one([](auto& e) { e.size -= 1; }), "inflates to more than its size in the directory"));
  CHECK(contains(one([](auto& e) { e.size = 0; }), "inflates to more than its size in the directory"));
  CHECK(contains(one([](auto& e) { e.size += 1; }), "inflates to less than its size in the directory"));
  CHECK(contains(one([](auto& e) { e.data += 'x'; }), "bytes follow its deflate stream"));
  CHECK(contains(one([](auto& e) { e.data.pop_back(); }), "its deflate stream is cut off"));
  CHECK(contains(one([](auto& e) { e.data.clear(); }), "claims to inflate to more than deflate can pack"));
  CHECK(contains(one([](auto& e) { e.data.clear(), e.size = 0; }), "its deflate stream is cut off"));
  CHECK(contains(one([](auto& e) { e.data[0] = '\7'; }), "is not a valid deflate stream"));
  // 4 GiB claimed by some hundred bytes: refused before any memory is taken.
  CHECK(contains(one([](auto& e) { e.size = 0xfffffffe; }), "claims to inflate to more than deflate can pack into its bytes"));
  CHECK(contains(one([](auto&) {}, {.inflate_limit = a.size() - 1}), "would inflate to more than npz_options::inflate_limit allows"));
  CHECK(one([](auto&) {}, {.inflate_limit = a.size()}) == "");
  const std::string two = zip_bytes({packed("a.npy", a), packed("b.npy", a)});
  CHECK(contains(refused(two, {.inflate_limit = 2 * a.size() - 1}), "member 'b.npy': would inflate to more"));
  CHECK(refused(two, {.inflate_limit = 2 * a.size()}) == "");
}

TEST_CASE("io/npz: verify() finds a changed stored byte that open() does not read") {
  std::string bytes = zip_bytes({stored("a.npy", npy_of("abcd"))});
  bytes[30 + 5 + 128] ^= 1;
  const test::exact_bytes exact(bytes);
  const npz f = npz::parse(exact.span(), "f");
  CHECK(test::refusal<lora::io_error>([&] { f.verify(); }) == "'f': member 'a': its checksum differs");
}

TEST_CASE(
    "io/npz: an archive cut at any length is refused; no changed byte goes unnoticed by open() and verify() and yet changes an array") {
  const std::string a = npy_of("abcd");
  auto streamed = packed("c.npy", a);
  streamed.flags = 8;
  streamed.local_crc_xor = streamed.crc;
  test::put(streamed.behind, streamed.crc, static_cast<std::uint32_t>(streamed.data.size()), streamed.size);
  const std::string whole = zip_bytes({stored("a.npy", a), packed("b.npy", a), streamed});
  const test::exact_bytes original(whole);
  const npz f = npz::parse(original.span(), "f");
  f.verify();
  const std::string want = fingerprint(f);
  for (std::size_t n = 0; n < whole.size(); ++n) CHECK(contains(refused(whole.substr(0, n)), "'f"));
  std::size_t accepted = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string mutant = whole;
    for (const int change : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      mutant[i] = static_cast<char>(whole[i] ^ change);
      const test::exact_bytes b(mutant);
      const std::string what = test::refusal<lora::io_error>([&] {
        const npz g = npz::parse(b.span(), "f");
        g.verify();
        ++accepted;
        if (fingerprint(g) != want) FAIL("byte " << i << " ^ " << change << " changes an array unnoticed");
      });
      if (!what.empty() && !what.starts_with("'f")) FAIL("byte " << i << " ^ " << change << ": " << what);
    }
  }
  // Times, the makers' versions, attributes: of 46 + 30 bytes a member some 20.
  CHECK(accepted > 3 * 16 * 9);
  CHECK(accepted < 3 * 28 * 9);
}

TEST_CASE("io/npz_writer: what it writes maps aligned and without a copy, is the same each time, and carries zip64 where sizes need it") {
  const test::temporary_folder folder;
  auto w = lora::uninit<float>(5, 7);
  for (lora::index_t i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i);
  std::string first;
  for (const std::uint64_t zip64_from : {std::uint64_t{0xffffffff}, std::uint64_t{300}, std::uint64_t{0}}) {
    CAPTURE(zip64_from);
    std::string bytes;
    for (const char* name : {"/a.npz", "/b.npz"}) {
      const std::string path = folder.path() + name;
      early_zip64_writer file(path, zip64_from);
      file.add("w", w);
      file.add("t", w.view().transpose());
      file.add("\xc3\xbc/half", w.view()(lora::all, lora::range(0, 7, 2)));
      file.add("", lora::zeros<bool>(3, 0));
      file.commit();
      if (!bytes.empty()) CHECK(test::read_file(path) == bytes);
      bytes = test::read_file(path);
    }
    const npz f = npz::open(folder.path() + "/a.npz");
    f.verify();
    CHECK(f.bytes_copied() == 0);
    REQUIRE(f.members().size() == 4);
    CHECK(f.members()[2].name() == "\xc3\xbc/half");
    for (const auto& m : f.members()) CHECK(reinterpret_cast<std::uintptr_t>(m.view().data()) % 64 == 0);
    CHECK(f["w"].as<const float, 2>()(4, 6) == 34.0f);
    CHECK(f["t"].is_contiguous(lora::order::F));
    CHECK(f["t"].as<const float, 2>()(6, 4) == 34.0f);
    CHECK(f["\xc3\xbc/half"].as<const float, 2>()(4, 3) == 34.0f);
    CHECK(f[""].extent(0) == 3);
    const bool has_zip64_end = contains(bytes, std::string("PK\6\6", 4));
    CHECK(has_zip64_end == (zip64_from != 0xffffffff));
    if (zip64_from == 0xffffffff) {
      // a wrong zip64 record is refused: the plain one and it must agree
      CHECK(refused(bytes) == "");
    } else {
      std::string s = bytes;
      s[s.size() - 22 - 20 - 56 + 24] ^= 1;
      CHECK(contains(refused(s), "the two counts of members differ"));
      s = bytes;
      s[s.size() - 22 - 20 + 8] ^= 1;
      CHECK(contains(refused(s), "the zip64 end record is not the 56 bytes before its locator"));
      s = bytes;
      s[s.size() - 22 - 20 - 56 + 48] ^= 1;
      CHECK(contains(refused(s), "the directory is not where the end record says"));
      s = bytes;
      s[s.size() - 22 + 12] ^= 1;  // no longer "see the other record", and not its number either
      CHECK(contains(refused(s), "the end record and the zip64 end record differ"));
    }
  }
}

TEST_CASE("io/npz_writer: names and types that do not do are refused and leave the writer usable; without commit nothing is left") {
  const test::temporary_folder folder;
  const std::string path = folder.path() + "/a.npz";
  const auto a = lora::zeros<float>(2);
  {
    npz_writer file(path);
    file.add("a", a);
    const auto refusal = [&](std::string_view name) { return test::refusal<lora::value_error>([&] { file.add(name, a); }); };
    CHECK(contains(refusal("a"), "a.npz': 'a' was added before"));
    CHECK(contains(refusal(std::string_view("\0", 1)), "is not a name for an array"));
    CHECK(contains(refusal("\xff"), "is not a name for an array"));
    CHECK(contains(refusal(std::string(0x10000 - 4, 'x')), "is not a name for an array"));
    CHECK(test::refusal<lora::dtype_error>([&] { file.add("h", lora::zeros<lora::bfloat16>(2)); }) != "");
    file.add("h", a);  // the name is still free
    CHECK(std::filesystem::is_empty(folder.path()) == false);
  }
  CHECK(std::filesystem::is_empty(folder.path()));
  {
    npz_writer file(path);
    file.commit();
  }
  CHECK(npz::open(path).path() == path);
}
