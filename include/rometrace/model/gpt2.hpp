#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "rometrace/model/checkpoint.hpp"
#include "rometrace/model/config.hpp"

// Letters used for shapes everywhere: N noise draws, B rows of a batch, T tokens, L layers, D width, H heads,
// V vocabulary, F width of the MLP.

namespace rometrace {

/// A place in the forward pass whose value can be read and changed.
enum class Site {
  kEmbedding,  ///< token embedding, before the position embedding is added; once, with layer 0
  kAttn,       ///< output of a layer's attention, after c_proj, before it is added to the stream
  kMlp,        ///< output of a layer's MLP, likewise
  kState,      ///< output of a layer: the residual stream after both
};

/// Called at each site with the value there, [B, T, D]; what it writes into the value in place is what the rest of the
/// forward pass sees.
using Tap = std::function<void(Site site, std::int64_t layer, at::Tensor& value)>;

/// y = x W + b with W stored [in, out], as GPT-2's checkpoints do ("Conv1D").
class Conv1dImpl : public torch::nn::Module {
 public:
  Conv1dImpl(at::Tensor weight, at::Tensor bias);
  at::Tensor forward(const at::Tensor& x) const;  ///< [..., in] -> [..., out]

 private:
  at::Tensor weight_;  // [in, out]
  at::Tensor bias_;    // [out]
};

class LayerNormImpl : public torch::nn::Module {
 public:
  LayerNormImpl(at::Tensor weight, at::Tensor bias, double epsilon);
  at::Tensor forward(const at::Tensor& x) const;  ///< [..., D] -> [..., D]

 private:
  at::Tensor weight_;  // [D]
  at::Tensor bias_;    // [D]
  double epsilon_;
};

/// Causal self-attention over all positions of each row.
class AttentionImpl : public torch::nn::Module {
 public:
  AttentionImpl(const Gpt2Config& config, std::int64_t layer, std::shared_ptr<Conv1dImpl> c_attn,
                std::shared_ptr<Conv1dImpl> c_proj);
  at::Tensor forward(const at::Tensor& x) const;  ///< [B, T, D] -> [B, T, D]

 private:
  std::int64_t heads_;
  double scale_;  // of the scores, before the softmax
  std::shared_ptr<Conv1dImpl> c_attn_;
  std::shared_ptr<Conv1dImpl> c_proj_;
};

class MlpImpl : public torch::nn::Module {
 public:
  MlpImpl(Activation activation, std::shared_ptr<Conv1dImpl> c_fc, std::shared_ptr<Conv1dImpl> c_proj);
  at::Tensor forward(const at::Tensor& x) const;  ///< [..., D] -> [..., D]

 private:
  Activation activation_;
  std::shared_ptr<Conv1dImpl> c_fc_;    // D -> F
  std::shared_ptr<Conv1dImpl> c_proj_;  // F -> D
};

/// One layer: attention, then MLP, each read from a LayerNorm of the stream and added to it.
class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(std::int64_t layer, std::shared_ptr<LayerNormImpl> ln_1, std::shared_ptr<AttentionImpl> attn,
            std::shared_ptr<LayerNormImpl> ln_2, std::shared_ptr<MlpImpl> mlp);
  at::Tensor forward(at::Tensor x, const Tap& tap) const;  ///< [B, T, D] -> [B, T, D]

 private:
  std::int64_t layer_;
  std::shared_ptr<LayerNormImpl> ln_1_;
  std::shared_ptr<AttentionImpl> attn_;
  std::shared_ptr<LayerNormImpl> ln_2_;
  std::shared_ptr<MlpImpl> mlp_;
};

/// GPT-2 with its language-model head, for inference. Immutable once loaded; parameters carry the checkpoint's names
/// and may be views of the mapped file.
class Gpt2 : public torch::nn::Module {
 public:
  /// Loads a folder in Hugging Face layout (config.json and safetensors weights; names with or without the prefix
  /// "transformer."; buffers such as attn.bias are ignored). Throws Error.
  static std::shared_ptr<const Gpt2> load(const std::filesystem::path& folder, at::ScalarType dtype = at::kFloat,
                                          at::Device device = at::kCPU);

  const Gpt2Config& config() const { return config_; }
  at::ScalarType dtype() const { return wte_.scalar_type(); }
  at::Device device() const { return wte_.device(); }
  std::int64_t parameter_count() const;  ///< a tied head is counted once
  const std::vector<std::filesystem::path>& weight_files() const { return weight_files_; }

  /// Runs `rows` copies of one prompt. `token_ids` [T], 1 <= T <= n_positions, each below V (throws Error).
  /// Returns the last layer's state after the final LayerNorm, [B, T, D].
  at::Tensor forward(std::span<const std::int32_t> token_ids, std::int64_t rows, const Tap& tap = {}) const;

  /// Scores of every token of the vocabulary: [..., D] -> [..., V].
  at::Tensor logits(const at::Tensor& hidden) const;

  /// Token embeddings of `token_ids` [T] -> [T, D]. Throws Error for an id outside the vocabulary.
  at::Tensor embed(std::span<const std::int32_t> token_ids) const;

 private:
  Gpt2(Gpt2Config config, const Checkpoint& checkpoint, at::ScalarType dtype, at::Device device);

  Gpt2Config config_;
  std::vector<std::filesystem::path> weight_files_;
  at::Tensor wte_;      // [V, D]
  at::Tensor wpe_;      // [n_positions, D]
  at::Tensor lm_head_;  // [V, D]; wte_ itself unless the checkpoint holds another
  std::vector<std::shared_ptr<BlockImpl>> h_;
  std::shared_ptr<LayerNormImpl> ln_f_;
};

}  // namespace rometrace
