#include "rometrace/model/decoder.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

// libtorch registers modules that can be changed; here nobody does.
template <class Module>
std::shared_ptr<const Module> keep(torch::nn::Module& parent, const std::string& name,
                                   std::shared_ptr<const Module> module) {
  parent.register_module(name, std::const_pointer_cast<Module>(module));
  return module;
}

// Columns of the head that are multiplied at once: it bounds the logits that are held.
constexpr std::int64_t kVocabularySlice = 8192;

// Reads the parameters of one checkpoint onto one device.
class Loader {
 public:
  Loader(std::shared_ptr<const Checkpoint> checkpoint, at::ScalarType dtype, at::Device device, Products products)
      : checkpoint_(std::move(checkpoint)),
        dtype_(dtype),
        stream_dtype_(dtype == at::kDouble ? at::kDouble : at::kFloat),
        device_(device),
        products_(products),
        prefix_(find_prefix(*checkpoint_)) {}

  // What is added to the stream, or normalises it, in the stream's dtype.
  at::Tensor operator()(const std::string& name, const std::vector<std::int64_t>& shape) const {
    return get(prefix_ + name, shape, stream_dtype_);
  }

  // The token embedding and the head, each [V, D]. Where the config ties them, a file may hold either or both; both
  // with different values are kept apart, as transformers 5 does.
  std::pair<at::Tensor, at::Tensor> wte_and_head(const std::vector<std::int64_t>& shape, bool tied) const {
    if (!tied) return {get(wte_name(), shape, stream_dtype_), get(kHead, shape, stream_dtype_)};
    if (!checkpoint_->contains(kHead)) {
      const auto wte = get(wte_name(), shape, stream_dtype_);
      return {wte, wte};
    }
    const auto head = get(kHead, shape, stream_dtype_);
    if (!checkpoint_->contains(wte_name())) return {head, head};
    const auto wte = get(wte_name(), shape, stream_dtype_);
    return {wte, at::equal(wte, head) ? wte : head};
  }

  // `weight` [V, D], its columns cut into slices of the vocabulary. Of the embeddings, which may be the same tensor,
  // only a few rows will be read.
  std::shared_ptr<const Linear> head(const at::Tensor& weight, std::vector<std::int64_t> slices) const {
    const auto release = [checkpoint = checkpoint_, names = std::vector<std::string>{wte_name(), kHead}] {
      for (const auto& name : names) checkpoint->release(name);
    };
    return std::make_shared<const Linear>(weight.t(), at::Tensor(),
                                          Linear::Options{std::move(slices), scratch_, release, products_});
  }

  std::shared_ptr<Conv1dImpl> conv1d(const std::string& name, std::int64_t in, std::int64_t out,
                                     std::vector<std::int64_t> widths = {}) const {
    const auto weight = prefix_ + name + ".weight";
    const auto release = [checkpoint = checkpoint_, weight] { checkpoint->release(weight); };
    return std::make_shared<Conv1dImpl>(get(weight, {in, out}, dtype_), get(prefix_ + name + ".bias", {out}, dtype_),
                                        Linear::Options{std::move(widths), scratch_, release, products_});
  }

  std::shared_ptr<LayerNormImpl> layer_norm(const std::string& name, std::int64_t width, double epsilon) const {
    return std::make_shared<LayerNormImpl>((*this)(name + ".weight", {width}), (*this)(name + ".bias", {width}),
                                           epsilon);
  }

 private:
  static constexpr const char* kHead = "lm_head.weight";  // never with a prefix
  std::string wte_name() const { return prefix_ + "wte.weight"; }

  // GPT2LMHeadModel writes "transformer.wte.weight", GPT2Model (and the first GPT-2 checkpoints) "wte.weight".
  static std::string find_prefix(const Checkpoint& checkpoint) {
    const auto names = checkpoint.names();
    const auto has_prefix = [](const std::string& name) { return name.starts_with("transformer."); };
    return std::any_of(names.begin(), names.end(), has_prefix) ? "transformer." : "";
  }

  at::Tensor get(const std::string& name, const std::vector<std::int64_t>& shape, at::ScalarType dtype) const {
    const auto tensor = checkpoint_->tensor(name, shape, dtype);
    if (device_.is_cpu()) return tensor;
    auto copy = tensor.to(device_);
    checkpoint_->release(name);
    return copy;
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  at::ScalarType dtype_;
  at::ScalarType stream_dtype_;
  at::Device device_;
  Products products_;
  std::string prefix_;
  std::shared_ptr<PackingScratch> scratch_ = std::make_shared<PackingScratch>();
};

void refuse_unless_it_multiplies(at::ScalarType dtype, at::Device device) {
  if (!device.is_cpu()) return;
  if (dtype == at::kHalf) throw Error("float16 is for GPUs (--device cuda); a CPU takes float32, float64 or bfloat16");
  if (dtype == at::kBFloat16 && !Linear::packs(dtype, device)) {
    throw Error("this CPU does not multiply in bfloat16 (it has no AVX-512); expected float32 or float64");
  }
}

}  // namespace

