#include "rometrace/model/checkpoint.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <system_error>
#include <type_traits>
#include <utility>

#include "hub/weight_files.hpp"
#include "model/gguf.hpp"
#include "model/gguf_types.hpp"
#include "model/microscaled.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/safetensors.hpp"
#include "rometrace/model/torch_file.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/gguf_header.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

WeightFile open_safetensors(const fs::path& path) {
  return SafetensorsFile::open(path);
}
WeightFile open_torch_file(const fs::path& path) {
  return TorchFile::open(path);
}

/// One of the ways in which a folder can hold weights.
struct Layout : WeightNames {
  WeightFile (*open)(const fs::path&);
};

constexpr Layout kSafetensors{kSafetensorsNames, open_safetensors};
constexpr Layout kTorch{kTorchNames, open_torch_file};

constexpr std::string_view kModule = "module.";

// Elements converted at a time: the source's pages are let go after each step, so this bounds what is held of them.
constexpr std::int64_t kConversionStep = std::int64_t{1} << 20;

/// Whether the folder has an entry of that name: a link that leads nowhere counts, so that opening it can say so.
bool has_entry(const fs::path& folder, const char* name) {
  std::error_code ignored;
  return fs::symlink_status(folder / name, ignored).type() != fs::file_type::not_found && !ignored;
}

/// `name` without the names of modules that PyTorch puts around others: by torch.compile, FSDP and checkpoints of
/// activations, anywhere; by DataParallel ("module.") in front, where `in_module` says that all names have it.
std::string without_wrappers(std::string name, bool in_module) {
  constexpr std::array<std::string_view, 3> kWrappers = {"_orig_mod.", "_fsdp_wrapped_module.",
                                                         "_checkpoint_wrapped_module."};
  for (const auto wrapper : kWrappers) {
    for (auto at = name.find(wrapper); at != std::string::npos; at = name.find(wrapper, at)) {
      if (at == 0 || name[at - 1] == '.') {
        name.erase(at, wrapper.size());
      } else {
        ++at;
      }
    }
  }
  if (in_module && name.starts_with(kModule)) name.erase(0, kModule.size());
  return name;
}

/// The first file that is named as a part of several, "model-00001-of-00002.safetensors", say; empty if there is none.
std::string find_shard(const fs::path& folder) {
  std::set<std::string> shards;
  std::error_code ignored;
  for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    const bool is_weights = name.starts_with("model-") || name.starts_with("pytorch_model-");
    if (is_weights && name.find("-of-") != std::string::npos) shards.insert(name);
  }
  return shards.empty() ? "" : *shards.begin();
}

[[noreturn]] void refuse_folder_without_weights(const fs::path& folder) {
  const std::string where = label_of(folder);
  std::error_code error;
  if (!fs::is_directory(folder, error)) throw Error(where + ": not a folder; expected the folder of a model");
  if (const std::string shard = find_shard(folder); !shard.empty()) {
    throw Error(where + ": holds " + in_quotes(shard) + ", but no " + kSafetensors.index_file + " or " +
                kTorch.index_file + ", which would say what the parts are; get the whole folder");
  }
  for (const char* other : {"tf_model.h5", "flax_model.msgpack", "rust_model.ot", "adapter_model.safetensors"}) {
    if (has_entry(folder, other)) {
      throw Error(where + ": holds " + other + ", but no " + kSafetensors.single_file + " or " + kTorch.single_file +
                  ", which are what is read here");
    }
  }
  throw Error(where + ": no weights: expected " + kSafetensors.single_file + ", " + kTorch.single_file +
              " or the index of their parts");
}

