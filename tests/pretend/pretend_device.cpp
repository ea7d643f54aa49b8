#include "pretend/pretend_device.hpp"

#include <ATen/EmptyTensor.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

namespace rometrace::testing {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

// ---- What was asked ----

struct Counters {
  std::mutex mutex;
  DeviceCounts counts;
};

Counters& counters() {
  static auto* all = new Counters;  // threads of libtorch's outlive statics
  return *all;
}

template <typename Change>
void count(const Change& change) {
  const std::scoped_lock lock(counters().mutex);
  change(counters().counts);
}

void count_operation(const std::string& name) {
  count([&](DeviceCounts& all) { ++all.operations[name]; });
}

// ---- Memory ----

// An address of the device is a host's address and this, which no host has.
constexpr std::uintptr_t kAway = std::uintptr_t{1} << 52;

void* on_device(void* host) {
  return host == nullptr ? nullptr : reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(host) + kAway);
}
void* on_host(const void* device) {
  return device == nullptr ? nullptr : reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(device) - kAway);
}

thread_local c10::DeviceIndex current_index = 0;

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    const c10::Device device(kType, current_index);
    if (bytes == 0) return {nullptr, device};
    void* host = c10::GetCPUAllocator()->raw_allocate(bytes);
    std::memset(host, 0xff, bytes);  // of every floating type not a number
    return {on_device(host), host, [](void* memory) { c10::GetCPUAllocator()->raw_deallocate(memory); }, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }  // what is freed is not what was given
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(on_host(to), on_host(from), bytes);
  }
};

Memory* memory() {
  static auto* one = new Memory;
  return one;
}

// ---- Device guards ----

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return {kType, current_index}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < kPretendDevices, device, " is none of ", kPretendDevices);
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0) current_index = device.index();
  }
  // Everything has been done when it has been asked for: one stream, and nothing to wait for.
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  bool queryStream(const c10::Stream& /*stream*/) const override { return true; }
  void synchronizeStream(const c10::Stream& /*stream*/) const override {}
  void synchronizeDevice(c10::DeviceIndex /*device*/) const override {}
  void record(void** /*event*/, const c10::Stream& /*stream*/, c10::DeviceIndex /*device*/,
              c10::EventFlag /*flag*/) const override {}
  void block(void* /*event*/, const c10::Stream& /*stream*/) const override {}
  bool queryEvent(void* /*event*/) const override { return true; }
  c10::DeviceIndex deviceCount() const noexcept override { return kPretendDevices; }
};

// What autograd asks of a device before it goes through it.
struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex /*device*/) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kPretendDevices; }
  c10::DeviceIndex getCurrentDevice() const override { return current_index; }
  void setCurrentDevice(c10::DeviceIndex device) const override { current_index = device; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(current_index, device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override { return exchangeDevice(device); }
};

// ---- Tensors of the device as tensors of the CPU, and back, over the same memory ----

bool is_ours(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kType;
}

// For one operation: the same tensor gives the same tensor, and the same storage the same storage, so that the CPU's
// kernels see who overlaps whom.
class Aliases {
 public:
  at::Tensor of(const at::Tensor& tensor) {
    auto& found = tensors_[tensor.unsafeGetTensorImpl()];
    if (found.alias.defined()) return found.alias;
    auto storage = storage_of(tensor.storage());
    auto alias = at::detail::make_tensor<c10::TensorImpl>(std::move(storage),
                                                          c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
    alias.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) alias.unsafeGetTensorImpl()->set_wrapped_number(true);
    found = {tensor, alias};
    return alias;
  }

  // The device's tensor for what a kernel gave.
  at::Tensor back(const at::Tensor& result, c10::Device device) {
    for (const auto& [impl, pair] : tensors_) {
      if (pair.alias.unsafeGetTensorImpl() == result.unsafeGetTensorImpl()) return pair.tensor;
    }
    for (const auto& [impl, pair] : storages_) {  // a view
      if (pair.alias.is_alias_of(result.storage())) return with_storage(pair.storage, result);
    }
    const c10::OptionalDeviceGuard guard(device);
    return with_storage(moved(result.storage(), device), result);
  }

  // What kernels have made larger or smaller, or given another shape.
  void take_over_shapes() {
    for (auto& [impl, pair] : storages_) {
      if (pair.alias.data() == on_host(pair.storage.data())) continue;
      auto grown = moved(pair.alias, pair.storage.device());
      pair.storage.unsafeGetStorageImpl()->set_nbytes(grown.nbytes());
      pair.storage.unsafeGetStorageImpl()->set_data_ptr_noswap(
          std::move(grown.unsafeGetStorageImpl()->_mutable_data_ptr_no_checks()));
    }
    for (auto& [impl, pair] : tensors_) {
      const auto& [tensor, alias] = pair;
      if (tensor.sizes() == alias.sizes() && tensor.strides() == alias.strides()) continue;
      tensor.unsafeGetTensorImpl()->set_sizes_and_strides(alias.sizes(), alias.strides(), alias.storage_offset());
    }
  }

 private:
  struct OfTensor {
    at::Tensor tensor, alias;
  };
  struct OfStorage {
    c10::Storage storage, alias;
  };

  c10::Storage storage_of(const c10::Storage& storage) {
    auto& found = storages_[storage.unsafeGetStorageImpl()];
    if (found.alias) return found.alias;
    c10::DataPtr data(on_host(storage.data()), c10::Device(c10::kCPU));
    found = {storage, c10::Storage(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data),
                                   c10::GetCPUAllocator(), /*resizable=*/true)};
    return found.alias;
  }

  // The CPU's memory as the device's.
  static c10::Storage moved(const c10::Storage& storage, c10::Device device) {
    c10::DataPtr data(
        on_device(storage.mutable_data()), new c10::Storage(storage),
        [](void* kept) { delete static_cast<c10::Storage*>(kept); }, device);
    return {c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), memory(), /*resizable=*/true};
  }

  static at::Tensor with_storage(const c10::Storage& storage, const at::Tensor& like) {
    auto tensor = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), like.dtype());
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
    return tensor;
  }

  std::map<c10::TensorImpl*, OfTensor> tensors_;
  std::map<c10::StorageImpl*, OfStorage> storages_;
};

