// SPDX-License-Identifier: Apache-2.0
//
// sha256: OpenSSL's SHA-256 as a content_hash, for validators, adapters and contracts. Uses the CPU's SHA instructions where OpenSSL does
// (1.7 GB/s against 0.24 GB/s in plain C++, which is why this is not written here). Needs the target lora::openssl.
//
//   const lora::content_hash identity = lora::sha256(file->bytes());
//   lora::sha256_stream s;  s.update(a).update(b);  s.finish();
#ifndef LORA_INTEROP_SHA256_HPP
#define LORA_INTEROP_SHA256_HPP

#include <lora/core/content_hash.hpp>
#include <lora/core/error.hpp>

#include <openssl/evp.h>

#include <cstddef>
#include <span>
#include <utility>

namespace lora::inline v0 {

/** A hash over pieces. Move-only; after finish() it begins anew. @par Threads  As any plain object. */
class sha256_stream {
 public:
  /** @throws value_error when OpenSSL has no memory, or offers no SHA-256. */
  sha256_stream() : context_(EVP_MD_CTX_new()) {
    if (context_ == nullptr) detail::raise<value_error>(detail::text() << "sha256: OpenSSL has no memory for a context");
    if (!begin()) {
      EVP_MD_CTX_free(context_);
      fail();
    }
  }
  sha256_stream(sha256_stream&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
  sha256_stream& operator=(sha256_stream&& other) noexcept {
    std::swap(context_, other.context_);
    return *this;
  }
  ~sha256_stream() { EVP_MD_CTX_free(context_); }

  sha256_stream& update(std::span<const std::byte> bytes) {
    if (EVP_DigestUpdate(context_, bytes.data(), bytes.size()) != 1) fail();
    return *this;
  }

  [[nodiscard]] content_hash finish() {
    content_hash h;
    unsigned int size = 0;
    if (EVP_DigestFinal_ex(context_, h.bytes.data(), &size) != 1 || size != h.bytes.size() || !begin()) fail();
    return h;
  }

 private:
  [[nodiscard]] bool begin() noexcept { return EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1; }
  [[noreturn, gnu::cold, gnu::noinline]] static void fail() {
    detail::raise<value_error>(detail::text() << "sha256: OpenSSL refuses to compute SHA-256 (is it disabled by its configuration?)");
  }

  EVP_MD_CTX* context_;
};

/** SHA-256 of one piece. */
[[nodiscard]] inline content_hash sha256(std::span<const std::byte> bytes) { return sha256_stream().update(bytes).finish(); }

}  // namespace lora::inline v0

#endif