/// The type of a file's floating-point tensors; nothing for the others.
std::optional<at::ScalarType> plain_type(std::string_view dtype) {
  static constexpr std::array<std::pair<std::string_view, at::ScalarType>, 4> kTypes{
      {{"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"F64", at::kDouble}}};
  for (const auto& [name, type] : kTypes) {
    if (dtype == name) return type;
  }
  return std::nullopt;
}

/// The same, and float32 of those in blocks.
std::optional<at::ScalarType> floating_type(std::string_view dtype) {
  if (const auto plain = plain_type(dtype)) return plain;
  return gguf_block_type(dtype) == nullptr ? std::nullopt : std::optional(at::kFloat);
}

bool is_aligned(std::span<const std::byte> bytes, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % alignment == 0;
}

/// The file's bytes themselves as a tensor, which keeps the file open. libtorch has no read-only tensors: whoever
/// writes to it is stopped by the memory protection.
at::Tensor view_of(std::shared_ptr<const WeightFile> file, const TensorView& source, at::ScalarType type) {
  void* data = const_cast<std::byte*>(source.bytes.data());
  return at::from_blob(
      data, source.shape, [keep = std::move(file)](void*) {}, at::TensorOptions().dtype(type));
}

void stop_if_asked(const std::stop_token& stop) {
  if (stop.stop_requested()) throw Interrupted();
}

/// A copy of the tensor as `type`, in memory of its own. Its elements are row-major in the file.
at::Tensor convert_in_steps(const WeightFile& file, const TensorView& source, at::ScalarType source_type,
                            at::ScalarType type, const std::stop_token& stop) {
  at::Tensor result = at::empty(source.shape, at::TensorOptions().dtype(type));
  at::Tensor flat = result.view({-1});
  const std::int64_t count = result.numel();
  const std::size_t width = c10::elementSize(source_type);
  std::vector<std::byte> aligned;  // the file promises no alignment, and a tensor needs it
  for (std::int64_t begin = 0; begin < count; begin += kConversionStep) {
    const std::int64_t length = std::min(kConversionStep, count - begin);
    const std::span<const std::byte> bytes =
        source.bytes.subspan(static_cast<std::size_t>(begin) * width, static_cast<std::size_t>(length) * width);
    void* data = const_cast<std::byte*>(bytes.data());
    if (!is_aligned(bytes, width)) {
      aligned.assign(bytes.begin(), bytes.end());
      data = aligned.data();
    }
    flat.narrow(0, begin, length).copy_(at::from_blob(data, {length}, at::TensorOptions().dtype(source_type)));
    file.release(bytes);
    if (begin + length < count) stop_if_asked(stop);
  }
  return result;
}

/// The same of one that is kept in blocks.
at::Tensor convert_blocks(const WeightFile& file, const TensorView& source, const GgufType& blocks, at::ScalarType type,
                          const std::stop_token& stop) {
  at::Tensor result = at::empty(source.shape, at::TensorOptions().dtype(type));
  at::Tensor flat = result.view({-1});
  const auto count = result.numel() / blocks.numbers, step = kConversionStep / blocks.numbers;
  at::Tensor numbers =
      type == at::kFloat ? at::Tensor() : at::empty({std::min(count, step) * blocks.numbers}, at::kFloat);
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const auto some = std::min(step, count - begin);
    const auto bytes = source.bytes.subspan(static_cast<std::size_t>(begin) * blocks.bytes,
                                            static_cast<std::size_t>(some) * blocks.bytes);
    const auto target = flat.narrow(0, begin * blocks.numbers, some * blocks.numbers);
    auto* made = (numbers.defined() ? numbers : target).mutable_data_ptr<float>();
    constexpr std::int64_t kGrain = std::int64_t{1} << 15;  // numbers that are worth another thread
    at::parallel_for(0, some, kGrain / blocks.numbers, [&](std::int64_t first, std::int64_t last) {
      for (auto i = first; i < last; ++i) {
        blocks.read(bytes.data() + static_cast<std::size_t>(i) * blocks.bytes, made + i * blocks.numbers);
      }
    });
    if (numbers.defined()) target.copy_(numbers.narrow(0, 0, target.numel()));
    file.release(bytes);
    if (begin + some < count) stop_if_asked(stop);
  }
  return result;
}

/// A row-major copy, as `type`, of a tensor whose elements have another order in the file: a transposed one, say.
at::Tensor convert_strided(const WeightFile& file, const TensorView& source, at::ScalarType source_type,
                           at::ScalarType type) {
  void* data = const_cast<std::byte*>(source.bytes.data());
  std::vector<std::byte> aligned;
  if (!is_aligned(source.bytes, c10::elementSize(source_type))) {
    aligned.assign(source.bytes.begin(), source.bytes.end());
    data = aligned.data();
  }
  at::Tensor result = at::empty(source.shape, at::TensorOptions().dtype(type));
  result.copy_(at::from_blob(data, source.shape, source.strides, at::TensorOptions().dtype(source_type)));
  file.release(source.bytes);
  return result;
}

/// A row-major copy of any of them.
at::Tensor convert(const WeightFile& file, const TensorView& source, at::ScalarType type, const std::stop_token& stop) {
  const auto plain = plain_type(source.dtype);
  if (!plain) return convert_blocks(file, source, *gguf_block_type(source.dtype), type, stop);
  return source.strides.empty() ? convert_in_steps(file, source, *plain, type, stop)
                                : convert_strided(file, source, *plain, type);
}

/// Whether the tensor has more elements than its bytes hold, so that it could be larger than any file.
bool repeats_elements(const TensorView& source, at::ScalarType type) {
  std::uint64_t count = 1;  // fits: whoever read the file has seen to it
  for (const std::int64_t length : source.shape) count *= static_cast<std::uint64_t>(length);
  return count > source.bytes.size() / c10::elementSize(type);
}

at::Tensor read(const std::shared_ptr<const WeightFile>& file, const TensorView& source, at::ScalarType dtype,
                const std::stop_token& stop) {
  file->check_whole();
  const bool is_wanted = plain_type(source.dtype) == dtype;
  if (source.strides.empty() && is_wanted && is_aligned(source.bytes, c10::elementSize(dtype))) {
    return view_of(file, source, dtype);
  }
  auto converted = convert(*file, source, dtype, stop);
  file->check_whole();  // it may have been cut meanwhile, within a page
  return converted;
}

/// Rows of the first dimension.
TensorView rows_of(TensorView source, std::int64_t begin, std::int64_t end) {
  TORCH_INTERNAL_ASSERT(!source.shape.empty() && 0 <= begin && begin < end && end <= source.shape.front(),
                        "no such rows");
  if (source.strides.empty()) {
    const auto row = source.bytes.size() / static_cast<std::size_t>(source.shape.front());
    source.bytes =
        source.bytes.subspan(static_cast<std::size_t>(begin) * row, static_cast<std::size_t>(end - begin) * row);
  } else {
    const auto element = c10::elementSize(*floating_type(source.dtype));
    source.bytes = source.bytes.subspan(static_cast<std::size_t>(begin * source.strides.front()) * element);
  }
  source.shape.front() = end - begin;
  return source;
}

/// The other half of a matrix in MXFP4.
struct Scales {
  std::shared_ptr<const WeightFile> file;
  const TensorView* tensor;
  TensorView whole;  ///< the matrix
};

/// Rows [begin, end) of the first dimension of such a matrix, whose blocks are in `file`.
at::Tensor read_rows(const std::shared_ptr<const WeightFile>& file, const Scales& scales, at::ScalarType dtype,
                     std::int64_t begin, std::int64_t end, const std::stop_token& stop) {
  const auto blocks_of = rows_of(scales.whole, begin, end), scales_of = rows_of(*scales.tensor, begin, end);
  const auto check = [&] {
    file->check_whole();
    scales.file->check_whole();
  };
  check();
  at::Tensor result = at::empty(blocks_of.shape, at::TensorOptions().dtype(dtype));
  const auto flat = result.view({-1});
  const auto count = static_cast<std::int64_t>(scales_of.bytes.size()), step = kConversionStep / kMicroscaledNumbers;
  for (std::int64_t first = 0; first < count; first += step) {
    const auto some = std::min(step, count - first), numbers = some * kMicroscaledNumbers;
    const auto part = [&](std::span<const std::byte> bytes, std::int64_t of_one) {
      return bytes.subspan(static_cast<std::size_t>(first * of_one), static_cast<std::size_t>(some * of_one));
    };
    const auto blocks = part(blocks_of.bytes, kMicroscaledNumbers / 2), powers = part(scales_of.bytes, 1);
    const auto target = flat.narrow(0, first * kMicroscaledNumbers, numbers);
    const auto made = dtype == at::kFloat ? target : at::empty({numbers}, at::kFloat);
    read_microscaled(blocks, powers, made.mutable_data_ptr<float>());
    if (dtype != at::kFloat) target.copy_(made);
    file->release(blocks);
    scales.file->release(powers);
    if (first + some < count) stop_if_asked(stop);
  }
  check();
  return result;
}

/// A change of rank n that is laid over a matrix, both float32: rows [n, rows of the matrix], columns [n, its columns].
struct Overlay {
  at::Tensor rows, columns;
};

template <typename Number>
Number rounded(double value) {
  if constexpr (std::is_same_v<Number, double>) {
    return value;
  } else {
    return static_cast<Number>(static_cast<float>(value));  // to half precision as at::Tensor::to rounds
  }
}

/// Adds it to some of the matrix's rows, from `first` on, in place. Each number is computed by itself, its n products
/// in order and in double, in which a product of two float32 is exact: neither threads nor fused multiply-adds matter.
template <typename Number>
void add_to_rows(const at::Tensor& some, std::int64_t first, const Overlay& overlay) {
  const auto count = some.size(0), columns = some.size(1), n = overlay.rows.size(0), rows = overlay.rows.size(1);
  auto* numbers = some.mutable_data_ptr<Number>();
  const auto* of_rows = overlay.rows.const_data_ptr<float>();
  const auto* of_columns = overlay.columns.const_data_ptr<float>();
  constexpr std::int64_t kProducts = std::int64_t{1} << 15;  // as many are worth another thread
  const auto grain = std::max<std::int64_t>(1, kProducts / std::max<std::int64_t>(1, n * columns));
  at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> sums(static_cast<std::size_t>(columns));
    for (std::int64_t row = begin; row < end; ++row) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t i = 0; i < n; ++i) {
        const double factor = of_rows[i * rows + first + row];
        const float* column = of_columns + i * columns;
        for (std::int64_t j = 0; j < columns; ++j) sums[static_cast<std::size_t>(j)] += factor * double{column[j]};
      }
      Number* of_row = numbers + row * columns;
      for (std::int64_t j = 0; j < columns; ++j) {
        of_row[j] = rounded<Number>(static_cast<double>(of_row[j]) + sums[static_cast<std::size_t>(j)]);
      }
    }
  });
}

