#include "rometrace/model/safetensors.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "model/safetensors_header.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "text/as_text.hpp"
#include "text/little_endian.hpp"
#include "text/mapping.hpp"
#include "text/packed_text.hpp"

// The layout, from the description of the format: 8 bytes little-endian length n of the header; n bytes of JSON,
// {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, .., "__metadata__": {..}}; then the data,
// which the offsets count from.

namespace rometrace {
namespace {

using nlohmann::json;

constexpr std::size_t kPrefix = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;  // the format's own limit

constexpr std::array<std::pair<std::string_view, std::uint64_t>, 22> kBitsOfDtype{{
    {"F64", 64},        {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"I64", 64},    {"I32", 32},
    {"I16", 16},        {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},
    {"BOOL", 8},        {"C64", 64},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
}};

/// Says what a file is that people take for weights; silent for all others.
void refuse_other_formats(std::string_view text, const std::string& where) {
  refuse_lfs_pointer(text, where);
  if (text.starts_with("PK\x03\x04") || text.starts_with("\x80\x02")) {
    throw Error(where + ": is a PyTorch file, not safetensors; name it pytorch_model.bin");
  }
}

std::uint64_t read_header_length(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < kPrefix) {
    throw Error(where + ": is " + std::to_string(file.size()) + " bytes long, too short for a safetensors file");
  }
  const std::uint64_t length = little_endian(file.first(kPrefix));
  if (length > kMaxHeader) {
    throw Error(where + ": not a safetensors file: its header would be " + std::to_string(length) +
                " bytes long, and the format allows " + std::to_string(kMaxHeader));
  }
  if (length > file.size() - kPrefix) {
    throw Error(where + ": cut short: the header is " + std::to_string(length) + " bytes long, and only " +
                std::to_string(file.size() - kPrefix) + " follow; get the file again");
  }
  return length;
}

/// A whole number that is not negative, if `value` is one and fits.
bool read_size(const json& value, std::int64_t& size) {
  constexpr auto kMaximum = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMaximum) return false;
  size = value.get<std::int64_t>();
  return true;
}

