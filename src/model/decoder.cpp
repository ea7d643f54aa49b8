#include "rometrace/model/decoder.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "model/alibi.hpp"
#include "model/layer_stream.hpp"
#include "model/rotary.hpp"
#include "model/tensor_names.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/work/workers.hpp"

namespace rometrace {
namespace {

// Columns of the head that are multiplied at once: it bounds the logits that are held.
constexpr std::int64_t kVocabularySlice = 8192;

// What second copies of weights may take, in bytes: half a gigabyte, and of larger models what keeps the peak of an
// edit below 1.75 times the weights, with some 400 MB for the rest of the program.
std::int64_t most_transposes(std::int64_t weights) {
  constexpr std::int64_t kAlways = std::int64_t{1} << 29, kRest = 400'000'000;
  return std::max(kAlways, weights / 10 * 7 - kRest);
}

void refuse_unless_it_multiplies(const LoadOptions& options) {
  if (!options.device.is_cpu()) return;
  if (options.dtype == at::kHalf)
    throw Error("float16 is for GPUs (--device cuda); a CPU takes float32, float64 or bfloat16");
  if (options.dtype == at::kBFloat16 && !options.processor.multiplies_bfloat16) {
    throw Error("this CPU does not multiply in bfloat16 (it has no AVX-512); expected float32 or float64");
  }
}

at::Tensor capped(const at::Tensor& x, double softcap) {
  return softcap > 0 ? at::tanh(x / softcap) * softcap : x;
}

std::int64_t product_numbers(std::int64_t in, std::int64_t out, bool bias) {
  return in * out + (bias ? out : 0);
}

// The numbers of the matrices, and their biases, of an MLP with so wide a middle.
std::int64_t mlp_numbers(const DecoderConfig& config, std::int64_t F) {
  return (config.gated_mlp ? 2 : 1) * product_numbers(config.width, F, config.mlp_bias) +
         product_numbers(F, config.width, config.mlp_bias);
}

// Those of a layer's experts of which some are chosen.
std::int64_t expert_numbers(const DecoderConfig& config, std::int64_t layer) {
  return config.is_mixture(layer) ? config.experts->count * mlp_numbers(config, config.experts->width) : 0;
}

// Those of a layer, but for these experts.
std::int64_t other_numbers(const DecoderConfig& config, std::int64_t layer) {
  const auto D = config.width, A = config.mixed_width(), K = config.keys_values_width();
  const auto attention = product_numbers(D, A + K, config.query_bias) + product_numbers(A, D, config.projection_bias);
  if (!config.is_mixture(layer)) return attention + mlp_numbers(config, config.mlp_width);
  const auto& experts = *config.experts;
  const auto shared = experts.shared_width > 0 ? mlp_numbers(config, experts.shared_width) + D : 0;
  return attention + product_numbers(D, experts.count, experts.router_bias) + shared;
}

// What a norm of vectors so wide has.
std::int64_t numbers_of_norm(const DecoderConfig& config, std::int64_t width) {
  const auto& norm = config.norm;
  return !norm.affine ? 0 : norm.type == Norm::Type::kLayerNorm && norm.bias ? 2 * width : width;
}

// Likewise the norms of a layer's stream and outputs.
std::int64_t norm_numbers(const DecoderConfig& config) {
  const auto norms = (!config.input_norms ? 0 : config.one_norm ? 1 : 2) + (config.output_norms ? 2 : 0);
  return norms * numbers_of_norm(config, config.width);
}

std::int64_t head_norm_numbers(const DecoderConfig& config) {
  const auto both = (config.heads + config.kv_heads) * config.head_width;
  switch (config.head_norms) {
    case HeadNorms::kNone:
      return 0;
    case HeadNorms::kShared:
      return 2 * numbers_of_norm(config, config.head_width);
    case HeadNorms::kOwn:
      return both;
    case HeadNorms::kTogether:
      return numbers_of_norm(config, both);
  }
  return 0;
}

}  // namespace

// ---- A layer's parts ----

NormLayer::NormLayer(Norm norm, at::Tensor weight, at::Tensor bias)
    : norm_(norm), weight_(std::move(weight)), bias_(std::move(bias)) {}

at::Tensor NormLayer::forward(const at::Tensor& x) const {
  if (norm_.type == Norm::Type::kLayerNorm) {
    if (!weight_.defined() || weight_.dim() == 1) return at::layer_norm(x, {x.size(-1)}, weight_, bias_, norm_.epsilon);
    return at::layer_norm(x, {x.size(-1)}, {}, {}, norm_.epsilon) * weight_;
  }
  const auto normalised = x * at::rsqrt((x * x).mean(-1, /*keepdim=*/true) + norm_.epsilon);
  return weight_.defined() ? normalised * weight_ : normalised;
}

Attention::Attention(const DecoderConfig& config, std::int64_t layer, Parts parts)
    : heads_(config.heads),
      kv_heads_(config.kv_heads),
      head_width_(config.head_width),
      scale_(config.attention_scale),
      softcap_(config.attention_softcap),
      clip_(config.query_key_value_clip),
      window_(config.attention.at(static_cast<std::size_t>(layer)).window),
      norms_(config.head_norms),
      alibi_(config.alibi),
      parts_(std::move(parts)) {
  if (config.scale_attn_by_inverse_layer_idx) scale_ /= static_cast<double>(layer + 1);
  if (turns()) rotary_ = config.rotary[config.attention[static_cast<std::size_t>(layer)].rotary];
}

at::Tensor Attention::biases(std::int64_t length, const at::Tensor& like) const {
  if (!alibi_) return {};
  return alibi_biases(*alibi_, heads_, length).to(like.device(), like.scalar_type()) * alibi_->scale;
}

at::Tensor Attention::product(const at::Tensor& x, std::size_t part) const {
  const auto rows = parts_.inputs->product(x, part);
  return clip_ > 0 ? at::clamp(rows, -clip_, clip_) : rows;
}

at::Tensor Attention::as_heads(const at::Tensor& rows, std::int64_t heads, const std::shared_ptr<const NormLayer>& norm,
                               const at::Tensor& positions) const {
  const bool together = norms_ == HeadNorms::kTogether;
  auto by_head = (norm && together ? norm->forward(rows) : rows).view({-1, heads, head_width_});
  if (norm && !together) by_head = norm->forward(by_head);
  if (turns())
    by_head = turned(by_head, cosines_and_sines(parts_.frequencies, positions, rotary_.magnitude), rotary_.interleaved);
  return by_head.reshape({-1, heads * head_width_});
}

at::Tensor Attention::queries(const at::Tensor& x, const at::Tensor& positions) const {
  const auto rows = product(x, 0);
  if (!turns() && !parts_.query_norm) return rows;
  return as_heads(rows.to(x.scalar_type()), heads_, parts_.query_norm, positions);
}

at::Tensor Attention::keys_values(const at::Tensor& x, const at::Tensor& positions) const {
  const auto rows = product(x, 1);
  if (!turns() && !parts_.key_norm) return rows;
  const auto both = rows.to(x.scalar_type()).unflatten(-1, {2, -1});
  return at::cat({as_heads(both.select(-2, 0).contiguous(), kv_heads_, parts_.key_norm, positions), both.select(-2, 1)},
                 -1);
}

at::Tensor Attention::project(const at::Tensor& mixed) const {
  return parts_.projection->product(mixed);
}

at::Tensor Attention::mix(const at::Tensor& x, const at::Tensor& mask) const {
  const auto B = x.size(0), T = x.size(1);
  const auto rows = x.flatten(0, 1);
  const auto positions = turns() ? at::arange(T, at::device(x.device()).dtype(at::kLong)).repeat({B}) : at::Tensor();
  const auto kv = keys_values(rows, positions);
  return mix_rows(queries(rows, positions).to(x.scalar_type()), kv.to(x.scalar_type()), B, mask);
}

at::Tensor Attention::mix_rows(const at::Tensor& queries, const at::Tensor& keys_values, std::int64_t B,
                               const at::Tensor& mask) const {
  const auto T = queries.size(0) / B;
  const auto by_head = [&](const at::Tensor& of_rows, std::int64_t heads) {
    return of_rows.view({B, T, heads, head_width_}).transpose(1, 2);
  };
  const auto kv = keys_values.view({B * T, 2, -1});
  const auto of_queries = [&](const at::Tensor& of_rows) {  // what each query's head reads
    const auto shared = by_head(of_rows, kv_heads_);
    return kv_heads_ == heads_ ? shared : shared.repeat_interleave(heads_ / kv_heads_, 1);
  };
  const auto q = by_head(queries, heads_), k = of_queries(kv.select(1, 0)), v = of_queries(kv.select(1, 1));
  const bool windowed = window_ > 0 && window_ < T;
  const auto& sinks = parts_.sinks;
  const auto biases = this->biases(T, q);
  constexpr auto kUnseen = -std::numeric_limits<double>::infinity();
  std::optional<at::Tensor> seen;
  if (mask.defined() || windowed || softcap_ > 0 || biases.defined() || sinks.defined()) {
    seen = (mask.defined() ? mask : at::ones({T, T}, at::device(queries.device()).dtype(at::kBool))).tril();
    if (windowed) seen = seen->triu(1 - window_);
  }
  at::Tensor mixed;  // [B, H, T, d]
  if (softcap_ > 0 || sinks.defined()) {
    auto scores = capped(at::matmul(q, k.transpose(-1, -2)) * scale_, softcap_);
    if (biases.defined()) scores = scores + biases.unsqueeze(1);
    scores = scores.masked_fill(seen->logical_not(), kUnseen);
    if (sinks.defined()) scores = at::cat({scores, sinks.view({1, -1, 1, 1}).expand({B, -1, T, 1})}, -1);
    mixed = at::matmul(at::softmax(scores, -1).slice(-1, 0, T), v);
  } else {
    if (biases.defined()) seen = at::where(*seen, biases.unsqueeze(1), kUnseen).to(q.scalar_type());
    mixed = at::scaled_dot_product_attention(q, k, v, seen, /*dropout_p=*/0, /*is_causal=*/!seen, scale_);
    // Of scores that are no numbers libtorch's fused attention makes zeros, and a damaged model would look sound. What
    // is added is 0, or NaN where queries or keys are not finite or their products may not be.
    mixed = mixed + 0 * (q.abs().amax({1, 2, 3}, true) * k.abs().amax({1, 2, 3}, true));
  }
  return mixed.transpose(1, 2).reshape({B, T, heads_ * head_width_});
}

void Attention::prepare() const {
  parts_.inputs->prepare();
  parts_.projection->prepare();
}

Block::Block(const DecoderConfig& config, std::int64_t layer, Parts parts)
    : layer_(layer), order_(config.order), output_scale_(config.output_scale), parts_(std::move(parts)) {}

at::Tensor Block::attn_input(const at::Tensor& x) const {
  return order_ == BlockOrder::kPostNorm || !parts_.norm_1 ? x : parts_.norm_1->forward(x);
}

// What a sub-layer adds, of its last matrix's product in the stream's dtype.
at::Tensor Block::added(const at::Tensor& product, const std::shared_ptr<const NormLayer>& norm) const {
  const auto output = norm ? norm->forward(product) : product;
  return output_scale_ == 1 ? output : output * output_scale_;
}

at::Tensor Block::attn_output(const at::Tensor& mixed) const {
  const auto product = parts_.attn->project(mixed);
  return changes_outputs(parts_.attn_norm) ? added(product.to(mixed.scalar_type()), parts_.attn_norm) : product;
}

at::Tensor Block::mlp_input(const at::Tensor& x) const {
  return order_ == BlockOrder::kPostNorm || !parts_.norm_2 ? x : parts_.norm_2->forward(x);
}

at::Tensor Block::mlp_hidden(const at::Tensor& x) const {
  return parts_.mlp->hidden(mlp_input(x));
}

at::Tensor Block::mlp_output_of(const at::Tensor& product) const {
  return added(product, parts_.mlp_norm);
}

at::Tensor Block::mlp_output(const at::Tensor& x) const {
  const auto product = is_mixture() ? parts_.mixture->output(mlp_input(x)) : parts_.mlp->output(mlp_hidden(x));
  return changes_outputs(parts_.mlp_norm) ? mlp_output_of(product.to(x.scalar_type())) : product;
}

at::Tensor Block::after_attn(const at::Tensor& x) const {
  return order_ == BlockOrder::kPostNorm ? parts_.norm_1->forward(x) : x;
}

at::Tensor Block::after_mlp(const at::Tensor& x) const {
  return order_ == BlockOrder::kPostNorm ? parts_.norm_2->forward(x) : x;
}

at::Tensor Block::after(const at::Tensor& x, const at::Tensor& attn) const {
  const auto between = after_attn(x + attn);
  return after_mlp(between + mlp_output(order_ == BlockOrder::kParallel ? x : between));
}

at::Tensor Block::forward(at::Tensor x, const Tap& tap, const AttentionMask& mask) const {
  auto mixed = parts_.attn->mix(attn_input(x), mask ? mask(layer_) : at::Tensor());
  if (tap) tap(Site::kMixed, layer_, mixed);
  auto attn = attn_output(mixed).to(x.scalar_type());
  if (tap) tap(Site::kAttn, layer_, attn);
  const auto between = after_attn(x + attn);

  const auto& into_mlp = order_ == BlockOrder::kParallel ? x : between;
  at::Tensor product;
  if (is_mixture()) {
    product = parts_.mixture->output(mlp_input(into_mlp));
  } else {
    auto hidden = mlp_hidden(into_mlp);
    if (tap) tap(Site::kMlpHidden, layer_, hidden);
    product = parts_.mlp->output(hidden).to(x.scalar_type());
  }
  if (tap) tap(Site::kMlpProduct, layer_, product);
  auto mlp = mlp_output_of(product);
  if (tap) tap(Site::kMlp, layer_, mlp);
  x = after_mlp(between + mlp);

  if (tap) tap(Site::kState, layer_, x);
  return x;
}

void Head::prepare() const {
  for (const auto& slice : slices_) slice.linear()->prepare();
}

void Block::prepare() const {
  parts_.attn->prepare();
  is_mixture() ? parts_.mixture->prepare() : parts_.mlp->prepare();
}

void Block::prepare_experts() const {
  if (is_mixture()) parts_.mixture->prepare_experts();
}

at::Tensor Head::logits(const at::Tensor& hidden, std::size_t part) const {
  const auto product = slices_.at(part).linear()->product(hidden);
  return capped(scale_ == 1 ? product : product * scale_, softcap_);
}

at::Tensor Head::product(const at::Tensor& hidden, std::size_t part) const {
  const auto linear = slices_.at(part).linear();
  const auto nothing = at::zeros({1, hidden.size(-1)}, hidden.options());
  const auto product = linear->product(hidden) - linear->product(nothing)[0];
  return scale_ == 1 ? product : product * scale_;
}

// ---- Reading them from a checkpoint ----

// A matrix of a checkpoint and, where it has one, its bias.
struct Matrix {
  // One of the matrices that a tensor has side by side, [count, ..].
  struct Stack {
    std::int64_t index, count;
    bool transposed;
    std::string_view weight_ending, bias_ending;
  };
  std::string name;  // without ".weight"
  std::int64_t in, out;
  bool bias;
  std::optional<Stack> stack = {};

