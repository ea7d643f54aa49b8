#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "files.hpp"

namespace rometrace::testing {

/// A GPT-2 of any shape with weights large enough that noise changes its answers.
struct RandomModel {
  std::int64_t layers = 2, width = 8, heads = 2, inner = 32, vocab = 11, positions = 16;
  std::string activation = "gelu_new";
  bool scale_by_layer = false;
  bool tied = true;
};

/// Writes config.json and model.safetensors (F32) into the folder.
inline void write_random_model(const TemporaryFolder& folder, const RandomModel& model, std::mt19937& engine) {
  using nlohmann::json;
  folder.write("config.json", json({{"model_type", "gpt2"},
                                    {"architectures", {"GPT2LMHeadModel"}},
                                    {"n_layer", model.layers},
                                    {"n_embd", model.width},
                                    {"n_head", model.heads},
                                    {"n_inner", model.inner},
                                    {"vocab_size", model.vocab},
                                    {"n_positions", model.positions},
                                    {"activation_function", model.activation},
                                    {"scale_attn_by_inverse_layer_idx", model.scale_by_layer},
                                    {"tie_word_embeddings", model.tied}})
                                  .dump());
  std::vector<float> data;
  json header;
  const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape, double mean, double deviation) {
    std::int64_t count = 1;
    for (const auto size : shape) count *= size;
    const auto begin = data.size() * sizeof(float);
    std::normal_distribution<double> draw(mean, deviation);
    for (std::int64_t i = 0; i < count; ++i) data.push_back(static_cast<float>(draw(engine)));
    header["transformer." + name] = {
        {"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size() * sizeof(float)}}};
  };
  const auto D = model.width, F = model.inner;
  const auto matrix = [&](const std::string& name, std::int64_t in, std::int64_t out) {
    add(name + ".weight", {in, out}, 0, 1.2 / std::sqrt(static_cast<double>(in)));
    add(name + ".bias", {out}, 0, 0.1);
  };
  const auto norm = [&](const std::string& name) {
    add(name + ".weight", {D}, 1, 0.1);
    add(name + ".bias", {D}, 0, 0.1);
  };
  add("wte.weight", {model.vocab, D}, 0, 0.7);
  add("wpe.weight", {model.positions, D}, 0, 0.3);
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    const auto at = "h." + std::to_string(layer) + ".";
    norm(at + "ln_1");
    matrix(at + "attn.c_attn", D, 3 * D);
    matrix(at + "attn.c_proj", D, D);
    norm(at + "ln_2");
    matrix(at + "mlp.c_fc", D, F);
    matrix(at + "mlp.c_proj", F, D);
  }
  norm("ln_f");
  if (!model.tied) {
    add("lm_head.weight", {model.vocab, D}, 0, 0.7);
    header["lm_head.weight"] = header["transformer.lm_head.weight"];
    header.erase("transformer.lm_head.weight");
  }
  folder.write("model.safetensors", safetensors_bytes(header.dump(), bytes_of(data)));
}

}  // namespace rometrace::testing