/// The same for a tensor of any floating-point type, to which each sum is rounded at once.
void add_to(const at::Tensor& some, std::int64_t first, const Overlay& overlay) {
  switch (some.scalar_type()) {
    case at::kFloat:
      return add_to_rows<float>(some, first, overlay);
    case at::kDouble:
      return add_to_rows<double>(some, first, overlay);
    case at::kHalf:
      return add_to_rows<at::Half>(some, first, overlay);
    default:
      return add_to_rows<at::BFloat16>(some, first, overlay);
  }
}

using Overlays = std::vector<std::shared_ptr<const Overlay>>;

/// Gives the rows of a matrix some at a time, in the file's dtype (float32 for blocks) and in memory of their own:
/// `take(rows, first)`.
template <typename Take>
void for_some_rows(const std::shared_ptr<const WeightFile>& file, const TensorView& source, std::int64_t begin,
                   std::int64_t end, const std::stop_token& stop, Take take) {
  const auto type = *floating_type(source.dtype);
  const auto step = std::max<std::int64_t>(1, kConversionStep / std::max<std::int64_t>(1, source.shape.at(1)));
  for (auto first = begin; first < end; first += step) {
    const auto rows = rows_of(source, first, std::min(first + step, end));
    take(convert(*file, rows, type, stop), first);
  }
}