  std::string weight_name() const { return name + std::string(stack ? stack->weight_ending : ".weight"); }
  std::string bias_name() const { return name + std::string(stack ? stack->bias_ending : ".bias"); }
};

// Reads tensors as a model wants them. A copy of its own goes with each product that reads its matrices later.
struct TensorReader {
  std::shared_ptr<const Checkpoint> checkpoint;
  bool transposed;  // matrices lie in the file as [out, in]
  LoadOptions options;

  at::Tensor get(const std::string& name, const std::vector<std::int64_t>& shape, at::ScalarType dtype) const {
    const auto tensor = checkpoint->tensor(name, shape, dtype);
    if (options.device.is_cpu()) return tensor;
    auto copy = tensor.to(options.device);
    checkpoint->release(name);
    return copy;
  }

  // Of tensors that hold several, the one that is meant.
  at::Tensor get(const std::string& name, const std::vector<std::int64_t>& shape, at::ScalarType dtype,
                 const std::optional<Matrix::Stack>& stack) const {
    if (!stack) return get(name, shape, dtype);
    const auto tensor = checkpoint->rows(name, shape, dtype, stack->index, stack->index + 1)[0];
    if (options.device.is_cpu()) return tensor;
    auto copy = tensor.to(options.device);
    checkpoint->release(name, stack->index, stack->index + 1);
    return copy;
  }

