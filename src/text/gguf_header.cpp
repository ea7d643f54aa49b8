#include "text/gguf_header.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <iterator>
#include <set>
#include <system_error>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/as_text.hpp"
#include "text/little_endian.hpp"
#include "text/packed_text.hpp"

// The layout, from the description of the format: "GGUF", version (4 bytes), number of tensors and of values (8 each);
// the values: key, type (4 bytes), value, where an array is the type of its elements (4), their number (8) and they
// themselves, and a text its length (8) and its bytes; the tensors: name, number of dimensions (4), these (8 each, the
// fastest first), type (4) and offset (8); then, aligned, the data, which the offsets count from.

namespace rometrace {

namespace fs = std::filesystem;

/// Takes what a header is made of from the front of a file.
class GgufReader {
 public:
  GgufReader(std::span<const std::byte> file, GgufHeader& header) : file_(file), rest_(file), header_(header) {}

  void read() {
    check_format();
    const auto tensors = number(8), values = number(8);
    check_count(values, kLeastValue, "values");
    for (std::uint64_t i = 0; i < values; ++i) read_value(i);
    check_count(tensors, kLeastTensor, "tensors");
    for (std::uint64_t i = 0; i < tensors; ++i) read_tensor(i);
    place_tensors();
  }

 private:
  using Type = GgufHeader::Type;

  // Bytes of the smallest: an empty name, one byte; an empty name without dimensions.
  static constexpr std::uint64_t kLeastValue = 13, kLeastTensor = 24;
  static constexpr std::uint64_t kMostDimensions = 4;
  static constexpr std::uint64_t kMostAlignment = std::uint64_t{1} << 20;

  [[noreturn]] void refuse(const std::string& complaint) const { throw Error(header_.where_ + ": " + complaint); }

  void check_format() {
    const auto text = as_text(file_);
    refuse_lfs_pointer(text, header_.where_);
    if (!text.starts_with("GGUF")) {
      refuse(std::string("is no GGUF file: it begins with ") + in_quotes(text.substr(0, 4)) +
             "; expected a GGUF file, or the folder of a model");
    }
    rest_ = rest_.subspan(4);
    const auto version = number(4);
    if (version != 0 && (version & 0xFFFFU) == 0) refuse("is a big-endian GGUF file; expected a little-endian one");
    if (version != 2 && version != 3) {
      refuse("is of version " + std::to_string(version) + " of GGUF; expected 2 or 3; convert the model again");
    }
  }