Conv1dImpl::Conv1dImpl(const at::Tensor& weight, const at::Tensor& bias, Options options)
    : Linear(weight, bias, std::move(options)) {
  if (packed()) return;
  register_parameter("weight", weight, /*requires_grad=*/false);
  register_parameter("bias", bias, /*requires_grad=*/false);
}

LayerNormImpl::LayerNormImpl(at::Tensor weight, at::Tensor bias, double epsilon)
    : weight_(register_parameter("weight", std::move(weight), /*requires_grad=*/false)),
      bias_(register_parameter("bias", std::move(bias), /*requires_grad=*/false)),
      epsilon_(epsilon) {}

at::Tensor LayerNormImpl::forward(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight_, bias_, epsilon_);
}

AttentionImpl::AttentionImpl(const DecoderConfig& config, std::int64_t layer, std::shared_ptr<const Conv1dImpl> c_attn,
                             std::shared_ptr<const Conv1dImpl> c_proj)
    : heads_(config.heads),
      scale_(config.scale_attn_weights ? 1 / std::sqrt(static_cast<double>(config.width / config.heads)) : 1),
      c_attn_(keep(*this, "c_attn", std::move(c_attn))),
      c_proj_(keep(*this, "c_proj", std::move(c_proj))) {
  if (config.scale_attn_by_inverse_layer_idx) scale_ /= static_cast<double>(layer + 1);
}

at::Tensor AttentionImpl::queries(const at::Tensor& x) const {
  return c_attn_->product(x, 0);
}

at::Tensor AttentionImpl::keys_values(const at::Tensor& x) const {
  return c_attn_->product(x, 1);
}

at::Tensor AttentionImpl::project(const at::Tensor& mixed) const {
  return c_proj_->product(mixed);
}

at::Tensor AttentionImpl::mix(const at::Tensor& x, const at::Tensor& mask) const {
  const auto B = x.size(0), T = x.size(1), D = x.size(2);
  const auto by_head = [&](const at::Tensor& rows) {  // in the stream's dtype, as the softmax is
    return rows.to(x.scalar_type()).view({B, T, heads_, D / heads_}).transpose(1, 2);
  };
  const auto kv = keys_values(x).view({B, T, 2, D});
  std::optional<at::Tensor> seen;
  if (mask.defined()) seen = mask.tril();
  const auto mixed = at::scaled_dot_product_attention(by_head(queries(x)), by_head(kv.select(2, 0)),
                                                      by_head(kv.select(2, 1)), seen, /*dropout_p=*/0,
                                                      /*is_causal=*/!seen, scale_);  // [B, H, T, D / H]
  return mixed.transpose(1, 2).reshape({B, T, D});
}

MlpImpl::MlpImpl(Activation activation, std::shared_ptr<const Conv1dImpl> c_fc,
                 std::shared_ptr<const Conv1dImpl> c_proj)
    : activation_(activation),
      c_fc_(keep(*this, "c_fc", std::move(c_fc))),
      c_proj_(keep(*this, "c_proj", std::move(c_proj))) {}

at::Tensor MlpImpl::forward(const at::Tensor& x) const {
  return c_proj_->product(c_fc_->activated_product(x, activation_));
}

BlockImpl::BlockImpl(std::int64_t layer, std::shared_ptr<const LayerNormImpl> ln_1,
                     std::shared_ptr<const AttentionImpl> attn, std::shared_ptr<const LayerNormImpl> ln_2,
                     std::shared_ptr<const MlpImpl> mlp)
    : layer_(layer),
      ln_1_(keep(*this, "ln_1", std::move(ln_1))),
      attn_(keep(*this, "attn", std::move(attn))),
      ln_2_(keep(*this, "ln_2", std::move(ln_2))),
      mlp_(keep(*this, "mlp", std::move(mlp))) {}

at::Tensor BlockImpl::forward(at::Tensor x, const Tap& tap, const AttentionMask& mask) const {
  auto mixed = attn_->mix(ln_1(x), mask ? mask(layer_) : at::Tensor());
  if (tap) tap(Site::kMixed, layer_, mixed);
  auto attn = attn_->project(mixed).to(x.scalar_type());
  if (tap) tap(Site::kAttn, layer_, attn);
  x = x + attn;

  auto mlp = mlp_output(x).to(x.scalar_type());
  if (tap) tap(Site::kMlp, layer_, mlp);
  x = x + mlp;

  if (tap) tap(Site::kState, layer_, x);
  return x;
}