  bool is_transposed(const Matrix& matrix) const { return matrix.stack ? matrix.stack->transposed : transposed; }

  std::vector<std::int64_t> shape_of(const Matrix& matrix) const {
    auto shape = is_transposed(matrix) ? std::vector{matrix.out, matrix.in} : std::vector{matrix.in, matrix.out};
    if (matrix.stack) shape.insert(shape.begin(), matrix.stack->count);
    if (const auto row = std::vector{matrix.in}; matrix.out == 1 && !matrix.stack) {  // GGUF files may have it as such
      const auto name = matrix.weight_name();
      if (checkpoint->contains(name) && checkpoint->stored(name).shape == row) return row;
    }
    return shape;
  }

  static std::vector<std::int64_t> bias_shape_of(const Matrix& matrix) {
    return matrix.stack ? std::vector{matrix.stack->count, matrix.out} : std::vector{matrix.out};
  }

  Linear::Part read(const Matrix& matrix, at::ScalarType dtype) const {
    auto weight = get(matrix.weight_name(), shape_of(matrix), dtype, matrix.stack);
    if (weight.dim() == 1) weight = weight.unsqueeze(is_transposed(matrix) ? 0 : 1);
    return {is_transposed(matrix) ? weight.t() : weight,
            matrix.bias ? get(matrix.bias_name(), bias_shape_of(matrix), dtype, matrix.stack) : at::Tensor()};
  }
};

// Makes the parts of one model of one checkpoint, on one device. Names and shapes are checked as they are made;
// matrices are read when they are used.
class Decoder::Loader {
 public:
  Loader(const DecoderConfig& config, std::shared_ptr<const Checkpoint> checkpoint, const LoadOptions& options)
      : config_(config),
        names_(tensor_names(config)),
        checkpoint_(std::move(checkpoint)),
        options_(options),
        reader_{checkpoint_, names_.transposed, options_},
        stream_dtype_(options.dtype == at::kDouble ? at::kDouble : at::kFloat),
        prefix_(prefix_in(names_, checkpoint_->names())) {
    find_embedding_and_head();
    for (const auto& rotary : config_.rotary) {
      frequencies_.push_back(finite_frequencies(rotary).to(options_.device, stream_dtype_));
    }
  }

  // The same of another state of the same files, which have been checked.
  Loader(const Loader& other, std::shared_ptr<const Checkpoint> checkpoint)
      : config_(other.config_),
        names_(other.names_),
        checkpoint_(std::move(checkpoint)),
        options_(other.options_),
        reader_{checkpoint_, names_.transposed, options_},
        stream_dtype_(other.stream_dtype_),
        prefix_(other.prefix_),
        embedding_(other.embedding_),
        head_(other.head_),
        head_name_(other.head_name_),
        frequencies_(other.frequencies_),
        scratch_(other.scratch_),
        checked_(true) {}

  bool tied() const { return head_ == embedding_; }

  // What backwards may take for second copies of packed weights, in bytes.
  void bound_transposes(std::int64_t bytes) const {
    const std::scoped_lock lock(scratch_->mutex);
    scratch_->room_for_transposes = bytes;
  }

  // Refuses a file with weights of layers that the config does not have: the numbers would be another model's. To be
  // called when all parts have been made.
  void check_all_used() const {
    constexpr std::array<std::string_view, 3> kBuffers = {".bias", ".masked_bias", ".inv_freq"};
    const bool is_gguf = config_.layout == TensorLayout::kLlamaCpp;
    const auto layers = prefix_ + names_.layers;
    for (const auto& name : checkpoint_->names()) {
      if (used_.contains(name) || (!is_gguf && !name.starts_with(layers))) continue;
      const auto is_buffer = [&](std::string_view ending) {  // causal masks and angles, which are computed
        return name.ends_with(std::string(ending)) &&
               (ending != ".bias" || name.ends_with("attn.bias") || name.ends_with("attention.bias"));
      };
      if (std::any_of(kBuffers.begin(), kBuffers.end(), is_buffer)) continue;
      throw Error(label_of(checkpoint_->files().front()) + ": holds tensor " + in_quotes(name) + ", for which " +
                  (is_gguf ? "its architecture" : "config.json") + " has no use (" +
                  std::string(to_string(config_.family)) + ", " + std::to_string(config_.layers) +
                  " layers); do they belong to one model?");
    }
    checked_ = true;
    used_.clear();
  }

