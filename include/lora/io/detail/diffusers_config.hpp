// SPDX-License-Identifier: Apache-2.0
//
// The configuration that diffusers writes into __metadata__ under "lora_adapter_metadata": one flat JSON object whose keys are
// "COMPONENT.FIELD", where the fields of each component are those of PEFT's LoraConfig. Each component is read by the reader of
// adapter_config.json, so that the same fields are used, harmless and refused. Not API.
#ifndef LORA_IO_DETAIL_DIFFUSERS_CONFIG_HPP
#define LORA_IO_DETAIL_DIFFUSERS_CONFIG_HPP

#include <lora/io/peft.hpp>

#include <memory>
#include <string>
#include <vector>

namespace lora::inline v0::detail {

class diffusers_configs {
 public:
  struct component {
    component(std::string component_name, const std::string& file)
        : name(std::move(component_name)), label(file + ", lora_adapter_metadata, " + name), reader(label, config) {}

    std::string name;
    std::string label;  // stands for the path in messages
    io::peft_config config;
    peft_config_reader reader;
    std::unique_ptr<peft_patterns<index_t>> ranks;
    std::unique_ptr<peft_patterns<double>> alphas;
  };

  explicit diffusers_configs(std::string file) : file_(std::move(file)) {}

  /** @throws io_error naming the file, the component and the field. */
  void parse(std::string_view json) {
    if (json.size() > peft_config_max_bytes)
      raise<io_error>(text() << quote(file_) << ": lora_adapter_metadata has " << json.size()
                             << " bytes; a configuration of more than 16 MiB is not read");
    splitter events(*this);
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(json.data()), json.size());
    if (const json_failure f = parse_json(bytes, events))
      raise<io_error>(text() << quote(file_) << ": lora_adapter_metadata " << f.sentence << " (its byte " << f.position << ")");
    for (const auto& c : components) {
      c->reader.close(true);
      c->reader.finish();
      const io::peft_config& p = c->config;
      if (const char* field = p.use_dora                    ? "use_dora"
                              : p.lora_bias                 ? "lora_bias"
                              : p.trains_bias               ? "bias"
                              : !p.modules_to_save.empty()  ? "modules_to_save"
                              : p.fan_in_fan_out            ? "fan_in_fan_out"
                              : !p.trainable_tokens.empty() ? "trainable_token_indices"
                                                            : nullptr)
        raise<io_error>(text() << quote(c->label) << ": the field " << quote(std::string_view(field))
                               << " is set, which is supported in folders of PEFT only");
      c->ranks = std::make_unique<peft_patterns<index_t>>(c->config.rank_pattern, "rank_pattern", c->label);
      c->alphas = std::make_unique<peft_patterns<double>>(c->config.alpha_pattern, "alpha_pattern", c->label);
    }
  }

  [[nodiscard]] component* find(std::string_view name) const noexcept {
    for (const auto& c : components)
      if (c->name == name) return c.get();
    return nullptr;
  }

  std::vector<std::unique_ptr<component>> components;
  std::uint64_t steps = 0;  // of matching, all components together

 private:
  /** Hands each field to the reader of its component. */
  class splitter final : public json_events {
   public:
    explicit splitter(diffusers_configs& all) : all_(all) {}

    void null() override { reader().null(); }
    void boolean(bool v) override { reader().boolean(v); }
    void natural(std::uint64_t v) override { reader().natural(v); }
    void number(double v, bool integer) override { reader().number(v, integer); }
    void string(std::string& v) override { reader().string(v); }
    void key(std::string& name) override {
      if (depth_ != 1) return reader().key(name);
      const std::size_t dot = name.find('.');
      if (dot == std::string::npos || dot == 0)
        raise<io_error>(text() << quote(all_.file_) << ": lora_adapter_metadata: the key " << quote(name) << " names no component");
      const std::string component_name = name.substr(0, dot);
      at_ = all_.find(component_name);
      if (at_ == nullptr) {
        if (all_.components.size() == 16)
          raise<io_error>(text() << quote(all_.file_) << ": lora_adapter_metadata has more than 16 components");
        all_.components.push_back(std::make_unique<component>(component_name, all_.file_));
        at_ = all_.components.back().get();
        reader().open(true);
      }
      std::string field = name.substr(dot + 1);
      reader().key(field);
    }
    void open(bool object) override {
      if (depth_++ == 0) {
        if (!object) raise<io_error>(text() << quote(all_.file_) << ": lora_adapter_metadata is a JSON array, not an object");
        return;
      }
      reader().open(object);
    }
    void close(bool object) override {
      if (--depth_ != 0) reader().close(object);
    }

   private:
    [[nodiscard]] peft_config_reader& reader() {
      if (at_ == nullptr) raise<io_error>(text() << quote(all_.file_) << ": lora_adapter_metadata is not a JSON object");
      at_->reader.follow(*this);
      return at_->reader;
    }

    diffusers_configs& all_;
    component* at_ = nullptr;
    std::size_t depth_ = 0;
  };

  std::string file_;
};

}  // namespace lora::inline v0::detail

#endif
