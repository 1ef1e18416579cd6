// SPDX-License-Identifier: Apache-2.0
//
// The measurements that are not about a loop of reads. Each gives a JSON object whose samples the tables are made from.
#ifndef LORA_BENCH_SNAPSHOT_TASKS_HPP
#define LORA_BENCH_SNAPSHOT_TASKS_HPP

#include <nlohmann/json.hpp>

#include <string>

namespace bench {

/** From the call of publish() to a reader that sees the new version, by payload size; what is freed is timed apart. Ends before `most` bytes. */
nlohmann::json visibility(std::size_t most);

/** The first read after a swap, on the publisher's own core and on another one. */
nlohmann::json first_read();

/** A layer of 4096 x 4096 for one token: latencies in alternated windows without swaps, with 1000 a second, and the same with a lock. */
nlohmann::json layer(int windows, int calls);

/** An adapter of `bytes` from a file in `folder` to a published version, while a reader works. */
nlohmann::json loading(const std::string& folder, std::size_t bytes, int rounds);

}  // namespace bench

#endif