  std::shared_ptr<const Block> block(std::int64_t layer) const {
    const auto at = prefix_ + names_.layers + std::to_string(layer) + ".";
    Attention::Parts attention;
    attention.inputs = attention_inputs(at);
    attention.projection =
        linear({at + names_.projection}, config_.mixed_width(), config_.width, config_.projection_bias);
    attention.query_norm = norm_of_heads(at + names_.query_norm, config_.heads);
    attention.key_norm = norm_of_heads(at + names_.key_norm, config_.kv_heads);
    if (const auto& of_layer = config_.attention[static_cast<std::size_t>(layer)];
        of_layer.turns && !frequencies_.empty()) {
      attention.frequencies = frequencies_[of_layer.rotary];
    }

    const auto D = config_.width;
    Block::Parts parts;
    if (config_.input_norms) {
      parts.norm_1 = norm(at + names_.norm_1, D);
      parts.norm_2 = config_.one_norm ? parts.norm_1 : norm(at + names_.norm_2, D);
    }
    if (config_.output_norms) {
      parts.attn_norm = norm(at + names_.attn_norm, D);
      parts.mlp_norm = norm(at + names_.mlp_norm, D);
    }
    if (config_.attention_sinks) attention.sinks = vector(at + names_.sinks, {config_.heads});
    parts.attn = std::make_shared<const Attention>(config_, layer, std::move(attention));
    if (config_.is_mixture(layer)) {
      parts.mixture = mixture(at);
    } else {
      parts.mlp = mlp(at, config_.mlp_width);
    }
    return std::make_shared<const Block>(config_, layer, std::move(parts));
  }

  // A layer whose weights are in memory already, and leave it with the last one who holds it: experts come to it when
  // they are used, and leave with it.
  std::shared_ptr<const Block> block_for_once(std::int64_t layer) const {
    if (options_.stop.stop_requested()) throw Interrupted();
    const auto of_layer = names_of(layer);
    for (const auto& name : of_layer) {
      if (!config_.is_mixture(layer) || !is_of_experts(layer, name)) checkpoint_->prefetch(name);
    }
    auto made = block(layer);
    made->prepare();
    return {made.get(), [made, of_layer, checkpoint = checkpoint_](const Block*) mutable {
              made.reset();
              for (const auto& name : of_layer) checkpoint->release(name);
            }};
  }

  std::shared_ptr<const NormLayer> embedding_norm() const {
    return config_.embedding_norm ? norm(prefix_ + names_.embedding_norm, config_.embedding_width) : nullptr;
  }

  std::shared_ptr<const NormLayer> final_norm() const {
    return config_.final_norm ? norm(prefix_ + names_.final_norm, config_.width) : nullptr;
  }

  // Position embeddings, from that of the first position on.
  at::Tensor positions() const {
    if (config_.learned_positions == 0) return {};
    const auto all = vector(prefix_ + names_.positions + ".weight", {config_.learned_positions, config_.width});
    return all.slice(0, config_.position_offset);
  }

  // Between embeddings and a stream of another width.
  std::shared_ptr<const Linear> enter() const { return between(names_.enter, config_.embedding_width, config_.width); }
  std::shared_ptr<const Linear> leave() const { return between(names_.leave, config_.width, config_.embedding_width); }

  std::shared_ptr<const Head> head(bool streamed) const {
    std::vector<Head::Slice> slices;
    const auto bias = config_.head_bias ? vector(head_name_ + ".bias", {config_.vocab_size}) : at::Tensor();
    for (std::int64_t begin = 0; begin < config_.vocab_size; begin += kVocabularySlice) {
      const auto end = std::min(begin + kVocabularySlice, config_.vocab_size);
      const auto make = [this, begin, end,
                         of_slice = bias.defined() ? bias.slice(0, begin, end) : at::Tensor()](Products products) {
        const auto read = [checkpoint = checkpoint_, name = head_, shape = table_shape(), dtype = stream_dtype_,
                           device = options_.device, begin, end, of_slice] {
          const auto rows = checkpoint->rows(name, shape, dtype, begin, end);
          return std::vector<Linear::Part>{{rows.to(device).t(), of_slice}};
        };
        const auto release = [checkpoint = checkpoint_, name = head_, begin, end] {
          checkpoint->release(name, begin, end);
        };
        const auto check = [checkpoint = checkpoint_, name = head_] { checkpoint->check_whole(name); };
        return std::make_shared<const Linear>(
            Linear::Source{1, read, check, release, stream_dtype_, options_.device, /*packs_transpose=*/false},
            products, scratch_);
      };
      if (streamed) {  // used once each time: packing would not pay
        slices.push_back({[make, checkpoint = checkpoint_, name = head_, begin, end] {
                            auto linear = make(Products::kUnpacked);
                            return std::shared_ptr<const Linear>(linear.get(), [=](const Linear*) mutable {
                              linear.reset();
                              checkpoint->release(name, begin, end);
                            });
                          },
                          end - begin});
      } else {
        slices.push_back({[linear = make(options_.products)] { return linear; }, end - begin});
      }
    }
    return std::make_shared<const Head>(std::move(slices), config_.logit_scale, config_.logit_softcap);
  }

  // Rows of the matrix that leads out of a layer's MLP, [neurons, D], on the CPU.
  at::Tensor mlp_output_rows(std::int64_t layer, std::span<const std::int64_t> neurons) const {
    const auto place = rometrace::mlp_output_matrix(config_, *checkpoint_, layer);
    auto rows = at::empty({static_cast<std::int64_t>(neurons.size()), place.out}, stream_dtype_);
    if (place.transposed) {
      const auto columns = checkpoint_->tensor(place.tensor, place.shape(), options_.dtype);
      rows.copy_(columns.index_select(1, at::tensor(neurons)).t());
    } else {
      for (std::size_t i = 0; i < neurons.size(); ++i) {
        const auto row = checkpoint_->rows(place.tensor, place.shape(), options_.dtype, neurons[i], neurons[i] + 1);
        rows[static_cast<std::int64_t>(i)].copy_(row[0]);
      }
    }
    const bool packed = options_.products == Products::kFast && Linear::packs(options_.dtype, options_.device);
    if (packed || !options_.device.is_cpu()) checkpoint_->release(place.tensor);  // nothing else reads the file
    return rows;
  }

