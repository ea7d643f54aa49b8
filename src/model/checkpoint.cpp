#include "rometrace/model/checkpoint.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

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
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/model/safetensors.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// Elements converted at a time: the source's pages are let go after each step, so this bounds what is held of them.
constexpr std::int64_t kConversionStep = std::int64_t{1} << 20;

/// Whether the folder has an entry of that name: a link that leads nowhere counts, so that opening it can say so.
bool has_entry(const fs::path& folder, const char* name) {
  std::error_code ignored;
  return fs::symlink_status(folder / name, ignored).type() != fs::file_type::not_found && !ignored;
}

[[noreturn]] void refuse_folder_without_weights(const fs::path& folder) {
  const std::string where = label_of(folder);
  std::error_code error;
  if (!fs::is_directory(folder, error)) throw Error(where + ": not a folder; expected the folder of a model");
  if (has_entry(folder, "pytorch_model.bin") || has_entry(folder, "pytorch_model.bin.index.json")) {
    throw Error(where + ": holds its weights as pytorch_model.bin only, and " + kSingleFile +
                " is what is read here; fetch that file, or make it: python -c \"from transformers import "
                "AutoModelForCausalLM as M; M.from_pretrained('" +
                where + "').save_pretrained('" + where + "')\"");
  }
  for (const char* other : {"tf_model.h5", "flax_model.msgpack", "rust_model.ot", "adapter_model.safetensors"}) {
    if (has_entry(folder, other)) {
      throw Error(where + ": holds " + other + ", but no " + kSingleFile + ", which is what is read here");
    }
  }
  throw Error(where + ": no weights: expected " + kSingleFile + " or " + kIndexFile);
}

/// A shard's name comes from a file that may be hostile: it must not lead out of the folder.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

/// The index: which shard holds which tensor.
std::map<std::string, std::string> read_weight_map(const fs::path& index_json) {
  const std::string where = label_of(index_json);
  const json index = parse_json_file(index_json);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw Error(where + ": has no weight_map; expected an object that names a file for each tensor");
  }
  std::map<std::string, std::string> shard_of;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get<std::string>())) {
      throw Error(where + ": tensor " + in_quotes(tensor) + " is in " + one_line(shard.dump()) +
                  "; expected the name of a file in the same folder");
    }
    shard_of.emplace(tensor, shard.get<std::string>());
  }
  if (shard_of.empty()) throw Error(where + ": weight_map names no tensors");
  return shard_of;
}

/// The dtype of a safetensors file's floating-point tensors; nothing for the others.
std::optional<at::ScalarType> floating_type(std::string_view dtype) {
  static constexpr std::array<std::pair<std::string_view, at::ScalarType>, 4> kTypes{
      {{"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"F64", at::kDouble}}};
  for (const auto& [name, type] : kTypes) {
    if (dtype == name) return type;
  }
  return std::nullopt;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return one_line(json(shape).dump());
}

bool is_aligned(std::span<const std::byte> bytes, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % alignment == 0;
}

/// The file's bytes themselves as a tensor, which keeps the file open. libtorch has no read-only tensors: whoever
/// writes to it is stopped by the memory protection.
at::Tensor view_of(std::shared_ptr<const SafetensorsFile> file, const TensorView& source, at::ScalarType type) {
  void* data = const_cast<std::byte*>(source.bytes.data());
  return at::from_blob(
      data, source.shape, [keep = std::move(file)](void*) {}, at::TensorOptions().dtype(type));
}

/// A copy of the tensor as `type`, in memory of its own.
at::Tensor convert(const SafetensorsFile& file, const TensorView& source, at::ScalarType source_type,
                   at::ScalarType type) {
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
  }
  return result;
}

}  // namespace

struct Checkpoint::Impl {
  struct Place {
    std::shared_ptr<const SafetensorsFile> file;
    const TensorView* tensor;
  };

  void add(const fs::path& path) {
    const auto file = std::make_shared<const SafetensorsFile>(SafetensorsFile::open(path));
    for (const TensorView& tensor : file->tensors()) {
      const auto [place, is_new] = places.emplace(tensor.name, Place{file, &tensor});
      if (!is_new) {
        throw Error(label_of(path) + ": holds tensor " + in_quotes(tensor.name) + ", and so does " +
                    label_of(place->second.file->path().filename()) + "; expected each in one file");
      }
    }
    files.push_back(path);
  }

  /// For messages: the file, or the folder where the weights are in several.
  std::string label() const { return label_of(files.size() == 1 ? files.front() : files.front().parent_path()); }

  std::map<std::string, Place, std::less<>> places;
  std::vector<fs::path> files;
};

Checkpoint Checkpoint::open(const fs::path& folder) {
  auto impl = std::make_shared<Impl>();
  // The order in which transformers looks for them.
  if (has_entry(folder, kSingleFile)) {
    impl->add(folder / kSingleFile);
    return Checkpoint(std::move(impl));
  }
  if (!has_entry(folder, kIndexFile)) refuse_folder_without_weights(folder);

  const fs::path index = folder / kIndexFile;
  const std::map<std::string, std::string> shard_of = read_weight_map(index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) impl->add(folder / shard);
  for (const auto& [tensor, shard] : shard_of) {
    const auto found = impl->places.find(tensor);
    if (found == impl->places.end() || found->second.file->path().filename() != shard) {
      throw Error(label_of(index) + ": tensor " + in_quotes(tensor) + " is not in " + in_quotes(shard) +
                  ", where the index says; get both files again");
    }
  }
  return Checkpoint(std::move(impl));
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
  const auto found = impl_->places.find(name);
  if (found == impl_->places.end()) throw Error(impl_->label() + ": no tensor " + in_quotes(name));
  const auto& [file, source] = found->second;
  const std::string where = label_of(file->path()) + ": tensor " + in_quotes(name);
  if (source->shape != shape) {
    throw Error(where + " has shape " + shape_text(source->shape) + "; expected " + shape_text(shape));
  }
  const std::optional<at::ScalarType> type = floating_type(source->dtype);
  if (!type) throw Error(where + " is of dtype " + source->dtype + "; expected F32, F16, BF16 or F64");
  if (*type == dtype && is_aligned(source->bytes, c10::elementSize(dtype))) return view_of(file, *source, dtype);
  return convert(*file, *source, *type, dtype);
}

void Checkpoint::release(std::string_view name) const {
  const auto found = impl_->places.find(name);
  if (found != impl_->places.end()) found->second.file->release(found->second.tensor->bytes);
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : impl_->places) names.push_back(name);
  return names;
}

const std::vector<fs::path>& Checkpoint::files() const {
  return impl_->files;
}

}  // namespace rometrace