  std::span<const std::byte> take(std::uint64_t length) {
    if (length > rest_.size()) {
      refuse("cut short: " + what_ + " needs " + std::to_string(length) + " bytes, and " +
             std::to_string(rest_.size()) + " follow; get the file again");
    }
    const auto taken = rest_.first(static_cast<std::size_t>(length));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

  std::uint64_t number(std::size_t length) { return little_endian(take(length)); }

  std::string_view text() { return as_text(take(number(8))); }

  void check_count(std::uint64_t count, std::uint64_t least, const char* what) const {
    if (count <= rest_.size() / least) return;
    refuse("says that it has " + std::to_string(count) + " " + what + ", and only " + std::to_string(rest_.size()) +
           " bytes follow; is it damaged?");
  }

  Type type() {
    const auto code = number(4);
    if (code > static_cast<std::uint64_t>(Type::kFloat64)) {
      refuse(what_ + " is of type " + std::to_string(code) + ", which is none of the format");
    }
    return static_cast<Type>(code);
  }

  void read_value(std::uint64_t index) {
    what_ = "value " + std::to_string(index);
    const auto key = text();
    what_ = "value " + in_quotes(key);
    GgufHeader::Value value;
    value.type = type();
    if (value.type == Type::kArray) {
      value.is_list = true;
      value.type = type();
      if (value.type == Type::kArray) refuse(what_ + " is a list of lists, which no key of a model is");
      value.count = number(8);
    }
    const auto begin = rest_;
    if (const auto size = GgufHeader::size_of(value.type); size > 0) {
      if (value.count > rest_.size() / size) {
        refuse("cut short: " + what_ + " has " + std::to_string(value.count) + " elements, and " +
               std::to_string(rest_.size()) + " bytes follow; get the file again");
      }
      take(value.count * size);
    } else {
      for (std::uint64_t i = 0; i < value.count; ++i) text();  // ends with the file at the latest
    }
    value.bytes = begin.first(begin.size() - rest_.size());
    if (!header_.values_.emplace(key, value).second) refuse(what_ + " is there twice");
  }

  void read_tensor(std::uint64_t index) {
    what_ = "tensor " + std::to_string(index);
    GgufHeader::Tensor tensor;
    tensor.name = text();
    what_ = "tensor " + in_quotes(tensor.name);
    if (!names_.insert(tensor.name).second) refuse(what_ + " is there twice");
    const auto dimensions = number(4);
    if (dimensions > kMostDimensions) {
      refuse(what_ + " has " + std::to_string(dimensions) + " dimensions; expected 0 to " +
             std::to_string(kMostDimensions));
    }
    for (std::uint64_t i = 0; i < dimensions; ++i) {
      constexpr std::uint64_t kMostSize = std::uint64_t{1} << 40U;
      const auto size = number(8);
      if (size < 1 || size > kMostSize) {
        refuse(what_ + " has a dimension of " + std::to_string(size) + "; expected 1 to " + std::to_string(kMostSize));
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));
    }
    tensor.type = static_cast<std::uint32_t>(number(4));
    tensor.begin = number(8);
    header_.tensors_.push_back(std::move(tensor));
  }

  /// Makes of the tensors' offsets places in the file.
  void place_tensors() {
    constexpr std::string_view kKey = "general.alignment";
    const auto alignment = static_cast<std::uint64_t>(header_.whole_number(kKey).value_or(32));
    if (!std::has_single_bit(alignment) || alignment > kMostAlignment) {
      header_.refuse(kKey, "expected a power of two up to " + std::to_string(kMostAlignment));
    }
    const auto end = static_cast<std::uint64_t>(file_.size() - rest_.size());
    const auto data = (end + alignment - 1) / alignment * alignment;
    for (auto& tensor : header_.tensors_) {
      what_ = "tensor " + in_quotes(tensor.name);
      if (tensor.begin % alignment != 0) {
        refuse(what_ + " begins at byte " + std::to_string(tensor.begin) + " of the data; expected a multiple of " +
               std::to_string(alignment));
      }
      if (data > file_.size() || tensor.begin > file_.size() - data) {
        refuse("cut short: " + what_ + " begins at byte " + std::to_string(tensor.begin) +
               " of the data, behind the end of the file; get the file again");
      }
      tensor.begin += data;
    }
  }

  std::span<const std::byte> file_;
  std::span<const std::byte> rest_;
  GgufHeader& header_;
  std::string what_ = "its head";  // is read
  std::set<std::string, std::less<>> names_;
};

GgufHeader GgufHeader::read(std::span<const std::byte> file, std::string where) {
  GgufHeader header;
  header.where_ = std::move(where);
  GgufReader(file, header).read();
  return header;
}

std::size_t GgufHeader::size_of(Type type) {
  switch (type) {
    case Type::kUint8:
    case Type::kInt8:
    case Type::kBool:
      return 1;
    case Type::kUint16:
    case Type::kInt16:
      return 2;
    case Type::kUint32:
    case Type::kInt32:
    case Type::kFloat32:
      return 4;
    case Type::kUint64:
    case Type::kInt64:
    case Type::kFloat64:
      return 8;
    case Type::kString:
    case Type::kArray:
      break;
  }
  return 0;
}

std::vector<std::string> GgufHeader::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : values_) keys.push_back(key);
  return keys;
}

