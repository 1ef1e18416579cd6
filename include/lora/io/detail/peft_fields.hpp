// SPDX-License-Identifier: Apache-2.0
//
// What io::peft_config does with each field of adapter_config.json: the table of PEFT 0.21.2's LoraConfig.
#ifndef LORA_IO_DETAIL_PEFT_FIELDS_HPP
#define LORA_IO_DETAIL_PEFT_FIELDS_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lora::inline v0::detail {

/** What a field may hold. */
enum class peft_rule : std::uint8_t {
  used,      // read here, each with its own type
  harmless,  // anything: it says how the adapter was made, or where it came from
  flag,      // null or false
  list,      // null or an empty array or object
  absent,    // null: for PEFT even an empty object switches it on
  init,      // null, true, false, or a name of peft_plain_inits
};

struct peft_field {
  std::string_view name;
  peft_rule rule;
  const char* why;  // of a refusal
};

// init_lora_weights of adapters over the base as it is. "eva" and "mica" look at the base or its inputs to begin with, and leave it alone.
inline constexpr std::string_view peft_plain_inits[] = {"gaussian", "orthogonal", "eva", "mica"};

// All fields of LoraConfig and its bases in PEFT 0.21.2, sorted.
inline constexpr peft_field peft_fields[] = {
    {"alora_invocation_tokens", peft_rule::absent, "activated LoRA applies the adapter to some rows only"},
    {"alpha_pattern", peft_rule::used, ""},
    {"arrow_config", peft_rule::absent, "Arrow routes between adapters"},
    {"auto_mapping", peft_rule::harmless, ""},
    {"base_model_name_or_path", peft_rule::used, ""},
    {"bias", peft_rule::used, ""},
    {"corda_config", peft_rule::harmless, ""},         // this and the next three only steer init_lora_weights, which is checked itself
    {"ensure_weight_tying", peft_rule::harmless, ""},  // the file holds both layers' tensors, one pair being the transpose of the other
    {"eva_config", peft_rule::harmless, ""},
    {"exclude_modules", peft_rule::harmless, ""},  // the tensors in the file say what is adapted, here and for layers_* and target_modules
    {"fan_in_fan_out", peft_rule::used, ""},
    {"inference_mode", peft_rule::harmless, ""},
    {"init_lora_weights", peft_rule::init,
     "only true, false, \"gaussian\", \"orthogonal\", \"eva\" and \"mica\" leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA "
     "take "
     "the adapter out of the base's weights, so that it needs a base of its own: save it with PEFT's "
     "path_initial_model_for_weight_conversion"},
    {"kasa_config", peft_rule::absent, "KaSA truncates the base weights and adds a diagonal between A and B"},
    {"layer_replication", peft_rule::list, "it changes which layers the model has"},
    {"layers_pattern", peft_rule::harmless, ""},
    {"layers_to_transform", peft_rule::harmless, ""},
    {"loftq_config", peft_rule::harmless, ""},
    {"lora_alpha", peft_rule::used, ""},
    {"lora_bias", peft_rule::used, ""},
    {"lora_dropout", peft_rule::harmless, ""},  // the identity at inference
    {"lora_ga_config", peft_rule::harmless, ""},
    {"megatron_config", peft_rule::absent, "Megatron's parallel layers hold parts of the weights"},
    {"megatron_core", peft_rule::harmless, ""},
    {"modules_to_save", peft_rule::used, ""},
    {"monteclora_config", peft_rule::absent, "MonteCLoRA samples around the weights"},
    {"peft_type", peft_rule::used, ""},
    {"peft_version", peft_rule::used, ""},
    {"qalora_group_size", peft_rule::harmless, ""},  // means something only with use_qalora
    {"r", peft_rule::used, ""},
    {"rank_pattern", peft_rule::used, ""},
    {"revision", peft_rule::used, ""},
    {"runtime_config", peft_rule::harmless, ""},  // PEFT deletes it on load
    {"target_modules", peft_rule::harmless, ""},
    {"target_parameters", peft_rule::used, ""},
    {"task_type", peft_rule::used, ""},
    {"trainable_token_indices", peft_rule::used, ""},
    {"use_bdlora", peft_rule::absent, "block-diagonal factors are not supported"},
    {"use_dora", peft_rule::used, ""},
    {"use_qalora", peft_rule::flag, "QALoRA pools the input before A"},
    {"use_rslora", peft_rule::used, ""},
    {"velora_config", peft_rule::absent, "VeLoRA is not supported"},
};
inline constexpr std::size_t peft_field_count = sizeof peft_fields / sizeof peft_fields[0];

}  // namespace lora::inline v0::detail

#endif