/// Rows [begin, end) of a matrix with what is laid over it, as `dtype`.
at::Tensor read_changed(const std::shared_ptr<const WeightFile>& file, const TensorView& source,
                        const Overlays& overlays, at::ScalarType dtype, std::int64_t begin, std::int64_t end,
                        const std::stop_token& stop) {
  at::Tensor result = at::empty({end - begin, source.shape.at(1)}, at::TensorOptions().dtype(dtype));
  for_some_rows(file, source, begin, end, stop, [&](const at::Tensor& some, std::int64_t first) {
    for (const auto& overlay : overlays) add_to(some, first, *overlay);
    result.narrow(0, first - begin, some.size(0)).copy_(some);
  });
  return result;
}

}  // namespace

struct Checkpoint::Impl {
  struct Place {
    std::shared_ptr<const WeightFile> file;
    const TensorView* tensor;
    Overlays overlays = {};
    std::shared_ptr<const Scales> scales = nullptr;  // of a matrix in MXFP4, whose blocks `tensor` has

    /// What may be done with the bytes of its rows: `act(file, tensor)`, of both halves where there are two.
    template <typename Act>
    void for_each_part(Act act) const {
      act(*file, *tensor);
      if (scales != nullptr) act(*scales->file, *scales->tensor);
    }