const GgufHeader::Value* GgufHeader::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufHeader::Value* GgufHeader::find(std::string_view key, bool is_list, bool (*is_good)(Type),
                                          const char* expected) const {
  const auto* value = find(key);
  if (value != nullptr && (value->is_list != is_list || !is_good(value->type))) refuse(key, expected);
  return value;
}

namespace {

/// The texts of a list, one behind the other with its length before it. They are known to be there.
std::string_view next_text(std::span<const std::byte>& rest) {
  const auto length = static_cast<std::size_t>(little_endian(rest.first(8)));
  const auto text = as_text(rest.subspan(8, length));
  rest = rest.subspan(8 + length);
  return text;
}

}  // namespace

/// Of a type that is whole; one that 63 bits do not hold becomes -1, which no key expects.
std::int64_t GgufHeader::whole_number(const Value& value, std::size_t at) {
  const auto size = size_of(value.type);
  const auto bits = little_endian(value.bytes.subspan(at * size, size));
  const bool is_signed = value.type == Type::kInt8 || value.type == Type::kInt16 || value.type == Type::kInt32 ||
                         value.type == Type::kInt64;
  if (!is_signed) return bits >> 63U != 0 ? -1 : static_cast<std::int64_t>(bits);
  const auto unused = 64 - 8 * size;
  return std::bit_cast<std::int64_t>(bits << unused) >> unused;
}

double GgufHeader::real_number(const Value& value, std::size_t at) {
  const auto size = size_of(value.type);
  const auto bits = little_endian(value.bytes.subspan(at * size, size));
  if (value.type == Type::kFloat64) return std::bit_cast<double>(bits);
  return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
}

std::optional<std::string_view> GgufHeader::text(std::string_view key) const {
  const auto* value = find(
      key, /*is_list=*/false, [](Type type) { return type == Type::kString; }, "expected a text");
  if (value == nullptr) return std::nullopt;
  auto rest = value->bytes;
  return next_text(rest);
}

namespace {

constexpr const char* kWholeNumber = "expected a whole number";
constexpr const char* kNumbers = "expected a list of numbers";

}  // namespace

std::optional<std::int64_t> GgufHeader::whole_number(std::string_view key) const {
  const auto is_whole = [](Type type) {
    return type != Type::kString && type != Type::kBool && type != Type::kFloat32 && type != Type::kFloat64;
  };
  const auto* value = find(key, /*is_list=*/false, is_whole, kWholeNumber);
  return value == nullptr ? std::nullopt : std::optional(whole_number(*value, 0));
}

std::optional<double> GgufHeader::number(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  const bool is_real = !value->is_list && (value->type == Type::kFloat32 || value->type == Type::kFloat64);
  if (is_real) return real_number(*value, 0);
  return static_cast<double>(*whole_number(key));
}

std::optional<bool> GgufHeader::flag(std::string_view key) const {
  const auto* value = find(
      key, /*is_list=*/false, [](Type type) { return type == Type::kBool; }, "expected true or false");
  return value == nullptr ? std::nullopt : std::optional(value->bytes.front() != std::byte{0});
}

std::optional<std::vector<std::string_view>> GgufHeader::texts(std::string_view key) const {
  const auto* value = find(
      key, /*is_list=*/true, [](Type type) { return type == Type::kString; }, "expected a list of texts");
  if (value == nullptr) return std::nullopt;
  std::vector<std::string_view> texts;
  texts.reserve(static_cast<std::size_t>(value->count));
  for (auto rest = value->bytes; !rest.empty();) texts.push_back(next_text(rest));
  return texts;
}