  // The weight of the norm of a layer's MLP outputs, [D], or undefined.
  at::Tensor mlp_norm_weight(std::int64_t layer) const {
    if (!config_.output_norms) return {};
    return norm_weight(prefix_ + names_.layers + std::to_string(layer) + "." + names_.mlp_norm, config_.width);
  }

  // Token embeddings [T, E], on the CPU: a few rows of a table that is left in the file.
  at::Tensor embeddings(std::span<const std::int32_t> token_ids) const {
    auto rows = at::empty({static_cast<std::int64_t>(token_ids.size()), config_.embedding_width}, stream_dtype_);
    for (std::size_t i = 0; i < token_ids.size(); ++i) {
      const auto id = token_ids[i];
      rows[static_cast<std::int64_t>(i)].copy_(
          checkpoint_->rows(embedding_, table_shape(), stream_dtype_, id, id + 1)[0]);
    }
    return rows;
  }

 private:
  // Throws Error, where the numbers of config.json are so far off that angles or cosines are not numbers.
  at::Tensor finite_frequencies(const Rotary& rotary) const {
    const auto frequencies = rotary_frequencies(rotary);
    const auto largest_angle = frequencies.abs().amax().item<float>() * static_cast<float>(config_.longest_prompt());
    if (std::isfinite(largest_angle) && std::isfinite(static_cast<float>(rotary.magnitude))) return frequencies;
    const auto& file = checkpoint_->files().front();
    const bool is_gguf = config_.layout == TensorLayout::kLlamaCpp;
    throw Error(
        label_of(is_gguf ? file : file.parent_path() / "config.json") +
        ": its rotary positions turn by angles that are not finite; expected other values of rope_theta, factor "
        "and the other fields of rope_scaling or rope_parameters");
  }

  std::vector<std::int64_t> table_shape() const { return {config_.vocab_size, config_.embedding_width}; }

