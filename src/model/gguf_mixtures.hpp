#pragma once

#include "model/gguf_keys.hpp"

// Architectures of GGUF files whose layers are mixtures of experts. A file does not say how a router weighs the experts
// that it has chosen: that is the architecture's, as llama.cpp has it.

namespace rometrace::gguf {

bool has_experts(Keys& keys);

/// Adds how many experts there are, and how many of them a token has.
void add_experts(Keys& keys, json& config);

json qwen2moe(Keys& keys, Tensors tensors);
json qwen3moe(Keys& keys, Tensors tensors);
json olmoe(Keys& keys, Tensors tensors);
json gpt_oss(Keys& keys, Tensors tensors);

}  // namespace rometrace::gguf