// ---- Operations ----

// Tensors among an operation's arguments, wherever they are.
template <typename Visit>
void visit_tensors(c10::IValue& value, const Visit& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) value = visit(value.toTensor());
  } else if (value.isTensorList()) {
    auto list = value.toTensorList().copy();
    for (std::size_t i = 0; i < list.size(); ++i) list.set(i, visit(list.get(i)));
    value = list;
  } else if (value.isOptionalTensorList()) {
    auto list = value.toOptionalTensorList().copy();
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::optional<at::Tensor> element = list.get(i);
      if (element && element->defined()) list.set(i, visit(*element));
    }
    value = list;
  }
}

bool is_view(const c10::FunctionSchema& schema) {
  return std::any_of(schema.returns().begin(), schema.returns().end(), [](const c10::Argument& result) {
    return result.alias_info() != nullptr && !result.alias_info()->isWrite();
  });
}

bool is_mutated(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

// Of the values alone it depends how much comes out, or whether all is well.
bool waits(const std::string& name) {
  static const std::set<std::string> all = {
      "aten::equal",      "aten::nonzero",        "aten::masked_select", "aten::_unique",
      "aten::_unique2",   "aten::unique_dim",     "aten::bincount",      "aten::unique_consecutive",
      "aten::is_nonzero", "aten::nonzero_static", "aten::masked_scatter"};
  return all.contains(name);
}

// Where CUDA's kernels take whole tensors of indices from the host, too, and copy them.
bool takes_indices_of_host(const std::string& name) {
  return name == "aten::index" || name == "aten::index_put" || name == "aten::index_put_" ||
         name == "aten::_index_put_impl_";
}

void check_devices(const c10::OperatorHandle& operation, const torch::jit::Stack& arguments) {
  const auto& schema = operation.schema();
  const auto& name = schema.operator_name().name;
  std::optional<c10::Device> device;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    auto value = arguments[i];
    visit_tensors(value, [&](const at::Tensor& tensor) {
      if (is_ours(tensor)) {
        TORCH_CHECK(!device || *device == tensor.device(), name, ": tensors on ", *device, " and ", tensor.device());
        device = tensor.device();
      }
      return tensor;
    });
  }
  for (std::size_t i = 0; device && i < arguments.size(); ++i) {
    auto value = arguments[i];
    const bool is_list = !value.isTensor();
    visit_tensors(value, [&](const at::Tensor& tensor) {
      if (is_ours(tensor)) return tensor;
      if (is_list && takes_indices_of_host(name)) {
        const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
        if (name == "aten::index") return tensor;  // which libtorch has copied before
        count([&](DeviceCounts& all) { all.to_device = {all.to_device.count + 1, all.to_device.bytes + bytes}; });
        return tensor;
      }
      // A number that is passed with the kernel.
      TORCH_CHECK(tensor.device().is_cpu() && tensor.dim() == 0 && !is_mutated(schema.arguments()[i]), name,
                  ": argument ", schema.arguments()[i].name(), " is on ", tensor.device(), ", others are on ", *device);
      return tensor;
    });
  }
}

