#include "rometrace/edit/moment_file.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "edit/npz.hpp"
#include "model/safetensors_writer.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/safetensors.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/json_line.hpp"
#include "text/as_text.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFileSchema = "rometrace/moments-file/1";
constexpr const char* kMetadataName = "rometrace";

std::string triangle_name(std::int64_t layer) {
  return "moment." + std::to_string(layer);
}

std::string checksum_name(std::int64_t layer) {
  return "sha256." + std::to_string(layer);
}

std::int64_t triangle_size(std::int64_t width) {
  return width * (width + 1) / 2;
}

/// The upper triangle of a matrix [F, F], row by row.
std::vector<double> triangle_of(const at::Tensor& matrix) {
  const auto width = matrix.size(0);
  const auto whole = matrix.contiguous();
  const auto* numbers = whole.const_data_ptr<double>();
  std::vector<double> triangle;
  triangle.reserve(static_cast<std::size_t>(triangle_size(width)));
  for (std::int64_t row = 0; row < width; ++row) {
    triangle.insert(triangle.end(), numbers + row * width + row, numbers + (row + 1) * width);
  }
  return triangle;
}

/// Gives a matrix whose upper triangle is right its lower one.
void mirror(at::Tensor& matrix) {
  constexpr std::int64_t kStep = 512;
  const auto width = matrix.size(0);
  for (std::int64_t begin = 0; begin < width; begin += kStep) {
    const auto end = std::min(begin + kStep, width);
    const auto rows = matrix.slice(0, begin, end);
    const auto square = rows.slice(1, begin, end);
    square.copy_(square.triu() + square.triu(1).t());
    if (end < width) matrix.slice(0, end).slice(1, begin, end).copy_(rows.slice(1, end).t());
  }
}

at::Tensor matrix_of(std::span<const std::byte> triangle, std::int64_t width) {
  auto matrix = at::empty({width, width}, at::kDouble);
  auto* numbers = matrix.mutable_data_ptr<double>();
  const auto* from = triangle.data();
  for (std::int64_t row = 0; row < width; ++row) {
    const auto bytes = static_cast<std::size_t>(width - row) * sizeof(double);
    std::memcpy(numbers + row * width + row, from, bytes);
    from += bytes;
  }
  mirror(matrix);
  return matrix;
}

std::string hex_of(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex_digest();
}

Json facts_json(const SecondMoment& facts, std::span<const std::int64_t> layers, std::int64_t width) {
  const auto known = [](const auto& value, bool is_known) { return is_known ? Json(value) : Json(nullptr); };
  return {{"schema", kFileSchema},
          {"model", {{"weights_sha256", known(facts.weights_sha256, !facts.weights_sha256.empty())}}},
          {"text",
           {{"sha256", known(facts.text_sha256, !facts.text_sha256.empty())},
            {"texts", known(facts.texts, facts.texts > 0)},
            {"tokens", facts.tokens},
            {"cut", known(facts.cut, facts.cut > 0)}}},
          {"dtype", known(facts.dtype, !facts.dtype.empty())},
          {"width", width},
          {"layers", std::vector<std::int64_t>(layers.begin(), layers.end())}};
}

SafetensorsMetadata metadata_of(const SecondMoment& facts, std::span<const std::int64_t> layers, std::int64_t width) {
  return {{kMetadataName, to_line(facts_json(facts, layers, width))}};
}

std::vector<TensorView> views_of(std::int64_t layer, std::int64_t width, std::span<const std::byte> triangle,
                                 std::span<const std::byte> checksum) {
  return {{triangle_name(layer), "F64", {triangle_size(width)}, triangle},
          {checksum_name(layer), "U8", {static_cast<std::int64_t>(checksum.size())}, checksum}};
}

/// Reads the JSON of a moments file. Its members are whole numbers from 0, texts, or null.
class FactsJson {
 public:
  FactsJson(const nlohmann::json& record, std::string where) : json_(record), where_(std::move(where)) {}