  // Where the config ties them, a file may hold either or both; both with different values are kept apart, as
  // transformers 5 does.
  void find_embedding_and_head() {
    embedding_ = prefix_ + names_.embedding + ".weight";
    head_name_ = names_.heads.front();
    for (const auto& name : names_.heads) {
      if (checkpoint_->contains(name + ".weight")) head_name_ = name;
    }
    head_ = head_name_ + ".weight";
    if (config_.tie_word_embeddings) {
      if (!checkpoint_->contains(head_)) {
        head_ = embedding_;
      } else if (!checkpoint_->contains(embedding_)) {
        embedding_ = head_;
      } else if (checkpoint_->equal(embedding_, head_)) {
        head_ = embedding_;
      }
    }
    checkpoint_->check(embedding_, table_shape());
    checkpoint_->check(head_, table_shape());
    used_.insert({embedding_, head_});
    if (config_.head_bias) used_.insert(head_name_ + ".bias");
    const bool of_pairs = !config_.rotary.empty() && config_.rotary.front().scaling == Rotary::Scaling::kEach;
    if (of_pairs &&
        config_.layout == TensorLayout::kLlamaCpp) {  // to_config() has seen to it that only one kind is there
      used_.insert({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"});
    }
  }

  void use(const std::string& name) const {
    if (!checked_) used_.insert(name);
  }

  // A tensor in the dtype of what is added to the stream, or normalises it.
  at::Tensor vector(const std::string& name, const std::vector<std::int64_t>& shape) const {
    use(name);
    return reader_.get(name, shape, stream_dtype_);
  }

  // What a norm multiplies by, [width], or undefined.
  at::Tensor norm_weight(const std::string& name, std::int64_t width) const {
    if (!config_.norm.affine) return {};
    const auto weight = vector(name + ".weight", {width});
    return config_.norm.offset ? weight + 1 : weight;
  }

  std::shared_ptr<const NormLayer> norm(const std::string& name, std::int64_t width) const {
    auto weight = norm_weight(name, width);
    at::Tensor bias;
    if (config_.norm.affine && config_.norm.type == Norm::Type::kLayerNorm && config_.norm.bias) {
      bias = vector(name + ".bias", {width});
    }
    return std::make_shared<const NormLayer>(config_.norm, std::move(weight), std::move(bias));
  }

  // Of queries, or of keys.
  std::shared_ptr<const NormLayer> norm_of_heads(const std::string& name, std::int64_t heads) const {
    const auto d = config_.head_width;
    switch (config_.head_norms) {
      case HeadNorms::kNone:
        return nullptr;
      case HeadNorms::kShared:
        return norm(name, d);
      case HeadNorms::kTogether:
        return norm(name, heads * d);
      case HeadNorms::kOwn:
        break;
    }
    if (!names_.head_norms_apart) {
      return std::make_shared<const NormLayer>(config_.norm, vector(name + ".weight", {heads, d}), at::Tensor());
    }
    std::vector<at::Tensor> weights;
    for (std::int64_t head = 0; head < heads; ++head) {
      weights.push_back(vector(name + "." + std::to_string(head) + ".weight", {d}));
    }
    return std::make_shared<const NormLayer>(config_.norm, at::stack(weights), at::Tensor());
  }

  // A product with matrices that are read when it is first used; `parts` makes of what is read what is multiplied.
  using Parts = std::function<std::vector<Linear::Part>(std::vector<Linear::Part>)>;
  std::shared_ptr<const Linear> linear(const std::vector<Matrix>& matrices, std::size_t count, Parts parts) const {
    return linear(matrices, count, std::move(parts), options_.dtype);
  }
  std::shared_ptr<const Linear> linear(const std::vector<Matrix>& matrices, std::size_t count, Parts parts,
                                       at::ScalarType dtype) const {
    for (const auto& matrix : matrices) {
      use(matrix.weight_name());
      checkpoint_->check(matrix.weight_name(), reader_.shape_of(matrix));
      if (!matrix.bias) continue;
      use(matrix.bias_name());
      checkpoint_->check(matrix.bias_name(), reader_.bias_shape_of(matrix));
    }
    const auto release = [checkpoint = checkpoint_, matrices] {
      for (const auto& matrix : matrices) {
        const auto& stack = matrix.stack;
        stack ? checkpoint->release(matrix.weight_name(), stack->index, stack->index + 1)
              : checkpoint->release(matrix.weight_name());
      }
    };
    const auto check = [checkpoint = checkpoint_, matrices] {
      for (const auto& matrix : matrices) checkpoint->check_whole(matrix.weight_name());
    };
    const auto read_all = [reader = reader_, matrices, dtype, parts = std::move(parts)] {
      std::vector<Linear::Part> all;
      for (const auto& matrix : matrices) all.push_back(reader.read(matrix, dtype));
      return parts ? parts(std::move(all)) : all;
    };
    return std::make_shared<const Linear>(Linear::Source{count, read_all, check, release, dtype, options_.device},
                                          options_.products, scratch_);
  }

  // Matrices of one shape, a part each.
  std::shared_ptr<const Linear> linear(const std::vector<std::string>& names, std::int64_t in, std::int64_t out,
                                       bool bias) const {
    std::vector<Matrix> matrices;
    for (const auto& name : names) matrices.push_back({name, in, out, bias});
    return linear(matrices, matrices.size(), {});
  }

  // Columns of parts, side by side. Their rows are where the file has them together.
  static Linear::Part side_by_side(const Linear::Part& one, const Linear::Part& other) {
    return {at::cat({one.weight.t(), other.weight.t()}).t(),
            one.bias.defined() ? at::cat({one.bias, other.bias}) : at::Tensor()};
  }

  // Columns of heads whose numbers stand in pairs, (0, d/2), (1, d/2 + 1), ..: in the order 0 to d - 1.
  static Linear::Part with_halves_apart(const Linear::Part& part, std::int64_t heads) {
    const auto ordered = [heads](const at::Tensor& rows) {
      return rows.unflatten(0, {heads, -1, 2}).transpose(1, 2).flatten(0, 2);
    };
    return {ordered(part.weight.t()).t(), part.bias.defined() ? ordered(part.bias) : at::Tensor()};
  }

  // The first columns, and the others.
  static std::vector<Linear::Part> cut_at(std::int64_t column, const Linear::Part& whole) {
    const auto& [weight, bias] = whole;
    return {{weight.slice(1, 0, column), bias.defined() ? bias.slice(0, 0, column) : bias},
            {weight.slice(1, column), bias.defined() ? bias.slice(0, column) : bias}};
  }

  // What an MLP begins with: one matrix, or gate and up, which the file may have as one.
  std::shared_ptr<const Linear> mlp_inputs(const std::string& at, std::int64_t F) const {
    const auto D = config_.width;
    if (!config_.gated_mlp) return linear({at + names_.mlp_in}, D, F, config_.mlp_bias);
    if (!names_.mlp_gate.empty()) return linear({at + names_.mlp_gate, at + names_.mlp_in}, D, F, config_.mlp_bias);
    return linear({{at + names_.mlp_in, D, 2 * F, config_.mlp_bias}}, 2,
                  [F](const std::vector<Linear::Part>& all) { return cut_at(F, all.front()); });
  }

  std::shared_ptr<const Mlp> mlp(const std::string& at, std::int64_t F) const {
    return std::make_shared<const Mlp>(config_, mlp_inputs(at, F),
                                       linear({at + names_.mlp_out}, F, config_.width, config_.mlp_bias));
  }

  // Columns that stand in turn: the first part's, the second's, ..
  static std::vector<Linear::Part> every_other(const Linear::Part& whole) {
    std::vector<Linear::Part> parts;
    for (const std::int64_t first : {0, 1}) {
      parts.push_back({whole.weight.slice(1, first, {}, 2).contiguous(),
                       whole.bias.defined() ? whole.bias.slice(0, first, {}, 2) : whole.bias});
    }
    return parts;
  }

  // Whether a tensor of a layer belongs to the experts of which some are chosen.
  bool is_of_experts(std::int64_t layer, const std::string& name) const {
    const auto at = prefix_ + names_.layers + std::to_string(layer) + "." + names_.experts;
    if (names_.expert_layout == TensorNames::Experts::kApart) return name.starts_with(at);
    const auto is_of = [&](const std::string& matrix) { return !matrix.empty() && name.starts_with(at + matrix); };
    return is_of(names_.expert_gate) || is_of(names_.expert_in) || is_of(names_.expert_out);
  }

  // One of those of which some are chosen.
  std::shared_ptr<const Mlp> expert(const std::string& at, std::int64_t index) const {
    using Layout = TensorNames::Experts;
    const auto D = config_.width, F = config_.experts->width;
    const bool bias = config_.mlp_bias;
    const auto layout = names_.expert_layout;
    const auto make = [&](std::shared_ptr<const Linear> inputs, const Matrix& out) {
      return std::make_shared<const Mlp>(config_, std::move(inputs), linear({out}, 1, {}));
    };
    if (layout == Layout::kApart) {
      const auto mine = at + std::to_string(index) + ".";
      return make(linear({mine + names_.expert_gate, mine + names_.expert_in}, D, F, bias),
                  {mine + names_.expert_out, F, D, bias});
    }
    const bool in_turn = layout == Layout::kStackedInTurn;
    const Matrix::Stack stack{index, config_.experts->count, !in_turn || names_.experts_transposed,
                              in_turn ? "" : ".weight", in_turn ? "_bias" : ".bias"};
    const Matrix out{at + names_.expert_out, F, D, bias, stack};
    if (layout == Layout::kStackedApart) {
      return make(
          linear({{at + names_.expert_gate, D, F, bias, stack}, {at + names_.expert_in, D, F, bias, stack}}, 2, {}),
          out);
    }
    return make(linear({{at + names_.expert_in, D, 2 * F, bias, stack}}, 2,
                       [F, in_turn](const std::vector<Linear::Part>& all) {
                         return in_turn ? every_other(all.front()) : cut_at(F, all.front());
                       }),
                out);
  }

  // The expert that all tokens share.
  std::shared_ptr<const Mlp> shared_expert(const std::string& at, std::int64_t F) const {
    const auto D = config_.width;
    const bool bias = config_.mlp_bias;
    return std::make_shared<const Mlp>(config_,
                                       linear({at + names_.shared_mlp_gate, at + names_.shared_mlp_in}, D, F, bias),
                                       linear({at + names_.shared_mlp_out}, F, D, bias));
  }

  std::shared_ptr<const Mixture> mixture(const std::string& at) const {
    const auto& experts = *config_.experts;
    const auto D = config_.width;
    Mixture::Parts parts;
    parts.router = linear({{at + names_.router, D, experts.count, experts.router_bias}}, 1, {}, stream_dtype_);
    for (std::int64_t i = 0; i < experts.count; ++i) parts.experts.push_back(expert(at + names_.experts, i));
    if (experts.shared_width > 0) {
      parts.shared = shared_expert(at, experts.shared_width);
      parts.shared_gate = linear({{at + names_.shared_gate, D, 1, false}}, 1, {}, stream_dtype_);
    }
    return std::make_shared<const Mixture>(experts, std::move(parts));
  }

  std::shared_ptr<const Linear> attention_inputs(const std::string& at) const {
    const auto D = config_.width, A = config_.mixed_width(), K = config_.keys_values_width();
    const bool bias = config_.query_bias;
    const std::vector<Matrix> three = {
        {at + names_.queries, D, A, bias}, {at + names_.keys, D, K / 2, bias}, {at + names_.values, D, K / 2, bias}};
    using Inputs = TensorNames::Inputs;
    switch (names_.inputs) {
      case Inputs::kApart:
        return linear(three, 2, [](const std::vector<Linear::Part>& all) {
          return std::vector{all[0], side_by_side(all[1], all[2])};
        });
      case Inputs::kSideBySide:
        return linear({{at + names_.queries, D, A + K, bias}}, 2,
                      [A](const std::vector<Linear::Part>& all) { return cut_at(A, all.front()); });
      case Inputs::kPairs: {
        const auto in_order = [heads = config_.heads, kv_heads = config_.kv_heads](
                                  const Linear::Part& queries, const Linear::Part& keys, const Linear::Part& values) {
          return std::vector{with_halves_apart(queries, heads),
                             side_by_side(with_halves_apart(keys, kv_heads), values)};
        };
        if (!names_.keys.empty()) {
          return linear(three, 2, [in_order](const auto& all) { return in_order(all[0], all[1], all[2]); });
        }
        return linear({{at + names_.queries, D, A + K, bias}}, 2, [in_order, A, K](const auto& all) {
          const auto parts = cut_at(A, all.front()), others = cut_at(K / 2, parts[1]);
          return in_order(parts[0], others[0], others[1]);
        });
      }
      case Inputs::kHeadByHead:
        return linear(
            {{at + names_.queries, D, A + K, bias}}, 2,
            [pairs = config_.kv_heads,
             queries = config_.heads / config_.kv_heads](const std::vector<Linear::Part>& all) {
              const auto of = [&](const at::Tensor& rows, std::int64_t begin, std::int64_t end) {
                return rows.unflatten(0, {pairs, queries + 2, -1}).slice(1, begin, end).flatten(0, 2);
              };
              std::vector<Linear::Part> apart;
              for (const auto& [begin, end] :
                   {std::pair{std::int64_t{0}, queries}, {queries, queries + 1}, {queries + 1, queries + 2}}) {
                const auto& [weight, whole_bias] = all.front();
                apart.push_back(
                    {of(weight.t(), begin, end).t(), whole_bias.defined() ? of(whole_bias, begin, end) : at::Tensor()});
              }
              return std::vector{apart[0], side_by_side(apart[1], apart[2])};
            });
    }
    return nullptr;
  }

  std::shared_ptr<const Linear> between(const std::string& name, std::int64_t in, std::int64_t out) const {
    return in == out ? nullptr : linear({prefix_ + name}, in, out, /*bias=*/false);
  }

  // The tensors of one layer.
  std::vector<std::string> names_of(std::int64_t layer) const {
    const auto at = prefix_ + names_.layers + std::to_string(layer) + ".";
    std::vector<std::string> found;
    for (auto& name : checkpoint_->names()) {
      if (name.starts_with(at)) found.push_back(std::move(name));
    }
    return found;
  }

  DecoderConfig config_;
  TensorNames names_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  LoadOptions options_;
  TensorReader reader_;
  at::ScalarType stream_dtype_;
  std::string prefix_;
  std::string embedding_, head_, head_name_;  // of tensors; the last without ".weight"
  std::vector<at::Tensor> frequencies_;       // of config_.rotary
  std::shared_ptr<PackingScratch> scratch_ = std::make_shared<PackingScratch>();
  mutable std::set<std::string> used_;  // names of tensors, until all parts have been made
  mutable bool checked_ = false;
};

// ---- The whole ----

std::shared_ptr<const Decoder> Decoder::load(const std::filesystem::path& model, const LoadOptions& options) {
  refuse_unless_it_multiplies(options);
  auto config = config_of_model(model);
  auto opened = Checkpoint::open(model, options.stop);
  if (!options.changes.empty()) opened = changed(std::move(opened), config, options.changes);
  auto checkpoint = std::make_shared<const Checkpoint>(std::move(opened));
  return std::shared_ptr<const Decoder>(new Decoder(std::move(config), std::move(checkpoint), options));
}

Decoder::Decoder(DecoderConfig config, std::shared_ptr<const Checkpoint> checkpoint, const LoadOptions& options)
    : config_(std::move(config)),
      options_(options),
      checkpoint_(std::move(checkpoint)),
      loader_(std::make_shared<const Loader>(config_, checkpoint_, options)),
      tied_(loader_->tied()),
      positions_(loader_->positions()),
      enter_(loader_->enter()),
      leave_(loader_->leave()) {
  for (std::int64_t layer = 0; layer < config_.layers; ++layer) blocks_.push_back(loader_->block(layer));
  embedding_norm_ = loader_->embedding_norm();
  final_norm_ = loader_->final_norm();
  loader_->check_all_used();
  if (options_.memory && all_bytes() > *options_.memory) {
    blocks_.clear();  // they have been checked
    stream_layers();
  }
  const auto room = options_.memory.value_or(std::numeric_limits<std::int64_t>::max()) - held_bytes();
  // Streamed layers are used once: a second copy of them would not pay.
  const bool transposes = options_.transposes == Transposes::kPacked && !streamed();
  loader_->bound_transposes(transposes ? std::clamp<std::int64_t>(room, 0, most_transposes(held_bytes())) : 0);
  head_ = loader_->head(streamed());
  if (device().is_cpu() || streamed()) return;
  for (const auto& each : blocks_) {  // what is free on the device is shared out after loading
    each->prepare();
    each->prepare_experts();
  }
  head_->prepare();
}

Decoder::Decoder(const Decoder& other, std::shared_ptr<const Checkpoint> checkpoint,
                 std::span<const MatrixChange> changes)
    : config_(other.config_),
      options_(other.options_),
      checkpoint_(std::move(checkpoint)),
      loader_(std::make_shared<const Loader>(*other.loader_, checkpoint_)),
      tied_(other.tied_),
      positions_(other.positions_),
      enter_(other.enter_),
      leave_(other.leave_),
      head_(other.head_),
      blocks_(other.blocks_),
      embedding_norm_(other.embedding_norm_),
      final_norm_(other.final_norm_) {
  options_.changes.insert(options_.changes.end(), changes.begin(), changes.end());
  if (other.streamed()) stream_layers();
  for (const auto& change : changes) {
    if (streamed()) break;
    auto& block = blocks_.at(static_cast<std::size_t>(change.layer));
    block = loader_->block(change.layer);
    if (device().is_cpu()) continue;
    block->prepare();
    block->prepare_experts();
  }
}

void Decoder::stream_layers() {
  stream_ = std::make_unique<LayerStream>(
      config_.layers, [loader = loader_](std::int64_t layer) { return loader->block_for_once(layer); });
}

std::shared_ptr<const Decoder> Decoder::with_changes(std::span<const MatrixChange> changes) const {
  auto checkpoint = std::make_shared<const Checkpoint>(changed(*checkpoint_, config_, changes));
  return std::shared_ptr<const Decoder>(new Decoder(*this, std::move(checkpoint), changes));
}

Decoder::~Decoder() = default;

MatrixPlace Decoder::mlp_output_matrix(std::int64_t layer) const {
  return rometrace::mlp_output_matrix(config_, *checkpoint_, layer);
}

at::Tensor Decoder::mlp_output_rows(std::int64_t layer, std::span<const std::int64_t> neurons) const {
  return loader_->mlp_output_rows(layer, neurons).to(device());
}

at::Tensor Decoder::direct_logits(std::int64_t layer, const at::Tensor& rows) const {
  const auto weight = loader_->mlp_norm_weight(layer);
  const auto x = (weight.defined() ? rows * weight : rows) * config_.output_scale;
  const auto hidden = leave_ ? leave_->product(x).to(x.scalar_type()) : x;
  std::vector<at::Tensor> slices;
  for (std::size_t part = 0; part < head_->parts(); ++part) slices.push_back(head_->product(hidden, part));
  return at::cat(slices, -1);
}

const std::vector<std::filesystem::path>& Decoder::weight_files() const {
  return checkpoint_->files();
}

std::int64_t Decoder::held_bytes() const {
  if (!streamed()) return all_bytes();
  std::int64_t layers = 0;  // the one that is used, and the one that is read ahead, without its experts
  for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
    const auto next = (layer + 1) % config_.layers;
    layers = std::max(layers, layer_bytes(layer) + layer_bytes(next) - experts_bytes(next));
  }
  return layers + std::min(kVocabularySlice, config_.vocab_size) * token_bytes() + other_bytes();
}

std::int64_t Decoder::all_bytes() const {
  std::int64_t layers = 0;
  for (std::int64_t layer = 0; layer < config_.layers; ++layer) layers += layer_bytes(layer);
  return layers + config_.vocab_size * token_bytes() + other_bytes();
}

std::int64_t Decoder::other_bytes() const {
  const auto F = std::max(config_.mlp_width,
                          config_.experts ? std::max(config_.experts->width, config_.experts->shared_width) : 0);
  const auto inputs = std::max(config_.mixed_width() + config_.keys_values_width(),
                               (config_.gated_mlp ? 2 : 1) * F);  // of one product, before it is packed
  return config_.width * (inputs * static_cast<std::int64_t>(c10::elementSize(dtype())) +
                          config_.learned_positions * static_cast<std::int64_t>(c10::elementSize(stream_dtype())));
}

std::int64_t Decoder::experts_bytes(std::int64_t layer) const {
  return expert_numbers(config_, layer) * static_cast<std::int64_t>(c10::elementSize(dtype()));
}

std::int64_t Decoder::layer_bytes(std::int64_t layer) const {
  return experts_bytes(layer) + other_numbers(config_, layer) * static_cast<std::int64_t>(c10::elementSize(dtype()));
}

std::int64_t Decoder::token_bytes() const {
  return config_.embedding_width * static_cast<std::int64_t>(c10::elementSize(stream_dtype()));
}

std::int64_t Decoder::parameter_count() const {
  const auto D = config_.width, E = config_.embedding_width;
  std::int64_t layers = 0;
  for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
    layers += expert_numbers(config_, layer) + other_numbers(config_, layer) + norm_numbers(config_) +
              head_norm_numbers(config_) + (config_.attention_sinks ? config_.heads : 0);
  }
  return (tied_ ? 1 : 2) * config_.vocab_size * E + (config_.head_bias ? config_.vocab_size : 0) +
         config_.learned_positions * D + (E == D ? 0 : 2 * E * D) + layers +
         (config_.embedding_norm ? numbers_of_norm(config_, E) : 0) +
         (config_.final_norm ? numbers_of_norm(config_, D) : 0);
}

std::shared_ptr<const Block> Decoder::block(std::int64_t layer) const {
  return stream_ ? stream_->at(layer) : blocks_.at(static_cast<std::size_t>(layer));
}

void Decoder::prepare(Workers& workers) const {
  if (!serves_several()) return;
  workers.share(config_.layers + 1, [&](std::int64_t piece) {
    if (options_.stop.stop_requested()) throw Interrupted();
    piece < config_.layers ? block(piece)->prepare() : head_->prepare();
  });
}

at::Tensor Decoder::embed(std::span<const std::int32_t> token_ids) const {
  for (const auto id : token_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      throw Error("token id " + std::to_string(id) + " is outside the model's vocabulary of " +
                  std::to_string(config_.vocab_size) + "; the tokeniser does not belong to this model");
    }
  }
  auto rows = loader_->embeddings(token_ids);
  if (config_.embedding_scale != 1) rows.mul_(config_.embedding_scale);
  return rows.to(device());
}