/// One entry of the header, checked on its own; `end - begin` is the size that dtype and shape ask for.
struct TensorEntry {
  TensorView view;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

const json& field(const json& entry, const char* name, const std::string& where) {
  const auto found = entry.find(name);
  if (found == entry.end()) throw Error(where + ": has no " + name);
  return *found;
}

std::uint64_t read_dtype(const json& value, const std::string& where) {
  for (const auto& [name, bits] : kBitsOfDtype) {
    if (value == name) return bits;
  }
  throw Error(where + ": dtype " + one_line(value.dump()) + " is not one of the format");
}

std::vector<std::int64_t> read_shape(const json& value, const std::string& where) {
  std::vector<std::int64_t> shape;
  bool good = value.is_array();
  for (std::size_t i = 0; good && i < value.size(); ++i) good = read_size(value[i], shape.emplace_back());
  if (!good) throw Error(where + ": shape is " + one_line(value.dump()) + "; expected a list of sizes from 0 up");
  return shape;
}

/// Bytes of a tensor. Throws if they do not fit in 64 bits or are not whole.
std::uint64_t byte_size(const std::vector<std::int64_t>& shape, std::uint64_t bits, const std::string& where) {
  std::uint64_t size = bits;
  for (const std::int64_t length : shape) {
    if (__builtin_mul_overflow(size, static_cast<std::uint64_t>(length), &size)) {
      throw Error(where + ": shape is " + shape_text(shape) + ", larger than any file");
    }
  }
  if (size % 8 != 0) throw Error(where + ": shape is " + shape_text(shape) + ", not a whole number of bytes");
  return size / 8;
}

TensorEntry read_entry(const std::string& name, const json& value, const std::string& file) {
  const std::string where = file + ": tensor " + in_quotes(name);
  if (!value.is_object()) throw Error(where + ": is " + one_line(value.dump()) + "; expected an object");
  TensorEntry entry;
  entry.view.name = name;
  const json& dtype = field(value, "dtype", where);
  const std::uint64_t bits = read_dtype(dtype, where);
  entry.view.dtype = dtype.get<std::string>();
  entry.view.shape = read_shape(field(value, "shape", where), where);

  const json& offsets = field(value, "data_offsets", where);
  std::int64_t begin = 0;
  std::int64_t end = 0;
  if (!offsets.is_array() || offsets.size() != 2 || !read_size(offsets[0], begin) || !read_size(offsets[1], end) ||
      end < begin) {
    throw Error(where + ": data_offsets are " + one_line(offsets.dump()) + "; expected [begin, end], begin <= end");
  }
  entry.begin = static_cast<std::uint64_t>(begin);
  entry.end = static_cast<std::uint64_t>(end);
  const std::uint64_t size = byte_size(entry.view.shape, bits, where);
  if (size != entry.end - entry.begin) {
    throw Error(where + ": shape " + shape_text(entry.view.shape) + " of " + entry.view.dtype + " takes " +
                std::to_string(size) + " bytes, but data_offsets " + offsets.dump() + " hold " +
                std::to_string(entry.end - entry.begin));
  }
  return entry;
}

std::map<std::string, std::string, std::less<>> read_metadata(const json& header, const std::string& where) {
  const auto metadata = header.find("__metadata__");
  if (metadata == header.end()) return {};
  bool good = metadata->is_object() || metadata->is_null();
  for (auto item = metadata->begin(); good && item != metadata->end(); ++item) good = item->is_string();
  if (!good) throw Error(where + ": __metadata__ is " + one_line(metadata->dump()) + "; expected strings by name");
  return metadata->is_null() ? std::map<std::string, std::string, std::less<>>()
                             : metadata->get<std::map<std::string, std::string, std::less<>>>();
}

/// The entries in the order of their bytes, which are to fill the `data_size` bytes of data without gap or overlap.
std::vector<TensorEntry> read_entries(const json& header, std::uint64_t data_size, const std::string& where) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") entries.push_back(read_entry(name, value, where));
  }
  // Tensors without elements take no bytes, so the end decides between two that begin at the same place.
  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t filled = 0;
  for (const TensorEntry& entry : entries) {
    if (entry.begin != filled) {
      throw Error(where + ": tensor " + in_quotes(entry.view.name) + ": its data begin at " +
                  std::to_string(entry.begin) + ", but the data before them end at " + std::to_string(filled));
    }
    filled = entry.end;
  }
  if (filled > data_size) {
    throw Error(where + ": cut short: the tensors take " + std::to_string(filled) + " bytes, and the file has " +
                std::to_string(data_size) + " of them; get the file again");
  }
  if (filled < data_size) {
    throw Error(where + ": " + std::to_string(data_size - filled) + " bytes follow the last tensor; expected none");
  }
  return entries;
}

}  // namespace

SafetensorsContent read_safetensors(std::span<const std::byte> file, const std::string& where) {
  refuse_other_formats(as_text(file), where);
  const std::uint64_t header_length = read_header_length(file, where);
  const std::string_view header_text = as_text(file.subspan(kPrefix, header_length));
  if (!header_text.starts_with('{')) throw Error(where + ": not a safetensors file: its header is not a JSON object");
  const json header = parse_json(header_text, where + ": header", RepeatedNames::kRefuse);

  SafetensorsContent content;
  content.metadata = read_metadata(header, where);
  const std::span<const std::byte> data = file.subspan(kPrefix + header_length);
  for (TensorEntry& entry : read_entries(header, data.size(), where)) {
    entry.view.bytes = data.subspan(entry.begin, entry.end - entry.begin);
    content.tensors.push_back(std::move(entry.view));
  }
  return content;
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto mapping = std::make_unique<const Mapping>(InputFile::open(path));
  SafetensorsContent content = read_safetensors(mapping->bytes(), mapping->label());
  SafetensorsFile opened(path, std::move(mapping), std::move(content.tensors));
  opened.metadata_ = std::move(content.metadata);
  return opened;
}

}  // namespace rometrace