void compute(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  const auto& schema = operation.schema();
  const auto wanted = schema.arguments().size();
  torch::jit::Stack arguments(stack->end() - static_cast<std::ptrdiff_t>(wanted), stack->end());
  check_devices(operation, arguments);
  c10::Device device(kType, current_index);
  Aliases aliases;
  std::vector<c10::IValue> given = arguments;
  std::int64_t elements = 0;
  bool masks = false;  // indices that are as many as are true
  for (auto& argument : arguments) {
    if (argument.isDevice() && argument.toDevice().type() == kType) {
      device = argument.toDevice();
      argument = c10::Device(c10::kCPU);
    }
    const bool is_list = argument.isOptionalTensorList();
    visit_tensors(argument, [&](const at::Tensor& tensor) {
      elements += tensor.numel();
      masks = masks || (is_list && (tensor.scalar_type() == at::kBool || tensor.scalar_type() == at::kByte));
      if (!is_ours(tensor)) return tensor;
      device = tensor.device();
      return aliases.of(tensor);
    });
  }
  const auto& name = schema.operator_name();
  if (!is_view(schema)) {
    if (elements > 0)
      count_operation(name.name.substr(std::strlen("aten::")) +
                      (name.overload_name.empty() ? "" : "." + name.overload_name));
    if (waits(name.name) || masks) count([](DeviceCounts& all) { ++all.waits; });
  }
  operation.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &arguments);
  aliases.take_over_shapes();
  torch::jit::drop(*stack, wanted);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    auto& result = arguments[i];
    visit_tensors(result, [&](const at::Tensor& tensor) { return aliases.back(tensor, device); });
    stack->push_back(std::move(result));
  }
}

at::Tensor empty(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout> /*layout*/,
                 std::optional<at::Device> device, std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!pinned.value_or(false), "memory of a device is not pinned");
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(sizes, memory(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout> /*layout*/, std::optional<at::Device> device,
                         std::optional<bool> pinned) {
  TORCH_CHECK(!pinned.value_or(false), "memory of a device is not pinned");
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(sizes, strides, memory(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool /*non_blocking*/) {
  const bool whole = from.is_contiguous() && from.scalar_type() == to.scalar_type() && from.sizes() == to.sizes();
  const auto bytes = to.numel() * static_cast<std::int64_t>(to.element_size());
  if (to.numel() > 0) {
    count([&](DeviceCounts& all) {
      if (is_ours(from) && is_ours(to)) {
        ++all.operations[from.device() == to.device() ? "copy_" : "copy_ to another device"];
      } else if (is_ours(to)) {
        all.to_device = {all.to_device.count + 1, all.to_device.bytes + bytes};
        if (!to.is_contiguous()) ++all.operations["copy_"];  // from where the bytes have come to
      } else {
        all.to_host = {all.to_host.count + 1, all.to_host.bytes + bytes};
        ++all.waits;
        if (!whole) ++all.operations["copy_"];  // to where the bytes are fetched
      }
    });
  }
  Aliases aliases;
  const auto alias = [&](const at::Tensor& tensor) { return is_ours(tensor) ? aliases.of(tensor) : tensor; };
  alias(to).copy_(alias(from));
  return to;
}

at::Scalar number(const at::Tensor& tensor) {
  count([](DeviceCounts& all) {
    ++all.waits;
    ++all.numbers;
  });
  Aliases aliases;
  return at::_local_scalar_dense(aliases.of(tensor));
}

}  // namespace

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("_copy_from", &copy_from);
  library.impl("_local_scalar_dense", &number);
  // What libtorch would make of other operations, and CUDA has a kernel for.
  for (const char* name : {"native_layer_norm", "native_layer_norm_backward"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&compute>());
  }
}

c10::Device pretend_device(int index) {
  static const bool named = [] {
    c10::SetAllocator(kType, memory());
    at::RegisterPrivateUse1HooksInterface(new Hooks);  // for as long as the program runs
    c10::register_privateuse1_backend("pretend");
    return true;
  }();
  TORCH_INTERNAL_ASSERT(named && index >= 0 && index < kPretendDevices);
  return {kType, static_cast<c10::DeviceIndex>(index)};
}

std::int64_t DeviceCounts::launches() const {
  std::int64_t sum = 0;
  for (const auto& [name, times] : operations) sum += times;
  return sum;
}

std::string DeviceCounts::text() const {
  std::vector<std::pair<std::int64_t, std::string>> sorted;
  for (const auto& [name, times] : operations) sorted.emplace_back(-times, name);
  std::sort(sorted.begin(), sorted.end());
  std::ostringstream text;
  for (const auto& [times, name] : sorted) text << (text.tellp() > 0 ? ", " : "") << -times << ' ' << name;
  return text.str();
}

DeviceCounts DeviceCounts::operator-(const DeviceCounts& before) const {
  DeviceCounts since;
  for (const auto& [name, times] : operations) {
    const auto found = before.operations.find(name);
    const auto more = times - (found == before.operations.end() ? 0 : found->second);
    if (more != 0) since.operations[name] = more;
  }
  const auto less = [](const Copies& all, const Copies& some) {
    return Copies{all.count - some.count, all.bytes - some.bytes};
  };
  since.to_device = less(to_device, before.to_device);
  since.to_host = less(to_host, before.to_host);
  since.waits = waits - before.waits;
  since.numbers = numbers - before.numbers;
  return since;
}

DeviceCounts device_counts() {
  const std::scoped_lock lock(counters().mutex);
  return counters().counts;
}

}  // namespace rometrace::testing