    at::Tensor rows(at::ScalarType dtype, std::int64_t begin, std::int64_t end, const std::stop_token& stop) const {
      if (scales != nullptr) return read_rows(file, *scales, dtype, begin, end, stop);
      if (!overlays.empty()) return read_changed(file, *tensor, overlays, dtype, begin, end, stop);
      return read(file, rows_of(*tensor, begin, end), dtype, stop);
    }
  };

  void add(const fs::path& path, const Layout& layout) { add(std::make_shared<const WeightFile>(layout.open(path))); }

  void add(const std::shared_ptr<const WeightFile>& file) {
    const auto& path = file->path();
    for (const TensorView& tensor : file->tensors()) {
      const auto [place, is_new] = places.emplace(tensor.name, Place{file, &tensor, {}});
      if (!is_new) {
        throw Error(label_of(path) + ": holds tensor " + in_quotes(tensor.name) + ", and so does " +
                    label_of(place->second.file->path().filename()) + "; expected each in one file");
      }
    }
    files.push_back(path);
  }

  const Place& find(std::string_view name) const {
    const auto found = places.find(name);
    if (found != places.end()) return found->second;
    const auto shard = absent.find(name);
    throw Error(label() + ": no tensor " + in_quotes(name) +
                (shard == absent.end()
                     ? ""
                     : ", which the index says is in " + in_quotes(shard->second) + "; get both files again"));
  }

  /// One that has this shape and is of floating-point numbers.
  const Place& find(std::string_view name, const std::vector<std::int64_t>& shape) const {
    const auto& place = find(name);
    const std::string where = label_of(place.file->path()) + ": tensor " + in_quotes(name);
    if (place.tensor->shape != shape) {
      throw Error(where + " has shape " + shape_text(place.tensor->shape) + "; expected " + shape_text(shape));
    }
    if (!floating_type(place.tensor->dtype)) {
      throw Error(where + " is of dtype " + place.tensor->dtype + "; expected " +
                  (is_gguf ? gguf_type_names() : "F32, F16, BF16 or F64"));
    }
    if (!place.tensor->strides.empty() && repeats_elements(*place.tensor, *floating_type(place.tensor->dtype))) {
      throw Error(where + " has more elements than its bytes hold; expected each to have its own");
    }
    return place;
  }

  /// All shards that the index names.
  void add_shards(const fs::path& index, const Layout& layout) {
    const std::map<std::string, std::string> shard_of = read_weight_map(index);
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
    for (const std::string& shard : shards) add(index.parent_path() / shard, layout);
    for (const auto& [tensor, shard] : shard_of) {
      const auto found = places.find(tensor);
      if (found == places.end()) {
        absent.emplace(tensor, shard);  // refused if the model needs it, as transformers does
      } else if (found->second.file->path().filename() != shard) {
        throw Error(label_of(index) + ": tensor " + in_quotes(tensor) + " is not in " + in_quotes(shard) +
                    ", where the index says; get both files again");
      }
    }
  }

  /// Takes the names of PyTorch's wrappers out of those of the tensors.
  void unwrap() {
    const bool in_module = std::all_of(places.begin(), places.end(), [](const auto& place) {
      return without_wrappers(place.first, /*in_module=*/false).starts_with(kModule);
    });
    const auto renamed = [&](auto& named) {
      std::remove_reference_t<decltype(named)> unwrapped;
      for (auto& [name, value] : named) {
        const auto [same, is_new] = unwrapped.emplace(without_wrappers(name, in_module), value);
        if (is_new) continue;
        throw Error(label() + ": tensor " + in_quotes(name) + " is there twice, as " + in_quotes(same->first) + " too");
      }
      named = std::move(unwrapped);
    };
    renamed(places);
    renamed(absent);
  }

