#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "rometrace/model/checkpoint.hpp"
#include "rometrace/model/config.hpp"
#include "rometrace/model/linear.hpp"

// Letters used for shapes everywhere: N noise draws, B rows of a batch, T tokens, L layers, D width, H heads,
// V vocabulary, F width of the MLP.

namespace rometrace {

/// A place in the forward pass whose value can be read and changed.
enum class Site {
  kEmbedding,  ///< token embedding, before the position embedding is added; once, with layer 0
  kMixed,      ///< values mixed by a layer's attention, heads side by side, before c_proj
  kAttn,       ///< output of a layer's attention, after c_proj, before it is added to the stream
  kMlp,        ///< output of a layer's MLP, likewise
  kState,      ///< output of a layer: the residual stream after both
};

/// Called at each site with the value there, [B, T, D]; what it writes into the value in place is what the rest of the
/// forward pass sees.
using Tap = std::function<void(Site site, std::int64_t layer, at::Tensor& value)>;

/// Which keys each query of a layer sees: bool [T, T], queries by keys, within what is causal; undefined: all of that.
using AttentionMask = std::function<at::Tensor(std::int64_t layer)>;

/// A product as GPT-2's checkpoints hold it ("Conv1D"). Weight and bias are its parameters unless they get packed.
class Conv1dImpl : public torch::nn::Module, public Linear {
 public:
  Conv1dImpl(const at::Tensor& weight, const at::Tensor& bias, Options options);
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

/// Causal self-attention, in pieces for engines that mix rows of different runs, and as a whole.
class AttentionImpl : public torch::nn::Module {
 public:
  /// `c_attn` in two parts: queries (D columns), keys and values (2 D).
  AttentionImpl(const DecoderConfig& config, std::int64_t layer, std::shared_ptr<const Conv1dImpl> c_attn,
                std::shared_ptr<const Conv1dImpl> c_proj);

  at::Tensor queries(const at::Tensor& x) const;      ///< [..., D] -> [..., D], heads side by side
  at::Tensor keys_values(const at::Tensor& x) const;  ///< [..., D] -> [..., 2 D]: keys of all heads, then values
  at::Tensor project(const at::Tensor& mixed) const;  ///< values mixed by the softmax [..., D] -> output [..., D]

  std::int64_t heads() const { return heads_; }
  double scale() const { return scale_; }  ///< of the scores, before the softmax

  /// All positions of each row of a batch, to what project() takes: [B, T, D] -> [B, T, D]. `mask` as AttentionMask
  /// gives it.
  at::Tensor mix(const at::Tensor& x, const at::Tensor& mask = {}) const;

 private:
  std::int64_t heads_;
  double scale_;
  std::shared_ptr<const Conv1dImpl> c_attn_;
  std::shared_ptr<const Conv1dImpl> c_proj_;
};

class MlpImpl : public torch::nn::Module {
 public:
  MlpImpl(Activation activation, std::shared_ptr<const Conv1dImpl> c_fc, std::shared_ptr<const Conv1dImpl> c_proj);
  at::Tensor forward(const at::Tensor& x) const;  ///< [..., D] -> [..., D]

 private:
  Activation activation_;
  std::shared_ptr<const Conv1dImpl> c_fc_;    // D -> F
  std::shared_ptr<const Conv1dImpl> c_proj_;  // F -> D
};

/// One layer: attention, then MLP, each read from a LayerNorm of the stream and added to it.
class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(std::int64_t layer, std::shared_ptr<const LayerNormImpl> ln_1, std::shared_ptr<const AttentionImpl> attn,
            std::shared_ptr<const LayerNormImpl> ln_2, std::shared_ptr<const MlpImpl> mlp);

  const AttentionImpl& attn() const { return *attn_; }
  const MlpImpl& mlp() const { return *mlp_; }

  /// What attention and MLP read of the stream: [..., D] -> [..., D].
  at::Tensor ln_1(const at::Tensor& x) const { return ln_1_->forward(x); }
  /// What the MLP adds to a stream [..., D] that holds the attention's output already.
  at::Tensor mlp_output(const at::Tensor& x) const { return mlp_->forward(ln_2_->forward(x)); }

  at::Tensor forward(at::Tensor x, const Tap& tap, const AttentionMask& mask) const;  ///< [B, T, D] -> [B, T, D]

