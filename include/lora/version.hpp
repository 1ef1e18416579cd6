// SPDX-License-Identifier: Apache-2.0
//
// The version of the library, and nothing else. CMake reads this file, so the number stands in one place.
#ifndef LORA_VERSION_HPP
#define LORA_VERSION_HPP

#define LORA_VERSION_MAJOR 0
#define LORA_VERSION_MINOR 1
#define LORA_VERSION_PATCH 0

/** One integer to compare in `#if`: major * 10000 + minor * 100 + patch. */
#define LORA_VERSION (LORA_VERSION_MAJOR * 10000 + LORA_VERSION_MINOR * 100 + LORA_VERSION_PATCH)

#endif
