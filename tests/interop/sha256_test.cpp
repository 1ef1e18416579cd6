// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 against the vectors of FIPS 180-2, appendix B.
#include <lora/interop/sha256.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

namespace {
std::span<const std::byte> bytes(const std::string& s) { return std::as_bytes(std::span(s.data(), s.size())); }
std::string hex(const lora::content_hash& h) { return h.hex().data(); }
}  // namespace

static_assert(!std::is_copy_constructible_v<lora::sha256_stream>);

TEST_CASE("interop/sha256: the standard's vectors, in one piece and in many") {
  CHECK(hex(lora::sha256({})) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(lora::sha256(bytes("abc"))) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(lora::sha256(bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1000000, 'a');
  const char* want = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
  CHECK(hex(lora::sha256(bytes(million))) == want);
  lora::sha256_stream s;
  for (std::size_t i = 0; i < million.size(); i += 999) s.update(bytes(million).subspan(i, std::min<std::size_t>(999, million.size() - i)));
  lora::sha256_stream moved = std::move(s);
  CHECK(hex(moved.finish()) == want);
  CHECK(hex(moved.update(bytes("abc")).finish()) == hex(lora::sha256(bytes("abc"))));  // it begins anew
}
