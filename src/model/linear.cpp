#include "rometrace/model/linear.hpp"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <string>
#include <utility>

namespace rometrace {
namespace {

// oneDNN's products are reached by libtorch's dispatcher; its C++ headers do not declare them.
at::Tensor call_mkldnn(const c10::OperatorHandle& operation, std::vector<c10::IValue> stack) {
  operation.callBoxed(stack);
  return stack.at(0).toTensor();
}

// A buffer of a scratch for as long as something is packed.
class Buffer {
 public:
  explicit Buffer(PackingScratch& scratch) : scratch_(scratch) {
    const std::scoped_lock lock(scratch_.mutex);
    if (scratch_.free.empty()) return;
    memory = std::move(scratch_.free.back());
    scratch_.free.pop_back();
  }
  ~Buffer() {
    const std::scoped_lock lock(scratch_.mutex);
    if (memory.defined()) scratch_.free.push_back(std::move(memory));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  at::Tensor memory;

 private:
  PackingScratch& scratch_;
};

// `weight` [in, out]; its transpose is what oneDNN packs, and a contiguous one is all that the operator takes.
at::Tensor pack(const at::Tensor& weight, at::Tensor& scratch) {
  auto transposed = weight.t();
  if (!transposed.is_contiguous()) {
    if (!scratch.defined() || scratch.numel() < weight.numel() || scratch.scalar_type() != weight.scalar_type()) {
      scratch = at::empty({weight.numel()}, weight.options());
    }
    const auto rows = scratch.slice(0, 0, weight.numel()).view(transposed.sizes());
    rows.copy_(transposed);  // in one go, which libtorch does by tiles
    transposed = rows;
  }
  static const auto reorder = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_reorder_linear_weight", "");
  return call_mkldnn(reorder, {transposed, c10::IValue()});
}

// An activation that oneDNN computes while it writes the product, by its names.
struct Fused {
  std::string attribute = "none";
  c10::IValue algorithm;
};

std::optional<Fused> fused(Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh:
    case Activation::kGeluTanhRounded:  // by less than float32 resolves
      return Fused{"gelu", "tanh"};
    case Activation::kGeluErf:
      return Fused{"gelu", "none"};
    case Activation::kRelu:
      return Fused{"relu", {}};
    default:
      return std::nullopt;
  }
}

at::Tensor packed_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const Fused& fused) {
  static const auto linear = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "");
  return call_mkldnn(linear, {x, weight, bias.defined() ? c10::IValue(bias) : c10::IValue(), fused.attribute,
                              c10::List<std::optional<at::Scalar>>(), fused.algorithm});
}

}  // namespace

at::Tensor activated(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kGeluTanhRounded:
      return 0.5 * x * (1 + at::tanh(0.79788456 * x * (1 + 0.044715 * x * x)));
    case Activation::kGeluErf:
      return at::gelu(x);
    case Activation::kGeluQuick:
      return x * at::sigmoid(1.702 * x);
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kReluSquared:
      return at::relu(x).square();
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kTanh:
      return at::tanh(x);
    case Activation::kSigmoid:
      return at::sigmoid(x);
  }
  TORCH_INTERNAL_ASSERT(false, "activation not handled");
}

Processor Processor::here() {
  if (!at::globalContext().hasMKLDNN()) return {};
  static const auto query = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_is_mkldnn_bf16_supported", "");
  std::vector<c10::IValue> stack;
  query.callBoxed(stack);
  return {.multiplies_bfloat16 = stack.at(0).toBool()};
}

bool Linear::packs(at::ScalarType dtype, at::Device device) {
  if (!device.is_cpu() || !at::globalContext().hasMKLDNN()) return false;
  return dtype == at::kFloat || (dtype == at::kBFloat16 && Processor::here().multiplies_bfloat16);
}

// The weights of one product, shared with the graphs that differentiate it.
class Linear::Weights {
 public:
  Weights(Source source, Products products, std::shared_ptr<PackingScratch> scratch)
      : source_(std::move(source)),
        packed_(products == Products::kFast && packs(source_.dtype, source_.device)),
        scratch_(scratch ? std::move(scratch) : std::make_shared<PackingScratch>()),
        transposes_(source_.parts) {}

  bool packed() const { return packed_; }
  std::size_t parts() const { return source_.parts; }

  // Once read: weights [in, out], or packed [out, in].
  const Part& ready(std::size_t part) const {
    std::call_once(reading_, [this] {
      auto parts = read();
      for (auto& [weight, bias] : parts) {
        if (bias.defined()) bias = bias.clone();  // a view would keep all of the file's tensor
      }
      if (packed_) {
        Buffer buffer(*scratch_);
        for (auto& each : parts) each.weight = pack(each.weight, buffer.memory);
        if (source_.check) source_.check();
      }
      parts_ = std::move(parts);
      if (packed_ && source_.release) source_.release();
    });
    return parts_.at(part);
  }