std::optional<std::vector<std::int64_t>> GgufHeader::whole_numbers(std::string_view key) const {
  const auto is_whole = [](Type type) {
    return type != Type::kString && type != Type::kFloat32 && type != Type::kFloat64;
  };
  const auto* value = find(key, /*is_list=*/true, is_whole, "expected a list of whole numbers");
  if (value == nullptr) return std::nullopt;
  std::vector<std::int64_t> numbers;
  numbers.reserve(static_cast<std::size_t>(value->count));
  for (std::size_t i = 0; i < value->count; ++i) numbers.push_back(whole_number(*value, i));
  return numbers;
}

std::optional<std::vector<float>> GgufHeader::numbers(std::string_view key) const {
  const auto* value = find(
      key, /*is_list=*/true, [](Type type) { return type == Type::kFloat32; }, kNumbers);
  if (value == nullptr) return std::nullopt;
  std::vector<float> numbers;
  numbers.reserve(static_cast<std::size_t>(value->count));
  for (std::size_t i = 0; i < value->count; ++i) numbers.push_back(static_cast<float>(real_number(*value, i)));
  return numbers;
}

std::optional<std::span<const std::byte>> GgufHeader::bytes(std::string_view key) const {
  const auto is_byte = [](Type type) { return type == Type::kUint8 || type == Type::kInt8; };
  const auto* value = find(key, /*is_list=*/true, is_byte, "expected a list of bytes");
  return value == nullptr ? std::nullopt : std::optional(value->bytes);
}

bool GgufHeader::is_list(std::string_view key) const {
  const auto* value = find(key);
  return value != nullptr && value->is_list;
}

std::string GgufHeader::shown(std::string_view key) const {
  const auto& value = *find(key);
  if (value.is_list) return "a list of " + std::to_string(value.count);
  switch (value.type) {
    case Type::kString:
      return in_quotes(*text(key));
    case Type::kBool:
      return *flag(key) ? "true" : "false";
    case Type::kFloat32:
    case Type::kFloat64: {
      char digits[32];
      const auto number = real_number(value, 0);
      const auto end = std::to_chars(digits, digits + sizeof digits, number, std::chars_format::general, 6).ptr;
      return {digits, end};
    }
    default:
      return std::to_string(whole_number(value, 0));
  }
}

void GgufHeader::refuse(std::string_view key, const std::string& expected) const {
  throw Error(where_ + ": " + one_line(key) + " is " + shown(key) + "; " + expected);
}

bool is_model_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

std::vector<fs::path> gguf_parts(const fs::path& file) {
  // "NAME-00001-of-00003.gguf"
  constexpr std::string_view kOf = "-of-", kEnding = ".gguf";
  constexpr std::size_t kDigits = 5, kTail = 1 + kDigits + kOf.size() + kDigits + kEnding.size();
  const std::string name = file.filename().native();
  if (name.size() < kTail || !name.ends_with(kEnding)) return {file};
  const std::string_view tail = std::string_view(name).substr(name.size() - kTail);
  const auto number_at = [&](std::size_t at) -> std::optional<int> {
    int number = 0;
    const auto* end = tail.data() + at + kDigits;
    const auto [behind, error] = std::from_chars(tail.data() + at, end, number);
    return error == std::errc() && behind == end && number >= 0 ? std::optional(number) : std::nullopt;
  };
  const auto own = number_at(1), count = number_at(1 + kDigits + kOf.size());
  if (tail.front() != '-' || !own || !count || tail.substr(1 + kDigits, kOf.size()) != kOf) return {file};
  if (*own < 1 || *own > *count) {
    throw Error(label_of(file) + ": is part " + std::to_string(*own) + " of " + std::to_string(*count) +
                " by its name; expected a number from 1 to " + std::to_string(*count));
  }
  std::vector<fs::path> parts;
  for (int number = 1; number <= *count; ++number) {
    auto digits = std::to_string(number);
    digits.insert(0, kDigits - digits.size(), '0');
    auto part = name;
    parts.push_back(file.parent_path() / part.replace(name.size() - kTail + 1, kDigits, digits));
  }
  return parts;
}

}  // namespace rometrace