std::shared_ptr<const Decoder> Decoder::load(const std::filesystem::path& folder, at::ScalarType dtype,
                                             at::Device device, Products products) {
  refuse_unless_it_multiplies(dtype, device);
  auto config = read_config(folder / "config.json");
  auto checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open(folder));
  return std::shared_ptr<const Decoder>(new Decoder(std::move(config), std::move(checkpoint), dtype, device, products));
}

Decoder::Decoder(DecoderConfig config, std::shared_ptr<const Checkpoint> checkpoint, at::ScalarType dtype,
                 at::Device device, Products products)
    : config_(std::move(config)), dtype_(dtype), products_(products), weight_files_(checkpoint->files()) {
  const auto D = config_.width, V = config_.vocab_size, F = config_.mlp_width;
  const auto epsilon = config_.layer_norm_epsilon;
  const Loader load(std::move(checkpoint), dtype, device, products);

  auto transformer = std::make_shared<torch::nn::Module>("transformer");
  const auto parameter = [](torch::nn::Module& parent, const std::string& name, at::Tensor tensor) {
    auto module = std::make_shared<torch::nn::Module>(name);
    parent.register_module(name, module);
    return module->register_parameter("weight", std::move(tensor), /*requires_grad=*/false);
  };
  const auto [embedding, head] = load.wte_and_head({V, D}, config_.tie_word_embeddings);
  wte_ = parameter(*transformer, "wte", embedding);
  wpe_ = parameter(*transformer, "wpe", load("wpe.weight", {config_.max_positions, D}));

  auto blocks = std::make_shared<torch::nn::Module>("h");
  for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
    const std::string at = "h." + std::to_string(layer) + ".";
    auto attn = std::make_shared<AttentionImpl>(config_, layer, load.conv1d(at + "attn.c_attn", D, 3 * D, {D, 2 * D}),
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

  std::vector<std::int64_t> slices(static_cast<std::size_t>(V / kVocabularySlice), kVocabularySlice);
  if (V % kVocabularySlice != 0) slices.push_back(V % kVocabularySlice);
  head_ = load.head(head, std::move(slices));
  tied_ = head.is_same(embedding);
  if (!tied_ && !head_->packed()) parameter(*this, "lm_head", head);
}

bool Decoder::differentiable() const {
  return products_ == Products::kDifferentiable || !(Linear::packs(dtype_, device()) || head_->packed());
}

std::int64_t Decoder::parameter_count() const {
  const auto D = config_.width, F = config_.mlp_width;
  const auto product = [](std::int64_t in, std::int64_t out) { return in * out + out; };
  const auto layer = product(D, 3 * D) + product(D, D) + product(D, F) + product(F, D) + 4 * D;
  return (tied_ ? 1 : 2) * config_.vocab_size * D + config_.max_positions * D + config_.layers * layer + 2 * D;
}

at::Tensor Decoder::embed(std::span<const std::int32_t> token_ids) const {
  for (const auto id : token_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      throw Error("token id " + std::to_string(id) + " is outside the model's vocabulary of " +
                  std::to_string(config_.vocab_size) + "; the tokeniser does not belong to this model");
    }
  }
  const std::vector<std::int64_t> ids(token_ids.begin(), token_ids.end());
  return at::embedding(wte_, at::tensor(ids).to(wte_.device()));
}

void Decoder::refuse_length(std::int64_t T) const {
  if (T >= 1 && T <= config_.max_positions) return;
  throw Error("the prompt has " + std::to_string(T) + " tokens; this model takes 1 to " +
              std::to_string(config_.max_positions));
}

at::Tensor Decoder::run_layers(at::Tensor x, const Tap& tap, const AttentionMask& mask) const {
  if (tap) tap(Site::kEmbedding, 0, x);
  x = x + position_embeddings(x.size(1));
  for (const auto& block : h_) x = block->forward(std::move(x), tap, mask);
  return x;
}

at::Tensor Decoder::forward(std::span<const std::int32_t> token_ids, std::int64_t rows, const Tap& tap,
                            const AttentionMask& mask) const {
  refuse_length(static_cast<std::int64_t>(token_ids.size()));
  return ln_f(run_layers(embed(token_ids).unsqueeze(0).repeat({rows, 1, 1}), tap, mask));
}

at::Tensor Decoder::forward_prompts(std::span<const std::int32_t> token_ids, std::int64_t T, const Tap& tap) const {
  refuse_length(T);
  if (token_ids.empty() || static_cast<std::int64_t>(token_ids.size()) % T != 0) {
    throw Error(std::to_string(token_ids.size()) + " token ids are no prompts of " + std::to_string(T) + " tokens");
  }
  const auto x = run_layers(embed(token_ids).view({-1, T, config_.width}), tap, {});
  return ln_f(x.select(1, T - 1));
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  std::vector<at::Tensor> slices;
  for (std::size_t part = 0; part < head_->parts(); ++part) slices.push_back(head_->product(hidden, part));
  return at::cat(slices, -1);
}

}  // namespace rometrace
