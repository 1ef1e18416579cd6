// SPDX-License-Identifier: Apache-2.0
//
// Levels 0-4: views, operations, kernels, adapters, snapshots. Needs xsimd and nothing to link.
// Not here: parallel/thread_pool.hpp (who starts threads says so, and <thread> costs as much as all of nd/), printing (nd/print.hpp,
// nd/ostream.hpp, nd/format.hpp), nd/mdspan.hpp, versions beyond the current one (snapshot/history.hpp, routes.hpp, canary.hpp, metrics.hpp), io/
// (readers and writers; some need nlohmann_json) and interop/ (each header names its own dependency).
// A file that only takes views as arguments includes <lora/nd/view.hpp>, or <lora/fwd.hpp> to name types: both are far cheaper.
//
//   #include <lora/lora.hpp>
//   lora::workspace scratch;
//   lora::forward(y, x, w, {&term, 1}, bias, scratch);       // y = x W^T + bias + scale * (x A^T) B^T
#ifndef LORA_LORA_HPP
#define LORA_LORA_HPP

#include <lora/config.hpp>
#include <lora/fwd.hpp>
#include <lora/version.hpp>

#include <lora/core/bytes.hpp>
#include <lora/core/checked.hpp>
#include <lora/core/content_hash.hpp>
#include <lora/core/dtype.hpp>
#include <lora/core/error.hpp>
#include <lora/core/half.hpp>
#include <lora/core/pages.hpp>
#include <lora/core/text.hpp>

#include <lora/nd/any_view.hpp>
#include <lora/nd/array.hpp>
#include <lora/nd/axes.hpp>
#include <lora/nd/broadcast.hpp>
#include <lora/nd/float_view.hpp>
#include <lora/nd/like.hpp>
#include <lora/nd/loop.hpp>
#include <lora/nd/overlap.hpp>
#include <lora/nd/reshape.hpp>
#include <lora/nd/rows.hpp>
#include <lora/nd/sequence.hpp>
#include <lora/nd/shape.hpp>
#include <lora/nd/slice.hpp>
#include <lora/nd/slice_parser.hpp>
#include <lora/nd/slice_text.hpp>
#include <lora/nd/split.hpp>
#include <lora/nd/view.hpp>
#include <lora/nd/windows.hpp>

#include <lora/simd/active.hpp>
#include <lora/simd/avx2.hpp>
#include <lora/simd/avx512.hpp>
#include <lora/simd/avx512_bf16.hpp>
#include <lora/simd/convert.hpp>
#include <lora/simd/dispatch.hpp>
#include <lora/simd/generic.hpp>
#include <lora/simd/isa.hpp>
#include <lora/simd/kernel.hpp>
#include <lora/simd/math.hpp>
#include <lora/simd/reduce.hpp>
#include <lora/simd/stream.hpp>
#include <lora/simd/transpose.hpp>
#include <lora/simd/vec.hpp>

#include <lora/parallel/executor.hpp>

#include <lora/ops/activation.hpp>
#include <lora/ops/apply.hpp>
#include <lora/ops/argmax.hpp>
#include <lora/ops/cast.hpp>
#include <lora/ops/copy.hpp>
#include <lora/ops/fill.hpp>
#include <lora/ops/join.hpp>
#include <lora/ops/normalize.hpp>
#include <lora/ops/reduce.hpp>
#include <lora/ops/reduce_plan.hpp>
#include <lora/ops/reduce_rules.hpp>
#include <lora/ops/rows.hpp>
#include <lora/ops/softmax.hpp>

#include <lora/linalg/columns.hpp>
#include <lora/linalg/embedding.hpp>
#include <lora/linalg/forward.hpp>
#include <lora/linalg/forward_plan.hpp>
#include <lora/linalg/merge.hpp>
#include <lora/linalg/one_token.hpp>
#include <lora/linalg/pack.hpp>
#include <lora/linalg/replaced_rows.hpp>
#include <lora/linalg/row_norms.hpp>
#include <lora/linalg/rows.hpp>
#include <lora/linalg/workspace.hpp>

#include <lora/adapter/adapter.hpp>
#include <lora/adapter/adapter_set.hpp>
#include <lora/adapter/bind.hpp>
#include <lora/adapter/contract.hpp>
#include <lora/adapter/count.hpp>
#include <lora/adapter/dora.hpp>
#include <lora/adapter/init.hpp>
#include <lora/adapter/linear.hpp>
#include <lora/adapter/merge_cost.hpp>
#include <lora/adapter/scale.hpp>
#include <lora/adapter/token_rows.hpp>

#include <lora/snapshot/cell.hpp>
#include <lora/snapshot/control.hpp>
#include <lora/snapshot/limits.hpp>
#include <lora/snapshot/payload.hpp>
#include <lora/snapshot/reader.hpp>
#include <lora/snapshot/traits.hpp>

#endif