  /// Puts the two halves of each matrix in MXFP4 together, under its own name.
  void join_microscaled() {
    std::vector<std::string> names;
    for (const auto& [name, place] : places) {
      if (name.ends_with(kBlocksEnding)) names.push_back(name.substr(0, name.size() - kBlocksEnding.size()));
    }
    for (const auto& name : names) {
      const auto blocks = places.find(name + std::string(kBlocksEnding));
      const auto scales = places.find(name + std::string(kScalesEnding));
      if (scales == places.end() || places.contains(name)) continue;
      const auto& [file, tensor, overlays, none] = blocks->second;
      auto whole = microscaled_view(name, *tensor, *scales->second.tensor, label_of(file->path()));
      auto both = std::make_shared<const Scales>(Scales{scales->second.file, scales->second.tensor, std::move(whole)});
      Place place{file, &both->whole, {}, both};
      places.erase(blocks);
      places.erase(scales);
      places.emplace(name, std::move(place));
    }
  }

  /// For messages: the file, or the folder where the weights are in several.
  std::string label() const { return label_of(files.size() == 1 ? files.front() : files.front().parent_path()); }

  std::map<std::string, Place, std::less<>> places;
  std::map<std::string, std::string, std::less<>> absent;  // tensors of the index that are in no shard: their shards
  std::vector<fs::path> files;
  std::stop_token stop;
  bool is_safetensors = true, is_gguf = false;
};

Checkpoint Checkpoint::open(const fs::path& model, std::stop_token stop) {
  auto impl = std::make_shared<Impl>();
  impl->stop = std::move(stop);
  if (is_model_file(model)) {
    impl->is_safetensors = false;
    impl->is_gguf = true;
    for (const auto& file : GgufFile::open_all(model)) impl->add(file);
    return Checkpoint(std::move(impl));
  }
  // The order in which transformers looks for them.
  for (const Layout& layout : {kSafetensors, kTorch}) {
    impl->is_safetensors = layout.open == kSafetensors.open;
    if (has_entry(model, layout.single_file)) {
      impl->add(model / layout.single_file, layout);
      impl->unwrap();
      impl->join_microscaled();
      return Checkpoint(std::move(impl));
    }
    if (has_entry(model, layout.index_file)) {
      impl->add_shards(model / layout.index_file, layout);
      impl->unwrap();
      impl->join_microscaled();
      return Checkpoint(std::move(impl));
    }
  }
  refuse_folder_without_weights(model);
}

