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

bool multiplies_bfloat16() {
  static const auto query = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_is_mkldnn_bf16_supported", "");
  std::vector<c10::IValue> stack;
  query.callBoxed(stack);
  return stack.at(0).toBool();
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

bool Linear::packs(at::ScalarType dtype, at::Device device) {
  if (!device.is_cpu() || !at::globalContext().hasMKLDNN()) return false;
  return dtype == at::kFloat || (dtype == at::kBFloat16 && multiplies_bfloat16());
}

Linear::Linear(const at::Tensor& weight, const at::Tensor& bias, Options options)
    : dtype_(weight.scalar_type()),
      packed_(options.products == Products::kFast && packs(dtype_, weight.device())),
      scratch_(options.scratch ? std::move(options.scratch) : std::make_shared<PackingScratch>()),
      when_packed_(packed_ ? std::move(options.packed) : nullptr) {
  if (options.widths.empty()) options.widths = {weight.size(1)};
  std::int64_t begin = 0;
  for (const auto width : options.widths) {
    parts_.push_back({weight.slice(1, begin, begin + width),
                      bias.defined() ? bias.slice(0, begin, begin + width).clone() : at::Tensor()});
    begin += width;
  }
  TORCH_INTERNAL_ASSERT(begin == weight.size(1), "the parts do not make up the whole");
}

const Linear::Part& Linear::ready(std::size_t part) const {
  if (packed_) {
    std::call_once(packing_, [this] {
      const std::scoped_lock lock(scratch_->mutex);
      for (auto& each : parts_) {  // some may be packed already, if memory ran out the last time
        if (!each.weight.is_mkldnn()) each.weight = pack(each.weight, scratch_->memory);
      }
      if (when_packed_) std::exchange(when_packed_, nullptr)();
    });
  }
  return parts_.at(part);
}

at::Tensor Linear::convert(const at::Tensor& x) const {
  return packed_ ? x.to(dtype_).contiguous() : x.to(dtype_);
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