  std::int64_t number(const char* pointer, bool required) const {
    const auto* value = find(pointer, required);
    if (value == nullptr) return 0;
    if (!value->is_number_unsigned() || value->get<std::uint64_t>() >= std::uint64_t{1} << 62U) {
      refuse(pointer, *value, "a whole number");
    }
    return value->get<std::int64_t>();
  }

  std::string text(const char* pointer) const {
    const auto* value = find(pointer, false);
    if (value == nullptr) return "";
    if (!value->is_string()) refuse(pointer, *value, "a text");
    return value->get<std::string>();
  }

  std::vector<std::int64_t> layers() const {
    const auto* value = find("/layers", true);
    std::vector<std::int64_t> layers;
    bool good = value->is_array() && !value->empty();
    for (std::size_t i = 0; good && i < value->size(); ++i) {
      const auto& layer = (*value)[i];
      good = layer.is_number_unsigned() && layer.get<std::uint64_t>() < std::uint64_t{1} << 20U &&
             (layers.empty() || layer.get<std::int64_t>() > layers.back());
      if (good) layers.push_back(layer.get<std::int64_t>());
    }
    if (!good) refuse("/layers", *value, "layers, ascending");
    return layers;
  }

 private:
  const nlohmann::json* find(const char* pointer, bool required) const {
    const nlohmann::json::json_pointer path(pointer);
    const auto* value = json_.contains(path) ? &json_.at(path) : nullptr;
    if (value != nullptr && value->is_null()) value = nullptr;
    if (value == nullptr && required) throw Error(where_ + ": has no " + name(pointer));
    return value;
  }

  static std::string name(const char* pointer) {
    std::string text = pointer + 1;
    std::replace(text.begin(), text.end(), '/', '.');
    return text;
  }

  [[noreturn]] void refuse(const char* pointer, const nlohmann::json& found, const std::string& expected) const {
    throw Error(where_ + ": " + name(pointer) + " is " + one_line(found.dump()) + "; expected " + expected);
  }

  const nlohmann::json& json_;
  std::string where_;
};

/// The layer that a path like "transformer.h.17.mlp.c_proj_float32_mom2_100000.npz" tells, as the reference names
/// files.
std::optional<std::int64_t> layer_of_name(const std::string& name) {
  for (std::size_t at = name.find('.'); at != std::string::npos; at = name.find('.', at + 1)) {
    const auto end = name.find('.', at + 1);
    if (end == std::string::npos) break;
    const auto word = name.substr(at + 1, end - at - 1);
    if (word.empty() || word.size() > 5 || word.find_first_not_of("0123456789") != std::string::npos) continue;
    return std::stoll(word);
  }
  return std::nullopt;
}

bool is_zip(const fs::path& path) {
  auto file = InputFile::open(path);
  std::array<std::byte, 4> head{};
  return file.read(head) == head.size() && as_text(head) == "PK\x03\x04";
}

void check_moment(const SecondMoment& moment, const std::string& where) {
  const auto [least, most] = at::aminmax(moment.mean);  // which hand on what is no number
  if (!std::isfinite(least.item<double>()) || !std::isfinite(most.item<double>())) {
    throw Error(where + ": holds numbers that are not finite; collect it again (rometrace moments)");
  }
  if (moment.mean.diagonal().lt(0).any().item<bool>()) {
    throw Error(where + ": its diagonal has negative numbers, which no mean of squares has; get the file again");
  }
}

}  // namespace

// ---- Writing ----

