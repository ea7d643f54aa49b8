#include "edit/npz.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/model/weight_file.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/little_endian.hpp"

// An array's bytes, from NumPy's description of the format: "\x93NUMPY", two bytes of version, the length of the header
// (2 bytes, 4 from version 2 on), the header, which is a Python literal like
// {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, and the numbers.

namespace rometrace {
namespace {

constexpr std::string_view kNpyMagic = "\x93NUMPY";

struct NpyType {
  std::string_view name;
  at::ScalarType type;
};
constexpr std::array<NpyType, 6> kNpyTypes = {{{"<f4", at::kFloat},
                                               {"<f8", at::kDouble},
                                               {"<i8", at::kLong},
                                               {"<i4", at::kInt},
                                               {"<i2", at::kShort},
                                               {"|i1", at::kChar}}};

struct NpyHeader {
  at::ScalarType type = at::kFloat;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

/// Takes the header of an array apart.
class NpyReader {
 public:
  NpyReader(std::string_view bytes, const std::string& where) : rest_(bytes), where_(where) {}

  at::Tensor read() {
    const auto header = read_header();
    std::int64_t count = 1;
    const auto size = static_cast<std::int64_t>(c10::elementSize(header.type));
    for (const auto length : header.shape) {
      if (length > 0 && count > static_cast<std::int64_t>(rest_.size()) / length) refuse_size(header);
      count *= length;
    }
    if (count * size != static_cast<std::int64_t>(rest_.size())) refuse_size(header);
    auto shape = header.shape;
    if (header.fortran_order) std::reverse(shape.begin(), shape.end());
    auto raw = at::empty(shape, at::TensorOptions().dtype(header.type));
    std::memcpy(raw.mutable_data_ptr(), rest_.data(), rest_.size());
    auto numbers = raw.to(at::kDouble);
    return header.fortran_order ? numbers.permute(reversed(shape.size())).contiguous() : numbers;
  }

 private:
  [[noreturn]] void refuse(const std::string& complaint) const { throw Error(where_ + ": " + complaint); }
  [[noreturn]] void refuse_header() const { refuse("has no header as NumPy writes it; get the file again"); }
  [[noreturn]] void refuse_size(const NpyHeader& header) const {
    refuse("has " + std::to_string(rest_.size()) + " bytes, which the shape " + shape_text(header.shape) +
           " does not take; get the file again");
  }

  static std::vector<std::int64_t> reversed(std::size_t dimensions) {
    std::vector<std::int64_t> order(dimensions);
    for (std::size_t i = 0; i < dimensions; ++i) order[i] = static_cast<std::int64_t>(dimensions - 1 - i);
    return order;
  }

  NpyHeader read_header() {
    if (!rest_.starts_with(kNpyMagic) || rest_.size() < kNpyMagic.size() + 2) refuse_header();
    const int version = static_cast<unsigned char>(rest_[kNpyMagic.size()]);
    rest_.remove_prefix(kNpyMagic.size() + 2);
    const std::size_t digits = version == 1 ? 2 : 4;
    if (version < 1 || version > 3 || rest_.size() < digits) refuse_header();
    const auto length = little_endian(std::as_bytes(std::span(rest_)).first(digits));
    rest_.remove_prefix(digits);
    if (length > rest_.size()) refuse_header();
    const auto text = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return parse(text);
  }

  // What follows "'name':" in the header.
  std::string_view value_of(std::string_view text, const std::string& name) const {
    const auto key = "'" + name + "':";
    const auto at = text.find(key);
    if (at == std::string_view::npos) refuse_header();
    text.remove_prefix(at + key.size());
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    return text;
  }

  NpyHeader parse(std::string_view text) const {
    NpyHeader header;
    const auto descr = value_of(text, "descr");
    const auto end = descr.starts_with('\'') ? descr.find('\'', 1) : std::string_view::npos;
    const auto name = end == std::string_view::npos ? descr.substr(0, std::min<std::size_t>(descr.size(), 20))
                                                    : descr.substr(1, end - 1);
    const auto type =
        std::find_if(kNpyTypes.begin(), kNpyTypes.end(), [&](const auto& each) { return each.name == name; });
    if (type == kNpyTypes.end())
      refuse("is of type " + in_quotes(name) + "; expected float32, float64 or whole numbers");
    header.type = type->type;
    const auto order = value_of(text, "fortran_order");
    header.fortran_order = order.starts_with("True");
    if (!header.fortran_order && !order.starts_with("False")) refuse_header();
    auto shape = value_of(text, "shape");
    if (!shape.starts_with('(')) refuse_header();
    shape.remove_prefix(1);
    while (!shape.starts_with(')')) {
      std::int64_t length = 0;
      const auto [stop, error] = std::from_chars(shape.data(), shape.data() + shape.size(), length);
      if (error != std::errc() || length < 0 || header.shape.size() > 8) refuse_header();
      header.shape.push_back(length);
      shape.remove_prefix(static_cast<std::size_t>(stop - shape.data()));
      shape.remove_prefix(std::min(shape.find_first_not_of(", "), shape.size()));
    }
    return header;
  }

  std::string_view rest_;
  const std::string& where_;
};

}  // namespace

NpzFile::NpzFile(std::string label, std::unique_ptr<const Mapping> mapping, std::vector<ZipEntry> entries)
    : label_(std::move(label)), mapping_(std::move(mapping)), entries_(std::move(entries)) {}

NpzFile NpzFile::open(const std::filesystem::path& path) {
  auto mapping = std::make_unique<const Mapping>(InputFile::open(path));
  auto label = mapping->label();
  auto entries = read_zip(mapping->bytes(), label, ZipMethods::kStoredOrDeflated);
  return {std::move(label), std::move(mapping), std::move(entries)};
}

const ZipEntry* NpzFile::find(std::string_view name) const {
  for (const auto& entry : entries_) {
    if (entry.name.size() == name.size() + 4 && entry.name.starts_with(name) && entry.name.ends_with(".npy")) {
      return &entry;
    }
  }
  return nullptr;
}

at::Tensor NpzFile::read(std::string_view name) const {
  const auto where = label_ + ": " + std::string(name);
  const auto bytes = unpack_entry(*find(name), where);
  return NpyReader(bytes, where).read();
}

}  // namespace rometrace
