#include "rometrace/model/linear.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

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

// `weight` [in, out]; its transpose is what oneDNN packs, and a contiguous one is all that the operator takes.
at::Tensor pack(const at::Tensor& weight, at::Tensor& scratch) {
  auto transposed = weight.t();
  if (!transposed.is_contiguous()) {
    if (!scratch.defined() || scratch.numel() < weight.numel() || scratch.scalar_type() != weight.scalar_type()) {
      scratch = at::empty({weight.numel()}, weight.options());
    }
    const auto rows = scratch.slice(0, 0, weight.numel()).view(transposed.sizes());
    constexpr std::int64_t kRows = 128;  // of the transposed matrix; few enough that what is read stays in the cache
    at::parallel_for(0, (rows.size(0) + kRows - 1) / kRows, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = begin * kRows; i < std::min(end * kRows, rows.size(0)); i += kRows) {
        rows.slice(0, i, i + kRows).copy_(transposed.slice(0, i, i + kRows));
      }
    });
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

}  // namespace

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

Linear::Linear(Source source, Products products, std::shared_ptr<PackingScratch> scratch)
    : source_(std::move(source)),
      packed_(products == Products::kFast && packs(source_.dtype, source_.device)),
      scratch_(scratch ? std::move(scratch) : std::make_shared<PackingScratch>()) {}

const Linear::Part& Linear::ready(std::size_t part) const {
  std::call_once(reading_, [this] {
    auto parts = source_.read();
    TORCH_INTERNAL_ASSERT(parts.size() == source_.parts, "as many parts as were promised");
    for (auto& [weight, bias] : parts) {
      if (bias.defined()) bias = bias.clone();  // a view would keep all of the file's tensor
    }
    if (packed_) {
      const std::scoped_lock lock(scratch_->mutex);
      for (auto& each : parts) each.weight = pack(each.weight, scratch_->memory);
    }
    parts_ = std::move(parts);
    source_.read = nullptr;  // and what it holds
    if (packed_ && source_.release) source_.release();
  });
  return parts_.at(part);
}

at::Tensor Linear::convert(const at::Tensor& x) const {
  return packed_ ? x.to(source_.dtype).contiguous() : x.to(source_.dtype);
}

at::Tensor Linear::product(const at::Tensor& x, std::size_t part) const {
  const auto& [weight, bias] = ready(part);
  if (packed_) return packed_product(convert(x), weight, bias, {});
  auto y = at::matmul(convert(x), weight);
  return bias.defined() ? y.add_(bias) : y;
}

at::Tensor Linear::activated_product(const at::Tensor& x, Activation activation, std::size_t part) const {
  if (const auto fusion = fused(activation); packed_ && fusion) {
    const auto& [weight, bias] = ready(part);
    return packed_product(convert(x), weight, bias, *fusion);
  }
  return activate(product(x, part), activation);
}

}  // namespace rometrace
