#include "rometrace/model/gpt2.hpp"

#include <ATen/ops/embedding.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

at::Tensor activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kGeluErf:
      return at::gelu(x);
    case Activation::kGeluQuick:
      return x * at::sigmoid(1.702 * x);
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kTanh:
      return at::tanh(x);
    case Activation::kSigmoid:
      return at::sigmoid(x);
  }
  TORCH_INTERNAL_ASSERT(false, "activation not handled");
}

// Reads the parameters of one checkpoint in one dtype, onto one device.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, at::ScalarType dtype, at::Device device)
      : checkpoint_(checkpoint), dtype_(dtype), device_(device), prefix_(find_prefix(checkpoint)) {}

  at::Tensor operator()(const std::string& name, const std::vector<std::int64_t>& shape) const {
    return get(prefix_ + name, shape);
  }

  // The token embedding and the head, each [V, D]. Where the config ties them, a file may hold either or both; both
  // with different values are kept apart, as transformers 5 does.
  std::pair<at::Tensor, at::Tensor> wte_and_head(const std::vector<std::int64_t>& shape, bool tied) const {
    const std::string wte_name = prefix_ + "wte.weight", head_name = "lm_head.weight";  // the head: never a prefix
    if (!tied) return {get(wte_name, shape), get(head_name, shape)};
    if (!checkpoint_.contains(head_name)) {
      const auto wte = get(wte_name, shape);
      return {wte, wte};
    }
    const auto head = get(head_name, shape);
    if (!checkpoint_.contains(wte_name)) return {head, head};
    const auto wte = get(wte_name, shape);
    return {wte, at::equal(wte, head) ? wte : head};
  }

  std::shared_ptr<Conv1dImpl> conv1d(const std::string& name, std::int64_t in, std::int64_t out) const {
    return std::make_shared<Conv1dImpl>((*this)(name + ".weight", {in, out}), (*this)(name + ".bias", {out}));
  }

  std::shared_ptr<LayerNormImpl> layer_norm(const std::string& name, std::int64_t width, double epsilon) const {
    return std::make_shared<LayerNormImpl>((*this)(name + ".weight", {width}), (*this)(name + ".bias", {width}),
                                           epsilon);
  }

 private:
  // GPT2LMHeadModel writes "transformer.wte.weight", GPT2Model (and the first GPT-2 checkpoints) "wte.weight".
  static std::string find_prefix(const Checkpoint& checkpoint) {
    const auto names = checkpoint.names();
    const auto has_prefix = [](const std::string& name) { return name.starts_with("transformer."); };
    return std::any_of(names.begin(), names.end(), has_prefix) ? "transformer." : "";
  }

  at::Tensor get(const std::string& name, const std::vector<std::int64_t>& shape) const {
    return checkpoint_.tensor(name, shape, dtype_).to(device_);
  }

  const Checkpoint& checkpoint_;
  at::ScalarType dtype_;
  at::Device device_;
  std::string prefix_;
};

}  // namespace

Conv1dImpl::Conv1dImpl(at::Tensor weight, at::Tensor bias)
    : weight_(register_parameter("weight", std::move(weight), /*requires_grad=*/false)),
      bias_(register_parameter("bias", std::move(bias), /*requires_grad=*/false)) {}

at::Tensor Conv1dImpl::forward(const at::Tensor& x) const {
  return at::matmul(x, weight_).add_(bias_);
}

LayerNormImpl::LayerNormImpl(at::Tensor weight, at::Tensor bias, double epsilon)
    : weight_(register_parameter("weight", std::move(weight), /*requires_grad=*/false)),
      bias_(register_parameter("bias", std::move(bias), /*requires_grad=*/false)),
      epsilon_(epsilon) {}

at::Tensor LayerNormImpl::forward(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight_, bias_, epsilon_);
}

AttentionImpl::AttentionImpl(const Gpt2Config& config, std::int64_t layer, std::shared_ptr<Conv1dImpl> c_attn,
                             std::shared_ptr<Conv1dImpl> c_proj)
    : heads_(config.n_head),
      scale_(config.scale_attn_weights ? 1 / std::sqrt(static_cast<double>(config.n_embd / config.n_head)) : 1),
      c_attn_(register_module("c_attn", std::move(c_attn))),
      c_proj_(register_module("c_proj", std::move(c_proj))) {
  if (config.scale_attn_by_inverse_layer_idx) scale_ /= static_cast<double>(layer + 1);
}

at::Tensor AttentionImpl::forward(const at::Tensor& x) const {
  const auto B = x.size(0), T = x.size(1), D = x.size(2);
  const auto qkv = c_attn_->forward(x).view({B, T, 3, heads_, D / heads_}).permute({2, 0, 3, 1, 4});
  const auto mixed = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], /*attn_mask=*/{}, /*dropout_p=*/0,
                                                      /*is_causal=*/true, scale_);  // [B, H, T, D / H]
  return c_proj_->forward(mixed.transpose(1, 2).reshape({B, T, D}));
}

MlpImpl::MlpImpl(Activation activation, std::shared_ptr<Conv1dImpl> c_fc, std::shared_ptr<Conv1dImpl> c_proj)
    : activation_(activation),
      c_fc_(register_module("c_fc", std::move(c_fc))),
      c_proj_(register_module("c_proj", std::move(c_proj))) {}

at::Tensor MlpImpl::forward(const at::Tensor& x) const {
  return c_proj_->forward(activate(c_fc_->forward(x), activation_));
}