MomentFileWriter::MomentFileWriter(const SecondMoment& facts, std::span<const std::int64_t> layers, std::int64_t width,
                                   std::function<void(std::string_view)> write)
    : write_(std::move(write)) {
  const std::span<const std::byte> triangle(static_cast<const std::byte*>(nullptr),
                                            static_cast<std::size_t>(triangle_size(width)) * sizeof(double));
  const std::span<const std::byte> checksum(static_cast<const std::byte*>(nullptr),
                                            64);  // only their sizes are looked at
  std::vector<TensorView> tensors;
  for (const auto layer : layers) {
    for (auto& view : views_of(layer, width, triangle, checksum)) tensors.push_back(std::move(view));
  }
  write_(safetensors_header(tensors, metadata_of(facts, layers, width)));
}

void MomentFileWriter::add(const SecondMoment& moment) {
  const auto triangle = triangle_of(moment.mean);
  const auto bytes = std::as_bytes(std::span(triangle));
  write_(as_text(bytes));
  write_(hex_of(bytes));
}

void write_moment_file(const fs::path& path, const SecondMoment& moment) {
  const auto triangle = triangle_of(moment.mean);
  const auto bytes = std::as_bytes(std::span(triangle));
  const auto checksum = hex_of(bytes);
  const std::array layers = {moment.layer};
  write_safetensors(path, views_of(moment.layer, moment.width(), bytes, std::as_bytes(std::span(checksum))),
                    metadata_of(moment, layers, moment.width()));
}

// ---- Reading ----

struct MomentFile::Impl {
  std::string label;
  SecondMoment facts;
  std::vector<std::int64_t> layers;
  std::int64_t width = 0;
  std::optional<SafetensorsFile> ours;  // else the reference's
  std::optional<NpzFile> npz;

  void open_ours(const fs::path& path) {
    ours.emplace(SafetensorsFile::open(path));
    const auto metadata = ours->metadata().find(kMetadataName);
    if (metadata == ours->metadata().end()) {
      throw Error(label + ": is no file of second moments: its metadata have no \"" + kMetadataName +
                  "\"; expected what rometrace moments wrote, or the reference's npz");
    }
    const auto where = label + ": metadata";
    const auto record = parse_json(metadata->second, where, RepeatedNames::kRefuse);
    const auto schema = record.is_object() ? record.value("schema", nlohmann::json()) : nlohmann::json();
    if (schema != kFileSchema) {
      throw Error(label + ": schema is " + one_line(schema.dump()) + "; expected \"" + kFileSchema + "\"");
    }
    const FactsJson reader(record, where);
    facts.tokens = reader.number("/text/tokens", true);
    facts.texts = reader.number("/text/texts", false);
    facts.cut = reader.number("/text/cut", false);
    facts.text_sha256 = reader.text("/text/sha256");
    facts.weights_sha256 = reader.text("/model/weights_sha256");
    facts.dtype = reader.text("/dtype");
    width = reader.number("/width", true);
    layers = reader.layers();
    constexpr std::int64_t kWidest = std::int64_t{1} << 20U;
    if (width < 1 || width > kWidest || facts.tokens < 1) {
      throw Error(where + ": width is " + std::to_string(width) + ", text.tokens " + std::to_string(facts.tokens) +
                  "; expected 1 or more");
    }
    for (const auto layer : layers) find(layer);
  }

  struct Parts {
    std::span<const std::byte> triangle, checksum;
  };
  Parts find(std::int64_t layer) const {
    const auto tensor = [&](const std::string& name, const char* dtype, std::int64_t size) {
      for (const auto& each : ours->tensors()) {
        if (each.name != name) continue;
        if (each.dtype == dtype && each.shape == std::vector{size}) return each.bytes;
        throw Error(label + ": tensor " + in_quotes(name) + " is " + each.dtype + " " + shape_text(each.shape) +
                    "; expected " + dtype + " " + shape_text(std::vector{size}));
      }
      throw Error(label + ": has no tensor " + in_quotes(name));
    };
    return {tensor(triangle_name(layer), "F64", triangle_size(width)), tensor(checksum_name(layer), "U8", 64)};
  }