 private:
  std::int64_t layer_;
  std::shared_ptr<const LayerNormImpl> ln_1_;
  std::shared_ptr<const AttentionImpl> attn_;
  std::shared_ptr<const LayerNormImpl> ln_2_;
  std::shared_ptr<const MlpImpl> mlp_;
};

/// GPT-2 with its language-model head, for inference. Immutable once loaded. Products are computed in `dtype`; the
/// residual stream, LayerNorm, softmax and head in `stream_dtype`.
class Decoder : public torch::nn::Module {
 public:
  /// Loads a folder in Hugging Face layout (config.json and safetensors weights; names with or without the prefix
  /// "transformer."; buffers such as attn.bias are ignored). Weights may be views of the mapped file; those that are
  /// packed (see Linear) are copied when they are first used, and the file's pages then let go, so that both are never
  /// held whole. Throws Error, also for a dtype that the device cannot multiply in (float16 on a CPU, bfloat16 on an
  /// old one).
  static std::shared_ptr<const Decoder> load(const std::filesystem::path& folder, at::ScalarType dtype = at::kFloat,
                                             at::Device device = at::kCPU, Products products = Products::kFast);

  const DecoderConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }
  at::ScalarType stream_dtype() const { return wte_.scalar_type(); }  ///< float64 for float64, else float32
  at::Device device() const { return wte_.device(); }
  /// Whether autograd reaches through all products: always when loaded for it, else where none are packed.
  bool differentiable() const;
  std::int64_t parameter_count() const;  ///< a tied head is counted once
  const std::vector<std::filesystem::path>& weight_files() const { return weight_files_; }
  const BlockImpl& block(std::int64_t layer) const { return *h_.at(static_cast<std::size_t>(layer)); }

  /// Runs `rows` copies of one prompt. `token_ids` [T], 1 <= T <= n_positions, each below V (throws Error).
  /// Returns the last layer's state after the final LayerNorm, [B, T, D].
  at::Tensor forward(std::span<const std::int32_t> token_ids, std::int64_t rows, const Tap& tap = {},
                     const AttentionMask& mask = {}) const;

  /// Runs B prompts of one length T side by side: `token_ids` [B, T], row by row; B and T at least 1, T <= n_positions,
  /// ids below V (throws Error). Returns the last position's state after the final LayerNorm, [B, D]: what `logits`
  /// turns into the scores of the next token.
  at::Tensor forward_prompts(std::span<const std::int32_t> token_ids, std::int64_t T, const Tap& tap = {}) const;

  /// Token embeddings of `token_ids` [T] -> [T, D]. Throws Error for an id outside the vocabulary.
  at::Tensor embed(std::span<const std::int32_t> token_ids) const;
  /// Position embeddings of the first T positions, [T, D].
  at::Tensor position_embeddings(std::int64_t T) const { return wpe_.slice(0, 0, T); }
  /// The final LayerNorm: [..., D] -> [..., D].
  at::Tensor ln_f(const at::Tensor& x) const { return ln_f_->forward(x); }

  /// Scores of every token of the vocabulary: hidden, after ln_f, [..., D] -> [..., V].
  at::Tensor logits(const at::Tensor& hidden) const;
  /// The head, [D, V], in parts that are slices of the vocabulary.
  const Linear& head() const { return *head_; }

 private:
  Decoder(DecoderConfig config, std::shared_ptr<const Checkpoint> checkpoint, at::ScalarType dtype, at::Device device,
          Products products);

  void refuse_length(std::int64_t T) const;  // throws Error unless 1 <= T <= n_positions
  // Token embeddings [B, T, D] -> what ln_f reads.
  at::Tensor run_layers(at::Tensor x, const Tap& tap, const AttentionMask& mask) const;

  DecoderConfig config_;
  at::ScalarType dtype_;
  Products products_;
  std::vector<std::filesystem::path> weight_files_;
  at::Tensor wte_;  // [V, D]
  at::Tensor wpe_;  // [n_positions, D]
  bool tied_ = true;
  std::shared_ptr<const Linear> head_;
  std::vector<std::shared_ptr<BlockImpl>> h_;
  std::shared_ptr<const LayerNormImpl> ln_f_;
};

}  // namespace rometrace