BlockImpl::BlockImpl(std::int64_t layer, std::shared_ptr<LayerNormImpl> ln_1, std::shared_ptr<AttentionImpl> attn,
                     std::shared_ptr<LayerNormImpl> ln_2, std::shared_ptr<MlpImpl> mlp)
    : layer_(layer),
      ln_1_(register_module("ln_1", std::move(ln_1))),
      attn_(register_module("attn", std::move(attn))),
      ln_2_(register_module("ln_2", std::move(ln_2))),
      mlp_(register_module("mlp", std::move(mlp))) {}

at::Tensor BlockImpl::forward(at::Tensor x, const Tap& tap) const {
  auto attn = attn_->forward(ln_1_->forward(x));
  if (tap) tap(Site::kAttn, layer_, attn);
  x = x + attn;

  auto mlp = mlp_->forward(ln_2_->forward(x));
  if (tap) tap(Site::kMlp, layer_, mlp);
  x = x + mlp;

  if (tap) tap(Site::kState, layer_, x);
  return x;
}

std::shared_ptr<const Gpt2> Gpt2::load(const std::filesystem::path& folder, at::ScalarType dtype, at::Device device) {
  auto config = read_config(folder / "config.json");
  return std::shared_ptr<const Gpt2>(new Gpt2(std::move(config), Checkpoint::open(folder), dtype, device));
}

Gpt2::Gpt2(Gpt2Config config, const Checkpoint& checkpoint, at::ScalarType dtype, at::Device device)
    : config_(std::move(config)), weight_files_(checkpoint.files()) {
  const auto D = config_.n_embd, V = config_.vocab_size, F = config_.n_inner;
  const auto epsilon = config_.layer_norm_epsilon;
  const Loader load(checkpoint, dtype, device);

  auto transformer = std::make_shared<torch::nn::Module>("transformer");
  const auto keep = [](const std::shared_ptr<torch::nn::Module>& module, const std::string& name, at::Tensor tensor) {
    return module->register_parameter(name, std::move(tensor), /*requires_grad=*/false);
  };
  auto wte = std::make_shared<torch::nn::Module>("wte");
  auto wpe = std::make_shared<torch::nn::Module>("wpe");
  const auto [embedding, head] = load.wte_and_head({V, D}, config_.tie_word_embeddings);
  wte_ = keep(wte, "weight", embedding);
  wpe_ = keep(wpe, "weight", load("wpe.weight", {config_.n_positions, D}));
  transformer->register_module("wte", wte);
  transformer->register_module("wpe", wpe);

  auto blocks = std::make_shared<torch::nn::Module>("h");
  for (std::int64_t layer = 0; layer < config_.n_layer; ++layer) {
    const std::string at = "h." + std::to_string(layer) + ".";
    auto attn = std::make_shared<AttentionImpl>(config_, layer, load.conv1d(at + "attn.c_attn", D, 3 * D),
                                                load.conv1d(at + "attn.c_proj", D, D));
    auto mlp = std::make_shared<MlpImpl>(config_.activation, load.conv1d(at + "mlp.c_fc", D, F),
                                         load.conv1d(at + "mlp.c_proj", F, D));
    h_.push_back(std::make_shared<BlockImpl>(layer, load.layer_norm(at + "ln_1", D, epsilon), std::move(attn),
                                             load.layer_norm(at + "ln_2", D, epsilon), std::move(mlp)));
    blocks->register_module(std::to_string(layer), h_.back());
  }
  transformer->register_module("h", blocks);
  ln_f_ = transformer->register_module("ln_f", load.layer_norm("ln_f", D, epsilon));
  register_module("transformer", transformer);

  lm_head_ = head;
  if (!head.is_same(embedding)) {
    auto lm_head = std::make_shared<torch::nn::Module>("lm_head");
    keep(lm_head, "weight", head);
    register_module("lm_head", lm_head);
  }
}

std::int64_t Gpt2::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& parameter : parameters()) count += parameter.numel();
  return count;
}

at::Tensor Gpt2::embed(std::span<const std::int32_t> token_ids) const {
  for (const auto id : token_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      throw Error("token id " + std::to_string(id) + " is outside the model's vocabulary of " +
                  std::to_string(config_.vocab_size) + "; the tokeniser does not belong to this model");
    }
  }
  const std::vector<std::int64_t> ids(token_ids.begin(), token_ids.end());
  return at::embedding(wte_, at::tensor(ids).to(wte_.device()));
}

at::Tensor Gpt2::forward(std::span<const std::int32_t> token_ids, std::int64_t rows, const Tap& tap) const {
  const auto T = static_cast<std::int64_t>(token_ids.size());
  if (T < 1 || T > config_.n_positions) {
    throw Error("the prompt has " + std::to_string(T) + " tokens; this model takes 1 to " +
                std::to_string(config_.n_positions));
  }
  auto x = embed(token_ids).unsqueeze(0).repeat({rows, 1, 1});  // [B, T, D]
  if (tap) tap(Site::kEmbedding, 0, x);
  x = x + wpe_.slice(0, 0, T);
  for (const auto& block : h_) x = block->forward(std::move(x), tap);
  return ln_f_->forward(x);
}

at::Tensor Gpt2::logits(const at::Tensor& hidden) const {
  return at::matmul(hidden, lm_head_.t());
}

}  // namespace rometrace