  void open_npz(const fs::path& path) {
    npz.emplace(NpzFile::open(path));
    for (const auto* name : {"mom2.mom2", "mom2.count"}) {
      if (!npz->contains(name)) {
        throw Error(label + ": has no " + std::string(name) +
                    "; expected the reference's statistics, with mom2.mom2 and mom2.count");
      }
    }
    const auto count = npz->read("mom2.count");
    const auto number = count.numel() == 1 ? count.item<double>() : 0;
    if (!(number >= 1 && number < 0x1p53) || number != static_cast<double>(static_cast<std::int64_t>(number))) {
      throw Error(label + ": mom2.count is not a number of tokens; expected a whole number from 1");
    }
    facts.tokens = static_cast<std::int64_t>(number);
    layers = {layer_of_name(path.filename().native()).value_or(-1)};
  }

  at::Tensor read_npz() const {
    auto sum = npz->read("mom2.mom2");
    if (sum.dim() != 2 || sum.size(0) != sum.size(1) || sum.size(0) < 1) {
      throw Error(label + ": mom2.mom2 has the shape " + shape_text(sum.sizes()) + "; expected a square matrix");
    }
    auto mean = at::empty_like(sum).copy_(sum.t());  // in one go, which libtorch does by tiles
    double rounding = 0, largest = 0;
    constexpr std::int64_t kRows = 64;  // at once: what is made of them stays in the processor's cache
    for (std::int64_t begin = 0; begin < sum.size(0); begin += kRows) {
      const auto end = std::min(begin + kRows, sum.size(0));
      const auto rows = sum.slice(0, begin, end), columns = mean.slice(0, begin, end);
      rounding = std::max(rounding, (rows - columns).abs_().max().item<double>());
      largest = std::max(largest, rows.abs().max().item<double>());
      columns.add_(rows).div_(2 * static_cast<double>(facts.tokens));
    }
    constexpr double kRounding = 1e-3;  // of float32 sums over any number of tokens
    if (rounding > kRounding * largest) {
      throw Error(label + ": mom2.mom2 is not symmetric, as a sum of k k^T is; get the file again");
    }
    return mean;
  }
};

MomentFile::MomentFile(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
MomentFile::~MomentFile() = default;
MomentFile::MomentFile(MomentFile&&) noexcept = default;
MomentFile& MomentFile::operator=(MomentFile&&) noexcept = default;

MomentFile MomentFile::open(const fs::path& path) {
  auto impl = std::make_unique<Impl>();
  impl->label = label_of(path);
  is_zip(path) ? impl->open_npz(path) : impl->open_ours(path);
  return MomentFile(std::move(impl));
}

const std::vector<std::int64_t>& MomentFile::layers() const {
  return impl_->layers;
}

const SecondMoment& MomentFile::facts() const {
  return impl_->facts;
}

SecondMoment MomentFile::read(std::int64_t layer) const {
  const auto& layers = impl_->layers;
  if (layers.front() != -1 && std::find(layers.begin(), layers.end(), layer) == layers.end()) {
    std::string list;
    for (const auto each : layers) list += (list.empty() ? "" : ", ") + std::to_string(each);
    throw Error(impl_->label + ": is of layer" + (layers.size() > 1 ? "s " : " ") + list + "; expected layer " +
                std::to_string(layer));
  }
  auto moment = impl_->facts;
  moment.layer = layer;
  if (impl_->npz) {
    moment.mean = impl_->read_npz();
  } else {
    const auto [triangle, checksum] = impl_->find(layer);
    if (hex_of(triangle) != as_text(checksum)) {
      throw Error(impl_->label + ": layer " + std::to_string(layer) +
                  " is damaged: its checksum differs; collect it again (rometrace moments)");
    }
    moment.mean = matrix_of(triangle, impl_->width);
  }
  check_moment(moment, impl_->label);
  return moment;
}

SecondMoment read_second_moment(const fs::path& path, std::int64_t layer) {
  return MomentFile::open(path).read(layer);
}

}  // namespace rometrace