Checkpoint::Checkpoint(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

bool Checkpoint::contains(std::string_view name) const {
  return impl_->places.find(name) != impl_->places.end();
}

at::Tensor Checkpoint::tensor(std::string_view name, const std::vector<std::int64_t>& shape,
                              at::ScalarType dtype) const {
  const auto& place = impl_->find(name, shape);
  if (place.overlays.empty() && place.scales == nullptr) return read(place.file, *place.tensor, dtype, impl_->stop);
  return place.rows(dtype, 0, shape.front(), impl_->stop);
}

at::Tensor Checkpoint::rows(std::string_view name, const std::vector<std::int64_t>& shape, at::ScalarType dtype,
                            std::int64_t begin, std::int64_t end) const {
  return impl_->find(name, shape).rows(dtype, begin, end, impl_->stop);
}

void Checkpoint::check(std::string_view name, const std::vector<std::int64_t>& shape) const {
  impl_->find(name, shape);
}

bool Checkpoint::equal(std::string_view name, std::string_view other) const {
  const auto& [file, first, overlays, scales] = impl_->find(name);
  const auto& [other_file, second, other_overlays, other_scales] = impl_->find(other);
  if (overlays != other_overlays || scales != other_scales) return false;
  if (first->bytes.size() != second->bytes.size()) return false;
  if (first->dtype != second->dtype || first->shape != second->shape || first->strides != second->strides) return false;
  if (first->bytes.data() == second->bytes.data()) return true;  // one storage under two names
  constexpr std::size_t kStep = std::size_t{1} << 24;            // bytes; the pages are let go after each
  for (std::size_t begin = 0; begin < first->bytes.size(); begin += kStep) {
    const auto length = std::min(kStep, first->bytes.size() - begin);
    const auto some = first->bytes.subspan(begin, length), same = second->bytes.subspan(begin, length);
    const bool differ = std::memcmp(some.data(), same.data(), length) != 0;
    file->release(some);
    other_file->release(same);
    if (differ) return false;
    stop_if_asked(impl_->stop);
  }
  return true;
}

void Checkpoint::check_whole(std::string_view name) const {
  impl_->find(name).for_each_part([](const WeightFile& file, const TensorView&) { file.check_whole(); });
}

void Checkpoint::prefetch(std::string_view name) const {
  const auto found = impl_->places.find(name);
  if (found == impl_->places.end()) return;
  found->second.for_each_part([](const WeightFile& file, const TensorView& part) { file.prefetch(part.bytes); });
}

void Checkpoint::release(std::string_view name) const {
  const auto found = impl_->places.find(name);
  if (found == impl_->places.end()) return;
  found->second.for_each_part([](const WeightFile& file, const TensorView& part) { file.release(part.bytes); });
}

void Checkpoint::release(std::string_view name, std::int64_t begin, std::int64_t end) const {
  const auto found = impl_->places.find(name);
  if (found == impl_->places.end()) return;
  found->second.for_each_part(
      [&](const WeightFile& file, const TensorView& part) { file.release(rows_of(part, begin, end).bytes); });
}

Checkpoint Checkpoint::with_change(std::string_view name, at::Tensor rows, at::Tensor columns) const {
  auto changed = std::make_shared<Impl>(*impl_);
  const auto found = changed->places.find(name);
  TORCH_INTERNAL_ASSERT(found != changed->places.end() && found->second.tensor->shape.size() == 2, "no such matrix");
  auto overlay = std::make_shared<const Overlay>(Overlay{std::move(rows), std::move(columns)});
  const auto& shape = found->second.tensor->shape;
  TORCH_INTERNAL_ASSERT(overlay->rows.dim() == 2 && overlay->columns.dim() == 2 &&
                            overlay->rows.size(0) == overlay->columns.size(0) && overlay->rows.size(1) == shape[0] &&
                            overlay->columns.size(1) == shape[1],
                        "a change of another shape");
  for (const auto* part : {&overlay->rows, &overlay->columns}) {
    TORCH_INTERNAL_ASSERT(part->scalar_type() == at::kFloat && part->device().is_cpu() && part->is_contiguous());
  }
  found->second.overlays.push_back(std::move(overlay));
  return Checkpoint(std::move(changed));
}

std::vector<std::string> Checkpoint::sha256(std::string_view name, const std::vector<std::int64_t>& shape) const {
  const auto& [file, source, overlays, scales] = impl_->find(name, shape);
  TORCH_INTERNAL_ASSERT(shape.size() == 2 && scales == nullptr, "not a matrix");
  const auto dtype = plain_type(source->dtype) ? source->dtype : "F32";
  const auto head = dtype + " " + shape_text(shape) + "\n";
  std::vector<Sha256> hashes(overlays.size() + 1);
  for (auto& hash : hashes) hash.update(std::as_bytes(std::span(head)));
  const auto add = [](Sha256& hash, const at::Tensor& some) {
    hash.update({static_cast<const std::byte*>(some.const_data_ptr()), some.nbytes()});
  };
  for_some_rows(file, *source, 0, shape.front(), impl_->stop, [&](const at::Tensor& some, std::int64_t first) {
    add(hashes.front(), some);
    for (std::size_t i = 0; i < overlays.size(); ++i) {
      add_to(some, first, *overlays[i]);
      add(hashes[i + 1], some);
    }
  });
  std::vector<std::string> digests;
  for (auto& hash : hashes) digests.push_back(hash.hex_digest());
  return digests;
}

const TensorView& Checkpoint::stored(std::string_view name) const {
  return *impl_->find(name).tensor;
}

const fs::path& Checkpoint::file_of(std::string_view name) const {
  return impl_->find(name).file->path();
}

at::ScalarType Checkpoint::type(std::string_view name) const {
  return *floating_type(impl_->find(name, stored(name).shape).tensor->dtype);
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : impl_->places) names.push_back(name);
  return names;
}

const std::vector<fs::path>& Checkpoint::files() const {
  return impl_->files;
}

bool Checkpoint::is_safetensors() const {
  return impl_->is_safetensors;
}

}  // namespace rometrace
