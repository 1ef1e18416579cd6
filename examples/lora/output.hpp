// SPDX-License-Identifier: Apache-2.0
//
// What every command that writes asks of --output before it begins to work. The library's writers are atomic; this only refuses early, and
// keeps a writer that runs as root from putting a file in the place of a device.
#ifndef LORA_EXAMPLES_LORA_OUTPUT_HPP
#define LORA_EXAMPLES_LORA_OUTPUT_HPP

#include "options.hpp"

#include <lora/adapter/adapter.hpp>

#include <string>

namespace program {

/** @throws lora::io_error unless a file could be written there: nothing or a regular file, in a folder that exists. */
void require_file_output(const std::string& path);

/**
 * The same, and not the file of an adapter that the command reads: what merge and apply write is none, and the adapter would be lost. A base may
 * be written over: it is one again.
 */
void require_file_output(const std::string& path, const std::vector<weighted_path>& adapters);

/** Writes a PEFT folder; one that was made for it goes away again when that fails. */
void write_peft(const std::string& folder, const lora::adapter& adapter);

}  // namespace program

#endif