at::Tensor Decoder::enter(const at::Tensor& embeddings, std::int64_t first) const {
  auto entering = embedding_norm_ ? embedding_norm_->forward(embeddings) : embeddings;
  if (config_.entry_scale != 1) entering = entering * config_.entry_scale;
  const auto x = enter_ ? enter_->product(entering).to(embeddings.scalar_type()) : entering;
  return positions_.defined() ? x + positions_.slice(0, first, first + x.size(-2)) : x;
}

at::Tensor Decoder::leave(const at::Tensor& x) const {
  const auto normalised = final_norm_ ? final_norm_->forward(x) : x;
  return leave_ ? leave_->product(normalised).to(x.scalar_type()) : normalised;
}

void Decoder::check_length(std::int64_t T) const {
  if (T >= 1 && T <= config_.longest_prompt()) return;
  throw Error("the prompt has " + std::to_string(T) + " tokens; this model takes 1 to " +
              std::to_string(config_.longest_prompt()));
}

at::Tensor Decoder::run_layers(at::Tensor embeddings, const Tap& tap, const AttentionMask& mask) const {
  if (tap) tap(Site::kEmbedding, 0, embeddings);
  auto x = enter(embeddings);
  for (std::int64_t layer = 0; layer < config_.layers; ++layer) x = block(layer)->forward(std::move(x), tap, mask);
  return x;
}

at::Tensor Decoder::forward(std::span<const std::int32_t> token_ids, std::int64_t rows, const Tap& tap,
                            const AttentionMask& mask) const {
  check_length(static_cast<std::int64_t>(token_ids.size()));
  return leave(run_layers(embed(token_ids).unsqueeze(0).repeat({rows, 1, 1}), tap, mask));
}

at::Tensor Decoder::forward_prompts(std::span<const std::int32_t> token_ids, std::int64_t T, std::int64_t last,
                                    const Tap& tap) const {
  check_length(T);
  if (token_ids.empty() || static_cast<std::int64_t>(token_ids.size()) % T != 0) {
    throw Error(std::to_string(token_ids.size()) + " token ids are no prompts of " + std::to_string(T) + " tokens");
  }
  const auto x = run_layers(embed(token_ids).view({-1, T, config_.embedding_width}), tap, {});
  return leave(x.slice(1, T - last));
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  std::vector<at::Tensor> slices;
  for (std::size_t part = 0; part < head_->parts(); ++part) slices.push_back(head_->logits(hidden, part));
  return at::cat(slices, -1);
}

}  // namespace rometrace