  // To the weight's dtype.
  at::Tensor convert(const at::Tensor& x) const {
    return packed_ ? x.to(source_.dtype).contiguous() : x.to(source_.dtype);
  }

  // `x` in the weight's dtype.
  at::Tensor forward(const at::Tensor& x, std::size_t part) const {
    const auto& [weight, bias] = ready(part);
    if (packed_) return packed_product(x, weight, bias, {});
    auto y = at::matmul(x, weight);
    return bias.defined() ? y.add_(bias) : y;
  }

  // Whether pages of a file are behind it, which backwards let go again.
  bool releases() const { return source_.release != nullptr; }

  // dy W^T.
  at::Tensor backward(const at::Tensor& dy, std::size_t part) const {
    if (packed_) std::call_once(transposing_, [this] { transpose(); });
    if (transposes_[part].defined()) return packed_product(dy.contiguous(), transposes_[part], {}, {});
    auto dx = at::matmul(dy, (packed_ ? read().at(part) : parts_.at(part)).weight.t());
    if (source_.release) source_.release();
    return dx;
  }

 private:
  std::vector<Part> read() const {
    auto parts = source_.read();
    TORCH_INTERNAL_ASSERT(parts.size() == source_.parts, "as many parts as were promised");
    return parts;
  }

  // Packs the transposes, where there is room for them.
  void transpose() const {
    if (!source_.packs_transpose || !scratch_->has_room()) return;
    const auto parts = read();
    std::int64_t bytes = 0;
    for (const auto& part : parts) bytes += static_cast<std::int64_t>(part.weight.nbytes());
    {
      const std::scoped_lock lock(scratch_->mutex);
      if (bytes > scratch_->room_for_transposes) return;
      scratch_->room_for_transposes -= bytes;
    }
    Buffer buffer(*scratch_);
    for (std::size_t i = 0; i < parts.size(); ++i) transposes_[i] = pack(parts[i].weight.t(), buffer.memory);
    if (source_.check) source_.check();
    if (source_.release) source_.release();
  }

  Source source_;
  bool packed_;
  std::shared_ptr<PackingScratch> scratch_;
  mutable std::once_flag reading_, transposing_;
  mutable std::vector<Part> parts_;
  mutable std::vector<at::Tensor> transposes_;  // packed [in, out] once needed; undefined where there is no room
};

namespace {

// What autograd keeps of a product.
template <typename Weights>
struct Kept : torch::CustomClassHolder {
  explicit Kept(std::shared_ptr<const Weights> kept) : weights(std::move(kept)) {}
  std::shared_ptr<const Weights> weights;
};

// A product with its backward, which libtorch's own operator lacks where it is packed; where not, that would leave the
// pages of a file in memory that it has read.
template <typename Weights>
struct DifferentiatedProduct : torch::autograd::Function<DifferentiatedProduct<Weights>> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const std::shared_ptr<const Weights>& weights, std::size_t part) {
    context->saved_data["weights"] = c10::IValue::make_capsule(c10::make_intrusive<Kept<Weights>>(weights));
    context->saved_data["part"] = static_cast<std::int64_t>(part);
    return weights->forward(x, part);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto capsule = context->saved_data["weights"].toCapsule();
    const auto& weights = *static_cast<Kept<Weights>&>(*capsule).weights;
    const auto part = static_cast<std::size_t>(context->saved_data["part"].toInt());
    return {weights.backward(gradients[0], part), at::Tensor(), at::Tensor()};
  }
};

bool is_differentiated(const at::Tensor& x) {
  return at::GradMode::is_enabled() && x.requires_grad();
}

}  // namespace

Linear::Linear(Source source, Products products, std::shared_ptr<PackingScratch> scratch)
    : weights_(std::make_shared<const Weights>(std::move(source), products, std::move(scratch))) {}

bool Linear::packed() const {
  return weights_->packed();
}

std::size_t Linear::parts() const {
  return weights_->parts();
}

void Linear::prepare() const {
  weights_->ready(0);
}

at::Tensor Linear::product(const at::Tensor& x, std::size_t part) const {
  const auto converted = weights_->convert(x);
  if (is_differentiated(x) && (packed() || weights_->releases()))
    return DifferentiatedProduct<Weights>::apply(converted, weights_, part);
  return weights_->forward(converted, part);
}

at::Tensor Linear::activated_product(const at::Tensor& x, Activation activation, std::size_t part) const {
  const auto fusion = fused(activation);
  if (!packed() || !fusion || is_differentiated(x)) return activated(product(x, part), activation);
  const auto& [weight, bias] = weights_->ready(part);
  return packed_product(weights_->convert(x), weight, bias, *fusion);
}

}  // namespace rometrace
