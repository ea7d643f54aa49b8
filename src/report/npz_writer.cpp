#include "report/npz_writer.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <type_traits>

#include "rometrace/text/utf8.hpp"
#include "text/little_endian.hpp"

namespace rometrace {
namespace {

static_assert(sizeof(float) == 4 && sizeof(double) == 8);

template <typename Number>
void append_bytes(std::string& bytes, Number number) {
  using Bits = std::conditional_t<sizeof(Number) == 8, std::uint64_t, std::uint32_t>;
  append_little_endian(bytes, std::bit_cast<Bits>(number), sizeof(Bits));
}

template <typename Number>
std::string bytes_of_numbers(std::span<const Number> numbers) {
  std::string bytes;
  bytes.reserve(numbers.size() * sizeof(Number));
  for (const auto number : numbers) append_bytes(bytes, number);
  return bytes;
}

std::u32string code_points(const std::string& text) {
  std::u32string points;
  const auto valid = to_valid_utf8(text);
  for (std::string_view rest = valid; !rest.empty();) {
    const auto length = utf8_character_length(rest);
    const auto first = static_cast<unsigned char>(rest.front());
    char32_t point = length == 1 ? first : first & (0xFFU >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) point = point << 6U | (static_cast<unsigned char>(rest[i]) & 0x3FU);
    points += point;
    rest.remove_prefix(length);
  }
  return points;
}

/// As Python shows a tuple: "()", "(4,)", "(4, 8)".
std::string tuple_of(const NpzWriter::Shape& shape) {
  std::string text = "(";
  for (const auto length : shape) text += (text.size() > 1 ? " " : "") + std::to_string(length) + ",";
  if (shape.size() > 1) text.pop_back();
  return text + ")";
}

}  // namespace

void NpzWriter::add(std::string_view name, std::span<const float> values, const Shape& shape) {
  add_array(name, "<f4", shape, bytes_of_numbers(values));
}

void NpzWriter::add(std::string_view name, std::span<const double> values, const Shape& shape) {
  add_array(name, "<f8", shape, bytes_of_numbers(values));
}

void NpzWriter::add(std::string_view name, std::span<const std::int64_t> values, const Shape& shape) {
  add_array(name, "<i8", shape, bytes_of_numbers(values));
}

void NpzWriter::add_flag(std::string_view name, bool value) {
  add_array(name, "|b1", {}, std::string(1, value ? '\1' : '\0'));
}

void NpzWriter::add_texts(std::string_view name, std::span<const std::string> texts, const Shape& shape) {
  std::vector<std::u32string> all;
  std::size_t longest = 1;  // as NumPy has it
  for (const auto& text : texts) {
    all.push_back(code_points(text));
    longest = std::max(longest, all.back().size());
  }
  std::string bytes;
  for (auto& points : all) {
    points.resize(longest, U'\0');
    for (const auto point : points) append_bytes(bytes, static_cast<std::uint32_t>(point));
  }
  add_array(name, "<U" + std::to_string(longest), shape, bytes);
}

void NpzWriter::add_array(std::string_view name, const std::string& type, const Shape& shape, std::string_view values) {
  constexpr std::size_t kBefore = 10;  // bytes before the header
  constexpr std::size_t kBlock = 64;   // of which header and what is before it fill a whole number
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + tuple_of(shape) + ", }";
  header.resize((kBefore + header.size() + kBlock) / kBlock * kBlock - kBefore - 1, ' ');
  header += '\n';
  assert(header.size() <= 0xFFFF);
  std::string array("\x93NUMPY\x01\x00", 8);
  append_little_endian(array, header.size(), 2);
  array += header;
  array += values;
  zip_.add(std::string(name) + ".npy", array);
}

}  // namespace rometrace
